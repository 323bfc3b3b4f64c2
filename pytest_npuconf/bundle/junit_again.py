"""The bundled JUnit file against results.json: one run writes both, so they say the same of every check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

from pytest_npuconf.bundle.findings import Finding, contradiction, wrong
from pytest_npuconf.bundle.rejudge import called
from pytest_npuconf.bundle.results_file import RESULTS
from pytest_npuconf.records import Record, properties

JUNIT = "junit.xml"
_PREFIX, _SESSION = "npuconf.", "npuconf.session."
_NEEDED = ("npuconf.check", "npuconf.model", "npuconf.verdict", "npuconf.value")
_OF_THE_PAIR = ("precision", "reference")  # facts that a test case has of its own
Properties = dict[str, str]


def check_junit(data: bytes, results: Mapping[str, Any]) -> list[Finding]:
    """Verdict, value, bound and the rest of every check, and the facts of the session."""
    try:
        text = data.decode("utf-8")
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise ValueError("it declares entities, which pytest never does")
        groups = _groups(ElementTree.fromstring(text))
    except (ValueError, ElementTree.ParseError) as error:
        return [wrong(JUNIT, "content", f"is not JUnit as pytest writes it: {error}")]
    return _facts(groups, results["facts"]) + _compare(groups, results["checks"])


def _groups(root: ElementTree.Element) -> list[Properties]:
    """The properties of each record: those of one test case, apart where a check's name begins them anew."""
    groups: list[Properties] = []
    for case in root.iter("testcase"):
        first = True
        for each in case.iter("property"):
            name = each.get("name", "")
            if not name.startswith(_PREFIX):
                continue
            if name == _NEEDED[0]:
                groups.append({})
                first = False
            if not first:
                groups[-1][name] = each.get("value", "")
    return groups


def _facts(groups: list[Properties], facts: Mapping[str, Any]) -> list[Finding]:
    """Every session fact once, with the first value that differs."""
    wanted = {f"{_SESSION}{name}": value for name, value in facts.items() if isinstance(value, str)}
    differing: dict[str, str] = {}
    for group in groups:
        for name, value in group.items():
            if (
                name.startswith(_SESSION)
                and name.removeprefix(_SESSION) not in _OF_THE_PAIR
                and wanted.get(name) != value
            ):
                differing.setdefault(name, value)
    return [contradiction(JUNIT, name, value, wanted.get(name)) for name, value in differing.items() if _plain(value)]


def _compare(groups: list[Properties], records: list[Record]) -> list[Finding]:
    """Records and groups of one check, in any order; what is left over is compared in turn."""
    spare = Counter((group.get(_NEEDED[0], ""), group.get(_NEEDED[1], ""), _frozen(group)) for group in groups)
    left: dict[tuple[str, str], list[Properties]] = {}
    unmatched = []
    for number, record in enumerate(records):
        own = dict(properties(record, {}))
        key = (record["check"], record["model"], _frozen(own))
        if spare[key]:
            spare[key] -= 1
        else:
            unmatched.append((number, record, own))
    for (check, model, frozen), count in spare.items():
        left.setdefault((check, model), []).extend(dict(frozen) for _ in range(count))
    findings = []
    for number, record, own in unmatched:
        found = left.get((record["check"], record["model"]))
        if not found:
            findings.append(wrong(JUNIT, "testcase", "no test case has this record", called(number, record)))
            continue
        findings += _differing(own, found.pop(0), called(number, record))
    return findings + [
        wrong(RESULTS, "checks", f"has no record of {check} of {model or 'no model'}, which {JUNIT} has")
        for (check, model), groups_left in left.items()
        for _ in groups_left
    ]


def _differing(own: Properties, stored: Properties, name: str) -> list[Finding]:
    """What a JUnit of another version does not have is not compared, but for verdict and value."""
    return [
        contradiction(JUNIT, field, stored.get(field), own[field], name)
        for field in own
        if (field in stored or field in _NEEDED) and stored.get(field) != own[field] and _plain(own[field])
    ]


def _frozen(group: Properties) -> frozenset[tuple[str, str]]:
    return frozenset((name, value) for name, value in group.items() if not name.startswith(_SESSION))


def _plain(text: str) -> bool:
    """XML has no other control characters, and pytest writes their numbers instead."""
    return all(letter.isprintable() for letter in text)
