"""A documented number against what was measured: reproduced, not reproduced, or contradicted. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from pytest_npuconf.cards.schema import Claim
from pytest_npuconf.gates import Measurement, Sense


class Standing(str, Enum):
    """``contradicted`` needs the claim's own conditions; elsewhere a miss is only ``not reproduced``."""

    REPRODUCED = "reproduced"
    NOT_REPRODUCED = "not reproduced"
    CONTRADICTED = "contradicted"


@dataclass(frozen=True)
class ClaimResult:
    """``measured`` is the claim's statistic, a list where it has one number for each text, None when the candidate's output
    was unusable."""

    claim: Claim
    measured: float | list[float] | None
    standing: Standing


def evaluate(claim: Claim, measurement: Measurement, facts: dict[str, str]) -> ClaimResult:
    """Evaluate one claim as its document states it.

    With a documented gate, the gate decides; else the measured statistic must be as good as the documented value, or
    within ``tolerance`` of it (``better = "equal"``). Of a list every element must, and a documented list must be as long.
    Conditions that are not facts of this run make a miss
    ``not reproduced`` instead of ``contradicted``.
    A statistic that this measurement could not take (no answer came, the log does not say) is not reproduced either; one that
    no check has is refused with the card.

    Raises:
        KeyError: the measurement keeps no statistics at all: the check forgot them.
    """
    if measurement.broken or claim.statistic not in measurement.data["statistics"]:
        return ClaimResult(claim, None, Standing.NOT_REPRODUCED)
    found = measurement.data["statistics"][claim.statistic]
    measured = [float(each) for each in found] if isinstance(found, (list, tuple)) else float(found)
    if _holds(claim, measured):
        return ClaimResult(claim, measured, Standing.REPRODUCED)
    same = bool(claim.conditions) and all(facts.get(key) == value for key, value in claim.conditions.items())
    return ClaimResult(claim, measured, Standing.CONTRADICTED if same else Standing.NOT_REPRODUCED)


def _holds(claim: Claim, measured: float | list[float]) -> bool:
    """Element by element. A list against one number, or against a list of another length, does not hold."""
    if claim.gate is None and isinstance(claim.value, (list, tuple)) != isinstance(measured, list):
        return False
    if not isinstance(measured, list):
        return _number_holds(claim, measured, claim.value)
    documented = claim.value if claim.gate is None else measured
    return len(documented) == len(measured) and all(
        _number_holds(claim, each, value) for each, value in zip(measured, documented, strict=True)
    )


def _number_holds(claim: Claim, measured: float, documented: Any) -> bool:
    if claim.gate is not None:
        if claim.gate.sense is Sense.WITHIN:
            return abs(measured) <= claim.gate.bound
        return measured >= claim.gate.bound if claim.gate.sense is Sense.AT_LEAST else measured <= claim.gate.bound
    room = claim.tolerance or 0.0
    if claim.better == "higher":
        return bool(measured >= documented - room)
    if claim.better == "lower":
        return bool(measured <= documented + room)
    return bool(abs(measured - documented) <= room)
