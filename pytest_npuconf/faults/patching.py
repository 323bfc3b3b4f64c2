"""Ways into a loaded model that last, and that work whichever way it is called: alone, in a batch, with a cache, or one
module at a time. Everything hangs on the model itself: another model in the same process stays whole."""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pytest_npuconf.devices.base import import_torch
from pytest_npuconf.errors import FaultError
from pytest_npuconf.faults import anatomy

ATTENTION = "npuconf_of_the_module"
Attention = Callable[..., Any]


def wrap_attention(module: Any, around: Callable[..., Any]) -> None:
    """Put ``around(call, query, key, value, mask, **kwargs)`` about the attention that ``module`` computes now.

    ``query`` is ``(batch, heads, queries, width)``, rotated; ``key`` and ``value`` ``(batch, key/value heads, keys, width)``,
    with what the cache holds. ``call(query, key, value, mask, **kwargs)`` returns ``(batch, queries, heads, width)`` and
    weights or None. Only this module is changed: it gets its own copy of the configuration, which names its attention.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, _dispatch)
    before = _current_attention(module)

    def call(query: Any, key: Any, value: Any, mask: Any, **kwargs: Any) -> Any:
        return before(module, query, key, value, mask, **kwargs)

    def attention(query: Any, key: Any, value: Any, mask: Any, **kwargs: Any) -> Any:
        return around(call, query, key, value, mask, **kwargs)

    module.npuconf_attention = attention
    module.config = copy.copy(module.config)
    module.config._attn_implementation = ATTENTION


def _dispatch(module: Any, query: Any, key: Any, value: Any, attention_mask: Any = None, **kwargs: Any) -> Any:
    return module.npuconf_attention(query, key, value, attention_mask, **kwargs)


def _current_attention(module: Any) -> Attention:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    name = module.config._attn_implementation
    if name == ATTENTION:
        own = module.npuconf_attention
        return lambda _module, *args, **kwargs: own(*args, **kwargs)
    home = sys.modules[type(module).__module__]
    found = getattr(home, "eager_attention_forward", None) if name == "eager" else ALL_ATTENTION_FUNCTIONS.get(name)
    if found is None:
        raise FaultError(f"{type(module).__name__} computes attention as {name!r}, which no fault can wrap")
    return found  # type: ignore[no-any-return]


def before_rotation(attention: Any, which: str, change: Callable[[Any], Any]) -> None:
    """Change the queries (``which`` "q") or keys ("k") of this attention just before they are rotated.

    ``change`` takes and returns ``(batch, positions, heads, width)``. It acts only while the attention itself runs: the
    projection or norm that is called alone stays right, so the defect is the attention's.
    """
    child = getattr(attention, f"{which}_norm", None) or getattr(attention, f"{which}_proj", None)
    if child is None:
        raise FaultError(f"{type(attention).__name__} has no {which}_proj, so there is nothing to break")
    inside = running(attention)

    def hook(_module: Any, _args: Any, output: Any) -> Any:
        if not inside():
            return None
        heads = output.view(*output.shape[:2], -1, anatomy.head_dim(attention))
        return change(heads).reshape(output.shape)

    child.register_forward_hook(hook)


def running(module: Any) -> Callable[[], bool]:
    """Whether ``module`` is being called, asked at any time: tells a part that runs within it from one that is called alone."""
    inside = [False]

    def enter(*_: Any) -> None:
        inside[0] = True

    def leave(*_: Any) -> None:
        inside[0] = False

    module.register_forward_pre_hook(enter)
    module.register_forward_hook(leave, always_call=True)
    return lambda: inside[0]


def arguments_hook(module: Any, change: Callable[[dict[str, Any]], None]) -> None:
    """``change(arguments)`` before each call of ``module``, in place, by name."""
    names = [name for name in inspect.signature(type(module).forward).parameters if name != "self"]

    def hook(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        named = {**dict(zip(names, args, strict=False)), **kwargs}
        change(named)
        return (), named

    module.register_forward_pre_hook(hook, with_kwargs=True)


def output_hook(module: Any, change: Callable[[Any], Any]) -> None:
    """``change(output)`` after each call of ``module``; of a tuple, its first part. None leaves it."""

    def hook(_module: Any, _args: Any, output: Any) -> Any:
        if not isinstance(output, tuple):
            return change(output)
        changed = change(output[0])
        return None if changed is None else (changed, *output[1:])

    module.register_forward_hook(hook)


@dataclass(frozen=True)
class Call:
    """What one call of the decoder sees.

    ``past`` positions are cached; ``rows`` are the indices of this call's queries, shape ``(queries, 1)``, ``keys`` of all
    keys, shape ``(1, keys)``; ``padding`` is true for real keys, shape ``(batch, keys)``, or None when nobody said.
    """

    batch: int
    past: int
    rows: Any
    keys: Any
    padding: Any

    @property
    def causal(self) -> Any:
        """The right mask, without padding: ``(queries, keys)``."""
        return self.keys <= self.rows


def look(arguments: dict[str, Any]) -> Call:
    """The call of a decoder by its arguments."""
    torch = import_torch()
    ids = arguments.get("input_ids")
    states = ids if ids is not None else arguments["inputs_embeds"]
    cache = arguments.get("past_key_values")
    past = int(cache.get_seq_length()) if cache is not None else 0
    queries, device = states.shape[1], states.device
    rows = torch.arange(past, past + queries, device=device)[:, None]
    keys = torch.arange(past + queries, device=device)[None]
    given = arguments.get("attention_mask")
    padding = given.bool() if isinstance(given, torch.Tensor) and given.dim() == 2 else None
    return Call(states.shape[0], past, rows, keys, padding)


def remake_mask(model: Any, rule: Callable[[Call], Any]) -> None:
    """The decoder's mask is made by ``rule(call)``: true where a query sees a key, ``(queries, keys)`` or with a batch in
    front; padding is the rule's own affair. A query that would see nothing sees itself."""
    if getattr(model.config, "sliding_window", None) and getattr(model.config, "use_sliding_window", True):
        raise FaultError(f"{type(model).__name__} has a sliding window; this fault makes the mask of full attention")
    torch = import_torch()
    dtype = model.get_input_embeddings().weight.dtype

    def change(arguments: dict[str, Any]) -> None:
        given = arguments.get("attention_mask")
        if given is not None and not (isinstance(given, torch.Tensor) and given.dim() == 2):
            return  # somebody's own mask
        call = look(arguments)
        seen = rule(call)
        seen = (seen if seen.dim() == 3 else seen[None]).expand(call.batch, -1, -1)
        seen = seen | (~seen.any(-1, keepdim=True) & (call.rows == call.keys))
        least = torch.full((), torch.finfo(dtype).min, dtype=dtype, device=seen.device)
        arguments["attention_mask"] = torch.where(seen, torch.zeros((), dtype=dtype, device=seen.device), least)[
            :, None
        ]

    arguments_hook(anatomy.decoder(model), change)


def seen_with_padding(call: Call, seen: Any) -> Any:
    """``seen`` without the padded keys."""
    return seen if call.padding is None else seen[None] & call.padding[:, None, : call.keys.shape[1]]


def is_whole_pass(model: Any) -> bool:
    """Whether a call of the decoder runs its layers: logits are made with the decoder set aside."""
    return "forward" not in vars(anatomy.decoder(model))
