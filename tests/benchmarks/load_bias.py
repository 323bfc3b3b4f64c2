"""What clients add to known latencies: ours, and vLLM's own beside it, on the same server in the same run.

Run: ``.venv-serving/bin/python -m tests.benchmarks.load_bias --write`` (``make load-bias``). Both clients are asked in turn at each
concurrency, the truth server says how late it was itself, and the table goes into docs/load.md between its marks.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pytest_npuconf.engines.launchers import version_of
from pytest_npuconf.load.self_check import Truth, lateness, measure, truth_server
from pytest_npuconf.load.shape import Shape

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "load.md"
MARKS = ("<!-- load-bias -->", "<!-- /load-bias -->")
AT = (1, 10, 100, 300)
OUTPUT, INPUT = 128, 32
# vLLM's command fails where its distribution has another name; its modules do not
VLLM = (
    "from vllm.utils.argparse_utils import FlexibleArgumentParser as P\n"
    "from vllm.benchmarks.serve import add_cli_args, main\n"
    "p = P(); add_cli_args(p); main(p.parse_args())\n"
)


@dataclass(frozen=True)
class Row:
    """One client at one concurrency, milliseconds; ``rate``: of the ideal. ``late``: the truth server itself, on average."""

    client: str
    concurrency: int
    requests: int
    ttft: float
    ttft_p99: float
    itl_p99: float
    rate: float
    late: float


def requests_at(concurrency: int) -> int:
    """Enough for a 99th percentile to mean something, in seconds and not minutes."""
    return max(10, 5 * concurrency)


def ours(url: str, truth: Truth, concurrency: int) -> Row:
    """This project's client."""
    shape = Shape(requests_at(concurrency), concurrency, INPUT, OUTPUT, warmup=concurrency)
    bias, found = measure(url, truth, shape)
    ttft = [reply.ttft * 1e3 for reply in found.answered]
    return Row("npuconf load", concurrency, shape.requests, bias.ttft, float(np.percentile(ttft, 99)) - truth.ttft,
               bias.itl_p99, bias.rate, bias.truth_late)  # fmt: skip


def vllm_bench(url: str, model: str, tokenizer: Path, shape: Shape, *more: str) -> dict[str, Any]:
    """The JSON of ``vllm bench serve`` for ``shape``, each request in it; ``more``: further words of its command line."""
    with tempfile.TemporaryDirectory() as folder:
        words = [
            "--backend", "openai", "--base-url", url, "--endpoint", "/v1/completions", "--model", model,
            "--tokenizer", str(tokenizer), "--dataset-name", "random", "--seed", str(shape.seed),
            "--random-input-len", str(shape.input_len), "--random-output-len", str(shape.output_len),
            "--num-prompts", str(shape.requests), "--max-concurrency", str(shape.concurrency),
            "--num-warmups", str(shape.warmup), "--ignore-eos", "--disable-tqdm",
            "--save-result", "--save-detailed", "--result-dir", folder, "--result-filename", "found.json", *more,
        ]  # fmt: skip
        done = subprocess.run([sys.executable, "-c", VLLM, *words], capture_output=True, text=True, timeout=900)
        if done.returncode:
            raise SystemExit(f"vLLM's client failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        found: dict[str, Any] = json.loads((Path(folder) / "found.json").read_text())
    return found


def vllms(url: str, truth: Truth, concurrency: int) -> Row:
    """vLLM's benchmark client."""
    lateness(url)
    shape = Shape(requests_at(concurrency), concurrency, INPUT, OUTPUT, warmup=concurrency)
    found = vllm_bench(url, "truth", ROOT / "fixtures" / "tiny-qwen3", shape)
    ttft = np.array(found["ttfts"]) * 1e3
    gaps = np.concatenate([np.asarray(each) for each in found["itls"]]) * 1e3
    return Row("vllm bench serve", concurrency, len(ttft), float(ttft.mean()) - truth.ttft,
               float(np.percentile(ttft, 99)) - truth.ttft, float(np.percentile(gaps, 99)) - truth.itl,
               found["output_throughput"] / truth.rate(OUTPUT, concurrency), lateness(url))  # fmt: skip


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = ["| client | at once | requests | mean TTFT | p99 TTFT | p99 of gaps | of the ideal rate | the truth was late |",
             "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    lines += [f"| {r.client} | {r.concurrency} | {r.requests} | {r.ttft:+.2f} ms | {r.ttft_p99:+.2f} ms | {r.itl_p99:+.2f} ms | "
              f"{r.rate:.1%} | {r.late:.2f} ms |" for r in rows]  # fmt: skip
    return "\n".join(lines)


def measured_on() -> str:
    """The day, this host, and vLLM's version."""
    host = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return f"{datetime.date.today()}, {host}, vLLM {version_of('vllm')}"


def write_between(marks: tuple[str, str], text: str, page: Path = PAGE) -> None:
    """Into docs/load.md, or another page, in place of what stands there between the two marks."""
    before, rest = page.read_text(encoding="utf-8").split(marks[0])
    after = rest.split(marks[1])[1]
    page.write_text(f"{before}{marks[0]}\n{text}\n{marks[1]}{after}", encoding="utf-8")


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="into docs/load.md")
    parser.add_argument("--only-ours", action="store_true")
    parsed = parser.parse_args()
    truth, rows = Truth(), []
    with truth_server(truth) as url:
        for concurrency in AT:
            for client in (ours,) if parsed.only_ours else (ours, vllms):
                rows.append(client(url, truth, concurrency))
                print(table(rows[-1:]).splitlines()[-1], flush=True)
    if parsed.write:
        note = (f"{measured_on()}. Truth: first token after "
                f"{truth.ttft:g} ms, {OUTPUT} tokens, one every {truth.itl:g} ms. Differences from it:")  # fmt: skip
        write_between(MARKS, f"{note}\n\n{table(rows)}")


if __name__ == "__main__":
    main()
