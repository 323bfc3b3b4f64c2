"""Shares against their counts, and means that are weighted by a column of counts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import permutations

from pytest_npuconf.audit.context import Context
from pytest_npuconf.audit.findings import Finding, Level
from pytest_npuconf.audit.interval import Interval, plain, total
from pytest_npuconf.audit.numbers import Number, numbers_in
from pytest_npuconf.audit.rules._grid import Grid, Row, exact, stated

_WEIGHTED = re.compile(r"^\W*(加权平均|weighted\s+(mean|average|avg))\W*$", re.IGNORECASE)
_K_OF_N = (
    re.compile(
        r"(?<![\d./-])(\d{1,6})\s?/\s?(\d{1,6})(?![\d./])\s*(?:[(=≈:,]|即|约为?|correct,?)*\s*(\d{1,3}(?:\.\d+)?)\s?%"
        r"(?!\|)"  # "Epoch 3/50: 100%|####|" is a bar: the percentage is that of the steps
    ),
    re.compile(
        r"(?<![\d./-])(\d{1,6})\s?/\s?(\d{1,6})(?![\d./])[^%\d.;。]{0,30}?(?:accuracy|"
        r"准确率|正确率|通过率)[^%\d.;。]{0,12}(\d{1,3}(?:\.\d+)?)\s?%",
        re.IGNORECASE,
    ),
    re.compile(
        r"(?<![\d./-])(\d{1,6}) (?:out )?of (?:the )?(\d{1,6})(?![\d./])\s*(?:questions|"
        r"items|prompts|samples|correct|answers)?,?\s*[(=:]\s*(\d{1,3}(?:\.\d+)?)\s?%"
    ),
)


def _counts(grid: Grid, rows: list[Row]) -> list[int]:
    """Columns of whole numbers without a unit."""
    found = []
    for j in range(1, len(grid.names)):
        numbers = [row.numbers[j] for row in rows]
        if all(
            n is not None and n.decimals <= 0 and n.unit in ("", "items") and n.value >= 0 and not n.before
            for n in numbers
        ):
            found.append(j)
    return found


def _share(k: float, n: float) -> Interval:
    return Interval(100 * k / n, 100 * k / n)


def _agrees(number: Number, k: float, n: float) -> bool:
    """Rounded or cut off."""
    share = _share(k, n)
    return share.overlaps(stated(number)) or share.overlaps(Interval(number.value, number.value + 2 * number.half_ulp))


def shares(context: Context, grid: Grid) -> Iterator[Finding]:
    """``100 k / n`` of two columns of counts, or of one and a number that the section's prose gives for n."""
    for j in range(1, len(grid.names)):
        rows = [row for row in grid.details if (n := exact(row.numbers[j])) is not None and n.unit == "%"]
        counts = [c for c in _counts(grid, rows) if c != j] if len(rows) >= 3 else []
        options = [[(row, row.numbers[a], row.numbers[b]) for row in rows] for a, b in permutations(counts, 2)]
        best = _best(j, [[(row, k.value, n.value) for row, k, n in option if k and n] for option in options])
        if best is None and len(counts) == 1:
            sizes = {
                n.value
                for p in context.card.proses
                if p.section == grid.table.section
                for n in numbers_in(p.text)
                if 2 <= n.value <= 1e6
            }
            best = _best(
                j,
                [
                    [(row, k.value, n) for row in rows if (k := row.numbers[counts[0]]) is not None]
                    for n in sorted(sizes)
                ],
            )
        for row, found, among in best or ():
            number = row.numbers[j]
            if number is not None and not _agrees(number, found, among):
                message = f"{number.text} is not the share of its counts, as the other rows are"
                how = f"{plain(found)} / {plain(among)} = {plain(100 * found / among, 4)} %"
                yield context.finding("aggregate", Level.CONTRADICTION, row.line, message, how)


def _best(j: int, options: list[list[tuple[Row, float, float]]]) -> list[tuple[Row, float, float]] | None:
    """The reading that at least two rows and two thirds of them follow."""
    best, most = None, 1
    for option in options:
        if not option or any(n <= 0 or k > n for _, k, n in option):
            continue
        fits = sum(_agrees(number, k, n) for row, k, n in option if (number := row.numbers[j]) is not None)
        if fits > most and fits * 3 >= len(option) * 2:
            best, most = option, fits
    return best


def shares_in_prose(context: Context) -> Iterator[Finding]:
    """ "171/400 (42.75 %)"."""
    told = set()
    for line, text in enumerate(context.card.lines, 1):
        for pattern in _K_OF_N:
            for match in pattern.finditer(text[:4000]):
                k, n = float(match.group(1)), float(match.group(2))
                numbers = numbers_in(f"{match.group(3)} %", line)
                if not numbers or not n > 0 or k > n or n < 2 or (line, k, n) in told:
                    continue
                told.add((line, k, n))
                agrees = _agrees(numbers[0], k, n)
                level = Level.FINE if agrees else Level.CONTRADICTION
                message = f"{match.group(1)} of {match.group(2)} is {'' if agrees else 'not '}{numbers[0].text}"
                yield context.finding("aggregate", level, line, message, f"{plain(100 * k / n, 5)} %")


def weighted(context: Context, grid: Grid) -> Iterator[Finding]:
    """A row that calls itself a weighted mean, where one column only can hold the weights."""
    rows = list(grid.details)
    for summary in grid.rows:
        counts = _counts(grid, rows) if _WEIGHTED.match(summary.label) and len(rows) >= 2 else []
        if len(counts) != 1:
            continue
        weights = [n.value for row in rows if (n := row.numbers[counts[0]]) is not None]
        for j in range(1, len(grid.names)):
            number, values = exact(summary.numbers[j]), [exact(row.numbers[j]) for row in rows]
            if j == counts[0] or number is None or sum(weights) <= 0 or any(v is None for v in values):
                continue
            mean = total(stated(v) * (w / sum(weights)) for v, w in zip(values, weights, strict=True) if v is not None)
            level = Level.FINE if mean.overlaps(stated(number)) else Level.CONTRADICTION
            message = (
                f"{number.text} is {'' if level is Level.FINE else 'not '}the mean "
                f"weighted by {grid.table.header[counts[0]].text!r}"
            )
            yield context.finding(
                "aggregate",
                level,
                number.line,
                message,
                f"sum of weight x value / sum of weights = {plain(mean.middle)}",
            )
