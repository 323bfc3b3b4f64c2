"""Aggregates that stand beside their values: columns "mean" and "max", a column relative to one row, keys under each other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations

from pytest_npuconf.audit.context import Context
from pytest_npuconf.audit.document import Pair
from pytest_npuconf.audit.facts import BYTES
from pytest_npuconf.audit.findings import Finding, Level
from pytest_npuconf.audit.interval import Interval, around, largest, mean, median, plain, smallest
from pytest_npuconf.audit.numbers import Number, numbers_in
from pytest_npuconf.audit.quantities import Name, aggregate_of_row, read_name
from pytest_npuconf.audit.rules._grid import Grid, Row, exact, stated
from pytest_npuconf.audit.rules._performance import Speed, speed

_FUNCTIONS = {"mean": mean, "median": median, "max": largest, "min": smallest}
_NUMBERED = re.compile(r"(\D*?)[\s#_-]*\d{1,4}\s*(\D*)")


def _runs(grid: Grid) -> list[int]:
    """The columns of repetitions: "Run 1", "Run 2": two or more names that differ by their number only."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for j in range(1, len(grid.names)):
        match = _NUMBERED.fullmatch(grid.table.header[j].text[:80].strip())
        if match and grid.names[j].aggregate != "percentile":  # "P25", "P75" are no repetitions
            groups.setdefault(tuple(part.strip().lower() for part in match.groups()), []).append(j)
    found = [columns for columns in groups.values() if len(columns) >= 2]
    return found[0] if len(found) == 1 else []


def _row_values(row: Row, columns: list[int]) -> list[Interval]:
    numbers = [exact(row.numbers[j]) for j in columns]
    units = {n.unit for n in numbers if n is not None}
    return [stated(n) for n in numbers if n is not None] if all(numbers) and len(units) == 1 else []


def beside_values(context: Context, grid: Grid) -> Iterator[Finding]:
    """A column "mean" or "max" beside columns of numbered runs, where at least two rows and two thirds of them agree."""
    columns = _runs(grid)
    for j in range(1, len(grid.names)) if columns and not grid.incomplete else ():
        kind = aggregate_of_row(grid.table.header[j].text)
        if kind not in _FUNCTIONS or j in columns:
            continue
        fits, misfits = 0, list[tuple[Number, Interval]]()
        for row in grid.details:
            number, values = exact(row.numbers[j]), _row_values(row, columns)
            if number is None or not values or number.unit != next(n.unit for i in columns if (n := row.numbers[i])):
                continue
            value = _FUNCTIONS[kind](values)
            cut = Interval(number.value, number.value + 2 * number.half_ulp)
            if not value.overlaps(stated(number)) and not value.overlaps(cut):
                misfits.append((number, value))
            elif len({v.middle for v in values}) > 1:  # of equal values every aggregate is the same
                fits += 1
        if fits < 2 or fits < 2 * len(misfits):
            continue
        for number, value in misfits:
            message = f"{number.text} is not the {kind} of its row, as in the other rows"
            how = f"{kind} of {len(columns)} columns = {plain(value.middle)}"
            yield context.finding("aggregate", Level.CONTRADICTION, number.line, message, how)


_RELATIVE = re.compile(r"(?:相对于?|relative to|ratio to)\s*(?P<base>[\w.\- ]{1,30}?)", re.IGNORECASE)
_MEASURED = {"weight_size", "memory", "latency", "throughput", "ttft", "tpot", "itl", "ppl"}


def _measured(grid: Grid, j: int) -> bool:
    """Whether the column holds sizes, times or rates, no settings such as bits."""
    size = re.search(r"体积|大小|\bsize\b", grid.table.header[j].text, re.IGNORECASE)
    units = {n.unit for row in grid.rows if (n := row.numbers[j]) is not None}
    return grid.names[j].quantity in _MEASURED or (size is not None and units <= BYTES.keys())


def _ratio_agrees(number: Number, own: Number, base: Number) -> bool:
    scale = 100.0 if number.unit == "%" else 1.0
    readings = [around(own) / around(base) * scale, around(base) / around(own) * scale]
    return any(value.overlaps(stated(number)) for value in readings)


def relative_to_row(context: Context, grid: Grid) -> Iterator[Finding]:
    """ "relative to BF16", which is 1 in the row BF16: a ratio (or its inverse) of the column just before it."""
    for j in range(2, len(grid.names)):
        match = _RELATIVE.fullmatch(grid.table.header[j].text.strip())
        bases = [r for r in grid.rows if match and r.label.strip().lower() == match["base"].strip().lower()]
        if len(bases) != 1 or not _measured(grid, j - 1) or grid.names[j - 1].delta:
            continue
        one, base = exact(bases[0].numbers[j]), exact(bases[0].numbers[j - 1])
        numeric = [k for k in range(1, len(grid.names)) if k != j and any(row.numbers[k] for row in grid.rows)]
        if (
            one is None
            or base is None
            or base.value <= 0
            or one.value != (100 if one.unit == "%" else 1)
            or numeric != [j - 1]
        ):
            continue
        rows = [
            (number, own)
            for row in grid.rows
            if row is not bases[0]
            and (number := exact(row.numbers[j]))
            and (own := exact(row.numbers[j - 1]))
            and own.unit == base.unit
            and own.value > 0
        ]
        wrong = [(number, own) for number, own in rows if not _ratio_agrees(number, own, base)]
        level = Level.CONTRADICTION if len(rows) - len(wrong) >= 2 * len(wrong) > 0 else Level.IMPLAUSIBLE
        for number, own in wrong:
            message = f"{number.text} is not the ratio of {own.text} to {base.text} ({bases[0].label})"
            how = f"{plain(own.value)} / {plain(base.value)} = {plain(own.value / base.value, 4)}"
            yield context.finding("aggregate", level, number.line, message, how)


_SAMPLED = {"latency", "ttft", "tpot", "itl", "throughput", "request_throughput"}
_BOUND = re.compile(
    r"allowed|limit|target|threshold|budget|timeout|required|expect|slo\b|sla\b|要求|上限|目标|阈值|门限|超时|期望|允许",
    re.IGNORECASE,
)
_RANKS = ("min", "mean", "max")


def _blocks(context: Context) -> Iterator[list[tuple[Name, Number]]]:
    """Neighbouring pairs of one section that hold one figure each."""
    block: list[tuple[Name, Number]] = []
    last: Pair | None = None
    for pair in context.card.pairs:
        if last is not None and (pair.section != last.section or pair.line - last.line > 2):
            yield block
            block = []
        numbers = numbers_in(pair.value, pair.line)
        alone = (
            len(numbers) == 1 and numbers[0].text == pair.value.strip() and not _BOUND.search(pair.key + pair.section)
        )
        if alone and exact(numbers[0]):
            block.append((read_name(pair.key), numbers[0]))
        last = pair
    yield block


def under_each_other(context: Context) -> Iterator[Finding]:
    """min <= mean <= max of one quantity of speed, in a list or a table of two columns."""
    for block in _blocks(context):
        groups: dict[tuple[str, frozenset[str], str], dict[str, list[Speed]]] = {}
        for name, number in block:
            if name.quantity in _SAMPLED and name.aggregate in _RANKS and not name.delta and not name.ratio:
                figure = speed(number, name)
                if figure is not None:
                    key = (name.quantity, name.tags, name.rest)
                    groups.setdefault(key, {}).setdefault(name.aggregate, []).append(figure)
        for kinds in groups.values():
            single = [(kind, kinds[kind][0]) for kind in _RANKS if len(kinds.get(kind, [])) == 1]
            wrong = [(a, x, b, y) for (a, x), (b, y) in combinations(single, 2) if x.value.lo > y.value.hi]
            if wrong:
                low, x, high, y = wrong[-1]
                message = f"the {low} {x.text} is above the {high} {y.text} of the same quantity"
                yield context.finding("aggregate", Level.CONTRADICTION, y.line, message, "min <= mean <= max")
