"""Two servers under the same load in turn: is the second worse than the first, by more than the first differs from itself?"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pytest_npuconf.errors import EngineError, SettingsError
from pytest_npuconf.load.figures import FIGURES, JUDGED
from pytest_npuconf.load.run import load
from pytest_npuconf.load.shape import Shape
from pytest_npuconf.metrics.interleaved import (
    FEWEST_BLOCKS,
    Interleaved,
    Standing,
    block_ratios,
    floor_of,
    judge,
    order_of,
)


@dataclass(frozen=True)
class Compared:
    """``figures``: by name, B against A. ``rounds``: each figure of each round in order, with the letter; ``same``: those of A
    against A, from which the floors were learnt. ``doubts``: of any round's client."""

    figures: dict[str, Interleaved]
    order: str
    rounds: dict[str, list[float]]
    same: dict[str, list[float]]
    doubts: tuple[str, ...]

    @property
    def standing(self) -> Standing:
        """``worse`` where any figure is, ``not worse`` where all are."""
        found = {one.standing for one in self.figures.values()}
        return next(s for s in (Standing.WORSE, Standing.INCONCLUSIVE, Standing.NOT_WORSE) if s in found)

    def to_json(self) -> dict[str, Any]:
        """JSON values only; schema in docs/load.md."""
        figures = {
            name: {**dataclasses.asdict(one), "standing": one.standing.value} for name, one in self.figures.items()
        }
        return {
            "standing": self.standing.value, "doubts": list(self.doubts), "order": self.order, "figures": figures,
            "rounds": self.rounds, "same": self.same,
        }  # fmt: skip


def compare(
    a: str, b: str, models: tuple[str, str], shape: Shape, *, blocks: int = 8, margin: float = 0.1, timeout: float = 600.0,
    announce: Callable[[str], None] = lambda _: None,
) -> Compared:  # fmt: skip
    """Put ``shape`` on the servers at ``a`` and ``b`` in turn, ``blocks`` blocks of four rounds, and as often on ``a`` alone.

    Args:
        models: the names that they serve.
        margin: the slowdown that matters, 0.1 for ten per cent.

    Raises:
        SettingsError: fewer blocks than six, or a margin that is none, or within what ``a`` differs from itself by.
        EngineError: a request failed in any round.
    """
    if blocks < FEWEST_BLOCKS:
        raise SettingsError(f"--blocks {blocks}: at least {FEWEST_BLOCKS} are needed", mend=f"--blocks {FEWEST_BLOCKS}")
    if not 0 < margin < 10:
        raise SettingsError(
            f"--margin {margin:g}: must be a share above 0 and below 10", mend="--margin 0.1 for ten per cent"
        )
    order, doubts = order_of(blocks), list[str]()
    at_a, at_b = (a, models[0]), (b, models[1])
    # A against A first: a server that is not warm yet shows there, and widens the floor
    same = rounds({"A": at_a, "B": at_a}, order, shape, timeout, lambda line: announce(f"A against A, {line}"), doubts)
    floors = floors_of(same, order, blocks)
    log_margin = math.log1p(margin)
    for name, floor in floors.items():
        if floor >= log_margin:
            raise SettingsError(
                f"{name} of A differs from itself by {math.expm1(floor):.1%} over {blocks} blocks, so {margin:.0%} cannot be told",
                mend=f"--blocks {math.ceil(blocks * (floor / log_margin) ** 2) + 1}, more --requests, or a wider --margin",
            )
    # other prompts than before: those A has in its prefix cache now, and B has not
    other = dataclasses.replace(shape, seed=shape.seed + len(order))
    both = rounds({"A": at_a, "B": at_b}, order, other, timeout, lambda line: announce(f"A against B, {line}"), doubts)
    return Compared(figures_of(both, order, floors, log_margin), order, both, same, tuple(doubts))


def floors_of(same: Mapping[str, list[float]], order: str, blocks: int) -> dict[str, float]:
    """By figure, what rounds of A against A say that ``blocks`` blocks can tell; log slowdowns."""
    return {
        name: floor_of(
            [block_ratios(values, order, higher_is_better=FIGURES[name].higher_is_better)], blocks, len(same)
        )
        for name, values in same.items()
    }


def figures_of(
    both: Mapping[str, list[float]], order: str, floors: Mapping[str, float], margin: float
) -> dict[str, Interleaved]:
    """Each figure that has a floor, judged; ``margin`` on the log scale."""
    names = [name for name in both if name in floors]
    return {
        name: judge(
            both[name], order, higher_is_better=FIGURES[name].higher_is_better, floor=floors[name], margin=margin,
            comparisons=len(names),
        )
        for name in names
    }  # fmt: skip


def rounds(
    urls: Mapping[str, tuple[str, str]], order: str, shape: Shape, timeout: float, announce: Callable[[str], None],
    doubts: list[str],
) -> dict[str, list[float]]:  # fmt: skip
    """Each figure of each round; a figure that a round has not is left out. ``doubts`` grows by those of the client."""
    figures: dict[str, list[float]] = {name: [] for name in JUDGED}
    for i, letter in enumerate(order):
        announce(f"round {i + 1} of {len(order)}: {letter}")
        url, model = urls[letter]
        found = load(url, model, dataclasses.replace(shape, seed=shape.seed + i), timeout=timeout)
        if found.failures:
            raise EngineError(
                f"{url}: {found.failures} in round {i + 1}, {found.first_failure}",
                mend="a failed request is in no latency: see the server's log",
            )
        doubts.extend(doubt for doubt in found.doubts if doubt not in doubts)
        for name in JUDGED:
            value = FIGURES[name].of(found)
            if value is not None:
                figures[name].append(value)
    return {name: values for name, values in figures.items() if len(values) == len(order)}


def text(found: Compared) -> str:
    """What is printed: a line for each figure, doubts, the standing."""
    lines = [_line(name, one) for name, one in found.figures.items()]
    return "\n".join([*lines, *(f"  doubt: {doubt}" for doubt in found.doubts), f"B is {found.standing.value.upper()} than A"
                      if found.standing is not Standing.INCONCLUSIVE else "INCONCLUSIVE"])  # fmt: skip


def _line(name: str, one: Interleaved) -> str:
    def percent(ratio: float) -> str:
        return f"{ratio - 1:+.1%}"

    low, high = map(percent, one.interval)
    needed = f", {one.blocks_needed} blocks would settle it" if one.blocks_needed else ""
    return (
        f"  {name:<24} {percent(one.slowdown)} [{low}, {high}]   floor {percent(one.floor)}   p {one.p_value:.3f}   "
        f"Cliff's delta {one.effect:+.2f}   {one.standing.value}{needed}"
    )
