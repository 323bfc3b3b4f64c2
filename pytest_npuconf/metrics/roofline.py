"""The least time that a decode step can take: what it must read, over how fast that can be read.

Williams, Waterman and Patterson, Roofline, Communications of the ACM 52(4), 2009. For one dense, unsharded stream without
speculative decoding; a step reads every weight once, whatever the number of requests, and the keys and values of each.
"""

from __future__ import annotations

import math

from pytest_npuconf.errors import MetricError


def step_bytes(weight_bytes: float, kv_bytes_per_token: float = 0.0, context_tokens: float = 0.0) -> float:
    """Bytes that one decode step reads: the weights, and keys and values of ``context_tokens`` (of all requests together).

    Raises:
        MetricError: a negative or infinite number, or no weights.
    """
    given = (weight_bytes, kv_bytes_per_token, context_tokens)
    if not all(math.isfinite(each) and each >= 0 for each in given) or weight_bytes == 0:
        raise MetricError(f"step_bytes: {given} must be finite and not negative, and the weights above 0")
    return weight_bytes + kv_bytes_per_token * context_tokens


def least_tpot(step: float, bandwidth: float) -> float:
    """Seconds of a decode step that reads ``step`` bytes at ``bandwidth`` bytes a second: nothing can be faster.

    Raises:
        MetricError: a bandwidth that is not above zero.
    """
    if not (math.isfinite(bandwidth) and bandwidth > 0):
        raise MetricError(f"least_tpot: a bandwidth of {bandwidth:g} bytes a second is none")
    return step / bandwidth


def efficiency(least: float, measured: float) -> float:
    """``least / measured``: the share of what the memory allows. Above 1 is faster than physics, and so is a time that is not
    above zero: infinity.

    Raises:
        MetricError: a value that is not finite.
    """
    if not (math.isfinite(least) and math.isfinite(measured)) or least < 0:
        raise MetricError(f"efficiency: {least:g} s over {measured:g} s")
    return least / measured if measured > 0 else math.inf
