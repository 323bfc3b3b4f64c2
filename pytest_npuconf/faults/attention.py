"""Faults inside the attention modules."""

from __future__ import annotations

import math
from typing import Any

from pytest_npuconf.devices.base import import_torch
from pytest_npuconf.errors import FaultError
from pytest_npuconf.faults import anatomy
from pytest_npuconf.faults.base import Injector
from pytest_npuconf.faults.patching import wrap_attention

LANES = 16  # partial sums that a vector unit keeps side by side


def scale(factor: float) -> Injector:
    """The scale of the scores is ``factor`` times what it should be, in every layer."""

    def inject(model: Any) -> None:
        for module in anatomy.attentions(model):
            module.scaling *= factor

    return inject


def tile_heads(model: Any) -> None:
    """Key/value heads are tiled (0 1 0 1) where they should be repeated (0 0 1 1). Reordering the queries and putting
    their outputs back is the same."""
    torch = import_torch()
    groups = anatomy.groups(model)

    def around(call: Any, query: Any, key: Any, value: Any, mask: Any, **kwargs: Any) -> Any:
        kv = key.shape[1]
        order = torch.arange(query.shape[1], device=query.device).view(groups, kv).T.reshape(-1)
        output, weights = call(query[:, order], key, value, mask, **kwargs)
        return output[:, :, order.argsort()], weights

    for module in anatomy.attentions(model):
        wrap_attention(module, around)


def explicit(query: Any, key: Any, value: Any, mask: Any, scaling: float, probabilities: Any) -> tuple[Any, None]:
    """Attention with its scores in the open: ``probabilities(scores)`` takes float32 scores, where masked ``-inf`` or
    the least float32."""
    torch = import_torch()
    groups = query.shape[1] // key.shape[1]
    keys, values = (t.repeat_interleave(groups, dim=1) for t in (key, value))
    scores = query.float() @ keys.float().transpose(2, 3) * scaling
    if mask is None:
        offset = key.shape[2] - query.shape[2]
        rows = torch.arange(query.shape[2], device=query.device)[:, None] + offset
        scores = scores.masked_fill(torch.arange(key.shape[2], device=query.device)[None] > rows, -math.inf)
    elif mask.dtype is torch.bool:
        scores = scores.masked_fill(~mask[..., : key.shape[2]], torch.finfo(torch.float32).min)
    else:
        scores = scores + mask[..., : key.shape[2]].float()
    output = (probabilities(scores) @ values.float()).to(query.dtype)
    return output.transpose(1, 2).contiguous(), None


def scores_in(dtype: str) -> Injector:
    """Scores are rounded to ``dtype`` before a softmax in float32.

    Raises:
        FaultError: the model computes at that dtype: then it is what eager attention does, and benign.
    """

    def inject(model: Any) -> None:
        torch = import_torch()
        if anatomy.dtype_of(model) == dtype:
            raise FaultError(f"at {dtype} eager attention rounds its scores to {dtype} too: there is nothing to break")
        target = getattr(torch, dtype)

        def probabilities(scores: Any) -> Any:
            least = torch.finfo(torch.float32).min  # of a row that sees nothing; bfloat16 has no such number
            return scores.to(target).float().clamp(min=least).softmax(-1)

        def around(_call: Any, query: Any, key: Any, value: Any, mask: Any, **kwargs: Any) -> Any:
            return explicit(query, key, value, mask, kwargs["scaling"], probabilities)

        for module in anatomy.attentions(model):
            wrap_attention(module, around)

    return inject


def softmax_in(dtype: str) -> Injector:
    """The softmax itself is computed in ``dtype``: exponentials and their running sums, sixteen of them side by side."""

    def inject(model: Any) -> None:
        torch = import_torch()
        target = getattr(torch, dtype)

        def probabilities(scores: Any) -> Any:
            low = (scores - scores.amax(-1, keepdim=True)).to(target).exp()
            padded = torch.nn.functional.pad(low, (0, -low.shape[-1] % LANES))
            sums = padded.new_zeros((*padded.shape[:-1], LANES))
            for part in padded.split(LANES, dim=-1):
                sums = sums + part
            while sums.shape[-1] > 1:
                sums = sums[..., : sums.shape[-1] // 2] + sums[..., sums.shape[-1] // 2 :]
            return (low / sums).float()

        def around(_call: Any, query: Any, key: Any, value: Any, mask: Any, **kwargs: Any) -> Any:
            return explicit(query, key, value, mask, kwargs["scaling"], probabilities)

        for module in anatomy.attentions(model):
            wrap_attention(module, around)

    return inject
