"""The rules that need no package: the seeds' documented gates, perplexity within a percent, and the rule of vLLM's tests.

Pure: numbers in, :class:`Verdict` out. What is not finite is objected to by every rule, because no comparison with it holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# seed 000 (mem-agent): "> 0.9999", "100 %", "1-3 % normal", "1-2 %", "<= 1 %"; seed 003 (reranker): "> 0.99", "< 1 %"
COSINE, COSINE_RERANKER, MEAN_REL_RERANKER = 0.9999, 0.99, 0.01
PPL_CROSS, PPL_SAME_LOW, PPL_SAME_FLOAT32 = 0.03, 0.02, 0.01
PPL_PERCENT = 0.01
# vLLM: tests/models/language/generation/test_common.py at 009c271 (max_tokens 32, num_logprobs 5)
TOP, NEW_TOKENS = 5, 32


@dataclass(frozen=True)
class Verdict:
    """Whether a tool objects to the candidate, and what it says."""

    objects: bool
    says: str


@dataclass(frozen=True)
class Generated:
    """One greedy continuation: ``ids`` and, of each step, the ids with the best ``TOP`` log-probabilities."""

    ids: tuple[int, ...]
    top: tuple[frozenset[int], ...]


def cosine(candidate: Any, reference: Any) -> float:
    """Of two arrays of one shape, flattened, in float64."""
    c, r = (np.asarray(a, dtype=np.float64).ravel() for a in (candidate, reference))
    with np.errstate(all="ignore"):
        return float(c @ r / (np.linalg.norm(c) * np.linalg.norm(r)))


def perplexity(nll: Any) -> float:
    """exp of the mean of the negative log-likelihoods (nats)."""
    with np.errstate(over="ignore"):
        return float(np.exp(np.mean(np.asarray(nll, dtype=np.float64))))


def _change(candidate: float, reference: float) -> float:
    return abs(candidate / reference - 1.0)


def _all(conditions: Sequence[tuple[bool, str]]) -> Verdict:
    return Verdict(not all(holds for holds, _ in conditions), ", ".join(says for _, says in conditions))


def mem_agent(
    last: Sequence[Any], reference_last: Sequence[Any], mean_change: float, mean_change_same: float | None
) -> Verdict:
    """The gates of seed 000's card: cosine and token match of each prompt's last position, and perplexity.

    Args:
        last: logits of the last position of each prompt; ``reference_last``: the same of the float32 reference.
        mean_change: :func:`mean_perplexity_change` against the float32 reference.
        mean_change_same: against the reference at the candidate's own dtype, where that is below float32; else None.
    """
    mean = float(np.mean([cosine(c, r) for c, r in zip(last, reference_last, strict=True)]))
    finite = all(np.isfinite(np.asarray(c, dtype=np.float64)).all() for c in last)
    match = sum(int(np.argmax(c)) == int(np.argmax(r)) for c, r in zip(last, reference_last, strict=True))
    bound = PPL_SAME_FLOAT32 if mean_change_same is None else PPL_CROSS
    conditions = [
        (mean > COSINE, f"cosine {mean:.6f}"),
        (finite and match == len(last), f"{match}/{len(last)} tokens"),
        (mean_change <= bound, f"PPL {mean_change:.2%}"),
    ]
    if mean_change_same is not None:
        conditions.append((mean_change_same <= PPL_SAME_LOW, f"PPL at the same dtype {mean_change_same:.2%}"))
    return _all(conditions)


def reranker(
    hidden: Sequence[Any], reference_hidden: Sequence[Any], logits: Sequence[Any], reference_logits: Sequence[Any],
    *, float32: bool,
) -> Verdict:  # fmt: skip
    """The gates of seed 003's card over its inputs: cosine of final hidden states and of logits, and the mean relative error
    of the hidden states, which the card states for float32 only."""
    states = float(np.mean([cosine(c, r) for c, r in zip(hidden, reference_hidden, strict=True)]))
    heads = float(np.mean([cosine(c, r) for c, r in zip(logits, reference_logits, strict=True)]))
    conditions = [
        (states > COSINE_RERANKER, f"hidden cosine {states:.6f}"),
        (heads > COSINE_RERANKER, f"logits cosine {heads:.6f}"),
    ]
    if float32:
        each = [mean_relative(c, r) for c, r in zip(hidden, reference_hidden, strict=True)]
        mean = float(np.mean(each))
        conditions.append((mean < MEAN_REL_RERANKER, f"mean relative {mean:.2%}"))
    return _all(conditions)


def mean_relative(candidate: Any, reference: Any) -> float:
    """mean(|c - r| / |r|), with 1e-12 for zeros."""
    c, r = (np.asarray(a, dtype=np.float64) for a in (candidate, reference))
    return float(np.mean(np.abs(c - r) / np.maximum(np.abs(r), 1e-12)))


def mean_perplexity_change(candidate: Sequence[Any], reference: Sequence[Any]) -> float:
    """Mean over texts of |PPL / reference PPL - 1|, from the nll of each token."""
    return float(np.mean([_change(perplexity(c), perplexity(r)) for c, r in zip(candidate, reference, strict=True)]))


def within_a_percent(candidate: Sequence[Any], reference: Sequence[Any]) -> Verdict:
    """|PPL / reference PPL - 1| <= 1 %, PPL over the tokens of all texts."""
    change = _change(perplexity(np.concatenate(candidate)), perplexity(np.concatenate(reference)))
    return Verdict(not change <= PPL_PERCENT, f"PPL {change:.2%}")


def logprobs_close(reference: Sequence[Generated], candidate: Sequence[Generated]) -> Verdict:
    """vLLM's ``check_logprobs_close`` (tests/models/utils.py at 002b4cf, its defaults): at the first token that differs each
    one's token must be among the other's best; what follows is not compared, nor are lengths."""
    if len(reference) != len(candidate):
        return Verdict(True, f"{len(candidate)} continuations for {len(reference)}")
    differing = 0
    for number, (ours, theirs) in enumerate(zip(reference, candidate, strict=True), start=1):
        for step, (a, b) in enumerate(zip(ours.ids, theirs.ids, strict=False)):
            if a == b:
                continue
            differing += 1
            if a not in theirs.top[step] or b not in ours.top[step]:
                return Verdict(True, f"continuation {number} token {step + 1}: not in each other's top {TOP}")
            break
    return Verdict(False, f"{differing} of {len(reference)} continuations part, within the top {TOP}")
