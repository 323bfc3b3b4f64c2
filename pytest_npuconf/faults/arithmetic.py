"""Faults of arithmetic: narrow accumulators, truncated inputs."""

from __future__ import annotations

import math
import types
from collections.abc import Callable
from typing import Any

from pytest_npuconf.devices.base import import_torch
from pytest_npuconf.errors import FaultError
from pytest_npuconf.faults import anatomy
from pytest_npuconf.faults.base import Injector
from pytest_npuconf.faults.patching import arguments_hook, wrap_attention

BLOCK = 32  # products that are added exactly before the sum is rounded
FLOAT32_BITS = 23


def to_nearest(x: Any, bits: int) -> Any:
    """float32 rounded to ``bits`` of mantissa, ties to even."""
    torch = import_torch()
    drop = FLOAT32_BITS - bits
    if drop <= 0:
        return x
    raw = x.contiguous().view(torch.int32)
    even = (raw >> drop) & 1
    return ((raw + ((1 << (drop - 1)) - 1) + even) & -(1 << drop)).view(torch.float32)


def to_zero(x: Any, bits: int) -> Any:
    """float32 cut to ``bits`` of mantissa."""
    torch = import_torch()
    return (x.contiguous().view(torch.int32) & -(1 << (FLOAT32_BITS - bits))).view(torch.float32)


def _accumulate(model: Any, rounded: Callable[[Any], Any]) -> None:
    """Every projection adds blocks of products and rounds the sum after each."""
    torch = import_torch()

    def forward(module: Any, x: Any) -> Any:
        total = None
        for first in range(0, x.shape[-1], BLOCK):
            block = slice(first, first + BLOCK)
            part = x[..., block].float() @ module.weight[:, block].float().T
            total = rounded(part if total is None else part.add_(total))
        if module.bias is not None:
            total = total + module.bias.float()
        return total.to(x.dtype)  # type: ignore[union-attr]

    for module in anatomy.projections(model):
        if type(module) is not torch.nn.Linear:
            raise FaultError(f"{type(module).__name__} is no plain linear layer, whose sums could be rounded")
        module.forward = types.MethodType(forward, module)


def accumulate_in(dtype: str) -> Injector:
    """Partial sums of every projection are kept in ``dtype``."""

    def inject(model: Any) -> None:
        target = getattr(import_torch(), dtype)
        _accumulate(model, lambda total: total.to(target).float())

    return inject


def accumulate_to(unit: float) -> Injector:
    """Partial sums of every projection are rounded to this relative error (a power of two; bfloat16 has ``2**-8``)."""
    bits = round(-math.log2(unit)) - 1
    return lambda model: _accumulate(model, lambda total: to_nearest(total, bits))


def truncate_inputs(cut: Callable[[Any, int], Any], bits: int) -> Injector:
    """Inputs and weights of every matrix product of the layers lose their low bits.

    Raises:
        FaultError: the model is not float32: those bits are not there to lose.
    """

    def inject(model: Any) -> None:
        torch = import_torch()
        dtype = anatomy.dtype_of(model)
        if dtype != "float32":
            raise FaultError(f"a model at {dtype} has no float32 products to truncate, so there is nothing to break")

        def edit(arguments: dict[str, Any]) -> None:
            arguments["input"] = cut(arguments["input"], bits)

        with torch.no_grad():
            for module in anatomy.projections(model):
                module.weight.copy_(cut(module.weight, bits))
                arguments_hook(module, edit)

        def around(call: Any, query: Any, key: Any, value: Any, mask: Any, **kwargs: Any) -> Any:
            return call(cut(query, bits), cut(key, bits), cut(value, bits), mask, **kwargs)

        for module in anatomy.attentions(model):
            wrap_attention(module, around)

    return inject
