"""The gates of a card.toml: what can be said of them without a measurement."""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Iterator
from typing import Any

from pytest_npuconf.audit.document import QUOTE_LENGTH
from pytest_npuconf.audit.findings import Finding, Level

ID = "gate"
_LEAST_COSINE, _FAULTY_COSINE = 0.9, 0.99
_LEAST_MATCH = 0.5
_LARGEST = {"ppl": 0.5, "rel": 0.5, "error": 0.5, "noise_ratio": 15.0, "delta": 0.5}


def lint_text(data: dict[str, Any], lines: list[str], today: datetime.date) -> Iterator[Finding]:
    """Findings over ``[[waivers]]``, ``[[claims]]`` and ``[gates."CHECK"]``."""
    for index, waiver in enumerate(_tables(data, "waivers")):
        yield from _waiver(waiver, _header(lines, r"\[\[waivers\]\]", index), lines, today)
    for index, claim in enumerate(_tables(data, "claims")):
        yield from _claim(claim, _header(lines, r"\[\[claims\]\]", index), lines)
    gates = data.get("gates", {})
    for name, gate in gates.items() if isinstance(gates, dict) else ():
        if isinstance(gate, dict):
            line = _header(lines, rf"\[gates\.[\"']?{re.escape(name)}[\"']?\]", 0)
            yield from _override(str(name), gate, line, lines)


def _tables(data: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = data.get(name, [])
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _header(lines: list[str], pattern: str, index: int) -> int:
    """The line of the table's header (from 1), the first line where it is written in another way."""
    found = [number for number, line in enumerate(lines, 1) if re.match(rf"\s*{pattern}\s*(?:#.*)?$", line)]
    return found[index] if index < len(found) else 1


def _key(lines: list[str], header: int, key: str) -> int:
    """The line of a key inside the table that begins at ``header``."""
    for number in range(header, min(header + 60, len(lines))):
        if re.match(r"\s*\[", lines[number]):
            break
        if re.match(rf"\s*{re.escape(key)}\s*=", lines[number]):
            return number + 1
    return header


def _finding(lines: list[str], line: int, level: Level, message: str, recomputed: str = "") -> Finding:
    return Finding(
        ID, level, line, lines[line - 1].strip()[:QUOTE_LENGTH] if line <= len(lines) else "", message, recomputed
    )


def _waiver(waiver: dict[str, Any], header: int, lines: list[str], today: datetime.date) -> Iterator[Finding]:
    name = str(waiver.get("check", "?"))
    for key in ("reason", "link"):
        if not str(waiver.get(key, "")).strip():
            yield _finding(lines, _key(lines, header, key), Level.UNSUPPORTED, f"the waiver of {name} has no {key}")
    expires = waiver.get("expires")
    if not isinstance(expires, datetime.date):
        yield _finding(lines, header, Level.UNSUPPORTED, f"the waiver of {name} never lapses: it has no date `expires`")
    elif (expires.date() if isinstance(expires, datetime.datetime) else expires) < today:
        yield _finding(
            lines,
            _key(lines, header, "expires"),
            Level.IMPLAUSIBLE,
            f"the waiver of {name} lapsed on {expires}",
            f"today is {today}",
        )
    if not waiver.get("conditions"):
        yield _finding(
            lines, header, Level.AMBIGUOUS, f"the waiver of {name} has no conditions: it covers every device and engine"
        )


def _claim(claim: dict[str, Any], header: int, lines: list[str]) -> Iterator[Finding]:
    name, required = str(claim.get("id", "?")), claim.get("role") == "required"
    gate = claim.get("gate")
    if isinstance(gate, dict) and isinstance(gate.get("bound"), (int, float)):
        line = _key(lines, header, "gate")
        quoted = "" if required else str(claim.get("reason", "")).strip()
        statistic = f"{name} {claim.get('statistic', '')}"
        for found in _bound(statistic, str(gate.get("op", "")), float(gate["bound"]), line, lines):
            yield _quotation(found, quoted) if quoted else found
        if gate.get("op") == "+-" and required and claim.get("better") in ("higher", "lower"):
            yield _finding(
                lines, line, Level.AMBIGUOUS, f"{name}: a two-sided gate fails a figure that is better by as much"
            )
    value, tolerance = claim.get("value"), claim.get("tolerance")
    if (
        isinstance(tolerance, (int, float))
        and isinstance(value, (int, float))
        and not isinstance(value, bool)
        and value
        and abs(tolerance) >= abs(value)
    ):
        message = f"{name}: a tolerance of {tolerance:g} on {value:g} lets a figure of zero pass"
        ratio = f"{tolerance:g} / {abs(value):g} = {tolerance / abs(value):.2g}"
        yield _finding(lines, _key(lines, header, "tolerance"), Level.IMPLAUSIBLE, message, ratio)
    if required and not str(claim.get("reason", "")).strip():
        yield _finding(lines, header, Level.UNSUPPORTED, f"{name} decides conformance and gives no reason")


def _quotation(found: Finding, reason: str) -> Finding:
    """A documented gate that does not decide, with the reason for that, is a quotation: listed, and no fault of the card."""
    message = f"{found.message}; quoted, it decides nothing: {reason}"
    return dataclasses.replace(found, level=Level.FINE, message=message)


def _override(name: str, gate: dict[str, Any], header: int, lines: list[str]) -> Iterator[Finding]:
    if not str(gate.get("reason", "")).strip():
        yield _finding(lines, header, Level.UNSUPPORTED, f"the bound of {name} gives no reason")
    bound = gate.get("bound")
    if isinstance(bound, (int, float)) and not isinstance(bound, bool):
        op = ">" if re.search(r"cosine|match|top\d|accuracy", name) else "<"
        yield from _bound(name, op, float(bound), _key(lines, header, "bound"), lines)


def _bound(name: str, op: str, bound: float, line: int, lines: list[str]) -> Iterator[Finding]:
    """A bound that no figure of this kind can miss."""
    if "cosine" in name and op.startswith(">"):
        if bound <= _LEAST_COSINE:
            yield _finding(lines, line, Level.IMPLAUSIBLE, f"{name.strip()}: a cosine above {bound:g} cannot fail")
        elif bound <= _FAULTY_COSINE:
            yield _finding(
                lines,
                line,
                Level.AMBIGUOUS,
                f"{name.strip()}: a cosine above {bound:g} passes known faults (0.992 to 0.9996 were measured)",
            )
        return
    if re.search(r"match|top\d|accuracy", name) and op.startswith(">") and bound <= _LEAST_MATCH:
        yield _finding(lines, line, Level.IMPLAUSIBLE, f"{name.strip()}: a share of at least {bound:g} cannot fail")
        return
    for kind, largest in _LARGEST.items():
        if kind in name and not op.startswith(">") and bound >= largest:
            yield _finding(
                lines,
                line,
                Level.IMPLAUSIBLE,
                f"{name.strip()}: {bound:g} is far beyond any rounding: the gate cannot fail",
                f"{bound:g} >= {largest:g}",
            )
            return
