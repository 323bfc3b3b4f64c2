"""What ``torch.cuda`` and ``torch.npu`` share: both modules offer the same names."""

from __future__ import annotations

from typing import Any

from pytest_npuconf.devices.base import Memory, import_torch


class Accelerator:
    """A device behind ``torch.<name>``, current index. Subclasses add ``probe`` and ``versions``."""

    name = ""

    def _module(self) -> Any:
        return getattr(import_torch(), self.name)

    def torch_device(self) -> Any:
        return import_torch().device(self.name, self._module().current_device())

    def describe(self) -> str:
        return f"{self.hardware()} (1 of {self._module().device_count()})"

    def hardware(self) -> str:
        """The chip's name."""
        module = self._module()
        return str(module.get_device_name(module.current_device()))

    def memory(self) -> Memory:
        free, total = self._module().mem_get_info()
        return Memory(int(free), int(total))

    def synchronize(self) -> None:
        self._module().synchronize()

    def release(self) -> None:
        self._module().empty_cache()

    def deterministic(self) -> bool:
        """Only where the settings of this process say so: kernels that add in the order in which threads arrive are the
        default."""
        return self.determinism()[0]

    def determinism(self) -> tuple[bool, str]:
        """The same, and the reading that it rests on."""
        from pytest_npuconf.fingerprint.determinism import of_process  # which imports devices

        return of_process(self.name, import_torch())
