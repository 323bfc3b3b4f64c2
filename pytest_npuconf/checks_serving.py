"""The checks of a served model: what only a server gets wrong, and what it must give as the reference does."""

from __future__ import annotations

from pytest_npuconf import thresholds
from pytest_npuconf.check import SERVING, Check
from pytest_npuconf.gates import Sense

ROUTES = ("/v1/completions", "/v1/chat/completions", "/v1/embeddings", "/rerank", "/score")
_HTTP = ("server",)
_RATIO, _DEVIATIONS, _WRONG = thresholds.NOISE_RATIO, thresholds.SERVED_DEVIATIONS, thresholds.SERVED_WRONG


def _greedy(name: str, mode: str = "generate") -> Check:
    """Greedy answers: each token the reference's best, or a near tie."""
    return Check(name, SERVING, Sense.AT_MOST, live=True, mode=mode, constant=_DEVIATIONS)


def _exact(
    name: str,
    mode: str = "generate",
    *,
    engines: tuple[str, ...] = _HTTP,
    needs: str = "",
    statistics: tuple[str, ...] = (),
) -> Check:
    """Counted, without tolerance."""
    return Check(
        name, engines, Sense.AT_MOST, exact=True, needs=needs, mode=mode, constant=_WRONG, statistics=statistics
    )


def _ranking(name: str, mode: str = "embed") -> Check:
    """The card's examples, beyond near ties of the reference."""
    return Check(name, _HTTP, Sense.AT_MOST, live=True, needs="rerank", mode=mode, constant=_WRONG,
                 statistics=("first_scores", "least_margin"))  # fmt: skip


SERVED = (
    Check("serving.kl", SERVING, Sense.AT_MOST, live=True, mode="generate", constant=_RATIO),
    Check("serving.perplexity", SERVING, Sense.WITHIN, live=True, mode="generate", statistics=("mean_abs_delta",)),
    Check("serving.tokens", SERVING, Sense.AT_MOST, live=True, mode="generate", constant=thresholds.DISAGREEMENTS,
          statistics=("match_last_position",)),
    _greedy("serving.first_request"),
    _greedy("serving.repeat"),
    _greedy("serving.concurrency"),
    _greedy("serving.batch"),
    Check("serving.boundaries", SERVING, Sense.AT_MOST, live=True, mode="generate", constant=_RATIO),
    _greedy("serving.context"),
    _greedy("serving.short_then_long"),
    Check("serving.chat", SERVING, Sense.AT_MOST, live=True, needs="samples", mode="generate", constant=_DEVIATIONS),
    _greedy("parallel.tokens", "tensor_parallel"),
    Check("parallel.noise_ratio", SERVING, Sense.AT_MOST, live=True, mode="tensor_parallel", constant=_RATIO),
    _exact("serving.stop", engines=SERVING),
    _exact("serving.stream"),
    _exact("serving.usage", needs="samples"),
    _exact("serving.tools", needs="tools"),
    _exact("serving.routes", statistics=ROUTES),
    Check("serving.seed", SERVING, Sense.AT_MOST, mode="generate", constant=thresholds.SEED_DIFFERENCES),
    Check("serving.sampling", SERVING, Sense.AT_LEAST, live=True, mode="generate", constant=thresholds.SAMPLING_P),
    _exact("serving.capacity", engines=SERVING),
    _exact("serving.modes", mode="", needs="several_modes"),
    _exact("pooling.routes", "embed", statistics=ROUTES),
    Check("pooling.embeddings", SERVING, Sense.AT_MOST, live=True, mode="embed", constant=_RATIO,
          statistics=("width", "least_cosine")),
    Check("pooling.repeat", SERVING, Sense.AT_MOST, live=True, mode="embed", constant=thresholds.EQUIVALENCE_RATIO),
    Check("pooling.batch", _HTTP, Sense.AT_MOST, live=True, mode="embed", constant=thresholds.EQUIVALENCE_RATIO),
    _ranking("pooling.rerank"),
    _ranking("pooling.score"),
    _ranking("pooling.classifier", "score"),
)  # fmt: skip
