"""Hidden states against reference hidden states. Which one (a layer's output, the final normed one) is the caller's name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pytest_npuconf.errors import MetricError
from pytest_npuconf.metrics.arrays import Float64, as_float32, require_finite, require_matching


@dataclass(frozen=True)
class HiddenRows:
    """One value per position, shape ``(positions,)``, and one per channel, shape ``(channels,)``.

    rel_l2 and cosine as for logits; mae = mean |c-r|; rmse; channel_rel = ||c-r||2 / ||r||2 of each channel over
    positions, because one dead channel drowns in every mean.
    """

    rel_l2: Float64
    cosine: Float64
    mae: Float64
    rmse: Float64
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
    return HiddenRows(
        rel_l2=np.linalg.norm(difference, axis=1) / norm,
        cosine=cosine,
        mae=np.abs(difference).mean(axis=1),
        rmse=np.sqrt((difference**2).mean(axis=1)),
        channel_rel=np.linalg.norm(difference, axis=0) / np.maximum(channel_norm, floor),
    )
