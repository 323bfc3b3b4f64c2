"""The simulated NPU as a device under test."""

from __future__ import annotations

import importlib.util

from pytest_npuconf.devices.accelerator import Accelerator
from pytest_npuconf.devices.cpu import CpuDevice
from pytest_npuconf.errors import DeviceError


class SimulatedNpuDevice(Accelerator):
    """See :class:`pytest_npuconf.devices.base.Device`. It has the name of the real one, so that the same code runs; whatever it
    gives is labelled SIMULATED."""

    name = "npu"
    simulated = True

    def probe(self) -> None:
        """Registers it.

        Raises:
            DeviceError: there is a real NPU's package here, or torch is too old.
        """
        if importlib.util.find_spec("torch_npu") is not None:
            raise DeviceError(
                "--npuconf-simulate: torch_npu is installed in this Python, and a simulated NPU must never stand in for a real one",
                mend="drop --npuconf-simulate, or run it in a Python without torch_npu",
            )
        from pytest_npuconf.devices.simulated.backend import backend

        backend()

    def describe(self) -> str:
        return f"{self.hardware()} (SIMULATED), computed on {CpuDevice().describe()}"

    def deterministic(self) -> bool:
        """What it says of itself: each sum has one order. A defect may break the word."""
        return True

    def determinism(self) -> tuple[bool, str]:
        """The same, and why."""
        return self.deterministic(), "device npu (SIMULATED): each sum has one order"

    def versions(self) -> dict[str, str]:
        return {}
