"""Faults of weights and of whole parts: skipped, swapped, dead, wrongly quantized."""

from __future__ import annotations

import math
from typing import Any

from pytest_npuconf.devices.base import import_torch
from pytest_npuconf.faults import anatomy
from pytest_npuconf.faults.base import Injector

GROUP = 32  # inputs that share a scale at four bits
SATURATED = 65504.0  # the largest float16


def skip_layer(model: Any) -> None:
    """The middle layer returns its input."""

    def bypass(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        hidden = args[0] if args else kwargs["hidden_states"]
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    anatomy.middle(model).register_forward_hook(bypass, with_kwargs=True)


def gelu(model: Any) -> None:
    """MLPs are gated by GELU where the model has SiLU."""
    torch = import_torch()
    if getattr(model.config, "hidden_act", "") not in ("silu", "swish"):
        raise anatomy.none_of(model, f"no SiLU (hidden_act is {getattr(model.config, 'hidden_act', None)!r})")
    for mlp in anatomy.mlps(model):
        mlp.act_fn = torch.nn.GELU()


def swap_gate(model: Any) -> None:
    """Gate and up projection of each MLP have changed places."""
    for mlp in anatomy.mlps(model):
        mlp.gate_proj, mlp.up_proj = mlp.up_proj, mlp.gate_proj


def dead_rows(count: float) -> Injector:
    """So many rows of the middle layer's up projection are zero; of a fraction, the first inputs of one more row."""

    def inject(model: Any) -> None:
        torch = import_torch()
        weight = anatomy.middle_mlp(model).up_proj.weight
        with torch.no_grad():
            for i in range(math.ceil(count)):
                inputs = math.ceil(min(1.0, count - i) * weight.shape[1])
                weight[(7 + 11 * i) % weight.shape[0], :inputs] = 0

    return inject


def stale_head(relative: float) -> Injector:
    """The head is a copy of the tied embedding from another checkpoint: each weight is off by relative noise.

    ``inject`` raises FaultError when the head is not tied.
    """

    def inject(model: Any) -> None:
        torch = import_torch()
        head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
        if head is None or head.weight is not embedding.weight:
            raise anatomy.none_of(model, "a head of its own, not tied to the embedding")
        drawn = torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(0)).to(head.weight.device)
        with torch.no_grad():
            other = (head.weight.float() * (1 + relative * drawn)).to(head.weight.dtype)
        head.weight = torch.nn.Parameter(other, requires_grad=False)

    return inject


def left_in_float32(model: Any) -> None:
    """The middle layer's up projection was not converted: it keeps its weight in float32 and computes in it.

    ``inject`` raises FaultError when the model is in float32.
    """
    torch = import_torch()
    linear = anatomy.middle_mlp(model).up_proj
    if linear.weight.dtype is torch.float32:
        raise anatomy.none_of(model, "only float32 weights")
    linear.weight = torch.nn.Parameter(linear.weight.float(), requires_grad=False)
    own = linear.forward
    linear.forward = lambda x: own(x.float()).to(x.dtype)


def int8_per_tensor(model: Any) -> None:
    """Every projection is kept in eight bits with one scale for the whole tensor."""
    torch = import_torch()
    with torch.no_grad():
        for module in anatomy.projections(model):
            scale = module.weight.float().abs().max() / 127
            module.weight.copy_((module.weight.float() / scale).round() * scale)


def int8_scale(relative: float) -> Injector:
    """The scale of one tensor, the middle layer's up projection, is too big by this part of itself."""

    def inject(model: Any) -> None:
        torch = import_torch()
        with torch.no_grad():
            anatomy.middle_mlp(model).up_proj.weight.mul_(1 + relative)

    return inject


def nibbles(model: Any) -> None:
    """The middle layer's up projection is kept in four bits, and each byte is read with its halves swapped."""
    torch = import_torch()
    weight = anatomy.middle_mlp(model).up_proj.weight
    rows, width = weight.shape
    group = GROUP if width % GROUP == 0 else width
    if width % 2:
        raise anatomy.none_of(model, f"an odd number of inputs ({width}), which no bytes hold")
    with torch.no_grad():
        grouped = weight.float().view(rows, -1, group)
        scale = grouped.abs().amax(-1, keepdim=True).clamp(min=1e-12) / 7
        codes = (grouped / scale).round().clamp(-8, 7).view(rows, -1, 2).flip(-1).view_as(grouped)
        weight.copy_((codes * scale).view(rows, width))


def saturate(model: Any) -> None:
    """One weight of the middle layer's down projection has a flipped exponent bit; the device saturates where float16
    would overflow, so that nothing is infinite."""
    torch = import_torch()
    down = anatomy.middle_mlp(model).down_proj
    with torch.no_grad():
        row, column = divmod(int(down.weight.abs().argmax()), down.weight.shape[1])
        down.weight[row, column] *= 2.0**14  # stays finite in float16
    down.register_forward_hook(
        lambda _module, _args, output: output.nan_to_num(0.0, SATURATED, -SATURATED).clamp(-SATURATED, SATURATED)
    )
