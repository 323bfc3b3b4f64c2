"""What a real vLLM on this CPU says of its capacity: ``.venv-serving/bin/python -m tests.benchmarks.serving_capacity --write``.

Starts one after the other (a minute each), keeps the lines that :func:`read_capacity` reads and the line of the
metrics in tests/data/serving_capacity.json, and prints them beside what the configuration implies. Exit 1 where they differ.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pytest_npuconf.cards import find_card
from pytest_npuconf.engines.capacity import Expected, Reported, expected_capacity, read_cache_metrics, read_capacity
from pytest_npuconf.engines.launchers import Launch, VllmLauncher
from pytest_npuconf.engines.server_process import ServerProcess, free_port
from pytest_npuconf.files import write_atomically
from pytest_npuconf.options import Settings
from pytest_npuconf.weights import find_weights

DATA = Path(__file__).resolve().parents[1] / "data" / "serving_capacity.json"
HOST = "127.0.0.1"
# What is kept of a log: lines that say something of capacity. The others name files and addresses of the host.
KEPT = (
    "KV cache size",
    "GiB for KV cache",
    "Loading weights took",
    "Checkpoint size",
    "init engine",
    "Model loading took",
)


@dataclass(frozen=True)
class Case:
    """One start. ``gib``: memory for keys and values of a rank; ``block_size``: tokens, 128 where the command does not say;
    ``tensor_parallel``: ranks; ``offline``: vLLM's ``LLM`` instead of a server (then there are no metrics)."""

    model: str
    dtype: str
    gib: int
    max_model_len: int
    block_size: int = 128
    arguments: tuple[str, ...] = ()
    tensor_parallel: int = 1
    offline: bool = False

    def words(self) -> tuple[str, ...]:
        """The card's words for this case."""
        block = () if self.block_size == 128 else ("--block-size", str(self.block_size))
        return ("--enforce-eager", *block, *self.arguments)


# 1000 is no whole number of blocks: there the two ways of counting tokens differ.
CASES = (
    Case("tiny-qwen3", "bfloat16", 1, 1024),
    Case("tiny-qwen3", "float32", 2, 1000),
    Case("tiny-qwen3", "bfloat16", 1, 1024, 64, ("--runner", "pooling", "--convert", "embed")),
    Case("smollm2-135m-instruct", "bfloat16", 1, 2048),
    Case("tiny-qwen3", "bfloat16", 1, 1024, tensor_parallel=2, offline=True),
)
OFFLINE = """
if __name__ == "__main__":
    import json, sys
    from vllm import LLM
    LLM(**json.loads(sys.argv[1]))
"""


def weights_of(model: str) -> Any:
    """The checkpoint of a card, from where npuconf finds it."""
    return find_weights(find_card(model), Settings())


def run(case: Case, log: Path, announce: Callable[[str], None]) -> tuple[str, str]:
    """Start a server, read its log and its metrics, end it."""
    if case.offline:
        return _run_offline(case, log), ""
    port = free_port(HOST)
    launch = Launch(weights_of(case.model).folder, case.model, HOST, port, case.dtype, case.max_model_len, case.words())
    launcher = VllmLauncher()
    environment = {**launcher.environment(launch), "VLLM_CPU_KVCACHE_SPACE": str(case.gib)}
    url = f"http://{HOST}:{port}"
    process = ServerProcess(launcher.command(launch), environment, url, launcher.ready_route, log, name=case.model)
    try:
        process.start(announce)
        with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:
            metrics = answer.read().decode()
        return process.log_text(), metrics
    finally:
        process.close()


def _run_offline(case: Case, log: Path) -> str:
    """The log of an ``LLM`` that is built and ends: its code lies in a file, because the workers import it again."""
    given = {"model": str(weights_of(case.model).folder), "dtype": case.dtype, "max_model_len": case.max_model_len,
             "block_size": case.block_size, "enforce_eager": True, "tensor_parallel_size": case.tensor_parallel}  # fmt: skip
    threads = "|".join(str(rank % (os.cpu_count() or 1)) for rank in range(case.tensor_parallel))
    environment = {"VLLM_CPU_KVCACHE_SPACE": str(case.gib), "VLLM_CPU_OMP_THREADS_BIND": threads,
                   "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}  # fmt: skip
    code = log.with_suffix(".py")
    code.write_text(OFFLINE)
    with log.open("wb") as file:
        subprocess.run(
            [sys.executable, str(code), json.dumps(given)], check=True, timeout=600, stdout=file, stderr=file,
            env={**os.environ, **environment},
        )  # fmt: skip
    return log.read_text(encoding="utf-8", errors="replace")


def kept_lines(log: str, metrics: str) -> list[str]:
    """The lines of both that say something of capacity."""
    lines = [line for line in log.splitlines() if any(word in line for word in KEPT)]
    return [*lines, *(line for line in metrics.splitlines() if line.startswith("vllm:cache_config_info{"))]


def read(lines: list[str]) -> Reported:
    """What kept lines say."""
    text = "\n".join(lines)
    return read_capacity(text).completed(read_cache_metrics(text))


def expected(case: Case) -> Expected:
    """What the configuration implies, with the parameters that the checkpoint holds."""
    found = weights_of(case.model)
    return expected_capacity(
        found.config, case.dtype, "auto", case.block_size, case.gib << 30, case.max_model_len,
        tensor_parallel=case.tensor_parallel, parameters=found.parameters,
    )  # fmt: skip


def agree(reported: Reported, implied: Expected) -> bool:
    """Whether vLLM 0.32 reported what the configuration implies: the log's tokens and concurrency (two decimals), and the
    metrics' blocks where there are metrics."""
    blocks = (implied.blocks, implied.block_size)
    return (
        reported.kv_tokens == implied.request_tokens
        and (reported.kv_blocks, reported.block_size) in (blocks, (None, None))
        and reported.concurrency is not None
        and abs(reported.concurrency - implied.concurrency) <= 0.0051  # 682.625 is written as 682.62
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write tests/data/serving_capacity.json")
    options = parser.parse_args(arguments)
    kept, good = [], True
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            lines = kept_lines(*run(case, Path(folder) / "log", print))
        reported, implied = read(lines), expected(case)
        print(f"{case}\n  reported {reported}\n  implied  {implied}")
        good = good and agree(reported, implied)
        kept.append({"case": asdict(case), "versions": VllmLauncher().versions(), "lines": lines})
    if options.write:
        write_atomically(DATA, (json.dumps({"schema": 1, "runs": kept}, indent=1, sort_keys=True) + "\n").encode())
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
