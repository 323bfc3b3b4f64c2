"""Faults of speed before real vLLM, and the same server against itself: ``python -m tests.benchmarks.speed_faults``.

One server of tiny-qwen3 on this CPU, and a proxy in front of it on either side, so that both sides carry its cost. A against A, in
twenty tries, shows how often a healthy server is called worse; then each fault takes the place of B, at growing magnitude. Then the
checks of the suite on recorded sessions. ``--write`` puts the tables into docs/speed.md.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_npuconf.faults.base import Injector
from pytest_npuconf.faults.proxy import Proxy
from pytest_npuconf.faults.serving_speed import one_in, slower, slower_tokens
from pytest_npuconf.load.compare import figures_of, floors_of, rounds
from pytest_npuconf.load.figures import JUDGED
from pytest_npuconf.load.shape import Shape
from pytest_npuconf.metrics.interleaved import Interleaved, Standing, order_of
from tests.benchmarks.load_agreement import server
from tests.benchmarks.load_bias import measured_on, write_between

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "speed.md"
MARKS = ("<!-- speed-faults -->", "<!-- /speed-faults -->")
MODEL = "tiny-qwen3"
SHAPE = Shape(20, 4, 32, 24, warmup=0)  # twenty, so that one in twenty is in each round
TRIES, TRY_BLOCKS, BLOCKS = 20, 8, 24
FAULTS: tuple[tuple[str, str, Injector], ...] = (
    *(("everything slower", f"{m:.0%}", slower(m)) for m in (0.02, 0.05, 0.1, 0.2)),
    *(("tokens behind the first slower", f"{m:.0%}", slower_tokens(m)) for m in (0.05, 0.1, 0.2, 1.0)),
    ("long tail", "1 in 20, x 3", one_in(20, 2.0)),
    ("long tail", "1 in 20, x 5", one_in(20, 4.0)),
)
SESSIONS = 8


@dataclass(frozen=True)
class Found:
    """One comparison. ``standing`` of the whole; ``by``: the figures that are worse."""

    name: str
    magnitude: str
    standing: Standing
    by: tuple[str, ...]
    figures: Mapping[str, Interleaved]


@contextlib.contextmanager
def behind(url: str, inject: Injector) -> Iterator[str]:
    """A proxy in front of ``url``; where it listens."""
    with Proxy(url) as proxy:
        inject(proxy)
        yield proxy.url


def compared(
    urls: Mapping[str, str], name: str, magnitude: str, blocks: int, floors: Mapping[str, float], seed: int
) -> Found:
    """B against A over ``blocks`` blocks, with floors that were learnt before."""
    order = order_of(blocks)
    shape = dataclasses.replace(SHAPE, seed=seed)
    both = rounds({letter: (url, MODEL) for letter, url in urls.items()}, order, shape, 120.0, lambda _: None, [])
    # a floor of other than as many blocks: the spread is the same, its mean's is not
    scaled = {figure: floor * math.sqrt(TRY_BLOCKS / blocks) for figure, floor in floors.items()}
    figures = figures_of(both, order, scaled, margin=5.0)
    worse = tuple(figure for figure, one in figures.items() if one.standing is Standing.WORSE)
    standing = Standing.WORSE if worse else Standing.NOT_WORSE
    return Found(name, magnitude, standing, worse, figures)


def campaign(url: str, say: Callable[[str], None]) -> tuple[list[Found], list[Found]]:
    """The tries of A against A, and the faults."""
    seed = iter(range(1_000_000, 10_000_000, 10_000))
    with behind(url, slower(0.0)) as healthy:
        order = order_of(TRY_BLOCKS)
        shape = dataclasses.replace(SHAPE, warmup=4, seed=next(seed))
        same = rounds({"A": (healthy, MODEL), "B": (healthy, MODEL)}, order, shape, 120.0, lambda _: None, [])
        floors = floors_of(same, order, TRY_BLOCKS)
        say("floors: " + ", ".join(f"{name} {math.expm1(floor):.1%}" for name, floor in floors.items()))
        tries = []
        for number in range(TRIES):
            tries.append(
                compared({"A": healthy, "B": healthy}, "A against A", str(number + 1), TRY_BLOCKS, floors, next(seed))
            )
            say(spoken(tries[-1]))
        found = []
        for name, magnitude, inject in FAULTS:
            with behind(url, inject) as faulty:
                found.append(compared({"A": healthy, "B": faulty}, name, magnitude, BLOCKS, floors, next(seed)))
            say(spoken(found[-1]))
    return tries, found


def spoken(found: Found) -> str:
    """A line of progress."""
    slow = ", ".join(f"{name} {one.slowdown - 1:+.1%}" for name, one in found.figures.items())
    return f"{found.name}, {found.magnitude}: {found.standing.value} ({', '.join(found.by) or '-'}); {slow}"


def suite(url: str, folder: Path, say: Callable[[str], None]) -> list[tuple[str, str, str]]:
    """Sessions of the healthy server, recorded by the suite's own command; then each fault, judged by ``speed.baseline``."""
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--model", MODEL, "--npuconf-engine", "server",
             "--npuconf-precision", "bfloat16", "--npuconf-endpoint", url, "--npuconf-baselines", str(folder / "baselines"),
             "--npuconf-results", "results.json"]  # fmt: skip
    (folder / "baselines").mkdir()

    def run(*more: str) -> dict[str, Any]:
        subprocess.run([*words, *more], cwd=folder, capture_output=True, text=True, timeout=600)
        told: dict[str, Any] = json.loads((folder / "results.json").read_text())
        return {check["check"].split(".")[1]: check for check in told["checks"]}

    for number in range(SESSIONS):
        found = run("-k", "speed and run", "--npuconf-record")
        say(f"session {number + 1}: {found['run']['data']['statistics']['output_tokens_per_second']:.0f} tok/s")
    lines = []
    for fault in ("", "benign-proxy", "slower-5%", "tpot-doubled", "long-tail"):
        check = run("-k", "speed and baseline", *(["--npuconf-fault", fault] if fault else []))["baseline"]
        worst = check["data"]["figures"][0]
        lines.append((fault or "none", check["verdict"],
                      f"{worst['figure']} {worst['slowdown'] - 1:+.1%}, {worst['allowed'] - 1:+.1%} allowed"))  # fmt: skip
        say(" ".join(lines[-1]))
    return lines


def tables(tries: Sequence[Found], found: Sequence[Found], sessions: Sequence[tuple[str, str, str]]) -> str:
    """Markdown."""
    alarms = [one for one in tries if one.standing is Standing.WORSE]
    lines = [
        f"The same server against itself, {len(tries)} tries of {TRY_BLOCKS} blocks: called worse {len(alarms)} times"
        + (f" ({'; '.join(', '.join(one.by) for one in alarms)})" if alarms else "")
        + f". Faults, {BLOCKS} blocks each, interleaved with the healthy server:\n",
        "| fault | magnitude | called worse | by | throughput | TTFT | TPOT | latency | slowest tenth |",
        "|---" * 9 + "|",
    ]
    for one in found:
        cells = " | ".join(_cell(one.figures[name]) for name in JUDGED)
        worse = "yes" if one.by else "no"
        lines.append(f"| {one.name} | {one.magnitude} | {worse} | {', '.join(one.by) or '-'} | {cells} |")
    lines += [
        f"\n`speed.baseline` after {SESSIONS} recorded sessions of one started server:\n",
        "| fault | verdict | worst figure |", "|---|---|---|",
        *(f"| {fault} | {verdict} | {worst} |" for fault, verdict, worst in sessions),
    ]  # fmt: skip
    return "\n".join(lines)


def _cell(one: Interleaved) -> str:
    low, high = one.interval
    return f"{one.slowdown - 1:+.1%} [{low - 1:+.1%}, {high - 1:+.1%}]"


def main() -> int:
    """1 where a try of A against A was called worse, or a fault of ten per cent or more was not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="into docs/speed.md")
    parsed = parser.parse_args()

    def say(line: str) -> None:
        print(line, flush=True)

    with tempfile.TemporaryDirectory(prefix="npuconf-speed-") as folder, server(Path(folder)) as (url, _):
        tries, found = campaign(url, say)
        sessions = suite(url, Path(folder), say)
    text = tables(tries, found, sessions)
    print(text)
    if parsed.write:
        write_between(MARKS, f"{measured_on()}, {MODEL} (STAND-IN) on the CPU.\n\n{text}", PAGE)
    missed = [one for one in found if not one.by and one.magnitude not in ("2%", "5%")]
    return 1 if missed or any(one.by for one in tries) else 0


if __name__ == "__main__":
    sys.exit(main())
