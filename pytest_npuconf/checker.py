"""Judging a measurement inside a test: gate, claims, waivers, record, failure."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

import pytest

from pytest_npuconf.calibration.evidence import beside
from pytest_npuconf.cards.schema import Card, Waiver
from pytest_npuconf.checks import CHECKS, gate_for
from pytest_npuconf.claims import ClaimResult, Standing, evaluate
from pytest_npuconf.collection import is_shipped
from pytest_npuconf.gates import Gate, Measurement, Outcome, Role, Verdict
from pytest_npuconf.precisions import Precision
from pytest_npuconf.records import Record, make_record, properties

if TYPE_CHECKING:
    from pytest_npuconf.plan import Plan

MARK = "npuconf_check"
RECORDS: pytest.StashKey[list[Record]] = pytest.StashKey()


def check_name(item: pytest.Item) -> str | None:
    """The check that a shipped suite's test is marked with; a mark in anybody else's file makes no check."""
    mark = item.get_closest_marker(MARK)
    return str(mark.args[0]) if mark is not None and mark.args and is_shipped(item) else None


def check_id(item: pytest.Item) -> str | None:
    """``logits.rel_l2.bf16_fp32``, None for a test that is not a suite's check."""
    name, pair = check_name(item), parameter(item, "npu_precision")
    if name is None:
        return None
    return f"{name}.{pair.name}" if isinstance(pair, Precision) else name


def parameter(item: pytest.Item, name: str) -> Any:
    """The value that a test was parametrized with, None without one."""
    return getattr(getattr(item, "callspec", None), "params", {}).get(name)


class Checker:
    """The fixture ``npu_check``."""

    def __init__(self, item: pytest.Item, plan: Plan | None) -> None:
        self._item, self._plan = item, plan

    def __call__(self, measurement: Measurement, gate: Gate | None = None) -> Verdict | None:
        """Judge, record, and fail the test if the verdict or (with strict claims) a claim asks for it.

        Args:
            gate: yours; left out in a suite's test, where the check's own gate or the card's is taken.

        Returns:
            The verdict, or None for a check that only reports on claims.
        """
        card, pair = self._card(), parameter(self._item, "npu_precision")
        check = check_id(self._item)
        if check is not None and gate is not None:
            raise TypeError(f"npu_check(measurement): the shipped check {check} has its own gate")
        check = check or f"own: {gate.name if gate is not None else self._item.name}"
        if gate is None and card is not None and check_name(self._item) in CHECKS:
            required = self._plan is not None and check in self._plan.required[card.name]
            gate = gate_for(check, pair, card, required=required)
        elif gate is None:
            raise TypeError("npu_check(measurement, gate): a test that is not marked with a shipped check needs a gate")
        measurement = self._with_evidence(measurement, card, pair)
        verdict = gate.judge(measurement) if gate is not None else None
        claims = self._claims(card, check, measurement, pair)
        waiver = self._waiver(card, check, pair)
        failing = verdict is not None and verdict.outcome is not Outcome.PASS
        self._record(check, measurement, verdict, claims, card, pair, waiver.reason if waiver and failing else "")
        self._decide(check, verdict, claims, waiver)
        return verdict

    def _card(self) -> Card | None:
        model = parameter(self._item, "npu_card")
        return self._plan.cards[model] if self._plan is not None and model is not None else None

    def _with_evidence(self, measurement: Measurement, card: Card | None, pair: Any) -> Measurement:
        """How far benign variants go on this device, where that was measured."""
        name = check_name(self._item)
        if self._plan is None or card is None or name is None or not isinstance(pair, Precision):
            return measurement
        calibration = self._plan.calibrations.used.get((card.name, pair.candidate))
        return beside(measurement, calibration, name, pair) if calibration is not None else measurement

    def _facts(self, pair: Any) -> dict[str, str]:
        facts = dict(self._plan.facts) if self._plan is not None else {}
        if isinstance(pair, Precision):
            facts |= {"precision": pair.candidate, "reference": f"cpu {pair.reference}"}
        return facts

    def _claims(self, card: Card | None, check: str, measurement: Measurement, pair: Any) -> list[ClaimResult]:
        if card is None:
            return []
        facts = self._facts(pair) | {"model": card.name}
        return [evaluate(claim, measurement, facts) for claim in card.claims if claim.check == check]

    def _waiver(self, card: Card | None, check: str, pair: Any) -> Waiver | None:
        if card is None:
            return None
        facts, today = self._facts(pair), datetime.date.today()
        names = (check, check_name(self._item))
        return next((w for w in card.waivers if w.check in names and w.applies(today, facts)), None)

    def _record(
        self,
        check: str,
        measurement: Measurement,
        verdict: Verdict | None,
        claims: list[ClaimResult],
        card: Card | None,
        pair: Any,
        waived: str,
    ) -> None:
        facts = self._facts(pair)
        record = make_record(
            check,
            measurement,
            verdict,
            claims,
            model=card.name if card is not None else "",
            precision=pair.candidate if isinstance(pair, Precision) else "",
            reference=facts.get("reference", "") if self._plan is not None else "",
            reference_source=self._source(check, card),
            facts=facts,
            labels=self._plan.labels(card.name) if self._plan is not None and card is not None else [],
            waived=waived,
        )
        self._item.stash.setdefault(RECORDS, []).append(record)
        self._item.user_properties.extend(properties(record, facts))

    def _source(self, check: str, card: Card | None) -> str:
        """Where the reference of a check comes from: some need live weights beside a stored one."""
        if self._plan is None or card is None:
            return ""
        known = CHECKS.get(check_name(self._item) or "")
        return "live" if known is not None and known.live else self._plan.source(card.name)

    def _decide(self, check: str, verdict: Verdict | None, claims: list[ClaimResult], waiver: Waiver | None) -> None:
        strict_claims = self._plan is not None and self._plan.settings.strict_claims
        failing = (
            verdict is not None
            and verdict.outcome is not Outcome.PASS
            and (verdict.gate.role is Role.REQUIRED or strict_claims)
        )
        if waiver is not None and failing:
            pytest.xfail(f"waived until {waiver.expires}: {waiver.reason} ({waiver.link})")
        if waiver is not None and verdict is not None and verdict.outcome is Outcome.PASS:
            pytest.fail(
                f"FAIL {check}: passes, but the card waives it: {waiver.reason} ({waiver.link})\n"
                f"  next:  delete the [[waivers]] entry of {waiver.check} from the card",
                pytrace=False,
            )
        missed = [result for result in claims if result.standing is not Standing.REPRODUCED]
        strict = strict_claims and bool(missed)
        if failing or strict:
            lines = [verdict.message(next_command=self._next())] if failing and verdict is not None else []
            lines += [_claim_message(result) for result in missed] if strict else []
            pytest.fail("\n".join(lines), pytrace=False)

    def _next(self) -> str:
        if self._plan is None:
            return f"pytest {self._item.nodeid}"
        return self._plan.settings.command(self._item.nodeid)


def _claim_message(result: ClaimResult) -> str:
    claim = result.claim
    gate = f", gate {claim.gate_stated}" if claim.gate_stated else ""
    return (
        f"CLAIM {claim.id} {result.standing.value}: documented {claim.documented!r} ({claim.source}{gate}), "
        f"measured {claim.statistic} = {result.measured}"
    )
