"""What a server gives at growing concurrency: the knee, and the requests that were good enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pytest_npuconf.errors import MetricError
from pytest_npuconf.metrics.objectives import Slo

AT_THE_KNEE = 0.95  # of the largest throughput: what more concurrency gives is within what repeats differ by


@dataclass(frozen=True)
class Goodput:
    """Requests a second that met every objective, and their share of all requests, failed ones too."""

    rate: float
    share: float
    good: int
    n: int


def knee(concurrency: Sequence[int], throughput: ArrayLike) -> int | None:
    """The least concurrency that gives 95 % of the largest throughput; None where that is the largest concurrency measured: it
    may lie beyond.

    Args:
        concurrency: growing, at least two.
        throughput: at each, any unit, above zero.

    Raises:
        MetricError: fewer than two, other shapes, a concurrency that does not grow, or a throughput that is not above zero.
    """
    array = np.asarray(throughput, dtype=np.float64).ravel()
    if len(concurrency) < 2 or array.size != len(concurrency):
        raise MetricError(f"knee: {len(concurrency)} concurrencies and {array.size} throughputs; at least two of both")
    if not (np.diff(concurrency) > 0).all() or not ((array > 0) & np.isfinite(array)).all():
        raise MetricError("knee: concurrencies must grow, and every throughput be above 0")
    found = concurrency[int(np.flatnonzero(array >= AT_THE_KNEE * array.max())[0])]
    return None if found == concurrency[-1] else found


def goodput(ttft: ArrayLike, tpot: ArrayLike, requests: int, seconds: float, slo: Slo) -> Goodput:
    """Zhong et al., DistServe, OSDI 2024: what met the objectives counts, nothing else.

    Args:
        ttft, tpot: seconds of each answered request, shape ``(n,)``; NaN: it has no TPOT (one chunk), which misses none.
        requests: all that were sent.
        seconds: from the first dispatch to the last completion.

    Raises:
        MetricError: no objective, other shapes, more answers than requests, or no time.
    """
    first, each = np.asarray(ttft, dtype=np.float64).ravel(), np.asarray(tpot, dtype=np.float64).ravel()
    if slo.ttft is None and slo.tpot is None:
        raise MetricError("goodput: no objective is stated")
    if first.shape != each.shape or requests < max(1, first.size) or not seconds > 0:
        raise MetricError(f"goodput: {first.size} and {each.size} answers of {requests} requests in {seconds:g} s")
    good = np.ones(first.shape, dtype=bool)
    if slo.ttft is not None:
        good &= first <= slo.ttft
    if slo.tpot is not None:
        good &= ~(each > slo.tpot)
    count = int(good.sum())
    return Goodput(count / seconds, count / requests, count, requests)
