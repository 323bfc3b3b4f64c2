"""Faults of the device: of the simulated NPU, which ends them with the model that they were injected into."""

from __future__ import annotations

from typing import Any

from pytest_npuconf.devices.simulated import switches
from pytest_npuconf.errors import FaultError
from pytest_npuconf.faults import anatomy
from pytest_npuconf.faults.base import Injector


def _simulated(model: Any) -> Any:
    """The simulated NPU that the model is on; None for an architecture without weights, which computes nothing.

    Raises:
        FaultError: it is on another device.
    """
    from pytest_npuconf.devices.simulated.backend import NAME, backend, registered

    where = next(model.parameters()).device.type
    if not registered() or where not in (NAME, "meta"):
        raise FaultError(
            f"it is a defect of the simulated NPU, and this run's device is another ({where}), so there is nothing to break",
            mend="pytest --npu --npuconf-simulate --model NAME --npuconf-fault NAME",
        )
    return backend() if where == NAME else None


def switch(name: str, value: Any = True) -> Injector:
    """Switch a defect of :mod:`pytest_npuconf.devices.simulated.switches` on."""

    def inject(model: Any) -> None:
        if (npu := _simulated(model)) is not None:
            npu.switches.turn_on(name, model, value)

    return inject


def hf32(model: Any) -> None:
    """Float32 products are let through as HF32 although nobody allowed it.

    Raises:
        FaultError: the model is not float32: its products have no bits to lose.
    """
    npu, dtype = _simulated(model), anatomy.dtype_of(model)
    if dtype != "float32":
        raise FaultError(f"a model at {dtype} has no float32 products to truncate, so there is nothing to break")
    if npu is not None:
        npu.switches.turn_on(switches.HF32, model)


def wrong_shape(model: Any) -> None:
    """Linear layers with the shape of the MLPs' last one leave out their last inputs."""
    npu, shape = _simulated(model), tuple(anatomy.middle_mlp(model).down_proj.weight.shape)
    if npu is not None:
        npu.switches.turn_on(switches.WRONG_SHAPE, model, shape)


def cpu_fallback(op: str) -> Injector:
    """The NPU has no kernel for ``op`` (``aten::silu``): the CPU computes it."""

    def inject(model: Any) -> None:
        if (npu := _simulated(model)) is not None:
            npu.fall_back(op, model)

    return inject
