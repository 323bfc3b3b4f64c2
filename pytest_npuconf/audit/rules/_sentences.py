"""Prose by sentences, for rules that judge a sentence only where they have read all of it."""

from __future__ import annotations

import re

from pytest_npuconf.audit.document import CardText, Prose, kept

LONGEST = 4000
_END = re.compile(r"(?<=[.!?])\s+|[。;]\s*")
ABSENT = re.compile(
    r"\b(?:earlier|previous(?:ly)?|former(?:ly)?|wrong(?:ly)?|mistake|erratum|errata|typo|was said|claimed|instead|not)\b"
    r"|此前|之前|曾|旧版|误|勘误|原先|不是",
    re.IGNORECASE,
)
"""Of a sentence with such a word it is not sure that the card still says it."""


@kept
def sentences(card: CardText) -> tuple[tuple[Prose, list[str]], ...]:
    """Each line of prose that is not endless, cut at full stops and semicolons."""
    proses = (prose for prose in card.proses if len(prose.text) <= LONGEST)
    return tuple((prose, [part for part in _END.split(prose.text) if part]) for prose in proses)


def bare(sentence: str) -> str:
    """The sentence without the stop at its end."""
    return sentence.strip().rstrip(".!。;")
