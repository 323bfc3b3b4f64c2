"""Readings, where they come from, and what is stored of them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from pytest_npuconf.devices import CpuDevice
from pytest_npuconf.fingerprint import settings, torch_settings
from pytest_npuconf.fingerprint.cann import find_cann, named_values, set_env
from pytest_npuconf.fingerprint.collect import PACKAGES, collect, of_run
from pytest_npuconf.fingerprint.readings import GROUPS, NUMERIC, SPEED, VERSIONS, Fingerprint, Reading
from tests import situations

PAGE = Path(__file__).resolve().parents[2] / "docs" / "fingerprint.md"
SAMPLE = Fingerprint.of(
    {NUMERIC: [Reading("b", "1", "x"), Reading("a", "2", "y")], VERSIONS: [Reading("torch", "2", "z")]}
)


# ---------------------------------------------------------------- readings


def test_json_there_and_back():
    data = SAMPLE.to_json()
    assert list(data) == sorted(GROUPS)
    assert list(data[NUMERIC]) == ["a", "b"]
    assert data[NUMERIC]["a"] == {"value": "2", "source": "y"}
    assert Fingerprint.from_json(json.loads(json.dumps(data))) == SAMPLE


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "groups"),
        ({}, "groups"),
        ({**SAMPLE.to_json(), "more": {}}, "groups"),
        ({**SAMPLE.to_json(), NUMERIC: []}, "settings_numeric: holds list"),
        ({**SAMPLE.to_json(), NUMERIC: {"a": "1"}}, "settings_numeric.a"),
        (
            {**SAMPLE.to_json(), NUMERIC: {"a": {"value": 1, "source": "x"}}},
            "settings_numeric.a: value and source are text",
        ),
    ],
)
def test_what_is_no_fingerprint_is_refused(data, said):
    with pytest.raises(ValueError, match=said):
        Fingerprint.from_json(data)


def test_a_name_twice_is_refused():
    with pytest.raises(ValueError, match="twice"):
        Fingerprint.of({SPEED: [Reading("a", "1", ""), Reading("a", "2", "")]})


def test_the_digest_changes_with_a_setting_and_not_with_memory_in_use():
    used = [Reading("npu.0.hbm_used_mib", str(size), "npu-smi info") for size in (1, 2)]
    first, second = (Fingerprint.of({"device": [one]}) for one in used)
    assert first.digest() == second.digest()
    other = Fingerprint.of({NUMERIC: [Reading("a", "3", "y"), Reading("b", "1", "x")]})
    assert len({SAMPLE.digest(), first.digest(), other.digest()}) == 3


# ---------------------------------------------------------------- settings


def test_a_variable_is_read_from_the_environment_else_its_default_with_its_source():
    unset = {r.name: r for readings in settings.read_variables({}, "npu").values() for r in readings}
    assert unset["INF_NAN_MODE_ENABLE"].value == "1"
    assert unset["INF_NAN_MODE_ENABLE"].source == f"default (unset): {settings.SATURATION}"
    assert (unset["ATB_LLM_LCOC_ENABLE"].value, unset["ATB_LLM_LCOC_ENABLE"].source) == ("unset", "environment")
    told = settings.read_variables({"INF_NAN_MODE_ENABLE": "0"}, "npu")[NUMERIC]
    assert Reading("INF_NAN_MODE_ENABLE", "0", "environment") in told


def test_a_variable_of_another_device_is_told_only_when_it_is_set():
    assert "HCCL_DETERMINISTIC" not in str(settings.read_variables({}, "cpu"))
    assert "HCCL_DETERMINISTIC" in str(settings.read_variables({"HCCL_DETERMINISTIC": "true"}, "cpu"))


def test_every_default_has_a_source():
    assert all(variable.source for variable in settings.VARIABLES)


def test_what_torch_does_not_tell_is_unknown_and_says_why():
    import torch

    found = {r.name: r for readings in torch_settings.read(torch, "npu").values() for r in readings}
    assert found["npu.matmul.allow_hf32"].value == "unknown"
    assert found["npu.matmul.allow_hf32"].source.startswith("torch.npu.matmul.allow_hf32: AttributeError")


def test_settings_of_torch_are_read_where_they_are_set():
    import torch

    def now(name):
        return next(r.value for r in torch_settings.read(torch, "cpu")[NUMERIC] if r.name == name)

    try:
        for warn_only, value in ((False, "on"), (True, "warn only")):
            torch.use_deterministic_algorithms(True, warn_only=warn_only)
            assert now("deterministic_algorithms") == value
        torch.set_float32_matmul_precision("high")
        assert now("float32_matmul_precision") == "high"
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_float32_matmul_precision("highest")


def torch_of_an_npu(monkeypatch) -> object:
    """A module with the names of torch_npu 2.9.0 that are read; the device must not be started."""
    import torch

    options = {"ACL_PRECISION_MODE": b"must_keep_origin_dtype", "ACL_OP_SELECT_IMPL_MODE": b""}
    own = SimpleNamespace(_C=SimpleNamespace(_npu_getOption=options.get))
    monkeypatch.setitem(sys.modules, "torch_npu", own)
    hf32 = {
        kind: SimpleNamespace(allow_hf32=kind != "matmul", cube_math_type=None) for kind in ("matmul", "conv", "aclnn")
    }
    npu = SimpleNamespace(**hf32, device_count=lambda: 2, is_jit_compile_false=lambda: True)
    names = (
        "get_float32_matmul_precision",
        "get_default_dtype",
        "are_deterministic_algorithms_enabled",
        "get_num_threads",
    )
    return SimpleNamespace(npu=npu, backends=torch.backends, **{name: getattr(torch, name) for name in names})


def test_settings_of_torch_npu(monkeypatch):
    module = torch_of_an_npu(monkeypatch)
    found = {r.name: r.value for readings in torch_settings.read(module, "npu").values() for r in readings}
    assert (found["npu.matmul.allow_hf32"], found["npu.conv.allow_hf32"]) == ("False", "True")
    assert (found["ACL_PRECISION_MODE"], found["ACL_OP_SELECT_IMPL_MODE"]) == ("must_keep_origin_dtype", "unset")
    assert (found["npu.matmul.cube_math_type"], found["visible_device_count"]) == ("unset", "2")
    assert "jit_compile" not in found  # asking for it starts the device
    in_use = {
        r.name: r.value for readings in torch_settings.read(module, "npu", in_use=True).values() for r in readings
    }
    assert in_use["jit_compile"] == "False"


# ---------------------------------------------------------------- CANN


def write(root, path, text=""):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


INFO = "package_name=Ascend-cann-toolkit\nversion=8.5.1\narch=aarch64\n"


def test_cann_of_either_layout(tmp_path):
    for name, folder in (("new", "usr/local/Ascend/cann"), ("old", "usr/local/Ascend/ascend-toolkit/latest")):
        root = tmp_path / name
        write(root, f"{folder}/aarch64-linux/ascend_toolkit_install.info", INFO)
        write(root, "usr/local/Ascend/driver/version.info", "Version=25.2.0\n")
        found = find_cann(root, {})
        assert (found.version, found.folder, found.driver, found.state) == (
            "8.5.1",
            f"/{folder}",
            "25.2.0",
            "not sourced",
        )
        assert found.source == f"/{folder}/aarch64-linux/ascend_toolkit_install.info"
        assert find_cann(root, {"ASCEND_HOME_PATH": f"/{folder}"}).state == "installed"


def test_the_environment_is_looked_at_first(tmp_path):
    write(tmp_path, "usr/local/Ascend/cann/x86_64-linux/ascend_toolkit_install.info", INFO)
    write(tmp_path, "opt/cann/x86_64-linux/ascend_toolkit_install.info", INFO.replace("8.5.1", "9.0.0"))
    assert find_cann(tmp_path, {"ASCEND_TOOLKIT_HOME": "/opt/cann"}).version == "9.0.0"


def test_no_cann(tmp_path):
    found = find_cann(tmp_path, {})
    assert (found.state, found.installed, found.gaps) == ("absent", False, ())


def test_the_line_that_sources_a_toolkit():
    assert set_env("/usr/local/Ascend/cann") == "source /usr/local/Ascend/cann/set_env.sh"
    assert set_env("/a/ascend-toolkit/latest") == "source /a/ascend-toolkit/set_env.sh"


def test_a_file_of_another_form_has_no_values(tmp_path):
    (tmp_path / "version.info").write_bytes(b"\xff\xfe no lines\n\n=\n")
    assert named_values(tmp_path / "version.info") == {"": ""}
    assert named_values(tmp_path) == {}  # a folder


# ---------------------------------------------------------------- the whole


def test_of_a_run_here():
    import torch

    start = time.process_time()
    found = of_run(CpuDevice(), torch)
    assert time.process_time() - start < 0.3  # of a run, whose start this is part of
    assert found.value("torch") == torch.__version__
    assert found.value("device") == "cpu"
    assert found.value("hardware") == CpuDevice().hardware()
    assert all(reading.source for _, reading in found.every())
    assert found == of_run(CpuDevice(), torch)  # nothing in it changes by itself
    assert set(CpuDevice().settings()) - {"matmul_precision", *settings.NUMERIC_VARIABLES} <= {
        r.name for _, r in found.every()
    }


def test_a_written_host_is_read_wholly():
    data = situations.load("healthy-a2")
    found = collect(situations.host_of(data), "npu").fingerprint
    expected = {
        "cann": "8.5.1", "driver": "25.2.0", "torch_npu": "2.9.0", "python": "3.11.13", "npu_smi": "25.2.0",
        "npu.1.chip": "910B2", "npu.1.health": "OK", "npu.1.hbm_total_mib": "65536", "cann_state": "installed",
        "ASCEND_RT_VISIBLE_DEVICES": "0,1", "npu.conv.allow_hf32": "True", "host_memory_mib": str(512 << 10),
    }  # fmt: skip
    assert {name: found.value(name) for name in expected} == expected
    assert found.find("driver").source == "/usr/local/Ascend/driver/version.info"


@pytest.mark.parametrize("name", situations.names())
def test_every_written_host_has_a_fingerprint_that_survives_json(name):
    found = collect(situations.host_of(data := situations.load(name)), data["asked"]["device"]).fingerprint
    assert Fingerprint.from_json(json.loads(json.dumps(found.to_json()))) == found
    assert all(reading.source for _, reading in found.every())


def test_the_page_names_every_reading():
    page = PAGE.read_text(encoding="utf-8")
    names = {variable.name for variable in settings.VARIABLES} | {*PACKAGES, "python"}
    for name in situations.names():
        data = situations.load(name)
        found = collect(situations.host_of(data), data["asked"]["device"]).fingerprint
        names |= {".".join(["npu.N", *r.name.split(".")[2:]]) if r.name[:5].rstrip("0123456789") == "npu." else r.name
                  for _, r in found.every()}  # fmt: skip
    assert not [name for name in sorted(names) if f"`{name}`" not in page]
    for variable in settings.VARIABLES:
        row = next(line for line in page.splitlines() if line.startswith(f"| `{variable.name}` |"))
        assert f"| {variable.default} |" in row
        assert variable.source in row
    for group in GROUPS:
        assert f"`{group}`" in page


def test_the_plugin_does_not_import_it():
    names = "[m for m in sys.modules if m == 'torch' or 'fingerprint' in m or 'doctor' in m]"
    code = f"import pytest_npuconf.plugin, sys; print({names})"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
