"""Benign variants of a transformers model: the same function with other summation orders or rounding points.

They make the yardstick: what rounding alone costs at a dtype. None is the way that a candidate runs by default.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pytest_npuconf.devices.base import import_torch

BLOCKED = "npuconf_blocked"
QUERY_BLOCK = 64
# float32 elements of one weight block of a split linear: keeps a 151,936-word head below 64 MB
WEIGHT_BLOCK = 1 << 24


@dataclass(frozen=True)
class BlockedAttention:
    """Attention in float32 over blocks of queries, rounded once at the end: other rounding points than the fused kernel,
    and memory that grows with ``QUERY_BLOCK x length`` instead of ``length^2``."""

    name: str = "blocked-attention"

    @contextlib.contextmanager
    def applied(self, model: Any) -> Iterator[None]:
        _register_blocked()
        before = model.config._attn_implementation
        model.set_attn_implementation(BLOCKED)
        try:
            yield
        finally:
            model.set_attn_implementation(before)


@dataclass(frozen=True)
class SplitK:
    """Each linear layer summed over ``parts`` slices of its inputs in float32, rounded once at the end.

    ``backwards`` adds the slices last to first.
    """

    parts: int
    backwards: bool = False

    @property
    def name(self) -> str:
        """``split-k-4-backwards``."""
        return f"split-k-{self.parts}" + ("-backwards" if self.backwards else "")

    @contextlib.contextmanager
    def applied(self, model: Any) -> Iterator[None]:
        with computed_by(linears(model), lambda module: types.MethodType(self._forward, module)):
            yield

    def _forward(self, module: Any, x: Any) -> Any:
        torch = import_torch()
        width, rows = module.weight.shape[1], module.weight.shape[0]
        edges = [width * i // self.parts for i in range(self.parts + 1)]
        slices = list(itertools.pairwise(edges))
        step = max(1, WEIGHT_BLOCK * self.parts // width)
        outputs = []
        for first in range(0, rows, step):
            weight = module.weight[first : first + step]
            total = None
            for a, b in reversed(slices) if self.backwards else slices:
                part = x[..., a:b].float() @ weight[:, a:b].float().T
                total = part if total is None else total.add_(part)
            if module.bias is not None:
                total = total + module.bias[first : first + step].float()
            outputs.append(total.to(x.dtype))  # type: ignore[union-attr]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-1)


@dataclass(frozen=True)
class Both:
    """Two variants at once."""

    first: Any
    second: Any

    @property
    def name(self) -> str:
        """``blocked-attention+split-k-2``."""
        return f"{self.first.name}+{self.second.name}"

    @contextlib.contextmanager
    def applied(self, model: Any) -> Iterator[None]:
        with self.first.applied(model), self.second.applied(model):
            yield


@dataclass(frozen=True)
class EagerAttention:
    """transformers' own attention in separate steps: scores and probabilities are rounded in between."""

    name: str = "eager-attention"

    @contextlib.contextmanager
    def applied(self, model: Any) -> Iterator[None]:
        before = model.config._attn_implementation
        model.set_attn_implementation("eager")
        try:
            yield
        finally:
            model.set_attn_implementation(before)


@dataclass(frozen=True)
class FusedNorms:
    """Each norm computed in float32, its weight included, and rounded once, as fused kernels do."""

    name: str = "fused-norms"

    @contextlib.contextmanager
    def applied(self, model: Any) -> Iterator[None]:
        changed = [m for m in model.modules() if "norm" in type(m).__name__.lower() and not any(m.children())]
        with computed_by(changed, _rounded_once):
            yield


def _rounded_once(module: Any) -> Any:
    exact = copy.deepcopy(module).float()
    return lambda x: exact(x.float()).to(x.dtype)


def linears(model: Any) -> list[Any]:
    """Its plain linear layers."""
    torch = import_torch()
    return [module for module in model.modules() if type(module) is torch.nn.Linear]


@contextlib.contextmanager
def computed_by(modules: Iterable[Any], forward: Callable[[Any], Any]) -> Iterator[None]:
    """For the time of the context each of ``modules`` computes with the forward that ``forward`` makes for it."""
    changed = list(modules)
    for module in changed:
        module.forward = forward(module)
    try:
        yield
    finally:
        for module in changed:
            del module.forward


# The reference of a same-dtype pair: other attention kernels than a candidate's default.
REFERENCE_VARIANT = BlockedAttention()
# Members of the yardstick: three orders of summation, three ways of attention (one rounds its scores on the way), none the
# way that a candidate runs by default.
YARDSTICK = (
    SplitK(2), SplitK(4, backwards=True), Both(BlockedAttention(), SplitK(3)), REFERENCE_VARIANT, EagerAttention(),
)  # fmt: skip
# Of single modules: two orders of summation, three ways of attention, two of norms. Attention whose scores are rounded on the
# way is off by twice as much as the others; all of them are healthy, and the noisiest counts.
MODULE_YARDSTICK = (
    Both(SplitK(4, backwards=True), FusedNorms()),
    Both(BlockedAttention(), SplitK(3)),
    EagerAttention(),
)


def _register_blocked() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    AttentionInterface.register(BLOCKED, blocked_attention)
    AttentionMaskInterface.register(BLOCKED, eager_mask)


def blocked_attention(
    _module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float | None = None, **_kwargs: Any
) -> tuple[Any, None]:
    """transformers' attention interface: query ``(batch, heads, queries, width)``, key and value with fewer heads, mask
    additive ``(batch, 1, queries, keys)`` or None for causal. Returns ``(batch, queries, heads, width)``."""
    torch = import_torch()
    groups = query.shape[1] // key.shape[1]
    keys, values = (t.repeat_interleave(groups, dim=1).float() for t in (key, value))
    scale = scaling if scaling is not None else 1 / math.sqrt(query.shape[-1])
    offset = keys.shape[2] - query.shape[2]
    blocks = []
    for first in range(0, query.shape[2], QUERY_BLOCK):
        last = min(first + QUERY_BLOCK, query.shape[2])
        scores = query[:, :, first:last].float() @ keys.transpose(2, 3) * scale
        if attention_mask is not None:
            scores = scores + attention_mask[:, :, first:last, : keys.shape[2]].float()
        elif last - first > 1 or offset == 0:
            rows = torch.arange(first, last, device=query.device)[:, None] + offset
            scores = scores.masked_fill(torch.arange(keys.shape[2], device=query.device)[None] > rows, -math.inf)
        blocks.append((torch.softmax(scores, dim=-1) @ values).to(query.dtype))
    return torch.cat(blocks, dim=2).transpose(1, 2).contiguous(), None
