"""A reference in few numbers a position: its best logits, an even sample of the others, and what is exact of the whole.

Against full candidate logits this gives every figure of :class:`~pytest_npuconf.metrics.logits.LogitRows`. Exact: both
norms and log-normalisers, nll of the recorded target, top-1, top-5, the gap of the two best. A lower bound: KL, taken over
the best ``K`` words with all others as one symbol. Estimates from the sample (best words exactly, each sampled word standing
for its share of the others): distance, and with it rel_l2 and cosine; the relative errors. ``docs/baselines.md`` has the
errors as measured.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_npuconf.errors import MetricError
from pytest_npuconf.metrics.arrays import Float32, Float64, as_float32, require_finite
from pytest_npuconf.metrics.best_words import gap_to
from pytest_npuconf.metrics.logits import ACTIVE, REL_EPS, LogitRows, ReferenceRows, RoundingRows, best_ids

BEST = 192  # words a position with their ids: 8 bytes each
SAMPLE = 192  # other words a position, ids by rule: 4 bytes each; together 2.3 KB a position
TOP_K = 5
_GOLDEN = 2654435761  # Knuth's multiplicative hash: successive positions sample other words


@dataclass(frozen=True)
class CompactRows:
    """Reference rows of positions ``start..``; arrays of shape ``(positions, best)``, ``(positions, sample)`` and
    ``(positions,)``.

    ids and logits of the best words, best first; sampled, the logits at :func:`sample_ids`; logsumexp (natural log), norm
    = ||r||2 and tail, the probability outside the best words, over the whole vocabulary; target, the logit of the next
    token (0 at the last position, which has none).
    """

    vocabulary: int
    start: int
    ids: NDArray[np.int32]
    logits: Float32
    sampled: Float32
    logsumexp: Float64
    norm: Float64
    tail: Float64
    target: Float32

    def __len__(self) -> int:
        return int(self.ids.shape[0])

    @property
    def positions(self) -> int:
        """Number of positions."""
        return len(self)

    def part(self, start: int, stop: int) -> CompactRows:
        """Rows ``start..stop-1`` of these."""
        cut = {f.name: getattr(self, f.name)[start:stop] for f in fields(self) if f.name not in ("vocabulary", "start")}
        return CompactRows(self.vocabulary, self.start + start, **cut)

    def compare(self, candidate: Any) -> LogitRows:
        """The figures of full candidate logits, shape ``(positions, vocabulary)``; top-5 overlap.

        Raises:
            MetricError: another shape.
            NonFiniteError: NaN or infinity, with the position.
        """
        side = _Side(self, candidate)
        top = best_ids(side.rows, min(TOP_K, self.vocabulary))
        # |A ∩ B| of the best five: ids of the reference come best first
        shared = (top[:, :, None] == self.ids[:, None, : top.shape[1]]).any(axis=2).sum(axis=1)
        return LogitRows(
            cosine=side.cosine(),
            rel_l2=side.rel_l2(),
            **side.relative(),
            kl=side.kl(),
            reference_top1=self.ids[:, 0].astype(np.int64),
            candidate_top1=top[:, 0],
            gap=gap_to(top[:, 0], self.ids, self.logits),
            top2_shift=side.top2_shift(),
            top_overlap=np.asarray(shared / top.shape[1], dtype=np.float64),
            lse_shift=side.logsumexp - self.logsumexp,
        )

    def compare_rounding(self, candidate: Any) -> RoundingRows:
        """The figures of a yardstick's member; arguments and errors as :meth:`compare`."""
        side = _Side(self, candidate)
        return RoundingRows(side.kl(), side.rel_l2(), side.top2_shift())

    def target_logits(self, targets: NDArray[np.int64]) -> Float64:
        """Logits of the recorded next tokens; ``targets`` are those ids (comparability has made sure of it)."""
        return self.target[: targets.size].astype(np.float64)


def compact_widths(vocabulary: int) -> tuple[int, int]:
    """How many best and sampled words are kept: all as best where the vocabulary is that small."""
    return (vocabulary, 0) if vocabulary <= BEST + SAMPLE else (BEST, SAMPLE)


def sample_ids(start: int, positions: int, vocabulary: int, count: int) -> NDArray[np.int64]:
    """Evenly spaced ids with another offset at each position, shape ``(positions, count)``: ids follow frequency, so an
    even spacing samples every part of it."""
    at = np.arange(start, start + positions, dtype=np.uint64)
    offset = (at * np.uint64(_GOLDEN) % np.uint64(1 << 32)).astype(np.int64)
    steps = np.arange(count, dtype=np.int64) << 32
    return (steps[None, :] + offset[:, None]) // max(count, 1) * vocabulary >> 32


def compress(reference: ReferenceRows, targets: Any, start: int) -> CompactRows:
    """The compact form of full rows.

    Args:
        targets: next-token ids, shape ``(positions,)`` or one less at the end of a document.
        start: position of the first row in its document.
    """
    rows = reference.rows
    positions, vocabulary = rows.shape
    best, count = compact_widths(vocabulary)
    ids, here = best_ids(rows, best), np.arange(positions)[:, None]
    others = reference.probability.copy()
    others[here, ids] = 0.0
    target = np.zeros(positions, dtype=np.float32)
    wanted = np.asarray(targets, dtype=np.int64)
    target[: wanted.size] = rows[np.arange(wanted.size), wanted]
    return CompactRows(
        vocabulary,
        start,
        ids.astype(np.int32),
        rows[here, ids],
        rows[here, sample_ids(start, positions, vocabulary, count)],
        reference.logsumexp,
        reference.norm,
        others.sum(axis=1),
        target,
    )


def join(parts: list[CompactRows]) -> CompactRows:
    """Consecutive parts as one."""
    arrays = {
        f.name: np.concatenate([getattr(p, f.name) for p in parts])
        for f in fields(CompactRows)
        if f.name not in ("vocabulary", "start")
    }
    return CompactRows(parts[0].vocabulary, parts[0].start, **arrays)


class _Side:
    """Candidate rows beside compact reference rows, with what the figures share."""

    def __init__(self, reference: CompactRows, candidate: Any) -> None:
        rows = as_float32(candidate, "candidate logits")
        if rows.ndim != 2 or rows.shape != (len(reference), reference.vocabulary):
            raise MetricError(
                f"candidate logits: need {(len(reference), reference.vocabulary)} (positions, vocabulary) as in the stored "
                f"reference, got {rows.shape}"
            )
        require_finite(rows, "candidate logits")
        self.rows, self.reference = rows, reference
        self.wide: Float64 = rows.astype(np.float64)
        self.norm: Float64 = np.sqrt(np.einsum("ij,ij->i", self.wide, self.wide))
        peak = self.wide.max(axis=1, keepdims=True)
        self._weights = np.exp(self.wide - peak)
        total = self._weights.sum(axis=1)
        self.logsumexp: Float64 = peak[:, 0] + np.log(total)
        self._total = total
        here = np.arange(len(reference))[:, None]
        self._best = self.wide[here, reference.ids]
        self.best_difference: Float64 = self._best - reference.logits
        self._sample(here)

    def _sample(self, here: NDArray[np.int64]) -> None:
        """Sampled words that are not among the best, and how many others each of them stands for."""
        ref = self.reference
        count = ref.sampled.shape[1]
        ids = sample_ids(ref.start, len(ref), ref.vocabulary, count)
        ordered = np.sort(ref.ids, axis=1)
        inside = np.stack([np.isin(a, b) for a, b in zip(ids, ordered, strict=True)]) if count else ids.astype(bool)
        self.sample_difference: Float64 = np.where(inside, 0.0, self.wide[here, ids] - ref.sampled)
        others = count - inside.sum(axis=1)
        self.stands_for: Float64 = (ref.vocabulary - ref.ids.shape[1]) / np.maximum(others, 1)
        self._outside = ~inside

    def _square(self) -> Float64:
        best = np.einsum("ij,ij->i", self.best_difference, self.best_difference)
        others = np.einsum("ij,ij->i", self.sample_difference, self.sample_difference)
        total: Float64 = best + self.stands_for * others
        return total

    def rel_l2(self) -> Float64:
        norm, distance = self.reference.norm, np.sqrt(self._square())
        lost = (norm == 0) & (distance != 0)
        if lost.any():
            raise MetricError(f"reference row {int(np.flatnonzero(lost)[0])} is all zero: no relative error")
        relative: Float64 = np.divide(distance, norm, out=np.zeros_like(distance), where=norm != 0)
        return relative

    def cosine(self) -> Float64:
        """``(|c|^2 + |r|^2 - |c-r|^2) / (2 |c| |r|)``: the norms are exact, the distance is the estimate."""
        r, c = self.reference.norm, self.norm
        product = 2 * r * c
        dot = r * r + c * c - self._square()
        alike = np.where((r == 0) & (c == 0), 1.0, 0.0)
        return np.clip(np.divide(dot, product, out=alike, where=product != 0), -1.0, 1.0)

    def relative(self) -> dict[str, Float64]:
        best = np.abs(self.reference.logits.astype(np.float64))
        others = np.abs(self.reference.sampled.astype(np.float64))
        near = np.abs(self.best_difference) / np.maximum(best, REL_EPS)
        far = np.abs(self.sample_difference) / np.maximum(others, REL_EPS)

        def total(a: Any, b: Any) -> Float64:
            summed: Float64 = a.sum(axis=1) + self.stands_for * (b * self._outside).sum(axis=1)
            return summed

        active, width = total(best > ACTIVE, others > ACTIVE), self.reference.vocabulary
        mean = total(near, far) / width
        active_sum = total(near * (best > ACTIVE), far * (others > ACTIVE))
        return {
            "mae": total(np.abs(self.best_difference), np.abs(self.sample_difference)) / width,
            "mean_rel": mean,
            "active_rel": np.where(active > 0, active_sum / np.maximum(active, 1), mean),
            "within_1e3": total(near <= 1e-3, far <= 1e-3) / width,
            "within_5e3": total(near <= 5e-3, far <= 5e-3) / width,
        }

    def kl(self) -> Float64:
        """Over the best words and the others as one symbol. Both sides are normalised, so ``KL = sum p (e^d - 1 - d)``
        with ``d = log q - log p``: no term is negative and nothing cancels."""
        ref = self.reference
        log_p = ref.logits - ref.logsumexp[:, None]
        log_q = self._best - self.logsumexp[:, None]
        others = self._weights.copy()
        others[np.arange(len(ref))[:, None], ref.ids] = 0.0
        tail_q = others.sum(axis=1) / self._total
        total: Float64 = _terms(log_p, log_q).sum(axis=1) + _tail_term(ref.tail, tail_q)
        return total

    def top2_shift(self) -> Float64:
        d = self.best_difference
        shift: Float64 = d[:, 0] - d[:, min(1, d.shape[1] - 1)]
        return shift


def _terms(log_p: Float64, log_q: Float64) -> Float64:
    """``p (e^d - 1 - d)`` with ``d = log q - log p``, as ``q - p - p d`` where ``e^d`` would overflow."""
    d, p = log_q - log_p, np.exp(log_p)
    small = np.abs(d) < 1.0
    calm = np.where(small, d, 0.0)
    terms: Float64 = np.where(small, p * (np.expm1(calm) - calm), np.exp(log_q) - p - p * d)
    return terms


def _tail_term(p: Float64, q: Float64) -> Float64:
    """The same of the one symbol, from its two masses; a mass of nothing on the reference's side costs ``q``."""
    tiny = np.finfo(np.float64).tiny
    terms: Float64 = np.where(p > 0, _terms(np.log(np.maximum(p, tiny)), np.log(np.maximum(q, tiny))), q)
    return terms
