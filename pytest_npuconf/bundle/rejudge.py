"""The stored measurements of results.json, judged again by the stored gates. No model and no device is needed. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pytest_npuconf.bundle.findings import Finding, contradiction, wrong
from pytest_npuconf.bundle.results_file import RESULTS
from pytest_npuconf.errors import MetricError
from pytest_npuconf.gates import Gate, Measurement, Outcome, Role, Row, Sense
from pytest_npuconf.records import Record

OWN = "own: "  # how the check of somebody's own test is called
_OF_A_GATE = ("sense", "bound", "reason", "source")


def called(number: int, record: Record) -> str:
    """What a finding calls a record."""
    return f"checks[{number}] {record['check']} of {record['model'] or 'no model'}"


def measurement_of(record: Record) -> Measurement:
    """The measurement that a record is of; an end of an interval that JSON could not say is without bound.

    Raises:
        MetricError: no measurement could be this one: the value outside its interval, no sample, no value.
    """
    ends = record["interval"]
    return Measurement(
        record["metric"],
        math.nan if record["value"] is None else record["value"],
        record["unit"],
        record["n"],
        record["of"],
        None if ends is None else (_end(ends[0], -math.inf), _end(ends[1], math.inf)),
        tuple(Row(row["place"], math.nan if row["value"] is None else row["value"]) for row in record["rows"]),
        record["data"],
        record["broken"],
    )


def rejudge(results: Mapping[str, Any]) -> tuple[list[Finding], list[Record]]:
    """Every record's verdict, margin and bound that would have passed, and that its fields belong together.

    Returns:
        What is wrong, and the records with the verdicts that they should have.
    """
    findings: list[Finding] = []
    records: list[Record] = []
    for number, record in enumerate(results["checks"]):
        name = called(number, record)
        wrongly, verdict = _judged(record, name)
        findings += [*wrongly, *_belongs(record, name, results)]
        records.append({**record, "verdict": verdict})
    return findings, records


def _judged(record: Record, name: str) -> tuple[list[Finding], str | None]:
    """What is wrong with a record's judgement, and its verdict: the stored one where it cannot be judged."""
    stored: str | None = record["verdict"]
    try:
        measurement = measurement_of(record)
        if stored is None:
            return _reports_only(record, name), None
        absent = [field for field in _OF_A_GATE if record[field] is None]
        if absent:
            return [wrong(RESULTS, absent[0], f"is null, but the verdict is {stored}", name)], stored
        gate = Gate(record["check"], record["bound"], Sense(record["sense"]), Role(record["role"]))
        verdict = gate.judge(measurement)
    except (MetricError, OverflowError) as error:
        return [wrong(RESULTS, "value", f"cannot be judged: {getattr(error, 'what', error)}", name)], stored
    found = {
        "verdict": verdict.outcome.value,
        "margin": _finite(verdict.margin),
        "would_pass": _finite(verdict.would_pass),
    }
    return _differing(record, found, name), verdict.outcome.value


def _reports_only(record: Record, name: str) -> list[Finding]:
    """A record without a verdict has no gate, and decides nothing."""
    stated = [field for field in (*_OF_A_GATE, "margin", "would_pass") if record[field] is not None]
    findings = [wrong(RESULTS, field, "is stated, but there is no verdict", name) for field in stated]
    if record["role"] != Role.CLAIM.value:
        findings.append(wrong(RESULTS, "role", f"is {record['role']}, but there is no verdict", name))
    return findings


def _belongs(record: Record, name: str, results: Mapping[str, Any]) -> list[Finding]:
    """What a record says of its run, against what the run says of itself."""
    facts, models = results["facts"], results["models"]
    found: dict[str, Any] = {
        "worst": record["rows"][0] if record["rows"] else None,
        "device": facts.get("device", ""),
        "engine": facts.get("engine", ""),
    }
    if record["waived"] and record["verdict"] not in (Outcome.FAIL.value, Outcome.INCONCLUSIVE.value):
        found["waived"] = ""
    model = models.get(record["model"])
    if model is not None:
        found["labels"] = model["labels"]
        if record["verdict"] is not None and not record["check"].startswith(OWN):
            decides = record["check"] in model["required"]
            found["role"] = (Role.REQUIRED if decides else Role.CLAIM).value
    findings = _differing(record, found, name)
    if model is None and models and not record["check"].startswith(OWN):
        findings.append(wrong(RESULTS, "model", f"{record['model']!r} is not among the models that were judged", name))
    if model is not None and record["precision"] not in ("", *model["precisions"]):
        findings.append(wrong(RESULTS, "precision", f"{record['precision']!r} is none of the model's", name))
    return findings


def _differing(record: Record, found: Mapping[str, Any], name: str) -> list[Finding]:
    return [
        contradiction(RESULTS, field, record[field], value, name)
        for field, value in found.items()
        if record[field] != value
    ]


def _end(end: float | None, unbounded: float) -> float:
    return unbounded if end is None else end


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
