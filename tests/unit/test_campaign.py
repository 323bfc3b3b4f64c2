"""The campaign's matrix, its text and its store: from results of runs, without running any."""

from __future__ import annotations

import json

import pytest

from pytest_npuconf.campaign import matrix, output, session
from pytest_npuconf.campaign.command import _again, _choose, _of_another_engine
from pytest_npuconf.campaign.store import Store, Task
from pytest_npuconf.campaign.worker import told
from pytest_npuconf.cli import _parser
from pytest_npuconf.errors import FaultError, SettingsError
from pytest_npuconf.faults.catalogue import choose_fault

LOW, FULL = "bfloat16", "float32"
KL, REL, FINITE, MODULES = "kl.noise_ratio", "logits.rel_l2", "logits.finite", "modules.noise_ratio"
PAIR = {LOW: "bf16_fp32", FULL: "fp32_fp32"}


def fault(name, **given):
    plain = {"name": name, "description": f"{name} is broken", "magnitude": "x2", "expected": KL, "benign": False, "seen": "",
             "module": "", "precisions": [], "equivalent": "", "identity": "i", "target": "model"}  # fmt: skip
    return {**plain, **given}


def record(verdict="pass", role="required", **given):
    plain = {"verdict": verdict, "role": role, "value": 2.0, "unit": "", "bound": 1.5, "sense": "<=", "interval": None,
             "broken": "", "worst": None, "waived": ""}  # fmt: skip
    return {**plain, **given}


def judged(name, precision, fail=(), inconclusive=(), guilty="", errors=None, claims=()):
    checks = {f"{c}.{PAIR[precision]}": record() for c in (KL, REL, FINITE, MODULES)}
    for verdict, names in (("fail", fail), ("inconclusive", inconclusive)):
        checks |= {f"{c}.{PAIR[precision]}": record(verdict) for c in names}
    checks |= {f"{c}.{PAIR[precision]}": record("fail", "claim") for c in claims}
    checks[f"{MODULES}.{PAIR[precision]}"]["guilty"] = guilty
    return {"fault": name, "precision": precision, "status": "judged", "checks": checks, "left_out": ["model.files"],
            "errors": errors or {}, "seconds": 1.0, "cpu_seconds": 1.0}  # fmt: skip


def build(faults, *results, precisions=(LOW, FULL)):
    clean = [judged("", p) for p in precisions]
    return matrix.build(faults, precisions, {(r["fault"], r["precision"]): r for r in [*clean, *results]})


def only(faults, *results, **given):
    (entry,) = build(faults, *results, **given)["faults"]
    return entry


def failed(name, precision, kind, text="boom"):
    return {"fault": name, "precision": precision, "status": "error", "kind": kind, "text": text, "seconds": 1.0}


def inapplicable(name, precision):
    return {
        "fault": name,
        "precision": precision,
        "status": "inapplicable",
        "reason": "no rotary embedding",
        "seconds": 1.0,
    }


def test_a_fault_is_caught_by_a_failed_required_check_at_any_precision():
    entry = only([fault("a")], judged("a", LOW), judged("a", FULL, fail=[REL]))
    assert entry["outcome"] == "caught"
    assert entry["runs"][FULL]["failed"] == ["logits.rel_l2.fp32_fp32"]
    assert entry["runs"][LOW]["failed"] == []


def test_a_fault_that_names_precisions_must_be_caught_at_each_of_them():
    runs = judged("a", LOW), judged("a", FULL, fail=[REL])
    assert only([fault("a", precisions=[FULL])], *runs)["outcome"] == "caught"
    assert only([fault("a", precisions=[LOW, FULL])], *runs)["outcome"] == "survived"


def test_a_survivor_is_told_with_where_it_was_caught_all_the_same():
    runs = judged("a", LOW), judged("a", FULL, fail=[REL]), judged("b", LOW), judged("b", FULL)
    said = output.text(build([fault("a", precisions=[LOW, FULL]), fault("b")], *runs))
    title = "survivors: not caught, or not wherever they must be:"
    assert f"{title}\n  a: a is broken (caught at float32 alone)\n  b: b is broken\n" in said


def test_inconclusive_and_claims_catch_nothing():
    entry = only([fault("a")], judged("a", LOW, inconclusive=[KL]), judged("a", FULL, claims=[REL]))
    assert entry["outcome"] == "survived"
    assert entry["runs"][LOW]["inconclusive"] == ["kl.noise_ratio.bf16_fp32"]


def test_a_survivor_with_a_proof_is_equivalent_and_a_caught_one_refutes_it():
    given = fault("a", equivalent="the mask is symmetric")
    assert only([given], judged("a", LOW), judged("a", FULL))["outcome"] == "equivalent"
    found = build([given], judged("a", LOW), judged("a", FULL, fail=[KL]))
    assert found["faults"][0]["outcome"] == "refuted"
    assert not matrix.good(found)
    said = output.text(found)
    assert "the proof is wrong, or the gate:\n  a: the mask is symmetric" in said
    assert "overall: 0 of 0 caught, 1 refuted" in said


def test_what_the_card_waives_catches_nothing():
    run = judged("a", LOW, fail=[KL])
    run["checks"][f"{KL}.{PAIR[LOW]}"]["waived"] = "known"
    assert only([fault("a")], run, precisions=(LOW,))["outcome"] == "survived"


def test_a_fault_of_the_middle_layer_is_located_in_no_other():
    given = told(choose_fault("dead-weight-row", []), 6)
    assert given["module"] == "model.layers.3.mlp.up_proj"
    for layer, located in ((3, "right"), (0, "wrong"), (13, "wrong")):
        run = judged("dead-weight-row", FULL, fail=[MODULES], guilty=f"model.layers.{layer}.mlp.up_proj")
        assert only([given], run, precisions=(FULL,))["located"] == located
    assert told(choose_fault("dead-weight-row", []))["module"] == "model.layers.*.mlp.up_proj"


def test_runs_whose_process_nobody_looked_at_again_are_named():
    found = build([fault("a")], judged("a", LOW, fail=[KL]), judged("a", FULL, fail=[KL]))
    said = output.text({**found, "not_looked_after": ["a at bfloat16"]})
    assert "not looked for whether these reached the next run: their processes ended before:\n  a at bfloat16" in said
    assert matrix.good({**found, "not_looked_after": ["a at bfloat16"]})


@pytest.mark.parametrize("kind", ["usage", "internal", "crash", "hang", "incomplete"])
def test_a_run_that_ended_in_an_error_is_never_caught(kind):
    entry = only([fault("a", equivalent="proof")], judged("a", LOW), failed("a", FULL, kind))
    assert entry["outcome"] == "error"
    assert entry["runs"][FULL] == {"status": "error", "kind": kind, "text": "boom", "seconds": 1.0}


def test_tests_that_ended_in_an_error_are_no_survival_but_a_failed_check_still_catches():
    errors = {"npuconf/x.py::test": "IndexError: 5"}
    assert only([fault("a")], judged("a", LOW, errors=errors), judged("a", FULL))["outcome"] == "error"
    assert only([fault("a")], judged("a", LOW, errors=errors, fail=[KL]), judged("a", FULL))["outcome"] == "caught"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"fail": [KL]}, "false alarm"),
        ({"inconclusive": [KL]}, "false alarm"),
        ({"claims": [KL]}, "quiet"),
        ({}, "quiet"),
        ({"errors": {"t": "x"}}, "error"),
    ],
)
def test_nothing_may_object_to_a_benign_variant(given, expected):
    runs = judged("b", LOW, **given), judged("b", FULL)
    assert only([fault("b", benign=True)], *runs)["outcome"] == expected


def test_a_clean_model_that_fails_is_a_false_alarm_and_nothing_is_good():
    found = matrix.build([], [LOW], {("", LOW): judged("", LOW, fail=[KL])})
    assert found["clean_outcome"] == "false alarm"
    assert not matrix.good(found)
    assert "until it is quiet" in output.text(found)


def test_a_fault_that_applies_nowhere_is_said_and_is_no_survivor():
    found = build([fault("a")], inapplicable("a", LOW), inapplicable("a", FULL))
    assert found["faults"][0]["outcome"] == "inapplicable"
    assert matrix.good(found)
    assert "do not apply to this model:\n  a: no rotary embedding" in output.text(found)
    half = only([fault("a")], inapplicable("a", LOW), judged("a", FULL))
    assert half["outcome"] == "survived"


def test_what_was_not_run_is_not_survived():
    assert only([fault("a")], judged("a", LOW))["outcome"] == "not run"
    assert only([fault("a")], judged("a", LOW, fail=[KL]))["outcome"] == "caught"


@pytest.mark.parametrize(
    ("guilty", "expected"), [("model.layers.3.mlp.up_proj", "right"), ("model.norm", "wrong"), ("", "unnamed")]
)
def test_the_module_named_is_compared_with_the_guilty_one(guilty, expected):
    runs = judged("a", LOW, fail=[MODULES], guilty=guilty), judged("a", FULL)
    found = build([fault("a", module="model.layers.*.mlp*")], *runs)
    assert found["faults"][0]["located"] == expected
    assert found["summary"]["overall"][f"located {expected}"] == 1
    assert ("another module was named" in output.text(found)) == (expected == "wrong")


def test_each_gate_has_the_faults_that_only_it_catches():
    faults = [fault("a"), fault("b"), fault("c", precisions=[FULL]), fault("d", benign=True)]
    found = build(
        faults,
        judged("a", LOW, fail=[KL]), judged("a", FULL, fail=[KL]),
        judged("b", LOW, fail=[KL]), judged("b", FULL, fail=[REL]),
        judged("c", LOW, fail=[KL]), judged("c", FULL, fail=[REL]),
        judged("d", LOW), judged("d", FULL),
    )  # fmt: skip
    assert found["alone"]["overall"] == {KL: ["a"], REL: ["c"], FINITE: [], MODULES: []}
    assert found["alone"][LOW][KL] == matrix.alone(found, precisions=[LOW])[KL] == ["a", "b", "c"]
    assert matrix.outcome(found["faults"][0], without=KL) == "survived"
    assert "caught by this gate alone:\n  kl.noise_ratio       a" in output.text(found)


def test_the_summary_counts_by_precision_alone():
    found = build(
        [fault("a"), fault("b")], judged("a", LOW, fail=[KL]), judged("a", FULL), judged("b", LOW), judged("b", FULL)
    )
    assert [found["summary"][w]["caught"] for w in ("overall", LOW, FULL)] == [1, 1, 0]
    assert "overall: 1 of 2 caught (50%), 1 survived" in output.text(found)
    assert not matrix.good(found)


def test_a_fault_that_reaches_the_next_run_is_not_good():
    found = build([])
    assert matrix.good(found)
    assert not matrix.good({**found, "leaks": ["at bfloat16 ..."]})


def test_the_table_has_a_mark_for_each_check():
    found = build([fault("a")], judged("a", LOW, fail=[KL], inconclusive=[REL]), failed("a", FULL, "crash", "SIGSEGV"))
    (row,) = [line for line in output.text(found).splitlines() if line.startswith("a  ")]
    assert row == "a        X.?.      erro     caught"
    assert "a at float32: crash\n      SIGSEGV" in output.text(found)


def test_the_json_is_sorted_and_an_unwritable_one_is_an_error(tmp_path):
    path = tmp_path / "m.json"
    output.write(path, build([fault("a")], judged("a", LOW), judged("a", FULL)))
    text = path.read_text(encoding="utf-8")
    assert list(json.loads(text)) == sorted(json.loads(text))
    assert json.loads(text)["schema_version"] == 1
    with pytest.raises(SettingsError, match="--json"):
        output.write(tmp_path / "none" / "m.json", build([]))


def test_the_store_gives_back_what_belongs_to_the_same_conditions_and_the_same_fault(tmp_path):
    store = Store(tmp_path, {"weights": "1", "npuconf": "0.1"})
    store.open(anew=True)
    result = judged("a/b c", LOW)
    store.put(result, "identity")
    again = Store(tmp_path, {"npuconf": "0.1", "weights": "1"})
    again.open(anew=False)
    task = Task("a/b c", LOW)
    assert again.get(task, "identity")["checks"] == result["checks"]
    assert again.get(task, "another") is None
    assert again.get(Task("a/b c", FULL), "identity") is None
    other = Store(tmp_path, {"weights": "2", "npuconf": "0.1"})
    other.open(anew=False)
    assert other.get(task, "identity") is None
    assert other.others() == [f"{store.folder} (differs in weights)"]
    Store(tmp_path, store.conditions).open(anew=True)
    assert store.get(task, "identity") is None


def test_half_a_result_file_is_run_again(tmp_path):
    store = Store(tmp_path, {})
    store.open(anew=True)
    store.put(judged("a", LOW), "")
    (path,) = [p for p in store.folder.iterdir() if p.name.startswith("a.")]
    path.write_text(path.read_text()[:40])
    assert store.get(Task("a", LOW), "") is None


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="--folder"):
        Store(tmp_path / "file", {}).open(anew=False)


def test_faults_are_chosen_by_name_benign_ones_last():
    offered = [fault("quiet", benign=True), fault("loud"), fault("other")]
    assert [f["name"] for f in _choose(offered, [])] == ["loud", "other", "quiet"]
    assert [f["name"] for f in _choose(offered, ["quiet", "loud"])] == ["loud", "quiet"]
    with pytest.raises(FaultError, match="no fault 'lod'; did you mean 'loud'"):
        _choose(offered, ["lod"])


def apart(faults, engine="server", asked=("serving.stop",), precisions=(LOW, FULL)):
    found = _of_another_engine(faults, {"engine": engine, "asked": list(asked), "precisions": list(precisions)})
    return {key: result["reason"] for key, result in found.items()}


def test_a_fault_of_a_server_is_not_run_without_one_nor_the_other_way_round():
    both = [fault("m"), fault("s", target="server", expected="serving.stop")]
    assert apart(both, "transformers") == dict.fromkeys(
        [("s", LOW), ("s", FULL)], "breaks a server; engine transformers has none"
    )
    assert apart(both, "server") == dict.fromkeys(
        [("m", LOW), ("m", FULL)], "breaks a transformers model; engine server has none in this process"
    )
    assert set(apart(both, "vllm", precisions=[LOW])) == {("m", LOW), ("s", LOW)}
    assert apart([], "server") == {}


@pytest.mark.parametrize(
    ("expected", "asked", "run"),
    [
        ("serving.stop", ("serving.stop",), True),
        ("pooling.rerank", ("serving.stop",), False),
        ("pooling.rerank, serving.stop", ("serving.stop",), True),
        ("serving.sto", ("serving.stop",), False),
        ("serving.stop", (), False),
    ],
)
def test_a_fault_of_a_mode_that_is_not_served_is_not_run(expected, asked, run):
    of_mode = fault("s", target="server", expected=expected)
    reason = f"is of a mode that is not served here: nothing asks {expected}"
    assert apart([of_mode], asked=asked, precisions=[LOW]) == ({} if run else {("s", LOW): reason})


def test_a_benign_variant_of_a_server_is_run_in_every_mode():
    assert apart([fault("proxy", target="server", benign=True, expected="nothing")]) == {}


def test_what_is_another_engines_is_no_survivor_and_said_once():
    faults = [fault("a"), fault("b"), fault("s", target="server", expected="serving.stop")]
    told = {"engine": "server", "asked": ["serving.stop"], "precisions": [LOW, FULL]}
    caught = judged("s", LOW, fail=["serving.stop"]), judged("s", FULL)
    found = build(faults, *_of_another_engine(faults, told).values(), *caught)
    assert [entry["outcome"] for entry in found["faults"]] == ["inapplicable", "inapplicable", "caught"]
    assert matrix.good(found)
    assert "a, b: breaks a transformers model; engine server has none in this process" in output.text(found)


def test_the_command_to_go_on_is_the_same_with_resume():
    words = [
        "faults",
        "--model",
        "m",
        "--precision",
        "float32",
        "--fault",
        "a",
        "--jobs",
        "2",
        "--",
        "--npuconf-device=cuda",
    ]
    again = _again(_parser().parse_args(words))
    assert again == "npuconf faults --model m --precision float32 --fault a --jobs 2 --resume -- --npuconf-device=cuda"


@pytest.mark.parametrize(
    ("identity", "name"),
    [("kl.noise_ratio.bf16_fp32", "kl.noise_ratio"), ("model.files", "model.files"), ("logits.rel_l2.fp16_fp16", "logits.rel_l2"),
     ("logits.rel_l2", "logits.rel_l2")],
)  # fmt: skip
def test_a_check_without_its_pair(identity, name):
    assert matrix.check_of(identity) == name


class Heard:
    """What a run's plugin heard."""

    def __init__(self, **heard):
        self.inapplicable, self.crash, self.errors, self.left_out = "", "", {}, []
        vars(self).update(heard)


def results(verdict="pass", role="required"):
    found = {**record(verdict, role), "check": "kl.noise_ratio.bf16_fp32", "data": {}}
    labels = ["CPU", "FAULT a"]
    return {
        "models": {"m": {"status": "CONFORMANT", "labels": labels}},
        "facts": {"torch": "2", "fault": "a"},
        "checks": [found],
    }


@pytest.mark.parametrize(
    ("heard", "data", "status", "expected"),
    [
        ({}, None, 4, {"status": "error", "kind": "usage", "text": "said"}),
        (
            {"crash": "INTERNALERROR> boom"},
            results(),
            3,
            {"status": "error", "kind": "internal", "text": "INTERNALERROR> boom"},
        ),
        ({}, results(), 2, {"status": "error", "kind": "incomplete", "text": "said"}),
        ({}, None, 1, {"status": "error", "kind": "incomplete", "text": "said"}),
        ({}, results(role="claim"), 1, {"status": "error", "kind": "incomplete"}),
        ({"inapplicable": "no norm"}, None, 4, {"status": "inapplicable", "reason": "no norm"}),
        ({}, results("fail"), 1, {"status": "judged", "labels": ["CPU"], "facts": {"torch": "2"}}),
    ],
)
def test_only_a_run_that_ended_in_verdicts_is_judged(heard, data, status, expected):
    found = session._judged(Heard(**heard), data, status, "said")
    assert {key: found[key] for key in expected} == expected
