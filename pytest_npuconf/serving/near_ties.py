"""Greedy answers against the reference, token by token: the reference's best, or one that rounding cannot tell from it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pytest_npuconf import thresholds
from pytest_npuconf.comparison import compare
from pytest_npuconf.documents import Document
from pytest_npuconf.engines.base import Forward
from pytest_npuconf.engines.topk import log_softmax
from pytest_npuconf.metrics.arrays import Float64
from pytest_npuconf.precisions import Precision
from pytest_npuconf.references.live import LiveReference


@dataclass(frozen=True)
class Deviation:
    """A generated token that the reference would not have taken: its gap to the best exceeds tau, both in logits."""

    step: int
    token: int
    best: int
    gap: float
    tau: float


class Judge:
    """The float32 reference over prompts with what a server said after them."""

    def __init__(self, reference: LiveReference, dtype: str, prompts: Sequence[Document]) -> None:
        """``prompts``: where the size of rounding is measured."""
        self._reference, self._pair, self._prompts = reference, Precision(dtype, "float32"), list(prompts)

    @functools.cached_property
    def gap_sd(self) -> float:
        """Robust standard deviation of what rounding does to the reference's gap between its two best (logits)."""

        plain = self._reference.plain
        return compare(self._prompts, plain, plain, self._reference.members(self._pair)).noise.gap_sd

    def deviations(self, ids: Sequence[int], answer: Sequence[int]) -> list[Deviation]:
        """Tokens of a greedy answer that are neither the reference's best after all before them nor a near tie: z times what
        rounding does to that gap, over all prompts or at that position if more (as the check token.match)."""
        document = self._document(ids, answer)
        first, z = len(ids) - 1, thresholds.TIE_Z.value
        rows = self._reference.plain(document).logits(first, first + len(answer)).astype(np.float64)
        found = []
        for step, (row, token) in enumerate(zip(rows, answer, strict=True)):
            best = int(row.argmax())
            gap = float(row[best] - row[token])
            if gap <= z * self.gap_sd:
                continue
            tau = z * max(self.gap_sd, self._local(document, first + step, best, token, gap))
            if gap > tau:
                found.append(Deviation(step, token, best, gap, tau))
        return found

    def logprob_errors(
        self, ids: Sequence[int], answer: Sequence[int], logprobs: Sequence[float]
    ) -> tuple[Float64, dict[str, Float64]]:
        """``|candidate - reference|`` of the log-probability (nats) of each generated token, and the same of each member of
        the yardstick; shape ``(tokens,)``."""
        document, first = self._document(ids, answer), len(ids) - 1
        reference = self._chosen(self._reference.plain(document), first, answer)
        members = {
            name: np.abs(self._chosen(forward(document), first, answer) - reference)
            for name, forward in self._reference.members(self._pair).items()
        }
        return np.abs(np.asarray(logprobs, dtype=np.float64) - reference), members

    @staticmethod
    def _chosen(forward: Forward, first: int, answer: Sequence[int]) -> Float64:
        rows = log_softmax(forward.logits(first, first + len(answer)))
        found: Float64 = rows[np.arange(len(answer)), list(answer)]
        return found

    @staticmethod
    def _document(ids: Sequence[int], answer: Sequence[int]) -> Document:
        return Document("answer", "served", "", (*ids, *answer))

    def _local(self, document: Document, position: int, best: int, token: int, gap: float) -> float:
        shifts = []
        for forward in self._reference.members(self._pair).values():
            row = forward(document).logits(position, position + 1)[0].astype(np.float64)
            shifts.append(float(row[best] - row[token]) - gap)
        return float(np.sqrt(np.mean(np.square(shifts))))
