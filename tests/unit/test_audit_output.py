"""The four forms of a report."""

import json
import xml.etree.ElementTree as ElementTree

import pytest

from pytest_npuconf.audit import output
from pytest_npuconf.audit.engine import Audit
from pytest_npuconf.audit.findings import Finding, Level
from pytest_npuconf.audit.rules import RULES
from pytest_npuconf.audit.text import parse_card

EVIL = "100% of it:\x1b[31m red\u202e, ::error::x <b>&\ud800\x00 ]]>"


@pytest.fixture
def audit():
    card = parse_card("# T\n\n| 平均 | 1.5% |\n" + EVIL, "docs/a,b: README.md")
    findings = (
        Finding(
            "aggregate", Level.CONTRADICTION, 3, card.quote(3), "1.5% is not the mean, 1.2%", "(1 + 1.4) / 2 = 1.2"
        ),
        Finding("gate", Level.UNSUPPORTED, 4, card.quote(4), f"first\nsecond {EVIL}"),
        Finding("gate", Level.AMBIGUOUS, 4, "q", "unclear"),
        Finding("units", Level.FINE, 1, "q", "agrees", "1 = 1"),
    )
    return Audit(card, findings, ("the rule x failed: KeyError: 'y'",))


def test_text_says_level_rule_line_quote_and_what_was_recomputed(audit):
    lines = output.as_text([audit], Level.FINE).splitlines()
    start = lines.index("  contradiction  aggregate  line 3")
    assert lines[start + 1 : start + 4] == [
        "    > | 平均 | 1.5% |",
        "    1.5% is not the mean, 1.2%",
        "    recomputed: (1 + 1.4) / 2 = 1.2",
    ]
    assert lines[0] == "docs/a,b: README.md:"
    assert lines[-1] == "1 contradiction, 0 implausible, 1 unsupported, 1 ambiguous, 1 fine"
    assert "the rule x failed" in lines[1]


def test_text_shows_a_level_and_worse(audit):
    text = output.as_text([audit], Level.UNSUPPORTED)
    assert "unclear" not in text
    assert "agrees" not in text
    assert text.endswith("1 ambiguous, 1 fine")  # counted all the same


def test_a_card_cannot_steer_the_terminal(audit):
    text = output.as_text([audit], Level.FINE)
    assert not set(text) & set("\x00\x1b\u202e\ud800")
    assert "\\u001b[31m red\\u202e" in text


def test_json_holds_everything(audit):
    whole = json.loads(output.as_json([audit], Level.FINE))
    assert whole["schema"] == 1
    (card,) = whole["cards"]
    assert card["file"] == "docs/a,b: README.md"
    assert card["findings"][0] == {
        "rule": "aggregate",
        "level": "contradiction",
        "line": 3,
        "quote": "| 平均 | 1.5% |",
        "message": "1.5% is not the mean, 1.2%",
        "recomputed": "(1 + 1.4) / 2 = 1.2",
    }
    assert (
        whole["counts"]
        == card["counts"]
        == {"contradiction": 1, "implausible": 0, "unsupported": 1, "ambiguous": 1, "fine": 1}
    )
    assert card["broken"]


def test_github_annotations_are_one_line_each_and_escaped(audit):
    lines = output.as_github([audit], Level.AMBIGUOUS).splitlines()
    assert lines[1] == (
        "::error file=docs/a%2Cb%3A README.md,line=3,title=contradiction%3A aggregate"
        "::1.5%25 is not the mean, 1.2%25%0Arecomputed: (1 + 1.4) / 2 = 1.2"
    )
    assert [line.split(" ")[0] for line in lines[:-1]] == ["::error", "::error", "::warning", "::notice"]
    assert "%0Asecond 100%25 of it:" in lines[2]
    assert lines[-1].startswith("1 contradiction")


def test_junit_has_a_case_for_each_rule_and_file(audit):
    text = output.as_junit([audit, audit], Level.FINE)
    root = ElementTree.fromstring(text.encode("utf-8"))
    first, second = root.findall("testsuite")
    cases = {case.get("name"): case for case in first.findall("testcase")}
    assert set(cases) == {f"{rule}[docs/a,b: README.md]" for rule in [*RULES, "rules"]}
    assert (first.get("tests"), first.get("failures"), first.get("errors")) == (str(len(RULES) + 1), "2", "1")
    assert {case.get("classname") for case in cases.values()} == {"npuconf.audit"}
    failure = cases["aggregate[docs/a,b: README.md]"].find("failure")
    assert failure.get("type") == "contradiction"
    assert "recomputed: (1 + 1.4) / 2 = 1.2" in failure.text
    assert cases["units[docs/a,b: README.md]"].find("failure") is None
    assert "agrees" in cases["units[docs/a,b: README.md]"].find("system-out").text
    assert second.get("tests") == first.get("tests")
    names = [case.get("name") for case in root.iter("testcase")]
    assert len(set(names)) == len(names)


def test_junit_fails_from_the_level_asked_for(audit):
    root = ElementTree.fromstring(output.as_junit([audit], Level.FINE, Level.CONTRADICTION))
    assert len(root.findall(".//failure")) == 1
    assert "second" in "".join(out.text for out in root.iter("system-out"))


def test_nothing_found():
    assert output.summary([]) == "0 contradictions, 0 implausible, 0 unsupported, 0 ambiguous, 0 fine"
    assert ElementTree.fromstring(output.as_junit([], Level.FINE)).tag == "testsuites"


def test_levels_are_ordered():
    assert [level.rank for level in Level] == [4, 3, 2, 1, 0]
    assert str(Level.FINE) == "fine"
