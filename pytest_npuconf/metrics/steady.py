"""What changes while load goes on: rates by window, drift, growth. Times in seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pytest_npuconf.errors import MetricError
from pytest_npuconf.stats import t_quantile

THIRD = 3


@dataclass(frozen=True)
class Trend:
    """A figure with its 95 % t interval over ``n`` windows."""

    value: float
    interval: tuple[float, float]
    n: int


def steady_window(sent: ArrayLike, ended: ArrayLike) -> tuple[float, float]:
    """From the first completion to the last dispatch of a closed loop: between them every place is always taken.

    Args:
        sent, ended: of each request, shape ``(n,)``.

    Raises:
        MetricError: nothing lies between: as many requests as places, or fewer.
    """
    begin, end = np.asarray(sent, dtype=np.float64), np.asarray(ended, dtype=np.float64)
    if begin.size == 0 or begin.shape != end.shape:
        raise MetricError("steady_window: needs requests, each with its two times")
    if begin.max() <= end.min():
        raise MetricError(
            "steady_window: the last request was sent before the first was answered: more requests are needed"
        )
    return float(end.min()), float(begin.max())


def rates(times: ArrayLike, weights: ArrayLike, window: tuple[float, float], windows: int) -> np.ndarray:
    """How much a second came, in each of ``windows`` equal parts of ``window``; shape ``(windows,)``.

    Args:
        times: when it came, shape ``(n,)``; what lies outside is left out.
        weights: how much came then (the tokens of a chunk), shape ``(n,)``.

    Raises:
        MetricError: fewer than one window, or a window without time.
    """
    begin, end = window
    if windows < 1 or not end > begin:
        raise MetricError(f"rates: {windows} windows of {end - begin:g} s")
    at, each = np.asarray(times, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    counts, edges = np.histogram(at, bins=windows, range=(begin, end), weights=each)
    found: np.ndarray = counts / np.diff(edges)
    return found


def drift(values: ArrayLike) -> Trend:
    """The last third over the first: 1 where nothing changes, below 1 where rates fall.

    Args:
        values: above zero, in the order of time, shape ``(n,)``, at least six.

    The interval is Welch's on the logarithms, with the smaller of both degrees of freedom, so rather too wide.

    Raises:
        MetricError: fewer than six, or a value that is not above zero.
    """
    array = np.asarray(values, dtype=np.float64).ravel()
    if array.size < 2 * THIRD:
        raise MetricError(f"drift: {array.size} windows; at least {2 * THIRD} are needed")
    wrong = np.flatnonzero(~((array > 0) & np.isfinite(array)))
    if wrong.size:
        raise MetricError(f"drift: window {wrong[0] + 1} has {array[wrong[0]]:g}: must be above 0")
    each = array.size // THIRD
    first, last = np.log(array[:each]), np.log(array[-each:])
    mean = float(last.mean() - first.mean())
    half = t_quantile(each - 1) * math.sqrt((first.var(ddof=1) + last.var(ddof=1)) / each)
    return Trend(math.exp(mean), (math.exp(mean - half), math.exp(mean + half)), array.size)


def growth(values: ArrayLike, steps: ArrayLike) -> Trend:
    """How much ``values`` grows for each of ``steps``: bytes a request.

    Args:
        values: in the order of time, shape ``(n,)``, at least four.
        steps: how many had been done when each was read, growing, shape ``(n,)``.

    Increments are the unit: what a process holds wanders, so that its values hang together and its increments do not.

    Raises:
        MetricError: fewer than four, other shapes, a value that is not finite, or steps that do not grow.
    """
    held, done = np.asarray(values, dtype=np.float64).ravel(), np.asarray(steps, dtype=np.float64).ravel()
    if held.size < 4 or held.shape != done.shape:
        raise MetricError(f"growth: {held.size} values and {done.size} steps; at least four of both are needed")
    if not np.isfinite(held).all() or not np.isfinite(done).all() or not (np.diff(done) > 0).all():
        raise MetricError("growth: every value must be finite, and the steps must grow")
    slopes = np.diff(held) / np.diff(done)
    mean, n = float((held[-1] - held[0]) / (done[-1] - done[0])), slopes.size
    half = t_quantile(n - 1) * float(slopes.std(ddof=1)) / math.sqrt(n)
    return Trend(mean, (mean - half, mean + half), n)
