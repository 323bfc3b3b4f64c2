"""Threshold, figure and verdict as fields, in one line or in lines that follow each other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pytest_npuconf.audit.document import Pair
from pytest_npuconf.audit.lines import NOT_PASSED, PASSED, Line
from pytest_npuconf.audit.numbers import Number, numbers_in
from pytest_npuconf.audit.rules._thresholds import Bound, bound_in

_LIMIT = r"门限|阈值|标准|通过标准|要求|threshold|limit|required|requirement|gate|criterion"
_FIGURE = r"实测|实测值|测量值|结果|measured|observed|actual|result"
_VERDICT = r"结论|判定|verdict|conclusion|decision|status"
_FIELD = re.compile(rf"(?:^|[\s,;。|.])(?P<key>{_LIMIT}|{_FIGURE}|{_VERDICT})\s*[:=]\s*", re.IGNORECASE)
_KEY = re.compile(r"^[-*•\s]{0,8}(?P<key>[^:=|]{1,40}?)\s{0,4}[:=]\s{0,4}(?P<value>\S.*)$")


@dataclass(frozen=True)
class Block:
    """A figure, the bound beside it, and whether the field of the verdict says passed."""

    figure: Number
    bound: Bound
    passed: bool
    line: int


def blocks(lines: tuple[Line, ...]) -> Iterator[Block]:
    """Every threshold that has one figure and a verdict of its own."""
    prose = [line for line in lines if not line.code and "|" not in line.text]
    for index, line in enumerate(prose):
        fields = _fields(line)
        if len(fields) >= 3:
            yield from _of_fields(fields, line)
        elif fields and re.fullmatch(_LIMIT, fields[0][0], re.IGNORECASE) and 0 < index < len(prose) - 1:
            yield from _of_lines(prose[index - 1], line, prose[index + 1])


def _fields(line: Line) -> list[tuple[str, str]]:
    found = list(_FIELD.finditer(line.text))
    if not found:
        return []
    ends = [*(match.start() for match in found[1:]), len(line.text)]
    return [(match["key"], line.text[match.end() : end].strip()) for match, end in zip(found, ends, strict=True)]


def _of_fields(fields: list[tuple[str, str]], line: Line) -> Iterator[Block]:
    by_kind = {}
    for kind in (_LIMIT, _FIGURE, _VERDICT):
        values = [value for key, value in fields if re.fullmatch(kind, key, re.IGNORECASE)]
        if len(values) != 1:
            return
        by_kind[kind] = values[0]
    bound, figures = bound_in(by_kind[_LIMIT], line.number), numbers_in(by_kind[_FIGURE], line.number)
    if bound is not None and len(figures) == 1:
        yield Block(figures[0], bound, _passed(by_kind[_VERDICT]), line.number)


def _of_lines(before: Line, limit: Line, after: Line) -> Iterator[Block]:
    """``name: figure`` / ``threshold: bound`` / ``verdict: passed``, each on its line, nothing between."""
    if (before.number, after.number) != (limit.number - 1, limit.number + 1):
        return
    figure, verdict = _KEY.match(before.text), _fields(after)
    if figure is None or not verdict or not re.fullmatch(_VERDICT, verdict[0][0], re.IGNORECASE):
        return
    bound, numbers = bound_in(limit.text, limit.number), numbers_in(figure["value"], before.number)
    if bound is None or len(numbers) != 1 or re.fullmatch(_LIMIT, figure["key"], re.IGNORECASE):
        return
    number = numbers[0]
    if re.search(r"绝对|abs", limit.text, re.IGNORECASE) and number.value < 0:
        return  # a bound on the absolute value holds both ways; not judged here
    yield Block(number, bound, _passed(verdict[0][1]), before.number)


def row_blocks(lines: tuple[Line, ...], tabled: frozenset[int]) -> Iterator[Block]:
    """Rows of pipes that no table was made of: one cell is a bound, one a figure, one a verdict, beside the label."""
    for line in lines:
        if line.code or line.number in tabled or line.text.count("|") < 3:
            continue
        cells = [cell.strip() for cell in line.text.strip("| ").split("|")]
        limits = [cell for cell in cells[1:] if bound_in(cell, line.number) is not None]
        verdicts = [cell for cell in cells[1:] if len(cell) <= 12 and (PASSED.search(cell) or NOT_PASSED.search(cell))]
        rest = [cell for cell in cells[1:] if cell not in (*limits, *verdicts)]
        numbers = numbers_in(rest[0], line.number) if len(rest) == 1 else []
        bound = bound_in(limits[0], line.number) if len(limits) == len(verdicts) == 1 else None
        if bound is not None and bound.sense != "+-" and len(numbers) == 1:
            yield Block(numbers[0], bound, _passed(verdicts[0]), line.number)


_SMALL = re.compile(r"error|误差|diff|差异|差值|latency|延迟|loss|损失", re.IGNORECASE)
_LARGE = re.compile(r"similarity|相似|cosine|accuracy|准确|match|匹配|throughput|吞吐", re.IGNORECASE)


def pair_blocks(pairs: tuple[Pair, ...]) -> Iterator[Block]:
    """Three pairs on lines that follow each other: the figure, the threshold, the result."""
    by_line = {pair.line: pair for pair in pairs}
    for pair in pairs:
        figure, verdict = by_line.get(pair.line - 1), by_line.get(pair.line + 1)
        if figure is None or verdict is None or not re.fullmatch(_LIMIT, pair.key.strip(), re.IGNORECASE):
            continue
        if not re.fullmatch(rf"{_VERDICT}|{_FIGURE}", verdict.key.strip(), re.IGNORECASE):
            continue
        numbers, bound = numbers_in(figure.value, figure.line), bound_in(pair.value, pair.line)
        bare = numbers_in(pair.value, pair.line)
        if bound is None and len(bare) == 1 and bool(_SMALL.search(figure.key)) != bool(_LARGE.search(figure.key)):
            bound = Bound("<" if _SMALL.search(figure.key) else ">", bare[0])  # the kind of the figure says which side
        if bound is not None and len(numbers) == 1:
            yield Block(numbers[0], bound, _passed(verdict.value), figure.line)


def _passed(text: str) -> bool:
    return bool(PASSED.search(text)) and not NOT_PASSED.search(text)
