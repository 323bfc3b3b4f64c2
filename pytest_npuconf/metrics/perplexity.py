"""Perplexity from sums that are kept, and its paired difference."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from pytest_npuconf.errors import MetricError
from pytest_npuconf.metrics.arrays import Float64, as_float64, require_finite
from pytest_npuconf.stats import Estimate, ratio_of_sums

# exp of more than this is no float64: a perplexity beyond 1e304 is shown as that
EXP_LIMIT = 700.0


def _exp(nats: float) -> float:
    return math.exp(min(nats, EXP_LIMIT))


def relative_change(nats: float) -> float:
    """Relative change of perplexity for a mean difference of nll: ``exp(nats) - 1``."""
    return math.expm1(min(nats, EXP_LIMIT))


def format_perplexity(value: float) -> str:
    """Four decimals, as cards give them; of a model so broken that the whole part is a million or more, an exponent."""
    return f"{value:.4f}" if value < 1e6 else f"{value:.3e}"


@dataclass(frozen=True)
class TextScore:
    """One text over the same token ids: sums of negative log-likelihood in nats, and their common token count."""

    name: str
    candidate_nll: float
    reference_nll: float
    tokens: int

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise MetricError(f"{self.name}: a text needs at least one token, got {self.tokens}")

    @property
    def candidate_ppl(self) -> float:
        """exp(sum nll / tokens)."""
        return _exp(self.candidate_nll / self.tokens)

    @property
    def reference_ppl(self) -> float:
        """exp(sum nll / tokens)."""
        return _exp(self.reference_nll / self.tokens)

    @property
    def said(self) -> str:
        """``PPL 12.3456 against 12.3400``."""
        return f"PPL {format_perplexity(self.candidate_ppl)} against {format_perplexity(self.reference_ppl)}"

    @property
    def delta(self) -> float:
        """Mean paired difference of nll per token, nats; its exponential minus 1 is the relative change of PPL."""
        return (self.candidate_nll - self.reference_nll) / self.tokens


def score_text(name: str, candidate_nll: Any, reference_nll: Any) -> TextScore:
    """Sum per-token nll (nats, shape ``(tokens,)``, the same tokens on both sides).

    Raises:
        MetricError: empty or of unequal length.
        NonFiniteError: NaN or infinity, with the position.
    """
    cand = as_float64(candidate_nll, f"candidate nll of {name}")
    ref = as_float64(reference_nll, f"reference nll of {name}")
    if cand.ndim != 1 or cand.shape != ref.shape or cand.size == 0:
        raise MetricError(f"{name}: needs the same number of tokens, at least 1, got {cand.shape} and {ref.shape}")
    require_finite(cand, f"candidate nll of {name}")
    require_finite(ref, f"reference nll of {name}")
    return TextScore(name, float(cand.sum()), float(ref.sum()), int(cand.size))


@dataclass(frozen=True)
class PerplexityDelta:
    """The paired difference and both aggregates that documents mix up, each named.

    ``estimate``: mean per-token nll difference over all tokens, nats, document-clustered interval.
    ``mean_abs_delta``: mean over texts of ``|PPL_c / PPL_r - 1|``. ``ratio_of_means``: ``mean PPL_c / mean PPL_r - 1``.
    """

    estimate: Estimate
    mean_abs_delta: float
    max_abs_delta: float
    ratio_of_means: float


def compare_perplexity(scores: list[TextScore]) -> PerplexityDelta:
    """Aggregate over texts.

    Raises:
        MetricError: fewer than two texts (an interval over documents needs two).
    """
    deltas: Float64 = np.array([s.candidate_nll - s.reference_nll for s in scores], dtype=np.float64)
    tokens: Float64 = np.array([s.tokens for s in scores], dtype=np.float64)
    estimate = ratio_of_sums(deltas, tokens)
    relative = [abs(relative_change(s.delta)) for s in scores]
    means = sum(s.candidate_ppl for s in scores) / sum(s.reference_ppl for s in scores) - 1
    return PerplexityDelta(estimate, sum(relative) / len(relative), max(relative), means)
