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
EVEN, EVEN_ROWS = 48, 8  # a batch that needs no padding goes another way through most kernels: without a mask
# Wanted windows of decoding: the first tokens, three turns of a page, the end of eight pages, and behind a prompt that fills
# its last page of 128 to the brim.
WINDOWS = ((0, 17), (112, 144), (128, 144), (240, 272), (496, 528), (512, 528), (1009, 1025))
FEWEST_DECODED = 16
# Wanted windows that are decoded together, as rows of one batch with prompts of 1, 32, 32, 112 and 240 tokens.
DECODED_TOGETHER = ((0, 17), (32, 48), (32, 48), (112, 128), (240, 256))
# Tokens that are cached and tokens in all, wanted: what follows goes through the model at once. Two end with a page.
CONTINUED = ((16, 127), (64, 129), (112, 256), (128, 257), (512, 1025))
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
class EvenBatch:
    """Rows of one length: each document's first ``tokens``."""

    rows: tuple[Document, ...]
    tokens: int

    def place(self, row: int) -> str:
        """``even batch 8 row 3 (document en-4, 48 tokens)``."""
        return f"even batch {len(self.rows)} row {row} {spoken(self.rows[row], self.tokens)}"

    def runs(self, row: int) -> Runs:
        """The looked runs inside that length."""
        return tuple(run for run in self.rows[row].runs if run[1] <= self.tokens)


@dataclass(frozen=True)
class Continued:
    """A document whose first ``cached`` tokens are in the KV cache when all others come at once."""

    document: Document
    cached: int

    @property
    def runs(self) -> Runs:
        """The looked runs behind the cached tokens."""
        return tuple(run for run in self.document.runs if run[0] >= self.cached)

    @property
    def place(self) -> str:
        """``128 cached, then 129 at once (document zh-4, 257 tokens)``."""
        return f"{self.cached} cached, then {len(self.document.ids) - self.cached} at once {spoken(self.document)}"


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


def even_batch(documents: Sequence[Document]) -> EvenBatch:
    """Those nearest to :data:`EVEN` tokens, cut to the shortest of them.

    Raises:
        MetricError: no documents of the positions.
    """
    rows = _each_nearest(_required(documents), [EVEN] * EVEN_ROWS)
    return EvenBatch(tuple(rows), min(len(d.ids) for d in rows))


def windows(documents: Sequence[Document]) -> list[Window]:
    """The windows of :data:`WINDOWS`, as near to them as the documents come; of equals, the shortest document without one.

    Raises:
        MetricError: no document of the positions has a window of enough positions.
    """
    return _nearest(documents, WINDOWS, alike=True)


def decoded_together(documents: Sequence[Document]) -> list[Window]:
    """The windows of :data:`DECODED_TOGETHER`, each of a document of its own, as far as there are so many.

    Raises:
        MetricError: as :func:`windows`.
    """
    return _nearest(documents, DECODED_TOGETHER, alike=False)


def _nearest(documents: Sequence[Document], wanted: Sequence[tuple[int, int]], *, alike: bool) -> list[Window]:
    """``alike``: a document may serve twice, with another window."""
    spans = [Window(d, span) for d in _required(documents) for span in _spans(d.runs)]
    spans = [w for w in spans if w.stop - w.prefill >= FEWEST_DECODED]
    if not spans:
        raise MetricError(
            f"equivalence.cache: no document has {FEWEST_DECODED} looked positions to decode", mend="give longer texts"
        )
    found: list[Window] = []
    for start, stop in wanted:

        def order(w: Window, start: int = start, stop: int = stop) -> tuple[int, bool, int]:
            return abs(w.runs[0][0] - start) + abs(w.stop - stop), used(w), len(w.document.ids)

        def used(w: Window) -> bool:
            return any(w.document == f.document for f in found)

        left = spans if alike else [w for w in spans if not used(w)]
        if left and (best := min(left, key=order)) not in found:
            found.append(best)
    return found


def continued(documents: Sequence[Document]) -> list[Continued]:
    """The documents nearest to the lengths of :data:`CONTINUED`, each with so many tokens cached, or as many as leave the last
    looked run behind them.

    Raises:
        MetricError: no document of the positions has a looked run behind its first token.
    """
    left = [d for d in _required(documents) if d.runs[-1][0] >= 1]
    if not left:
        raise MetricError("equivalence.cache: no document is looked at behind its first run", mend="give longer texts")
    chosen = _each_nearest(left, [tokens for _, tokens in CONTINUED])
    return [Continued(d, min(cached, d.runs[-1][0])) for (cached, _), d in zip(CONTINUED, chosen, strict=False)]


def nearest_in_length(documents: Sequence[Document], tokens: int) -> Document:
    """The document whose length is nearest; the first of equals."""
    return min(documents, key=lambda d: abs(len(d.ids) - tokens))


def _each_nearest(documents: Sequence[Document], lengths: Sequence[int]) -> list[Document]:
    """The nearest to each length, none twice, as far as there are so many."""
    left, chosen = list(documents), list[Document]()
    for tokens in lengths[: len(left)]:
        chosen.append(nearest_in_length(left, tokens))
        left = [d for d in left if d is not chosen[-1]]
    return chosen


def _spans(runs: Runs) -> list[Runs]:
    """Runs one by one, and with those that they touch."""
    spans: list[Runs] = []
    for first in range(len(runs)):
        stop = first + 1
        spans.append(runs[first:stop])
        while stop < len(runs) and runs[stop][0] == runs[stop - 1][1]:
            stop += 1
            spans.append(runs[first:stop])
    return spans


def _required(documents: Sequence[Document]) -> list[Document]:
    given = [d for d in documents if d.kind == "document"]
    if not given:
        raise MetricError(
            "equivalences: the card has no documents", mend="give [prompts] documents, or none to use the shipped ones"
        )
    return given
