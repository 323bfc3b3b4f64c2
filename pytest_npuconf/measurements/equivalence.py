"""The candidate against itself: the figures of the checks ``equivalence.*``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pytest_npuconf import thresholds
from pytest_npuconf.equivalence_comparison import Compared, Equivalence, RunNoise
from pytest_npuconf.errors import MetricError
from pytest_npuconf.gates import Measurement, Row, format_number
from pytest_npuconf.measurements.logits import worst_rows
from pytest_npuconf.stats import Estimate, largest_of, log_ratio_of_sums, ratio_of_sums

RATIO, ERROR, REPEATS = "kl.equivalence_ratio", "rel_l2.equivalence", "repeats.differing"
ROUNDINGS = 2  # either way rounds in its own manner, and independent errors add in the square, which KL is


def equivalence_error(found: Equivalence) -> Measurement:
    """``max over positions of ||other - alone||2 / ||alone||2``, for float32.

    Raises:
        MetricError: nothing was compared.
    """
    if unusable := _unusable(ERROR, found):
        return unusable
    rows = [Row(_at(c, int(c.rel_l2.argmax())), float(c.rel_l2.max())) for c in found.compared]
    worst = worst_rows(rows)
    positions = sum(c.rel_l2.size for c in found.compared)
    return Measurement(ERROR, worst[0].value, n=positions, of="positions", rows=worst, data=_data(found))


def equivalence_ratio(found: Equivalence) -> Measurement:
    """KL(alone || the other way) over the noise of two roundings at the same positions, below float32.

    The value is the larger of the worst group's ratio and of the worst single row's or window's over ``EQUIVALENCE_ROW``:
    a fault in one of eight rows drowns in their sum. The interval is that of the largest group, over documents, and a single
    row lifts its lower end; so one bound fails whichever is too large, and passes only all of them.

    Raises:
        MetricError: nothing was compared, or nothing to measure it in.
    """
    if unusable := _unusable(RATIO, found):
        return unusable
    if (noise := found.noise) is None:
        raise MetricError(f"{RATIO}: it is not known what rounding costs")
    single = [Row(c.place, _ratio(float(c.kl.sum()), ROUNDINGS * noise.of(c)), _size(c)) for c in found.compared]
    rows, groups = worst_rows(single), _groups(found.compared, noise)
    name = max(groups, key=lambda g: groups[g].value)
    alone, documents = rows[0].value / thresholds.EQUIVALENCE_ROW.value, {c.document.name for c in found.compared}
    worst = largest_of(groups.values())
    value = max(worst.value, alone)
    low, high = min(value, max(alone, worst.low)), max(value, worst.high)
    data = _data(found) | {
        "groups": {g: {**_kept(e), "documents": e.n} for g, e in groups.items()},
        "notes": [
            f"{g}: one document has no spread to see; at least two are needed"
            for g, e in groups.items()
            if e.n < 2 and e.value
        ],
        "decides": rows[0].place if alone > groups[name].value else name,
        "row_width": thresholds.EQUIVALENCE_ROW.value,
    }
    return Measurement(RATIO, value, n=len(documents), of="documents", interval=(low, high), rows=rows, data=data)


def repeat_differences(found: Equivalence, *, deterministic: bool, why: str = "") -> Measurement:
    """Positions at which a repeated call is not the same.

    Where the device is ``deterministic``, not bit-equal. Elsewhere: where the best token changes although the gap between the
    two is no near tie, and every position of a repeat that is further off than rounding: its KL over that of two roundings
    above ``EQUIVALENCE_ROW`` times the bound, or (at float32) ``rel_l2`` above its bound.

    Args:
        why: the reading that ``deterministic`` rests on, told with each place.

    Raises:
        MetricError: nothing was compared.
    """
    if unusable := _unusable(REPEATS, found):
        return unusable
    rows, total = [], 0
    for c in found.compared:
        wrong = ~c.equal if deterministic else _beyond_rounding(c, found.noise)
        count = int(wrong.sum())
        total += count
        if count:
            first = int(np.flatnonzero(wrong)[0])
            detail = f"of {wrong.size} positions, first {c.position(first)}; rel_l2 up to {format_number(float(c.rel_l2.max()))}"
            rows.append(Row(c.place, float(count), f"{detail}; {_asked(deterministic, why)}" if why else detail))
    positions = sum(c.equal.size for c in found.compared)
    data = _data(found) | {
        "rows_total": len(rows),
        "deterministic": deterministic,
        "deterministic_why": why,
        "not_bit_equal": int(sum((~c.equal).sum() for c in found.compared)),
    }
    return Measurement(REPEATS, float(total), n=positions, of="positions", rows=worst_rows(rows), data=data)


def _asked(deterministic: bool, why: str) -> str:
    return (
        f"{'equal bits are asked' if deterministic else 'equal bits are not asked, near ties are passed over'}: {why}"
    )


def _beyond_rounding(c: Compared, noise: RunNoise | None) -> Any:
    if noise is None:
        return c.rel_l2 > thresholds.REL_L2_FLOAT32.value
    bound = thresholds.EQUIVALENCE_RATIO.value * thresholds.EQUIVALENCE_ROW.value
    if _ratio(float(c.kl.sum()), ROUNDINGS * noise.of(c)) > bound:
        return ~c.equal
    return c.gap > thresholds.TIE_Z.value * noise.gap_sd


def _groups(compared: Sequence[Compared], noise: RunNoise) -> dict[str, Estimate]:
    """The ratio of each group with its interval over documents."""
    sums: dict[str, dict[str, tuple[float, float]]] = {}
    for c in compared:
        of_group = sums.setdefault(c.group, {})
        kl, rounding = of_group.get(c.document.name, (0.0, 0.0))
        of_group[c.document.name] = (kl + float(c.kl.sum()), rounding + ROUNDINGS * noise.of(c))
    return {group: _estimate(documents, len(sums)) for group, documents in sums.items()}


def _estimate(documents: Mapping[str, tuple[float, float]], groups: int) -> Estimate:
    """The lower end on the log scale, corrected for the number of groups; the upper on the plain one: where most rows are
    bit-equal and one is not, the logarithm would have any small ratio reach any bound. One document has no spread to see: its
    ratio may be anything, but for equal bits."""
    kl, rounding = (np.array(side) for side in zip(*documents.values(), strict=True))
    if kl.size == 1 or rounding.max() == rounding.sum():
        ratio = _ratio(float(kl.sum()), float(rounding.sum()))
        return Estimate(ratio, 0.0, math.inf if ratio else 0.0, 1)
    plain, low = ratio_of_sums(kl, rounding), log_ratio_of_sums(kl, rounding, groups).low
    return Estimate(plain.value, low, plain.high, plain.n)


def _kept(estimate: Estimate) -> dict[str, float | None]:
    high = estimate.high if math.isfinite(estimate.high) else None
    return {"ratio": estimate.value, "low": estimate.low, "high": high}


def _size(c: Compared) -> str:
    return f"{c.kl.size} position{'s' if c.kl.size > 1 else ''}"


def _ratio(kl: float, noise: float) -> float:
    """
    Raises:
        MetricError: rounding costs nothing here, so there is nothing to measure a difference in.
    """
    if noise > 0:
        return kl / noise
    if kl > 0:
        raise MetricError("equivalence: the yardstick shows no rounding at these positions, but the candidate differs")
    return 0.0


def _unusable(metric: str, found: Equivalence) -> Measurement | None:
    if found.broken:
        more = f" and {len(found.broken) - 1} more" if len(found.broken) > 1 else ""
        return Measurement.unusable(metric, found.broken[0] + more)
    if not found.compared:
        raise MetricError(f"{metric}: nothing was compared")
    return None


def _at(c: Compared, row: int) -> str:
    return f"{c.place} position {c.position(row)}"


def _data(found: Equivalence) -> dict[str, Any]:
    """Every condition with its sums."""
    return {
        "conditions": {
            c.place: {
                "positions": int(c.kl.size),
                "kl": float(c.kl.sum()),
                "rel_l2_max": float(c.rel_l2.max()),
                "bit_equal": int(c.equal.sum()),
            }
            for c in found.compared
        }
    }
