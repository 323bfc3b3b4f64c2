"""Differences that stand outside of tables: in neighbouring lines, in sentences, and as sums of parts."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pytest_npuconf.audit.context import Context
from pytest_npuconf.audit.document import Pair
from pytest_npuconf.audit.findings import Finding, Level
from pytest_npuconf.audit.interval import Interval, around, plain
from pytest_npuconf.audit.numbers import Number, numbers_in
from pytest_npuconf.audit.quantities import read_name
from pytest_npuconf.audit.rules._deltas import FRACTION, MIDDLE, PERCENT, PLAIN, difference
from pytest_npuconf.audit.rules._grid import Grid, exact, stated

_NUMBER = r"(\d+(?:\.\d+)?)"
_POINTS = re.compile(
    r"(?:from|从|由)\s*"
    + _NUMBER
    + r"\s?%\s*(?:to|降至|降到|下降到|升至|升到|提高到|提升到|变为|到)\s*"
    + _NUMBER
    + r"\s?%"
    r"[^0-9%;。.]{0,20}?(?:of|by|下降|降低|提高|提升|上升|相差|了)\s*(?:了|约)?\s*"
    + _NUMBER
    + r"\s?(?:points|pp\b|percentage points|个百分点)",
    re.IGNORECASE,
)


def points(context: Context) -> Iterator[Finding]:
    """ "from 74.5 % to 73.8 %, a drop of 0.7 points": the points are the difference."""
    for line, text in enumerate(context.card.lines, 1):
        for match in _POINTS.finditer(text[:4000]):
            a, b, d = (around(numbers_in(group, line)[0]) for group in match.groups())
            value = abs(a - b)
            agrees = value.overlaps(d)
            level = Level.FINE if agrees else Level.CONTRADICTION
            no = "" if agrees else "not "
            message = f"{match.group(3)} points are {no}the difference of {match.group(1)} % and {match.group(2)} %"
            yield context.finding(
                "aggregate", level, line, message, f"|{match.group(1)} - {match.group(2)}| = {plain(value.middle, 4)}"
            )


_CHANGE = re.compile(
    r"(?:increase|decrease|rise|drop|reduction|增加|减少|上升|下降|升高|降低)(?: ?\(%\))?", re.IGNORECASE
)


def _only(pair: Pair) -> Number | None:
    numbers = numbers_in(pair.value, pair.line)
    return exact(numbers[0]) if len(numbers) == 1 and numbers[0].start <= 1 else None


def neighbours(context: Context) -> Iterator[Finding]:
    """Two lines that differ by the device only, and a line "difference" right after them."""
    pairs = context.card.pairs
    for first, second, third in zip(pairs, pairs[1:], pairs[2:], strict=False):
        a, b, d = _only(first), _only(second), _only(third)
        names = [read_name(pair.key) for pair in (first, second, third)]
        if a is None or b is None or d is None or third.line - first.line > 4 or names[2].ratio:
            continue
        bare = d.unit in ("%", "pp", a.unit) and d.text == third.value.strip()
        if not names[2].delta and not (bare and _CHANGE.fullmatch(third.key.strip())):
            continue
        alike = (
            names[0].quantity == names[1].quantity and names[0].rest == names[1].rest and names[0].tags != names[1].tags
        )
        if (
            not alike
            or names[0].delta
            or names[1].delta
            or a.unit != b.unit
            or len(third.key) > 12
            or a.value == 0
            or b.value == 0
        ):
            continue
        target = abs(stated(d))
        values = [
            difference(f, *sides)
            for f in (PLAIN, PERCENT, FRACTION, MIDDLE)
            for sides in ((around(a), around(b)), (around(b), around(a)))
        ]
        agrees = any(value.overlaps(target) for value in values)
        level = Level.FINE if agrees else Level.CONTRADICTION
        message = f"{d.text} is {'' if agrees else 'not '}the difference of {a.text} and {b.text} in the lines above it"
        yield context.finding(
            "aggregate", level, d.line, message, f"|{a.text} - {b.text}| = {plain(values[0].middle, 4)}"
        )


def parts(context: Context, grid: Grid) -> Iterator[Finding]:
    """A mean of absolute differences written as the sum of its causes: such means do not add."""
    for row in grid.rows:
        whole = next(
            (
                n
                for n, name in zip(row.numbers, grid.names, strict=True)
                if n is not None and name.delta and n.unit == "%"
            ),
            None,
        )
        if whole is None:
            continue
        for cell in row.cells:
            numbers = numbers_in(cell.text, cell.line)
            if (
                len(numbers) != 2
                or "+" not in cell.text[numbers[0].end : numbers[1].start]
                or any(n.unit != "%" for n in numbers)
            ):
                continue
            total: Interval = around(numbers[0]) + around(numbers[1])
            if total.overlaps(around(whole)):
                message = f"{whole.text} is written as the sum of its causes: means of absolute differences do not add"
                how = f"{numbers[0].text} + {numbers[1].text}; independent errors add in squares, opposite ones cancel"
                yield context.finding("aggregate", Level.IMPLAUSIBLE, cell.line, message, how)
