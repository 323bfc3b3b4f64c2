"""Hidden states against reference hidden states. Which one (a layer's output, the final normed one) is the caller's name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pytest_npuconf.errors import MetricError
from pytest_npuconf.metrics.arrays import Float64, as_float32, require_finite, require_matching
from pytest_npuconf.metrics.logits import ACTIVE, REL_EPS


@dataclass(frozen=True)
class HiddenRows:
    """One value per position, shape ``(positions,)``, and one per channel, shape ``(channels,)``.

    rel_l2 and cosine as for logits; mae = mean |c-r|; rmse; mean_rel and max_rel = mean and max of |c-r| / max(|r|, eps);
    active_rel, the mean where |r| > 1e-3; within_1e3 and within_5e3, the share of elements with relative error inside 1e-3
    and 5e-3; channel_rel = ||c-r||2 / ||r||2 of each channel over positions, because one dead channel drowns in every
    mean.
    """

    rel_l2: Float64
    cosine: Float64
    mae: Float64
    rmse: Float64
    mean_rel: Float64
    max_rel: Float64
    active_rel: Float64
    within_1e3: Float64
    within_5e3: Float64
    channel_rel: Float64


def compare_hidden(candidate: Any, reference: Any) -> HiddenRows:
    """Compare hidden states of shape ``(positions, channels)``.

    Raises:
        MetricError: not two-dimensional, empty, of another shape, or an all-zero reference position.
        NonFiniteError: NaN or infinity, with the position.
    """
    cand, ref = as_float32(candidate, "candidate hidden states"), as_float32(reference, "reference hidden states")
    if ref.ndim != 2:
        raise MetricError(f"reference hidden states: need (positions, channels), got shape {ref.shape}")
    require_matching(cand, ref, axes="(positions, channels)")
    require_finite(ref, "reference hidden states")
    require_finite(cand, "candidate hidden states")
    c, r = cand.astype(np.float64), ref.astype(np.float64)
    norm = np.linalg.norm(r, axis=1)
    if not norm.all():
        raise MetricError(f"reference position {int(np.flatnonzero(norm == 0)[0])} is all zero: no relative error")
    difference = c - r
    candidate_norm = np.linalg.norm(c, axis=1)
    cosine = np.divide((c * r).sum(axis=1), norm * candidate_norm, out=np.zeros_like(norm), where=candidate_norm > 0)
    cosine = np.clip(cosine, -1.0, 1.0)
    channel_norm = np.linalg.norm(r, axis=0)
    live = channel_norm[channel_norm > 0]
    floor = float(np.median(live)) * 1e-6  # a dead reference channel has no relative error of its own
    relative = np.abs(difference) / np.maximum(np.abs(r), REL_EPS)
    active = np.abs(r) > ACTIVE
    count = active.sum(axis=1)
    mean_rel = relative.mean(axis=1)
    return HiddenRows(
        rel_l2=np.linalg.norm(difference, axis=1) / norm,
        cosine=cosine,
        mae=np.abs(difference).mean(axis=1),
        rmse=np.sqrt((difference**2).mean(axis=1)),
        mean_rel=mean_rel,
        max_rel=relative.max(axis=1),
        # nothing active: every element is near zero, so the relative error of all of them stands in
        active_rel=np.where(count > 0, (relative * active).sum(axis=1) / np.maximum(count, 1), mean_rel),
        within_1e3=(relative <= 1e-3).mean(axis=1),
        within_5e3=(relative <= 5e-3).mean(axis=1),
        channel_rel=np.linalg.norm(difference, axis=0) / np.maximum(channel_norm, floor),
    )
