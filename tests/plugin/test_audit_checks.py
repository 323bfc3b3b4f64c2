"""Whole runs over a card that names a document, or whose own gates are unsound."""

from __future__ import annotations

import json

import jsonschema
import pytest

from pytest_npuconf.report.results import schema
from tests.unit.test_measurements_audits import BAD, GOOD

AUDIT = ("--model", "card.toml", "--npuconf-precision", "float32", "npuconf/audit")
NAMED = '[audit]\ndocuments = ["README.md"]\n'
REQUIRED = '[required]\ntransformers = ["audit.document"]\n'
BOUND = '[gates."logits.cosine.fp32_fp32"]\nbound = {}\nreason = "ours"\n'


@pytest.fixture
def document(pytester):
    def write(text):
        (pytester.path / "README.md").write_text(text, encoding="utf-8")

    return write


def test_a_good_document_passes_and_a_hint_does_not_count(run, pytester, document):
    document(GOOD + "\nThe gate is a cosine similarity > 0.5.\n")
    result = run(*AUDIT, "-v", "--npuconf-results", "r.json", "--npuconf-strict-claims", more=NAMED)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*pass *audit.document *0 (n = 1 documents)  gate <= 0 *claim", "SUBSET: 0 of *"])
    data = json.loads((pytester.path / "r.json").read_text(encoding="utf-8"))
    jsonschema.validate(data, schema(), cls=jsonschema.Draft202012Validator)
    (record,) = data["checks"]
    assert record["data"]["statistics"]["implausible"] == 1
    assert [f["rule"] for f in record["data"]["findings"] if f["level"] == "implausible"] == ["gate"]


def test_a_contradiction_is_quoted_and_decides_nothing_by_itself(run, document):
    document(BAD)
    result = run(*AUDIT, more=NAMED)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        [
            "*fail *audit.document *1 (n = 1 documents) *claim",
            " * README.md:7: *; the line: | mean | 0.90% |",
            "SUBSET: *",
        ]
    )


@pytest.mark.parametrize("more", [("--npuconf-strict-claims",), ()], ids=["strict claims", "required"])
def test_a_contradiction_fails_where_it_is_asked_to(run, document, more):
    document(BAD)
    result = run(*AUDIT, *more, more=NAMED + ("" if more else REQUIRED))
    assert result.ret == 1
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "FAIL audit.document: document.contradictions = 1 (1 document), gate <= 0",
            "  worst: README.md:7: * | mean | 0.90% |)",
        ]
    )
    result.stdout.fnmatch_lines(
        ["INCOMPLETE: *1 test failed outside its gate*" if more else "NOT CONFORMANT: *failed: audit.document"]
    )


def test_a_document_contradicts_the_checkpoint(run, document):
    table = "# m\n\n| key | value |\n|---|---|\n| hidden_size | {} |\n| num_hidden_layers | 4 |\n"
    document(table.format(64))
    run(*AUDIT, "--npuconf-strict-claims", more=NAMED).assert_outcomes(passed=1)
    document(table.format(80))
    run(*AUDIT, "--npuconf-strict-claims", more=NAMED).assert_outcomes(failed=1)


def test_a_missing_document_is_refused_at_start_with_its_line(run):
    result = run(*AUDIT, more=NAMED)
    assert result.ret == 4
    result.stderr.fnmatch_lines(
        ["ERROR: *card.toml:*: audit.documents names 'README.md', which is no file: */README.md"]
    )


@pytest.mark.parametrize(("bound", "code"), [(0.5, 1), (0.9999, 0)])
def test_a_bound_that_cannot_fail_is_not_conformant(run, bound, code):
    result = run(*AUDIT, more=BOUND.format(bound))
    result.assert_outcomes(failed=code, passed=1 - code)
    if code:
        result.stdout.fnmatch_lines(
            ["FAIL audit.gates: gates.unsound = 1 (1 *), gate <= 0", "  worst: card.toml:*: *cannot fail; the line: bound = 0.5)",
             "NOT CONFORMANT: *failed: audit.gates*"]
        )  # fmt: skip


def test_neither_check_can_be_waived(run, document):
    document(BAD)
    waiver = '[[waivers]]\ncheck = "{}"\nreason = "r"\nlink = "l"\nexpires = 2999-01-01\n'
    for check in ("audit.document", "audit.gates"):
        result = run(*AUDIT, more=NAMED + waiver.format(check))
        assert result.ret == 4
        result.stderr.fnmatch_lines([f"ERROR: *waivers names {check}, which is exact*"])
