"""Logits from a server's best log-probabilities, made comparable with a reference that has all of them.

A server gives the ``k`` likeliest words of a position and the one that follows. The rest of its distribution is filled in
with the reference's own shape, scaled to the mass that is left. KL(reference || filled) is then exactly the KL over those
words with the rest as one symbol: a lower bound of the whole one (data-processing inequality). The yardstick's members are
reduced in the same way, so that the noise ratio divides like by like.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pytest_npuconf.engines.base import Forward
from pytest_npuconf.metrics.arrays import Float32, Float64
from pytest_npuconf.metrics.logits import best_ids

K = 20  # what vLLM gives without --max-logprobs
LEAST_TAIL = 1e-7  # float32 log-probabilities do not tell a smaller rest from none


def log_softmax(logits: Any) -> Float64:
    """Rows of log-probabilities in nats, shape as ``logits``."""
    from scipy import special

    found: Float64 = special.log_softmax(np.asarray(logits, dtype=np.float64), axis=1)
    return found


def fill(rows: Sequence[Mapping[int, float]], reference: Float64) -> Float32:
    """Rows of log-probabilities over the whole vocabulary.

    Args:
        rows: log-probability (nats) by id, for each position.
        reference: log-probabilities of the reference, shape ``(positions, vocabulary)``.
    """
    filled = np.empty(reference.shape, dtype=np.float64)
    for i, row in enumerate(rows):
        ids = np.fromiter(row, dtype=np.int64)
        known = np.fromiter(row.values(), dtype=np.float64)
        rest = np.exp(reference[i]).sum() - np.exp(reference[i, ids]).sum()
        left = max(LEAST_TAIL, 1.0 - float(np.exp(known).sum()))
        filled[i] = reference[i] + np.log(left / max(LEAST_TAIL, float(rest)))
        filled[i, ids] = known
    return filled.astype(np.float32)


class FilledForward:
    """See :class:`pytest_npuconf.engines.base.Forward`: a server's rows, filled with the reference's."""

    def __init__(self, rows: Sequence[Mapping[int, float]], reference: Forward) -> None:
        self._rows, self._reference = rows, reference

    @property
    def positions(self) -> int:
        return len(self._rows)

    def logits(self, start: int, stop: int) -> Float32:
        return fill(self._rows[start:stop], log_softmax(self._reference.logits(start, stop)))


class ReducedForward:
    """A forward pass of which only what a server would tell is kept: the yardstick's members."""

    def __init__(self, whole: Forward, reference: Forward, ids: Sequence[int], k: int = K) -> None:
        """``ids``: of the document, whose next words are told too."""
        self._whole, self._reference, self._ids, self._k = whole, reference, ids, k

    @property
    def positions(self) -> int:
        return self._whole.positions

    def logits(self, start: int, stop: int) -> Float32:
        own = log_softmax(self._whole.logits(start, stop))
        best = best_ids(own.astype(np.float32), min(self._k, own.shape[1]))
        rows = []
        for i, ids in enumerate(best):
            following = self._ids[start + i + 1 : start + i + 2]
            rows.append({int(j): float(own[i, j]) for j in (*ids, *following)})
        return fill(rows, log_softmax(self._reference.logits(start, stop)))


class PlainForward:
    """The reference as log-probabilities, so that both sides are on one scale."""

    def __init__(self, whole: Forward) -> None:
        self._whole = whole

    @property
    def positions(self) -> int:
        return self._whole.positions

    def logits(self, start: int, stop: int) -> Float32:
        return log_softmax(self._whole.logits(start, stop)).astype(np.float32)
