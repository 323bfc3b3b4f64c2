"""Hidden states: the figures of the check ``hidden.states``."""

from __future__ import annotations

import numpy as np

from pytest_npuconf.gates import Measurement, Row, format_interval
from pytest_npuconf.hidden_comparison import FINAL, HiddenComparison
from pytest_npuconf.measurements.logits import worst_rows
from pytest_npuconf.stats import largest_of, log_ratio_of_sums


def hidden_error(comparison: HiddenComparison) -> Measurement:
    """``max over layers and positions of ||c-r||2/||r||2``, for float32 against float32."""
    if broken := _broken("hidden.rel_l2.max", comparison):
        return broken
    rows = [
        Row(f"{document.place(int(i))} {layer}", float(found.rel_l2[i]))
        for layer, listed in comparison.rows.items()
        for document, found in zip(comparison.documents, listed, strict=True)
        for i in np.argsort(-found.rel_l2, kind="stable")[:10]
    ]
    worst = worst_rows(rows)
    return Measurement(
        "hidden.rel_l2.max",
        worst[0].value,
        n=comparison.positions * len(comparison.rows),
        of="positions",
        rows=worst,
        data=_data(comparison),
    )


def hidden_ratio(comparison: HiddenComparison) -> Measurement:
    """Of each layer, the sum of ``rel_l2`` over positions, over what rounding alone costs there: one layer beyond the bound
    fails, and all have to be inside it. Documents are the sample; lower ends are corrected for the number of layers."""
    metric = "hidden.noise_ratio"
    if broken := _broken(metric, comparison):
        return broken
    estimates = {}
    for layer, listed in comparison.rows.items():
        candidate = [float(found.rel_l2.sum()) for found in listed]
        estimates[layer] = log_ratio_of_sums(candidate, comparison.noise[layer], len(comparison.rows))
    rows = worst_rows([Row(layer, e.value, format_interval(e.low, e.high)) for layer, e in estimates.items()])
    worst = largest_of(estimates.values())
    return Measurement(
        metric, worst.value, n=worst.n, of="documents", interval=(worst.low, worst.high), rows=rows, data=_data(comparison)
    )  # fmt: skip


def _broken(metric: str, comparison: HiddenComparison) -> Measurement | None:
    if not comparison.non_finite:
        return None
    first, more = comparison.non_finite[0], len(comparison.non_finite) - 1
    reason = f"{first.kind} in the candidate's hidden states at {first.place}"
    return Measurement.unusable(metric, reason + (f" and {more} more places" if more else ""))


def _data(comparison: HiddenComparison) -> dict[str, object]:
    """Each layer's figures, and those of the final normed state as the documents quote them: means over the inputs of each
    input's mean over its elements."""
    layers = {
        layer: {
            name: float(np.mean([getattr(found, name).mean() for found in listed]))
            for name in ("rel_l2", "cosine", "mae", "rmse", "mean_rel", "active_rel", "within_1e3", "within_5e3")
        }
        | {"worst_channel_rel": float(max(found.channel_rel.max() for found in listed))}
        for layer, listed in comparison.rows.items()
    }
    data: dict[str, object] = {"layers": layers, "positions": comparison.positions}
    if FINAL in comparison.rows:
        largest = [float(found.max_rel.max()) for found in comparison.rows[FINAL]]
        final = {name: value for name, value in layers[FINAL].items() if name not in ("rel_l2", "worst_channel_rel")}
        data["statistics"] = {**final, "max_rel": max(largest), "mean_of_max_rel": float(np.mean(largest))}
    return data
