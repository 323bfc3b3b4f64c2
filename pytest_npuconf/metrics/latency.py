"""Latency and throughput of served requests: arithmetic on times in seconds and counts of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pytest_npuconf.errors import MetricError
from pytest_npuconf.stats import quantile_interval, samples_for, t_quantile

QUANTILES = (0.5, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class Spread:
    """How values are spread, in their unit. ``mean`` with its t interval, None for one value. ``quantiles``: ``q`` to value and
    interval; the interval, and then the quantile beyond the median, is None where ``needed`` values would give one."""

    n: int
    mean: float
    mean_interval: tuple[float, float] | None
    least: float
    largest: float
    quantiles: dict[float, tuple[float, tuple[float, float] | None]]
    needed: dict[float, int]


def time_to_first_token(sent: float, first: float) -> float:
    """From the first byte of the request to the first content, reasoning or tool-call token.

    Raises:
        MetricError: the first token is there before the request.
    """
    if first < sent:
        raise MetricError(f"the first token came {sent - first:g} s before its request was sent")
    return first - sent


def time_per_output_token(first: float, last: float, tokens: int, first_tokens: int = 1) -> float | None:
    """``(last token - first token) / (tokens - tokens of the first chunk)``; None where the first chunk holds all of them.

    A server that gathers several tokens into its first chunk spends no time between them: dividing by ``tokens - 1`` would
    make it look faster than it is.

    Raises:
        MetricError: the last token before the first, or counts that cannot be.
    """
    if last < first:
        raise MetricError(f"the last token came {first - last:g} s before the first")
    if not 1 <= first_tokens <= tokens:
        raise MetricError(f"{first_tokens} tokens in the first chunk of {tokens}")
    return None if tokens == first_tokens else (last - first) / (tokens - first_tokens)


def output_throughput(tokens: Sequence[int], first_dispatch: float, last_completion: float) -> float:
    """All output tokens over the time from the first request's dispatch to the last answer's end, in tokens a second.

    Raises:
        MetricError: nothing was generated, or no time passed.
    """
    if not tokens or sum(tokens) < 1:
        raise MetricError("no output tokens, so there is no throughput")
    if last_completion <= first_dispatch:
        raise MetricError(f"no time passed: {last_completion - first_dispatch:g} s")
    return sum(tokens) / (last_completion - first_dispatch)


def amortised_ms_per_token(throughput: float) -> float:
    """``1000 / throughput``: what documents that divide a run's time by its tokens call milliseconds per token. It falls with
    every request that is answered beside another, and is no TPOT.

    Raises:
        MetricError: a throughput that is not above zero.
    """
    if not throughput > 0:
        raise MetricError(f"throughput {throughput:g} tokens a second gives no time per token")
    return 1000.0 / throughput


def spread(values: ArrayLike, *, independent: bool = True) -> Spread:
    """See :class:`Spread`; shape ``(n,)``. ``independent``: one value for each request; else no interval holds, and none is given.

    Raises:
        MetricError: empty, or a value that is not finite.
    """
    array = np.asarray(values, dtype=np.float64).ravel()
    if array.size == 0 or not np.isfinite(array).all():
        raise MetricError("spread: needs at least one value, all finite")
    n, mean = array.size, float(array.mean())
    half = t_quantile(n - 1) * float(array.std(ddof=1)) / np.sqrt(n) if independent and n > 1 else None
    found = {}
    for q in QUANTILES:
        interval = quantile_interval(array, q)
        if interval is not None or q == 0.5:
            found[q] = (float(np.quantile(array, q)), interval if independent else None)
    return Spread(
        n, mean, None if half is None else (mean - half, mean + half), float(array.min()), float(array.max()), found,
        {q: samples_for(q) for q in QUANTILES if n < samples_for(q)},
    )  # fmt: skip


def concurrency(sent: ArrayLike, ended: ArrayLike) -> float:
    """Requests under way at once, on average from the first dispatch to the last completion (Little's law).

    Raises:
        MetricError: no request, or no time between.
    """
    begin, end = np.asarray(sent, dtype=np.float64), np.asarray(ended, dtype=np.float64)
    if begin.size == 0 or begin.shape != end.shape or end.max() <= begin.min():
        raise MetricError("concurrency: needs requests that took time")
    return float((end - begin).sum() / (end.max() - begin.min()))


def slowest_tenth(values: ArrayLike) -> float:
    """Mean of the slowest tenth, at least one: a tail that a mean hides and a percentile steps over (expected shortfall at 90 %,
    Acerbi and Tasche, Journal of Banking and Finance 26, 2002).

    Args:
        values: shape ``(n,)``, in the unit of the result.

    Raises:
        MetricError: empty, or a value that is not finite.
    """
    array = np.sort(np.asarray(values, dtype=np.float64).ravel())
    if array.size == 0 or not np.isfinite(array).all():
        raise MetricError("slowest_tenth: needs at least one value, all finite")
    return float(array[-max(1, round(array.size / 10)) :].mean())
