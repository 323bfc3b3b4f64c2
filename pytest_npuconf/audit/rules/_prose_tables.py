"""Sentences about a table of the card: its last row, the change between two of its rows, the ratio of its two rows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from pytest_npuconf.audit.context import Context
from pytest_npuconf.audit.findings import Finding, Level
from pytest_npuconf.audit.interval import Interval, around, plain
from pytest_npuconf.audit.numbers import Number, numbers_in
from pytest_npuconf.audit.quantities import read_name
from pytest_npuconf.audit.rules._grid import Grid, Row, exact, grids, stated
from pytest_npuconf.audit.rules._sentences import ABSENT, bare, sentences

_STEP = re.compile(r"(?:global |training )?(?:steps?|epochs?|iterations?)|训练?步数?|轮次?|迭代", re.IGNORECASE)
_TOTAL = re.compile(
    r"(?:total |training |max )*(?:steps|epochs|iterations)|总?(?:训练)?步数|(?:训练)?轮数", re.IGNORECASE
)
_FINAL = re.compile(
    r"(?:the )?(?:final|last) (?P<what>[a-z]+(?: [a-z]+)?) (?:is|was)\s*"
    r"|(?:最终|最后的)(?P<name>[\u4e00-\u9fff]{2,6}?)(?:为|是)\s*",
    re.IGNORECASE,
)
_TAIL = re.compile(
    r",? (?:which is )?the (?:lowest|smallest|highest|largest|best) (?:of|in) (?:the|this) table", re.IGNORECASE
)
_CHANGE = re.compile(
    r"from (?P<label>step|epoch|iteration) (?P<a>\d[\d,]*) to (?:step |epoch |iteration )?(?P<b>\d[\d,]*),? (?:the )?"
    r"(?P<what>[a-z]+(?: [a-z]+)?) (?:fell|dropped|decreased|declined|shrank|rose|increased|grew|went (?:up|down)) by "
    r"(?P<p>\d+(?:\.\d+)?) ?(?:%|percent)",
    re.IGNORECASE,
)


def _courses(context: Context) -> list[Grid]:
    """Tables of a course: the first column counts steps or epochs upwards."""
    found = []
    for grid in grids(context.card):
        steps = [row.numbers[0] for row in grid.rows]
        rising = all(a and b and a.value < b.value for a, b in pairwise(steps))
        if _STEP.fullmatch(grid.table.header[0].text.strip()) and len(steps) >= 3 and rising and not grid.incomplete:
            found.append(grid)
    return found


def _column(courses: list[Grid], what: str) -> tuple[Grid, int] | None:
    """The one column of all courses that has this name; "training loss" is also the only "loss"."""
    what = what.lower().strip()
    names = {what, what.removeprefix("training ").removeprefix("train ")}
    found = [(g, j) for g in courses for j in range(1, len(g.names)) if g.table.header[j].text.strip().lower() in names]
    return found[0] if len(found) == 1 and len(courses) == 1 else None


def _covers(context: Context, step: Number, sentence: str) -> bool:
    """Whether the last row is the end of the run: the card gives its step as the number of steps, or names the table."""
    totals = {
        n.value for p in context.card.pairs if _TOTAL.fullmatch(p.key.strip()) for n in numbers_in(p.value, p.line)[:1]
    }
    return totals == {step.value} or (not totals and _TAIL.search(sentence) is not None)


def final_row(context: Context) -> Iterator[Finding]:
    """ "The final loss is 3.346" against the last row of the only table that goes by steps."""
    courses = _courses(context)
    for prose, parts in sentences(context.card) if courses else ():
        for part in parts:
            text = bare(part)
            numbers = numbers_in(text, prose.line)
            match = _FINAL.fullmatch(text, 0, numbers[0].start) if numbers else None
            if (
                match is None
                or exact(numbers[0]) is None
                or not re.fullmatch(f"(?:{_TAIL.pattern})?", text[numbers[0].end :], re.I)
            ):
                continue
            place = _column(courses, match["what"] or match["name"])
            if place is None:
                continue
            row = place[0].rows[-1]
            step, last = row.numbers[0], exact(row.numbers[place[1]])
            if step is None or last is None or last.unit != numbers[0].unit or not _covers(context, step, text):
                continue
            agrees = stated(last).overlaps(stated(numbers[0]))
            level = Level.FINE if agrees else Level.CONTRADICTION
            message = (
                f"{numbers[0].text} is {'' if agrees else 'not '}the last of the table, {last.text} (line {row.line})"
            )
            yield context.finding("aggregate", level, prose.line, message, f"{numbers[0].text} / {last.text}")


def between_rows(context: Context) -> Iterator[Finding]:
    """ "From step 500 to step 3000 the loss fell by 30.5 %": of the value at the first step, or the plain difference."""
    courses = _courses(context)
    for prose, parts in sentences(context.card) if courses else ():
        for part in parts:
            match = _CHANGE.fullmatch(bare(part))
            place = _column(courses, match["what"]) if match else None
            if match is None or place is None:
                continue
            ends = [_at(place, float(match[name].replace(",", ""))) for name in "ab"]
            numbers = numbers_in(f"{match['p']} %", prose.line)
            if not numbers or any(end is None or end.value <= 0 for end in ends):
                continue
            a, b = (around(end) for end in ends if end is not None)
            change = abs(a - b)
            readings = [change / a * 100.0, change, change * 100.0]
            agrees = any(value.overlaps(stated(numbers[0])) for value in readings)
            level = Level.FINE if agrees else Level.CONTRADICTION
            message = f"{numbers[0].text} is {'' if agrees else 'not '}the change between the two rows"
            if not agrees and (change / b * 100.0).overlaps(stated(numbers[0])):
                message += ": it is divided by the second value"
            how = f"100 |{plain(a.middle)} - {plain(b.middle)}| / {plain(a.middle)} = {plain(readings[0].middle, 4)}"
            yield context.finding("aggregate", level, prose.line, message, how)


def _at(place: tuple[Grid, int], step: float) -> Number | None:
    found = [exact(row.numbers[place[1]]) for row in place[0].rows if row.numbers[0] and row.numbers[0].value == step]
    return found[0] if len(found) == 1 else None


_LESS = re.compile(
    r"(?:(?:压缩|量化)后,?\s?)?的?(?:模型|权重)?的?(?P<zh>体积|大小|显存|延迟|时延)(?:占用)?(?:减少|减小|缩小|下降|降低)(?:了|约)*\s?"
    r"|(?:(?:after|by|with) (?:compression|quanti[sz]ation),? )?(?:the |its )?(?:model |weight |file |checkpoint )*"
    r"(?P<en>size|memory|latency)(?: use)? (?:falls|fell|drops|dropped|shrinks|shrank|decreases|decreased"
    r"|(?:is|was) reduced|(?:is|was) lower) by ",
    re.IGNORECASE,
)
_BEFORE_AFTER = re.compile(
    r"前|后|原始|量化|压缩|before|after|original|quanti[sz]ed|compressed|\bbase\b", re.IGNORECASE
)


def _two_kinds(rows: tuple[Row, ...]) -> bool:
    """Whether a table of two rows has one model in two formats, or before and after: nothing else is compared then."""
    formats = [read_name(row.label).dtypes for row in rows]
    return len(rows) == 2 and (
        (all(formats) and formats[0] != formats[1]) or all(_BEFORE_AFTER.search(r.label) for r in rows)
    )


def _pair(context: Context, section: str, line: int, noun: str) -> tuple[Number, Number] | None:
    """The two figures of the table before the line: of its only column with that noun."""
    above = [g for g in grids(context.card) if g.table.section == section and g.table.line < line]
    if not above or not _two_kinds(above[-1].rows):
        return None
    grid = above[-1]
    columns = [j for j in range(1, len(grid.names)) if noun.lower() in grid.table.header[j].text.lower()]
    if len(columns) != 1 or grid.names[columns[0]].ratio or grid.names[columns[0]].delta:
        return None
    a, b = (exact(row.numbers[columns[0]]) for row in grid.rows)
    return (a, b) if a and b and a.unit == b.unit and min(a.value, b.value) > 0 else None


def reduced(context: Context) -> Iterator[Finding]:
    """ "量化后体积减少 42.4 %" right under a table of the two sizes: 1 - small / large."""
    for prose, parts in sentences(context.card):
        for part in parts:
            text = bare(part)
            numbers = numbers_in(text, prose.line) if _LESS.match(text) else []
            match = _LESS.fullmatch(text, 0, numbers[0].start) if len(numbers) == 1 and numbers[0].unit == "%" else None
            if match is None or text[numbers[0].end :].strip() or exact(numbers[0]) is None or ABSENT.search(text):
                continue
            pair = _pair(context, prose.section, prose.line, match["zh"] or match["en"])
            if pair is None:
                continue
            small, big = sorted((around(n) for n in pair), key=lambda i: i.middle)
            left = small / big * 100.0
            value = Interval(100.0 - left.hi, 100.0 - left.lo)
            agrees = value.overlaps(stated(numbers[0]))
            level = Level.FINE if agrees else Level.CONTRADICTION
            message = (
                f"{numbers[0].text} is {'' if agrees else 'not '}the reduction from {pair[0].text} to {pair[1].text}"
            )
            how = f"100 (1 - {plain(small.middle)} / {plain(big.middle)}) = {plain(value.middle, 4)}"
            how += f"; {plain(left.middle, 4)} % is left"
            yield context.finding("aggregate", level, prose.line, message, how)
