"""This host, as far as a card's minimums ask for it."""

from __future__ import annotations

import importlib.metadata
import os
import platform

from pytest_npuconf.devices.base import Device
from pytest_npuconf.devices.cpu import CpuDevice

# Packages that only some engine or device uses; of the others this host is always asked.
ENGINE_OF = {"vllm": "vllm", "vllm_ascend": "vllm"}
NPU_ONLY = ("torch_npu", "vllm_ascend", "cann")


def found_here(device: Device, engine: str) -> dict[str, str | float | None]:
    """Versions and amounts by the keys of ``[minimum]``; None: not installed. What this engine or device does not use is
    left out."""
    versions: dict[str, str | None] = {"python": platform.python_version().rstrip("+")}
    for package in ("torch", "torch_npu", "transformers", "vllm", "vllm_ascend", "numpy"):
        versions[package] = _installed(package)
    versions["cann"] = device.versions().get("cann") if device.name == "npu" else None
    amounts: dict[str, float] = {
        "device_memory_gib": device.memory().total / 2**30,
        "cpu_count": _processors(),
        "memory_gib": CpuDevice().memory().total / 2**30,
    }
    used = {
        key: version
        for key, version in versions.items()
        if ENGINE_OF.get(key, engine) == engine and not (key in NPU_ONLY and device.name != "npu")
    }
    return {**used, **amounts}


def _installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processors() -> int:
    """Processors that this process may use, which are fewer than the host's inside a container."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
