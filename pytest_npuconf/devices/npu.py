"""An Ascend NPU through torch_npu."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from pathlib import Path

from pytest_npuconf.devices.accelerator import Accelerator
from pytest_npuconf.devices.base import import_torch
from pytest_npuconf.errors import DeviceError
from pytest_npuconf.fingerprint.cann import find_cann, set_env

VISIBLE = "ASCEND_RT_VISIBLE_DEVICES"
ROOT = Path("/")


class NpuDevice(Accelerator):
    """See :class:`pytest_npuconf.devices.base.Device`."""

    name = "npu"

    def probe(self) -> None:
        if importlib.util.find_spec("torch_npu") is None:
            raise DeviceError(
                "device npu: the package torch_npu is not installed in this Python, so there is no way to an Ascend NPU\n"
                "  looked for: torch_npu (import path), which also needs CANN and the driver on the host",
                mend=f"on the Ascend host: install CANN, `{_source()}`, then pip install torch-npu of your torch's version "
                "(2.9.0 for CANN 8.5.1); without an NPU: --npuconf-device cpu",
            )
        torch = import_torch()
        try:
            import torch_npu  # noqa: F401
        except Exception as error:
            raise DeviceError(
                f"device npu: torch_npu is installed but cannot be imported: {type(error).__name__}: {error}\n"
                f"  usually CANN is missing or not sourced, or torch {torch.__version__} is not the version it was built for",
                mend=f"{_source()}; then: python -c 'import torch, torch_npu'",
            ) from error
        if not torch.npu.is_available():
            seen = os.environ.get(VISIBLE)
            raise DeviceError(
                f"device npu: torch.npu.is_available() is False ({torch.npu.device_count()} devices, "
                f"{VISIBLE}={'unset' if seen is None else seen})",
                mend=f"check the driver: npu-smi info; {VISIBLE} must list ascending device numbers",
            )

    def versions(self) -> dict[str, str]:
        import torch_npu

        here = find_cann(ROOT, os.environ)
        get_cann = getattr(torch_npu.npu.utils, "get_cann_version", None)
        cann = str(get_cann("CANN") or "") if get_cann is not None else ""
        found = {
            "torch_npu": importlib.metadata.version("torch-npu"),
            "cann": cann or here.version,
            "driver": here.driver,
        }
        return {name: version for name, version in found.items() if version}


def _source() -> str:
    """The line that sources the CANN of this host."""
    return set_env(find_cann(ROOT, os.environ).folder)
