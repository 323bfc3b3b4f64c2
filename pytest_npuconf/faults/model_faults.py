"""Faults of a transformers model."""

from __future__ import annotations

from typing import Any

from pytest_npuconf.devices.base import import_torch
from pytest_npuconf.engines.transformers_engine import Variant
from pytest_npuconf.engines.variants import BlockedAttention, SplitK
from pytest_npuconf.errors import FaultError


def _layers(model: Any) -> Any:
    torch = import_torch()
    lists = [m for m in model.modules() if isinstance(m, torch.nn.ModuleList)]
    if not lists:
        raise FaultError(f"{type(model).__name__} has no list of layers to break")
    return max(lists, key=len)


def skip_layer(model: Any) -> None:
    """The middle layer returns its input."""

    def bypass(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        hidden = args[0] if args else kwargs["hidden_states"]
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    layers = _layers(model)
    layers[len(layers) // 2].register_forward_hook(bypass, with_kwargs=True)


def shrink_rope_base(model: Any, *, factor: float = 10.0) -> None:
    """Inverse frequencies are ``base ** -(i / n)``: a base ``factor`` times smaller multiplies the i-th by
    ``factor ** (i / n)``."""
    torch = import_torch()
    modules = [m for m in model.modules() if isinstance(getattr(m, "inv_freq", None), torch.Tensor)]
    if not modules:
        raise FaultError(f"{type(model).__name__} has no rotary embedding to break")
    for module in modules:
        n = module.inv_freq.shape[0]
        exponent = torch.arange(n, device=module.inv_freq.device, dtype=torch.float32) / n
        with torch.no_grad():
            module.inv_freq.mul_(factor**exponent)


def scale_attention(model: Any, *, factor: float = 1.5) -> None:
    """The scale of the attention scores is wrong in every layer."""
    modules = [m for m in model.modules() if isinstance(getattr(m, "scaling", None), float)]
    if not modules:
        raise FaultError(f"{type(model).__name__} has no attention scale to break")
    for module in modules:
        module.scaling *= factor


def kill_weight_row(model: Any, *, row: int = 7) -> None:
    """One row of one linear layer of the middle layer's MLP is zero: one channel is dead."""
    torch = import_torch()
    linears = [(n, m) for n, m in _middle(model).named_modules() if isinstance(m, torch.nn.Linear)]
    if not linears:
        raise FaultError(f"{type(model).__name__} has no linear layer to break")
    target = next((m for name, m in linears if name.endswith("up_proj")), linears[-1][1])
    with torch.no_grad():
        target.weight[row % target.weight.shape[0]] = 0


def poison_weight(model: Any) -> None:
    """One element of one norm's weight is NaN."""
    torch = import_torch()
    norms = [p for name, p in _middle(model).named_parameters() if "norm" in name]
    if not norms:
        raise FaultError(f"{type(model).__name__} has no norm to break")
    with torch.no_grad():
        norms[0][0] = float("nan")


def _middle(model: Any) -> Any:
    layers = _layers(model)
    return layers[len(layers) // 2]


def compute_as(variant: Variant) -> Any:
    """A benign injector: the candidate computes as ``variant`` does, for good."""

    def inject(model: Any) -> None:
        context = variant.applied(model)
        context.__enter__()
        model.npuconf_variant = context  # kept alive: a collected generator would undo itself

    return inject


SPLIT_K = compute_as(SplitK(8))
BLOCKED_ATTENTION = compute_as(BlockedAttention())
