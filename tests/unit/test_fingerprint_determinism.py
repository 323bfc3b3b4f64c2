"""Both paths: where equal bits are asked, and where near ties are passed over, and the reading that decides."""

from __future__ import annotations

import pytest

from pytest_npuconf.devices import CpuDevice, CudaDevice, NpuDevice
from pytest_npuconf.devices.base import determinism_of, is_deterministic
from pytest_npuconf.devices.simulated.device import SimulatedNpuDevice
from pytest_npuconf.fingerprint.determinism import deterministic, of_process
from pytest_npuconf.fingerprint.readings import NUMERIC, Fingerprint, Reading


def fingerprint(**values: str) -> Fingerprint:
    return Fingerprint.of({NUMERIC: [Reading(name, value, "environment") for name, value in values.items()]})


ON = {"deterministic_algorithms": "on"}


@pytest.mark.parametrize(
    ("device", "values", "more", "equal", "named"),
    [
        ("cpu", {}, {}, True, "device cpu"),
        ("npu", {}, {}, False, "deterministic_algorithms was not read"),
        ("npu", {"deterministic_algorithms": "off"}, {}, False, "deterministic_algorithms is off"),
        ("npu", {"deterministic_algorithms": "warn only"}, {}, False, "deterministic_algorithms is warn only"),
        ("npu", ON, {}, True, "deterministic_algorithms is on"),
        ("npu", ON, {"devices": 2}, False, "HCCL_DETERMINISTIC was not read, with 2 devices"),
        ("npu", {**ON, "HCCL_DETERMINISTIC": "true"}, {"devices": 2}, False, "LCCL_DETERMINISTIC"),
        ("npu", {**ON, "HCCL_DETERMINISTIC": "1", "LCCL_DETERMINISTIC": "1"}, {"devices": 2}, False, "HCCL_DETERMINISTIC is 1"),
        ("npu", {**ON, "HCCL_DETERMINISTIC": "strict", "LCCL_DETERMINISTIC": "1"}, {"devices": 2}, True, "strict"),
        ("npu", ON, {"engine": "vllm"}, False, "VLLM_BATCH_INVARIANT was not read"),
        ("npu", {"VLLM_BATCH_INVARIANT": "1"}, {"engine": "vllm"}, True, "VLLM_BATCH_INVARIANT is 1 (environment)"),
        ("npu", {"VLLM_BATCH_INVARIANT": "1"}, {}, False, "deterministic_algorithms"),
        ("npu", {**ON, "VLLM_BATCH_INVARIANT": "1"}, {"engine": "server"}, False, "server"),
        ("cuda", ON, {}, False, "CUBLAS_WORKSPACE_CONFIG was not read"),
        ("cuda", {**ON, "CUBLAS_WORKSPACE_CONFIG": ":16:2"}, {}, False, "CUBLAS_WORKSPACE_CONFIG is :16:2"),
        ("cuda", {**ON, "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}, {}, True, "CUBLAS_WORKSPACE_CONFIG is :4096:8"),
        ("cuda", {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}, {}, False, "deterministic_algorithms"),
        ("somebody's", ON, {}, False, "nothing is known"),
    ],
)  # fmt: skip
def test_the_verdict_and_the_reading_it_rests_on(device, values, more, equal, named):
    verdict, why = deterministic(fingerprint(**values), device, **more)
    assert verdict is equal
    assert named in why


def test_of_this_process():
    import torch

    environ = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    assert of_process("cuda", torch, environ) == (
        False, "deterministic_algorithms is off (torch.are_deterministic_algorithms_enabled())",
    )  # fmt: skip
    try:
        torch.use_deterministic_algorithms(True)
        assert of_process("cuda", torch, environ)[0]
        assert not of_process("cuda", torch, {})[0]
        assert of_process("npu", torch, {})[0]
    finally:
        torch.use_deterministic_algorithms(False)


def test_the_devices_say_it_with_the_reading(monkeypatch):
    import torch

    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    assert determinism_of(CpuDevice())[0]
    for device in (CudaDevice(), NpuDevice()):
        assert determinism_of(device) == (
            False,
            "deterministic_algorithms is off (torch.are_deterministic_algorithms_enabled())",
        )
    try:
        torch.use_deterministic_algorithms(True)
        assert is_deterministic(NpuDevice())
        assert "CUBLAS_WORKSPACE_CONFIG is :4096:8 (environment)" in determinism_of(CudaDevice())[1]
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_device_that_overrides_it_is_believed():
    class Own(NpuDevice):
        def deterministic(self) -> bool:
            return True

    class Silent:
        name = "quiet"

    assert determinism_of(Own()) == (True, "device npu says so")
    assert determinism_of(SimulatedNpuDevice())[0]
    assert determinism_of(Silent()) == (False, "device quiet does not say")


def test_a_failing_repeat_names_the_reading():
    from pytest_npuconf import measurements
    from tests.unit.test_equivalence import Equivalence, pair

    found = Equivalence((pair([1e-12], "d1"),))
    asked = measurements.repeat_differences(found, deterministic=True, why="deterministic_algorithms is on (torch)")
    assert asked.value == 1
    assert asked.rows[0].detail.endswith("equal bits are asked: deterministic_algorithms is on (torch)")
    assert asked.data["deterministic_why"] == "deterministic_algorithms is on (torch)"
    told = measurements.repeat_differences(
        Equivalence((pair([0.0], rel_l2=2e-4),)), deterministic=False, why="deterministic_algorithms is off (torch)"
    )
    assert "near ties are passed over: deterministic_algorithms is off (torch)" in told.rows[0].detail
