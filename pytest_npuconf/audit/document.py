"""What a card is made of, after reading: sections, tables, code, pairs and prose, each with its line (from 1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import TypeVar

_Read = TypeVar("_Read")

QUOTE_LENGTH = 160


@dataclass(frozen=True)
class Cell:
    """A table cell: text without markup, digits, percent signs and spaces in their plain form."""

    text: str
    line: int


@dataclass(frozen=True)
class Table:
    """A table. Every row has as many cells as the header; a missing cell is an empty text.

    ``recovered``: the separators were lost (or cells were merged) and the columns were found again from the patterns.
    """

    header: tuple[Cell, ...]
    rows: tuple[tuple[Cell, ...], ...]
    section: str
    line: int
    recovered: bool = False


@dataclass(frozen=True)
class Section:
    """A heading and the lines under it, up to the next heading of its depth or above (``end`` belongs to it)."""

    title: str
    depth: int
    line: int
    end: int


@dataclass(frozen=True)
class Code:
    """A fenced or indented block, or a run of commands that stands in the text. ``line``: its first line of code."""

    language: str
    text: str
    line: int


@dataclass(frozen=True)
class Pair:
    """``key: value`` of a line, a list item, a row of a table of two columns, or the front matter."""

    key: str
    value: str
    line: int
    section: str


@dataclass(frozen=True)
class Prose:
    """One source line of a paragraph, list item, quotation or heading, without markup."""

    text: str
    line: int
    section: str


@dataclass(frozen=True)
class CardText:
    """A card as the rules see it."""

    path: str
    raw: tuple[str, ...]
    lines: tuple[str, ...]
    sections: tuple[Section, ...] = ()
    tables: tuple[Table, ...] = ()
    codes: tuple[Code, ...] = ()
    pairs: tuple[Pair, ...] = ()
    proses: tuple[Prose, ...] = ()
    notes: tuple[str, ...] = field(default=())
    """What a reader should know about the reading itself: a guessed encoding, a fence that never closed."""

    def section_at(self, line: int) -> str:
        """Title of the innermost section that the line belongs to, or an empty text before the first heading."""
        title = ""
        for section in self.sections:
            if section.line <= line <= section.end:
                title = section.title
        return title

    def quote(self, line: int) -> str:
        """The line as it stands in the file, at most 160 characters."""
        if not 1 <= line <= len(self.raw):
            return ""
        text = self.raw[line - 1].strip()
        return text if len(text) <= QUOTE_LENGTH else text[: QUOTE_LENGTH - 1] + "…"


def kept(read: Callable[[CardText], _Read]) -> Callable[[CardText], _Read]:
    """``read``, with what it gave for the last card kept: several rules ask for the same."""
    last: list[tuple[CardText, _Read]] = []

    @wraps(read)
    def ask(card: CardText) -> _Read:
        if not last or last[0][0] is not card:
            last[:] = [(card, read(card))]
        return last[0][1]

    return ask
