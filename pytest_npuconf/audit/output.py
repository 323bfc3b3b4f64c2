"""Findings as text, JSON, GitHub annotations or JUnit XML."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pytest_npuconf.audit.engine import Audit
from pytest_npuconf.audit.findings import Finding, Level
from pytest_npuconf.audit.rules import RULES

SCHEMA = 1
_PLURALS = {Level.CONTRADICTION: "contradictions"}
_COMMANDS = {
    Level.CONTRADICTION: "error",
    Level.IMPLAUSIBLE: "error",
    Level.UNSUPPORTED: "warning",
    Level.AMBIGUOUS: "notice",
    Level.FINE: "notice",
}
# Control characters and marks of direction: a card must not steer the terminal that shows it.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069\ufeff\u2028\u2029]")
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def safe(text: str) -> str:
    """``text`` with control characters and marks of direction written out."""
    return _UNSAFE.sub(lambda match: f"\\u{ord(match.group()):04x}", text.encode("utf-8", "replace").decode("utf-8"))


def as_text(audits: Sequence[Audit], shown: Level) -> str:
    """For reading: each finding with its line, what was recomputed and how; the last line counts by level."""
    lines: list[str] = []
    for audit in audits:
        lines.append(f"{safe(audit.card.path)}:")
        lines.extend(f"  note: {safe(note)}" for note in (*audit.card.notes, *audit.broken))
        for finding in _shown(audit, shown):
            lines.append(f"  {finding.level.value}  {finding.rule}  line {finding.line}")
            lines.append(f"    > {safe(finding.quote)}")
            lines.append(f"    {_indented(finding.message)}")
            if finding.recomputed:
                lines.append(f"    recomputed: {_indented(finding.recomputed)}")
        lines.append("")
    lines.append(summary(audits))
    return "\n".join(lines)


def summary(audits: Sequence[Audit]) -> str:
    """``3 contradictions, 0 implausible, 2 unsupported, 1 ambiguous, 14 fine``."""
    totals = _totals(audits)
    return ", ".join(
        f"{count} {level.value if count == 1 else _PLURALS.get(level, level.value)}" for level, count in totals.items()
    )


def as_json(audits: Sequence[Audit], shown: Level) -> str:
    """For programs. ``schema`` changes when a key changes its meaning or goes away."""
    cards = [
        {
            "file": audit.card.path,
            "notes": list(audit.card.notes),
            "broken": list(audit.broken),
            "findings": [_entry(finding) for finding in _shown(audit, shown)],
            "counts": {level.value: count for level, count in audit.counts().items()},
        }
        for audit in audits
    ]
    total = {level.value: count for level, count in _totals(audits).items()}
    whole = {"schema": SCHEMA, "cards": cards, "counts": total}
    return json.dumps(whole, ensure_ascii=False, indent=2).encode("utf-8", "replace").decode("utf-8")


def as_github(audits: Sequence[Audit], shown: Level) -> str:
    """Workflow commands: GitHub shows them at the lines of a pull request."""
    lines = []
    for audit in audits:
        for note in audit.broken:
            lines.append(f"::error file={_property(audit.card.path)},line=1,title=npuconf audit::{_data(note)}")
        for finding in _shown(audit, shown):
            place = f"file={_property(audit.card.path)},line={max(finding.line, 1)}"
            title = _property(f"{finding.level.value}: {finding.rule}")
            message = finding.message + (f"\nrecomputed: {finding.recomputed}" if finding.recomputed else "")
            lines.append(f"::{_COMMANDS[finding.level]} {place},title={title}::{_data(safe_lines(message))}")
    lines.append(summary(audits))
    return "\n".join(lines)


def as_junit(audits: Sequence[Audit], shown: Level, fail_on: Level = Level.UNSUPPORTED) -> str:
    """JUnit XML: a suite for each card, a test case for each rule; findings from ``fail_on`` upwards are failures."""
    root = ElementTree.Element("testsuites", name="npuconf audit")
    seen: Counter[str] = Counter()
    for audit in audits:
        seen[audit.card.path] += 1
        number = seen[audit.card.path]
        where = audit.card.path if number == 1 else f"{audit.card.path}#{number}"  # another card of the same file
        suite = ElementTree.SubElement(root, "testsuite", name=_xml(f"npuconf.audit {where}"))
        failures = 0
        for rule in (rule for rule in RULES.values() if not audit.only or rule.id in audit.only):
            case = ElementTree.SubElement(
                suite, "testcase", classname="npuconf.audit", file=_xml(audit.card.path), time="0"
            )
            case.set("name", _xml(f"{rule.id}[{where}]"))
            found = [finding for finding in audit.findings if finding.rule == rule.id]
            bad = [finding for finding in found if finding.level.rank >= fail_on.rank]
            others = [f for f in found if f not in bad and f.level.rank >= shown.rank]
            if bad:
                failures += 1
                case.set("line", str(bad[0].line))
                failure = ElementTree.SubElement(case, "failure", type=bad[0].level.value, message=_xml(bad[0].message))
                failure.text = _xml("\n\n".join(_paragraph(finding) for finding in bad))
            if others:
                ElementTree.SubElement(case, "system-out").text = _xml("\n\n".join(_paragraph(f) for f in others))
        for note in audit.broken:
            case = ElementTree.SubElement(suite, "testcase", classname="npuconf.audit", name=_xml(f"rules[{where}]"))
            ElementTree.SubElement(case, "error", message=_xml(note))
        suite.set("tests", str(len(suite)))
        suite.set("failures", str(failures))
        suite.set("errors", str(len(audit.broken)))
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode")


FORMATS: dict[str, Callable[[Sequence[Audit], Level], str]] = {
    "text": as_text,
    "json": as_json,
    "github": as_github,
    "junit": as_junit,
}


def _shown(audit: Audit, shown: Level) -> Iterator[Finding]:
    return (finding for finding in audit.findings if finding.level.rank >= shown.rank)


def _totals(audits: Sequence[Audit]) -> dict[Level, int]:
    return {level: sum(audit.counts()[level] for audit in audits) for level in Level}


def _entry(finding: Finding) -> dict[str, Any]:
    return {
        "rule": finding.rule,
        "level": finding.level.value,
        "line": finding.line,
        "quote": finding.quote,
        "message": finding.message,
        "recomputed": finding.recomputed,
    }


def _paragraph(finding: Finding) -> str:
    lines = [f"{finding.level.value}, line {finding.line}: {finding.message}", f"> {safe(finding.quote)}"]
    return "\n".join([*lines, f"recomputed: {finding.recomputed}"] if finding.recomputed else lines)


def _indented(text: str) -> str:
    return "\n    ".join(safe(line) for line in text.splitlines())


def safe_lines(text: str) -> str:
    """``safe`` for each line."""
    return "\n".join(safe(line) for line in text.splitlines())


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(safe(text)).replace(":", "%3A").replace(",", "%2C")


def _xml(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)
