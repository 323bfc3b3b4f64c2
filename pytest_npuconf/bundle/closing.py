"""Each model's closing line, decided again from the records and what the run says it had selected. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pytest_npuconf.bundle.findings import Finding, contradiction, note, wrong
from pytest_npuconf.bundle.results_file import RESULTS
from pytest_npuconf.conformance import Closing, Status, close
from pytest_npuconf.records import Record

INTERRUPTED = 2  # pytest's exit status
_LISTED = re.compile(r"CARD REQUIRES (\d{1,9}) OF \d{1,9}$")


def recheck_closings(results: Mapping[str, Any]) -> list[Finding]:
    """Status, line and lists of every model, and the run's exit status."""
    by_model: dict[str, list[Record]] = {model: [] for model in results["models"]}
    for record in results["checks"]:
        by_model.get(record["model"], []).append(record)
    findings = []
    for model, records in by_model.items():
        findings += _recheck(model, results["models"][model], records, results)
    return findings + _exit_status(results)


def where(model: str, entry: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """What the model was measured on, as the line says it."""
    text = f"{model} on {facts.get('device', '')}, {'+'.join(entry['precisions'])}, {facts.get('engine', '')}"
    return text + (f" [{', '.join(entry['labels'])}]" if entry["labels"] else "")


def _recheck(model: str, entry: Mapping[str, Any], records: list[Record], results: Mapping[str, Any]) -> list[Finding]:
    required, facts = entry["required"], results["facts"]
    if not required:
        return [wrong(RESULTS, "required", "is empty: nothing could be conformant", f"models.{model}")]
    findings = _labels(model, entry, facts)
    counted = [int(match.group(1)) for label in entry["labels"] if (match := _LISTED.match(label))]
    findings += [
        contradiction(RESULTS, "labels", n, len(required), f"models.{model}") for n in counted if n != len(required)
    ]
    if len(set(required)) != len(required):
        findings.append(wrong(RESULTS, "required", "names a check twice", f"models.{model}"))
    measured_on = where(model, entry, facts)
    if results["exit_status"] == INTERRUPTED and not entry["interrupted"]:
        findings.append(
            wrong(RESULTS, "interrupted", "is false, but the exit status is that of Ctrl-C", f"models.{model}")
        )
    closing = close(
        model, required, entry["selected"], records, where=measured_on, interrupted=entry["interrupted"],
        errors=entry["errors"],
    )  # fmt: skip
    return findings + _differing(entry, closing)


def _differing(entry: Mapping[str, Any], closing: Closing) -> list[Finding]:
    found = {
        "status": closing.status.value,
        "line": closing.line,
        "missing": list(closing.missing),
        "failed": list(closing.failed),
        "inconclusive": list(closing.inconclusive),
        "waived": list(closing.waived),
    }
    return [
        contradiction(RESULTS, field, entry[field], value, f"models.{closing.model}")
        for field, value in found.items()
        if entry[field] != value
    ]


def _labels(model: str, entry: Mapping[str, Any], facts: Mapping[str, Any]) -> list[Finding]:
    """A number that was not measured on an NPU says so, and so does one of a model that was broken on purpose."""
    kind, fault, labels = str(facts.get("device", "")).upper(), facts.get("fault", ""), entry["labels"]
    findings = []
    if kind not in ("", "NPU", *labels) and "SIMULATED" not in labels:
        findings.append(wrong(RESULTS, "labels", f"lacks {kind}, the device of the run", f"models.{model}"))
    if fault and not {f"FAULT {fault}", f"VARIANT {fault}"} & set(labels):
        findings.append(wrong(RESULTS, "labels", f"lacks FAULT {fault}, which the run had", f"models.{model}"))
    if not fault and any(label.startswith(("FAULT ", "VARIANT ")) for label in labels):
        findings.append(contradiction(RESULTS, "facts.fault", fault, "the fault of the labels", f"models.{model}"))
    return findings


def _exit_status(results: Mapping[str, Any]) -> list[Finding]:
    """0 needs every model to be conformant; a conformant model may stand in a run of which something else failed."""
    statuses = {model: entry["status"] for model, entry in results["models"].items()}
    conformant = all(status == Status.CONFORMANT.value for status in statuses.values())
    status = results["exit_status"]
    if not statuses:
        return [note(RESULTS, "models", "no model was judged by a suite: this run says nothing about conformance")]
    if status == 0 and not conformant:
        bad = next(model for model, each in statuses.items() if each != Status.CONFORMANT.value)
        return [wrong(RESULTS, "exit_status", f"is 0, but the closing is {statuses[bad]}", f"models.{bad}")]
    if status != 0 and conformant:
        return [note(RESULTS, "exit_status", f"is {status}, though every model is CONFORMANT: another test failed")]
    return []
