"""How the simulated NPU computes what the CPU computes otherwise. docs/simulated.md has the table.

Matrix products add blocks of ``K_BLOCK`` products, the last block first, in float32, and round once to the result's dtype.
Attention goes over blocks of ``KEY_BLOCK`` keys with a running maximum and rounds the probabilities to the values' dtype on the
way, as fused attention does (FlashAttention-2, https://arxiv.org/abs/2307.08691, algorithm 1). Softmax, mean and sum add blocks of
``SUM_BLOCK``. Block sizes are multiples of the cube unit's 16 (CANN's fractal is 16 x 16) and our own choice: no NPU was measured.
Every other op is the CPU's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from pytest_npuconf.devices.base import import_torch
from pytest_npuconf.devices.simulated import switches as names
from pytest_npuconf.devices.simulated.switches import Switches

K_BLOCK = 128
KEY_BLOCK = 128
SUM_BLOCK = 64
NARROW_BLOCK = 32  # products that a narrow accumulator adds before it rounds
CUBE = 16  # products of one step of the cube unit: the finest order that can be shuffled
# "HF32 ... mantissa precision (11 bits), float32's range":
# https://hiascend.com/document/detail/zh/CANNCommunityEdition/800alpha003/devaids/devtools/atc/atlasatcparam_16_0077.html
HF32_BITS = 11
FLOAT32_BITS = 23
LOST = 16  # inputs that the op with a wrong shape leaves out
SEED = 0


class Arithmetic:
    """The ops that differ, by name. ``hf32()`` says whether float32 products are let through as HF32."""

    def __init__(self, switches: Switches, hf32: Callable[[], bool]) -> None:
        self._switches, self._hf32 = switches, hf32
        self._draw = import_torch().Generator().manual_seed(SEED)
        self.ops: dict[str, Callable[..., Any]] = {
            "aten::linear": self.linear,
            "aten::mm": self.matmul,
            "aten::bmm": self.matmul,
            "aten::matmul": self.matmul,
            "aten::addmm": self.addmm,
            "aten::baddbmm": self.addmm,
            "aten::scaled_dot_product_attention": self.attention,
            "aten::_scaled_dot_product_fused_attention_overrideable": self.attention_and_more,
            "aten::softmax.int": softmax,
            "aten::_softmax": lambda x, dim, _half_to_float: softmax(x, dim),
            "aten::mean.dim": mean,
            "aten::sum.dim_IntList": total,
        }

    def linear(self, x: Any, weight: Any, bias: Any = None) -> Any:
        """``x (..., K)``, ``weight (N, K)`` or ``(K,)``, ``bias (N,)``."""
        if weight.dim() != 2 or not _floating(x):
            return import_torch().nn.functional.linear(x, weight, bias)
        if self._switches.get(names.WRONG_SHAPE) == tuple(weight.shape):
            x, weight = x[..., :-LOST], weight[:, :-LOST]
        result = self._products(x, weight.T)
        if bias is not None:
            result = result + bias.float()
        if self._switches.get(names.FIRST_CALL):
            self._switches.turn_off(names.FIRST_CALL)
            result = import_torch().zeros_like(result)
        return result.to(x.dtype)

    def matmul(self, a: Any, b: Any) -> Any:
        """Shapes as ``torch.matmul`` takes them."""
        if not _floating(a) or a.dim() < 2 or b.dim() < 2:
            return import_torch().matmul(a, b)
        return self._products(a, b).to(a.dtype)

    def addmm(self, bias: Any, a: Any, b: Any, *, beta: float = 1, alpha: float = 1) -> Any:
        """``beta * bias + alpha * a @ b``, rounded once."""
        if not _floating(a):
            op = import_torch().addmm if a.dim() == 2 else import_torch().baddbmm
            return op(bias, a, b, beta=beta, alpha=alpha)
        result = alpha * self._products(a, b)
        return (result + beta * bias.float() if beta else result).to(a.dtype)

    def attention(
        self, query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False,
        *, scale: float | None = None, enable_gqa: bool = False,
    ) -> Any:  # fmt: skip
        """As ``torch.nn.functional.scaled_dot_product_attention``: ``(..., heads, queries, width)``, keys and values with as many
        heads or fewer; a query that sees nothing gives zeros.

        Raises:
            NotImplementedError: dropout: this device only infers.
        """
        if dropout_p:
            raise NotImplementedError("the simulated NPU has no dropout in attention")
        torch = import_torch()
        if (groups := query.shape[-3] // key.shape[-3]) > 1:
            key, value = (t.repeat_interleave(groups, dim=-3) for t in (key, value))
        scale = scale if scale is not None else 1 / math.sqrt(query.shape[-1])
        queries, keys = query.shape[-2], key.shape[-2]
        most = torch.full((*query.shape[:-1], 1), -math.inf)
        mass, result = torch.zeros_like(most), torch.zeros((*query.shape[:-1], value.shape[-1]))
        for first in range(0, keys, KEY_BLOCK):
            block = slice(first, min(first + KEY_BLOCK, keys))
            scores = self._products(query, key[..., block, :].transpose(-1, -2)) * scale
            if attn_mask is not None:
                part = attn_mask if attn_mask.shape[-1] == 1 else attn_mask[..., block]
                scores = scores.masked_fill(~part, -math.inf) if part.dtype == torch.bool else scores + part.float()
            if is_causal:
                later = torch.arange(block.start, block.stop)[None] > torch.arange(queries)[:, None]
                scores = scores.masked_fill(later, -math.inf)
            new = torch.maximum(most, scores.amax(-1, keepdim=True))
            base = new.masked_fill(new == -math.inf, 0.0)
            shares, kept = torch.exp(scores - base), torch.exp(most - base)
            mass = mass * kept + shares.sum(-1, keepdim=True)
            result = result * kept + self._products(shares.to(value.dtype), value[..., block, :])
            most = new
        return (result / mass.masked_fill(mass == 0, 1.0)).to(query.dtype)

    def attention_and_more(
        self, query: Any, key: Any, value: Any, attn_bias: Any = None, dropout_p: float = 0.0, is_causal: bool = False,
        return_debug_mask: bool = False, *, scale: float | None = None,
    ) -> tuple[Any, ...]:  # fmt: skip
        """What attention becomes outside of inference mode; of its nine results only the first is used there."""
        torch = import_torch()
        result = self.attention(query, key, value, attn_bias, dropout_p, is_causal, scale=scale)
        none = torch.empty(0)
        count = torch.zeros((), dtype=torch.long)
        return (result, none, none, none, query.shape[-2], key.shape[-2], count, count, none)

    def _products(self, a: Any, b: Any) -> Any:
        """``a (..., M, K) @ b (..., K, N)`` in float32; leading dimensions broadcast."""
        torch = import_torch()
        if a.dtype == torch.float32 and (self._switches.get(names.HF32) or self._hf32()):
            a, b = to_bits(a, HF32_BITS), to_bits(b, HF32_BITS)
        narrow = self._switches.get(names.NARROW)
        shuffled = self._switches.get(names.UNORDERED)
        step = NARROW_BLOCK if narrow else CUBE if shuffled else K_BLOCK
        starts = list(range(0, a.shape[-1], step))[::-1]
        if shuffled:
            starts = [starts[i] for i in torch.randperm(len(starts), generator=self._draw).tolist()]
        result = None
        for first in starts:
            part = a[..., first : first + step].float() @ b[..., first : first + step, :].float()
            result = part if result is None else result.add_(part)
            if narrow:
                result = result.to(getattr(torch, narrow)).float()
        return result if result is not None else a.float() @ b.float()


def softmax(x: Any, dim: int, dtype: Any = None) -> Any:
    """In float32, the sum in blocks, rounded once."""
    torch = import_torch()
    wanted = dtype or x.dtype
    if wanted == torch.float64:
        return torch.softmax(x, dim, dtype=dtype)
    shares = torch.exp(x.float() - x.float().amax(dim, keepdim=True))
    return (shares / _sum(shares, dim)).to(wanted)


def mean(x: Any, dim: Sequence[int] | None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """Over one dimension in blocks; over several as the CPU does."""
    if dim is None or len(dim) != 1 or not _floating(x):
        return import_torch().mean(x, dim, keepdim, dtype=dtype)
    result = _sum(x.float(), dim[0]) / x.shape[dim[0]]
    return (result if keepdim else result.squeeze(dim[0])).to(dtype or x.dtype)


def total(x: Any, dim: Sequence[int] | None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """As :func:`mean`, for sums."""
    if dim is None or len(dim) != 1 or not _floating(x):
        return import_torch().sum(x, dim, keepdim, dtype=dtype)
    result = _sum(x.float(), dim[0])
    return (result if keepdim else result.squeeze(dim[0])).to(dtype or x.dtype)


def _sum(x: Any, dim: int) -> Any:
    """Blocks of one dimension, the last first; the dimension is kept."""
    torch = import_torch()
    parts = [part.sum(dim, keepdim=True) for part in x.split(SUM_BLOCK, dim)][::-1]
    result = parts[0] if parts else torch.sum(x, dim, keepdim=True)
    for part in parts[1:]:
        result = result + part
    return result


def to_bits(x: Any, bits: int) -> Any:
    """float32 with ``bits`` of mantissa, to nearest, ties to even; infinities and NaN stay."""
    torch = import_torch()
    drop = FLOAT32_BITS - bits
    raw = x.contiguous().view(torch.int32)
    half = (1 << (drop - 1)) - 1
    rounded = ((raw + half + ((raw >> drop) & 1)) >> drop) << drop
    return torch.where(x.isfinite(), rounded.view(torch.float32), x)


def saturated(x: Any) -> Any:
    """What a chip in saturation mode gives for ``x``: the greatest number for infinity, 0 for NaN.

    Source: INF_NAN_MODE_ENABLE=0, https://hiascend.com/document/detail/zh/Pytorch/600/apiref/Envvariables/Envir_004.html
    """
    return import_torch().nan_to_num(x, nan=0.0) if x.is_floating_point() else x


def _floating(x: Any) -> bool:
    """Dtypes that the blocks are for: float64 and integers stay the CPU's."""
    torch = import_torch()
    return x.dtype in (torch.float32, torch.float16, torch.bfloat16)
