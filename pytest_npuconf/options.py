"""Command line, ini and environment, read once into one frozen Settings."""

from __future__ import annotations

import os
import shlex
from argparse import ArgumentError
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_npuconf.errors import SettingsError
from pytest_npuconf.option_values import (
    FALSE,
    parse_endpoint,
    parse_name,
    parse_names,
    parse_path,
    parse_precisions,
    parse_reference,
    parse_seconds,
    parse_switch,
)

if TYPE_CHECKING:
    import pytest

PREFIXED_ONLY = "NPUCONF_PREFIXED_ONLY"
WEIGHTS_VARIABLE = "NPUCONF_WEIGHTS"
CACHE_VARIABLE = "NPUCONF_CACHE"


@dataclass(frozen=True)
class Option:
    """One option: ``--npuconf-<name>`` with its ini twin ``npuconf_<name>``, and the user's short word if it has one."""

    name: str
    parse: Callable[[str], Any]
    help: str
    metavar: str = ""
    short: str = ""
    repeatable: bool = False
    default: Any = None

    @property
    def flag(self) -> str:
        """The prefixed flag."""
        return f"--npuconf-{self.name}"

    @property
    def dest(self) -> str:
        """Attribute of ``config.option`` and name of the ini twin."""
        return "npuconf_" + self.name.replace("-", "_")

    @property
    def switch(self) -> bool:
        """Whether the option takes no value."""
        return self.parse is parse_switch


OPTIONS = (
    Option("model", parse_names, "judge this model: a card's name or path/to/card.toml (repeatable, comma list)",
           "NAME|CARD", "--model", True, ()),
    Option("device", parse_name, "device under test: cpu, cuda, npu (--npu is the same as --npuconf-device npu); default cpu",
           "NAME", default="cpu"),
    Option("simulate", parse_switch, "with --npu: the device is a simulated NPU on this host, and every output says SIMULATED"),
    Option("precision", parse_precisions, "judge at these precisions of the device (comma list of float32, float16, "
           "bfloat16, int8, int4); default: the card's", "NAMES", default=()),
    Option("engine", parse_name, "how the model is run: transformers (default), server (vllm serve, started as the card says, "
           "or at --npuconf-endpoint), vllm (its offline LLM)", "NAME", default="transformers"),
    Option("endpoint", parse_endpoint, "judge the OpenAI-compatible server that answers there; MODE: of the card, default "
           "generate (repeatable)", "[MODE=]URL", repeatable=True, default=()),
    Option("timeout", parse_seconds, "how long a request to a server may take before it counts as lost; default 120", "SECONDS",
           default=120.0),
    Option("reference", parse_reference, "where the reference comes from: stored, live (float32 on the CPU), or auto: stored "
           "where it is comparable, else live", "KIND", default="auto"),
    Option("record", parse_switch, "record the live reference of this run beside the card, or under --npuconf-baselines"),
    Option("calibrate", parse_switch, "measure how far benign variants go on this device, instead of judging, and store it "
           "beside the card, or under --npuconf-baselines"),
    Option("weights", parse_path, "folder with the model's weights and tokenizer (one model only)", "DIR"),
    Option("baselines", parse_path, "a folder of your own with <model>/card.toml, looked at before the shipped ones", "DIR"),
    Option("results", parse_path, "write the results as JSON to this file", "FILE"),
    Option("report", parse_path, "write an HTML report to this file: verdict, failures, every check, pictures; opens offline",
           "FILE"),
    Option("fault", parse_name, "inject this named defect into the candidate, to see what catches it ('list' prints them)",
           "NAME"),
    Option("strict-claims", parse_switch, "let documented claims that are not reproduced fail the run"),
    Option("trust-remote-code", parse_switch, "let a checkout of the model run its own Python code (off by default)"),
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """Everything the user chose, and the environment's folders."""

    models: tuple[str, ...] = ()
    device: str = "cpu"
    simulate: bool = False
    precisions: tuple[str, ...] = ()
    engine: str = "transformers"
    endpoints: tuple[tuple[str, str], ...] = ()
    timeout: float = 120.0
    reference: str = "auto"
    weights: Path | None = None
    weights_root: Path | None = None
    baselines: Path | None = None
    results: Path | None = None
    report: Path | None = None
    fault: str | None = None
    record: bool = False
    calibrate: bool = False
    strict_claims: bool = False
    trust_remote_code: bool = False
    cache: Path = field(default_factory=lambda: Path("~/.cache/npuconf").expanduser())

    @property
    def active(self) -> bool:
        """Whether this run judges anything: a model was named."""
        return bool(self.models)

    def command(self, *more: str) -> str:
        """The pytest command that repeats this run, narrowed by ``more``; prefixed names, which work everywhere."""
        words = ["pytest", "--npuconf-device", self.device]
        words += [word for model in self.models for word in ("--npuconf-model", model)]
        valued = {
            "--npuconf-precision": ",".join(self.precisions) or None,
            "--npuconf-engine": self.engine if self.engine != "transformers" else None,
            "--npuconf-timeout": f"{self.timeout:g}" if self.timeout != 120.0 else None,
            "--npuconf-reference": self.reference if self.reference != "auto" else None,
            "--npuconf-weights": self.weights,
            "--npuconf-baselines": self.baselines,
            "--npuconf-fault": self.fault,
        }
        words += [word for mode, url in self.endpoints for word in ("--npuconf-endpoint", f"{mode}={url}")]
        for flag, value in valued.items():
            words += [flag, str(value)] if value is not None else []
        switches = {
            "--npuconf-simulate": self.simulate,
            "--npuconf-record": self.record,
            "--npuconf-calibrate": self.calibrate,
            "--npuconf-strict-claims": self.strict_claims,
            "--npuconf-trust-remote-code": self.trust_remote_code,
        }
        words += [flag for flag, on in switches.items() if on]
        return shlex.join([*words, *more])


def add_options(parser: pytest.Parser, environ: Mapping[str, str] = os.environ) -> None:
    """Register every option and ini twin.

    Raises:
        SettingsError: somebody else already owns ``--npu`` or ``--model``.
    """
    group = parser.getgroup("npuconf", "npuconf: conformance of language models on an accelerator")
    short = not prefixed_only(environ)
    for option in OPTIONS:
        flags = [option.flag] + ([option.short] if option.short and short else [])
        arguments: dict[str, Any] = {
            "dest": option.dest,
            "default": None,
            "help": f"{option.help} [ini: {option.dest}]",
        }
        if option.switch:
            arguments["action"] = "store_true"
        else:
            arguments.update(action="append" if option.repeatable else "store", metavar=option.metavar)
        _add(group, flags, arguments)
        parser.addini(option.dest, f"same as {option.flag}", type="string", default="")
    if short:
        _add(group, ["--npu"], {"dest": "npuconf_npu", "action": "store_true", "default": False,
                                "help": "the device under test is the Ascend NPU (same as --npuconf-device npu)"})  # fmt: skip


def prefixed_only(environ: Mapping[str, str]) -> bool:
    """Whether the environment drops the short names ``--npu`` and ``--model``."""
    try:
        return parse_switch(environ.get(PREFIXED_ONLY, ""))
    except ValueError as error:
        raise SettingsError(f"{PREFIXED_ONLY}: {error}", mend=f"export {PREFIXED_ONLY}=1") from error


def _add(group: Any, flags: Sequence[str], arguments: Mapping[str, Any]) -> None:
    try:
        group.addoption(*flags, **arguments)
    except (ValueError, ArgumentError) as error:
        raise taken(str(error)) from error


def taken(reason: str) -> SettingsError:
    """The error for a short name that another conftest or plugin owns."""
    return SettingsError(
        f"another conftest.py or plugin also defines one of pytest-npuconf's short options: {reason}",
        mend=f"{PREFIXED_ONLY}=1 pytest --npuconf-model NAME --npuconf-device npu (drops our --model and --npu)",
    )


def registered_twice(parser: pytest.Parser) -> str:
    """``--model`` or ``--npu`` when two groups of pytest 8's parser have it, else nothing."""
    groups = [*getattr(parser, "_groups", []), getattr(parser, "_anonymous", None)]
    options = {id(option): option for group in groups for option in getattr(group, "options", [])}
    names = [name for option in options.values() if hasattr(option, "names") for name in option.names()]
    return next((short for short in ("--model", "--npu") if names.count(short) > 1), "")


def read_settings(config: pytest.Config, environ: Mapping[str, str] = os.environ) -> Settings:
    """The frozen settings of this run: command line over ini over default.

    Raises:
        SettingsError: a value that cannot be used, naming where it was written.
    """
    values = {option.name: _read(config, option) for option in OPTIONS}
    device = values["device"]
    if config.getoption("npuconf_npu", False):
        if config.getoption("npuconf_device") not in (None, "npu"):
            raise SettingsError(f"--npu and --npuconf-device {device} name two devices", mend="give one of them")
        device = "npu"
    if values["simulate"] and device != "npu":
        raise SettingsError(
            f"--npuconf-simulate simulates an NPU, but the device under test is {device}",
            mend="add --npu (or --npuconf-device npu), or drop --npuconf-simulate",
        )
    models = tuple(dict.fromkeys(values["model"]))
    if values["weights"] is not None and len(models) > 1:
        raise SettingsError(
            f"--npuconf-weights names one folder, but {len(models)} models are judged: {', '.join(models)}",
            mend=f"put them in folders of these names under one folder and export {WEIGHTS_VARIABLE}=that folder",
        )
    return Settings(
        models=models,
        device=device,
        simulate=bool(values["simulate"]),
        precisions=tuple(dict.fromkeys(values["precision"])),
        engine=_engine(values, models),
        endpoints=values["endpoint"],
        timeout=values["timeout"],
        reference=values["reference"],
        weights=values["weights"],
        weights_root=environment_path(environ, WEIGHTS_VARIABLE),
        baselines=values["baselines"],
        results=values["results"],
        report=values["report"],
        fault=values["fault"],
        record=_storing("record", values, environ),
        calibrate=_storing("calibrate", values, environ),
        strict_claims=bool(values["strict-claims"]),
        trust_remote_code=bool(values["trust-remote-code"]),
        cache=environment_path(environ, CACHE_VARIABLE) or parse_path("~/.cache/npuconf"),
    )


def _engine(values: Mapping[str, Any], models: Sequence[str]) -> str:
    """The engine; an endpoint can only be judged by engine server.

    Raises:
        SettingsError: an endpoint with another engine, of two models, or two of one mode.
    """
    endpoints, engine = values["endpoint"], str(values["engine"])
    if not endpoints:
        return engine
    url = endpoints[0][1]
    if engine != "server":
        raise SettingsError(f"--npuconf-endpoint {url}: engine {engine} asks no server", mend="--npuconf-engine server")
    if len(models) > 1:
        raise SettingsError(
            f"--npuconf-endpoint {url}: an endpoint serves one model, but {len(models)} are judged: {', '.join(models)}",
            mend="one run for each model",
        )
    modes = [mode for mode, _ in endpoints]
    if twice := [mode for mode in modes if modes.count(mode) > 1]:
        raise SettingsError(f"--npuconf-endpoint: two for mode {twice[0]}", mend="name the mode: MODE=URL")
    return engine


def _storing(verb: str, values: Mapping[str, Any], environ: Mapping[str, str]) -> bool:
    """Whether to ``record`` or ``calibrate``; neither ever happens by accident.

    Raises:
        SettingsError: in CI, with a fault, or with a stored reference; a calibration also with what only a judged run has.
    """
    if not values[verb]:
        return False
    flag = f"--npuconf-{verb}"
    if environ.get("CI", "").lower() not in FALSE:
        raise SettingsError(
            f"{flag}: this is CI (CI={environ['CI']}), which must not change what it is judged by",
            mend=f"{verb} by hand and commit the files; or, if you mean it: env -u CI pytest {flag} ...",
        )
    if values["simulate"]:
        raise SettingsError(
            f"{flag} with --npuconf-simulate: what is stored must come from real hardware",
            mend="drop --npuconf-simulate",
        )
    if values["fault"]:
        raise SettingsError(f"{flag} with --npuconf-fault {values['fault']}", mend=f"{verb} without a fault")
    if values["reference"] == "stored":
        raise SettingsError(f"{flag} needs a live reference", mend="drop --npuconf-reference stored")
    if verb == "calibrate" and values["record"]:
        raise SettingsError(f"{flag} with --npuconf-record", mend="record in a run of its own: it must be conformant")
    file = next((name for name in ("results", "report") if values[name]), None)
    if verb == "calibrate" and file is not None:
        other = f"--npuconf-{file}"
        raise SettingsError(
            f"{flag} with {other}: nothing is judged, and a calibration has a file of its own",
            mend=f"drop {other} (or -o npuconf_{file}=)",
        )
    return True


def environment_path(environ: Mapping[str, str], name: str) -> Path | None:
    """The folder that an environment variable names, None when it is not set.

    Raises:
        SettingsError: it cannot be used.
    """
    if not environ.get(name):
        return None
    try:
        return parse_path(environ[name])
    except ValueError as error:
        raise SettingsError(f"environment variable {name}: {error}", mend=f"export {name}=a folder") from error


def _read(config: pytest.Config, option: Option) -> Any:
    given = config.getoption(option.dest)
    if option.switch and given:
        return True
    where = option.flag
    if given is None or option.switch:
        given, where = config.getini(option.dest), f"ini {option.dest}"
        if given == "":
            return option.default
    try:
        if isinstance(given, list):
            return tuple(name for text in given for name in option.parse(text))
        return option.parse(given)
    except ValueError as error:
        raise SettingsError(f"{where}: {error}", mend=f"{option.flag}: {option.help}") from error
