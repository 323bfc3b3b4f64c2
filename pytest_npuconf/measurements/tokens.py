"""The candidate's tokenization against the reference's, text by text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pytest_npuconf.cards.schema import TokenProbe
from pytest_npuconf.documents import Document
from pytest_npuconf.gates import MAX_ROWS, Measurement, Row

SHOWN = 60  # characters of a text in a row
AROUND = 3  # token ids shown on each side of the first difference


def token_ids(
    documents: Sequence[Document], probes: Sequence[TokenProbe], tokenize: Callable[[str], Sequence[int]]
) -> Measurement:
    """Texts whose token ids are not the reference's, or not the card's for a probe.

    Args:
        documents: with the reference's ids.
        tokenize: the candidate's. ``input_lengths`` counts its tokens of each hidden-state input.
    """
    expected = [(d.name, d.text, d.ids) for d in documents]
    expected += [(f"probe {i}", probe.text, probe.ids) for i, probe in enumerate(probes, start=1)]
    found = [tuple(tokenize(text)) for _, text, _ in expected]
    for i, document in enumerate(documents):
        if document.kind == "document":  # cut to a length
            found[i] = found[i][: len(document.ids)]
    rows = [
        Row(name, 1.0, _difference(text, ids, other))
        for (name, text, ids), other in zip(expected, found, strict=True)
        if tuple(ids) != other
    ]
    lengths = [len(ids) for document, ids in zip(documents, found, strict=False) if document.kind == "hidden"]
    data = {"rows_total": len(rows), "statistics": {"input_lengths": lengths} if lengths else {}}
    return Measurement(
        "tokenizations.differing", float(len(rows)), n=len(expected), of="texts", rows=tuple(rows[:MAX_ROWS]), data=data
    )


def _difference(text: str, expected: Sequence[int], found: Sequence[int]) -> str:
    pairs = zip(expected, found, strict=False)
    first = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(expected), len(found)))
    shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
    return (
        f"{shown!r} from token {first}: expected {_around(expected, first)} ({len(expected)} tokens), "
        f"found {_around(found, first)} ({len(found)} tokens)"
    )


def _around(ids: Sequence[int], place: int) -> str:
    start, stop = max(0, place - AROUND), place + AROUND + 1
    inner = ", ".join(map(str, ids[start:stop]))
    return f"[{'..., ' if start else ''}{inner}{', ...' if stop < len(ids) else ''}]"
