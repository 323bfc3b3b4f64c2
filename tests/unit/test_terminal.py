"""The last section of a run: which lines, in which order, in which colour; what to do next; how much progress a log gets."""

import itertools
import time
import types

import pytest

import pytest_npuconf.progress
from pytest_npuconf.conformance import Closing, Status, close
from pytest_npuconf.gates import Gate, Measurement, Role, Row, Sense
from pytest_npuconf.options import Settings
from pytest_npuconf.progress import Progress, is_log
from pytest_npuconf.records import make_record
from pytest_npuconf.report.next_steps import next_steps
from pytest_npuconf.report.terminal_summary import section_lines, summary

HEADS = {"m": "m on npu, bfloat16, transformers", "other": "other on npu"}
CLAIMS = "CLAIMS: 0 reproduced, 0 not, 0 contradicted"
SETTINGS = Settings(models=("m",), device="npu")


def record(check, value=0.5, bound=1.0, *, model="m", role=Role.REQUIRED, gate=True, claims=(), waived="", **fields):
    sense = fields.pop("sense", Sense.AT_MOST)
    broken = fields.pop("broken", "")
    fields = {"n": 8, "of": "documents", **fields}
    measurement = Measurement.unusable("m", broken) if broken else Measurement("m", value, **fields)
    verdict = Gate(check, bound, sense, role).judge(measurement) if gate else None
    made = make_record(
        check, measurement, verdict, [], model=model, precision="bfloat16", reference="cpu float32", facts={}, labels=[],
        waived=waived,
    )  # fmt: skip
    return {"nodeid": f"npuconf/precision/test_x.py::test_{check}[{model}]", **made, "claims": list(claims)}


def exact(check, wrong=0, **more):
    return record(check, float(wrong), 0.0, **more)


def reported(check, **more):
    return record(check, gate=False, **more)


def straddling(check, low=0.8, value=0.9, high=1.1, **more):
    return record(check, value, interval=(low, high), **more)


def claim(name, standing, measured=0.9):
    return {"id": name, "standing": standing, "measured": measured, "gate_stated": "> 1"}


def closed(records, model="m", **more):
    required = [r["check"] for r in records if r["role"] == "required" and r["model"] == model]
    required += more.pop("also", [])
    return close(model, required, more.pop("selected", required), records, where=HEADS[model], **more)


def told(records, *, verbosity=0, closings=None, **more):
    closings = [closed(records)] if closings is None else closings
    return section_lines(records, closings, CLAIMS, heads=HEADS, verbosity=verbosity, **more)


def texts(lines):
    return ["".join(text for text, _ in line) for line in lines]


def shown(records, **more):
    return texts(told(records, **more))


def squeezed(lines):
    return [" ".join(line.split()) for line in lines]


# ---------------------------------------------------------------- default verbosity


def test_a_healthy_run_has_a_line_for_each_group_and_none_for_a_check():
    records = [record("kl.a", 0.9), record("kl.b", 0.4), exact("token.match"), exact("token.ids")]
    assert shown(records) == [
        HEADS["m"],
        "  kl     2 of 2 passed  closest kl.a  0.9  gate <= 1  10% left",
        "  token  2 of 2 passed  exact",
        f"CONFORMANT: {HEADS['m']}: 4 of 4 required checks passed",
        CLAIMS,
    ]


def test_the_closest_is_the_one_with_the_least_share_left_by_its_intervals_worse_end():
    records = [
        record("kl.a", 0.9),
        record("kl.b", 0.5, interval=(0.4, 0.95), unit="ms"),
        exact("kl.c"),
        record("kl.d", 99.0, 100.0, sense=Sense.WITHIN),
    ]
    assert "closest kl.d 99 gate +- 100 1% left" in squeezed(shown(records))[1]
    assert squeezed(shown(records[:3]))[1] == "kl 3 of 3 passed closest kl.b 0.5 ms [0.4, 0.95] gate <= 1 5% left"


def test_groups_come_in_the_order_of_their_room_and_exact_ones_last():
    records = [exact("a.x"), record("b.x", 0.1), record("c.x", 0.9), reported("d.x"), record("e.x", 0.5)]
    assert [line.split()[0] for line in shown(records)[1:6]] == ["c", "e", "b", "a", "d"]


def test_what_has_no_verdict_is_reported_and_did_not_pass():
    assert squeezed(shown([record("kl.a", 0.9), reported("kl.b"), reported("kl.c")]))[1].startswith(
        "kl 1 of 1 passed, 2 reported closest kl.a"
    )


def test_records_without_a_verdict_only():
    lines = told([reported("token.top5"), reported("logits.cosine")], closings=[])
    assert texts(lines) == [HEADS["m"], "  token   1 reported", "  logits  1 reported"]
    assert {markup for line in lines for _, markup in line} == {""}


def test_failures_come_first_worst_first_then_what_is_undecided():
    records = [
        record("kl.pass", 0.1),
        record("kl.claim", 5.0, role=Role.CLAIM, rows=(Row("text 2", 5.0), Row("text 1", 4.0, "because"))),
        exact("token.match", 3),
        straddling("kl.straddles"),
        record("kl.worse", 4.0),
        record("kl.bad", 2.0),
        record("kl.nan", broken="NaN at prompt 1"),
        record("kl.waived", 3.0, waived="known"),
    ]
    lines = shown(records)
    assert [line.split()[:2] for line in lines[1:6]] == [
        ["fail", "kl.nan"],
        ["fail", "kl.worse"],
        ["fail", "kl.bad"],
        ["fail", "token.match"],
        ["inconclusive", "kl.straddles"],
    ]
    assert squeezed(lines[6:10]) == [
        "fail kl.claim 5 (n = 8 documents) gate <= 1 400% over claim",
        "text 2: 5",
        "text 1: because",
        "waived kl.waived 3 (n = 8 documents) gate <= 1 200% over required, waived",
    ]
    assert squeezed(lines[10:12]) == [
        "kl 1 of 7 passed, 4 failed, 1 inconclusive, 1 waived worst kl.nan unusable output gate <= 1",
        "token 0 of 1 passed, 1 failed worst token.match 3 gate <= 0 margin -3",
    ]


def test_broken_output_alone():
    lines = shown([record("kl.a", broken="NaN in the candidate's logits")])
    assert squeezed(lines)[1:3] == [
        "fail kl.a NaN in the candidate's logits gate <= 1 required",
        "kl 0 of 1 passed, 1 failed worst kl.a unusable output gate <= 1",
    ]


def test_a_place_whose_value_is_no_number_is_told():
    records = [record("kl.a", 5.0, role=Role.CLAIM, rows=(Row("text 1", float("inf")),)), record("kl.b")]
    assert "text 1: no number" in squeezed(shown(records))


def test_at_most_ten_checks_and_ten_places_of_a_model():
    rows = tuple(Row(f"place {i}", 5.0) for i in range(3))
    records = [record(f"kl.{i}", 2.0 + i, role=Role.CLAIM, rows=rows) for i in range(12)] + [record("kl.ok")]
    lines = shown(records)
    assert [line.split()[1] for line in lines if line.startswith("  fail")] == [f"kl.{i}" for i in range(11, 1, -1)]
    assert sum("place" in line for line in lines) == 10
    assert "  ... and 2 more: -v lists all" in lines
    assert "more" not in "".join(shown([*records[2:]]))


def test_only_claims_that_do_not_stand_have_a_line_and_contradicted_ones_come_first():
    claims = [
        claim("a", "reproduced"),
        claim("b", "not reproduced"),
        claim("c", "contradicted"),
        claim("d", "not reproduced", None),
    ]
    lines = shown([record("kl.a", claims=claims)])
    assert lines[2:5] == [
        "  claim c: contradicted, measured 0.9, documented gate > 1",
        "  claim b: not reproduced, measured 0.9, documented gate > 1",
        "  claim d: not reproduced, unusable output, documented gate > 1",
    ]
    assert "claim a" not in "".join(lines)
    many = [claim(str(i), "contradicted") for i in range(13)]
    assert "  ... and 3 more claims: -v lists all" in shown([record("kl.a", claims=many)])


def test_own_checks_have_no_model_and_a_group():
    lines = shown([record("own: seconds", 0.25, model="", unit="s")], closings=[])
    assert lines == ["  own  1 of 1 passed  closest own: seconds  0.25 s  gate <= 1  75% left"]


def test_nothing_is_said_of_nothing():
    for verbosity in (-1, 0, 1):
        assert told([], closings=[], verbosity=verbosity) == []


def test_no_record_and_a_closing():
    closing = closed([], also=["kl.a"])
    assert shown([], closings=[closing]) == [closing.line, CLAIMS]


def test_ten_thousand_records_fit_and_take_no_time():
    """Of twenty groups, with whatever could have lines of its own."""
    claims = [claim("c", "contradicted")]
    kinds = [
        lambda check: record(check, 3.0, role=Role.CLAIM, rows=(Row("p", 1.0), Row("q", 1.0)), claims=claims),
        lambda check: record(check, broken="NaN"),
        lambda check: straddling(check),
        lambda check: record(check, 0.5, claims=claims),
    ]
    makers = itertools.cycle(kinds)
    records = [next(makers)(f"group{i % 20}.check{i}") for i in range(10_000)]
    start = time.process_time()
    lines = shown(records)
    assert time.process_time() - start < 2.0  # 0.1 s on one slow core
    assert len(lines) <= 60
    assert "  ... and 7490 more: -v lists all" in lines
    assert "  ... and 4 more groups: -v lists all" in lines
    assert len(shown(records, verbosity=1)) > 10_000


def test_two_models_are_told_apart():
    records = [record("kl.a", 0.9), record("kl.a", 2.0, model="other"), exact("token.ids")]
    closings = [closed(records), closed(records, "other")]
    lines = shown(records, closings=closings)
    assert squeezed(lines) == [
        HEADS["m"],
        "kl 1 of 1 passed closest kl.a 0.9 gate <= 1 10% left",
        "token 1 of 1 passed exact",
        HEADS["other"],
        "fail kl.a 2 (n = 8 documents) gate <= 1 100% over required",
        "kl 0 of 1 passed, 1 failed worst kl.a 2 gate <= 1 100% over",
        closings[0].line,
        closings[1].line,
        CLAIMS,
    ]
    assert squeezed(shown(records, closings=closings, verbosity=-1))[:2] == [
        HEADS["other"],
        "fail kl.a 2 (n = 8 documents) gate <= 1 100% over required",
    ]


def test_odd_characters_are_told_and_not_obeyed():
    name = "模型 [bold]{0}%s\x1b[31m\r\n"
    lines = section_lines([record("kl.\x07a", 2.0, model=name)], [], CLAIMS, heads={name: f"{name} on npu"})
    assert texts(lines)[0] == "模型 [bold]{0}%s\\x1b[31m\\r\\n on npu"
    assert all(text.isprintable() for text in texts(lines))
    assert "kl.\\x07a" in texts(lines)[1]


# ---------------------------------------------------------------- -v and -q


def test_verbose_lists_every_check_and_claim_and_no_group():
    claims = [claim("a", "reproduced")]
    records = [record("kl.a", 0.9, claims=claims), reported("kl.b"), exact("token.match")]
    lines = shown(records, verbosity=1, notes=["FINDING"], files=["results: r"], steps=["next: do"])
    assert squeezed(lines) == [
        HEADS["m"],
        "pass kl.a 0.9 (n = 8 documents) gate <= 1 10% left required",
        "claim a: reproduced, measured 0.9, documented gate > 1",
        "pass token.match 0 (n = 8 documents) gate <= 0 margin 0 required",
        "reported kl.b 0.5 (n = 8 documents)",
        "FINDING",
        "results: r",
        "next: do",
        *squeezed(shown(records)[-2:]),
    ]


def test_verbose_lists_all_failures():
    records = [record(f"kl.{i}", 2.0) for i in range(30)]
    assert sum(line.startswith("  fail") for line in shown(records, verbosity=1)) == 30


def test_quiet_has_what_is_wrong_files_and_closing_lines():
    claims = [claim("a", "contradicted")]
    more = {"notes": ["FINDING"], "files": ["results: r"], "steps": ["next: do"]}
    records = [record("kl.a", 0.9, claims=claims), reported("kl.b")]
    assert shown(records, verbosity=-1, **more) == ["results: r", *shown(records)[-2:]]
    failing = [*records, *(record(f"kl.{i}", 2.0) for i in range(11)), straddling("kl.s")]
    lines = shown(failing, verbosity=-1, **more)
    assert [line.split()[0] for line in lines] == ["fail"] * 10 + ["...", "results:", "NOT", "CLAIMS:"]


# ---------------------------------------------------------------- colour


class Paper:
    """A reporter that keeps what it was asked to write."""

    def __init__(self):
        self.written, self.title = [], ""

    def ensure_newline(self):
        pass

    def section(self, title, sep):
        self.title = title

    def write(self, text, **markup):
        self.written.append((text, sorted(markup)))

    def write_line(self, text, **markup):
        self.write(f"{text}\n", **markup)


class Planned:
    """As much of a plan as the section asks for, without a model."""

    settings = SETTINGS


def test_what_failed_is_red_what_straddles_yellow_and_a_whole_group_green():
    lines = told([record("a.x", 2.0), straddling("b.x"), record("c.x", 0.9), reported("d.x")])
    coloured = [(text.strip(), markup) for line in lines for text, markup in line if markup]
    assert coloured == [
        ("fail", "red"),
        ("inconclusive", "yellow"),
        ("0 of 1 passed, 1 failed", "red"),
        ("0 of 1 passed, 1 inconclusive", "yellow"),
        ("1 of 1 passed", "green"),
        (texts(lines)[-2], "bold red"),
    ]
    assert ("bold green") in {markup for line in told([record("a.x")]) for _, markup in line}


def test_colour_is_left_to_the_reporter():
    records = [record("own: a", 2.0, model="")]
    paper = Paper()
    summary(paper, Planned(), records, [], "")
    assert paper.title == "npuconf"
    assert ("  fail        ", ["red"]) in paper.written
    assert all("\x1b" not in text for text, _ in paper.written)
    assert "".join(text for text, _ in paper.written).count("\n") == 2
    silent = Paper()
    summary(silent, Planned(), [], [], "")
    assert (silent.title, silent.written) == ("", [])


def test_files_are_named_where_they_were_written(tmp_path):
    class Keeping:
        settings = Settings(models=("m",), results=tmp_path / "r.json", report=tmp_path / "r.html")

    (tmp_path / "r.html").write_text("")
    paper = Paper()
    summary(paper, Keeping(), [], [], "")
    assert "".join(text for text, _ in paper.written) == f"report: {tmp_path / 'r.html'}\n"


# ---------------------------------------------------------------- next


def steps(records, *, settings=SETTINGS, closings=None, **more):
    return next_steps([closed(records, **more)] if closings is None else closings, records, settings)


def test_after_a_failure_the_worst_failed_check_is_repeated():
    records = [
        record("kl.claim", 99.0, role=Role.CLAIM),
        record("kl.bad", 2.0),
        record("kl.worst", 4.0),
        record("kl.waived", 9.0, waived="known"),
        record("kl.pass", data={"guilty": "layers.1"}),
    ]
    assert steps(records) == [
        "next: pytest --npuconf-device npu --npuconf-model m -v 'npuconf/precision/test_x.py::test_kl.worst[m]'"
    ]


def test_after_a_failure_the_guilty_module_is_named():
    records = [record("kl.worst", 4.0), record("modules.noise_ratio", 2.0, data={"guilty": "layers.3.mlp"})]
    found = steps(records)
    assert "test_kl.worst[m]" in found[0]
    assert found[1:] == ["next: look at layers.3.mlp first: modules.noise_ratio names it"]
    equals = [record("kl.worst", 2.0), record("modules.noise_ratio", 2.0, data={"guilty": "layers.3.mlp"})]
    assert "test_modules.noise_ratio[m]" in steps(equals)[0]


def test_what_would_settle_an_inconclusive_check_is_the_verdicts_own_number():
    measured = Measurement("m", 0.9, n=8, of="documents", interval=(0.8, 1.1))
    expected = Gate("g", 1.0).judge(measured).settle_n
    assert expected is not None
    assert steps([straddling("kl.a")]) == [
        f"next: kl.a straddles its bound: about {expected} documents would settle it (now 8)"
    ]
    worse = straddling("kl.b", 0.8, 0.9, 1.4)
    (line,) = steps([straddling("kl.a"), worse])
    assert line.startswith("next: kl.b straddles")
    one_sided = record("kl.a", 1.1, interval=(float("-inf"), 1.2), sense=Sense.AT_LEAST)
    assert "no number of documents" in steps([one_sided])[0]
    unbounded = straddling("kl.a", 0.8, 0.9, float("inf"))
    assert unbounded["interval"] == [0.8, None]
    assert steps([unbounded]) == [
        "next: kl.a straddles its bound: no number of documents that can be told from this would settle it (now 8)"
    ]


def test_an_incomplete_run_says_what_is_missing():
    command = "pytest --npuconf-device npu --npuconf-model m"
    records = [record("kl.a")]
    assert steps(records, also=["a", "b", "c", "d"]) == [f"next: run what is missing (a, b, c, ...): {command}"]
    assert steps(records, also=["b"], errors=["x.py::test_b[m]"]) == [f"next: {command} -v 'x.py::test_b[m]'"]
    assert steps(records, interrupted=True) == [f"next: let it run to its end: {command}"]
    both = steps([straddling("kl.a")], also=["b"], interrupted=True)
    assert [line.split()[1] for line in both] == ["let", "kl.a"]


def test_a_narrowed_run_gets_the_command_of_the_whole_one(tmp_path):
    files = Settings(models=("m",), device="npu", results=tmp_path / "r.json", report=tmp_path / "r.html")
    found = steps([record("kl.a")], also=["kl.b"], selected=["kl.a"], settings=files)
    assert found == [
        "next: the whole run: pytest --npuconf-device npu --npuconf-model m "
        f"--npuconf-results {tmp_path / 'r.json'} --npuconf-report {tmp_path / 'r.html'}"
    ]


def test_a_conformant_run_gets_what_can_be_published(tmp_path):
    good = [record("kl.a")]
    assert steps(good) == [
        "next: add --npuconf-results FILE to keep the evidence, and --npuconf-report FILE to show it"
    ]
    page = Settings(models=("m",), report=tmp_path / "r.html")
    assert steps(good, settings=page) == ["next: add --npuconf-results FILE to keep the evidence"]
    file = tmp_path / "my results.json"
    kept = Settings(models=("m",), results=file)
    assert steps(good, settings=kept) == [
        f"next: npuconf card '{file}' writes its model card",
        f"next: npuconf bundle '{file}' packs the evidence",
    ]
    two = [*good, record("kl.a", model="other")]
    assert "--model m " in steps(two, settings=kept, closings=[closed(two), closed(two, "other")])[0]


def test_a_conformant_run_with_a_fault_is_not_for_publishing(tmp_path):
    variant = Settings(models=("m",), fault="benign-split-k", results=tmp_path / "r.json")
    (line,) = steps([record("kl.a")], settings=variant)
    assert line.startswith("next: without benign-split-k")
    assert "--npuconf-fault" not in line


def test_of_several_models_the_worst_status_decides():
    records = [record("kl.a"), record("kl.a", 2.0, model="other")]
    (line,) = steps(records, closings=[closed(records), closed(records, "other")])
    assert "test_kl.a[other]" in line


def test_files_that_were_not_written_are_the_next_thing():
    records = [record("kl.a")]
    unwritten = Closing("", Status.INCOMPLETE, "INCOMPLETE: not written", (), (), (), ())
    (line,) = steps(records, closings=[closed(records), unwritten])
    assert line.startswith("next: with files in a folder that can be written: pytest ")


def test_no_model_judged_nothing_next():
    assert steps([record("own: a", model="")], closings=[]) == []


# ---------------------------------------------------------------- progress


@pytest.fixture
def clock(monkeypatch):
    """The seconds that have passed, for the test to move."""
    now = [100.0]
    monkeypatch.setattr(pytest_npuconf.progress, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_on_a_terminal_every_phase_is_shown_and_steps_after_five_seconds(clock):
    lines = []
    progress = Progress(lines.append)
    progress.phase("one")
    progress.step("hidden")
    clock[0] += 5.0
    progress.step("two")
    progress.step("hidden")
    progress.phase("three")
    assert lines == ["npuconf: one", "npuconf: two", "npuconf: three"]


def test_in_a_log_a_phase_is_shown_after_five_silent_seconds_and_no_step(clock):
    lines = []
    progress = Progress(lines.append, sparse=True)
    progress.phase("at once")
    clock[0] += 4.9
    progress.phase("early")
    clock[0] += 0.1
    progress.phase("late")
    progress.phase("early again")
    clock[0] += 4.9
    progress.step("a step")
    assert lines == ["npuconf: late"]


def test_in_a_log_a_phase_that_takes_long_is_told_once(clock):
    lines = []
    progress = Progress(lines.append, sparse=True)
    progress.phase("loading")
    for _ in range(10):
        clock[0] += 4.0
        progress.step("a step")
    assert lines == ["npuconf: loading"]


def test_what_a_reader_must_know_is_said_in_a_log_too(clock):
    lines = []
    progress = Progress(lines.append, sparse=True)
    progress.phase("untold")
    progress.say("no stored reference will do")
    clock[0] += 9.0
    progress.step("a step")
    assert lines == ["npuconf: no stored reference will do"]


@pytest.mark.parametrize(
    ("environment", "terminal", "log"),
    [
        ({}, True, False),
        ({}, False, True),
        ({"CI": "true"}, True, True),
        ({"CI": "1"}, True, True),
        ({"CI": "False"}, True, False),
        ({"CI": " 0 "}, True, False),
        ({"CI": ""}, True, False),
        ({"CI": "false"}, False, True),
    ],
)
def test_what_counts_as_a_log(environment, terminal, log):
    assert is_log(environment, terminal=terminal) is log
