"""By bucket of positions: the figure of the check ``kl.positions``."""

from __future__ import annotations

import numpy as np

from pytest_npuconf.comparison import Comparison, sums_of_runs
from pytest_npuconf.documents import bucket_of
from pytest_npuconf.errors import MetricError
from pytest_npuconf.gates import Measurement, Row, format_interval
from pytest_npuconf.measurements.logits import broken
from pytest_npuconf.stats import Estimate, largest_of, log_ratio_of_sums

METRIC = "kl.noise_ratio.worst_bucket"


def kl_by_position(comparison: Comparison) -> Measurement:
    """The noise ratio of each bucket of positions: one bucket beyond the bound fails, and all have to be inside it. The sample
    are windows of at most 16 positions: what rounding does at one place says little of what it does 100 tokens on, given the
    text. Lower ends are corrected for the number of buckets; a bucket with a single window is named, not judged.

    Raises:
        MetricError: the run has no documents of the positions.
    """
    if unusable := broken(METRIC, comparison):
        return unusable
    windows = _windows(comparison)
    usable = {bucket: pairs for bucket, pairs in windows.items() if len(pairs) > 1}
    if not usable:
        raise MetricError("kl.positions: no bucket of positions has two windows; give longer texts")
    estimates: dict[str, Estimate] = {}
    for bucket, pairs in usable.items():
        candidate, noise = (np.array(side) for side in zip(*pairs, strict=True))
        estimates[bucket] = log_ratio_of_sums(candidate, noise, len(usable))
    ordered = sorted(estimates, key=lambda bucket: -estimates[bucket].value)
    worst, too_few = largest_of(estimates.values()), sorted(windows.keys() - usable.keys())
    return Measurement(
        METRIC,
        worst.value,
        n=worst.n,
        of="windows",
        interval=(worst.low, worst.high),
        rows=tuple(Row(f"positions {b}", estimates[b].value, _detail(estimates[b])) for b in ordered),
        data={
            "buckets": {
                b: {"ratio": e.value, "low": e.low, "high": e.high, "windows": e.n} for b, e in estimates.items()
            },
            "too_few": too_few,
            "notes": [
                f"not judged: positions {b}: one window has no spread; give another text as long" for b in too_few
            ],
        },
    )


def _windows(comparison: Comparison) -> dict[str, list[tuple[float, float]]]:
    """KL of the candidate and of rounding in each window, by bucket."""
    found: dict[str, list[tuple[float, float]]] = {}
    for d, noise in zip(comparison.documents, comparison.noise.runs, strict=True):
        if d.document.kind == "document":
            sums = sums_of_runs(d.document, d.rows.kl)
            for (start, _), candidate, rounding in zip(d.document.runs, sums, noise, strict=True):
                found.setdefault(bucket_of(start), []).append((float(candidate), float(rounding)))
    return found


def _detail(estimate: Estimate) -> str:
    return f"{format_interval(estimate.low, estimate.high)}, {estimate.n} windows"
