"""Faults of the RMS norms."""

from __future__ import annotations

import math
from typing import Any

from pytest_npuconf.devices.base import import_torch
from pytest_npuconf.errors import FaultError
from pytest_npuconf.faults import anatomy
from pytest_npuconf.faults.base import Injector


def set_epsilon(epsilon: float) -> Injector:
    """Every norm has this epsilon."""

    def inject(model: Any) -> None:
        norms = anatomy.norms(model)
        # a checkpoint that went through float32 holds 9.99999975e-06
        if all(math.isclose(module.variance_epsilon, epsilon, rel_tol=1e-3) for module in norms):
            raise FaultError(f"every norm of {type(model).__name__} has the epsilon {epsilon:g} already")
        for module in norms:
            module.variance_epsilon = epsilon

    return inject


def scale_epsilon(factor: float) -> Injector:
    """Every norm's epsilon is ``1 + factor`` times as big."""

    def inject(model: Any) -> None:
        for module in anatomy.norms(model):
            module.variance_epsilon *= 1 + factor

    return inject


def one_plus_weight(model: Any) -> None:
    """Norms multiply by 1 + weight, as Gemma's do."""
    torch = import_torch()
    with torch.no_grad():
        for module in anatomy.norms(model):
            module.weight.add_(1)


def no_qk_norm(model: Any) -> None:
    """Norms of queries and keys return their input."""
    for module in anatomy.qk_norms(model):
        module.register_forward_hook(lambda _module, args, _output: args[0])


def _middle_norm(model: Any) -> Any:
    own = {id(m) for m in anatomy.norms(model)}
    return next(m for m in anatomy.middle(model).children() if id(m) in own)


def poison_weight(model: Any) -> None:
    """One element of the weight of one norm is NaN."""
    torch = import_torch()
    with torch.no_grad():
        _middle_norm(model).weight[0] = float("nan")


def nan_to_zero(model: Any) -> None:
    """One element of one norm's weight is NaN, and the device turns NaN into zero: finite, and a channel is gone."""
    poison_weight(model)
    _middle_norm(model).register_forward_hook(lambda _module, _args, output: output.nan_to_num(0.0))
