"""The HTML report: what it says of a run, of two and of many, and what it refuses. tests/browser looks at it in a browser."""

import copy
import json
import math
import re
import sys
from pathlib import Path

import pytest

from pytest_npuconf.checks import CHECKS
from pytest_npuconf.cli import main
from pytest_npuconf.errors import SettingsError
from pytest_npuconf.gates import format_number
from pytest_npuconf.report.page import advice
from pytest_npuconf.report.page import compose as composing
from pytest_npuconf.report.page.compare import compare, difference, interval_of_difference
from pytest_npuconf.report.page.compose import compose
from pytest_npuconf.report.page.compression import compression
from pytest_npuconf.report.page.failures import command_of
from pytest_npuconf.report.page.gallery import MOST, gallery_of
from pytest_npuconf.report.page.history import MOST_RUNS, history
from pytest_npuconf.report.page.matrix import read_matrix
from pytest_npuconf.report.page.view import LONGEST, MOST_FAILURES, view_of
from pytest_npuconf.report.pictures import drawing, precision, speed
from pytest_npuconf.report.reading import read_results
from pytest_npuconf.report.run import run_of
from pytest_npuconf.report.terminal import room_left
from tests.benchmarks import gate_advice

DATA = Path(__file__).parent.parent / "data" / "card"
TINY = "tiny-qwen3"


def results(name="healthy"):
    return copy.deepcopy(read_results(DATA / f"{name}.json"))


def record(document, check):
    return next(each for each in document["checks"] if each["check"] == check)


def viewed(document, model=TINY):
    return view_of(run_of(document, model), "m1")


def with_status(document, status, **more):
    document["models"][TINY] |= {"status": status, **more}
    return document


# ---- what it says of a run ----------------------------------------------------------------------------------------------


def test_every_check_is_explained_as_the_guide_explains_it():
    assert set(advice.advised()) == set(CHECKS)
    assert all(advice.asks(name).endswith("?") and advice.then(name) for name in CHECKS)
    assert (
        gate_advice.ADVICE.read_text(encoding="utf-8") == gate_advice.advice()
    )  # python -m tests.benchmarks.gate_advice --write
    assert (advice.asks("own: mine"), advice.then("own: mine")) == ("", "")


def test_a_healthy_run():
    view = viewed(results())
    assert view.status == "CONFORMANT"
    assert view.headline == "On cpu, tiny-qwen3 passed 41 of the 41 checks that its card requires."
    assert (view.failures, view.missing, view.errors) == ((), (), ())
    assert view.counts == (("pass", "✓", 41),)
    assert [said.partition(":")[0] for said in view.labels] == ["CPU", "STAND-IN"]
    shares = [line.used for line in view.lines if line.used is not None]
    assert shares == sorted(shares, reverse=True)


def test_a_failure_says_where_and_what_to_do():
    view = viewed(results("broken"))
    (failure,) = view.failures
    assert failure.guilty == "model.layers.3.mlp.up_proj"
    assert failure.places[0].startswith("model.layers.3.mlp.up_proj: ")
    assert failure.would_pass.startswith("<= ")
    assert failure.then == advice.then("modules.noise_ratio")
    assert failure.command.endswith("'npuconf/precision/test_modules.py::test_noise_ratio[tiny-qwen3-bf16_fp32]'")
    assert "--npuconf-results" not in failure.command
    assert view.headline == (
        "With FAULT dead-weight-row, injected on purpose: on cpu, tiny-qwen3 failed 1 of 28 required checks: "
        "modules.noise_ratio.bf16_fp32."
    )


@pytest.mark.parametrize(
    ("command", "kept"),
    [
        ("pytest --npu --model m --npuconf-results r.json -v", "pytest --npu --model m -v n"),
        (
            "pytest --npuconf-results=r.json --npuconf-report p.html --junitxml=j.xml -k 'a or b' -m x --model m",
            "pytest --model m n",
        ),
        ("", ""),
        ("pytest 'unfinished", ""),
    ],
)
def test_the_command_of_one_check_writes_over_no_file(command, kept):
    assert command_of(command, "n") == kept


def test_required_failures_come_before_those_that_decide_nothing():
    document = results("broken")
    report = record(document, "audit.document")
    report |= {"verdict": "fail"}
    document["checks"].insert(0, report | {"check": "audit.other"})
    view = viewed(document)
    assert [(f.line.check, f.line.decides) for f in view.failures] == [
        ("modules.noise_ratio.bf16_fp32", True), ("audit.other", False), ("audit.document", False)
    ]  # fmt: skip
    assert compose(("r.json", document)).count("(does not decide)") == 2


def test_what_did_not_run_is_said_once_and_by_why():
    document = results()
    gone = record(document, "kl.noise_ratio.bf16_fp32")
    document["checks"].remove(gone)
    entry = document["models"][TINY]
    entry |= {"missing": [gone["check"]], "status": "INCOMPLETE", "interrupted": True}
    view = viewed(document)
    assert view.headline == (
        "Nothing is decided about tiny-qwen3 on cpu (41 required checks); the run was interrupted, 1 did not run."
    )
    line = next(line for line in view.lines if line.check == gone["check"])
    assert (line.word, line.measured) == ("did not run", "")
    entry["selected"].remove(gone["check"])
    view = viewed(with_status(document, "SUBSET"))
    assert view.headline.startswith(
        "This run was narrowed to 40 of 41 required checks of tiny-qwen3: it decides nothing"
    )
    assert next(line for line in view.lines if line.check == gone["check"]).measured == "not selected"


def test_an_unusable_output_and_an_unbounded_interval():
    document = results()
    record(document, "logits.rel_l2.fp32_fp32").update(
        value=None, broken="NaN at prompt 1", verdict="fail", would_pass=None
    )
    record(document, "ppl.delta.bf16_fp32").update(interval=[None, 0.01], verdict="inconclusive")
    text = compose(("r.json", document))
    assert "NaN at prompt 1" in text
    assert "[unbounded, 0.01]" in text


def test_waived_is_neither_passed_nor_failed():
    document = results()
    record(document, "ppl.delta.bf16_fp32").update(verdict="fail", waived="known, see the issue")
    view = viewed(document)
    assert {word: count for word, _, count in view.counts} == {"pass": 40, "waived": 1}
    assert view.failures == ()
    assert view.headline.endswith("passed 40 of the 41 checks that its card requires, 1 failed and waived.")
    text = compose(("r.json", document))
    assert "known, see the issue" in text
    assert "Nothing failed that is not waived" in text


def test_texts_and_lists_are_cut_and_say_so():
    document = results()
    answers = record(document, "functional.samples.bf16_fp32")["data"]["answers"]
    answers["capital"]["text"] = "a" * (LONGEST + 7)
    assert "7 more characters are in results.json" in compose(("r.json", document))
    one = record(document, "kl.noise_ratio.bf16_fp32") | {"verdict": "fail"}
    document["checks"] += [one | {"check": f"kl.noise_ratio{i}.bf16_fp32"} for i in range(MOST_FAILURES + 5)]
    assert f"{5} more did not pass" in compose(("r.json", document))


def test_a_precision_that_answers_the_same_is_not_shown_twice():
    document = results()
    answers = record(document, "functional.samples.bf16_fp32")["data"]["answers"]
    assert viewed(document).samples_total == len(answers)


def test_two_models_are_told_apart():
    document = results()
    document["models"]["other"] = copy.deepcopy(document["models"][TINY])
    document["checks"] += [{**each, "model": "other"} for each in results()["checks"]]
    text = compose(("r.json", document))
    assert '<a href="#m1">' in text
    assert '<a href="#m2">' in text
    ids = re.findall(r'\sid="([^"]+)"', text)
    assert len(ids) == len(set(ids))


def test_a_run_without_any_model_or_record():
    document = results()
    empty = document | {"models": {}, "checks": []}
    assert "NO MODEL WAS JUDGED" in compose(("r.json", empty))
    own = record(document, "model.config") | {"model": "", "check": "own: mine"}
    assert "own: mine" in compose(("r.json", empty | {"checks": [own]}))
    nothing = document | {"checks": []}
    nothing["models"][TINY] |= {"missing": nothing["models"][TINY]["required"], "status": "INCOMPLETE"}
    assert "(41 required checks); 41 did not run" in compose(("r.json", nothing))


def test_labels_are_on_the_page():
    for name in ("healthy", "broken", "speed"):
        text = compose(("r.json", results(name)))
        assert all(f"<b>{label}</b>" in text for label in results(name)["models"][TINY]["labels"])


def line(view, check):
    return next(each for each in view.lines if each.check == check)


def test_a_failed_speed_is_not_called_a_wrong_computation():
    document = with_status(results(), "NOT CONFORMANT", failed=["model.files"])
    record(document, "model.files").update(value=1.0, verdict="fail")
    assert viewed(document).headline == "On cpu, tiny-qwen3 failed 1 of 41 required checks: model.files."


def test_a_simulated_device_and_an_injected_fault_are_in_the_first_sentence():
    document = results()
    document["models"][TINY]["labels"] = ["SIMULATED", "VARIANT benign-split-k"]
    document["facts"]["fault"] = "benign-split-k"
    view = viewed(document)
    assert view.headline.startswith(
        "With VARIANT benign-split-k, injected on purpose: on cpu, simulated, tiny-qwen3 passed"
    )
    text = compose(("r.json", document))
    assert "says nothing of the model itself" in text
    assert "npuconf bundle" not in text


def test_everything_that_kept_a_run_from_its_verdict_is_named():
    document = with_status(
        results("broken"), "NOT CONFORMANT", interrupted=True, errors=["npuconf/a.py::b"], missing=["x.y"]
    )
    document["models"][TINY]["required"].append("x.y")
    assert viewed(document).headline.endswith(
        "failed 1 of 29 required checks: modules.noise_ratio.bf16_fp32; the run was interrupted, 1 did not run, 1 failed outside "
        "their gates."
    )
    text = compose(("r.json", document))
    assert "The run was interrupted: let it run to its end." in text
    assert "Run the whole suite" not in text
    document["models"][TINY] |= {"interrupted": False, "errors": []}
    assert "Run the whole suite" in compose(("r.json", document))


def test_room_in_words():
    document = results()
    record(document, "kl.positions.bf16_fp32").update(value=None, broken="NaN", verdict="fail", would_pass=None)
    record(document, "ppl.delta.bf16_fp32").update(value=0.33, interval=[0.3, 0.36], verdict="fail")
    record(document, "ppl.delta.bf16_bf16").update(value=0.03, interval=[0.025, 0.03], verdict="fail")
    view = viewed(document)
    words = [line(view, f"{check}").room for check in (
        "kl.positions.bf16_fp32", "ppl.delta.bf16_fp32", "ppl.delta.bf16_bf16", "model.config", "logits.cosine.bf16_fp32",
    )]  # fmt: skip
    assert words == ["no number", "12 × the bound", "50 % over", "exact", ""]
    assert line(view, "modules.noise_ratio.bf16_fp32").room == "17 % left"
    text = compose(("r.json", document))
    assert all(f"{word}</" in text for word in words if word)


def test_unusable_outputs_are_explained_by_where_they_begin():
    document = results()
    for check in ("equivalence.batch.bf16_fp32", "kl.noise_ratio.bf16_fp32"):
        record(document, check).update(value=None, broken="NaN at prompt 1", verdict="fail", would_pass=None, rows=[
            {"place": "prompt 1", "value": 1.0, "detail": "NaN"}
        ])  # fmt: skip
    record(document, "logits.finite.bf16_fp32").update(value=3.0, verdict="fail")
    view = viewed(document)
    assert view.failures[0].line.check == "logits.finite.bf16_fp32"
    assert {f.then for f in view.failures[1:]} == {
        "Its output was not finite: begin with the checks above that say where."
    }
    assert view.failures[1].places == ("prompt 1 (NaN)",)


def test_an_inconclusive_check_says_what_would_settle_it():
    document = results()
    record(document, "kl.noise_ratio.bf16_fp32").update(value=1.4, interval=[1.2, 1.7], n=32, verdict="inconclusive")
    (failure,) = viewed(document).failures
    assert failure.then == "The interval straddles the bound: about 288 documents would settle it (now 32)."


def test_a_required_check_without_a_verdict_stands_once():
    document = results()
    each = record(document, "kl.noise_ratio.bf16_fp32")
    each.update(verdict=None, bound=None, sense=None)
    document["models"][TINY] |= {"missing": [each["check"]], "status": "INCOMPLETE"}
    assert [one.word for one in viewed(document).lines if one.check == each["check"]] == ["did not run"]


def test_claims_say_what_is_documented_and_whether_it_holds():
    document = results()
    first, second = [claim for each in document["checks"] for claim in each["claims"]][:2]
    first |= {"standing": "contradicted", "documented": "DOCUMENTED ONE"}
    second |= {"standing": "not reproduced", "documented": "DOCUMENTED TWO"}
    document["claims"]["not measured"] = 7
    view = viewed(document)
    assert [claim["standing"] for claim in view.claims] == [
        "contradicted",
        "not reproduced",
        "reproduced",
        "reproduced",
    ]
    text = compose(("r.json", document))
    assert "7 not measured by this run" in text
    rows = re.findall(r"<tr><th scope=\"row\">[^<]*</th><td data-label=\"documented\">(.*?)</tr>", text, re.DOTALL)
    assert "DOCUMENTED ONE" in rows[0]
    assert "✗</span> contradicted" in rows[0]
    assert "DOCUMENTED TWO" in rows[1]
    assert "?</span> not reproduced" in rows[1]
    assert "✓</span> reproduced" in rows[2]


def test_a_failure_on_the_page_has_every_part():
    text = compose(("r.json", results("broken")))
    article = re.search(r'<article class="failure.*?</article>', text, re.DOTALL).group()
    parts = ("Guilty module", "What to do", "Run it alone", "<dt>Would have passed</dt><dd>&lt;= 327.8")
    for part in (*parts, "modules.noise_ratio = 327.7 (95 modules), gate &lt;= 1.25"):
        assert part in article
    assert "tiny-qwen3: weights fixtures/tiny-qwen3" in text


def test_own_checks_say_their_verdict_and_how_many_there_are():
    document = results()
    own = record(document, "model.config") | {"model": "", "check": "own: mine", "verdict": "fail"}
    document["checks"] += [own | {"check": f"own: {i}"} for i in range(510)]
    text = compose(("r.json", document))
    assert "10 more are in results.json" in text
    row = re.search(r"own: 0</th>.*?</tr>", text, re.DOTALL).group()
    assert "✗</span> fail" in row


# ---- pictures -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("healthy", {"modules", "kl-noise", "kl-positions", "token", "ppl", "hidden"}),
        ("speed", {"speed-sweep", "speed-physics", "speed-run"}),
    ],
)
def test_what_has_a_picture(name, expected):
    gallery = gallery_of(run_of(results(name), TINY), "m1")
    assert not gallery.not_drawn
    assert gallery.overview is not None
    keys = {picture.key for picture in gallery.pictures}
    assert all(any(key.startswith(f"m1-{one}") for key in keys) for one in expected)
    for picture in [gallery.overview, *gallery.pictures]:
        assert picture.rows
        assert {len(row) for row in picture.rows} == {len(picture.header)}
        assert "nan" not in picture.svg.lower().replace("nano", "")


def test_the_pages_colours_and_no_others():
    gallery = gallery_of(run_of(results("speed"), TINY), "m1")
    gallery.pictures += gallery_of(run_of(results(), TINY), "m2").pictures
    left = {colour for picture in gallery.pictures for colour in re.findall(r"#[0-9a-f]{6}\b", picture.svg)}
    assert left == set()
    style = Path(composing.__file__).with_name("page.css").read_text(encoding="utf-8")
    used = {name for picture in gallery.pictures for name in re.findall(r"var\(--([a-z]+)\)", picture.svg)}
    assert used
    assert all(f"--{name}:" in style for name in used)


ODD = (None, "x", [1, 2], {"a": 1}, {"a": {"b": "c"}}, [{"first": "x"}, {}], {"a": None})


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_data_of_another_form_loses_its_picture_and_says_so(odd):
    for name in ("healthy", "speed"):
        document = results(name)
        for each in document["checks"]:
            for key in (
                "ratios",
                "by_position",
                "buckets",
                "gaps",
                "texts",
                "layers",
                "figures",
                "sweep",
                "tpot_ms",
                "held",
            ):
                if key in each["data"]:
                    each["data"][key] = odd
        gallery = gallery_of(run_of(document, TINY), "m1")
        assert len(gallery.pictures) < {"healthy": 8, "speed": 3}[name]


def marks(svg, colour):
    """How often a colour of the page fills or draws something of a picture."""
    return svg.count(f"var(--{colour})")


def test_the_overview_marks_what_failed_and_sorts_the_fullest_first():
    document = results("broken")
    judged = [each for each in document["checks"] if each["role"] == "required"]
    found = precision.margins("k", judged)
    assert found.rows[0] == ("modules.noise_ratio.bf16_fp32", "26217.5%", "26217.5% to 26217.5%", "fail") or (
        found.rows[0][0], found.rows[0][3]
    ) == ("modules.noise_ratio.bf16_fp32", "fail")  # fmt: skip
    shares = [float(row[2].split(" to ")[1].rstrip("%")) for row in found.rows]
    assert shares == sorted(shares, reverse=True)
    assert marks(found.svg, "bad") > 0
    healthy = precision.margins("k", [each for each in results()["checks"] if each["role"] == "required"])
    assert marks(healthy.svg, "bad") == 0
    broken = record(document, "kl.noise_ratio.bf16_fp32") | {"value": None, "broken": "NaN", "verdict": "fail"}
    assert precision.margins("k", [broken]).rows == (
        ("kl.noise_ratio.bf16_fp32", "no number", "no number to no number", "fail"),
    )


def test_modules_over_the_bound_are_marked_and_named():
    found = precision.modules("k", record(results("broken"), "modules.noise_ratio.bf16_fp32"))
    assert found.rows[0] == ("model.layers.3.mlp.up_proj", "327.7")
    assert "model.layers.3.mlp.up_proj" in found.svg
    assert marks(found.svg, "bad") > 0
    healthy = record(results(), "modules.noise_ratio.bf16_fp32")
    assert marks(precision.modules("k", healthy).svg, "bad") == 0
    healthy["data"]["ratios"]["model.layers.1.mlp"] = None
    assert "no finite ratio: model.layers.1.mlp." in precision.modules("k", healthy).caption


def test_disagreements_are_counted_whole_though_the_farthest_are_drawn():
    each = record(results(), "token.match.bf16_fp32")
    each["data"] |= {"gaps": [[3.0, 1.0], [0.5, 1.0]], "disagreements": 523, "near_ties": 185}
    found = precision.top1_gaps("k", each)
    assert found.rows == (("3", "1", "error"), ("0.5", "1", "near tie"))
    assert "523 differ in the best token. The 2 farthest beyond a near tie are drawn." in found.caption
    assert "counts as an error (338)" in found.svg
    assert "near tie: excused (185)" in found.svg
    crosses = len(re.findall(r"<use[^>]*var\(--bad\)", found.svg))
    each["data"]["gaps"] += [[0.4, 1.0], [0.3, 1.0]]  # two near ties more, and as many crosses as before
    assert (
        len(re.findall(r"<use[^>]*var\(--bad\)", precision.top1_gaps("k", each).svg)) == crosses == 2
    )  # one, and the legend's


def test_perplexity_rises_where_the_candidate_is_worse():
    each = record(results(), "ppl.delta.bf16_fp32")
    each["data"]["texts"] = {"text 1": {"candidate_nll": 101.0, "reference_nll": 100.0, "tokens": 50}}
    (row,) = precision.perplexity("k", each).rows
    assert row == ("text 1", "50", "7.5383", "7.3891", "+2.0201 %")


def test_a_perplexity_beyond_all_numbers_is_still_drawn():
    each = record(results(), "ppl.delta.bf16_fp32")
    broken = {"candidate_nll": 1e6, "reference_nll": 100.0, "tokens": 50}
    each |= {"value": 1e300, "interval": [1e299, None]}
    each["data"]["texts"] = {"text 1": broken, "text 2": {**broken, "candidate_nll": 1500.0}}
    rows = precision.perplexity("k", each).rows
    assert rows == (
        ("text 1", "50", "1.014e+304", "7.3891", "+1.014e+306 %"),
        ("text 2", "50", "1.069e+13", "7.3891", "+1.446e+14 %"),
    )


def speed_record(**data):
    return {"check": "speed.x.bf16_fp32", "data": data, "labels": ["CPU"]}


def test_pictures_of_speed_have_their_units_right():
    found = speed.memory("k", speed_record(held=[2**20, 3 * 2**20], requests=[10, 20]))
    assert found.rows == (("10", "1"), ("20", "3"))
    found = speed.steady("k", speed_record(rates=[100.0, 50.0], window_seconds=4.0))
    assert found.rows == (("2", "100"), ("6", "50"))
    found = speed.physics("k", speed_record(least_tpot_ms={"one": 1.0}, tpot_ms={"one": 4.0}))
    assert found.rows == (("one", "4", "1"),)
    assert ">25.0%<" in found.svg
    found = speed.capacity("k", speed_record(expected={"tokens": 200}, reported={"kv_tokens": 100}))
    assert found.rows == (("KV tokens", "100", "200"),)
    assert marks(found.svg, "bad") > 0
    assert (
        marks(speed.capacity("k", speed_record(expected={"tokens": 200}, reported={"kv_tokens": 200})).svg, "bad") == 0
    )


def test_a_model_so_broken_that_nothing_can_be_drawn_still_has_its_page():
    document = results("broken")
    for each in document["checks"]:
        for text in (each["data"].get("texts") or {}).values():
            text["candidate_nll"] = 1e9
    record(document, "ppl.delta.bf16_bf16")["data"]["texts"]["text 1"]["tokens"] = 0
    text = compose(("r.json", document))
    assert "NOT CONFORMANT" in text
    assert "cannot be drawn" in text


def test_the_worst_pair_of_a_kind_is_drawn():
    document = results()
    texts = record(document, "ppl.delta.fp32_fp32")
    texts.update(verdict="fail", value=0.5, interval=[0.4, 0.6])
    gallery = gallery_of(run_of(document, TINY), "m1")
    titles = [picture.title for picture in gallery.pictures if "Perplexity" in picture.title]
    assert titles[0].endswith("ppl.delta.fp32_fp32")


def test_names_that_look_like_our_own_marks_are_drawn_as_they_are():
    each = record(results("broken"), "modules.noise_ratio.bf16_fp32")
    name = "#ffffff url(#x) font: a'b id=\"c"
    each["data"]["ratios"] = {name: 400.0}
    svg = precision.modules("k", each).svg
    assert "#ffffff url(#x) font: a" in svg
    assert svg.count("<") == svg.count(">")


def test_a_plot_of_nothing():
    empty = {"data": {}, "value": None, "check": "x", "bound": 1.0, "sense": "<=", "labels": []}
    for draw in (
        precision.kl_by_position, precision.ratio_by_bucket, precision.modules, precision.top1_gaps, precision.perplexity,
        speed.rounds, speed.steady, speed.memory, speed.sweep, speed.capacity, speed.physics,
    ):  # fmt: skip
        assert draw("k", empty) is None
    assert precision.margins("k", []) is None
    assert precision.hidden_by_layer("k", []) is None
    with pytest.raises(ValueError, match="nothing to draw"):
        drawing.draw_picture("k", "t", "c", (), [], print)


@pytest.mark.parametrize(
    ("sense", "bound", "value", "interval", "used"),
    [
        ("<=", 1.5, 1.2, [0.9, 1.5], (0.8, 0.6, 1.0)),
        (">=", 0.9, 0.95, [0.9, 1.0], (1 - 0.05 / 0.9, 1 - 0.1 / 0.9, 1.0)),
        (">=", 0.7, 0.2281, [0.083, 0.629], (1 + 0.4719 / 0.7, 1 + 0.071 / 0.7, 1 + 0.617 / 0.7)),  # 88 % over
        (">=", 0.9, -0.95, None, (1 + 1.85 / 0.9,) * 3),
        ("+-", 0.02, -0.01, [-0.03, 0.01], (0.5, 0.0, 1.5)),
        ("+-", 0.02, -0.01, [-0.03, -0.005], (0.5, 0.25, 1.5)),
        ("+-", 0.02, -0.01, [None, 0.01], (0.5, 0.0, math.inf)),
        ("<=", 1.5, 1.2, [None, None], (0.8, 0.0, math.inf)),
        ("<=", 1.5, 0.8, [None, 1.0], (0.8 / 1.5, 0.0, 1 / 1.5)),
        ("<=", 64, -200, [-300, -100], (0.0, 0.0, 0.0)),  # a server that gave memory back
        ("<=", 64, 1, [-70, 10], (1 / 64, 0.0, 10 / 64)),
        ("<=", -5, -10, None, (0.0, 0.0, 0.0)),
    ],
)
def test_how_much_of_its_bound_a_check_uses(sense, bound, value, interval, used):
    one = {"sense": sense, "bound": bound, "value": value, "interval": interval, "verdict": "pass"}
    assert precision.bound_used(one) == pytest.approx(used)
    assert precision.bound_used(one | {"bound": 0.0}) is None
    assert precision.bound_used(one | {"value": None}) is None


@pytest.mark.parametrize("name", ["healthy", "broken", "speed", "smollm2", "reranker", "minilm"])
def test_room_is_what_the_terminal_says(name):
    for each in results(name)["checks"]:
        left, used = room_left(each), precision.bound_used(each)
        if left is not None and used is not None:
            assert 1 - used[2] == pytest.approx(min(left, 1.0), abs=1e-12), each["check"]


def test_names_are_sorted_as_people_do():
    names = ["norm", "layers.10", "layers.2", "text 1", "512-", "64-127", "0-15"]
    assert sorted(names, key=drawing.natural) == ["0-15", "64-127", "512-", "layers.2", "layers.10", "text 1", "norm"]


def test_a_page_has_an_end():
    gallery = gallery_of(run_of(results(), TINY), "m1")
    for i in range(MOST):
        gallery.add(f"one {i}", lambda: gallery.pictures[0])
    assert len(gallery.pictures) == MOST
    assert "at most 16 pictures" in gallery.not_drawn[0]


def test_a_page_that_would_be_too_large_leaves_pictures_out_and_says_so(monkeypatch):
    whole = len(compose(("r.json", results())).encode())
    monkeypatch.setattr(composing, "MOST_BYTES", whole - 20_000)
    text = compose(("r.json", results()))
    assert len(text.encode()) <= whole - 20_000
    assert text.count("the page would pass") == 1  # the largest alone is enough
    monkeypatch.setattr(composing, "MOST_BYTES", 1_000)
    with pytest.raises(SettingsError, match="bytes without pictures"):
        compose(("r.json", results()))


@pytest.mark.parametrize("models", [1, 12])
def test_long_texts_and_long_lists_are_shortened_and_never_refused(models):
    document = results()
    each = record(document, "kl.noise_ratio.bf16_fp32")
    rows = [{"place": "p" * 3000, "value": 1.0, "detail": "d" * 3000}] * 5
    document["facts"]["command"] = "pytest " + "x" * 2_500_000
    document["models"][TINY]["errors"] = ["e" * 100_000] * 30
    each["data"]["notes"] = ["n" * 2_500_000]
    document["checks"] += [each | {"check": f"kl.noise_ratio{i}.bf16_fp32", "rows": rows} for i in range(3000)]
    for i in range(models - 1):
        document["models"][f"m{i}"] = document["models"][TINY]
        document["checks"] += [one | {"model": f"m{i}"} for one in results()["checks"]]
    text = compose(("r.json", document))
    assert len(text.encode()) <= composing.MOST_BYTES
    assert "more are not listed" in text
    assert "more characters are in results.json" in text


def test_half_of_a_surrogate_pair_in_an_answer_costs_no_page():
    document = results()
    record(document, "functional.samples.bf16_fp32")["data"]["answers"]["capital"]["text"] = "\ud800"
    compose(("r.json", document)).encode()


# ---- two runs, and many -------------------------------------------------------------------------------------------------


def one(value, interval=None, sense="<=", metric="m", broken=""):
    return {"value": value, "interval": interval, "sense": sense, "metric": metric, "broken": broken, "unit": ""}


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        (one(1.0, [0.9, 1.1]), one(1.05, [0.95, 1.15]), "within the intervals"),
        (one(1.0, [0.9, 1.1]), one(1.5, [1.4, 1.6]), "worse"),
        (one(1.5, [1.4, 1.6]), one(1.0, [0.9, 1.1]), "better"),
        (one(1.0, [0.9, 1.1], ">="), one(1.5, [1.4, 1.6], ">="), "better"),
        (one(0.01, [0.008, 0.012], "+-"), one(-0.03, [-0.032, -0.028], "+-"), "worse"),
        (one(-0.03, [-0.032, -0.028], "+-"), one(0.01, [0.008, 0.012], "+-"), "better"),
        (one(1.0, [0.9, 1.1], None), one(1.5, [1.4, 1.6], None), "changed"),
        (one(1.0), one(1.0), "same"),
        (one(1.0), one(1.1), "cannot be told"),
        (one(1.0, [1.0, 1.0]), one(1.1, [1.1, 1.1]), "cannot be told"),  # no interval was estimated
        (one(1.0, [0.9, 1.1]) | {"unit": "s"}, one(1000.0, [900.0, 1100.0]) | {"unit": "ms"}, "cannot be told"),
        (one(-0.01, [-0.012, -0.008], "+-"), one(0.01, [0.008, 0.012], "+-"), "within the intervals"),
        (one(-0.02, [-0.025, -0.015], "+-"), one(0.021, [0.016, 0.026], "+-"), "within the intervals"),
        (one(0.001, [-0.002, 0.003], "+-"), one(-0.02, [-0.022, -0.018], "+-"), "worse"),
        (one(1.0, metric="a"), one(1.0, metric="b"), "cannot be told"),
        (one(None, broken="NaN"), one(None, broken="NaN"), "same"),
        (one(None, broken="NaN"), one(1.0), "cannot be told"),
        (one(1.0, [None, 1.1]), one(9.0, [8.9, None]), "worse"),
        (one(9.0, [8.9, None]), one(1.0, [None, 1.1]), "better"),
        (one(1.0, [0.9, None]), one(9.0, [8.9, 9.1]), "within the intervals"),
    ],
)
def test_whether_a_figure_changed(old, new, word):
    assert difference(old, new) == word


def test_the_interval_of_a_difference_is_that_of_mover():
    """Two normal means with standard errors 3 and 4: their difference has 5."""
    z = 1.96
    low, high = interval_of_difference(one(10.0, [10 - 3 * z, 10 + 3 * z]), one(20.0, [20 - 4 * z, 20 + 4 * z]))
    assert (low, high) == pytest.approx((10 - 5 * z, 10 + 5 * z))
    assert interval_of_difference(one(1.0, [None, 2.0]), one(2.0, [1.5, 3.0]))[1] == math.inf


def test_a_comparison_says_what_turned_and_what_else_is_not_the_same():
    old, new = results(), results("broken")
    found = compare(old, new, ("old.json", "new.json"))
    first = found.changes[0]
    assert (first.check, first.before_word, first.after_word, first.worse) == (
        "modules.noise_ratio.bf16_fp32",
        "pass",
        "fail",
        True,
    )
    assert found.statuses == ((TINY, "CONFORMANT", "NOT CONFORMANT"),)
    assert ("fault", "", "dead-weight-row") in found.conditions
    assert found.counts["only in one"] == sum(1 for each in old["checks"] if "fp32_fp32" in each["check"])
    text = compose(("new.json", new), [("old.json", old)])
    assert "pass → fail" in text
    assert "run by run" not in text  # two runs are no trend


def test_a_run_against_itself_has_changed_in_nothing():
    found = compare(results(), results(), ("a", "b"))
    assert found.counts == {"same": len(results()["checks"])}
    assert found.conditions == ()
    assert "Device, versions, settings, weights and card are the same." in compose(("b", results()), [("a", results())])


def test_the_latest_of_several_earlier_runs_is_compared_whatever_their_order():
    runs = [(f"{month}.json", results() | {"created": f"2026-0{month}-01T00:00:00+00:00"}) for month in (3, 1, 2)]
    text = compose(("now.json", results()), runs)
    assert "<code>3.json (2026-03-01" in text
    order = [text.index(f"{month}.json</th>") for month in (1, 2, 3)]
    assert order == sorted(order)
    assert "tiny-qwen3, run by run" in text


def test_two_models_cannot_be_compared():
    other = results()
    other["models"] = {"other": other["models"][TINY]}
    with pytest.raises(SettingsError, match=re.escape("a.json has no model of b.json: other against tiny-qwen3")):
        compose(("b.json", results()), [("a.json", other)])
    with pytest.raises(SettingsError, match="a has no model"):
        history(TINY, [("a", other)], "h")


def test_a_model_of_one_run_only_is_said_and_has_its_own_history():
    both = results()
    both["models"]["other"] = copy.deepcopy(both["models"][TINY])
    earlier = [(f"{i}.json", results() | {"created": f"2026-0{i}-01T00:00:00+00:00"}) for i in (1, 2)]
    text = compose(("now.json", both), earlier)
    assert "Only one of the runs has: other." in text
    assert "tiny-qwen3, run by run" in text
    assert "other, run by run" not in text


def test_other_weights_and_another_bound_are_said():
    old, new = results(), results()
    old["models"][TINY]["weights"] = "elsewhere/tiny-qwen3"
    new["facts"]["fingerprint"]["versions"]["torch"]["value"] = "9.9"
    new["models"][TINY]["card_sha256"] = "0" * 64
    record(new, "kl.noise_ratio.bf16_fp32").update(bound=0.5, verdict="fail")
    found = compare(old, new, ("a", "b"))
    names = {name for name, _, _ in found.conditions}
    assert names == {f"{TINY}: weights", f"{TINY}: card", "versions: torch"}
    first = found.changes[0]
    assert (first.check, first.word, first.turned, first.worse) == ("kl.noise_ratio.bf16_fp32", "same", True, True)
    assert first.before.endswith(", gate <= 1.5")
    assert first.after.endswith(", gate <= 0.5")


def test_of_a_rerun_the_worst_is_compared():
    new = results()
    failing = record(new, "ppl.delta.bf16_fp32") | {"verdict": "fail"}
    new["checks"].insert(0, failing)
    change = next(c for c in compare(results(), new, ("a", "b")).changes if c.check == "ppl.delta.bf16_fp32")
    assert (change.before_word, change.after_word) == ("pass", "fail")


def test_a_long_history_ends():
    many = [
        (str(i), results() | {"created": f"2026-01-01T00:00:{i % 60:02}.{i:06}+00:00"}) for i in range(MOST_RUNS + 3)
    ]
    found = history(TINY, many, "h")
    assert (len(found.runs), found.left_out) == (MOST_RUNS, 3)
    drawn = found.picture.header[1:]
    shares = [precision.bound_used(record(results(), check))[0] for check in drawn]
    assert found.picture.rows[0] == ("1", *map(format_number, shares))  # the figures, not their intervals' ends
    assert any(
        precision.bound_used(record(results(), check))[2] > share for check, share in zip(drawn, shares, strict=True)
    )
    assert found.runs[0][2] == "CONFORMANT"


def test_size_against_quality_of_the_same_tokens_only():
    assert compression([("a", results())], "c") is None  # one size
    small = results()
    record(small, "model.weight_size")["value"] /= 4
    for text in record(small, "ppl.delta.bf16_fp32")["data"]["texts"].values():
        text["candidate_nll"] += 0.1 * text["tokens"]
    found = compression([("a", results()), ("b", small)], "c")
    rows = {(float(size), words): float(quality) for words, size, quality in found.rows}
    sizes = sorted({size for size, _ in rows})
    assert sizes == pytest.approx([7484912 / 4, 7484912], rel=1e-3)
    small_one, large_one = rows[sizes[0], "tiny-qwen3, bfloat16, b"], rows[sizes[1], "tiny-qwen3, bfloat16, a"]
    assert small_one / large_one == pytest.approx(math.exp(0.1), rel=1e-3)
    for text in record(small, "ppl.delta.bf16_fp32")["data"]["texts"].values():
        text["tokens"] += 1  # another tokenizer
    for text in record(small, "ppl.delta.fp32_fp32")["data"]["texts"].values():
        text["tokens"] += 2
    assert compression([("a", results()), ("b", small)], "c") is None
    record(small, "ppl.delta.bf16_fp32")["data"]["texts"] = {"x": 3}
    assert "Size against quality" not in compose(("a", results()), [("b", small)])


# ---- faults -------------------------------------------------------------------------------------------------------------


CAMPAIGN = {
    "model": "m", "labels": ["CPU"], "command": "npuconf faults --model m",
    "summary": {"overall": {"caught": 1, "quiet": 1, "error": 0}},
    "faults": [
        {
            "name": "dead-weight-row", "description": "one row <b>is</b> zero", "outcome": "caught", "benign": False,
            "runs": {
                "float32": {"status": "judged", "failed": ["kl.noise_ratio.fp32_fp32"], "inconclusive": [], "guilty": ["a.b"]},
                "bfloat16": {"status": "judged", "failed": [], "inconclusive": ["ppl.delta.bf16_fp32"], "guilty": []},
                "float16": {"status": "inapplicable"},
            },
        },
        {"name": "benign-split-k", "description": "d", "outcome": "quiet", "benign": True, "runs": {}},
    ],
}  # fmt: skip


def test_the_fault_matrix(tmp_path):
    path = tmp_path / "faults.json"
    path.write_text(json.dumps(CAMPAIGN))
    matrix = read_matrix(path)
    assert matrix.columns == ("kl.noise_ratio", "ppl.delta")
    assert matrix.rows[0].cells == (("caught", "fp32"), ("unsure", "bf16"))
    assert matrix.rows[0].module == "a.b"
    assert matrix.summary == {"caught": 1, "quiet": 1}
    text = compose(("r.json", results()), matrices=[matrix])
    assert "one row &lt;b&gt;is&lt;/b&gt; zero" in text
    assert "benign-split-k (benign)" in text


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"faults": 3}', json.dumps(CAMPAIGN | {"faults": [{}]}), json.dumps(CAMPAIGN | {"summary": {}})],
)
def test_what_is_no_campaign_is_refused(tmp_path, content):
    path = tmp_path / "faults.json"
    path.write_text(content)
    with pytest.raises(SettingsError, match="is not the JSON of a campaign") as told:
        read_matrix(path)
    assert "npuconf faults" in told.value.mend
    with pytest.raises(SettingsError, match="cannot read"):
        read_matrix(tmp_path / "none.json")


# ---- the command --------------------------------------------------------------------------------------------------------


def test_the_command_writes_beside_the_results(tmp_path, capsys):
    path = tmp_path / "r.json"
    path.write_bytes((DATA / "healthy.json").read_bytes())
    assert main(["report", str(path)]) == 0
    assert (tmp_path / "r.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert "r.html" in capsys.readouterr().out
    older = tmp_path / "older.json"
    older.write_text(json.dumps(results("broken") | {"created": "2026-01-01T00:00:00+00:00"}), encoding="utf-8")
    assert main(["report", str(path), "--out", str(tmp_path / "p.html"), "--earlier", str(older)]) == 0
    assert "fail → pass" in (tmp_path / "p.html").read_text(encoding="utf-8")
    capsys.readouterr()
    assert main(["report", str(path), "--earlier", str(path), str(older)]) == 0
    assert f"{path} is the run itself: left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["none.json"], "cannot read"),
        (["r.json", "--out", "r.json"], "would be written over"),
        (["r.json", "--earlier", "old.json", "--out", "old.json"], "would be written over"),
        (["old.json"], "schema_version is 99"),
        (["nan.json"], "NaN"),
        (["r.json", "--out", "folder"], "folder"),
        (["r.json", "--earlier", "later.json"], "later.json is later than "),
        (["r.json", "--faults", "r.json"], "is not the JSON of a campaign"),
    ],
)
def test_what_the_command_refuses_leaves_nothing(tmp_path, monkeypatch, capsys, arguments, says):
    monkeypatch.chdir(tmp_path)
    data = (DATA / "healthy.json").read_text(encoding="utf-8")
    (tmp_path / "r.json").write_text(data, encoding="utf-8")
    (tmp_path / "old.json").write_text('{"schema_version": 99}', encoding="utf-8")
    (tmp_path / "nan.json").write_text(data.replace('"exit_status": 0', '"exit_status": NaN'), encoding="utf-8")
    (tmp_path / "later.json").write_text(
        json.dumps(results() | {"created": "2999-01-01T00:00:00+00:00"}), encoding="utf-8"
    )
    (tmp_path / "folder").mkdir()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert main(["report", *arguments]) == 1
    assert says in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("library", ["jinja2", "matplotlib"])
def test_a_missing_library_is_named_with_what_installs_it(monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(SettingsError, match=f"needs {library}") as told:
        compose(("r.json", results()))
    assert told.value.mend == "pip install 'pytest-npuconf[report]'"
