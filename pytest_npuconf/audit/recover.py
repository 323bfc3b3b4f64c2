"""Tables whose separators were lost in copying, and rows whose merged cells moved the others.

Nothing is guessed: a block is a table again where its header splits into known names, and every row splits in one way only,
or in one way that its own arithmetic singles out (``glued``). Everything else stays prose, and numbers glued together are
no numbers there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from pytest_npuconf.audit.columns import ENDS, ENGLISH_ENDS, KEYS, STATUS
from pytest_npuconf.audit.document import Cell, Table
from pytest_npuconf.audit.fences import Line
from pytest_npuconf.audit.glued import split_rows
from pytest_npuconf.audit.normalise import tidy, without_markup
from pytest_npuconf.audit.numbers import numbers_in

_NAME = re.compile(
    r"(?:(?:NPU|CPU|GPU|昇腾)\s?(?:FP32|BF16|FP16|INT8)\s?vs\.?\s?(?:NPU|CPU|GPU)\s?(?:FP32|BF16|FP16|INT8)"
    r"|(?:NPU|CPU|GPU)(?![\s\u3400-\u9fff])|[^|,。;!?]{0,40}?(?:"
    + "|".join(re.escape(word) for word in ENDS)
    + "|(?:"
    + "|".join(ENGLISH_ENDS)
    + r")(?![a-z])))(?:\s?\([^()|]{1,60}\))?(?!\s)"
)
_CJK = "\u3400-\u9fff"
_AFTER_CJK = re.compile(rf"(?<=[{_CJK})])(?=[A-Za-z0-9≥≤<>~≈±\[{STATUS}])")
_VALUE = r"[0-9≥≤<>~≈\[]|(?:True|False|None|null|true|false|PASS|FAIL|PASSED|FAILED|SUCCESS|OK)$"
_AFTER_WORD = re.compile(rf"[A-Za-z][A-Za-z_.\- ]{{0,40}}?(?={_VALUE})")
_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+){0,6}_[A-Za-z]+")
_AFTER_IDENTIFIER = re.compile(rf"{_IDENTIFIER.pattern}(?={_VALUE})")
_BEFORESTATUS = re.compile(rf"(?<=\S)(?=[{STATUS}])")
_START_OF_OTHER = re.compile(r"\s*(?:[-*+>|#`~]|\d+[.)]\s|•|<)")
MAX_BLOCK = 400


def recover_tables(entries: Sequence[Line]) -> tuple[list[Line], list[Table]]:
    """Entries without the lines that were tables, and the tables."""
    result: list[Line] = []
    tables: list[Table] = []
    elsewhere = _standing_apart(entries)
    position = 0
    while position < len(entries):
        end = position
        while end < len(entries) and end - position < MAX_BLOCK and _could_be_row(entries[end]):
            end += 1
        table = _recover(entries[position:end], elsewhere) if end - position > 1 else None
        if table is None:
            result.append(entries[position])
            position += 1
            continue
        tables.append(table)
        result.append(Line("", entries[position].origin))
        position += 1 + len(table.rows)
    return result, tables


def _could_be_row(entry: Line) -> bool:
    text = entry.text
    return (
        bool(text.strip())
        and not entry.code
        and len(text) <= 400
        and "|" not in text
        and not _START_OF_OTHER.match(text)
    )


def _standing_apart(entries: Sequence[Line]) -> frozenset[str]:
    """Numbers of at least three digits that have no digit or letter beside them: they help to tell how to cut others."""
    found: set[str] = set()
    for entry in entries:
        text = tidy(entry.text) if not entry.code else ""
        found.update(re.findall(r"(?<![\w.])\d+\.\d{2,}%?(?![\w.%])", text))
        found.update(re.findall(rf"(?<=[{_CJK}])\d+\.\d{{2,}}%?$", text))
    return frozenset(found)


def _recover(block: Sequence[Line], elsewhere: frozenset[str]) -> Table | None:
    """The table that begins with the block's first line: as many of the lines as fit, and at least one row."""
    if "\t" in block[0].text.strip():
        return _separated(block, r"\t", recovered=False)
    if re.search(r"\S\s{2,}\S", block[0].text):
        return _separated(block, r"\s{2,}", recovered=True)
    names = header_names(tidy(without_markup(block[0].text)))
    if len(names) < 2:
        return None
    texts = [tidy(without_markup(line.text.replace("，", ","))) for line in block[1:]]
    if len(names) > 2:  # a second header ends the table
        texts = texts[: next((i for i, text in enumerate(texts) if _is_header(text)), len(texts))]
    rows = _rows(texts, len(names), elsewhere)
    if rows is None:
        return None
    cells = tuple(tuple(Cell(text, line.origin) for text in row) for row, line in zip(rows, block[1:], strict=False))
    return Table(tuple(Cell(name, block[0].origin) for name in names), cells, "", block[0].origin, True)


def _rows(texts: Sequence[str], columns: int, elsewhere: frozenset[str]) -> list[list[str]] | None:
    if columns == 2:
        return _pairs(texts)
    return _numbered(texts, columns) or split_rows(texts, columns, elsewhere)


def _separated(block: Sequence[Line], separator: str, *, recovered: bool) -> Table | None:
    """Cells divided by tabs, or by two spaces and more: every row has the header's number of them."""
    rows: list[tuple[Cell, ...]] = []
    for line in block:
        text = line.text.rstrip("\n") if separator == r"\t" else line.text.strip()
        parts = [tidy(without_markup(part)) for part in re.split(separator, text)]
        if rows and len(parts) < len(rows[0]) and separator == r"\t" and len(parts) > 1:
            parts += [""] * (len(rows[0]) - len(parts))
        if len(parts) < 2 or (rows and len(parts) != len(rows[0])):
            break
        rows.append(tuple(Cell(part, line.origin) for part in parts))
    if len(rows) < (2 if separator == r"\t" else 3):
        return None
    return Table(rows[0], tuple(rows[1:]), "", block[0].origin, recovered)


def header_names(text: str) -> list[str]:
    """The names in a header without separators; none where it does not consist of known names."""
    names: list[str] = []
    position = 0
    while position < len(text) and len(text) <= 200:
        match = _NAME.match(text, position)
        if match is None or not match.group().strip():
            return []
        names.append(match.group().strip())
        position = match.end()
    return names


def _is_header(text: str) -> bool:
    return not re.search(r"%|\d\.\d{2}", text) and len(header_names(text)) > 2


def _pairs(texts: Sequence[str]) -> list[list[str]] | None:
    """Rows of two columns; at least two."""
    rows: list[list[str]] = []
    for text in texts:
        split = split_pair(text)
        if split is None:
            break
        rows.append(split)
    return rows if len(rows) >= 2 else None


def split_pair(text: str) -> list[str] | None:
    """``hidden_size2560``, ``Python≥ 3.10``, ``并发数10`` as key and value, where only one cut is possible."""
    for key in KEYS:
        if text.startswith(key) and text[len(key) :] and not re.match(r"[a-z_\- ]", text[len(key) :]):
            return [key, text[len(key) :].strip()]
    places = [match.start() for pattern in (_AFTER_CJK, _BEFORESTATUS) for match in pattern.finditer(text)]
    places = [place for place in places if text.count("(", 0, place) <= text.count(")", 0, place)]
    if places:
        first = min(places)
        word = re.match(r"\S*", text[first:])
        if any(first < place < first + len(word.group() if word else "") for place in places):
            return None
        return [text[:first].strip(), text[first:].strip()] if text[:first].strip() else None
    match = _AFTER_IDENTIFIER.match(text)
    if match is None and _IDENTIFIER.fullmatch(text):
        return [text, ""]
    match = match or _AFTER_WORD.match(text)
    if match is None or match.group().endswith(" "):
        return None
    return [match.group().strip(), text[match.end() :].strip()]


def _numbered(texts: Sequence[str], columns: int) -> list[list[str]] | None:
    """``1获取基线📋 待执行``: rows counted from one, with a status at the end."""
    rows: list[list[str]] = []
    for number, text in enumerate(texts, 1):
        match = re.fullmatch(rf"{number}(?=[^\d.\s])(?P<text>.+?\S)(?P<status>[{STATUS}].*)", text)
        if columns != 3 or match is None:
            break
        rows.append([str(number), match["text"].strip(), match["status"].strip()])
    return rows if len(rows) >= 2 else None


def realign(table: Table) -> Table:
    """Rows that lost the cell of a merged first column: moved right where only so their kinds fit the full rows."""
    full = [row for row in table.rows if all(cell.text for cell in row)]
    if not full or len(full) == len(table.rows):
        return table
    kinds = [{kind(row[column].text) for row in full} for column in range(len(table.header))]
    rows: list[tuple[Cell, ...]] = []
    for row in table.rows:
        missing = len(row) - max((i for i, cell in enumerate(row) if cell.text), default=-1) - 1
        moved = (*rows[-1][:missing], *row[: len(row) - missing]) if rows and missing else row
        fits = all(not cell.text or kind(cell.text) in kinds[i] for i, cell in enumerate(row))
        fits_moved = all(kind(cell.text) in kinds[i] for i, cell in enumerate(moved) if cell.text)
        rows.append(tuple(replace(c, line=row[0].line) for c in moved) if missing and not fits and fits_moved else row)
    if tuple(rows) == table.rows:
        return table
    return replace(table, rows=tuple(rows), recovered=True)


def kind(text: str) -> str:
    """What a cell holds: a whole number, a decimal, a percentage, a mark, text, nothing."""
    if not text:
        return "empty"
    numbers = numbers_in(text)
    if len(numbers) == 1 and len(numbers[0].text) >= len(text) - 2:
        if numbers[0].unit:
            return numbers[0].unit
        return "decimal" if numbers[0].decimals else "whole"
    return "mark" if not any(c.isalnum() for c in text) else "text"
