"""The precision suite on smollm2-135m-instruct in bfloat16 against the bare loop: time and peak memory, in turn.

Run: ``python -m tests.benchmarks.suite_against_loop [ROUNDS]``. Aim: at most 1.3 times the loop.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.measure import run, show

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    suite = [
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--model",
        "smollm2-135m-instruct",
        "--npuconf-precision",
        "bfloat16",
        "--npuconf-reference",
        "live",
    ]
    sides = {"suite": [sys.executable, "-m", *suite], "loop": [sys.executable, "-m", "tests.benchmarks.bare_loop"]}
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    memory: dict[str, list[float]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds + 1):
            for side, command in sides.items():
                taken, peak = run(command, cwd=Path(folder), environment=environment)
                if number:  # the first round converts the weights and warms the page cache
                    seconds[side].append(taken)
                    memory[side].append(peak)
    print(f"whole processes, {rounds} interleaved rounds, {os.cpu_count()} cores:")
    for side in sides:
        show(f"{side}: time", seconds[side], "s")
        show(f"{side}: peak memory", memory[side], "MiB")
    ratios = [a / b for a, b in zip(seconds["suite"], seconds["loop"], strict=True)]
    print(f"suite / loop: {statistics.median(ratios):.2f} times (aim: at most 1.3)")


if __name__ == "__main__":
    main()
