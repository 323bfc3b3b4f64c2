"""What an installed but unused plugin adds to a pytest run: with against without, in turn.

Run: ``python -m tests.benchmarks.unused_plugin``. Aim: at most 20 ms in the median of the pairs.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.measure import run, show

ROUNDS = 15


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "test_one.py").write_text("def test_one():\n    pass\n")
        quiet = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_one.py"]
        sides = {"with": quiet, "without": [*quiet, "-p", "no:npuconf"]}
        times: dict[str, list[float]] = {side: [] for side in sides}
        for number in range(ROUNDS + 1):
            for side, command in sides.items():
                seconds, _ = run(command, cwd=folder, environment=dict(os.environ))
                if number:  # the first round warms the caches
                    times[side].append(1000 * seconds)
    print(f"a pytest run of one empty test, {ROUNDS} interleaved rounds:")
    for side, values in times.items():
        show(f"{side} pytest-npuconf", values, "ms")
    differences = [a - b for a, b in zip(times["with"], times["without"], strict=True)]
    show("difference, pair by pair", differences, "ms")
    print(f"added: {statistics.median(differences):.1f} ms (aim: at most 20)")


if __name__ == "__main__":
    main()
