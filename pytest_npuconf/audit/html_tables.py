"""Tables written as HTML, also with merged cells (colspan, rowspan)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html.parser import HTMLParser

from pytest_npuconf.audit.document import Cell, Table
from pytest_npuconf.audit.fences import Line
from pytest_npuconf.audit.normalise import tidy

MAX_SPAN = 50
MAX_CELLS = 20_000
_TAG_LINE = re.compile(
    r"^\s*(?:</?(?:details|summary|div|p|center|br|hr|span|a|img|h[1-6]|b|i|sub|sup|font|section|article)\b[^>]*>\s*)+"
    r"(?:[^<|]*</(?:summary|p|b|h[1-6]|a|div|center)>)*\s*$",
    re.IGNORECASE,
)


def take_html_tables(entries: Sequence[Line]) -> tuple[list[Line], list[Table]]:
    """Entries without their HTML tables, and these. A line of other tags gets a blank line after it, so that Markdown
    goes on behind ``<details>``."""
    result: list[Line] = []
    tables: list[Table] = []
    position = 0
    while position < len(entries):
        entry = entries[position]
        opening = None if entry.code else re.search(r"<table\b", entry.text, re.IGNORECASE)
        end = _end(entries, position) if opening else None
        if opening is None or end is None:
            result.append(entry)
            if not entry.code and _TAG_LINE.match(entry.text):
                result.append(Line("", entry.origin))
            position += 1
            continue
        reader = _Reader()
        before, after = entry.text[: opening.start()], ""
        for index in range(position, end + 1):
            text = entries[index].text
            if index == end:
                close = re.search(r"</table\s*>", text, re.IGNORECASE)
                after = text[close.end() :] if close else ""
                text = text[: close.end()] if close else text
            reader.at = entries[index].origin
            reader.feed((text[opening.start() :] if index == position else text) + "\n")
        tables.extend(reader.table())
        result += [Line(before, entry.origin), Line("", entry.origin), Line(after, entries[end].origin)]
        position = end + 1
    return result, tables


def _end(entries: Sequence[Line], start: int) -> int | None:
    for position in range(start, min(len(entries), start + 2000)):
        if not entries[position].code and re.search(r"</table\s*>", entries[position].text, re.IGNORECASE):
            return position
    return None


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.at = 1
        self.rows: list[list[Cell]] = []
        self.merged = False
        self.body: set[int] = set()  # rows (from 1) that hold a plain cell
        self._text: list[str] | None = None
        self._spans = (1, 1)
        self._line = 1
        self._below: dict[int, tuple[Cell, int]] = {}  # column -> the cell that reaches down, and how far

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self._finish_cell()
            self.rows.append([])
        elif tag in ("td", "th"):
            self._finish_cell()
            if not self.rows:
                self.rows.append([])
            given = dict(attrs)
            self._spans = (_span(given.get("colspan")), _span(given.get("rowspan")))
            self._text, self._line = [], self.at
            if tag == "td":
                self.body.add(len(self.rows))
        elif tag == "br" and self._text is not None:
            self._text.append(" ")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th", "tr", "table"):
            self._finish_cell()
        if tag in ("tr", "table") and self.rows:
            self._fill()

    def handle_data(self, data: str) -> None:
        if self._text is not None:
            self._text.append(data)

    def _finish_cell(self) -> None:
        if self._text is None:
            return
        cell = Cell(tidy("".join(self._text)), self._line)
        self._text = None
        self._fill()
        across, down = self._spans
        for _ in range(across if sum(map(len, self.rows)) < MAX_CELLS else 0):
            if down > 1:
                self._below[len(self.rows[-1])] = (cell, down)
            self.rows[-1].append(cell)
        self.merged |= across > 1 or down > 1

    def _fill(self) -> None:
        """Cells that reach down from the rows above."""
        row = self.rows[-1]
        while len(row) in self._below and self._below[len(row)][1] > 1:
            column = len(row)
            cell, down = self._below[column]
            if any(cell is other for other in row[column:]):
                break
            self._below[column] = (cell, down - 1)
            row.append(Cell(cell.text, self.at))

    def table(self) -> list[Table]:
        """The table, where it has a header and equal rows."""
        heads = [row for number, row in enumerate(self.rows, 1) if row and number not in self.body]
        rows = [row for row in self.rows if row]
        if len(heads) > 1 and rows[: len(heads)] == heads and len({len(row) for row in heads}) == 1:
            names = [
                list(dict.fromkeys(cell.text for cell in column if cell.text)) for column in zip(*heads, strict=True)
            ]
            rows = [[Cell(" ".join(n), heads[0][i].line) for i, n in enumerate(names)], *rows[len(heads) :]]
        if len(rows) < 2:
            return []
        width = len(rows[0])
        if any(len(row) > width for row in rows):
            return []
        body = tuple((*row, *([Cell("", row[0].line)] * (width - len(row)))) for row in rows[1:])
        return [Table(tuple(rows[0]), body, "", rows[0][0].line, self.merged)]


def _span(text: str | None) -> int:
    return min(int(text), MAX_SPAN) if text and text.isascii() and text.isdigit() and int(text[:6]) > 0 else 1
