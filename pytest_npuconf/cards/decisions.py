"""What a card decides by: required checks, bounds of its own, claims and waivers.

Read here alone for a whole card (``loading``) and for one inside a bundle, of which nothing else can be followed.
"""

from __future__ import annotations

import datetime
import math
from typing import Any

from pytest_npuconf.cards.schema import BETTER, Claim, ClaimGate, GateOverride, Waiver
from pytest_npuconf.cards.toml_reader import Table
from pytest_npuconf.gates import Role, Sense

_SENSES = {">": Sense.AT_LEAST, ">=": Sense.AT_LEAST, "<": Sense.AT_MOST, "<=": Sense.AT_MOST, "+-": Sense.WITHIN}


def read_required(root: Table) -> dict[str, tuple[str, ...]]:
    """``[required]``: by engine, the checks without which the model is not conformant.

    Raises:
        CardError: an engine's list is empty, or holds what is no name.
    """
    table = root.table("required")
    required = {}
    for engine in list(table.data):
        required[engine] = table.strings(engine)
        if not required[engine]:
            raise table.error(engine, "is empty: a model of which nothing is required cannot be conformant")
    return required


def read_gates(root: Table) -> dict[str, GateOverride]:
    """``[gates]``: by check, another bound and its reason.

    Raises:
        CardError: a bound that is not finite or below 0, or one without a reason.
    """
    table = root.table("gates")
    gates = {}
    for check in list(table.data):
        entry = table.table(check)
        bound = entry.take("bound", float)
        if not math.isfinite(bound) or bound < 0:
            raise entry.error("bound", f"must be a finite number of at least 0, got {bound}")
        gates[check] = GateOverride(check, bound, entry.words("reason"))
        entry.finish()
    return gates


def read_claims(root: Table) -> tuple[Claim, ...]:
    """``[[claims]]``: what the model's documents state, with the check that answers it.

    Raises:
        CardError: the same id twice, or a claim that nothing could answer as it is written.
    """
    claims = [_claim(table) for table in root.tables("claims")]
    seen: set[str] = set()
    for table, claim in zip(root.tables("claims"), claims, strict=True):
        if claim.id in seen:
            raise table.error("id", f"{claim.id!r} appears twice")
        seen.add(claim.id)
    return tuple(claims)


def _claim(table: Table) -> Claim:
    claim = Claim(
        id=table.words("id"),
        documented=table.words("documented"),
        source=table.words("source"),
        value=_claim_value(table),
        unit=table.take("unit", str, ""),
        gate_stated=table.take("gate_stated", str, ""),
        gate=_claim_gate(table.table("gate")) if "gate" in table else None,
        check=table.take("check", str, ""),
        statistic=table.take("statistic", str, ""),
        better=table.choice("better", BETTER, "equal"),
        tolerance=_tolerance(table),
        conditions=_conditions(table),
        role=Role(table.choice("role", tuple(r.value for r in Role), Role.CLAIM.value)),
        reason=table.take("reason", str, ""),
        audit=table.take("audit", str, ""),
    )
    if bool(claim.check) != bool(claim.statistic):
        raise table.error("statistic", "and check come together: which figure of which check answers the claim?")
    if claim.check and claim.gate is None and not _is_number(claim.value) and not _is_numbers(claim.value):
        raise table.error(
            "value", "must be one number, or a list of them, when the claim is answered by a check and has no gate"
        )
    table.finish()
    return claim


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(_is_number(each) for each in value)


def _claim_value(table: Table) -> Any:
    value = table.take_any("value")
    if not _all_finite(value):
        raise table.error("value", f"must be finite, got {value}")
    return value


def _all_finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_all_finite(v) for v in value.values())
    if isinstance(value, list):
        return all(_all_finite(v) for v in value)
    return not isinstance(value, float) or math.isfinite(value)


def _tolerance(table: Table) -> float | None:
    if "tolerance" not in table:
        return None
    tolerance = table.take("tolerance", float)
    if not 0 <= tolerance < math.inf:
        raise table.error("tolerance", f"must be a finite number of at least 0, got {tolerance}")
    return tolerance


def _claim_gate(table: Table) -> ClaimGate:
    gate = ClaimGate(_SENSES[table.choice("op", tuple(_SENSES), "")], table.take("bound", float))
    if not math.isfinite(gate.bound):
        raise table.error("bound", f"must be finite, got {gate.bound}")
    table.finish()
    return gate


def _conditions(table: Table) -> dict[str, str]:
    conditions = table.take("conditions", dict, {})
    for key, value in conditions.items():
        if not isinstance(value, str):
            raise table.error("conditions", f"must map names to strings, {key} is {value!r}")
    return conditions


def read_waivers(root: Table) -> tuple[Waiver, ...]:
    """``[[waivers]]``: known failures, each with its reason, a link and the day on which it ends.

    Raises:
        CardError: one of these is missing, or the day has a time.
    """
    return tuple(_waiver(table) for table in root.tables("waivers"))


def _waiver(table: Table) -> Waiver:
    expires = table.take("expires", datetime.date)
    if isinstance(expires, datetime.datetime):
        raise table.error("expires", f"must be a date without a time, got {expires}")
    waiver = Waiver(
        check=table.words("check"),
        reason=table.words("reason"),
        link=table.words("link"),
        expires=expires,
        conditions=_conditions(table),
    )
    table.finish()
    return waiver
