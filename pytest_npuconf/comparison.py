"""Candidate, reference and yardstick over the same documents, streamed: no full logits are ever held."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from pytest_npuconf.documents import Document, Runs
from pytest_npuconf.engines.base import Forward
from pytest_npuconf.errors import MetricError, NonFiniteError
from pytest_npuconf.metrics.arrays import Float32, Float64
from pytest_npuconf.metrics.best_words import BestWordRows, BestWords
from pytest_npuconf.metrics.compact import CompactRows
from pytest_npuconf.metrics.logits import LogitRows, ReferenceRows, RoundingRows
from pytest_npuconf.stats import robust_sd

# float32 elements of logits held at once over all sides (128 MB), and of one float64 working block (16 MB)
HELD = 1 << 25
BLOCK = 1 << 21
MOST_ROWS = 128


@dataclass(frozen=True)
class DocumentComparison:
    """One document: ``rows`` of the candidate and ``yardstick`` rows by member, one for each looked position, and per-token
    nll (nats, one for each looked position that has a next token) of reference and candidate. ``rest`` of the candidate, and
    ``rest_shift`` (logits) by member: one for each of the other positions, none where these are not compared."""

    document: Document
    rows: LogitRows
    yardstick: Mapping[str, RoundingRows]
    reference_nll: Float64
    candidate_nll: Float64
    rest: BestWordRows = field(default_factory=BestWordRows.none)
    rest_shift: Mapping[str, Float64] = field(default_factory=dict)


@dataclass(frozen=True)
class Noise:
    """What rounding costs: sums over positions by document, shape ``(documents,)``, of KL (nats) and of rel_l2, and the
    robust standard deviation of the reference's gap between its two best (logits). ``members`` has the mean KL of each;
    ``runs`` the sums of KL by document and run of looked positions, ``typical_runs`` the same of the mean member, ``gap``
    the root mean square over members of what rounding does to that gap, by document and looked position, ``rest_gap`` the
    same by document and position of the rest (none where it is not compared)."""

    kl: Float64
    rel_l2: Float64
    gap_sd: float
    members: dict[str, float]
    runs: tuple[Float64, ...] = ()
    typical_runs: tuple[Float64, ...] = ()
    gap: tuple[Float64, ...] = ()
    rest_gap: tuple[Float64, ...] = ()


@dataclass(frozen=True)
class NonFinite:
    """A position whose logits are not finite."""

    place: str
    kind: str
    position: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Comparison:
    """All documents of one model at one precision pair. With ``non_finite`` places, ``documents`` holds the others.
    ``positions`` counts those that were compared, whole or by their best token.

    ``noise`` says what rounding alone costs here, document by document, in the order of ``documents``.
    """

    documents: tuple[DocumentComparison, ...]
    positions: int
    noise: Noise
    non_finite: tuple[NonFinite, ...] = field(default=())

    def of(self, kind: str) -> list[DocumentComparison]:
        """The documents of one kind: ``prompt`` or ``text``."""
        return [d for d in self.documents if d.document.kind == kind]


def compare(
    documents: Sequence[Document],
    candidate: Callable[[Document], Forward],
    reference: Callable[[Document], Forward | CompactRows],
    yardstick: Mapping[str, Callable[[Document], Forward]],
    *,
    words: Callable[[Document], BestWords] | None = None,
    announce: Callable[[str], None] = lambda _: None,
) -> Comparison:
    """Compare over all documents.

    Args:
        candidate, reference, yardstick: give the forward pass of a document; the reference's may be stored rows.
        words: gives the reference's best words at the ``rest`` of a document; without it only looked positions are compared.

    Raises:
        NonFiniteError: the reference itself is not finite (there is nothing to compare with).
        MetricError: the sides differ in vocabulary.
    """
    done: list[DocumentComparison] = []
    bad: list[NonFinite] = []
    rows = 1  # of the first document one row goes first: its width tells how many fit
    for number, document in enumerate(documents, start=1):
        announce(f"{document.name}: {len(document.ids)} tokens ({number} of {len(documents)})")
        sides = {name: forward(document) for name, forward in yardstick.items()}
        passes, before = candidate(document), len(bad)
        streamed, rows = _stream(document, passes, reference(document), sides, bad, rows)
        if words is not None and document.rest:
            known = words(document) if streamed is not None else None
            rest, shifts = _compare_rest(document, passes, known, sides, bad, rows)
            bad[before:] = sorted(bad[before:], key=lambda one: one.position)
            if streamed is not None:
                streamed = replace(streamed, rest=rest, rest_shift=shifts)
        if streamed is not None and len(bad) == before:
            done.append(streamed)
    positions = sum(len(d.positions if words is None else d.ids) for d in documents)
    return Comparison(tuple(done), positions, noise_of_yardstick(done), tuple(bad))


def sums_of_runs(document: Document, values: Float64) -> Float64:
    """Sums of one value per looked position over each run."""
    return np.add.reduceat(values, np.cumsum([0, *(stop - start for start, stop in document.runs[:-1])]))


def noise_of_yardstick(documents: Sequence[DocumentComparison]) -> Noise:
    """One rounding: that of the noisiest member. Each member is a healthy way to compute, so a candidate as far from float32
    as that one is healthy too."""
    names = list(documents[0].yardstick) if documents else []
    if not names:
        return Noise(np.zeros(len(documents)), np.zeros(len(documents)), 0.0, {})
    kl, rel = (
        noisiest([np.array([getattr(d.yardstick[name], figure).sum() for d in documents]) for name in names])
        for figure in ("kl", "rel_l2")
    )
    every = {name: np.concatenate([d.yardstick[name].kl for d in documents]) for name in names}
    loudest = max(names, key=lambda name: float(every[name].sum()))
    return Noise(
        kl,
        rel,
        robust_sd(np.concatenate([d.yardstick[name].top2_shift for d in documents for name in names])),
        {name: float(values.mean()) for name, values in every.items()},
        tuple(sums_of_runs(d.document, d.yardstick[loudest].kl) for d in documents),
        tuple(sums_of_runs(d.document, np.mean([d.yardstick[name].kl for name in names], axis=0)) for d in documents),
        tuple(_rms([d.yardstick[name].top2_shift for name in names]) for d in documents),
        tuple(_rms([d.rest_shift[name] for name in names]) if d.rest_shift else np.zeros(0) for d in documents),
    )


def noisiest(members: Sequence[Float64]) -> Float64:
    """Of one array of sums by document for each member, that with the largest total."""
    return max(members, key=lambda sums: float(sums.sum()))


def _rms(values: Sequence[Float64]) -> Float64:
    found: Float64 = np.sqrt(np.mean(np.square(values), axis=0))
    return found


def noise_of_two_roundings(against_float32: Comparison, reference: str) -> Noise:
    """The noise between two implementations at one low dtype: each is off from float32 by its own rounding, and
    independent errors add in the square (KL is such a square; rel_l2 and gaps are roots of one).

    Args:
        against_float32: the same documents against the float32 reference, with all members.
        reference: the member that serves as the reference of the same-dtype pair.
    """
    documents = [d for d in against_float32.documents if d.document.kind != "document"]
    if not documents:
        return Noise(np.zeros(0), np.zeros(0), 0.0, {})
    others = [name for name in documents[0].yardstick if name != reference]
    own = [d.yardstick[reference] for d in documents]
    kl = np.array([rows.kl.sum() for rows in own])
    kl = kl + noisiest([np.array([d.yardstick[name].kl.sum() for d in documents]) for name in others])
    rel = noisiest(
        [
            np.array([np.hypot(a.rel_l2, d.yardstick[name].rel_l2).sum() for a, d in zip(own, documents, strict=True)])
            for name in others
        ]
    )
    shifts = {name: np.concatenate([d.yardstick[name].top2_shift for d in documents]) for name in [reference, *others]}
    gap = np.hypot(robust_sd(shifts[reference]), robust_sd(np.concatenate([shifts[name] for name in others])))
    local = tuple(
        np.hypot(d.yardstick[reference].top2_shift, _rms([d.yardstick[name].top2_shift for name in others]))
        for d in documents
    )
    return Noise(kl, rel, float(gap), dict(against_float32.noise.members), gap=local)


def _stream(
    document: Document,
    candidate: Forward,
    reference: Forward | CompactRows,
    yardstick: Mapping[str, Forward],
    bad: list[NonFinite],
    rows: int,
) -> tuple[DocumentComparison | None, int]:
    _check_positions(document, candidate, reference, yardstick)
    total, found = len(document.positions), len(bad)
    kept = LogitRows.allocate(total)
    members = {name: RoundingRows.allocate(total) for name in yardstick}
    nll, shift = (np.empty(total - (document.positions[-1] == len(document.ids) - 1)) for _ in range(2))
    at = 0  # row of the position ``start``
    for first, last in document.runs:
        start = first
        while start < last:
            stop = min(start + rows, last)
            read, cand = _reader(document, reference, start, stop, at), candidate.logits(start, stop)
            rows = max(1, min(MOST_ROWS, HELD // (cand.shape[1] * (len(yardstick) + 2))))
            bad += non_finite_rows(cand, document, start)
            if len(bad) == found:
                others = {name: forward.logits(start, stop) for name, forward in yardstick.items()}
                for name, logits in others.items():
                    _require_usable(document, f"yardstick {name}", logits, start)
                for a, b in _blocks(cand):
                    block = read(a, b)
                    part = block.compare(cand[a:b])
                    kept.put(at + a, part)
                    for name, logits in others.items():
                        members[name].put(at + a, block.compare_rounding(logits[a:b]))
                    _score(document.ids[start + a + 1 : start + b + 1], block, cand[a:b], part, at + a, nll, shift)
            at += stop - start
            start = stop
    if len(bad) > found:
        return None, rows
    return DocumentComparison(document, kept, members, nll, nll + shift), rows


def _compare_rest(
    document: Document,
    candidate: Forward,
    words: BestWords | None,
    yardstick: Mapping[str, Forward],
    bad: list[NonFinite],
    rows: int,
) -> tuple[BestWordRows, dict[str, Float64]]:
    """The positions of the document's ``rest``, ``rows`` at a time. Without ``words``, or once the candidate is not finite at
    one, it is only asked whether the others are."""
    total, found, at = len(document.rest_positions), len(bad), 0
    if words is not None and len(words) != total:
        raise MetricError(
            f"{document.name}: the reference gives {len(words)} positions for {total} outside the windows"
        )
    kept, shifts = BestWordRows.allocate(total), {name: np.empty(total) for name in yardstick}
    for start, stop in blocks_of(document.rest, rows):
        cand, there = candidate.logits(start, stop), slice(at, at + stop - start)
        bad += non_finite_rows(cand, document, start)
        if words is not None and len(bad) == found:
            part = words.part(there.start, there.stop)
            kept.put(at, part.compare(cand))
            for name, forward in yardstick.items():
                logits = forward.logits(start, stop)
                _require_usable(document, f"yardstick {name}", logits, start)
                shifts[name][there] = part.shift(logits)
        at = there.stop
    return kept, shifts


def blocks_of(runs: Runs, rows: int) -> list[tuple[int, int]]:
    """Parts of at most ``rows`` positions of the runs, in order."""
    return [(a, min(a + rows, stop)) for start, stop in runs for a in range(start, stop, rows)]


def _reader(
    document: Document, reference: Forward | CompactRows, start: int, stop: int, at: int
) -> Callable[[int, int], ReferenceRows | CompactRows]:
    """Gives the reference's rows of a block inside the positions ``start..stop``, which begin at row ``at``."""
    if isinstance(reference, CompactRows):
        return reference.part(at, at + stop - start).part
    logits = reference.logits(start, stop)
    _require_usable(document, "reference", logits, start)
    return lambda a, b: ReferenceRows(logits[a:b])


def _check_positions(
    document: Document, candidate: Forward, reference: Forward | CompactRows, yardstick: Mapping[str, Forward]
) -> None:
    sides: dict[str, Forward | CompactRows] = {"the candidate": candidate, "the reference": reference, **yardstick}
    for name, forward in sides.items():
        wanted = len(document.positions) if isinstance(forward, CompactRows) else len(document.ids)
        if forward.positions != wanted:
            raise MetricError(f"{document.name}: {name} gives {forward.positions} positions for {wanted} tokens")


def _blocks(logits: Float32) -> list[tuple[int, int]]:
    step = max(1, BLOCK // logits.shape[1])
    return [(a, min(a + step, logits.shape[0])) for a in range(0, logits.shape[0], step)]


def _require_usable(document: Document, side: str, logits: Float32, start: int) -> None:
    """The yardstick and the reference must be finite: without them there is nothing to compare with."""
    require_finite_side(non_finite_rows(logits, document, start), f"logits of the {side}")


def require_finite_side(bad: Sequence[NonFinite], side: str) -> None:
    """Of a side that others are compared with.

    Raises:
        NonFiniteError: naming the first place.
    """
    if bad:
        raise NonFiniteError(f"{bad[0].kind} in the {side} itself at {bad[0].place}: nothing to compare with")


def _score(
    following: tuple[int, ...],
    block: ReferenceRows | CompactRows,
    candidate: Float32,
    rows: LogitRows,
    at: int,
    nll: Float64,
    shift: Float64,
) -> None:
    """nll of the ``following`` tokens, one fewer than rows at the end. The paired difference comes from the difference of
    logits, not of two rounded nll: ``nll_c - nll_r = (lse_c - lse_r) - (c_t - r_t)``."""
    targets = np.asarray(following, dtype=np.int64)
    here, place = np.arange(targets.size), slice(at, at + targets.size)
    nll[place] = block.logsumexp[: targets.size] - block.target_logits(targets)
    moved = candidate[here, targets].astype(np.float64) - block.target_logits(targets)
    shift[place] = rows.lse_shift[: targets.size] - moved


def non_finite_rows(values: Float32, document: Document, start: int = 0, where: str = "") -> list[NonFinite]:
    """Rows that are not finite; ``start``: the first row's position, ``where``: what of it, behind the place."""
    bad = ~np.isfinite(values).all(axis=1)
    return [
        NonFinite(document.place(at) + where, "NaN" if np.isnan(values[at - start]).any() else "infinity", at)
        for at in (start + np.flatnonzero(bad)).tolist()
    ]
