"""Public assertions, for anybody's own test file, with or without the suites.

Each returns its :class:`~pytest_npuconf.gates.Measurement`. Failing, each raises :class:`ConformanceError` (or
:class:`InconclusiveError` when an interval straddles the bound) whose message gives the verdict, the worst places (ten
at most), the bound, the bound that would have passed, and the next command.
"""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pytest_npuconf import thresholds
from pytest_npuconf.errors import MetricError, NonFiniteError
from pytest_npuconf.gates import MAX_ROWS, Gate, Measurement, Outcome, Row, Sense, Verdict, format_passing
from pytest_npuconf.metrics.arrays import Float64, as_float64
from pytest_npuconf.metrics.hidden import compare_hidden
from pytest_npuconf.metrics.logits import compare_logits
from pytest_npuconf.metrics.perplexity import compare_perplexity, relative_change, score_text
from pytest_npuconf.metrics.ranking import compare_ranking
from pytest_npuconf.stats import share_lower_bound, t_quantile

Arrays = Any  # one array-like, or a mapping of names to array-likes


class ConformanceError(AssertionError):
    """A measurement that its gate fails; ``verdict`` holds both."""

    def __init__(self, message: str, verdict: Verdict) -> None:
        super().__init__(message)
        self.verdict = verdict


class InconclusiveError(ConformanceError):
    """The interval straddles the bound: more samples are needed, the message says how many."""


def assert_logits_close(
    candidate: Arrays, reference: Arrays, *, rel_l2: float = thresholds.REL_L2_FLOAT32.value, name: str = "logits"
) -> Measurement:
    """Every position's ``||c-r||2 / ||r||2`` is at most ``rel_l2``.

    Args:
        candidate, reference: logits ``(positions, vocabulary)``, or mappings of prompt names to such; arrays, lists or
            torch tensors.
        rel_l2: the default is the float32 gate; below float32 no fixed bound is right (see docs/thresholds.md).

    Returns:
        ``rel_l2.max``; ``data`` has the mean, the worst cosine and the largest KL (nats).

    Raises:
        ConformanceError: with every failing position, worst first; also for NaN or infinity in the candidate.
        MetricError: empty input, shapes or vocabularies that differ, prompts that differ.
    """
    gate = Gate(name, rel_l2, Sense.AT_MOST, reason="relative L2 error of the logits at every position")
    found: list[tuple[str, Any]] = []
    for prompt, cand, ref in _pairs(candidate, reference):
        try:
            found.append((prompt, compare_logits(cand, ref)))
        except NonFiniteError as error:
            return _enforce(gate, _unusable("rel_l2.max", prompt, error))
    rows, values = _positions([(prompt, result.rel_l2) for prompt, result in found], above=rel_l2)
    data = {
        "mean": float(values.mean()),
        "worst_cosine": float(min(result.cosine.min() for _, result in found)),
        "max_kl": float(max(result.kl.max() for _, result in found)),
        "rows_total": int((values > rel_l2).sum()),
    }
    return _enforce(
        gate, Measurement("rel_l2.max", float(values.max()), n=values.size, of="positions", rows=rows, data=data)
    )


def assert_token_match(candidate: Arrays, reference: Arrays, *, tau: float = 0.0, name: str = "tokens") -> Measurement:
    """No top-1 disagreement where the reference's own gap exceeds ``tau`` (logits): near ties are excused.

    Args:
        candidate, reference: logits as for :func:`assert_logits_close`.
        tau: what rounding does to a gap; 0 excuses exact ties only.

    Returns:
        ``top1.disagreements``; ``data`` has the matching share and its 95 % lower bound.

    Raises:
        ConformanceError: with every counted disagreement; also for NaN or infinity in the candidate.
        MetricError: as :func:`assert_logits_close`.
    """
    gate = Gate(name, 0.0, Sense.AT_MOST, reason=f"top-1 disagreements with a reference gap above tau = {tau:g}")
    counted: list[Row] = []
    total = differing = 0
    for prompt, cand, ref in _pairs(candidate, reference):
        try:
            result = compare_logits(cand, ref)
        except NonFiniteError as error:
            return _enforce(gate, _unusable("top1.disagreements", prompt, error))
        different = result.reference_top1 != result.candidate_top1
        total, differing = total + len(result), differing + int(different.sum())
        for i in np.flatnonzero(different & (result.gap > tau)):
            detail = f"gap in logits, token {result.candidate_top1[i]} for {result.reference_top1[i]}"
            counted.append(Row(_place(prompt, int(i)), float(result.gap[i]), detail))
    rows = tuple(sorted(counted, key=lambda row: -row.value)[:MAX_ROWS])
    data = {
        "match": 1 - differing / total,
        "match_lower_bound": share_lower_bound(total - differing, total),
        "near_ties": differing - len(counted),
        "rows_total": len(counted),
        "would_have_passed": f"tau = {format_passing(rows[0].value, Sense.AT_MOST)}" if rows else "",
    }
    measured = Measurement("top1.disagreements", float(len(counted)), n=total, of="positions", rows=rows, data=data)
    return _enforce(gate, measured)


def assert_perplexity_close(
    candidate_nll: Mapping[str, Any], reference_nll: Mapping[str, Any], *, bound: float = 0.01, name: str = "perplexity"
) -> Measurement:
    """The relative change of perplexity lies within ``+-bound``: paired over the same tokens, two-sided.

    Args:
        candidate_nll, reference_nll: by text, the negative log-likelihood (nats) of each token, shape ``(tokens,)``; at
            least two texts, because texts are the sample of the 95 % interval.

    Returns:
        ``ppl.relative_change`` with its interval; ``data`` keeps sums and counts of each text.

    Raises:
        ConformanceError, InconclusiveError: with the texts, worst first; also for NaN or infinity in the candidate.
        MetricError: fewer than two texts, texts or token counts that differ, empty, NaN or infinity in the reference.
    """
    gate = Gate(name, bound, Sense.WITHIN, reason="relative change of perplexity, paired over the same tokens")
    scores = []
    for text, cand, ref in _pairs(candidate_nll, reference_nll):
        try:
            scores.append(score_text(text, cand, ref))
        except NonFiniteError as error:
            return _enforce(gate, _unusable("ppl.relative_change", text, error))
    nats = compare_perplexity(scores).estimate
    rows = [Row(s.name, relative_change(s.delta), s.said) for s in scores]
    texts = {
        s.name: {"candidate_nll": s.candidate_nll, "reference_nll": s.reference_nll, "tokens": s.tokens} for s in scores
    }
    measured = Measurement(
        "ppl.relative_change",
        relative_change(nats.value),
        n=nats.n,
        of="documents",
        interval=(relative_change(nats.low), relative_change(nats.high)),
        rows=tuple(sorted(rows, key=lambda row: -abs(row.value))[:MAX_ROWS]),
        data={"texts": texts, "rows_total": len(rows)},
    )
    return _enforce(gate, measured)


def assert_hidden_states_close(
    candidate: Arrays, reference: Arrays, *, which: str, rel_l2: float = thresholds.REL_L2_FLOAT32.value
) -> Measurement:
    """Every position's relative L2 error of hidden states is at most ``rel_l2``.

    Args:
        candidate, reference: ``(positions, channels)``, or mappings of prompt names to such.
        which: which hidden states, for the name: ``layer 3 output``, ``final norm``.

    Returns:
        ``hidden.rel_l2.max``; ``data`` has the worst channel and its error, because one dead channel drowns in a norm.

    Raises:
        ConformanceError: with every failing position; also for NaN or infinity in the candidate.
        MetricError: as :func:`assert_logits_close`.
    """
    gate = Gate(f"hidden states, {which}", rel_l2, Sense.AT_MOST, reason="relative L2 error at every position")
    found: list[tuple[str, Any]] = []
    for prompt, cand, ref in _pairs(candidate, reference):
        try:
            found.append((prompt, compare_hidden(cand, ref)))
        except NonFiniteError as error:
            return _enforce(gate, _unusable("hidden.rel_l2.max", prompt, error))
    rows, values = _positions([(prompt, result.rel_l2) for prompt, result in found], above=rel_l2)
    worst_prompt, worst = max(found, key=lambda pair: float(pair[1].channel_rel.max()))
    data = {
        "worst_channel": int(worst.channel_rel.argmax()),
        "worst_channel_rel": float(worst.channel_rel.max()),
        "worst_channel_in": worst_prompt,
        "mean_cosine": float(np.mean(np.concatenate([result.cosine for _, result in found]))),
        "rows_total": int((values > rel_l2).sum()),
    }
    measured = Measurement(
        "hidden.rel_l2.max", float(values.max()), n=values.size, of="positions", rows=rows, data=data
    )
    return _enforce(gate, measured)


def assert_same_order(
    candidate: Any, reference: Any, *, noise: float, labels: Sequence[str] | None = None, name: str = "order"
) -> Measurement:
    """The candidate orders the items as the reference does; a swap counts when the reference's margin exceeds ``noise``.

    Args:
        candidate, reference: scores ``(items,)``, higher is better.
        noise: what rounding does to a margin, in score units; give it, there is no honest default.
        labels: names of the items.

    Returns:
        ``swaps``; ``data`` has tau-b, excused ties and the largest score error.

    Raises:
        ConformanceError: with every swap, worst margin first.
        MetricError: fewer than two items, shapes that differ, NaN or infinity, labels of another length.
    """
    result = compare_ranking(candidate, reference, noise=noise)
    items = as_float64(reference, "reference scores").shape[0]
    names = list(labels) if labels is not None else [f"item {i}" for i in range(items)]
    if len(names) != items:
        raise MetricError(f"labels: {len(names)} names for {items} items")
    rows = tuple(
        Row(
            f"{names[s.first]} before {names[s.second]}",
            s.margin,
            "reference margin, reversed or tied by the candidate",
        )
        for s in result.swaps[:MAX_ROWS]
    )
    data = {
        "tau_b": result.tau_b,
        "ties": result.ties,
        "max_score_error": result.max_score_error,
        "rows_total": len(result.swaps),
        "would_have_passed": f"noise = {format_passing(rows[0].value, Sense.AT_MOST)}" if rows else "",
    }
    gate = Gate(name, 0.0, Sense.AT_MOST, reason=f"swaps of items whose reference margin exceeds {noise:g}")
    return _enforce(
        gate, Measurement("swaps", float(len(result.swaps)), n=result.pairs, of="pairs", rows=rows, data=data)
    )


def assert_at_least(measured: Any, floor: float, *, name: str, unit: str = "") -> Measurement:
    """A figure reaches its floor: a throughput, a score.

    Args:
        measured: a number, or repeated measurements; of at least two repeats the 95 % interval of the mean (Student)
            decides, and it may be inconclusive.
        floor: in ``unit``.

    Raises:
        ConformanceError, InconclusiveError: with the repeats, worst first.
        MetricError: empty, NaN or infinity.
    """
    values: Float64 = np.atleast_1d(as_float64(measured, name))
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
        raise MetricError(f"{name}: needs one finite number or a list of them, got {measured!r}")
    interval = None
    if values.size > 1:
        half = t_quantile(values.size - 1) * float(values.std(ddof=1)) / math.sqrt(values.size)
        interval = (float(values.mean()) - half, float(values.mean()) + half)
    order = np.argsort(values, kind="stable")[:MAX_ROWS]
    rows = tuple(Row(f"repeat {i + 1}", float(values[i]), unit) for i in order) if values.size > 1 else ()
    gate = Gate(name, floor, Sense.AT_LEAST, reason="a floor")
    measurement = Measurement(
        name, float(values.mean()), unit=unit, n=values.size, of="repeats", interval=interval, rows=rows,
        data={"rows_total": int(values.size)},
    )  # fmt: skip
    return _enforce(gate, measurement)


def _pairs(candidate: Arrays, reference: Arrays) -> list[tuple[str, Any, Any]]:
    if isinstance(candidate, Mapping) != isinstance(reference, Mapping):
        raise MetricError("candidate and reference must both be mappings of names, or both be arrays")
    if not isinstance(candidate, Mapping):
        return [("", candidate, reference)]
    if not candidate or set(candidate) != set(reference):
        odd = sorted(set(candidate) ^ set(reference))
        raise MetricError(f"candidate and reference name different items: {', '.join(map(str, odd)) or 'none at all'}")
    return [(str(name), candidate[name], reference[name]) for name in reference]


def _place(prompt: str, position: int) -> str:
    return f"{prompt} position {position}".strip()


def _positions(found: list[tuple[str, Float64]], *, above: float) -> tuple[tuple[Row, ...], Float64]:
    """The failing positions (or the one worst), worst first, and all values."""
    values = np.concatenate([array for _, array in found])
    places = [(prompt, i) for prompt, array in found for i in range(array.size)]
    order = np.argsort(-values, kind="stable")[:MAX_ROWS]
    shown = [int(k) for k in order if values[k] > above] or [int(order[0])]
    return tuple(Row(_place(*places[k]), float(values[k])) for k in shown), values


def _unusable(metric: str, prompt: str, error: NonFiniteError) -> Measurement:
    if "in the reference" in str(error):
        raise error
    return Measurement.unusable(metric, f"{prompt}: {error}" if prompt else str(error))


def _enforce(gate: Gate, measurement: Measurement) -> Measurement:
    verdict = gate.judge(measurement)
    if verdict.outcome is Outcome.PASS:
        return measurement
    running = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
    message = verdict.message(next_command=f"pytest {shlex.quote(running)}" if running else "")
    raise (InconclusiveError if verdict.outcome is Outcome.INCONCLUSIVE else ConformanceError)(message, verdict)
