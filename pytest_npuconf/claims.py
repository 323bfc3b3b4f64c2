"""A documented number against what was measured: reproduced, not reproduced, or contradicted. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from pytest_npuconf.cards.schema import Claim
from pytest_npuconf.gates import Measurement, Sense


class Standing(str, Enum):
    """``contradicted`` needs the claim's own conditions; elsewhere a miss is only ``not reproduced``."""

    REPRODUCED = "reproduced"
    NOT_REPRODUCED = "not reproduced"
    CONTRADICTED = "contradicted"


@dataclass(frozen=True)
class ClaimResult:
    """``measured`` is the claim's statistic, None when the candidate's output was unusable."""

    claim: Claim
    measured: float | None
    standing: Standing


def evaluate(claim: Claim, measurement: Measurement, facts: dict[str, str]) -> ClaimResult:
    """Evaluate one claim as its document states it.

    With a documented gate, the gate decides; else the measured statistic must be as good as the documented value, or
    within ``tolerance`` of it (``better = "equal"``). Conditions that are not facts of this run make a miss
    ``not reproduced`` instead of ``contradicted``.

    Raises:
        KeyError: the measurement has no statistic of the claim's name.
    """
    if measurement.broken:
        return ClaimResult(claim, None, Standing.NOT_REPRODUCED)
    measured = float(measurement.data["statistics"][claim.statistic])
    if _holds(claim, measured):
        return ClaimResult(claim, measured, Standing.REPRODUCED)
    same = bool(claim.conditions) and all(facts.get(key) == value for key, value in claim.conditions.items())
    return ClaimResult(claim, measured, Standing.CONTRADICTED if same else Standing.NOT_REPRODUCED)


def _holds(claim: Claim, measured: float) -> bool:
    if claim.gate is not None:
        if claim.gate.sense is Sense.WITHIN:
            return abs(measured) <= claim.gate.bound
        return measured >= claim.gate.bound if claim.gate.sense is Sense.AT_LEAST else measured <= claim.gate.bound
    room = claim.tolerance or 0.0
    if claim.better == "higher":
        return bool(measured >= claim.value - room)
    if claim.better == "lower":
        return bool(measured <= claim.value + room)
    return bool(abs(measured - claim.value) <= room)
