"""Reading a card: bytes to text, text to lines that a Markdown parser reads rightly, its tokens to a CardText.

The parser is markdown-it-py (CommonMark with tables). Before it, ``repair`` mends what copying broke (fences never closed,
commands without a fence, tables glued to the prose around them); after it, ``recover`` finds tables whose separators were
lost. Every part keeps the number of the line in the file.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from pytest_npuconf.audit.decoding import MAX_LINE, decode, read_bytes
from pytest_npuconf.audit.document import CardText, Cell, Code, Pair, Prose, Section, Table
from pytest_npuconf.audit.markdown import collect
from pytest_npuconf.audit.normalise import normalise, tidy, without_markup
from pytest_npuconf.audit.repair import repair
from pytest_npuconf.audit.several import split_cards

__all__ = [
    "CardText",
    "Cell",
    "Code",
    "Pair",
    "Prose",
    "Section",
    "Table",
    "normalise",
    "parse_card",
    "parse_cards",
    "read_card",
    "tidy",
    "without_markup",
]


def read_card(path: Path) -> list[CardText]:
    """The cards of a file (several, where a whole card follows another). AuditError where it is no readable text."""
    text, notes = decode(read_bytes(path), str(path))
    if not text.strip():
        notes = (*notes, f"{path} is empty: there is nothing to audit")
    cards = parse_cards(text, str(path))
    return [dataclasses.replace(card, notes=(*notes, *card.notes)) for card in cards]


def parse_cards(text: str, path: str = "<text>") -> list[CardText]:
    """The cards in ``text``; lines are counted through the whole text in each."""
    raw = _lines(text)
    parts = split_cards(raw)
    cards = []
    for number, (start, end) in enumerate(parts, 1):
        inside = [line if start <= index < end else "" for index, line in enumerate(raw)] if len(parts) > 1 else raw
        notes = (f"card {number} of {len(parts)} in this file, lines {start + 1} to {end}",) if len(parts) > 1 else ()
        cards.append(_parse(raw, inside, path, notes))
    return cards


def parse_card(text: str, path: str = "<text>") -> CardText:
    """``text`` read as one card."""
    raw = _lines(text)
    return _parse(raw, raw, path, ())


def _lines(text: str) -> list[str]:
    """Lines as an editor counts them: CRLF, LF and CR end one, form feeds and Unicode separators do not."""
    return text.replace("\r\n", "\n").replace("\r", "\n").removeprefix("\ufeff").split("\n")


def _parse(raw: list[str], inside: list[str], path: str, notes: tuple[str, ...]) -> CardText:
    inside = [line if len(line) <= MAX_LINE else line[:MAX_LINE] for line in inside]
    repaired = repair(inside)
    parts = collect(repaired, len(inside))
    return CardText(
        path=path,
        raw=tuple(raw),
        lines=tuple(normalise(line) for line in inside),
        sections=parts.sections,
        tables=parts.tables,
        codes=parts.codes,
        pairs=parts.pairs,
        proses=parts.proses,
        notes=(*notes, *repaired.notes),
    )
