"""Documented claims, evaluated again from the stored statistics and the bundled cards, and their counts. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_npuconf.bundle.findings import Finding, contradiction, note, wrong
from pytest_npuconf.bundle.rejudge import called, measurement_of
from pytest_npuconf.bundle.results_file import RESULTS
from pytest_npuconf.cards.schema import Card, Claim
from pytest_npuconf.claims import Standing, evaluate
from pytest_npuconf.conformance import claims_line
from pytest_npuconf.errors import MetricError
from pytest_npuconf.records import Record

_NOT_MEASURED = "not measured"


def recheck_claims(results: Mapping[str, Any], cards: Mapping[str, Card]) -> list[Finding]:
    """What was measured for each claim, its standing (where the model's card is there), and how many stand how.

    Args:
        cards: of the models, as far as the bundle has them.
    """
    findings = []
    alone: dict[str, int] = {}
    for number, record in enumerate(results["checks"]):
        card = cards.get(record["model"])
        known = {claim.id: claim for claim in card.claims} if card is not None and record["claims"] else {}
        for stored in record["claims"]:
            name = f"{called(number, record)} claim {stored['id']}"
            findings += _measured(record, stored, name)
            if stored["id"] in known:
                findings += _standing(results, record, stored, known[stored["id"]], name)
            else:
                alone[record["model"]] = alone.get(record["model"], 0) + 1
    findings += _counts(results, cards)
    return findings + [
        note(
            RESULTS, "claims", f"the standings of {count} claims were not decided again: the bundle has no card", model
        )
        for model, count in alone.items()
    ]


def _measured(record: Record, stored: Mapping[str, Any], name: str) -> list[Finding]:
    """A claim's figure is one of the record's statistics; what could not be taken reproduces nothing."""
    statistics = record["data"].get("statistics")
    if not record["broken"] and not isinstance(statistics, dict):
        return [wrong(RESULTS, "measured", f"data.statistics has no {stored['statistic']!r}", name)]
    if record["broken"] or stored["statistic"] not in statistics:  # as in claims.evaluate: it could not be taken
        found: dict[str, Any] = {"measured": None, "standing": Standing.NOT_REPRODUCED.value}
    else:
        found = {"measured": statistics[stored["statistic"]]}
    return [
        contradiction(RESULTS, field, stored[field], value, name)
        for field, value in found.items()
        if stored[field] != value
    ]


def _standing(
    results: Mapping[str, Any], record: Record, stored: Mapping[str, Any], claim: Claim, name: str
) -> list[Finding]:
    try:
        standing = evaluate(claim, measurement_of(record), facts_of(results, record)).standing.value
    except (MetricError, KeyError, TypeError, ValueError, OverflowError) as error:
        return [wrong(RESULTS, "standing", f"cannot be decided again: {type(error).__name__}: {error}", name)]
    return (
        [contradiction(RESULTS, "standing", stored["standing"], standing, name)]
        if standing != stored["standing"]
        else []
    )


def facts_of(results: Mapping[str, Any], record: Record) -> dict[str, str]:
    """The facts that a claim's or a waiver's conditions were compared with."""
    facts = {key: value for key, value in results["facts"].items() if isinstance(value, str)}
    if record["precision"]:
        facts |= {"precision": record["precision"], "reference": record["reference"]}
    return facts | {"model": record["model"]}


def _counts(results: Mapping[str, Any], cards: Mapping[str, Card]) -> list[Finding]:
    models = results["models"]
    whole = all(model in cards for model in models)
    _, counts = claims_line([cards[model] for model in models] if whole else [], results["checks"])
    if not whole:
        del counts[_NOT_MEASURED]
    stored = results["claims"]
    names = [name for name in {**counts, **stored} if whole or name != _NOT_MEASURED]
    return [
        contradiction(RESULTS, f"claims.{name}", stored.get(name), counts.get(name))
        for name in names
        if stored.get(name) != counts.get(name)
    ]
