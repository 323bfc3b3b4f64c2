"""Reader of ``[speed]``: at which load a model's speed is measured, and what it must reach on which hardware."""

from __future__ import annotations

import math

from pytest_npuconf.cards.schema import Floor, Speed
from pytest_npuconf.cards.toml_reader import Table
from pytest_npuconf.errors import nearest
from pytest_npuconf.metrics.objectives import Slo
from pytest_npuconf.metrics.speed_figures import EVERY

FEWEST_ROUNDS = 3


def read_speed(table: Table) -> Speed:
    """``[speed]``; an empty one is the defaults."""
    default = Speed()
    numbers = {name: table.take(name, int, getattr(default, name)) for name in _LEAST}
    for name, least in _LEAST.items():
        if numbers[name] < least:
            raise table.error(name, f"must be at least {least}, got {numbers[name]}")
    seconds = table.take("long_run_seconds", float, default.long_run_seconds)
    if not 0 < seconds < math.inf:
        raise table.error("long_run_seconds", f"must be seconds above 0, got {seconds:g}")
    found = Speed(
        **numbers, long_run_seconds=seconds, sweep=_sweep(table, default), objectives=_objectives(table.table("slo")),
        floors=tuple(_floor(each) for each in table.tables("floors")),
    )  # fmt: skip
    table.finish()
    return found


_LEAST = {"input_len": 1, "output_len": 8, "concurrency": 1, "requests": 4, "rounds": FEWEST_ROUNDS}


def _sweep(table: Table, default: Speed) -> tuple[int, ...]:
    found = table.take("sweep", list, list(default.sweep))
    if not all(isinstance(each, int) and not isinstance(each, bool) and each >= 1 for each in found):
        raise table.error("sweep", f"must be requests at once, each at least 1, got {found!r}")
    if len(found) < 2 or sorted(set(found)) != found:
        raise table.error("sweep", f"must be two or more growing numbers, got {found!r}")
    return tuple(found)


def _objectives(table: Table) -> Slo | None:
    if not table.data:
        return None
    stated = {name: table.take(f"{name}_ms", float) for name in ("ttft", "tpot") if f"{name}_ms" in table}
    for name, value in stated.items():
        if not 0 < value < math.inf:
            raise table.error(f"{name}_ms", f"must be milliseconds above 0, got {value:g}")
    table.finish()
    return Slo(**{name: value / 1e3 for name, value in stated.items()})


def _floor(table: Table) -> Floor:
    figure = table.words("figure")
    if figure not in EVERY:
        raise table.error("figure", f"is {figure!r}{nearest(figure, list(EVERY))}", mend=f"one of: {', '.join(EVERY)}")
    _, higher_is_better = EVERY[figure]
    side = "at_least" if higher_is_better else "at_most"
    bound = table.take(side, float)
    if not 0 < bound < math.inf:
        raise table.error(side, f"must be above 0, got {bound:g}")
    hardware = table.take("hardware", dict)
    if "device" not in hardware or "chip" not in hardware:
        raise table.error(
            "hardware", "must name device and chip: a floor holds on no other", mend="what the run's header says"
        )
    for key, value in hardware.items():
        if not isinstance(value, str):
            raise table.error("hardware", f"must map names to strings, {key} is {value!r}")
    found = Floor(figure, bound, dict(hardware), table.words("source"))
    table.finish()
    return found
