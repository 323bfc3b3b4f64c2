"""The parts of a transformers decoder, found by what they are and not by a model's name. Each function raises
:class:`pytest_npuconf.errors.FaultError` when the model has no such part: a fault never passes in silence."""

from __future__ import annotations

from typing import Any

from pytest_npuconf.devices.base import import_torch
from pytest_npuconf.errors import FaultError


def none_of(model: Any, what: str) -> FaultError:
    """The error of a fault that finds nothing to break."""
    return FaultError(f"{type(model).__name__} has {what}, so there is nothing to break")


def decoder(model: Any) -> Any:
    """The part below the head, which makes masks and positions."""
    found = model.base_model
    if found is model:
        raise none_of(model, "no separate decoder")
    return found


def layers(model: Any) -> Any:
    """The list of decoder layers: the longest module list."""
    torch = import_torch()
    lists = [m for m in model.modules() if isinstance(m, torch.nn.ModuleList)]
    if not lists:
        raise none_of(model, "no list of layers")
    return max(lists, key=len)


def middle(model: Any) -> Any:
    """The middle decoder layer: where a defect of a single layer is put."""
    found = layers(model)
    return found[len(found) // 2]


def attentions(model: Any) -> list[Any]:
    """The attention modules that take a scale."""
    found = [m for m in model.modules() if isinstance(getattr(m, "scaling", None), float)]
    if not found:
        raise none_of(model, "no attention with a scale")
    return found


def attention_of(layer: Any, model: Any) -> Any:
    """The attention module of one layer."""
    found = [m for m in layer.modules() if isinstance(getattr(m, "scaling", None), float)]
    if not found:
        raise none_of(model, "no attention with a scale")
    return found[0]


def mlps(model: Any) -> list[Any]:
    """The gated MLPs, in the order of their layers."""
    parts = ("gate_proj", "up_proj", "down_proj", "act_fn")
    found = [m for m in model.modules() if all(hasattr(m, part) for part in parts)]
    if not found:
        raise none_of(model, "no gated MLP")
    return found


def middle_mlp(model: Any) -> Any:
    """The MLP of the middle layer."""
    found = mlps(model)
    return found[len(found) // 2]


def rotaries(model: Any) -> list[Any]:
    """The modules that make the rotary embedding's cosines and sines."""
    torch = import_torch()
    found = [m for m in model.modules() if isinstance(getattr(m, "inv_freq", None), torch.Tensor)]
    if not found:
        raise none_of(model, "no rotary embedding")
    return found


def norms(model: Any) -> list[Any]:
    """The RMS norms."""
    found = [m for m in model.modules() if isinstance(getattr(m, "variance_epsilon", None), float)]
    if not found:
        raise none_of(model, "no RMS norm")
    return found


def qk_norms(model: Any) -> list[Any]:
    """The norms of queries and keys."""
    found = [m for name, m in model.named_modules() if name.endswith((".q_norm", ".k_norm"))]
    if not found:
        raise none_of(model, "no norm of queries and keys")
    return found


def projections(model: Any) -> list[Any]:
    """Every linear layer of the decoder layers, without the head."""
    torch = import_torch()
    found = [m for m in layers(model).modules() if isinstance(m, torch.nn.Linear)]
    if not found:
        raise none_of(model, "no linear layer")
    return found


def head_dim(attention: Any) -> int:
    """Width of one head."""
    return int(attention.head_dim)


def groups(model: Any) -> int:
    """Query heads per key/value head, at least two.

    Raises:
        FaultError: every query head has its own.
    """
    config = model.config
    found = int(config.num_attention_heads // config.num_key_value_heads)
    if found < 2:
        raise none_of(model, "as many key/value heads as query heads")
    if config.num_key_value_heads < 2:
        raise none_of(model, "a single key/value head")
    return found


def dtype_of(model: Any) -> str:
    """The dtype of the layers' weights, without ``torch.``."""
    return str(projections(model)[0].weight.dtype).removeprefix("torch.")
