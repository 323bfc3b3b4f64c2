"""``--npuconf-fault``: the list, names that are unknown, faults that do not apply, and faults, devices and engines of others."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_npuconf.faults.catalogue import SHIPPED

MODEL = ("--model", "card.toml")
FLOAT32 = (*MODEL, "--npuconf-precision", "float32")
EXAMPLE = ("-p", "npuconf_example")


def test_the_list_says_what_how_big_and_which_check(run):
    result = run("--npuconf-fault", "list")
    assert result.ret == 0
    for fault in SHIPPED:
        line = next(line for line in result.outlines if line.split()[:1] == [fault.name])
        assert fault.description in line
        assert fault.magnitude in line
        assert fault.expected in line


def test_an_unknown_fault_is_a_usage_error_with_the_nearest_names(run):
    result = run(*FLOAT32, "--npuconf-fault", "attention-scal")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: no fault 'attention-scal'; did you mean 'attention-scale' or *"])


@pytest.mark.parametrize(
    ("fault", "precision", "why"),
    [
        ("window-ignored", "float32", "Qwen3ForCausalLM has no sliding window, so there is nothing to break"),
        ("norm-eps-1e-6", "bfloat16", "every norm of Qwen3ForCausalLM has the epsilon 1e-06 already"),
        ("tf32", "float32,bfloat16", "a model at bfloat16 has no float32 products to truncate*"),
    ],
)
def test_a_fault_that_does_not_apply_is_one_error_and_nothing_is_green(run, fault, precision, why):
    result = run(*MODEL, "--npuconf-precision", precision, "--npuconf-fault", fault)
    assert result.ret == 4
    dtype = precision.split(",")[-1]
    result.stderr.fnmatch_lines(
        [f"ERROR: --npuconf-fault {fault} does not apply to tiny at {dtype}: {why}", "  mend: *"]
    )
    assert sum("does not apply" in line for line in [*result.outlines, *result.errlines]) == 1
    result.stdout.no_fnmatch_line("*passed*")
    result.stdout.no_fnmatch_line("*CONFORMANT*")


def test_a_fault_behind_the_longest_text_is_one_error_and_nothing_is_green(run):
    result = run(*FLOAT32, "--npuconf-fault", "hole-past-700")
    assert result.ret == 4
    result.stderr.fnmatch_lines(
        [
            "ERROR: fault hole-past-700 leaves the first 700 positions alone, and the longest text of tiny has *",
            "  mend: longer texts for the card (*documents), or another --npuconf-fault (list prints them)",
        ]
    )
    result.stdout.no_fnmatch_line("*passed*")


def test_a_fault_that_only_the_loaded_model_refuses_ends_the_run(run, pytester):
    """Its own needs can only be seen in weights, which the early look has not."""
    pytester.makeconftest(
        """
        from pytest_npuconf.errors import FaultError
        from pytest_npuconf.faults.base import Fault

        def inject(model):
            if model.lm_head.weight[0, 0].item() != 12345.0:
                raise FaultError("the head does not begin with 12345")

        def pytest_npuconf_faults(config):
            return [Fault("late", "-", "-", "kl.noise_ratio", inject)]
        """
    )
    result = run(*FLOAT32, "--npuconf-fault", "late")
    assert result.ret == 4
    result.stdout.fnmatch_lines(["*--npuconf-fault late does not apply: the head does not begin with 12345*"])
    result.stdout.no_fnmatch_line("*[0-9] passed*")
    result.stdout.no_fnmatch_line("CONFORMANT*")


@pytest.fixture
def example(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent / "example"))


@pytest.mark.usefixtures("example")
def test_an_example_plugin_adds_a_device_an_engine_and_a_fault(run):
    listed = run(*EXAMPLE, "--npuconf-fault", "list")
    listed.stdout.fnmatch_lines(
        ["  values-scaled *values of attention are 25 % too big (x1.25; caught by kl.noise_ratio,*"]
    )
    where = (*EXAMPLE, *FLOAT32, "--npuconf-device", "board", "--npuconf-engine", "traced")
    clean = run(*where)
    assert clean.ret == 0
    clean.stdout.fnmatch_lines(["CONFORMANT: tiny on board, float32, transformers *"])
    broken = run(*where, "--npuconf-fault", "values-scaled")
    assert broken.ret == 1
    broken.stdout.fnmatch_lines(["NOT CONFORMANT: tiny on board, *FAULT values-scaled*"])


@pytest.mark.usefixtures("example")
def test_a_fault_of_others_that_does_not_apply_is_said_too(run):
    result = run(*EXAMPLE, *FLOAT32, "--npuconf-fault", "vision")
    assert result.ret == 4
    result.stderr.fnmatch_lines(
        ["ERROR: --npuconf-fault vision does not apply to tiny at float32: * has no vision tower, *"]
    )


@pytest.mark.usefixtures("example")
def test_names_of_others_are_among_the_nearest(run):
    result = run(*EXAMPLE, *FLOAT32, "--npuconf-fault", "value-scaled")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*did you mean 'values-scaled'*"])


def test_the_page_of_the_catalogue_is_current():
    from tests.benchmarks import fault_page

    assert fault_page.PAGE.read_text(encoding="utf-8") == fault_page.page(), "python -m tests.benchmarks.fault_page"
    import json

    assert set(json.loads(fault_page.FIGURES.read_text(encoding="utf-8"))) == {fault.name for fault in SHIPPED}
