"""Every written host, and what the doctor says of it: the rule, the level, the words and the line that mends it."""

from __future__ import annotations

import json

import pytest

from pytest_npuconf.doctor import output
from pytest_npuconf.doctor.case import Diagnosis, diagnose
from pytest_npuconf.doctor.findings import Level
from pytest_npuconf.doctor.rules import RULES
from tests import situations


def diagnosis(name: str) -> Diagnosis:
    data = situations.load(name)
    return diagnose(situations.host_of(data), situations.asked_of(data))


@pytest.mark.parametrize("name", situations.names())
def test_the_findings_are_the_expected_ones(name):
    expected = situations.load(name)["finding"]
    found = [{"rule": f.rule, "level": f.level.value, "what": f.what, "mend": f.mend} for f in diagnosis(name).findings]
    assert found == expected


@pytest.mark.parametrize("name", ["healthy-a2", "healthy-a3", "cpu", "bit-equal-given"])
def test_a_healthy_host_has_no_finding(name):
    found = diagnosis(name)
    assert found.healthy
    assert found.findings == ()
    assert output.as_text(found).splitlines()[-1].startswith("nothing wrong")


def test_enough_situations_and_each_rule_in_one():
    names = situations.names()
    assert len(names) >= 10
    caught = {finding.rule for name in names for finding in diagnosis(name).findings}
    assert caught == {rule.id for rule in RULES}


@pytest.mark.parametrize("name", situations.names())
def test_every_finding_says_where_and_mends(name):
    for finding in diagnosis(name).findings:
        assert finding.where
        assert finding.mend
        assert finding.rule in {rule.id for rule in RULES}


@pytest.mark.parametrize("name", situations.names())
def test_text_and_json_tell_the_same(name):
    found = diagnosis(name)
    data, text = json.loads(output.as_json(found)), output.as_text(found)
    assert data["healthy"] is found.healthy is all(f["level"] != "problem" for f in data["findings"])
    assert data["fingerprint"] == found.fingerprint.to_json()
    levels = [finding.level for finding in found.findings]
    assert levels == sorted(levels, key=list(Level).index)
    assert all(finding["mend"] in text for finding in data["findings"])
    assert data["digest"] in text


def test_the_page_has_every_rule_with_its_mend():
    page = (situations.DATA.parents[1] / "docs" / "doctor.md").read_text(encoding="utf-8")
    for rule in RULES:
        row = next(line for line in page.splitlines() if line.startswith(f"| `{rule.id}` |"))
        assert rule.title in row
    for level in Level:
        assert f"`{level.value}`" in page
