"""What a device must be able to do. A new device is one class behind this protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from pytest_npuconf.errors import DeviceError


@dataclass(frozen=True)
class Memory:
    """Bytes free and in total."""

    free: int
    total: int


@runtime_checkable
class Device(Protocol):
    """A device under test or a reference device."""

    name: str

    def probe(self) -> None:
        """Find out whether the device can be used.

        Raises:
            DeviceError: naming what is missing, where it was looked for, and the command that mends it.
        """

    def torch_device(self) -> Any:
        """The ``torch.device`` to place tensors on."""

    def describe(self) -> str:
        """The hardware in words, as its own driver names it."""

    def memory(self) -> Memory:
        """Free and total memory in bytes."""

    def synchronize(self) -> None:
        """Wait for all queued work."""

    def release(self) -> None:
        """Give cached memory back."""

    def versions(self) -> dict[str, str]:
        """Versions of what this device alone brings (driver, CANN, CUDA)."""

    def deterministic(self) -> bool:
        """Whether the same call gives the same bits again. Left out: not known, so not asked for."""
        return False


def is_deterministic(device: Device) -> bool:
    """See :meth:`Device.deterministic`; False for a device of somebody else's that does not say."""
    known = getattr(device, "deterministic", None)
    return bool(known()) if known is not None else False


def determinism_of(device: Device) -> tuple[bool, str]:
    """The same with the reading that it rests on, from the device's ``determinism()`` where it has one and they agree."""
    equal = is_deterministic(device)
    told = getattr(device, "determinism", None)
    known, why = told() if told is not None else (None, "")
    if known is equal:
        return equal, str(why)
    return equal, f"device {device.name} {'says so' if hasattr(device, 'deterministic') else 'does not say'}"


def hardware_of(device: Device) -> str:
    """The hardware alone, without how many threads or neighbours it has; its description for a device that does not say."""
    known = getattr(device, "hardware", None)
    return str(known() if known is not None else device.describe())


def import_torch() -> Any:
    """``torch``, or an error that says why it cannot be imported.

    Raises:
        DeviceError: torch is not installed, or its import raised: on a host with torch_npu but no sourced CANN, the
            automatic loading of device backends makes ``import torch`` itself fail.
    """
    try:
        import torch
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise _import_failed(error) from error
        raise DeviceError(
            "torch is not installed in this Python", mend="pip install 'pytest-npuconf[transformers]'"
        ) from error
    except Exception as error:
        raise _import_failed(error) from error
    return torch


def _import_failed(error: Exception) -> DeviceError:
    return DeviceError(
        f"`import torch` failed: {type(error).__name__}: {error}\n"
        "  where torch_npu is installed, this is usually its automatic loading that finds no CANN",
        mend="source /usr/local/Ascend/ascend-toolkit/set_env.sh (or, for a CPU run: export TORCH_DEVICE_BACKEND_AUTOLOAD=0)",
    )
