"""A command as a whole process: seconds and peak memory, interleaved with another."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from pathlib import Path


def run(command: list[str], *, cwd: Path, environment: dict[str, str]) -> tuple[float, float]:
    """Wall seconds and peak memory (MiB) of one run of ``command``.

    Raises:
        RuntimeError: it failed; the message holds its output.
    """
    log = cwd / "log.txt"
    start = time.perf_counter()
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=cwd, env=environment, stdout=file, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"{command} gave {process.returncode}:\n{log.read_text()}")
    return seconds, usage.ru_maxrss / 1024


def show(name: str, values: list[float], unit: str) -> None:
    """Minimum, median and maximum of some runs."""
    print(
        f"  {name:<28} min {min(values):8.3f}  median {statistics.median(values):8.3f}  max {max(values):8.3f} {unit}"
    )
