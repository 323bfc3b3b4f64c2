"""--npuconf-calibrate in whole runs on the small random model: what is stored, used, refused, and never stored."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pytest_npuconf.calibration.stored import read
from pytest_npuconf.references.sealed import digest
from tests.plugin.conftest import card_text

pytestmark = pytest.mark.campaign

MODEL = ("--model", "card.toml", "--npuconf-precision", "float32", "--npuconf-baselines=B")
CALIBRATE = (*MODEL, "--npuconf-calibrate")
FILE = "calibration-cpu-float32.json"
REL = "logits.rel_l2.fp32_fp32"
# the catalogue cut short: what a run does with its variants does not depend on how many there are
FEW = """
import pytest_npuconf.calibration.run as run
from pytest_npuconf.faults.base import Fault

run.SHIPPED = tuple(f for f in run.SHIPPED if f.name in {names!r})


def double_the_head(model):
    model.lm_head.weight.data *= {factor}


def pytest_npuconf_faults(config):
    return [Fault("benign-no-more", "logits are doubled", "x2", "nothing", double_the_head, benign=True)]
"""


def words(environment: dict[str, str]) -> dict[str, str]:
    mine = {k: v for k, v in environment.items() if not k.startswith(("NPUCONF", "PYTEST"))}
    return {**mine, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Run:
    ret: int
    out: str
    file: Path


@pytest.fixture(scope="module")
def calibrated(tiny_weights, tmp_path_factory) -> Run:
    """One calibration with the whole catalogue, for all tests of this file; a test that changes it takes ``mine``."""
    folder: Path = tmp_path_factory.mktemp("calibrated")
    (folder / "card.toml").write_text(card_text(tiny_weights))
    (folder / "B").mkdir()
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *CALIBRATE, "--junitxml=junit.xml"]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True,
        env=words({**os.environ, "NPUCONF_CACHE": str(folder / "cache")}) | {"NPUCONF_CACHE": str(folder / "cache")},
    )  # fmt: skip
    return Run(done.returncode, done.stdout + done.stderr, folder / "B" / "tiny" / FILE)


@pytest.fixture
def mine(calibrated, pytester) -> Path:
    """A copy of the calibration where ``run`` finds it."""
    path = Path(pytester.path) / "B" / "tiny" / FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(calibrated.file.read_bytes())
    return path


@pytest.fixture
def few(pytester):
    """The catalogue cut to some variants and one of its own, which is a defect if ``factor`` is not 1."""

    def cut(*names: str, factor: float = 1.0) -> None:
        (pytester.path / "B").mkdir(exist_ok=True)
        pytester.makeconftest(FEW.format(names=names, factor=factor))

    return cut


def change(path: Path, edit: Any) -> None:
    values = json.loads(path.read_text())
    edit(values)
    values["digest"] = digest(values)
    path.write_text(json.dumps(values))


def test_it_is_stored_with_every_figure_and_its_provenance(calibrated):
    assert calibrated.ret == 0, calibrated.out
    assert "CALIBRATED: tiny on cpu, float32: " in calibrated.out
    assert f"{FILE}: none -> " in calibrated.out
    assert "CONFORMANT" not in calibrated.out
    found = read(calibrated.file)
    assert len(found.variants) >= 5
    names = ("logits.rel_l2", "hidden.states", "modules.noise_ratio", "equivalence.batch", "equivalence.cache",
             "equivalence.repeat", "token.match", "ppl.delta")  # fmt: skip
    checks = {f"{name}.fp32_fp32" for name in names}
    assert set(found.figures) == checks
    assert all(set(judged) == checks for judged in found.variants.values())
    figure = found.figures[REL]
    assert figure.constant == "REL_L2_FLOAT32"
    assert figure.largest == max(judged[REL].figure for judged in found.variants.values())
    assert figure.margin == pytest.approx(figure.bound / figure.largest)
    assert {"channel", "position", "mean"} == set(found.variants[figure.by]["modules.noise_ratio.fp32_fp32"].parts)
    assert {"time", "commit", "torch", "settings", "command"} <= set(found.provenance)
    assert f'name="npuconf.{REL}"' in (calibrated.file.parents[2] / "junit.xml").read_text()


def test_a_run_that_is_judged_uses_it_and_measures_the_same(run, mine):
    """The table of what is measured cannot drift from the suites: the same variant gives the same figure there."""
    name = "benign-split-k"
    result = run(*MODEL, "--npuconf-fault", name, "--npuconf-results=r.json", "--npuconf-reference", "live")
    found = read(mine)
    data = json.loads((mine.parents[2] / "r.json").read_text())
    records = {record["check"]: record for record in data["checks"]}
    assert data["facts"]["calibration"] == f"tiny float32 {found.digest[:12]}"
    assert "calibration not used" not in result.stdout.str()
    for check, judged in found.variants[name].items():
        if not check.startswith("token.match"):
            assert abs(records[check]["value"]) == pytest.approx(judged.figure, rel=1e-12), check
        assert records[check]["verdict"] == judged.outcome
        known = records[check]["data"]["calibration"]
        assert (known["largest"], known["by"]) == (found.figures[check].largest, found.figures[check].by)
        assert known["variants"] == len(found.variants)


@pytest.mark.usefixtures("mine")
def test_a_failure_says_how_far_benign_variants_go(run):
    result = run(*MODEL, "--npuconf-fault", "attention-scale", "-k", "test_rel_l2")
    result.stdout.fnmatch_lines(
        ["*calibrated: on this device * benign variants reach * at most (benign-*); this is * times that"]
    )


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda v: v["comparability"]["versions"].update(torch="1.0"), "versions.torch (stored 1.0, here "),
        (lambda v: v["comparability"].update(device="another"), "device (stored another, here "),
        (lambda v: v["comparability"]["versions"].update(driver="24.1"), "versions.driver (stored 24.1, here nothing)"),
        (lambda v: v["comparability"]["weights"].update({"model.safetensors": "0"}), "weights.model.safetensors (stored 0,"),
        (lambda v: v.update(model="other"), "model (stored other, here tiny)"),
        (lambda v: v.update(variants=dict(list(v["variants"].items())[:4])), "variants (stored 4, at least 5 are needed)"),
        (lambda v: v.update(dtype="bfloat16"), "it holds calibration-cpu-bfloat16.json: it was renamed"),
        (lambda v: v.update(schema_version=0), "schema_version is 0, this pytest-npuconf reads 1"),
    ],
)  # fmt: skip
def test_one_of_another_place_is_not_used_and_the_field_is_named(run, mine, edit, said):
    change(mine, edit)
    result = run(*MODEL, "-k", "test_config", "--npuconf-results=r.json", "-q")
    lines = [line for line in result.stdout.lines if line.startswith("calibration not used: ")]
    assert len(lines) == 1
    assert said in lines[0]
    assert FILE in lines[0]
    assert said in json.loads((mine.parents[2] / "r.json").read_text())["facts"]["calibration"]


def test_a_narrowed_run_stores_nothing(run, few, pytester):
    few("benign-split-k", "benign-fused-norm")
    result = run(*CALIBRATE, "-k", "fused-norm or clean")
    result.stdout.fnmatch_lines(["SUBSET: tiny on cpu, float32: 2 of 4 measured: nothing is stored"])
    assert result.ret == 1
    assert not list((pytester.path / "B").rglob("*.json"))


def test_too_few_variants_store_nothing(run, few, pytester):
    """The one that doubles nothing gives the candidate's own figures, and does not count."""
    few("benign-split-k", "benign-fused-norm")
    result = run(*CALIBRATE)
    result.stdout.fnmatch_lines(
        [
            "*not counted: benign-no-more: changes nothing here*",
            "NOT CALIBRATED: tiny on cpu, float32: * benign variants apply and differ from the candidate, at least 5 *",
        ]
    )
    assert result.ret == 1
    assert not list((pytester.path / "B").rglob("*.json"))


def test_a_false_alarm_fails_the_run_and_names_the_constant(run, few, pytester):
    few("benign-split-k", "benign-strided-k", "benign-blocked-attention", "benign-split-k-backwards", factor=2.0)
    result = run(*CALIBRATE)
    result.stdout.fnmatch_lines(
        [
            "FALSE ALARM: tiny, float32, benign-no-more",
            "*logits.rel_l2.fp32_fp32 = *gate <= 0.0001; the constant is REL_L2_FLOAT32",
            "*logits are doubled: nothing may object to it*",
            "FALSE ALARM: tiny on cpu, float32: *",
        ]
    )
    assert result.ret == 1
    assert result.parseoutcomes() == {"failed": 1, "passed": 5}
    (path,) = (pytester.path / "B").rglob("*.json")  # evidence, which moves no bound
    assert any(line.startswith("FALSE ALARM benign-no-more") for line in read(path).findings)


def test_a_candidate_that_fails_is_not_calibrated_with(run, few, tiny_weights, pytester):
    few("benign-split-k")
    more = '[gates."equivalence.cache"]\nbound = 0.0\nreason = "nothing reaches it"\n'
    result = run(*CALIBRATE, card=card_text(tiny_weights, more=more))
    result.stdout.fnmatch_lines(
        [
            "*FAIL: the candidate itself is beyond a bound*",
            "NOT CALIBRATED: tiny on cpu, float32: the candidate itself fails *",
        ]
    )
    assert result.ret == 1
    assert not list((pytester.path / "B").rglob("*.json"))


def test_only_one_process_calibrates(run, pytester):
    (pytester.path / "B").mkdir()
    result = run(*CALIBRATE, "-n", "2")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: --npuconf-calibrate with -n: *"])


def test_a_fault_cannot_be_calibrated_with(run, pytester):
    (pytester.path / "B").mkdir()
    result = run(*CALIBRATE, "--npuconf-fault", "skipped-layer")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: --npuconf-calibrate with --npuconf-fault skipped-layer", "*mend: *"])


def test_variants_are_not_measured_without_the_option(run):
    result = run("--model", "card.toml", "npuconf/precision/calibrate.py")
    assert result.ret == 4
    assert "no shipped suite 'npuconf/precision/calibrate.py'" in result.stderr.str()
