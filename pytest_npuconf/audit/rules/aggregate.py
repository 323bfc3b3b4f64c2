"""aggregate, aggregate-switch: summary rows and difference columns against the rows that they summarise."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from pytest_npuconf.audit.context import Context, Rule
from pytest_npuconf.audit.findings import Finding, Level
from pytest_npuconf.audit.interval import (
    Interval,
    around,
    geometric_mean,
    largest,
    mean,
    median,
    plain,
    smallest,
    total,
)
from pytest_npuconf.audit.numbers import Number
from pytest_npuconf.audit.rules._deltas import Delta, best_delta, difference
from pytest_npuconf.audit.rules._grid import Grid, Row, column, exact, grids, stated
from pytest_npuconf.audit.rules._outside import of_table, of_text

_WORDS = {
    "mean": "mean",
    "median": "median",
    "max": "maximum",
    "min": "minimum",
    "total": "sum",
    "weighted": "weighted mean",
}
# Of these nobody weights the mean by counts that the table does not show.
_UNWEIGHTED = {
    "cosine",
    "mae",
    "rmse",
    "mse",
    "max_abs",
    "rel_l2",
    "rel",
    "abs",
    "ppl",
    "kl",
    "ttft",
    "tpot",
    "itl",
    "latency",
}
_COUNTS = ("样本", "数量", "题数", "个数", "support", "count", "samples", "items", "questions", "n ", "#")

Aggregate = Callable[[Iterable[Interval]], Interval]
_KINDS: dict[str, Aggregate] = {"mean": mean, "median": median, "max": largest, "min": smallest, "total": total}


@dataclass(frozen=True)
class Fit:
    """How a summary row's figure relates to its column: ``name`` of the aggregate that fits, and its value."""

    name: str
    value: Interval
    own: Interval | None
    """The difference of the summary row's own two figures, where the column is a column of differences."""


def _values(numbers: Iterable[Number]) -> list[Interval]:
    return [stated(n) for n in numbers]


def _own(summary: Row, j: int, delta: Delta | None) -> Interval | None:
    """What the column's formula gives for the summary row's own two figures."""
    if delta is None or delta.column != j:
        return None
    a, b = summary.numbers[delta.a], summary.numbers[delta.b]
    if a is None or b is None:
        return None
    return abs(difference(delta.formula, around(a), around(b)))


def _weights(grid: Grid, rows: list[Row], j: int) -> list[list[float]]:
    """Columns of whole numbers by which a mean may be weighted: named as counts."""
    found = []
    for k, name in enumerate(grid.names):
        if k != j and any(word in (name.text.lower() + " ") for word in _COUNTS):
            numbers = [row.numbers[k] for row in rows]
            values = [n.value for n in numbers if n is not None and n.decimals <= 0 and n.value >= 0]
            if len(values) == len(rows) and sum(values) > 0:
                found.append(values)
    return found


def _candidates(kind: str, numbers: list[Number], own: Interval | None) -> Iterator[tuple[str, Interval]]:
    """Aggregates that a row of this kind may mean, best first."""
    values = _values(numbers)
    magnitudes = [abs(v) for v in values]
    yield kind, _KINDS[kind](values)
    if any(v.lo < 0 for v in values):
        yield f"{kind} of the magnitudes", _KINDS[kind](magnitudes)
    if own is not None:
        yield "own", own
    if kind == "mean" and all(v.lo > 0 for v in values):
        yield "geometric mean", geometric_mean(values)
        yield "harmonic mean", Interval(1.0, 1.0) / mean(Interval(1.0, 1.0) / v for v in values)
    for other, function in _KINDS.items():
        if other != kind and other != "total":
            yield other, function(values)


def _fit(grid: Grid, summary: Row, j: int, number: Number, delta: Delta | None) -> tuple[Fit | None, list[Row]]:
    """The aggregate that fits, or None, and the rows that the summary stands for."""
    own = _own(summary, j, delta)
    said = stated(number)
    target = abs(said) if delta is not None and delta.column == j else said
    groups = [g for g in grid.segments(summary) if column(g, j) is not None]
    for group in groups:
        numbers = column(group, j) or []
        for name, value in _candidates(summary.kind, numbers, own):
            if name in (summary.kind, f"{summary.kind} of the magnitudes") and (
                value.overlaps(said) or value.overlaps(target)
            ):
                return Fit(name, value, own), group
    for group in groups:
        numbers = column(group, j) or []
        truncated = Interval(number.value, number.value + 2 * number.half_ulp)
        value = _KINDS[summary.kind](_values(numbers))
        if value.overlaps(truncated):
            return Fit(f"{summary.kind}, cut off instead of rounded", value, own), group
        for weights in _weights(grid, group, j):
            if len(weights) == len(numbers):
                parts = [stated(n) * (w / sum(weights)) for n, w in zip(numbers, weights, strict=True)]
                if total(parts).overlaps(said):
                    return Fit("weighted mean", total(parts), own), group
        for name, value in _candidates(summary.kind, numbers, own):
            if value.overlaps(said) or value.overlaps(target):
                return Fit(name, value, own), group
    return None, groups[0] if groups else []


def _judge_fit(
    context: Context, grid: Grid, summary: Row, j: int, number: Number, fit: Fit, plain_value: Interval
) -> Finding:
    """A figure that some aggregate fits."""
    kind, header = summary.kind, grid.table.header[j].text
    how = f"{_WORDS[kind]} of the rows of {header!r} = {plain(plain_value.middle)}"
    if fit.name == "own":
        assert fit.own is not None
        return context.finding(
            "aggregate", Level.AMBIGUOUS, number.line,
            f"{number.text} is the difference of the two figures on this line, not the {_WORDS[kind]} of the differences above",
            f"{how}; from the line's own two figures {plain(fit.own.middle)}",
        )  # fmt: skip
    if fit.name in ("geometric mean", "harmonic mean", "weighted mean"):
        level = Level.FINE if fit.name == "weighted mean" else Level.AMBIGUOUS
        return context.finding(
            "aggregate", level, number.line, f"{number.text} is the {fit.name}, not the plain mean", how
        )
    if not fit.name.startswith(kind):
        level = (
            Level.AMBIGUOUS if grid.names[j].quantity == "cosine" and kind in ("max", "min") else Level.CONTRADICTION
        )
        message = f"{number.text} is the {_WORDS[fit.name]} of the rows, the line calls it the {_WORDS[kind]}"
        return context.finding("aggregate", level, number.line, message, how)
    if grid.names[j].aggregate == "max" and kind == "mean":
        top = max(n.value for n in column(list(grid.details), j) or [number])
        message = (
            f"{number.text} is a mean of maxima: it stands in the column of the largest, whose largest is {plain(top)}"
        )
        return context.finding("aggregate", Level.AMBIGUOUS, number.line, message, how)
    if kind == "median" and fit.own is not None and not fit.own.overlaps(abs(stated(number))):
        message = "the medians of different rows stand on one line: the difference stated is not that of the two figures beside it"
        how += f"; from the line's own two figures {plain(fit.own.middle)}"
        return context.finding("aggregate", Level.AMBIGUOUS, number.line, message, how)
    return context.finding(
        "aggregate", Level.FINE, number.line, f"{number.text} agrees with the {fit.name} of the rows", how
    )


def _judge(context: Context, grid: Grid, summary: Row, j: int, delta: Delta | None) -> Finding | None:
    number = exact(summary.numbers[j])
    if number is None or summary.kind not in _KINDS:
        return None
    fit, group = _fit(grid, summary, j, number, delta)
    numbers = column(group, j) if group else None
    if numbers is None or {n.unit for n in numbers if n.unit} - {number.unit, ""} or len(numbers) < 2:
        return None
    values = _values(numbers)
    value = _KINDS[summary.kind](values)
    if fit is not None and summary.kind == "total" and not fit.name.startswith("total"):
        return None  # a line of totals often has a mean in its column of scores
    if fit is not None:
        return _judge_fit(context, grid, summary, j, number, fit, value)
    if all(n.decimals <= 0 for n in (number, *numbers)) and total(values).overlaps(stated(number)):
        return None  # a column of counts, summed in a line of means
    return _misfit(context, grid, summary, j, numbers, len(numbers) != len(group))


def _siblings(grid: Grid, summary: Row, j: int) -> tuple[int, int]:
    """Of the other columns of a row of means: how many are the plain mean of their rows, and how many are not."""
    plain_means = others = 0
    for k in range(1, len(grid.names)):
        number = exact(summary.numbers[k])
        if k == j or number is None or grid.names[k].delta or not any(column(g, k) for g in grid.segments(summary)):
            continue
        fit, _ = _fit(grid, summary, k, number, None)
        if fit is not None and fit.name.startswith("mean"):
            plain_means += 1
        else:
            others += 1
    return plain_means, others


def _misfit_level(grid: Grid, summary: Row, j: int, blank: bool, outside: bool) -> Level:
    """A mean of scores may be weighted by counts that are not shown: then every column of its row is."""
    if outside and summary.kind != "total":
        return Level.CONTRADICTION
    if blank:
        return Level.AMBIGUOUS
    if summary.kind == "total":
        return Level.IMPLAUSIBLE
    if summary.kind != "mean" or grid.names[j].quantity in _UNWEIGHTED:
        return Level.CONTRADICTION
    plain_means, others = _siblings(grid, summary, j)
    if plain_means > others:
        return Level.CONTRADICTION
    return Level.AMBIGUOUS if others > 1 else Level.IMPLAUSIBLE


def _misfit(context: Context, grid: Grid, summary: Row, j: int, numbers: list[Number], blank: bool) -> Finding | None:
    """A figure that no aggregate of its rows gives."""
    number = summary.numbers[j]
    values = _values(numbers)
    if number is None or (summary.kind == "total" and (blank or any(n.unit == "%" for n in numbers))):
        return None
    outside = not stated(number).overlaps(Interval(smallest(values).lo, largest(values).hi))
    level = _misfit_level(grid, summary, j, blank, outside)
    word = _WORDS[summary.kind]
    message = f"{number.text} is not the {word} of its rows"
    if outside and summary.kind != "total":
        message = f"{number.text} is outside the range of its rows"
    elif summary.kind == "mean" and level is not Level.CONTRADICTION:
        message += "; only a mean with weights that the table does not show could be"
    rows = ", ".join(n.text for n in numbers[:8]) + (" …" if len(numbers) > 8 else "")
    how = f"{word} of {rows} = {plain(_KINDS[summary.kind](values).middle)}"
    return context.finding("aggregate", level, number.line, message, how)


def _signs(context: Context, grid: Grid, delta: Delta) -> Iterator[Finding]:
    """Rows whose sign is not that of the others: a - b in most rows, b - a in one."""
    signs: list[tuple[Number, bool]] = []
    for row in grid.details:
        d, a, b = row.numbers[delta.column], row.numbers[delta.a], row.numbers[delta.b]
        if d is None or a is None or b is None or d.value == 0 or a.value == b.value:
            continue
        if not d.text.startswith(("+", "-")):
            return
        signs.append((d, (d.value > 0) == (a.value > b.value)))
    agree = sum(same for _, same in signs)
    if len(signs) >= 3 and max(agree, len(signs) - agree) * 3 >= len(signs) * 2:
        for number, same in signs:
            if same != (agree * 2 > len(signs)):
                message = f"{number.text} has the wrong sign for its row, by the sign of the others"
                yield context.finding(
                    "aggregate", Level.CONTRADICTION, number.line, message, delta.formula.format(a="a", b="b")
                )


def _cut(number: Number) -> Interval:
    """What a figure stands for that was cut off behind its last digit."""
    return Interval(abs(number.value), abs(number.value) + 2 * number.half_ulp)


def _cut_off(row: Row, number: Number, delta: Delta, value: Interval) -> bool:
    """Whether the row fits if the result, or the figures it comes from, were cut off."""
    a, b = row.numbers[delta.a], row.numbers[delta.b]
    if value.overlaps(_cut(number)) or a is None or b is None or a.value < 0 or b.value < 0:
        return value.overlaps(_cut(number))
    inner = difference(delta.formula, _cut(a), _cut(b))
    return inner.overlaps(_cut(number)) or inner.overlaps(abs(stated(number)))


def _judge_delta(context: Context, grid: Grid, delta: Delta) -> Iterator[Finding]:
    """The rows of a column of differences."""
    a, b = grid.table.header[delta.a].text, grid.table.header[delta.b].text
    header = grid.table.header[delta.column].text
    formula = delta.formula.format(a=a, b=b)
    yield from _signs(context, grid, delta)
    if not delta.misfits:
        message = f"every row of {header!r} agrees with its two columns"
        yield context.finding("aggregate", Level.FINE, grid.table.line, message, formula)
    for row, value in delta.misfits:
        number = row.numbers[delta.column]
        if number is not None:
            message = (
                f"{number.text} does not follow from the two figures of its row, as the other rows of {header!r} do"
            )
            if not delta.fits:
                message = (
                    f"{number.text} does not follow from the two figures of its row, "
                    f"read as a difference or as a relative difference"
                )
            level = Level.CONTRADICTION if delta.fits else Level.IMPLAUSIBLE
            if not delta.fits and len(delta.misfits) > 2:
                level = Level.AMBIGUOUS  # not every row is wrong: another formula, which the card does not give
            if _cut_off(row, number, delta, value):
                level, message = Level.AMBIGUOUS, f"{number.text} follows from figures that are cut off, not rounded"
            yield context.finding("aggregate", level, number.line, message, f"{formula} = {plain(value.middle)}")


def check_aggregate(context: Context) -> Iterator[Finding]:
    """Summary rows, and columns of differences."""
    for grid in grids(context.card):
        deltas = {j: d for j in range(1, len(grid.names)) if (d := best_delta(grid, j)) is not None}
        for delta in deltas.values():
            yield from _judge_delta(context, grid, delta)
        if not grid.incomplete:
            for summary in grid.summaries:
                for j in range(1, len(grid.names)):
                    finding = _judge(context, grid, summary, j, deltas.get(j))
                    if finding is not None:
                        yield finding
        yield from _percentiles(context, grid)
        yield from of_table(context, grid)
    yield from of_text(context)


def _percentiles(context: Context, grid: Grid) -> Iterator[Finding]:
    """min <= p50 <= p90 <= p99 <= max in each row, and min <= mean <= max."""
    ranks: dict[tuple[str, frozenset[str], str], list[tuple[float, int]]] = {}
    for j, name in enumerate(grid.names):
        rank = _rank(name.text, name.aggregate)
        if rank is not None:
            rest = " ".join(word for word in name.rest.split() if not word.startswith("p") or not word[1:2].isdigit())
            ranks.setdefault((name.quantity, name.tags, rest), []).append((rank, j))
    for columns in ranks.values():
        ordered = sorted(columns)
        for row in grid.rows:
            pairs = [(rank, j, row.numbers[j]) for rank, j in ordered if exact(row.numbers[j]) is not None]
            for (low, i, x), (high, k, y) in pairwise(pairs):
                if x is None or y is None or low == high or x.unit != y.unit or stated(x).lo <= stated(y).hi:
                    continue
                message = f"{grid.table.header[i].text} {x.text} is above {grid.table.header[k].text} {y.text}"
                yield context.finding(
                    "aggregate",
                    Level.CONTRADICTION,
                    row.line,
                    message,
                    "a lower percentile is never above a higher one",
                )


def _rank(text: str, aggregate: str) -> float | None:
    if aggregate == "percentile":
        digits = "".join(c for c in text.lower().partition("p")[2][:5] if c.isdigit() or c == ".").strip(".")
        return float(digits) if digits else None
    return {"min": 0.0, "median": 50.0, "max": 100.0}.get(aggregate)


def check_switch(context: Context) -> Iterator[Finding]:
    """Two tables whose rows of one label aggregate the difference in two ways."""
    found: dict[tuple[str, str], list[tuple[str, Number, Fit, Interval]]] = {}
    for grid in grids(context.card):
        deltas = [d for j in range(1, len(grid.names)) if (d := best_delta(grid, j)) is not None]
        for summary in grid.summaries:
            for delta in deltas:
                number = exact(summary.numbers[delta.column])
                if number is None or summary.kind != "mean":
                    continue
                fit, group = _fit(grid, summary, delta.column, number, delta)
                if fit is None or fit.own is None:
                    continue
                average = mean(abs(v) for v in _values(column(group, delta.column) or []))
                by_mean, by_own = (v.overlaps(abs(stated(number))) for v in (average, fit.own))
                if by_mean != by_own:
                    key = (summary.kind, delta.formula)
                    found.setdefault(key, []).append(("mean" if by_mean else "own", number, fit, average))
    for entries in found.values():
        means = [e for e in entries if e[0] == "mean"]
        for _, number, fit, average in (e for e in entries if e[0] == "own"):
            if means and fit.own is not None:
                other = means[0]
                assert other[2].own is not None
                message = (
                    f"{number.text} is the difference of the two means, while {other[1].text} "
                    f"under the same name (line {other[1].line}) "
                    "is the mean of the differences: the two cannot be compared"
                )
                how = (
                    f"here: difference of the means {plain(fit.own.middle)}, mean of the differences {plain(average.middle)}; "
                    f"line {other[1].line}: {plain(other[2].own.middle)} and {plain(other[3].middle)}"
                )
                yield context.finding("aggregate-switch", Level.CONTRADICTION, number.line, message, how)


RULES: tuple[Rule, ...] = (
    Rule("aggregate", "Means, medians, maxima and differences follow from their rows", check_aggregate),
    Rule("aggregate-switch", "Two tables aggregate alike", check_switch),
)
