"""The best token of a position and nothing else of it: for positions whose whole logits are not compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_npuconf.metrics.arrays import Float32, Float64
from pytest_npuconf.metrics.logits import Rows, best_ids

FEW = 32  # best words that are kept a position: 256 bytes


@dataclass(frozen=True)
class BestWordRows(Rows):
    """One value per position, shape ``(positions,)``: ids of the two sides' best words, and ``gap`` as of
    :class:`~pytest_npuconf.metrics.logits.LogitRows`, at least that to the last of the words that are known."""

    reference_top1: NDArray[np.int64]
    candidate_top1: NDArray[np.int64]
    gap: Float64

    @classmethod
    def none(cls) -> BestWordRows:
        """No position."""
        return cls(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0))


@dataclass(frozen=True)
class BestWords:
    """The reference's best words, best first: ``ids`` and ``logits``, shape ``(positions, FEW)`` or the whole vocabulary."""

    ids: NDArray[np.int32]
    logits: Float32

    def __len__(self) -> int:
        return int(self.ids.shape[0])

    def part(self, start: int, stop: int) -> BestWords:
        """Rows ``start..stop-1`` of these."""
        return BestWords(self.ids[start:stop], self.logits[start:stop])

    def compare(self, candidate: Float32) -> BestWordRows:
        """Finite logits of the same positions, shape ``(positions, vocabulary)``."""
        best = np.asarray(candidate.argmax(axis=1), dtype=np.int64)
        return BestWordRows(self.ids[:, 0].astype(np.int64), best, gap_to(best, self.ids, self.logits))

    def shift(self, candidate: Float32) -> Float64:
        """What finite logits do to the gap of the two best: ``top2_shift`` of
        :class:`~pytest_npuconf.metrics.logits.RoundingRows`."""
        here = np.arange(len(self))[:, None]
        moved: Float64 = candidate[here, self.ids[:, :2]].astype(np.float64) - self.logits[:, :2].astype(np.float64)
        shift: Float64 = moved[:, 0] - moved[:, -1]
        return shift


def best_words(logits: Any) -> BestWords:
    """Of finite logits, shape ``(positions, vocabulary)``; ties go to the lower id."""
    rows = np.asarray(logits, dtype=np.float32)
    ids = best_ids(rows, min(FEW, rows.shape[1]))
    return BestWords(ids.astype(np.int32), rows[np.arange(len(rows))[:, None], ids])


def joined(parts: Sequence[BestWords]) -> BestWords:
    """Consecutive parts as one; of none, no position."""
    if not parts:
        return BestWords(np.zeros((0, FEW), dtype=np.int32), np.zeros((0, FEW), dtype=np.float32))
    return BestWords(np.concatenate([p.ids for p in parts]), np.concatenate([p.logits for p in parts]))


def gap_to(candidate_top1: NDArray[np.int64], ids: NDArray[np.int32], logits: Float32) -> Float64:
    """The reference's best logit minus its logit of the candidate's best word, shape ``(positions,)``; at least the gap to the
    last of its known words where that is not among them.

    Args:
        ids, logits: the reference's best words, best first, shape ``(positions, words)``.
    """
    found = ids == candidate_top1[:, None]
    there = np.where(found.any(axis=1), logits[np.arange(len(ids)), found.argmax(axis=1)], logits[:, -1])
    return logits[:, 0].astype(np.float64) - there.astype(np.float64)
