"""Devices: cpu, cuda, npu, and those that other packages add."""

from __future__ import annotations

from pytest_npuconf.devices.base import Device, Memory, import_torch
from pytest_npuconf.devices.cpu import CpuDevice
from pytest_npuconf.devices.cuda import CudaDevice
from pytest_npuconf.devices.npu import NpuDevice
from pytest_npuconf.devices.simulated.device import SimulatedNpuDevice
from pytest_npuconf.errors import DeviceError

__all__ = ["Device", "Memory", "choose_device", "import_torch", "shipped_devices"]


def shipped_devices() -> list[Device]:
    """The devices that come with the package."""
    return [CpuDevice(), CudaDevice(), NpuDevice()]


def choose_device(name: str, more: list[Device], *, simulate: bool = False) -> Device:
    """The device of this name; ``more`` (from hooks) hides a shipped one of the same name, and the simulated NPU hides both.

    Raises:
        DeviceError: unknown name.
    """
    if simulate:
        return SimulatedNpuDevice()
    offered = {device.name: device for device in [*shipped_devices(), *more]}
    if name not in offered:
        raise DeviceError(f"no device {name!r}", mend=f"--npuconf-device one of: {', '.join(sorted(offered))}")
    return offered[name]
