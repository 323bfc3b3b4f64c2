"""Orders of scored items: a swap counts when the reference's margin exceeds its noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pytest_npuconf.errors import MetricError
from pytest_npuconf.metrics.arrays import as_float32, require_finite, require_matching


@dataclass(frozen=True)
class Swap:
    """Two items whose order differs: the reference puts ``first`` ahead of ``second`` by ``margin`` (score units)."""

    first: int
    second: int
    margin: float


@dataclass(frozen=True)
class Ranking:
    """``swaps`` beyond the noise, worst first; ``ties`` excused; Kendall's tau-b; the largest score error."""

    swaps: tuple[Swap, ...]
    ties: int
    pairs: int
    tau_b: float
    max_score_error: float


def compare_ranking(candidate: Any, reference: Any, *, noise: float) -> Ranking:
    """Compare scores of the same items, shape ``(items,)``; higher is better; ``noise`` in score units.

    A pair is excused when the reference's margin does not exceed ``noise``. tau-b after Kendall, Biometrika 33 (1945),
    from scipy; 1.0 when both sides are constant.

    Raises:
        MetricError: fewer than two items, shapes that differ, noise that is negative or not finite.
        NonFiniteError: NaN or infinity, with the item.
    """
    cand, ref = as_float32(candidate, "candidate scores"), as_float32(reference, "reference scores")
    if ref.ndim != 1 or ref.size < 2:
        raise MetricError(f"reference scores: need (items,) with at least two, got shape {ref.shape}")
    if not 0 <= noise < float("inf"):
        raise MetricError(f"noise must be finite and not negative, got {noise}")
    require_matching(cand, ref, axes="(items,)")
    require_finite(ref, "reference scores")
    require_finite(cand, "candidate scores")
    c, r = cand.astype(np.float64), ref.astype(np.float64)
    swaps, ties = [], 0
    for i in range(r.size):
        for j in range(i + 1, r.size):
            first, second = (i, j) if r[i] >= r[j] else (j, i)
            margin = float(r[first] - r[second])
            if margin <= noise:
                ties += 1
            elif c[first] <= c[second]:
                swaps.append(Swap(first, second, margin))
    swaps.sort(key=lambda s: -s.margin)
    return Ranking(tuple(swaps), ties, r.size * (r.size - 1) // 2, _tau_b(c, r), float(np.abs(c - r).max()))


def _tau_b(c: Any, r: Any) -> float:
    if np.all(c == c[0]) or np.all(r == r[0]):  # tau-b is 0/0 here: agreement only if both are constant
        return 1.0 if np.all(c == c[0]) and np.all(r == r[0]) else 0.0
    from scipy.stats import kendalltau

    return float(kendalltau(c, r).statistic)
