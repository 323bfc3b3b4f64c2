"""The command on this machine, and the fingerprint in what real runs leave."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from pytest_npuconf.fingerprint.readings import GROUPS, Fingerprint

NPU_VARIABLES = ("ASCEND_", "ATB_", "VLLM_", "HCCL_", "INF_NAN_")


def doctor(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(NPU_VARIABLES)}
    command = [sys.executable, "-m", "pytest_npuconf.cli", "doctor", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env={**kept, **environment}, timeout=120, check=False
    )


def rules(found: subprocess.CompletedProcess[str]) -> dict[str, str]:
    return {f["rule"]: f["level"] for f in json.loads(found.stdout)["findings"]}


def test_this_machine_is_healthy_for_a_cpu_run():
    import torch

    found = doctor("--device", "cpu", "--model", "tiny-qwen3", "--json")
    data = json.loads(found.stdout)
    if "torch-import" not in rules(found):  # ten seconds may be too short on a busy machine, and are the rule
        assert (found.returncode, data["healthy"], data["findings"]) == (0, True, [])
    fingerprint = Fingerprint.from_json(data["fingerprint"])
    assert fingerprint.value("torch") == torch.__version__
    assert fingerprint.digest() == data["digest"]


def test_text_names_groups_readings_and_the_closing_line():
    said = doctor("--device", "cpu").stdout
    assert "\nsettings, numeric\n" in said
    assert "(environment)" in said
    assert said.splitlines()[-1].split(";")[1].startswith(" fingerprint ")


def test_an_npu_that_is_not_here_is_a_problem():
    found = doctor("--device", "npu", "--json")
    assert found.returncode == 1
    assert {"torch-npu": "problem", "cann": "problem"}.items() <= rules(found).items()


def test_a_variable_is_judged_as_it_is_set():
    found = doctor("--device", "npu", "--json", ASCEND_RT_VISIBLE_DEVICES="1,0", VLLM_ASCEND_RT_DEVICES="0")
    assert {"visible-devices": "problem", "ignored-variable": "problem"}.items() <= rules(found).items()


def test_a_real_npu_smi_is_run_and_a_hanging_one_is_not_waited_for(tmp_path):
    table = os.path.join(os.path.dirname(__file__), "..", "data", "npu_smi", "910b2-25.2.0.txt")
    command = tmp_path / "npu-smi"
    command.write_text(f"#!/bin/sh\ncat {table}\n")
    command.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    told = json.loads(doctor("--json", PATH=path).stdout)["fingerprint"]["device"]
    assert told["npu.1.chip"] == {"value": "910B2", "source": "npu-smi info"}
    command.write_text("#!/bin/sh\nsleep 600\n")
    start = time.monotonic()
    found = doctor("--json", PATH=path)
    assert time.monotonic() - start < 60
    (smi,) = (f for f in json.loads(found.stdout)["findings"] if f["rule"] == "npu-smi")
    assert smi["what"] == "`npu-smi info` did not end in 10 s and was killed"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--precision", "float31"), "--precision"),
        (("--model", "no-such-card"), "no-such-card"),
        (("--device", "tpu"), "invalid choice"),
        (("--fix",), "unrecognized arguments"),
    ],
)
def test_a_wrong_command_line(arguments, said):
    found = doctor(*arguments)
    assert found.returncode == 2
    assert said in found.stderr
    assert "Traceback" not in found.stderr


# ---------------------------------------------------------------- runs

MODEL = ("--model", "card.toml", "--npuconf-precision", "float32")


def test_a_run_stores_it_with_its_results_and_its_digest_in_junit(run, pytester):
    from xml.etree import ElementTree

    run(
        *MODEL,
        "npuconf/precision/test_equivalence.py",
        "-k",
        "repeat",
        "--npuconf-results",
        "r.json",
        "--junitxml",
        "j.xml",
    )
    data = json.loads((pytester.path / "r.json").read_text(encoding="utf-8"))
    found = Fingerprint.from_json(data["facts"]["fingerprint"])
    assert all(found.group(group) for group in GROUPS)
    assert (found.value("device"), found.value("OMP_NUM_THREADS"), found.value("threads")) == ("cpu", "1", "1")
    assert data["facts"]["fingerprint_digest"] == found.digest()
    (record,) = data["checks"]
    assert record["data"]["deterministic_why"] == "device cpu: the kernels split work by shape and threads"
    properties = {p.get("name"): p.get("value") for p in ElementTree.parse(pytester.path / "j.xml").iter("property")}
    assert properties["npuconf.session.fingerprint_digest"] == found.digest()


def test_a_setting_moves_the_digest(run, pytester):
    digests = set()
    for threads in ("1", "2"):
        pytester._monkeypatch.setenv("OMP_NUM_THREADS", threads)
        run(*MODEL, "npuconf/precision/test_model.py", "-k", "finite", "--npuconf-results", "r.json")
        digests.add(json.loads((pytester.path / "r.json").read_text(encoding="utf-8"))["facts"]["fingerprint_digest"])
    assert len(digests) == 2


LOOSE = """
from pytest_npuconf.devices.cpu import CpuDevice

class Loose(CpuDevice):
    name = "loose"

    def deterministic(self):
        return False

    def determinism(self):
        return False, "kernel_order is free (conftest.py)"

def pytest_npuconf_devices(config):
    return [Loose()]
"""


def test_where_equal_bits_are_not_given_near_ties_are_passed_over_and_the_reading_is_named(run, pytester):
    pytester.makeconftest(LOOSE)
    arguments = ("--npuconf-device", "loose", "npuconf/precision/test_equivalence.py", "-k", "repeat")
    run(*MODEL, *arguments, "--npuconf-results", "r.json").assert_outcomes(passed=1)
    data = json.loads((pytester.path / "r.json").read_text(encoding="utf-8"))
    (record,) = data["checks"]
    assert record["data"]["deterministic"] is False
    assert record["data"]["deterministic_why"] == "kernel_order is free (conftest.py)"
    assert data["facts"]["fingerprint"]["device"]["hardware"]["source"] == "Loose.hardware"
