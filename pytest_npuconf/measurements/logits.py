"""From comparisons to measurements: the figures of the precision checks, each with its worst places."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from pytest_npuconf import thresholds
from pytest_npuconf.comparison import Comparison, DocumentComparison, sums_of_runs
from pytest_npuconf.gates import MAX_ROWS, Measurement, Row
from pytest_npuconf.metrics.arrays import Float64
from pytest_npuconf.metrics.best_words import BestWordRows
from pytest_npuconf.metrics.logits import LogitRows
from pytest_npuconf.metrics.perplexity import compare_perplexity, relative_change, score_text
from pytest_npuconf.stats import Estimate, log_ratio_of_sums, share_lower_bound

MOST_GAPS = 200  # disagreements whose gap and tau are kept for the picture, those farthest beyond a near tie first


def worst_rows(rows: list[Row], *, largest: bool = True) -> tuple[Row, ...]:
    """The ten worst rows, worst first."""
    return tuple(sorted(rows, key=lambda r: -r.value if largest else r.value)[:MAX_ROWS])


def _rows(documents: list[DocumentComparison], values: list[Float64], *, largest: bool = True) -> tuple[Row, ...]:
    """The worst places of per-position values, one array per document, without making a row of every position."""
    rows = []
    for doc, array in zip(documents, values, strict=True):
        order = np.argsort(-array if largest else array, kind="stable")[:MAX_ROWS]
        rows += [Row(doc.document.place_of_row(int(i)), float(array[i])) for i in order]
    return worst_rows(rows, largest=largest)


def broken(metric: str, comparison: Comparison) -> Measurement | None:
    """The measurement that every gate fails, when the candidate's logits are not finite."""
    if not comparison.non_finite:
        return None
    first = comparison.non_finite[0]
    more = len(comparison.non_finite) - 1
    reason = f"{first.kind} in the candidate's logits at {first.place}" + (
        f" and {more} more positions" if more else ""
    )
    return Measurement.unusable(metric, reason)


def _per_document(rows: tuple[Row, ...], estimate: Estimate, metric: str, **more: Any) -> Measurement:
    return Measurement(
        metric, estimate.value, n=estimate.n, of="documents", interval=(estimate.low, estimate.high), rows=rows, **more
    )


def finite(comparison: Comparison) -> Measurement:
    """Positions whose logits are not finite."""
    rows = tuple(Row(bad.place, 1.0, bad.kind) for bad in comparison.non_finite[:MAX_ROWS])
    count = len(comparison.non_finite)
    return Measurement(
        "non_finite_positions",
        float(count),
        n=comparison.positions,
        of="positions",
        rows=rows,
        data={"rows_total": count},
    )


def rel_l2(comparison: Comparison) -> Measurement:
    """``max over positions of ||c-r||2/||r||2``, for float32 against float32."""
    if unusable := broken("rel_l2.max", comparison):
        return unusable
    documents = list(comparison.documents)
    values = [d.rows.rel_l2 for d in documents]
    every = np.concatenate(values)
    return Measurement(
        "rel_l2.max",
        float(every.max()),
        n=every.size,
        of="positions",
        rows=_rows(documents, values),
        data={"mean": float(every.mean()), "statistics": _logit_statistics(comparison)},
    )


def rel_l2_ratio(comparison: Comparison) -> Measurement:
    """Sum of ``rel_l2`` over positions, over what rounding alone costs; documents are the sample."""
    if unusable := broken("rel_l2.noise_ratio", comparison):
        return unusable
    return _noise_ratio("rel_l2.noise_ratio", comparison, "rel_l2")


def kl_ratio(comparison: Comparison) -> Measurement:
    """G = mean KL(ref || cand) over the same of rounding alone, which is the noisiest of the yardstick's members against
    float32, or two roundings for a same-dtype pair; documents are the sample."""
    if unusable := broken("kl.noise_ratio", comparison):
        return unusable
    measured = _noise_ratio("kl.noise_ratio", comparison, "kl")
    measured.data["by_position"] = kl_by_octave(comparison)
    return measured


def kl_by_octave(comparison: Comparison) -> list[dict[str, float | int | None]]:
    """Mean KL in nats of runs of looked positions that begin at 0, 1, 2-3, 4-7, ...: of the candidate, and of the mean and the
    noisiest member of the yardstick there, None where the pair has none of its own."""
    noise = comparison.noise
    found: dict[int, list[tuple[int, int, float, float, float]]] = {}
    for i, d in enumerate(comparison.documents):
        sums = sums_of_runs(d.document, d.rows.kl)
        none = [math.nan] * len(sums)
        sides = (noise.typical_runs[i], noise.runs[i]) if noise.runs else (none, none)
        for (start, stop), candidate, typical, noisiest in zip(d.document.runs, sums, *sides, strict=True):
            run = (start, stop, float(candidate), float(typical), float(noisiest))
            found.setdefault(start.bit_length(), []).append(run)
    return [_octave(runs) for _, runs in sorted(found.items())]


def _octave(runs: Sequence[tuple[int, int, float, float, float]]) -> dict[str, float | int | None]:
    starts, stops, *sums = zip(*runs, strict=True)
    total = sum(stops) - sum(starts)
    means = [sum(each) / total for each in sums]
    names = ("candidate", "typical_rounding", "noisiest_rounding")
    told = {name: mean if math.isfinite(mean) else None for name, mean in zip(names, means, strict=True)}
    return {"first": min(starts), "last": max(stops) - 1, "positions": total, **told}


def _noise_ratio(metric: str, comparison: Comparison, figure: str) -> Measurement:
    documents = list(comparison.documents)
    candidate = [float(getattr(d.rows, figure).sum()) for d in documents]
    noise: Float64 = getattr(comparison.noise, figure)
    estimate = log_ratio_of_sums(candidate, noise)
    rows = [Row(d.document.name, c / y) for d, c, y in zip(documents, candidate, noise, strict=True) if y > 0]
    total = sum(len(d.rows) for d in documents)
    data = {
        "candidate_mean": sum(candidate) / total,
        "noise_mean": float(noise.sum()) / total,
        "yardstick_mean_kl": comparison.noise.members,
        "positions": total,
        "statistics": _logit_statistics(comparison),
    }
    return _per_document(worst_rows(rows), estimate, metric, data=data)


def cosine(comparison: Comparison) -> Measurement:
    """Mean cosine over all positions of the prompts; beside it the documents' figures: of the last position of each prompt,
    and (with the mean absolute error) of the inputs, each over all its positions."""
    measured = _of_prompts("cosine.mean", comparison, "cosine")
    if inputs := comparison.of("hidden"):
        measured.data.get("statistics", {}).update(
            mean_inputs=float(np.mean([d.rows.cosine.mean() for d in inputs])),
            mae_inputs=float(np.mean([d.rows.mae.mean() for d in inputs])),
        )
    return measured


def top5(comparison: Comparison) -> Measurement:
    """Mean top-5 overlap |A ∩ B| / 5 over all positions of the prompts; the last position of each beside it."""
    return _of_prompts("top5.overlap", comparison, "top_overlap")


def _of_prompts(metric: str, comparison: Comparison, figure: str) -> Measurement:
    if unusable := broken(metric, comparison):
        return unusable
    prompts = comparison.of("prompt")
    values: list[Float64] = [getattr(d.rows, figure) for d in prompts]
    every = np.concatenate(values)
    last = {d.document.name: float(array[-1]) for d, array in zip(prompts, values, strict=True)}
    return Measurement(
        metric,
        float(every.mean()),
        n=every.size,
        of="positions",
        rows=_rows(prompts, values, largest=False),
        data={"last_position": last, "statistics": {"mean_last_position": sum(last.values()) / len(last)}},
    )


def token_match(comparison: Comparison) -> Measurement:
    """Top-1 disagreements beyond a near tie, over every position of every document that the pair is judged on (of a server at
    the windows: its comparison has no rest).

    tau = z x what rounding does to the reference's gap between its two best: the robust standard deviation over all
    positions, or at this one the root mean square over the yardstick's members where that is more, because rounding moves
    some positions many times as far as most.
    """
    if unusable := broken("top1.disagreements", comparison):
        return unusable
    z, everywhere = thresholds.TIE_Z.value, comparison.noise.gap_sd
    total = differing = 0
    counted, excused = [], 0.0
    gaps: list[tuple[float, float]] = []
    for rows, local, place in _every_position(comparison):
        different = np.flatnonzero(rows.reference_top1 != rows.candidate_top1)
        total, differing = total + len(rows), differing + different.size
        for i in different:
            gap, sd = float(rows.gap[i]), max(everywhere, float(local[i]))
            tau = z * sd
            gaps.append((gap, tau))
            if gap > tau:
                detail = f"token {rows.candidate_top1[i]} for {rows.reference_top1[i]}, gap in logits, tau {tau:.3g}"
                counted.append(Row(place(int(i)), gap, detail))
            else:
                excused = max(excused, gap / sd if sd else 0.0)
    prompts = comparison.of("prompt")
    agree = [bool(d.rows.reference_top1[-1] == d.rows.candidate_top1[-1]) for d in prompts]
    data = {
        "tau": z * everywhere,
        "disagreements": differing,
        "near_ties": differing - len(counted),
        "largest_excused": excused,
        "match": 1 - differing / total,
        "gaps": sorted(gaps, key=lambda pair: pair[1] - pair[0])[:MOST_GAPS],
        "rows_total": len(counted),
        "match_lower_bound": share_lower_bound(total - differing, total),
        "statistics": {"match_last_position": sum(agree) / len(agree)},
        "last_position": {d.document.name: ok for d, ok in zip(prompts, agree, strict=True)},
    }
    return Measurement(
        "top1.disagreements", float(len(counted)), n=total, of="positions", rows=worst_rows(counted), data=data
    )


def _every_position(
    comparison: Comparison,
) -> Iterator[tuple[LogitRows | BestWordRows, Float64, Callable[[int], str]]]:
    """Rows of the looked positions of each document and of the others, what rounding does to the gap at each, and the place of
    a row."""
    for d, local in zip(comparison.documents, comparison.noise.gap, strict=True):
        yield d.rows, local, d.document.place_of_row
    rest_gap = comparison.noise.rest_gap or [np.zeros(0)] * len(comparison.documents)
    for d, local in zip(comparison.documents, rest_gap, strict=True):
        yield d.rest, local, d.document.place_of_rest


def perplexity(comparison: Comparison) -> Measurement:
    """Relative change of perplexity: ``exp(mean paired difference of nll per token) - 1`` over the texts, with its
    interval; sums and counts are kept."""
    if unusable := broken("ppl.relative_change", comparison):
        return unusable
    scores = [score_text(d.document.name, d.candidate_nll, d.reference_nll) for d in comparison.of("text")]
    delta = compare_perplexity(scores)
    rows = sorted(
        (Row(s.name, relative_change(s.delta), s.said) for s in scores),
        key=lambda r: -abs(r.value),
    )
    data = {
        "mean_nll_difference": delta.estimate.value,
        "texts": {
            s.name: {"candidate_nll": s.candidate_nll, "reference_nll": s.reference_nll, "tokens": s.tokens}
            for s in scores
        },
        "statistics": {
            "mean_abs_delta": delta.mean_abs_delta,
            "max_abs_delta": delta.max_abs_delta,
            "ratio_of_means": delta.ratio_of_means,
        },
    }
    nats = delta.estimate
    change = Estimate(relative_change(nats.value), relative_change(nats.low), relative_change(nats.high), nats.n)
    return _per_document(tuple(rows[:MAX_ROWS]), change, "ppl.relative_change", data=data)


def _logit_statistics(comparison: Comparison) -> dict[str, float]:
    """Figures that documents quote, over prompts at their last position."""
    last: list[LogitRows] = [d.rows for d in comparison.of("prompt")]
    return {
        "mean_last_position": float(np.mean([rows.rel_l2[-1] for rows in last])),
        "mean_rel_last_position": float(np.mean([rows.mean_rel[-1] for rows in last])),
        "active_rel_last_position": float(np.mean([rows.active_rel[-1] for rows in last])),
        "within_1e3_last_position": float(np.mean([rows.within_1e3[-1] for rows in last])),
        "within_5e3_last_position": float(np.mean([rows.within_5e3[-1] for rows in last])),
    }
