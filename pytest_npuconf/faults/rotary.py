"""Faults of the rotary position embedding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytest_npuconf.devices.base import import_torch
from pytest_npuconf.errors import FaultError
from pytest_npuconf.faults import anatomy
from pytest_npuconf.faults.base import Injector
from pytest_npuconf.faults.patching import arguments_hook, before_rotation


def scale_base(factor: float) -> Injector:
    """Inverse frequencies are ``base ** -(i / n)``: a base ``factor`` times as big multiplies the i-th by
    ``factor ** -(i / n)``."""

    def inject(model: Any) -> None:
        torch = import_torch()
        for module in anatomy.rotaries(model):
            n = module.inv_freq.shape[0]
            exponent = torch.arange(n, device=module.inv_freq.device, dtype=torch.float32) / n
            with torch.no_grad():
                module.inv_freq.mul_(factor**-exponent)

    return inject


def double_width(model: Any) -> None:
    """Frequencies for a head twice as wide: the exponents are half of what they should be."""
    torch = import_torch()
    for module in anatomy.rotaries(model):
        with torch.no_grad():
            module.inv_freq.sqrt_()


def _change_positions(model: Any, change: Callable[[Any], Any]) -> None:
    for module in anatomy.rotaries(model):

        def edit(arguments: dict[str, Any]) -> None:
            arguments["position_ids"] = change(arguments["position_ids"])

        arguments_hook(module, edit)


def bfloat16_positions(model: Any) -> None:
    """Positions go through bfloat16, which is exact up to 256 only."""
    torch = import_torch()
    _change_positions(model, lambda positions: positions.to(torch.bfloat16).float())


def bfloat16_frequencies(model: Any) -> None:
    """Inverse frequencies are kept in bfloat16: the error of an angle grows with the position."""
    torch = import_torch()
    for module in anatomy.rotaries(model):
        with torch.no_grad():
            module.inv_freq.copy_(module.inv_freq.to(torch.bfloat16))


def clamp_table(model: Any, *, size: int = 256) -> None:
    """The table of cosines has ``size`` rows; positions beyond take the last."""
    _change_positions(model, lambda positions: positions.clamp(max=size - 1))


def wrap_table(model: Any, *, size: int = 256) -> None:
    """The table of cosines has ``size`` rows; positions beyond begin again."""
    _change_positions(model, lambda positions: positions % size)


def interleave(model: Any) -> None:
    """Pairs (2i, 2i + 1) are rotated where the weights are laid out for (i, i + n/2). The order in which both end up does
    not matter to their product, so gathering the pairs first is the same."""

    def change(heads: Any) -> Any:
        torch = import_torch()
        return torch.cat((heads[..., 0::2], heads[..., 1::2]), dim=-1)

    anatomy.rotaries(model)
    for module in anatomy.attentions(model):
        for which in ("q", "k"):
            before_rotation(module, which, change)


def rotated(heads: Any, frequencies: Any, delta: Any) -> Any:
    """``heads`` of shape ``(batch, positions, heads, width)`` turned ``delta`` positions further; delta is a number or one
    for each row of the batch."""
    torch = import_torch()
    rows = torch.as_tensor(delta, dtype=torch.float32, device=heads.device).reshape(-1, 1)
    angles = (rows * frequencies.to(heads.device, torch.float32))[:, None, None]
    cos, sin = torch.cat((angles, angles), -1).cos(), torch.cat((angles, angles), -1).sin()
    exact = heads.float()
    half = exact.shape[-1] // 2
    turned = torch.cat((-exact[..., half:], exact[..., :half]), dim=-1)
    return (exact * cos + turned * sin).to(heads.dtype)


def off_by_one(which: str) -> Injector:
    """Queries ("q") or keys ("k") are rotated for the next position."""

    def inject(model: Any) -> None:
        frequencies = anatomy.rotaries(model)[0].inv_freq
        for module in anatomy.attentions(model):
            if frequencies.shape[0] * 2 != anatomy.head_dim(module):
                raise FaultError(f"{type(model).__name__} rotates a part of each head; this fault knows whole heads")
            before_rotation(module, which, lambda heads: rotated(heads, frequencies, 1))

    return inject
