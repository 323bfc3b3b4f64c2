"""An NVIDIA GPU."""

from __future__ import annotations

from pytest_npuconf.devices.accelerator import Accelerator
from pytest_npuconf.devices.base import import_torch
from pytest_npuconf.errors import DeviceError


class CudaDevice(Accelerator):
    """See :class:`pytest_npuconf.devices.base.Device`."""

    name = "cuda"

    def probe(self) -> None:
        torch = import_torch()
        if torch.version.cuda is None:
            raise DeviceError(
                f"device cuda: torch {torch.__version__} is a build without CUDA", mend="install a CUDA build of torch"
            )
        if not torch.cuda.is_available():
            raise DeviceError(
                "device cuda: torch.cuda.is_available() is False",
                mend="check the driver: nvidia-smi; and CUDA_VISIBLE_DEVICES",
            )

    def versions(self) -> dict[str, str]:
        torch = import_torch()
        driver = getattr(torch._C, "_cuda_getDriverVersion", None)  # the newest CUDA that the driver knows, as 12040
        found = {"cuda": str(torch.version.cuda)}
        return {**found, "driver": str(driver())} if driver is not None else found
