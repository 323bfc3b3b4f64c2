"""Each model's closing line, decided again from the records. Pure.

results.json does not say which checks the run had selected, which tests ended in an error, nor whether it was interrupted,
but as words of the line. So these are read from the line, and the line must be the one that they give.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytest_npuconf.bundle.findings import Finding, contradiction, note, wrong
from pytest_npuconf.bundle.results_file import RESULTS
from pytest_npuconf.conformance import Closing, Status, close
from pytest_npuconf.records import Record

INTERRUPTED = 2  # pytest's exit status
_MOST = 100_000  # tests that ended in an error: more than any run has
_SUBSET = re.compile(r" \(SUBSET: (\d{1,9}) of \d{1,9} required checks\)$")
_LISTED = re.compile(r"CARD REQUIRES (\d{1,9}) OF \d{1,9}$")
_SUBSET_LINE = re.compile(r"SUBSET: (\d{1,9}) of \d{1,9} required checks: ")
_ERRORS = re.compile(r"(?:^|; )(\d{1,9}) tests? failed outside (?:its gate|their gates): (.+)$")
_UNRUN = re.compile(r"(?:^|; )\d{1,9} required checks? did not run: ([^;]+)")


@dataclass(frozen=True)
class Conditions:
    """What a closing needs beside the records."""

    selected: tuple[str, ...]
    errors: tuple[str, ...]
    interrupted: bool


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
    told = conditions_of(entry, {record["check"] for record in records if record["verdict"] is not None}, measured_on)
    interrupted = told.interrupted or results["exit_status"] == INTERRUPTED
    closing = close(
        model, required, told.selected, records, where=measured_on, interrupted=interrupted, errors=told.errors
    )
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


def conditions_of(entry: Mapping[str, Any], found: set[str], measured_on: str) -> Conditions:
    """What the line says of the run beside its records.

    Args:
        found: checks with a verdict; measured_on: see :func:`where`.
    """
    line, status = entry["line"], entry["status"]
    narrowed = _SUBSET.search(line) or _SUBSET_LINE.match(line)
    detail = _SUBSET.sub("", line).removeprefix(f"{status}: {measured_on}: ")
    incomplete = status == Status.INCOMPLETE.value
    return Conditions(
        _selected(entry["required"], found, int(narrowed.group(1)), detail if incomplete else "")
        if narrowed
        else tuple(entry["required"]),
        _errors(detail) if incomplete else (),
        incomplete and re.match("interrupted(;|$)", detail) is not None,
    )


def _selected(required: list[str], found: set[str], count: int, detail: str) -> tuple[str, ...]:
    """``count`` of the required checks: those that have a verdict, those that the line says did not run, and after these as
    many of the missing as are still wanted (a line names three at most)."""
    unrun = _UNRUN.search(detail)
    named = [name for name in unrun.group(1).split(", ") if name != "..."] if unrun else []
    has = [check for check in required if check in found]
    missing = [check for check in required if check not in found]
    last = max((missing.index(name) for name in named if name in missing), default=-1)
    chosen = [name for name in named if name in missing] + missing[last + 1 :]
    return (*has, *chosen[: max(0, count - len(has))])


def _errors(detail: str) -> tuple[str, ...]:
    """Names of as many tests as the line counts, such that the line comes out again: it shows three at most."""
    match = _ERRORS.search(detail)
    if match is None or not 0 < int(match.group(1)) <= _MOST:
        return ()
    count, shown = int(match.group(1)), match.group(2)
    names = shown.removesuffix(", ...").split(", ", min(count, 3) - 1) if count > 1 else [shown]
    return (*names, *("..." for _ in range(count - len(names))))


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
