"""What an audit found, as figures: only contradictions of a document count, and what was not read is no pass."""

from __future__ import annotations

import datetime
import json
import textwrap
from types import SimpleNamespace

import pytest

from pytest_npuconf.audit.findings import Finding, Level
from pytest_npuconf.audit.own_card import criteria, read_documents, read_gates
from pytest_npuconf.cards import find_card, known_cards, load_card
from pytest_npuconf.checks import CHECKS, gate_for
from pytest_npuconf.gates import MAX_ROWS, Outcome
from pytest_npuconf.measurements import contradictions, unsound_gates
from pytest_npuconf.measurements.audits import Reading

GOOD = "# m\n\n| prompt | error |\n|---|---|\n| a | 0.10% |\n| b | 0.30% |\n| mean | 0.20% |\n"
BAD = GOOD.replace("| mean | 0.20% |", "| mean | 0.90% |")
CHECKPOINT = SimpleNamespace(config={})


def finding(level, line=3):
    return Finding("rule", level, line, "| a | b |", "does not hold", "1 + 1 = 2")


def judged(check, measured, card):
    return gate_for(check, None, card, required=True).judge(measured).outcome


# ---------------------------------------------------------------- figures


@pytest.mark.parametrize("level", Level)
def test_only_a_contradiction_of_a_document_counts_and_all_is_recorded(level):
    measured = contradictions([Reading("README.md", (finding(level),))])
    counts = level is Level.CONTRADICTION
    assert (measured.value, measured.n, len(measured.rows)) == (int(counts), 1, int(counts))
    assert measured.data["statistics"] == {each.value: int(each is level) for each in Level}
    (recorded,) = measured.data["findings"]
    assert (recorded["file"], recorded["level"], recorded["line"]) == ("README.md", level.value, 3)
    json.dumps(measured.data)


@pytest.mark.parametrize("level", Level)
def test_a_gate_counts_from_implausible(level):
    measured = unsound_gates(Reading("card.toml", (finding(level),)), [{"name": "g"}, {"name": "h"}])
    assert (measured.value, measured.n) == (int(level.rank >= Level.IMPLAUSIBLE.rank), 2)
    assert measured.data["criteria"] == [{"name": "g"}, {"name": "h"}]


def test_the_worst_place_quotes_the_line():
    measured = contradictions([Reading("a.md", ()), Reading("b.md", (finding(Level.CONTRADICTION, 7),))])
    assert (measured.worst.place, measured.worst.detail) == ("b.md:7", "rule: does not hold; the line: | a | b |")


def test_more_findings_than_are_shown_are_counted():
    found = tuple(finding(Level.CONTRADICTION, line) for line in range(1, 300))
    measured = contradictions([Reading("a.md", found)])
    assert (measured.value, len(measured.rows), measured.data["rows_total"]) == (299, MAX_ROWS, 299)
    assert (len(measured.data["findings"]), measured.data["findings_total"]) == (100, 299)


def test_what_was_not_read_is_no_pass_and_hides_no_contradiction():
    broken = contradictions([Reading("a.md", (), ("the rule x failed",)), Reading("b.md", (finding(Level.FINE),))])
    assert broken.broken == "a.md: the rule x failed"
    both = contradictions([Reading("a.md", (finding(Level.CONTRADICTION),), ("the rule x failed",))])
    assert (both.value, both.data["not_read"], both.broken) == (1, ["a.md: the rule x failed"], "")


# ---------------------------------------------------------------- reading


def documented(folder, *texts):
    names = [f"{i}.md" for i in range(len(texts))]
    for name, text in zip(names, texts, strict=True):
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    (folder / "card.toml").write_text(f'name = "m"\n[audit]\ndocuments = {json.dumps(names)}\n')
    return load_card(folder / "card.toml")


def test_a_document_that_contradicts_itself_fails_and_its_correction_passes(tmp_path):
    card = documented(tmp_path, GOOD, BAD)
    good, bad = read_documents(card, CHECKPOINT)
    assert judged("audit.document", contradictions([good]), card) is Outcome.PASS
    measured = contradictions([good, bad])
    assert judged("audit.document", measured, card) is Outcome.FAIL
    assert measured.worst.place == "1.md:7"
    assert "the line: | mean | 0.90% |" in measured.worst.detail


def test_a_document_is_held_against_the_checkpoints_config(tmp_path):
    card = documented(tmp_path, "# m\n\n| parameters | 9,000,000 |\n|---|---|\n| hidden_size | 192 |\n")
    config = find_card("tiny-qwen3").config
    assert contradictions(read_documents(card, CHECKPOINT)).value == 0
    assert contradictions(read_documents(card, SimpleNamespace(config={**config, "hidden_size": 256}))).value == 1


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n\x00\x00", b"a" * 5_000_000], ids=["binary", "too long"])
def test_a_document_that_cannot_be_read_is_no_pass(tmp_path, content):
    card = documented(tmp_path, content)
    measured = contradictions(read_documents(card, CHECKPOINT))
    assert "0.md" in measured.broken
    assert judged("audit.document", measured, card) is Outcome.FAIL


def test_a_document_does_not_steer_the_terminal(tmp_path):
    card = documented(tmp_path, BAD.replace("| mean |", "| mean \x1b[2J\u202e|"))
    text = json.dumps(contradictions(read_documents(card, CHECKPOINT)).data, ensure_ascii=False)
    assert "\x1b" not in text
    assert "\u202e" not in text


GATES = """\
name = "m"
[gates."logits.cosine.bf16_fp32"]
bound = 0.5
reason = "a round number"
[[waivers]]
check = "ppl.delta"
reason = "known"
link = "https://example.org/1"
expires = {}
conditions = {{ device = "npu" }}
[[claims]]
id = "c"
documented = "d"
source = "s"
gate = {{ op = ">", bound = 0.9 }}
gate_stated = "> 0.9"
check = "logits.cosine.bf16_fp32"
statistic = "mean_inputs"
reason = "a quotation"
"""


def test_gates_that_cannot_fail_and_lapsed_waivers_are_counted_and_quotations_listed(tmp_path):
    today = datetime.date.today()
    for expires, unsound in ((today + datetime.timedelta(9), 1), (today - datetime.timedelta(9), 2)):
        (tmp_path / "card.toml").write_text(textwrap.dedent(GATES.format(expires)))
        card = load_card(tmp_path / "card.toml")
        measured = unsound_gates(read_gates(card), criteria(card))
        assert (measured.value, measured.n, measured.data["statistics"]["fine"]) == (unsound, 3, 0)
    assert [(each["kind"], each["role"], each["reason"]) for each in measured.data["criteria"]] == [
        ("bound", "required", "a round number"),
        ("waiver", "required", "known"),
        ("claim", "claim", "a quotation"),
    ]


@pytest.mark.parametrize("name", sorted(known_cards()))
def test_every_shipped_card_passes_and_its_quotations_have_reasons(name):
    card = find_card(name)
    if not CHECKS["audit.gates"].given(card):
        assert not card.gates
        return
    measured = unsound_gates(read_gates(card), criteria(card))
    assert judged("audit.gates", measured, card) is Outcome.PASS
    quoted = [each for each in measured.data["findings"] if each["level"] == "fine"]
    assert len(quoted) == (2 if name == "qwen3-reranker-0.6b" else 0)
    assert measured.data["findings_total"] == len(quoted)
