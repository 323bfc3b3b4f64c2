"""Figures in prose: a number and the words just before it, which name it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pytest_npuconf.audit.document import CardText, kept
from pytest_npuconf.audit.numbers import Number, numbers_in
from pytest_npuconf.audit.quantities import Name, read_name

_BREAK = re.compile(r"[,;。.:!?、()\[\]|]\s|[,;。!?、(\[|]")
_LEAD = re.compile(
    r"(均|都|仅|只有|仅为|达到|高达|约|约为|为|是|达|is|was|are|of|at|about|only|reaches|reached|up to|to|=|:)\s*$",
    re.IGNORECASE,
)
LONGEST = 40


@dataclass(frozen=True)
class Clause:
    """A number in prose, what its words name, and the whole line."""

    number: Number
    name: Name
    text: str
    section: str


@kept
def clauses(card: CardText) -> tuple[Clause, ...]:
    """Each number of the card's prose with the words between it and the mark or number before it."""
    return tuple(_read(card))


def _read(card: CardText) -> Iterator[Clause]:
    for prose in card.proses:
        if len(prose.text) > 4000:
            continue
        last = 0
        for number in numbers_in(prose.text, prose.line):
            words = prose.text[max(last, number.start - LONGEST) : number.start]
            words = _BREAK.split(words)[-1]
            last = number.end
            while (shorter := _LEAD.sub("", words.strip())) != words:
                words = shorter
            if words:
                yield Clause(number, read_name(words), prose.text, prose.section)
