"""Which documents go into which batch, window and repeat of the equivalences. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pytest_npuconf.documents import Document, Runs
from pytest_npuconf.engines.base import Padding
from pytest_npuconf.errors import MetricError

# Wanted lengths in tokens: each batch is uneven, holds a row of one token or of fifteen, and crosses a page of 128.
BATCHES = ((15, 257, 48), (48, 1, 129, 17, 128, 16, 48, 127))
PADDINGS: tuple[Padding, ...] = ("right", "left")
# Wanted windows of decoding: the first tokens, the three turns of a page, and the end of eight pages.
WINDOWS = ((0, 17), (112, 144), (240, 272), (496, 528), (1009, 1025))
FEWEST_DECODED = 16
FIRST, SHORT, LONG = 127, 16, 1025


@dataclass(frozen=True)
class Batch:
    """Rows of one padded batch, in order."""

    rows: tuple[Document, ...]
    padding: Padding

    @property
    def name(self) -> str:
        """``batch 8 left``."""
        return f"batch {len(self.rows)} {self.padding}"

    def place(self, row: int) -> str:
        """``batch 8 left row 3 (document zh-4, 128 tokens)``."""
        return f"{self.name} row {row} {spoken(self.rows[row])}"


@dataclass(frozen=True)
class Window:
    """Positions of a document that are decoded one at a time, behind a prefill of those before them. ``runs``: the looked
    runs, without a gap between them."""

    document: Document
    runs: Runs

    @property
    def prefill(self) -> int:
        """Tokens of the prefill."""
        return max(1, self.runs[0][0])

    @property
    def stop(self) -> int:
        """Tokens in all."""
        return self.runs[-1][1]

    @property
    def place(self) -> str:
        """``decoded 112-143 (document zh-4, 144 of 257 tokens)``."""
        return f"decoded {self.prefill}-{self.stop - 1} {spoken(self.document, self.stop)}"


def spoken(document: Document, tokens: int | None = None) -> str:
    """``(document zh-4, 128 tokens)``; with ``tokens``, how many of them are used."""
    total = len(document.ids)
    used = f"{tokens} of {total}" if tokens is not None and tokens != total else f"{total}"
    return f"(document {document.name}, {used} token{'s' if total > 1 else ''})"


def batches(documents: Sequence[Document]) -> list[Batch]:
    """Each batch with each padding; a document is used twice only where there are too few.

    Raises:
        MetricError: no documents of the positions, or all of one length.
    """
    given = _required(documents)
    found: list[Batch] = []
    used: list[Document] = []
    for lengths in BATCHES:
        rows = []
        for wanted in lengths:
            used = [] if len(used) == len(given) else used
            rows.append(nearest_in_length([d for d in given if d not in used], wanted))
            used = [*used, rows[-1]]
        found += [Batch(tuple(rows), padding) for padding in PADDINGS]
    if any(len({len(d.ids) for d in batch.rows}) == 1 for batch in found):
        raise MetricError(
            "equivalence.batch: documents of one length need no padding", mend="give texts of several lengths"
        )
    return found


def windows(documents: Sequence[Document]) -> list[Window]:
    """The windows of :data:`WINDOWS`, as near to them as the documents come; of equals, the shortest document without one.

    Raises:
        MetricError: no document of the positions has a window of enough positions.
    """
    spans = [Window(d, span) for d in _required(documents) for span in _spans(d.runs)]
    spans = [w for w in spans if w.stop - w.prefill >= FEWEST_DECODED]
    if not spans:
        raise MetricError(
            f"equivalence.cache: no document has {FEWEST_DECODED} looked positions to decode", mend="give longer texts"
        )
    found: list[Window] = []
    for start, stop in WINDOWS:

        def order(w: Window, start: int = start, stop: int = stop) -> tuple[int, bool, int]:
            used = any(w.document == f.document for f in found)
            return abs(w.runs[0][0] - start) + abs(w.stop - stop), used, len(w.document.ids)

        best = min(spans, key=order)
        if best not in found:
            found.append(best)
    return found


def nearest_in_length(documents: Sequence[Document], tokens: int) -> Document:
    """The document whose length is nearest; the first of equals."""
    return min(documents, key=lambda d: abs(len(d.ids) - tokens))


def _spans(runs: Runs) -> list[Runs]:
    """Runs that touch, together."""
    spans: list[Runs] = []
    for run in runs:
        if spans and spans[-1][-1][1] == run[0]:
            spans[-1] = (*spans[-1], run)
        else:
            spans.append((run,))
    return spans


def _required(documents: Sequence[Document]) -> list[Document]:
    given = [d for d in documents if d.kind == "document"]
    if not given:
        raise MetricError(
            "equivalences: the card has no documents", mend="give [prompts] documents, or none to use the shipped ones"
        )
    return given
