"""Benign variants of a candidate: other ways to compute the same, which nothing may object to. Attention over blocks
of queries and attention in steps are members of the yardstick too (:data:`pytest_npuconf.engines.variants.YARDSTICK`)."""

from __future__ import annotations

import contextlib
import math
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pytest_npuconf.devices.base import import_torch
from pytest_npuconf.engines.transformers_engine import Variant
from pytest_npuconf.engines.variants import computed_by, linears
from pytest_npuconf.errors import FaultError
from pytest_npuconf.faults import anatomy
from pytest_npuconf.faults.base import Injector
from pytest_npuconf.faults.patching import arguments_hook, is_whole_pass, look, wrap_attention

KEY_BLOCK = 48


def compute_as(variant: Variant) -> Injector:
    """The candidate computes as ``variant`` does, for good."""

    def inject(model: Any) -> None:
        context = variant.applied(model)
        context.__enter__()
        model.npuconf_variant = context  # kept alive: a collected generator would undo itself

    return inject


@dataclass(frozen=True)
class Strided:
    """Each linear layer summed over ``parts`` interleaved sets of its inputs (every parts-th) in float32, pairwise."""

    parts: int
    name: str = "strided-k"

    @contextlib.contextmanager
    def applied(self, model: Any) -> Iterator[None]:
        with computed_by(linears(anatomy.layers(model)), lambda module: types.MethodType(self._forward, module)):
            yield

    def _forward(self, module: Any, x: Any) -> Any:
        sums = [
            x[..., i :: self.parts].float() @ module.weight[:, i :: self.parts].float().T for i in range(self.parts)
        ]
        while len(sums) > 1:
            sums = [a + b for a, b in zip(sums[0::2], sums[1::2], strict=True)]
        return (sums[0] if module.bias is None else sums[0] + module.bias.float()).to(x.dtype)


def eager(model: Any) -> None:
    """transformers' own attention without a fused kernel.

    Raises:
        FaultError: that is how the model runs already.
    """
    if model.config._attn_implementation == "eager":
        raise FaultError(f"{type(model).__name__} computes attention eagerly already")
    model.set_attn_implementation("eager")


def online_softmax(model: Any) -> None:
    """Attention over blocks of keys with a running maximum and sum in float32, rounded once: as flash kernels do."""
    for module in anatomy.attentions(model):
        wrap_attention(module, _online)


def _online(_call: Any, query: Any, key: Any, value: Any, mask: Any, **kwargs: Any) -> tuple[Any, None]:
    torch = import_torch()
    groups = query.shape[1] // key.shape[1]
    keys, values = (t.repeat_interleave(groups, dim=1).float() for t in (key, value))
    queries, length = query.shape[2], keys.shape[2]
    rows = torch.arange(queries, device=query.device)[:, None] + length - queries
    top = torch.full((*query.shape[:3], 1), torch.finfo(torch.float32).min, device=query.device)
    total, output = torch.zeros_like(top), torch.zeros(query.shape, dtype=torch.float32, device=query.device)
    for first in range(0, length, KEY_BLOCK):
        block = slice(first, min(first + KEY_BLOCK, length))
        scores = query.float() @ keys[:, :, block].transpose(2, 3) * kwargs["scaling"]
        if mask is None:
            columns = torch.arange(block.start, block.stop, device=query.device)[None]
            scores = scores.masked_fill(columns > rows, -math.inf)
        elif mask.dtype is torch.bool:
            scores = scores.masked_fill(~mask[..., block], torch.finfo(torch.float32).min)
        else:
            scores = scores + mask[..., block].float()
        higher = torch.maximum(top, scores.amax(-1, keepdim=True))
        shrink, weights = torch.exp(top - higher), torch.exp(scores - higher)
        total, output, top = (
            total * shrink + weights.sum(-1, keepdim=True),
            output * shrink + weights @ values[:, :, block],
            higher,
        )
    return (output / total).to(query.dtype).transpose(1, 2).contiguous(), None


def fused_norm(model: Any) -> None:
    """Norms multiply by their weight in float32 too and round once, as fused kernels do."""

    def forward(module: Any, hidden_states: Any) -> Any:
        exact = hidden_states.float()
        scale = (exact.square().mean(-1, keepdim=True) + module.variance_epsilon).rsqrt()
        return (module.weight.float() * (exact * scale)).to(hidden_states.dtype)

    for module in anatomy.norms(model):
        module.forward = types.MethodType(forward, module)


def shift_positions(positions: int) -> Injector:
    """Every position is that many further: rotary embedding is relative, so nothing changes but rounding."""

    def inject(model: Any) -> None:
        anatomy.rotaries(model)

        def change(arguments: dict[str, Any]) -> None:
            given = arguments.get("position_ids")
            arguments["position_ids"] = (look(arguments).rows.T if given is None else given) + positions

        arguments_hook(anatomy.decoder(model), change)

    return inject


def threads(model: Any) -> None:
    """The decoder runs with another number of threads: two where it was one, else one."""
    torch = import_torch()
    if (device := next(model.parameters()).device.type) != "cpu":
        raise FaultError(f"the model computes on {device}, where the number of threads changes nothing")
    before: list[int] = []

    def enter(*_: Any) -> None:
        before.append(torch.get_num_threads())
        torch.set_num_threads(2 if before[-1] == 1 else 1)

    def leave(*_: Any) -> None:
        torch.set_num_threads(before.pop())

    decoder = anatomy.decoder(model)
    decoder.register_forward_pre_hook(enter)
    decoder.register_forward_hook(leave, always_call=True)


def companion(model: Any) -> None:
    """A request that comes alone, without a cache, is computed in a batch with another of its length."""
    torch = import_torch()
    paired = [False]

    def pair(arguments: dict[str, Any]) -> None:
        ids: Any = arguments.get("input_ids")
        uncached = arguments.get("use_cache") is False and arguments.get("past_key_values") is None
        alone = ids is not None and ids.shape[0] == 1 and uncached and arguments.get("attention_mask") is None
        paired[0] = alone and is_whole_pass(model)
        if paired[0]:
            arguments["input_ids"] = torch.cat((ids, ids.flip(1)))

    def part(_module: Any, _args: Any, output: Any) -> None:
        if paired[0]:
            output.last_hidden_state = output.last_hidden_state[:1]

    decoder = anatomy.decoder(model)
    arguments_hook(decoder, pair)
    decoder.register_forward_hook(part)
