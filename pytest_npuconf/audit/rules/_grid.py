"""Tables as numbers: names of the columns, detail rows, summary rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pytest_npuconf.audit.document import CardText, Cell, Table, kept
from pytest_npuconf.audit.interval import Interval, around
from pytest_npuconf.audit.numbers import Number
from pytest_npuconf.audit.quantities import Name, aggregate_of_row, cell_number, is_blank, read_name

# In a column of ways to pool or to reduce, "mean" is one of them.
_POOLING = re.compile(r"pool|池化|聚合|reduc|aggregat", re.IGNORECASE)
_ELLIPSIS = re.compile(r"^[\s.…⋮·]+$")
_VAGUE = {"~", "≈", "约", "about", "approx", "approx.", "around"}
_SCALES = {"K", "M", "T", "params", "万", "亿"}
_ONE_SIDED = {"<", ">", "≤", "≥", "<=", ">=", "±", "+/-"}


@dataclass(frozen=True)
class Row:
    """A row: its label, what it aggregates ("" for a detail row), and the number of each column that has one."""

    label: str
    kind: str
    line: int
    cells: tuple[Cell, ...]
    numbers: tuple[Number | None, ...]


@dataclass(frozen=True)
class Grid:
    """A table with its numbers."""

    table: Table
    names: tuple[Name, ...]
    rows: tuple[Row, ...]

    @cached_property
    def kept(self) -> dict[int, Any]:
        """What was found out about a column, for whoever asks again."""
        return {}

    @cached_property
    def details(self) -> tuple[Row, ...]:
        """Rows that aggregate nothing."""
        return tuple(row for row in self.rows if not row.kind)

    @cached_property
    def summaries(self) -> tuple[Row, ...]:
        """Rows such as "mean"."""
        return tuple(row for row in self.rows if row.kind and row.kind != "other")

    @property
    def incomplete(self) -> bool:
        """Whether the table says that rows are left out."""
        return any(_ELLIPSIS.match(row.label) and len(row.label.strip()) > 1 for row in self.rows)

    def segments(self, summary: Row) -> list[list[Row]]:
        """The groups of detail rows that a summary row may stand for: its block, all above it, all of the table."""
        at = self.rows.index(summary)
        above = [row for row in self.rows[:at] if not row.kind]
        start = max((i + 1 for i in range(at) if self.rows[i].kind), default=0)
        while start == at and start > 0:  # a median under a mean
            block = [i for i in range(start - 1) if self.rows[i].kind]
            start = next((i + 1 for i in reversed(block) if not self.rows[i + 1].kind), 0)
        groups = [[row for row in self.rows[start:at] if not row.kind], above, list(self.details)]
        unique: list[list[Row]] = []
        for group in groups:
            if len(group) >= 2 and group not in unique:
                unique.append(group)
        return unique


def grid_of(table: Table) -> Grid:
    """The numbers of a table."""
    names = tuple(read_name(cell.text) for cell in table.header)
    rows = []
    labels = [i for i, cell in enumerate(table.header[:2]) if not _POOLING.search(cell.text)]
    for at, cells in enumerate(table.rows):
        kinds = ((i, aggregate_of_row(cells[i].text)) for i in labels)
        kind = next((k for i, k in kinds if k and (i == 0 or _continues(table, at))), "")
        line = next((c.line for c in cells if c.text), table.line)
        label = next((c.text for c in cells if c.text), "")
        rows.append(Row(label, kind, line, tuple(cells), tuple(cell_number(c) for c in cells)))
    return Grid(table, names, tuple(rows))


def _continues(table: Table, at: int) -> bool:
    """Whether the row's first cell names no row of its own: blank, or the same as above or below."""
    first = table.rows[at][0].text
    beside = [table.rows[i][0].text for i in (at - 1, at + 1) if 0 <= i < len(table.rows)]
    return is_blank(first) or first in beside


@kept
def grids(card: CardText) -> tuple[Grid, ...]:
    """All tables of the card that have a header and a row."""
    return tuple(grid_of(table) for table in card.tables if table.header and table.rows)


def column(rows: Sequence[Row], j: int) -> list[Number] | None:
    """The numbers of column ``j``, or None: fewer than two, another kind of cell among them, mixed units, or bounds."""
    numbers = []
    for row in rows:
        number = row.numbers[j]
        if number is None:
            if is_blank(row.cells[j].text):
                continue
            return None
        if number.before in _ONE_SIDED:
            return None
        numbers.append(number)
    if len(numbers) < 2 or len({n.unit for n in numbers if n.unit}) > 1:
        return None
    if any(n.unit in _SCALES for n in numbers) and any(not n.unit and n.value for n in numbers):
        return None  # 1.3k beside 370: they are not of one scale
    return numbers


def exact(number: Number | None) -> Number | None:
    """``number`` unless it is a bound such as "< 5"."""
    return None if number is None or number.before in _ONE_SIDED else number


def stated(number: Number) -> Interval:
    """What a written number stands for; "about" gives it two more units of its last digit."""
    interval = around(number)
    return interval.widened(4 * number.half_ulp) if number.before in _VAGUE else interval
