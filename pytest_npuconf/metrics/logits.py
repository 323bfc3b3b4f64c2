"""Logits against reference logits, row by row (a row is a position), in float64 over float32 inputs."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_npuconf.errors import MetricError
from pytest_npuconf.metrics.arrays import Float32, Float64, as_float32, require_finite, require_matching

if sys.version_info >= (3, 11):
    from typing import Self
else:
    from typing_extensions import Self

ACTIVE = 1e-3  # Huawei's "active" elements: relative error below this magnitude says nothing
REL_EPS = 1e-12
# below this, exp(x) - 1 - x loses its digits in float64 and three terms of its series are exact to 1e-12
SERIES = 1e-3
MOST_RELATIVE = np.float32(1e30)
FAR = 1e6  # beyond this, E[d] + KL has no digits left for the difference of two logarithms
OVERFLOW = 700.0  # exp overflows float64 at 709


class Rows:
    """Per-position arrays of one length, as the dataclasses below."""

    @classmethod
    def allocate(cls, positions: int) -> Self:
        """Arrays to be filled with :meth:`put`. One allocation for a whole document: small results that are kept between
        large blocks would pin the heap, at 3 MB a position of a 151,936-word vocabulary.

        Raises:
            MetricError: fewer than one position.
        """
        if positions < 1:
            raise MetricError("no positions to compare")
        return cls(**{f.name: np.empty(positions, dtype=_DTYPES.get(f.name, np.float64)) for f in fields(cls)})  # type: ignore[arg-type]

    def put(self, start: int, part: Self) -> None:
        """Copy ``part`` to positions ``start..start+len(part)-1``."""
        for f in fields(self):  # type: ignore[arg-type]
            values = getattr(part, f.name)
            getattr(self, f.name)[start : start + values.size] = values

    def __len__(self) -> int:
        return int(getattr(self, fields(self)[0].name).size)  # type: ignore[arg-type]


_DTYPES: dict[str, type[np.generic]] = {"reference_top1": np.int64, "candidate_top1": np.int64}


@dataclass(frozen=True)
class RoundingRows(Rows):
    """What a member of the yardstick needs, one value per position, shape ``(positions,)``.

    kl = KL(ref || cand) in nats; rel_l2 = ||c-r||2 / ||r||2; top2_shift, what the candidate does to the reference's gap
    between its two best (logits).
    """

    kl: Float64
    rel_l2: Float64
    top2_shift: Float64


@dataclass(frozen=True)
class LogitRows(Rows):
    """One value per position, shape ``(positions,)``; made by :func:`compare_logits`.

    kl, rel_l2 and top2_shift as in :class:`RoundingRows`; cosine; mae = mean(|c-r|); mean_rel = mean(|c-r| / max(|r|, eps));
    active_rel, the same where |r| > 1e-3; within_1e3 and within_5e3, the share of elements with relative error inside 1e-3
    and 5e-3; reference_top1, candidate_top1, ids; gap, the reference's logit of its own top-1 minus that of the candidate's
    top-1 (0 when they agree); top_overlap = |A ∩ B| / k; lse_shift, log-normaliser of the candidate minus the reference's.
    """

    cosine: Float64
    rel_l2: Float64
    mae: Float64
    mean_rel: Float64
    active_rel: Float64
    within_1e3: Float64
    within_5e3: Float64
    kl: Float64
    reference_top1: NDArray[np.int64]
    candidate_top1: NDArray[np.int64]
    gap: Float64
    top2_shift: Float64
    top_overlap: Float64
    lse_shift: Float64


class ReferenceRows:
    """Reference logits of some positions with what is computed once and used against every candidate."""

    def __init__(self, logits: Any, *, top_k: int = 5) -> None:
        """``logits``: shape ``(positions, vocabulary)``; ``top_k``: of the top-k overlap, at most the vocabulary.

        Raises:
            MetricError: not two-dimensional, empty, or ``top_k`` below 1.
            NonFiniteError: NaN or infinity.
        """
        if top_k < 1:
            raise MetricError(f"top_k must be at least 1, got {top_k}")
        rows = as_float32(logits, "reference logits")
        if rows.ndim != 2:
            raise MetricError(f"reference logits: need (positions, vocabulary), got shape {rows.shape}")
        require_matching(rows, rows)
        require_finite(rows, "reference logits")
        self.rows = rows
        self.wide: Float64 = rows.astype(np.float64)
        peak = self.wide.max(axis=1, keepdims=True)
        weights = np.exp(self.wide - peak)
        total = weights.sum(axis=1, keepdims=True)
        self.probability: Float64 = weights / total
        self.logsumexp: Float64 = (peak + np.log(total))[:, 0]
        self.norm: Float64 = np.sqrt(np.einsum("ij,ij->i", self.wide, self.wide))
        self.top = best_ids(rows, min(max(top_k, 2), rows.shape[1]))
        self.top_k = min(top_k, rows.shape[1])

    def compare(self, candidate: Any) -> LogitRows:
        """:func:`compare_logits` against these rows."""
        return compare_logits(candidate, self)

    def compare_rounding(self, candidate: Any) -> RoundingRows:
        """:func:`compare_rounding` against these rows."""
        return compare_rounding(candidate, self)

    def target_logits(self, targets: Any) -> Float64:
        """Logits of ``targets``, ids of shape ``(targets,)``, at most one for each position."""
        ids = _targets(targets, (len(targets), self.rows.shape[1]))
        return self.wide[np.arange(ids.size), ids]

    def nll(self, targets: Any) -> Float64:
        """Negative log-likelihood in nats of ``targets``, ids of shape ``(positions,)``."""
        ids = _targets(targets, self.rows.shape)
        return self.logsumexp - self.wide[np.arange(ids.size), ids]


def _targets(targets: Any, shape: tuple[int, ...]) -> NDArray[np.int64]:
    given = np.asarray(targets)
    if given.shape != shape[:1]:
        raise MetricError(f"targets: need one id per position {shape[:1]}, got {given.shape}")
    if not np.issubdtype(given.dtype, np.integer):
        raise MetricError(f"targets: need integer ids, got {given.dtype}")
    ids = given.astype(np.int64)
    outside = ids[(ids < 0) | (ids >= shape[1])]
    if outside.size:
        raise MetricError(f"targets: id {int(outside[0])} lies outside a vocabulary of {shape[1]}")
    return ids


def best_ids(rows: Float32, k: int) -> NDArray[np.int64]:
    """Ids of the k largest, best first; ties go to the lower id, as argmax does."""
    if k >= rows.shape[1]:
        return np.argsort(-rows, axis=1, kind="stable")[:, :k]
    edge = np.partition(rows, rows.shape[1] - k, axis=1)[:, rows.shape[1] - k]  # the k-th largest of each row
    top = np.empty((rows.shape[0], k), dtype=np.int64)
    for i, row in enumerate(rows):  # few ids reach the edge, so this is cheap
        ids = np.flatnonzero(row >= edge[i])
        top[i] = ids[np.argsort(-row[ids], kind="stable")][:k]
    return top


def _kl_and_mean(reference: ReferenceRows, candidate: Float64, difference: Float64) -> tuple[Float64, Float64]:
    """KL(ref || cand) and E_ref[c - r] per row.

    With d = c - r and m = E_r[d]: KL = log E_r[exp(d - m)] = log1p(E_r[expm1(d - m) - (d - m)]), which keeps its digits
    down to 1e-20 where the textbook difference of logarithms drowns in cancellation at 1e-9. A row where exp would
    overflow takes the textbook one: KL = LSE(c) - LSE(r) - m.
    """
    p = reference.probability
    mean = np.einsum("ij,ij->i", p, difference)
    centred = difference - mean[:, None]
    if np.abs(centred).max() < SERIES:
        square = centred * centred
        return np.log1p(np.einsum("ij,ij->i", p, square * (0.5 + centred / 6.0 + square / 24.0))), mean
    far = centred.max(axis=1) > OVERFLOW
    if far.any():
        centred = np.where(far[:, None], 0.0, centred)
    excess = np.einsum("ij,ij->i", p, np.expm1(centred) - centred)
    kl = np.log1p(np.maximum(excess, 0.0))
    if far.any():
        textbook = _logsumexp(candidate[far]) - reference.logsumexp[far] - mean[far]
        kl[far] = np.maximum(textbook, 0.0)
    return kl, mean


def _logsumexp(rows: Float64) -> Float64:
    peak = rows.max(axis=1)
    total: Float64 = np.log(np.exp(rows - peak[:, None]).sum(axis=1)) + peak
    return total


def compare_logits(candidate: Any, reference: Any, *, top_k: int = 5) -> LogitRows:
    """Compare logits of the same positions.

    Args:
        candidate: shape ``(positions, vocabulary)``; array or torch tensor.
        reference: the same shape, or a :class:`ReferenceRows` to share its work among candidates.
        top_k: of the overlap; a :class:`ReferenceRows` brings its own.

    Raises:
        MetricError: empty input, shape or vocabulary mismatch.
        NonFiniteError: NaN or infinity, with the position.
    """
    ref = reference if isinstance(reference, ReferenceRows) else ReferenceRows(reference, top_k=top_k)
    cand, wide, difference = _subtract(candidate, ref)
    kl, mean = _kl_and_mean(ref, wide, difference)
    dot = np.einsum("ij,ij->i", wide, ref.wide)
    norm = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    top = best_ids(cand, ref.top_k)
    here = np.arange(cand.shape[0])
    best = ref.top[:, 0]
    return LogitRows(
        cosine=_cosine(dot, norm, ref.norm),
        rel_l2=_rel_l2(difference, ref.norm),
        mae=np.abs(difference).mean(axis=1),
        **_relative(difference, ref.rows),
        kl=kl,
        reference_top1=best,
        candidate_top1=top[:, 0],
        gap=ref.wide[here, best] - ref.wide[here, top[:, 0]],
        top2_shift=_top2_shift(difference, ref),
        top_overlap=_overlap(top, ref.top[:, : ref.top_k]),
        lse_shift=_lse_shift(ref, wide, mean, kl),
    )


def compare_rounding(candidate: Any, reference: ReferenceRows) -> RoundingRows:
    """The figures of a yardstick's member; arguments and errors as :func:`compare_logits`."""
    _, wide, difference = _subtract(candidate, reference)
    kl, _ = _kl_and_mean(reference, wide, difference)
    return RoundingRows(kl, _rel_l2(difference, reference.norm), _top2_shift(difference, reference))


def _lse_shift(ref: ReferenceRows, candidate: Float64, mean: Float64, kl: Float64) -> Float64:
    """``LSE(c) - LSE(r) = E_r[d] + KL``, exact where both are small; the textbook difference where they are not."""
    shift = mean + kl
    far = np.abs(mean) > FAR
    if far.any():
        shift[far] = _logsumexp(candidate[far]) - ref.logsumexp[far]
    return shift


def _subtract(candidate: Any, ref: ReferenceRows) -> tuple[Float32, Float64, Float64]:
    cand = as_float32(candidate, "candidate logits")
    require_matching(cand, ref.rows)
    require_finite(cand, "candidate logits")
    wide = cand.astype(np.float64)
    return cand, wide, wide - ref.wide


def _top2_shift(difference: Float64, ref: ReferenceRows) -> Float64:
    here = np.arange(difference.shape[0])
    shift: Float64 = difference[here, ref.top[:, 0]] - difference[here, ref.top[:, min(1, ref.top.shape[1] - 1)]]
    return shift


def _cosine(dot: Float64, norm: Float64, reference_norm: Float64) -> Float64:
    """1 where both rows are all zero, 0 where only one is; clipped, because rounding can exceed 1."""
    product = norm * reference_norm
    alike = np.where((norm == 0) & (reference_norm == 0), 1.0, 0.0)
    return np.clip(np.divide(dot, product, out=alike, where=product != 0), -1.0, 1.0)


def _rel_l2(difference: Float64, reference_norm: Float64) -> Float64:
    distance = np.sqrt(np.einsum("ij,ij->i", difference, difference))
    lost = (reference_norm == 0) & (distance != 0)
    if lost.any():
        raise MetricError(f"reference row {int(np.flatnonzero(lost)[0])} is all zero: no relative error")
    relative: Float64 = np.divide(distance, reference_norm, out=np.zeros_like(distance), where=reference_norm != 0)
    return relative


def _relative(difference: Float64, reference: Float32) -> dict[str, Float64]:
    """Element by element in float32 (these are figures of 1e-3), summed in float64."""
    magnitude = np.abs(reference)
    with np.errstate(over="ignore"):  # a word that only the candidate masks, with float32's lowest
        relative = np.abs(difference.astype(np.float32)) / np.maximum(magnitude, np.float32(REL_EPS))
    relative = np.minimum(relative, MOST_RELATIVE)
    active = magnitude > ACTIVE
    count = active.sum(axis=1)
    mean = relative.mean(axis=1, dtype=np.float64)
    active_sum = np.einsum("ij,ij->i", relative, active, dtype=np.float64)
    width = relative.shape[1]
    return {
        "mean_rel": mean,
        # nothing active: every element is near zero, so the relative error of all of them stands in
        "active_rel": np.where(count > 0, active_sum / np.maximum(count, 1), mean),
        "within_1e3": np.count_nonzero(relative <= 1e-3, axis=1) / width,
        "within_5e3": np.count_nonzero(relative <= 5e-3, axis=1) / width,
    }


def _overlap(a: NDArray[np.int64], b: NDArray[np.int64]) -> Float64:
    shared = (a[:, :, None] == b[:, None, :]).any(axis=2).sum(axis=1)
    return np.asarray(shared / b.shape[1], dtype=np.float64)
