"""Logits against reference logits, row by row (a row is a position), in float64 over float32 inputs."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_npuconf.errors import MetricError
from pytest_npuconf.metrics.arrays import Float32, Float64, as_float32, require_finite, require_matching

ACTIVE = 1e-3  # Huawei's "active" elements: relative error below this magnitude says nothing
REL_EPS = 1e-12
# below this, exp(x) - 1 - x loses its digits in float64 and three terms of its series are exact to 1e-12
SERIES = 1e-3
OVERFLOW = 700.0  # exp overflows float64 at 709


@dataclass(frozen=True)
class LogitRows:
    """One value per position, shape ``(positions,)``; build with :func:`compare_logits`, join with :meth:`join`.

    cosine; rel_l2 = ||c-r||2 / ||r||2; mean_rel = mean(|c-r| / max(|r|, eps)); active_rel, the same where |r| > 1e-3;
    within_1e3 and within_5e3, the share of elements with relative error inside 1e-3 and 5e-3; kl = KL(ref || cand) in
    nats; reference_top1, candidate_top1, ids; gap, the reference's logit of its own top-1 minus that of the candidate's
    top-1 (0 when they agree); top2_shift, what the candidate does to the reference's gap between its two best;
    top_overlap = |A ∩ B| / k; lse_shift, log-normaliser of the candidate minus the reference's.
    """

    cosine: Float64
    rel_l2: Float64
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

    @classmethod
    def join(cls, parts: list[LogitRows]) -> LogitRows:
        """Concatenate along positions.

        Raises:
            MetricError: no parts.
        """
        if not parts:
            raise MetricError("no positions to join")
        return cls(**{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)})

    def __len__(self) -> int:
        return int(self.kl.size)


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
        self.top = _top_ids(rows, min(max(top_k, 2), rows.shape[1]))
        self.top_k = min(top_k, rows.shape[1])

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


def _top_ids(rows: Float32, k: int) -> NDArray[np.int64]:
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
    cand = as_float32(candidate, "candidate logits")
    require_matching(cand, ref.rows)
    require_finite(cand, "candidate logits")
    wide = cand.astype(np.float64)
    difference = wide - ref.wide
    kl, mean = _kl_and_mean(ref, wide, difference)
    dot = np.einsum("ij,ij->i", wide, ref.wide)
    norm = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    distance = np.sqrt(np.einsum("ij,ij->i", difference, difference))
    top = _top_ids(cand, max(ref.top_k, 1))
    here = np.arange(cand.shape[0])
    best, second = ref.top[:, 0], ref.top[:, min(1, ref.top.shape[1] - 1)]
    return LogitRows(
        cosine=_cosine(dot, norm, ref.norm),
        rel_l2=_rel_l2(distance, ref.norm),
        **_relative(difference, ref.wide),
        kl=kl,
        reference_top1=best,
        candidate_top1=top[:, 0],
        gap=ref.wide[here, best] - ref.wide[here, top[:, 0]],
        top2_shift=difference[here, best] - difference[here, second],
        top_overlap=_overlap(top, ref.top[:, : ref.top_k]),
        lse_shift=mean + kl,
    )


def _cosine(dot: Float64, norm: Float64, reference_norm: Float64) -> Float64:
    """1 where both rows are all zero, 0 where only one is; clipped, because rounding can exceed 1."""
    product = norm * reference_norm
    alike = np.where((norm == 0) & (reference_norm == 0), 1.0, 0.0)
    return np.clip(np.divide(dot, product, out=alike, where=product != 0), -1.0, 1.0)


def _rel_l2(distance: Float64, reference_norm: Float64) -> Float64:
    lost = (reference_norm == 0) & (distance != 0)
    if lost.any():
        raise MetricError(f"reference row {int(np.flatnonzero(lost)[0])} is all zero: no relative error")
    return np.divide(distance, reference_norm, out=np.zeros_like(distance), where=reference_norm != 0)


def _relative(difference: Float64, reference: Float64) -> dict[str, Float64]:
    magnitude = np.abs(reference)
    relative = np.abs(difference)
    relative /= np.maximum(magnitude, REL_EPS)
    active = magnitude > ACTIVE
    count = np.maximum(active.sum(axis=1), 1)
    width = relative.shape[1]
    return {
        "mean_rel": relative.mean(axis=1),
        # nothing active: every element is near zero, so the relative error of all of them stands in
        "active_rel": np.where(
            active.any(axis=1), np.where(active, relative, 0.0).sum(axis=1) / count, relative.mean(axis=1)
        ),
        "within_1e3": np.count_nonzero(relative <= 1e-3, axis=1) / width,
        "within_5e3": np.count_nonzero(relative <= 5e-3, axis=1) / width,
    }


def _overlap(a: NDArray[np.int64], b: NDArray[np.int64]) -> Float64:
    shared = (a[:, :, None] == b[:, None, :]).any(axis=2).sum(axis=1)
    return np.asarray(shared / b.shape[1], dtype=np.float64)
