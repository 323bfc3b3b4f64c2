"""Intervals over documents. A document is the unit of sampling: tokens of one text are not independent."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pytest_npuconf.errors import MetricError

# pairs with the 95 % of every interval that the project prints
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A value with its two-sided interval, over ``n`` documents."""

    value: float
    low: float
    high: float
    n: int


def t_quantile(degrees: int, comparisons: int = 1) -> float:
    """Student's two-sided 95 % quantile; with several ``comparisons`` the one that keeps 95 % over all of them (Bonferroni).
    From scipy.special: importing scipy.stats would take most of a second."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 1 - (1 - CONFIDENCE) / 2 / comparisons))


def _per_document(name: str, values: ArrayLike, minimum: int) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size < minimum:
        raise MetricError(f"{name}: needs one value for each of at least {minimum} documents, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise MetricError(f"{name}: document {int(np.flatnonzero(~np.isfinite(array))[0])} is not finite")
    return array


def ratio_of_sums(numerators: ArrayLike, denominators: ArrayLike) -> Estimate:
    """Ratio of two sums over documents with a document-clustered t interval.

    Args:
        numerators, denominators: one sum per document, shape ``(documents,)``.

    The variance is the jackknife's for a ratio (Cochran, Sampling Techniques, 1977, sections 6.4 and 6.17):
    ``s2 = (n-1)/n * sum(e^2) / sum(b)^2`` with residuals ``e = (a - R b) / (1 - b/sum(b))``. For documents of equal
    size that is the plain t interval; for unequal ones it is wider, as it must be to cover.
    The quantile is Student's with ``n - 1`` degrees of freedom. tests/property measures the coverage.

    Raises:
        MetricError: fewer than two documents, a value that is not finite, or a zero denominator.
    """
    a = _per_document("numerators", numerators, 2)
    b = _per_document("denominators", denominators, 2)
    if a.shape != b.shape:
        raise MetricError(f"ratio_of_sums: {a.size} numerators against {b.size} denominators")
    total = float(b.sum())
    if total == 0.0:
        raise MetricError("ratio_of_sums: the denominators sum to zero")
    ratio = float(a.sum()) / total
    weight = b / total
    if np.any(weight >= 1.0):
        raise MetricError("ratio_of_sums: one document carries the whole weight, so nothing is known of the spread")
    residual = (a - ratio * b) / (1.0 - weight)
    half = t_quantile(a.size - 1) * float(np.sqrt((a.size - 1) / a.size * (residual @ residual))) / abs(total)
    return Estimate(ratio, ratio - half, ratio + half, int(a.size))


def log_ratio_of_sums(numerators: ArrayLike, denominators: ArrayLike, comparisons: int = 1) -> Estimate:
    """Ratio of two sums of non-negative quantities with an interval built on the log scale.

    Shapes, formula and errors as :func:`ratio_of_sums`; the delta method gives ``sd(log R) = sd(R)/R``. A noise
    ratio spans orders of magnitude, so an interval that is symmetric in the logarithm is the honest one.
    Numerators that are all zero (bit-equal results) give ``0 [0, 0]``: there is nothing whose spread could be seen.

    ``comparisons``: how many such ratios the largest of which is judged. The lower end, on which a failure rests, is
    corrected for them (Bonferroni); the upper is not, because there a correction would only make passing harder.

    Raises:
        MetricError: as :func:`ratio_of_sums`, and for a negative entry.
    """
    for name, values in (("numerators", numerators), ("denominators", denominators)):
        if _per_document(name, values, 2).min() < 0:
            raise MetricError("log_ratio_of_sums: entries must not be negative")
    plain = ratio_of_sums(numerators, denominators)
    if plain.value == 0.0:
        return Estimate(0.0, 0.0, 0.0, plain.n)
    half = min((plain.high - plain.value) / plain.value, 600.0)  # exp overflows float64 at 709
    wider = t_quantile(plain.n - 1, comparisons) / t_quantile(plain.n - 1)
    return Estimate(plain.value, plain.value * float(np.exp(-half * wider)), plain.value * float(np.exp(half)), plain.n)


def largest_of(estimates: Collection[Estimate]) -> Estimate:
    """Several ratios that one bound judges together: the largest value, lower end and upper end.

    The lower end is above a bound where any one's is, the upper below it only where all are: neither may be read off the one
    whose value happens to be the largest. For failing, the ends must be corrected for their number already
    (:func:`log_ratio_of_sums`); passing needs no correction, since all have to (intersection-union: Berger, Technometrics 24,
    1982). ``n`` is that of the one with the largest upper end, which keeps the verdict open.

    Raises:
        MetricError: there is none.
    """
    if not estimates:
        raise MetricError("largest_of: there is no estimate to judge")
    widest = max(estimates, key=lambda e: e.high)
    return Estimate(max(e.value for e in estimates), max(e.low for e in estimates), widest.high, widest.n)


def share_lower_bound(successes: int, n: int) -> float:
    """One-sided 95 % lower bound of a share (Clopper and Pearson, Biometrika 26, 1934): what ``successes`` of ``n`` show.

    Four of four shows no more than 47 %.

    Raises:
        MetricError: ``n`` below 1, or ``successes`` outside ``0..n``.
    """
    if n < 1 or not 0 <= successes <= n:
        raise MetricError(f"share_lower_bound: {successes} of {n} is not a share")
    if successes == 0:
        return 0.0
    from scipy.special import betaincinv

    return float(betaincinv(successes, n - successes + 1, 1 - CONFIDENCE))


def share_upper_bound(successes: int, n: int) -> float:
    """One-sided 95 % upper bound of a share, as :func:`share_lower_bound`: none of 100 shows no less than 3 %.

    Raises:
        MetricError: ``n`` below 1, or ``successes`` outside ``0..n``.
    """
    return 1.0 - share_lower_bound(n - successes, n)


def robust_sd(values: ArrayLike) -> float:
    """Standard deviation from the median absolute deviation about zero, times 1.4826 (consistent for a normal).

    About zero, because rounding is expected to be centred there: a shift must count as spread, not vanish.

    Raises:
        MetricError: empty input or a value that is not finite.
    """
    array = np.asarray(values, dtype=np.float64).ravel()
    if array.size == 0 or not np.isfinite(array).all():
        raise MetricError("robust_sd: needs at least one value, all finite")
    return float(1.4826 * np.median(np.abs(array)))


def quantile_interval(values: ArrayLike, q: float) -> tuple[float, float] | None:
    """The order statistics that hold the quantile ``q`` with at least 95 %, whatever the distribution; None where there are too
    few values (:func:`samples_for`).

    Args:
        values: shape ``(n,)``, independent.

    David and Nagaraja, Order Statistics, 2003, section 7.1: ``P(X(k) > x_q) = P(Bin(n, q) < k)``.

    Raises:
        MetricError: a value that is not finite, or ``q`` outside ``(0, 1)``.
    """
    from scipy.stats import binom

    array = np.sort(np.asarray(values, dtype=np.float64).ravel())
    if not 0 < q < 1 or not np.isfinite(array).all():
        raise MetricError(f"quantile_interval: q {q:g} must be between 0 and 1, and every value finite")
    n, side = array.size, (1 - CONFIDENCE) / 2
    if n == 0:
        return None
    low, high = int(binom.ppf(side, n, q)), int(binom.ppf(1 - side, n, q)) + 1
    return (float(array[low - 1]), float(array[high - 1])) if low >= 1 and high <= n else None


def samples_for(q: float) -> int:
    """The fewest values whose order statistics hold the quantile ``q`` with 95 %: 6 for a median, 368 for the 99th percentile.

    Raises:
        MetricError: ``q`` outside ``(0, 1)``.
    """
    if not 0 < q < 1:
        raise MetricError(f"samples_for: q {q:g} must be between 0 and 1")
    side = (1 - CONFIDENCE) / 2
    return int(np.ceil(np.log(side) / np.log(max(q, 1 - q))))
