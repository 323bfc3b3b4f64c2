"""What this host has, by the keys of a card's minimums."""

import os
import platform

import pytest

from pytest_npuconf import environment
from pytest_npuconf.cards.tables import AMOUNTS, VERSIONS
from pytest_npuconf.devices import Memory
from pytest_npuconf.environment import found_here


class Device:
    """A device that tells its versions only when it is an NPU."""

    def __init__(self, name):
        self.name = name

    def memory(self):
        return Memory(1, 64 * 2**30)

    def versions(self):
        return {"cann": "8.5.1", "torch_npu": "2.9.0"}


@pytest.mark.parametrize(
    ("device", "engine", "unused"),
    [
        ("cpu", "transformers", {"torch_npu", "vllm", "vllm_ascend", "cann"}),
        ("cuda", "transformers", {"torch_npu", "vllm", "vllm_ascend", "cann"}),
        ("cuda", "vllm", {"torch_npu", "vllm_ascend", "cann"}),
        ("npu", "transformers", {"vllm", "vllm_ascend"}),
        ("npu", "vllm", set()),
    ],
)
def test_what_is_not_used_here_is_left_out(device, engine, unused):
    assert {*VERSIONS, *AMOUNTS} - set(found_here(Device(device), engine)) == unused


def test_cann_is_the_devices_own_word():
    assert found_here(Device("npu"), "transformers")["cann"] == "8.5.1"


def test_packages_that_are_not_installed_are_none(monkeypatch):
    installed = {"numpy": "1.26.4", "torch": "2.9.0+cpu"}

    def version(name):
        if name not in installed:
            raise environment.importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(environment.importlib.metadata, "version", version)
    found = found_here(Device("npu"), "vllm")
    assert (found["numpy"], found["torch"], found["vllm_ascend"], found["torch_npu"]) == (
        "1.26.4",
        "2.9.0+cpu",
        None,
        None,
    )


def test_amounts_are_those_that_this_process_may_use(monkeypatch):
    if hasattr(os, "sched_getaffinity"):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5})
    else:
        monkeypatch.setattr(os, "cpu_count", lambda: 3)
    found = found_here(Device("cpu"), "transformers")
    assert found["cpu_count"] == 3
    assert found["device_memory_gib"] == 64.0
    assert 0 < found["memory_gib"] < 1e5


def test_a_python_of_a_distribution_that_adds_a_plus_is_readable(monkeypatch):
    monkeypatch.setattr(platform, "python_version", lambda: "3.12.3+")
    assert found_here(Device("cpu"), "transformers")["python"] == "3.12.3"
