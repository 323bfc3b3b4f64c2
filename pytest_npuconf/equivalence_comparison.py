"""The candidate against itself: alone, in batches, with a cache, and again. No reference is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pytest_npuconf.comparison import Comparison, non_finite_rows
from pytest_npuconf.documents import Document, Runs
from pytest_npuconf.engines.base import Batches, Engine, Forward
from pytest_npuconf.equivalence_conditions import (
    FIRST,
    LONG,
    SHORT,
    batches,
    continued,
    decoded_together,
    even_batch,
    nearest_in_length,
    spoken,
    windows,
)
from pytest_npuconf.errors import EngineError
from pytest_npuconf.metrics.arrays import Float32, Float64
from pytest_npuconf.metrics.logits import ReferenceRows

Alone = Callable[[Document], Forward]


@dataclass(frozen=True)
class Compared:
    """One condition against the same document alone, one value for each position of ``runs``: ``kl`` (nats), ``rel_l2``,
    ``gap`` (logits; what the one's best token loses in the other: 0 where both have the same best) and ``equal``, whether all
    logits are bit-equal. ``group`` names the conditions that are judged together."""

    group: str
    place: str
    document: Document
    runs: Runs
    kl: Float64
    rel_l2: Float64
    gap: Float64
    equal: NDArray[np.bool_]

    def position(self, row: int) -> int:
        """The position of one value."""
        return [p for start, stop in self.runs for p in range(start, stop)][row]


@dataclass(frozen=True)
class RunNoise:
    """What one rounding costs below float32: in KL (nats) by document and run of looked positions, and the robust standard
    deviation of what it does to the gap between the two best tokens (logits)."""

    runs: Mapping[str, Mapping[tuple[int, int], float]]
    gap_sd: float

    @classmethod
    def of_comparison(cls, comparison: Comparison) -> RunNoise:
        """From the comparison with float32, whose documents are all finite."""
        listed = zip(comparison.documents, comparison.noise.typical_runs, strict=True)
        runs = {d.document.name: dict(zip(d.document.runs, map(float, sums), strict=True)) for d, sums in listed}
        return cls(runs, comparison.noise.gap_sd)

    def of(self, compared: Compared) -> float:
        """Of the positions that were compared."""
        found = self.runs[compared.document.name]
        return sum(found[run] for run in compared.runs)


@dataclass(frozen=True)
class Equivalence:
    """All conditions of one check. ``broken``: what no tolerance excuses (missing positions, NaN), in words. ``noise``: None
    at float32, and where nothing but bit-equality is asked."""

    compared: tuple[Compared, ...]
    broken: tuple[str, ...] = ()
    noise: RunNoise | None = None


@dataclass(frozen=True)
class _Condition:
    group: str
    place: str
    document: Document
    runs: Runs
    forward: Forward
    tokens: int


class FirstCall:
    """The very first call of a loaded engine: its logits at the looked positions of one document, as they came."""

    def __init__(self, engine: Engine, document: Document) -> None:
        """Makes the call."""
        self.document = document
        forward = engine.forward(document.ids)
        self.positions = forward.positions
        self._logits = {run: forward.logits(*run) for run in self.document.runs}

    def logits(self, start: int, stop: int) -> Float32:
        """Of one looked run; see :class:`pytest_npuconf.engines.base.Forward`."""
        return self._logits[start, stop]


def first_call(engine: Engine, documents: Sequence[Document]) -> FirstCall | None:
    """Makes it; None for an engine, or documents, that no equivalence can be asked of."""
    given = [d for d in documents if d.kind == "document"]
    return FirstCall(engine, nearest_in_length(given, FIRST)) if given and isinstance(engine, Batches) else None


def compare_batches(engine: Engine, documents: Sequence[Document], alone: Alone) -> Equivalence:
    """Each row of uneven batches, padded on either side, and of an even one, against the document alone."""
    able = _able(engine)
    conditions = []
    for batch in batches(documents):
        found = able.forward_batch([d.ids for d in batch.rows], batch.padding)
        conditions += [
            _Condition(f"batches {batch.padding}", batch.place(i), d, d.runs, forward, len(d.ids))
            for i, (d, forward) in enumerate(zip(batch.rows, found, strict=True))
        ]
    even = even_batch(documents)
    found = able.forward_batch([d.ids[: even.tokens] for d in even.rows], "left")
    conditions += [
        _Condition("even batch", even.place(i), d, runs, forward, even.tokens)
        for i, (d, forward) in enumerate(zip(even.rows, found, strict=True))
        if (runs := even.runs(i))
    ]
    return _compare(conditions, alone)


def compare_cached(engine: Engine, documents: Sequence[Document], alone: Alone) -> Equivalence:
    """Against one full pass: windows that are decoded token by token with the KV cache, alone and as rows of one batch, and
    texts that go on from a cache at once."""
    able, together = _able(engine), decoded_together(documents)
    rows = able.forward_decoded([w.document.ids[: w.stop] for w in together], [w.prefill for w in together])
    conditions = [
        _Condition("decoded together", f"together, {w.place}", w.document, w.runs, forward, w.stop)
        for w, forward in zip(together, rows, strict=True)
    ]
    conditions += [
        _Condition(
            "continued",
            c.place,
            c.document,
            c.runs,
            able.forward_continued(c.document.ids, c.cached),
            len(c.document.ids),
        )
        for c in continued(documents)
    ]
    conditions += [
        _Condition(
            "cached", w.place, w.document, w.runs, able.forward_cached(w.document.ids[: w.stop], w.prefill), w.stop
        )
        for w in windows(documents)
    ]
    return _compare(conditions, alone)


def compare_repeats(
    engine: Engine, documents: Sequence[Document], alone: Alone, first: FirstCall | None
) -> Equivalence:
    """Calls against the identical ones before: a batch, a decode, the documents alone, the long one after the short one and
    after itself, the short one after the long one and after single steps, and at last the first call of all."""
    able = _able(engine)
    given = [d for d in documents if d.kind == "document"]
    short, long = nearest_in_length(given, SHORT), nearest_in_length(given, LONG)
    batch, window = batches(documents)[-1], windows(documents)[0]
    ids = [d.ids for d in batch.rows]
    alone(short), alone(long)
    compared: list[Compared] = []
    broken: list[str] = []

    def again(place: str, document: Document, runs: Runs, before: Forward, after: Forward, tokens: int) -> None:
        condition = _Condition(place, f"{place} {spoken(document, tokens)}", document, runs, after, tokens)
        part = _compare([condition], lambda _: before)
        compared.extend(part.compared)
        broken.extend(part.broken)

    before = able.forward_batch(ids, batch.padding)
    for d, a, b in zip(batch.rows, before, able.forward_batch(ids, batch.padding), strict=True):
        again(f"{batch.name} again", d, d.runs, a, b, len(d.ids))
    cut = window.document.ids[: window.stop]
    a, b = (able.forward_cached(cut, window.prefill) for _ in range(2))
    again("decoded again", window.document, window.runs, a, b, window.stop)
    # the passes alone have a history of their own: what comes of the one before shows between these four
    after_steps, after_short, after_long, last = (engine.forward(d.ids) for d in (short, long, long, short))
    again("short again", short, short.runs, alone(short), after_steps, len(short.ids))
    again("long again", long, long.runs, alone(long), after_long, len(long.ids))
    again("long after short", long, long.runs, after_long, after_short, len(long.ids))
    again("short after long", short, short.runs, after_steps, last, len(short.ids))
    if first is None:
        raise EngineError(f"engine {engine.name}: its first call was not kept")
    d = first.document
    again("first call again", d, d.runs, first, engine.forward(d.ids), len(d.ids))
    return Equivalence(tuple(compared), tuple(broken))


def compare_pairs(others: Sequence[tuple[Document, Runs, Forward]], alone: Alone) -> Equivalence:
    """Any passes of documents against those of ``alone``, at the given runs of positions."""
    return _compare([_Condition("pairs", d.name, d, runs, forward, len(d.ids)) for d, runs, forward in others], alone)


def _able(engine: Engine) -> Batches:
    if not isinstance(engine, Batches):
        raise EngineError(
            f"engine {engine.name} offers no padded batches and no decoding with a cache",
            mend="give it forward_batch, forward_cached, forward_decoded and forward_continued "
            "(pytest_npuconf.engines.base.Batches), or leave the equivalence checks out of the card's [required] list",
        )
    return engine


def _compare(conditions: Sequence[_Condition], alone: Alone) -> Equivalence:
    """Document by document, so that what belongs to its pass alone is computed once."""
    found: dict[int, Compared] = {}
    broken: list[str] = []
    by_document: dict[str, list[int]] = {}
    for number, condition in enumerate(conditions):
        if condition.forward.positions != condition.tokens:
            broken.append(
                f"{condition.place} gives {condition.forward.positions} positions for {condition.tokens} tokens"
            )
        else:
            by_document.setdefault(condition.document.name, []).append(number)
    for numbers in by_document.values():
        chosen = [conditions[n] for n in numbers]
        for n, result in zip(numbers, _of_document(chosen, alone(chosen[0].document), broken), strict=True):
            if result is not None:
                found[n] = result
    return Equivalence(tuple(found[n] for n in sorted(found)), tuple(broken))


def _of_document(conditions: Sequence[_Condition], alone: Forward, broken: list[str]) -> list[Compared | None]:
    """None for a condition whose logits are not finite; what is wrong goes to ``broken``."""
    document, stop = conditions[0].document, max(c.runs[-1][1] for c in conditions)
    if alone.positions < stop:
        broken.append(f"{document.name} alone gives {alone.positions} positions for {stop} tokens")
        return [None] * len(conditions)
    parts: list[list[tuple[Float64, ...]]] = [[] for _ in conditions]
    bad: set[int] = set()
    for run in sorted({run for c in conditions for run in c.runs}):
        expected = alone.logits(*run)
        if places := non_finite_rows(expected, document, run[0]):
            broken.append(f"{places[0].kind} in the logits alone at {places[0].place}")
            return [None] * len(conditions)
        reference = ReferenceRows(expected)
        for i, condition in enumerate(conditions):
            if run not in condition.runs or i in bad:
                continue
            logits = condition.forward.logits(*run)
            if places := non_finite_rows(logits, document, run[0]):
                broken.append(f"{places[0].kind} in {condition.place} at {places[0].place}")
                bad.add(i)
            else:
                parts[i].append(_values(reference, logits))
    return [None if i in bad else _joined(condition, parts[i]) for i, condition in enumerate(conditions)]


def _values(reference: ReferenceRows, logits: Float32) -> tuple[Float64, ...]:
    rounding = reference.compare_rounding(logits)
    here = np.arange(len(logits))
    gap = reference.wide[here, reference.top[:, 0]] - reference.wide[here, logits.argmax(axis=1)]
    return rounding.kl, rounding.rel_l2, gap, (logits == reference.rows).all(axis=1)


def _joined(condition: _Condition, parts: Sequence[tuple[Float64, ...]]) -> Compared:
    kl, rel_l2, gap, equal = (np.concatenate(values) for values in zip(*parts, strict=True))
    return Compared(
        condition.group, condition.place, condition.document, condition.runs, kl, rel_l2, gap, equal.astype(np.bool_)
    )
