"""``npuconf card``: what stands in a card is what was measured, labelled and escaped, and our own audit has nothing to say of it.

The runs under tests/data/card are real ones; ``tests.benchmarks.card_data`` says how they were made and what was left out.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from pytest_npuconf.audit.command import audit_files
from pytest_npuconf.audit.findings import Level
from pytest_npuconf.cards import find_card
from pytest_npuconf.errors import NpuconfError, SettingsError
from pytest_npuconf.report.card import phrases
from pytest_npuconf.report.card import text as card_text
from pytest_npuconf.report.card.command import add_parser
from pytest_npuconf.report.card.parts import compose
from pytest_npuconf.report.card.run import read_run
from pytest_npuconf.report.run import name_of, pair_of

DATA = Path(__file__).parents[1] / "data" / "card"
RUNS = ("healthy", "broken", "speed")
OTHERS = ("smollm2", "reranker", "minilm")  # every other stand-in and real model
LANGUAGES = ("zh", "en", "both")
HOSTILE = "<script>alert(1)</script> | a`b``c *d* [e](http://f) _g_ \x1b[31m\n## h\r\\"


@pytest.fixture
def document():
    return loaded("healthy")


def loaded(name):
    return json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture
def card(tmp_path):
    """The card of a document."""

    def make(document, language="en", model=None):
        path = tmp_path / "results.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        return compose(read_run(path, model), language)

    return make


def findings(tmp_path, text, least=Level.AMBIGUOUS):
    path = tmp_path / "CARD.md"
    path.write_text(text, encoding="utf-8")
    (audit,), unread = audit_files([str(path)], None)
    assert not unread
    assert not audit.broken
    return [
        f"{f.level.value} {f.rule} {f.line}: {f.quote} :: {f.message}"
        for f in audit.findings
        if f.level.rank >= least.rank
    ]


def parse(text):
    return MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)


def tables(text):
    """Each table as its caption, header and rows."""
    found, caption = [], ""
    for before, token in zip([None, *parse(text)], parse(text), strict=False):
        if token.type == "inline":
            if before.type == "paragraph_open":
                caption = token.content
            elif before.type in ("th_open", "td_open"):
                found[-1][-1][-1].append(plain(token))
        elif token.type == "table_open":
            found.append((caption, []))
        elif token.type == "tr_open":
            found[-1][1].append([])
    return [(caption, rows[0], rows[1:]) for caption, rows in found]


def plain(token):
    return "".join(child.content for child in token.children if child.type in ("text", "code_inline"))


def table_of(text, caption):
    return next(found for found in tables(text) if caption in found[0])


def by_check(text):
    """The rows of the table of every check, in English."""
    _, header, rows = table_of(text, "All checks")
    return {row[1]: dict(zip(header, row, strict=True)) for row in rows}


# ---- what our own audit says --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", [*RUNS, *OTHERS])
def test_our_audit_finds_nothing(name, language, card, tmp_path):
    assert findings(tmp_path, card(loaded(name), language)) == []


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("cell", [1, 2, 3, 4])
def test_our_audit_finds_a_changed_mean(language, cell, card, tmp_path, document):
    """Candidate, reference, change, magnitude: a mean that is not its rows' is found in each column of figures."""
    text = card(document, language)
    mean = phrases.words(language, "mean")
    line = next(line for line in text.splitlines() if line.startswith(f"| — | {mean} | — | "))
    cells = line.split(" | ")
    number = re.search(r"-?\d+\.\d+", cells[cell + 2]).group()
    cells[cell + 2] = cells[cell + 2].replace(number, f"{float(number) * 1.5 + 1:.4f}")
    assert findings(tmp_path, text.replace(line, " | ".join(cells), 1), Level.IMPLAUSIBLE)


@pytest.mark.parametrize("language", LANGUAGES)
def test_our_audit_finds_a_changed_row(language, card, tmp_path, document):
    text = card(document, language)
    line = next(line for line in text.splitlines() if line.startswith("| 6 | text 6 | ") and "0.0000 %" not in line)
    cells = line.split(" | ")
    cells[3] = f"{float(cells[3]) * 1.02:.4f}"
    assert findings(tmp_path, text.replace(line, " | ".join(cells), 1), Level.IMPLAUSIBLE)


@pytest.mark.parametrize("language", LANGUAGES)
def test_our_audit_finds_a_pass_beyond_its_gate(language, card, tmp_path, document):
    text = card(document, language)
    line = next(line for line in text.splitlines() if "| kl.noise_ratio.bf16_fp32 | kl.noise_ratio |" in line)
    cells = line.split(" | ")
    cells[4] = "1.559"
    assert findings(tmp_path, text.replace(line, " | ".join(cells), 1), Level.IMPLAUSIBLE)


@pytest.mark.parametrize("language", LANGUAGES)
def test_our_audit_finds_nothing_in_an_npus_card_that_quotes_mem_agent(language, card, tmp_path, document):
    """The claims of a document that contradicts itself are quotations, and no statements of this card."""
    (model,) = document["models"].values()
    model["labels"] = []
    document["facts"]["device"] = "npu"
    claims = find_card("mem-agent", None).claims
    quoted = 0
    for record in document["checks"]:
        record["device"] = "npu"
        figures = record["data"].get("statistics", {})
        mine = [claim for claim in claims if claim.check == record["check"] and claim.statistic in figures]
        record["claims"] = [
            {
                name: getattr(claim, name)
                for name in ("id", "documented", "gate_stated", "source", "statistic", "reason")
            }
            | {"measured": figures[claim.statistic], "standing": ("not reproduced", "contradicted")[k % 2]}
            for k, claim in enumerate(mine)
        ]
        quoted += len(mine)
    assert quoted > 5
    text = card(document, language)
    assert text.startswith("# tiny-qwen3 · NPU\n")
    assert findings(tmp_path, text) == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_our_audit_takes_no_name_for_an_aggregate(language, card, tmp_path, document):
    names = ("mean", "平均", "max", "median", "total", "overall")
    for record in document["checks"]:
        record["rows"] = [row | {"place": name} for row, name in zip(record["rows"], names, strict=False)]
        for key in ("texts", "last_position", "layers"):
            if key in record["data"]:
                record["data"][key] = dict(zip(names, record["data"][key].values(), strict=False))
    assert findings(tmp_path, card(document, language)) == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_broken_model_and_an_open_interval(language, card, tmp_path, document):
    by_name = {record["check"]: record for record in document["checks"]}
    broken, waived, opened = (
        by_name[f"{name}.bf16_fp32"] for name in ("logits.rel_l2", "kl.positions", "kl.noise_ratio")
    )
    why = "NaN in the candidate's logits at prompt 1 position 0"
    broken.update(value=None, interval=None, margin=None, would_pass=None, verdict="fail", broken=why, n=0, rows=[])
    waived.update(value=2.5, interval=[2.4, 2.7], margin=-0.7, verdict="fail", waived="a known fault, see the issue")
    opened.update(value=1.2, interval=[0.9, None], margin=None, verdict="inconclusive")
    (model,) = document["models"].values()
    model.update(
        status="NOT CONFORMANT", failed=[broken["check"]], waived=[waived["check"]], inconclusive=[opened["check"]]
    )
    text = card(document, language)
    assert findings(tmp_path, text) == []
    assert f"| {why} |" in text
    assert "[0.9, ∞]" in text


def test_an_interrupted_run_has_what_it_measured(card, document):
    (model,) = document["models"].values()
    document["checks"] = document["checks"][:7]
    kept = {record["check"] for record in document["checks"]}
    model.update(status="INCOMPLETE", missing=[check for check in model["required"] if check not in kept])
    shown = by_check(card(document))
    assert sum(row["verdict"] == "not run" for row in shown.values()) == len(model["missing"]) > 30


def test_answers_of_a_server(card, tmp_path, document):
    record = next(r for r in document["checks"] if r["check"] == "functional.samples.bf16_fp32")
    record["check"], record["metric"] = "serving.chat.bf16_fp32", "chats.wrong"
    (model,) = document["models"].values()
    model["required"] = [check.replace("functional.samples.bf16", "serving.chat.bf16") for check in model["required"]]
    record["data"]["answers"] = {"capital, thinking off": {"text": "Paris.", "finish": "stop"}}
    text = card(document)
    assert "Paris." in text
    assert "chat route" in text
    assert findings(tmp_path, text) == []


# ---- figures ------------------------------------------------------------------------------------------------------------


def half_ulp(text):
    digits, _, exponent = text.partition("e")
    decimals = len(digits.partition(".")[2])
    return 0.5 * 10 ** (int(exponent or 0) - decimals) * (1 + 1e-9)


def agrees(shown, value):
    return abs(float(shown) - value) <= half_ulp(shown)


@pytest.mark.parametrize("name", RUNS)
def test_every_figure_of_a_check_is_the_recorded_one(name, card):
    document = loaded(name)
    text = card(document)
    shown = by_check(text)
    gated = {
        row[1]: dict(zip(header, row, strict=True))
        for _, header, rows in tables(text)
        if "margin" in header
        for row in rows
    }
    for record in document["checks"]:
        row = shown[record["check"]]
        assert row["figure"] == record["metric"]
        assert row["n"] == f"{record['n']} {record['of']}"
        assert row["verdict"] == (record["verdict"] or "reported")
        assert row["gate"] == card_text.gate_text(record["sense"], record["bound"]) or record["bound"] is None
        if record["bound"] is not None:
            assert float(row["gate"][2:]) == record["bound"]
        if record["value"] is None:
            assert row["measured"] == "unusable output"
            continue
        value = row["measured"].removesuffix(record["unit"]).strip()
        assert agrees(value, record["value"])
        if record["check"] in gated:
            told = gated[record["check"]]
            assert told["measured"] == row["measured"]
            ends = [end for end in told["95 % interval"].strip("[]—").split(", ") if end]
            assert len(ends) == len(record["interval"] or ())
            assert all(agrees(end, found) for end, found in zip(ends, record["interval"] or (), strict=True))
            assert record["margin"] is None or agrees(told["margin"], record["margin"])


def test_perplexities_are_those_of_the_recorded_sums(card, document):
    text = card(document)
    record = next(r for r in document["checks"] if r["check"] == "ppl.delta.bf16_fp32")
    _, header, rows = table_of(text, "ppl.delta.bf16_fp32")
    assert header[3:5] == ["CPU BF16 PPL", "CPU FP32 PPL, reference"]
    for _, name, tokens, candidate, reference, change, size in rows[:-2]:
        sums = record["data"]["texts"][name]
        assert int(tokens) == sums["tokens"]
        assert agrees(candidate, math.exp(sums["candidate_nll"] / sums["tokens"]))
        assert agrees(reference, math.exp(sums["reference_nll"] / sums["tokens"]))
        assert agrees(
            size.removesuffix(" %"),
            abs(100 * math.expm1((sums["candidate_nll"] - sums["reference_nll"]) / sums["tokens"])),
        )
        assert change.lstrip("-") == size
    assert agrees(rows[-2][6].removesuffix(" %"), 100 * record["data"]["statistics"]["mean_abs_delta"])
    assert agrees(rows[-1][6].removesuffix(" %"), 100 * record["data"]["statistics"]["max_abs_delta"])


def test_speed_is_what_each_round_measured(card):
    document = loaded("speed")
    record = next(r for r in document["checks"] if name_of(r["check"]) == "speed.run")
    _, header, rows = table_of(card(document), "round by round")
    assert header[:3] == ["figure", "unit", "median of the rounds"]
    figures = record["data"]["figures"]
    assert [row[0] for row in rows] == [*figures, "amortised_ms_per_token"]
    for row in rows[:-1]:
        assert all(
            agrees(a, b) for a, b in zip(row[2:], [figures[row[0]]["median"], *figures[row[0]]["rounds"]], strict=True)
        )
    assert agrees(rows[-1][2], 1e3 / figures["output_tokens_per_second"]["median"])


@pytest.mark.parametrize(
    ("value", "interval", "bound", "shown"),
    [
        (0.5591318, (0.5195033, 0.6017832), 1.5, ("0.559", "[0.520, 0.602]")),
        (1.4, (1.3, 1.4996), 1.5, ("1.4000", "[1.3000, 1.4996]")),  # 1.500 would lie on the bound
        (1.6, (1.50004, 1.7), 1.5, ("1.60000", "[1.50004, 1.70000]")),
        (-0.0004363, (-0.0023393, 0.0014703), 0.03, ("-0.0004", "[-0.0023, 0.0015]")),
        (-0.029999, (-0.03, 0.03), 0.03, ("-0.029999", "[-0.030000, 0.030000]")),
        (1.65e-5, (1.6e-5, 1.7e-5), None, ("1.650e-05", "[1.600e-05, 1.700e-05]")),
        (3.0, None, 0.0, ("3", "")),
        (1.0000000001e-4, None, 1e-4, ("0.00010000000001", "")),
        (7484912.0, None, None, ("7484912", "")),
        (0.5, (0.5, 0.5), 1.5, ("0.5", "[0.5, 0.5]")),
        (2.0, (1.0, None), 1.5, ("2", "[1, ∞]")),
        (0.0, (0.0, 0.0), 0.01, ("0", "[0, 0]")),
        (150.811, (140.0, 160.0), None, ("151", "[140, 160]")),
    ],
)
def test_digits(value, interval, bound, shown):
    assert card_text.figure(value, interval, bound)[:2] == shown


@given(st.floats(-1e3, 1e3), st.floats(1e-9, 10), st.floats(1e-9, 10), st.sampled_from([0.0, 1e-4, 0.03, 1.5, 64.0]))
def test_rounding_never_changes_sides(value, below, above, bound):
    interval = (value - below, value + above)
    text, ends, _ = card_text.figure(value, interval, bound)
    for shown, real in zip([text, *ends.strip("[]").split(", ")], [value, *interval], strict=True):
        assert (float(shown) > bound, float(shown) < bound) == (real > bound, real < bound)
        assert agrees(shown, real)


def test_margins_are_never_rounded_away():
    assert card_text.margin_text(3e-9, 2) == "3e-09"
    assert card_text.margin_text(0.0, None) == "0"
    assert card_text.margin_text(None, None) == ""


# ---- labels -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", RUNS)
def test_labels_in_the_title_and_in_every_caption(name, language, card):
    document = loaded(name)
    labels = document["models"]["tiny-qwen3"]["labels"]
    text = card(document, language)
    found = tables(text)
    assert len(found) > 5
    assert [int(re.search(r"\d+", caption).group()) for caption, *_ in found] == list(range(1, len(found) + 1))
    for shown in [text.splitlines()[0], *(caption for caption, *_ in found)]:
        assert all(label in shown for label in labels)
    samples = [line for line in text.splitlines() if re.match(r"\*\*.*(示例|Sample) \d", line)]
    assert all(label in line for line in samples for label in labels)


@pytest.mark.parametrize(
    "label", ["SIMULATED", "CUDA", "FAULT dead-weight-row", "VARIANT benign-split-k", "CARD BOUNDS 2"]
)
def test_each_label_is_explained(label, card, document):
    document["models"]["tiny-qwen3"]["labels"] = [label]
    text = card(document)
    kind = re.match("[A-Z]+( [A-Z]+)?", label).group().strip()
    assert any(line.startswith(f"- {kind.split(' ')[0]}") for line in text.splitlines())


def test_an_unlabelled_run_has_plain_captions(card, document):
    document["models"]["tiny-qwen3"]["labels"] = []
    assert all(not caption.rstrip("*").endswith("—") for caption, *_ in tables(card(document)))


# ---- what must stand there ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", RUNS)
def test_every_required_check_stands_in_the_card(name, language, card):
    document = loaded(name)
    text = card(document, language)
    _, _, rows = table_of(text, phrases.words(language, "checks"))
    shown = [row[1] for row in rows]
    model = document["models"]["tiny-qwen3"]
    assert set(model["required"]) <= set(shown)
    assert len(shown) == len(document["checks"]) + len(model["missing"])
    not_run = phrases.words(language, "not_run")
    assert [row[1] for row in rows if row[2] == not_run] == model["missing"]


def test_a_failing_run_says_so(card):
    document = loaded("broken")
    text = card(document)
    assert "Verdict: NOT CONFORMANT" in text
    shown = by_check(text)
    failed = document["models"]["tiny-qwen3"]["failed"]
    assert failed
    assert all(shown[check]["verdict"] == "fail" for check in failed)
    _, _, counts = table_of(text, "Counts of checks")
    assert dict(counts)["fail"] == str(len(failed))
    assert "origin" in text
    assert "model.layers.3.mlp.up_proj" in text


def test_an_inconclusive_run_says_so(card):
    document = loaded("speed")
    model = document["models"]["tiny-qwen3"]
    text = card(document)
    assert model["inconclusive"]
    assert "Verdict: INCOMPLETE" in text
    assert all(by_check(text)[check]["verdict"] == "inconclusive" for check in model["inconclusive"])


def test_a_waived_failure_says_why(card, document):
    record = next(r for r in document["checks"] if r["check"] == "kl.noise_ratio.bf16_fp32")
    record.update(verdict="fail", waived="known, see the issue", value=2.0, interval=[1.8, 2.2], margin=-0.7)
    document["models"]["tiny-qwen3"]["waived"] = [record["check"]]
    row = by_check(card(document))[record["check"]]
    assert (row["verdict"], row["note"]) == ("fail, waived", "known, see the issue")


def test_samples_are_the_models_own_words(card, document):
    fences = [token.content for token in parse(card(document)) if token.type == "fence"]
    record = next(r for r in document["checks"] if r["check"] == "functional.samples.bf16_fp32")
    assert [a["text"] + "\n" for a in record["data"]["answers"].values()] == [f for f in fences if "</think>" in f]
    asked = [message["content"] for answer in record["data"]["answers"].values() for message in answer["messages"]]
    assert asked
    assert all(any(content in fence for fence in fences) for content in asked)


def test_claims_have_their_standing_and_their_words(card, document):
    text = card(document)
    _, _, rows = table_of(text, "Documented claims")
    claims = [claim for record in document["checks"] for claim in record["claims"]]
    assert [(row[1], row[7]) for row in rows] == [(claim["id"], claim["standing"]) for claim in claims]
    quoted = "\n".join(token.content for token in parse(text) if token.type == "fence")
    assert all(claim["documented"] in quoted for claim in claims)


def test_command_and_environment(card, document):
    text = card(document)
    fences = [token.content.strip() for token in parse(text) if token.type == "fence"]
    assert document["facts"]["command"] in fences
    _, _, rows = table_of(text, "Environment")
    read = {(row[1], row[2], row[3]) for row in rows}
    for readings in document["facts"]["fingerprint"].values():
        assert {(name, " ".join(r["value"].split()), r["source"]) for name, r in readings.items()} <= read


# ---- hostile names ------------------------------------------------------------------------------------------------------


def hostile(document):
    model = document["models"].pop("tiny-qwen3")
    document["models"][HOSTILE] = {**model, "labels": [HOSTILE, "STAND-IN"], "line": HOSTILE}
    document["facts"] = {**document["facts"], "command": HOSTILE, "engine": HOSTILE}
    for record in document["checks"]:
        record.update(
            model=HOSTILE, metric=HOSTILE, unit=HOSTILE, of=HOSTILE, reference=HOSTILE, reference_source=HOSTILE
        )
        record["rows"] = [{"place": HOSTILE, "value": 1.5, "detail": HOSTILE}] * 2
        record["claims"] = [{**claim, "id": HOSTILE, "documented": f"```\n{HOSTILE}"} for claim in record["claims"]]
        for answer in record["data"].get("answers", {}).values():
            answer["text"] = f"~~~\n````\n{HOSTILE}\n| a | b |\n|---|---|"
        for key in ("texts", "layers", "last_position", "answers"):
            if key in record["data"]:
                record["data"][key] = {f"{HOSTILE} {name}": value for name, value in record["data"][key].items()}
    return document


@pytest.mark.parametrize("language", LANGUAGES)
def test_nothing_of_a_name_is_markdown(language, card, document):
    text = card(hostile(copy.deepcopy(document)), language)
    assert "\x1b" not in text
    tokens = parse(text)
    inner = [child for token in tokens for child in token.children or ()]
    active = {"html_block", "html_inline", "link_open", "em_open", "image", "code_block"}
    assert not active & {token.type for token in (*tokens, *inner)}
    assert not [token for token in inner if token.type == "code_inline"]
    bold = [token.children for token in tokens if token.type == "inline" and token.content.startswith("**")]
    bold = [[child.type for child in line if child.type != "text" or child.content] for line in bold]
    assert bold
    assert all((line[0], line[-1]) == ("strong_open", "strong_close") for line in bold)
    assert sum(child.type == "strong_open" for child in inner) == len(bold)
    clean = tables(card(document, language))
    found = tables(text)
    assert all(len(row) == len(header) for _, header, rows in found for row in rows)
    assert len(found) >= len(clean)
    headings = [token for token in tokens if token.type == "heading_open"]
    assert len(headings) == sum(token.type == "heading_open" for token in parse(card(document, language)))
    fences = [token.content for token in tokens if token.type == "fence"]
    assert sum("````" in fence and "|---|---|" in fence for fence in fences) == 4


def test_half_of_a_surrogate_pair_is_refused(card, document):
    document["models"]["tiny-qwen3"]["line"] = "\ud800"
    with pytest.raises(SettingsError, match="surrogates not allowed"):
        card(document)


# ---- what is refused ----------------------------------------------------------------------------------------------------


def _without(document, key):
    del document["checks"][0][key]
    return document


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is not the JSON"),
        ("{", "is not the JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("[]", "the whole is list, not object"),
        ('{"schema_version": 2}', "schema_version is 2"),
        ('{"schema_version": 1}', "is missing"),
        ('{"schema_version": NaN}', "NaN"),
        ('{"schema_version": 1e999}', "1e999"),
        ('{"schema_version": ' + "1" * 5000 + "}", "no finite number"),
        (lambda d: d | {"checks": []}, "no record"),
        (lambda d: d | {"models": {}}, "names no model"),
        (lambda d: d | {"checks": d["checks"][:7]}, "says CONFORMANT"),
        (lambda d: d | {"checks": [3]}, "checks[0] is int, not object"),
        (lambda d: _without(d, "rows"), "checks[0].rows is missing"),
        (lambda d: d | {"models": d["models"] | {"two": d["models"]["tiny-qwen3"]}}, "holds 2 models: tiny-qwen3, two"),
    ],
)
def test_what_is_no_run_is_refused(content, says, tmp_path, document):
    path = tmp_path / "results.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content(document)), encoding="utf-8")
    with pytest.raises(SettingsError, match=re.escape(says)) as told:
        read_run(path, None)
    assert told.value.mend


def test_nan_anywhere_is_refused(tmp_path, document):
    document["checks"][0]["data"]["x"] = math.nan
    path = tmp_path / "results.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(SettingsError, match="NaN"):
        read_run(path, None)


def test_missing_files_and_bytes_that_are_no_text(tmp_path):
    with pytest.raises(SettingsError, match="cannot read"):
        read_run(tmp_path / "none.json", None)
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="is not the JSON"):
        read_run(tmp_path / "bytes.json", None)


def test_one_of_two_models(card, document):
    other = copy.deepcopy(document["checks"][0]) | {"model": "two", "check": "only.of_two"}
    document["models"]["two"] = document["models"]["tiny-qwen3"] | {"required": ["only.of_two"], "missing": []}
    document["checks"].append(other)
    assert list(by_check(card(document, model="two"))) == ["only.of_two"]
    assert "only.of_two" not in card(document, model="tiny-qwen3")
    with pytest.raises(SettingsError, match="did you mean 'tiny-qwen3'"):
        card(document, model="tiny-qwen")


def test_ten_thousand_checks(card, document):
    first = document["checks"]
    document["checks"] = [{**r, "check": f"x{k}.{r['check']}"} for k in range(10_000 // len(first) + 1) for r in first]
    assert len(document["checks"]) > 10_000
    document["models"]["tiny-qwen3"]["status"] = "INCOMPLETE"  # the required ones have other names now
    begun = time.perf_counter()
    text = card(document)
    assert time.perf_counter() - begun < 30
    rows = text[text.index("All checks — ") :].split("\n\n")[1].splitlines()[2:]
    assert len(rows) == len(document["checks"]) + len(document["models"]["tiny-qwen3"]["required"])


@pytest.mark.parametrize(
    "key", ["texts", "layers", "last_position", "answers", "figures", "sweep", "shape", "statistics", "rows_total"]
)
@pytest.mark.parametrize(
    "value", [None, [], {}, {"a": None}, {"a": {"tokens": 0, "candidate_nll": 1, "reference_nll": 1}}, 3, "x"]
)
@pytest.mark.parametrize("name", ["healthy", "speed"])
def test_data_of_another_shape_is_left_out(name, key, value, card):
    document = loaded(name)
    for record in document["checks"]:
        if key in record["data"]:
            record["data"][key] = value
    assert card(document).startswith("# tiny-qwen3")


# ---- the command --------------------------------------------------------------------------------------------------------


def command(*arguments):
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    parsed = parser.parse_args(["card", *map(str, arguments)])
    return parsed.run(parsed)


def test_the_command_writes_the_card(tmp_path, capfdbinary):
    out = tmp_path / "CARD.md"
    assert command(DATA / "healthy.json", "--lang", "zh", "--out", out) == 0
    assert b"CARD.md" in capfdbinary.readouterr().out
    assert out.read_text(encoding="utf-8").startswith("# tiny-qwen3 · CPU, STAND-IN\n")
    assert command(DATA / "healthy.json", "--lang", "zh") == 0
    assert capfdbinary.readouterr().out == out.read_bytes()


def test_the_results_are_not_written_over(tmp_path):
    path = tmp_path / "results.json"
    path.write_bytes((DATA / "healthy.json").read_bytes())
    with pytest.raises(SettingsError, match="would be written over"):
        command(path, "--out", tmp_path / "." / "results.json")
    assert path.read_bytes() == (DATA / "healthy.json").read_bytes()


def test_a_card_that_cannot_be_written(tmp_path):
    with pytest.raises(NpuconfError, match="mend: --out"):
        command(DATA / "healthy.json", "--out", tmp_path / "none" / "CARD.md")


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_languages(language, card, document):
    text = card(document, language)
    chinese, english = re.search("[\u4e00-\u9fff]", re.sub("(?s)```.*?```", "", text)), "Every figure here" in text
    assert (chinese is not None, english) == (language != "en", language != "zh")


def test_both_languages_are_told_the_same_values():
    for table in (phrases.WORDS, phrases.METRICS, phrases.OVERVIEW, phrases.SENTENCES):
        for chinese, english in table.values():
            assert re.findall(r"{(\w+)}", chinese) == re.findall(r"{(\w+)}", english)
            assert english.isascii() or "‖" in english or "∩" in english or "−" in english


def test_the_command_line_starts_without_numpy():
    code = "import sys, pytest_npuconf.report.card.command; assert not {'numpy', 'torch', 'pytest'} & set(sys.modules), sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_of_checks():
    assert (name_of("kl.noise_ratio.bf16_fp32"), pair_of("kl.noise_ratio.bf16_fp32")) == ("kl.noise_ratio", "bf16_fp32")
    assert (name_of("model.generation_config"), pair_of("model.generation_config")) == ("model.generation_config", "")
