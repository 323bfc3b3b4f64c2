"""Runs on the simulated NPU: conformant and labelled, each of its defects red and located, and never in a real one's place."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree

import pytest

from tests.plugin.conftest import required_of_tiny

pytest.importorskip("torch.utils.backend_registration")

SIMULATE = ("--npu", "--npuconf-simulate")
FLOAT32, BFLOAT16 = "float32", "bfloat16"


def test_a_healthy_model_is_conformant_and_every_output_says_simulated(run, pytester):
    files = ("--junitxml", "j.xml", "--npuconf-results", "r.json")
    result = run(*SIMULATE, "--model", "card.toml", "--npuconf-precision", BFLOAT16, *files)
    assert result.ret == 0
    count = required_of_tiny(BFLOAT16)
    result.stdout.fnmatch_lines(
        [
            "npuconf: tiny *[[]SIMULATED, STAND-IN[]]",
            "*device: npu (Simulated NPU (SIMULATED), computed on *",
            f"CONFORMANT: tiny on npu, bfloat16, transformers [[]SIMULATED, STAND-IN[]]: {count} of {count} required checks passed",
        ]
    )
    found = json.loads((pytester.path / "r.json").read_text())
    assert found["models"]["tiny"]["labels"] == ["SIMULATED", "STAND-IN"]
    assert {tuple(record["labels"]) for record in found["checks"]} == {("SIMULATED", "STAND-IN")}
    assert found["facts"]["device_description"].startswith("Simulated NPU (SIMULATED)")
    cases = list(ElementTree.parse(pytester.path / "j.xml").iter("testcase"))
    labels = [p.get("value") for case in cases for p in case.iter("property") if p.get("name") == "npuconf.labels"]
    assert len(labels) == len(cases)
    assert set(labels) == {"SIMULATED,STAND-IN"}


def test_the_shipped_model_is_conformant(run):
    result = run(*SIMULATE, "--model", "tiny-qwen3", "--npuconf-precision", BFLOAT16)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["CONFORMANT: tiny-qwen3 on npu, bfloat16, transformers [[]SIMULATED, STAND-IN[]]: *"])


@pytest.mark.parametrize(
    ("fault", "precision", "check", "places"),
    [
        ("npu-hf32", FLOAT32, "modules.noise_ratio.fp32_fp32", "*origin: model.*"),
        ("npu-saturation", BFLOAT16, "device.special_values.bf16_fp32", "*worst: max [*] 2: *saturation mode*"),
        ("npu-narrow-accumulation", BFLOAT16, "modules.noise_ratio.bf16_fp32", "*origin: model.*"),
        ("npu-nondeterminism", BFLOAT16, "equivalence.repeat.bf16_fp32", "*"),
        ("npu-cpu-fallback", BFLOAT16, "device.execution.bf16_fp32", "*worst: aten::silu: *model.layers.0.mlp.act_fn*"),
        ("npu-wrong-shape", BFLOAT16, "modules.noise_ratio.bf16_fp32", "*origin: model.layers.*.mlp.down_proj*"),
        ("npu-first-call", BFLOAT16, "equivalence.repeat.bf16_fp32", "*first*"),
    ],
)
def test_every_defect_turns_the_run_red_and_is_located(run, fault, precision, check, places):
    """Only the checks that look for it: docs/simulated.md has what the others say."""
    wanted = {"modules": "test_modules", "equivalence": "test_repeat", "device": "test_device"}[check.partition(".")[0]]
    result = run(
        *SIMULATE, "--model", "card.toml", "--npuconf-precision", precision, "--npuconf-fault", fault, "-k", wanted
    )
    assert result.ret == 1
    result.stdout.fnmatch_lines([places])
    result.stdout.fnmatch_lines(
        [f"NOT CONFORMANT: tiny on npu, {precision}, *SIMULATED, STAND-IN, FAULT {fault}[]]: *{check}*"]
    )


def test_a_defect_of_the_device_does_not_apply_elsewhere(run):
    result = run("--model", "card.toml", "--npuconf-fault", "npu-first-call")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*npu-first-call does not apply to tiny *: it is a defect of the simulated NPU*",
                                 "*mend: pytest --npu --npuconf-simulate*"])  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--npuconf-simulate",), "*--npuconf-simulate simulates an NPU, but the device under test is cpu*"),
        ((*SIMULATE, "--npuconf-record"), "*--npuconf-record with --npuconf-simulate: *must come from real hardware*"),
        ((*SIMULATE, "--npuconf-calibrate"), "*--npuconf-calibrate with --npuconf-simulate: *"),
        (("--npuconf-simulate", "--npuconf-device", "cuda"), "*the device under test is cuda*"),
    ],
)
def test_what_cannot_be_simulated_is_a_usage_error(run, arguments, line):
    result = run(*arguments, "--model", "card.toml")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([line])


def test_it_never_stands_in_for_a_real_npu(run, pytester, monkeypatch):
    """A package of torch_npu's name is enough: whether it works is not ours to try."""
    package = pytester.mkpydir("torch_npu")
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    result = run(*SIMULATE, "--model", "card.toml")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*torch_npu is installed in this Python*must never stand in for a real one*"])


def test_the_ini_file_simulates_too(run, pytester):
    pytester.makeini("[pytest]\nnpuconf_simulate = true\nnpuconf_device = npu\n")
    result = run("--model", "card.toml", "--npuconf-precision", BFLOAT16, "-k", "special_values", "-v")
    result.stdout.fnmatch_lines(["*pass*device.special_values.bf16_fp32*", "SUBSET: *SIMULATED*"])
