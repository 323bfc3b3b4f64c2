"""What a calibration adds to a run that is judged: how far benign variants go here. It moves no bound."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

from pytest_npuconf import thresholds
from pytest_npuconf.calibration.noise import NOISE
from pytest_npuconf.calibration.stored import Calibration
from pytest_npuconf.gates import Measurement, format_number
from pytest_npuconf.precisions import Precision
from pytest_npuconf.records import Record

YARDSTICK = "kl.noise_ratio"


def beside(measured: Measurement, calibration: Calibration, name: str, pair: Precision) -> Measurement:
    """The measurement with ``data["calibration"]`` and a line for whoever reads a failure; unchanged where the calibration
    says nothing of this check."""
    figure = calibration.figures.get(f"{name}.{pair.name}")
    if figure is None or name not in NOISE:
        return measured
    count, digest = len(calibration.variants), calibration.digest[:12]
    known = {"largest": figure.largest, "by": figure.by, "variants": count, "digest": digest}
    line = f"calibrated: on this device {count} benign variants reach {format_number(figure.largest)} at most ({figure.by})"
    here = math.nan if measured.broken else NOISE[name].figure(measured)
    if math.isfinite(here) and figure.largest > 0:
        line += f"; this is {format_number(round(here / figure.largest, 2))} times that"
    notes = [*measured.data.get("notes", ()), line]
    return dataclasses.replace(measured, data={**measured.data, "calibration": known, "notes": notes})


def worse_yardstick(check: str, largest: float) -> str:
    """The finding that the yardstick of a check rounds more than what it is held against; empty when it does not.

    Args:
        check: id; only the end-to-end ratio against float32 says so, below float32: there a healthy candidate is near 1.
        largest: the end of the ratio that is nearest to 1.
    """
    name, _, pair = check.rpartition(".")
    if name != YARDSTICK or not pair.endswith("_fp32") or pair.startswith("fp32"):
        return ""
    if largest >= thresholds.YARDSTICK_WORSE.value:
        return ""
    return (
        f"FINDING {check}: the yardstick rounds more than the candidate (ratio {format_number(largest)} at most, below "
        f"{format_number(thresholds.YARDSTICK_WORSE.value)}): the candidate computes wider than its dtype, or the yardstick "
        "is of no use here; the gates below float32 are looser by that much"
    )


def findings(records: Iterable[Record]) -> list[str]:
    """Of a run: what no gate objects to and a reader must know."""
    found = []
    for record in records:
        ends = record["interval"]
        if not record["broken"] and ends is not None and ends[1] is not None:
            found.append(worse_yardstick(record["check"], ends[1]))
    return [line for line in dict.fromkeys(found) if line]
