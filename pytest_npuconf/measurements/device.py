"""The device itself: whether the model ran on it, and what it makes of overflow."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_npuconf.devices.special import Special
from pytest_npuconf.engines.execution import Executed
from pytest_npuconf.errors import MetricError
from pytest_npuconf.gates import MAX_ROWS, Measurement, Row


def executed_elsewhere(found: Executed) -> Measurement:
    """Ops of a short pass that did not run on the device that was asked for, of all that were dispatched.

    Raises:
        MetricError: no op was seen at all: then nothing was watched.
    """
    total = sum(found.calls.values())
    if not total:
        raise MetricError("ops.elsewhere: no op of the model was seen, so nothing is known of where it ran")
    rows = [
        Row(e.op, float(e.calls), f"{e.why}; first in {e.module or 'the model itself'}, asked for {found.device}")
        for e in found.elsewhere
    ]
    modules = sorted({e.module for e in found.elsewhere})
    return Measurement(
        "ops.elsewhere", float(sum(e.calls for e in found.elsewhere)), n=total, of="ops", rows=tuple(rows[:MAX_ROWS]),
        data={"rows_total": len(rows), "kinds": len(found.calls), "modules": modules},
    )  # fmt: skip


def wrong_special_values(found: Sequence[Special]) -> Measurement:
    """Operations that overflow or have no result, and did not give the infinity or NaN of IEEE 754."""
    rows = [
        Row(s.operation, 1.0, f"gave {s.found:g}, IEEE 754 gives {s.expected:g}; saturation mode?")
        for s in found
        if not s.right
    ]
    return Measurement.counted("special_values.wrong", rows, n=len(found), of="operations")
