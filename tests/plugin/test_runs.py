"""Whole runs on a real small model: verdicts, exit codes, outputs."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import jsonschema
import pytest

from pytest_npuconf.cards import find_card
from pytest_npuconf.checks import CHECKS
from pytest_npuconf.report.results import schema
from tests.plugin.conftest import required_of_tiny

EVERY = required_of_tiny()  # at float32; a card with bounds or waivers has audit.gates too
WITHOUT_ENGINE = 3  # model.config, model.weights and model.parameters judge files
MODEL = ("--model", "card.toml")
FLOAT32 = (*MODEL, "--npuconf-precision", "float32")


def test_clean_run_is_conformant_and_says_on_what(run):
    result = run(*MODEL)
    assert result.ret == 0
    both = required_of_tiny("float32", "bfloat16")
    result.stdout.fnmatch_lines(
        [
            "npuconf: tiny (tiny)  [[]CPU, STAND-IN[]]",
            "*precision: float32/float32, bfloat16/float32, bfloat16/bfloat16 (device/reference)",
            "*device: cpu (*threads*)",
            "*engine: transformers, reference: cpu float32 (live)",
            "*versions: npuconf *, torch *, transformers *",
            "  kl *3 of 3 passed *closest kl.*_* *gate <= *% left",
            f"CONFORMANT: tiny on cpu, float32+bfloat16, transformers [[]CPU, STAND-IN[]]: {both} of {both} required checks passed",
            "CLAIMS: 0 reproduced, 0 not, 0 contradicted",
        ]
    )


@pytest.mark.parametrize("fault", ["skipped-layer", "rope-base-tenth", "attention-scale"])
def test_faults_are_caught_in_bfloat16(run, fault):
    result = run(*MODEL, "--npuconf-precision", "bfloat16", "--npuconf-fault", fault)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [f"NOT CONFORMANT: tiny on cpu, bfloat16, transformers *FAULT {fault}*required checks failed*"]
    )


def test_dead_row_is_caught_in_float32_and_located(run):
    result = run(*FLOAT32, "--npuconf-fault", "dead-weight-row")
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "FAIL logits.rel_l2.fp32_fp32: rel_l2.max = *gate <= 0.0001",
            "  worst: * position *",
            "  would have passed: <= *",
            "  next:  pytest *--npuconf-fault dead-weight-row *test_logits.py::test_rel_l2*",
            "NOT CONFORMANT: *required checks failed: logits.rel_l2.fp32_fp32*",
        ]
    )


@pytest.mark.parametrize("variant", ["benign-split-k", "benign-blocked-attention"])
def test_benign_variants_are_conformant(run, variant):
    result = run(*MODEL, "--npuconf-fault", variant)
    assert result.ret == 0
    result.stdout.fnmatch_lines([f"CONFORMANT: *VARIANT {variant}*"])


def test_nan_names_prompt_and_position(run):
    result = run(*FLOAT32, "--npuconf-fault", "nan-weight")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*logits.finite.fp32_fp32*", "*NaN in the candidate's logits at prompt 1 position 0*"])


def test_results_follow_the_published_schema(run, pytester):
    assert run(*MODEL, "--npuconf-results", "out/results.json").ret == 0
    data = json.loads((pytester.path / "out" / "results.json").read_text())
    jsonschema.validate(data, schema(), cls=jsonschema.Draft202012Validator)
    assert data["models"]["tiny"]["status"] == "CONFORMANT"
    assert {c["check"] for c in data["checks"] if c["role"] == "required"} == set(data["models"]["tiny"]["required"])
    assert data["facts"]["device"] == "cpu"
    texts = next(c for c in data["checks"] if c["check"] == "ppl.delta.bf16_fp32")["data"]["texts"]
    assert all(text["tokens"] > 0 and text["reference_nll"] > 0 for text in texts.values())


def test_junit_carries_the_measurement_and_the_session(run, pytester):
    run(*FLOAT32, "--npuconf-fault", "dead-weight-row", "--junitxml", "junit.xml")
    cases = {c.get("name"): c for c in ElementTree.parse(pytester.path / "junit.xml").iter("testcase")}
    case = cases["test_rel_l2[tiny-fp32_fp32]"]
    assert case.get("classname") == "npuconf.precision.test_logits"
    found = {p.get("name"): p.get("value") for p in case.iter("property")}
    assert found["npuconf.metric"] == "rel_l2.max"
    assert found["npuconf.verdict"] == "fail"
    assert found["npuconf.role"] == "required"
    assert found["npuconf.bound"] == "<= 0.0001"
    assert float(found["npuconf.value"]) > 1e-4
    assert float(found["npuconf.margin"]) == pytest.approx(1e-4 - float(found["npuconf.value"]))
    assert found["npuconf.device"] == "cpu"
    assert found["npuconf.precision"] == "float32"
    assert found["npuconf.reference"] == "cpu float32"
    assert found["npuconf.labels"] == "CPU,STAND-IN,FAULT dead-weight-row"
    assert found["npuconf.session.torch"]
    assert case.find("failure").get("type") == "fail"


def _comparable(data: dict) -> dict:
    """What two runs of the same thing must share: everything but the time and the command."""
    return {**data, "created": "", "facts": {**data["facts"], "command": ""}}


def test_two_workers_give_the_same_verdicts_and_files(run, pytester):
    def outcome(*more: str) -> tuple[dict, dict]:
        assert run(*MODEL, "--npuconf-results", "r.json", "--junitxml", "j.xml", *more).ret == 0
        cases = {
            c.get("name"): sorted(
                (p.get("name"), p.get("value")) for p in c.iter("property") if "command" not in p.get("name")
            )
            for c in ElementTree.parse(pytester.path / "j.xml").iter("testcase")
        }
        return _comparable(json.loads((pytester.path / "r.json").read_text())), cases

    assert outcome("-n", "2") == outcome()


@pytest.mark.parametrize(
    "narrowing", [("-k", "finite"), ("-m", "not npuconf_check"), ("npuconf/precision/test_tokens.py",)]
)
def test_a_narrowed_run_is_a_subset_and_never_conformant(run, narrowing):
    result = run(*FLOAT32, *narrowing)
    assert result.ret != 0
    result.stdout.no_fnmatch_line("CONFORMANT*")
    result.stdout.fnmatch_lines([f"SUBSET: * of {EVERY} required checks: tiny on cpu*"])


def test_a_failing_subset_is_not_conformant(run):
    result = run(*FLOAT32, "--npuconf-fault", "dead-weight-row", "-k", "rel_l2")
    assert result.ret == 1
    result.stdout.fnmatch_lines([f"NOT CONFORMANT: *(SUBSET: 1 of {EVERY} required checks)"])


def test_the_printed_next_command_repeats_the_failure(run):
    first = run(*FLOAT32, "--npuconf-fault", "dead-weight-row")
    line = next(line for line in first.outlines if line.strip().startswith("next:") and "test_rel_l2" in line)
    import shlex

    words = shlex.split(line.partition("next:")[2])
    again = run(*words[1:])
    again.stdout.fnmatch_lines(
        [f"NOT CONFORMANT: *1 required check failed: logits.rel_l2.fp32_fp32 (SUBSET: 1 of {EVERY} required checks)"]
    )


def test_an_interrupted_run_keeps_what_it_has_and_is_incomplete(run, pytester):
    """Ctrl-C while the second precision loads: the first one's results are kept, the second is incomplete."""
    pytester.makeconftest(
        """
        import os, signal
        from pytest_npuconf.faults.base import Fault

        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it

        def interrupt(model):
            if str(model.dtype) == "torch.bfloat16" and model.device.type != "meta":  # not the trial at start
                os.kill(os.getpid(), signal.SIGINT)

        def pytest_npuconf_faults(config):
            return [Fault("ctrl-c", "interrupts the load at bfloat16", "once", "nobody", interrupt)]
        """
    )
    result = run(*MODEL, "--npuconf-fault", "ctrl-c", "--npuconf-results", "r.json", "--junitxml", "j.xml")
    assert result.ret == 2
    result.stdout.fnmatch_lines(["INCOMPLETE: tiny *: interrupted; * required checks did not run: *"])
    data = json.loads((pytester.path / "r.json").read_text())
    assert data["models"]["tiny"]["status"] == "INCOMPLETE"
    assert data["exit_status"] == 2
    kept = {c["check"] for c in data["checks"]}
    assert "logits.rel_l2.fp32_fp32" in kept
    assert "logits.rel_l2.bf16_fp32" not in kept
    assert ElementTree.parse(pytester.path / "j.xml").getroot() is not None


def test_an_interrupt_after_the_last_check_is_incomplete_too(run, pytester):
    pytester.makepyfile(
        test_stop="""
        import os, signal

        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it

        def test_stop():
            os.kill(os.getpid(), signal.SIGINT)
        """
    )
    result = run(*FLOAT32, "npuconf/precision", "test_stop.py")
    assert result.ret == 2
    result.stdout.fnmatch_lines(["INCOMPLETE: tiny *: interrupted"])
    result.stdout.no_fnmatch_line("CONFORMANT*")


def test_a_crash_leaves_the_run_incomplete(run, pytester):
    pytester.makeconftest(
        """
        from pytest_npuconf.faults.base import Fault

        def boom(model):
            raise RuntimeError("boom")

        def pytest_npuconf_faults(config):
            return [Fault("boom", "crashes while loading", "total", "the run", boom)]
        """
    )
    result = run(*FLOAT32, "--npuconf-fault", "boom", "--npuconf-results", "r.json")
    assert result.ret == 1
    result.stdout.fnmatch_lines([f"INCOMPLETE: tiny *{EVERY - WITHOUT_ENGINE} required checks did not run: *"])
    assert (
        len(json.loads((pytester.path / "r.json").read_text())["models"]["tiny"]["missing"]) == EVERY - WITHOUT_ENGINE
    )


def test_waived_failure_is_expected_and_strict(run):
    waiver = (
        '[[waivers]]\ncheck = "logits.rel_l2"\nreason = "known"\nlink = "https://example.org/1"\nexpires = 2999-01-01\n'
    )
    caught = ("logits.rel_l2", "hidden.states", "token.match", "modules.noise_ratio")
    every = "".join(waiver.replace("logits.rel_l2", name) for name in caught)
    failing = run(*FLOAT32, "--npuconf-fault", "dead-weight-row", more=every)
    assert failing.ret == 0
    failing.stdout.fnmatch_lines(
        [
            "*waived *logits.rel_l2.fp32_fp32*",
            f"CONFORMANT: *{EVERY + 1 - 4} of {EVERY + 1} *, 4 waived (logits.rel_l2.fp32_fp32, *",
        ]
    )
    passing = run(*FLOAT32, more=waiver)
    assert passing.ret == 1
    passing.stdout.fnmatch_lines(["FAIL logits.rel_l2.fp32_fp32: passes, but the card waives it: known*"])
    lapsed = run(*FLOAT32, "--npuconf-fault", "dead-weight-row", more=waiver.replace("2999", "2020"))
    assert lapsed.ret == 1


CLAIM = (
    '[[claims]]\nid = "cos"\ndocumented = "cosine 2"\nsource = "nowhere"\ngate_stated = "> 2"\n'
    'gate = { op = ">", bound = 2.0 }\ncheck = "logits.cosine.fp32_fp32"\nstatistic = "mean_last_position"\n'
)


def test_claims_are_reported_and_decide_only_when_strict(run):
    loose = run(*FLOAT32, more=CLAIM)
    assert loose.ret == 0
    loose.stdout.fnmatch_lines(
        ["*claim cos: not reproduced, measured 1, documented gate > 2", "CLAIMS: 0 reproduced, 1 not, 0 contra*"]
    )
    strict = run(*FLOAT32, "--npuconf-strict-claims", more=CLAIM)
    assert strict.ret == 1
    strict.stdout.fnmatch_lines(["CLAIM cos not reproduced: documented 'cosine 2'*measured mean_last_position = 1.0"])
    same = run(*FLOAT32, more=CLAIM + 'conditions = { device = "cpu", precision = "float32" }\n')
    same.stdout.fnmatch_lines(["CLAIMS: 0 reproduced, 0 not, 1 contradicted"])


def test_an_inconclusive_check_fails_with_that_type(run, pytester):
    clean = run(*MODEL, "--npuconf-precision", "bfloat16", "--npuconf-results", "r.json")
    assert clean.ret == 0
    checks = json.loads((pytester.path / "r.json").read_text())["checks"]
    low, high = next(c for c in checks if c["check"] == "kl.noise_ratio.bf16_fp32")["interval"]
    gate = f'[gates."kl.noise_ratio.bf16_fp32"]\nbound = {(low + 3 * high) / 4}\nreason = "to straddle"\n'
    result = run(*MODEL, "--npuconf-precision", "bfloat16", "--junitxml", "j.xml", more=gate)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["INCONCLUSIVE kl.noise_ratio.bf16_fp32: *", "  the interval straddles the bound; about * would settle it (now 24)",
         "INCOMPLETE: tiny *1 is inconclusive: kl.noise_ratio.bf16_fp32"]
    )  # fmt: skip
    types = [f.get("type") for f in ElementTree.parse(pytester.path / "j.xml").iter("failure")]
    assert types == ["inconclusive"]


def test_a_card_that_requires_nothing_at_this_precision_is_refused(run):
    result = run(*FLOAT32, more='[required]\ntransformers = ["logits.finite.bf16_fp32"]\n')
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: *nothing is required of tiny with engine transformers at float32*"])


def test_two_models_are_judged_one_after_the_other(run, pytester, tiny_weights):
    from tests.plugin.conftest import card_text

    (pytester.path / "other.toml").write_text(card_text(tiny_weights).replace('"tiny"', '"other"'))
    result = run(*FLOAT32, "--model", "other.toml")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["CONFORMANT: tiny *", "CONFORMANT: other *"])


def test_fixtures_serve_in_somebodys_own_test_file(run, pytester):
    pytester.makepyfile(
        test_mine="""
        from pytest_npuconf import Gate, Measurement

        def test_mine(npu_card, npu_precision, npu_engine, npu_device, npu_reference, npu_check):
            ids = npu_engine.tokenize("abc")
            logits = npu_engine.forward(ids).logits(0, len(ids))
            assert logits.shape == (3, 256)
            verdict = npu_check(Measurement("vocabulary", logits.shape[1]), Gate("words", 256))
            assert verdict.outcome.value == "pass"
            assert npu_device.name == "cpu" and npu_card.name == "tiny"

        def test_too_many(npu_card, npu_check):
            npu_check(Measurement("words", 3), Gate("few words", 2, reason="because"))
        """
    )
    result = run(*FLOAT32, "test_mine.py")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["FAIL few words: words = 3 (1 value), gate <= 2", "*gate: because"])
    result.stdout.no_fnmatch_line("*CONFORMANT*")


def test_speed_is_timed_and_judged(run, pytester):
    pytester.makepyfile(
        test_speed="""
        from pytest_npuconf import Gate

        def test_forward(npu_engine, npu_speed, npu_check):
            measured = npu_speed(lambda: npu_engine.forward([1, 2, 3]).logits(0, 3), rounds=7)
            assert measured.n == 7 and len(measured.data["seconds"]) == 7
            assert measured.interval[0] <= measured.value <= measured.interval[1]
            npu_check(measured, Gate("seconds", 60.0))
        """
    )
    result = run(*FLOAT32, "test_speed.py", "-v", "--benchmark-json", "b.json")
    assert result.ret == 0
    extra = json.loads((pytester.path / "b.json").read_text())["benchmarks"][0]["extra_info"]
    assert extra["device"] == "cpu"
    result.stdout.fnmatch_lines(["*pass * seconds *(n = 7 rounds)*gate <= 60*"])
    disabled = run(*FLOAT32, "test_speed.py", "--benchmark-disable")
    assert disabled.ret == 1
    disabled.stdout.fnmatch_lines(["*pytest-benchmark is disabled, so nothing was timed*"])


def test_speed_without_pytest_benchmark_says_what_to_install(run, pytester):
    pytester.makepyfile(test_speed="def test_forward(npu_speed, npu_card):\n    pass\n")
    result = run(*FLOAT32, "test_speed.py", "-p", "no:benchmark")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*npu_speed needs pytest-benchmark", "*mend: pip install 'pytest-npuconf[[]speed[]]'"])


def test_own_tests_that_pass_exit_zero(run, pytester):
    pytester.makepyfile("def test_mine(npu_card):\n    assert npu_card.name == 'tiny'\n")
    assert run(*FLOAT32, "test_own_tests_that_pass_exit_zero.py").ret == 0


def test_fixtures_without_a_model_fail_and_never_skip(run, pytester):
    pytester.makepyfile(test_mine="def test_mine(npu_engine):\n    pass\n")
    result = run("test_mine.py")
    assert result.ret == 1
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*no model was named*", "*mend: pytest --model NAME*"])


def test_the_ini_twins_work(run, pytester):
    pytester.makeini("[pytest]\nnpuconf_model = card.toml\nnpuconf_precision = float32\nnpuconf_results = r.json\n")
    assert run().ret == 0
    assert json.loads((pytester.path / "r.json").read_text())["models"]["tiny"]["precisions"] == ["float32"]


def test_collect_only_needs_neither_device_nor_weights(run):
    card = find_card("mem-agent")
    mine = [check for check in CHECKS.values() if check.given(card) and check.answered_by("transformers")]
    cases = sum(len(check.ids(card.precisions)) for check in mine)
    result = run("--npu", "--model", "mem-agent", "--collect-only", "-q")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        ["npuconf/precision/test_logits.py::test_finite[[]mem-agent-fp32_fp32[]]", f"*{cases} tests collected*"]
    )


def test_faults_are_listed(run):
    result = run("--npuconf-fault", "list")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*faults of --npuconf-fault:", "*skipped-layer *"])


def test_hooks_add_devices_and_faults(run, pytester):
    pytester.makeconftest(
        """
        from pytest_npuconf.devices.cpu import CpuDevice
        from pytest_npuconf.faults.base import Fault

        class Second(CpuDevice):
            name = "second"

        def double(model):
            model.lm_head.weight.data *= 2

        def pytest_npuconf_devices(config):
            return [Second()]

        def pytest_npuconf_faults(config):
            return [Fault("double-head", "logits are doubled", "x2", "logits.rel_l2", double)]
        """
    )
    clean = run(*FLOAT32, "--npuconf-device", "second")
    assert clean.ret == 0
    clean.stdout.fnmatch_lines(["CONFORMANT: tiny on second, *[[]SECOND, STAND-IN[]]*"])
    assert run(*FLOAT32, "--npuconf-device", "second", "--npuconf-fault", "double-head").ret == 1


# ---------------------------------------------------------------- ways to a verdict that was not earned

BREAK = ("--npuconf-fault", "skipped-layer")


def test_a_mark_in_somebodys_own_file_makes_no_required_check(run, pytester):
    names = ("logits.finite", "logits.rel_l2", "token.match", "ppl.delta", "model.placement")
    pytester.makepyfile(
        test_marked="import pytest\nfrom pytest_npuconf import Gate, Measurement\n"
        + "".join(
            f"@pytest.mark.npuconf_check({name!r})\ndef test_{i}(npu_card, npu_precision, npu_check):\n"
            f"    npu_check(Measurement('m', 0.0), Gate('{name}.fp32_fp32', 9.0))\n"
            for i, name in enumerate(names)
        )
    )
    result = run(*FLOAT32, *BREAK, "test_marked.py", "npuconf/precision/test_model.py::test_config")
    assert result.ret == 1
    result.stdout.fnmatch_lines([f"SUBSET: 1 of {EVERY} required checks: *"])


def test_a_model_at_another_dtype_is_misplaced(run, pytester):
    pytester.makeconftest(
        "from pytest_npuconf.faults.base import Fault\n"
        "def pytest_npuconf_faults(config):\n"
        "    return [Fault('float32-for-all', 'computes in float32', '-', 'model.placement', lambda m: m.float())]\n"
    )
    result = run(*MODEL, "--npuconf-precision", "bfloat16", "--npuconf-fault", "float32-for-all")
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "FAIL model.placement.bf16_fp32: *",
            "  worst: *float32 on cpu, asked for bfloat16 on cpu*",
            "NOT CONFORMANT: *",
        ]
    )


@pytest.mark.parametrize("fixture", ["npu_comparison", "npu_check", "npuconf_workbench"])
def test_a_conftest_cannot_replace_the_fixtures_of_a_shipped_check(run, pytester, fixture):
    pytester.makeconftest(
        f"import pytest\n@pytest.fixture(scope='session')\ndef {fixture}():\n    return lambda *a: None\n"
    )
    result = run(*FLOAT32)
    assert result.ret == 1
    result.stdout.fnmatch_lines([f"the fixture {fixture} of a shipped check is replaced by conftest: rename yours"])
    result.stdout.no_fnmatch_line("CONFORMANT*")


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ('[gates."logits.finite"]\nbound = 9\nreason = "r"\n', "*gates names logits.finite, which is exact*"),
        (
            '[[waivers]]\ncheck = "model.placement.fp32_fp32"\nreason = "r"\nlink = "l"\nexpires = 2999-01-01\n',
            "*waivers names model.placement.fp32_fp32, which is exact*",
        ),
        (
            '[required]\ntransformers = ["logits.cosine"]\n',
            "*logits.cosine.fp32_fp32 is required, but neither * has a bound*",
        ),
        ('[required]\nvlm = ["logits.cosine"]\n', "*required names the engine 'vlm'; did you mean 'vllm'?"),
    ],
)
def test_cards_that_would_switch_a_verdict_off_are_refused(run, more, error):
    result = run(*FLOAT32, more=more)
    assert result.ret == 4
    result.stderr.fnmatch_lines([f"ERROR: {error}", "  mend: *"])


def test_a_card_that_moves_bounds_or_requires_less_says_so(run):
    """A bound of one's own brings the check ``audit.gates``, which this card leaves out of its list."""
    gate = '[gates."logits.rel_l2"]\nbound = 1e9\nreason = "no reason"\n'
    result = run(*FLOAT32, more='[required]\ntransformers = ["logits.rel_l2", "logits.finite"]\n' + gate)
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [f"CONFORMANT: tiny *[[]CPU, STAND-IN, CARD BOUNDS 1, CARD REQUIRES 2 OF {EVERY + 1}[]]: 2 of 2 *"]
    )


def test_a_claims_gate_does_not_decide(run):
    result = run(*FLOAT32, "--npuconf-fault", "dead-weight-row", more='[required]\ntransformers = ["model.config"]\n')
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*fail *logits.rel_l2.fp32_fp32 *claim", f"CONFORMANT: *CARD REQUIRES 1 OF {EVERY}*"])


def test_too_few_tokens_judge_nothing(run):
    result = run(*FLOAT32, prompts='[prompts]\nlogits = ["ab", "ac"]\nperplexity = ["ab", "ac"]\n')
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: *its prompts and texts have 8 tokens in all; at least 200 are needed*"])


def test_an_earlier_verdict_does_not_survive_a_run_that_ends_early(run, pytester):
    old = pytester.path / "r.json"
    old.write_text('{"status": "CONFORMANT"}')
    assert run("--model", "nobody", "--npuconf-results", "r.json").ret == 4
    assert not old.exists()
    assert "CONFORMANT" in (pytester.path / "r.json.previous").read_text()


def test_an_error_after_the_check_is_no_conformant_run(run, pytester):
    pytester.makeconftest(
        "import pytest\n@pytest.fixture(autouse=True)\ndef late():\n    yield\n    raise RuntimeError('late')\n"
    )
    pytester.makepyfile("def test_mine():\n    pass\n")
    result = run(*FLOAT32, "-p", "conftest", "npuconf/precision")
    assert ("CONFORMANT: " in result.stdout.str()) == (result.ret == 0)


def test_strict_claims_and_the_closing_line_agree(run):
    result = run(*FLOAT32, "--npuconf-strict-claims", more=CLAIM)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["INCOMPLETE: *1 test failed outside its gate: *test_cosine*"])


@pytest.mark.parametrize(
    "odd", [("-p", "no:junitxml"), ("-o", "python_functions=check_*"), ("-o", "python_files=check_*.py")]
)
def test_odd_settings_of_pytest_change_nothing(run, odd):
    result = run(*FLOAT32, *odd)
    assert result.ret == 0
    result.stdout.fnmatch_lines([f"CONFORMANT: *{EVERY} of {EVERY} *"])


WIDE = """
from pytest_npuconf.faults.base import Fault

def pytest_npuconf_faults(config):
    return [Fault("wide", "everything is computed in float32", "16 bits", "model.placement", lambda model: model.float())]
"""


def test_a_candidate_that_computes_wider_than_it_says_is_a_finding(run, pytester):
    pytester.makeconftest(WIDE)
    options = ("--model", "tiny-qwen3", "--npuconf-reference", "live", "--npuconf-precision", "bfloat16")
    result = run(*options, "--npuconf-fault", "wide", "npuconf/precision/test_logits.py", "-k", "kl")
    result.stdout.fnmatch_lines(
        [
            "*FINDING kl.noise_ratio.bf16_fp32: the yardstick rounds more than the candidate (ratio * at most, below 0.25)*"
        ]
    )
