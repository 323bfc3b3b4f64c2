"""Padded batches and decoding with the KV cache, through transformers' own code: what a user of ``generate`` gets.

Left padding and the cache go through ``model.generate`` itself, with the next tokens forced: it makes the positions from the
mask, the cache and the mask of each step, in the way of the installed version. Right padding is what a user who scores texts
does: the decoder with a mask and nothing else.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

from pytest_npuconf.devices.base import import_torch
from pytest_npuconf.engines.base import Padding
from pytest_npuconf.engines.transformers_engine import (
    StreamedForward,
    TransformersEngine,
    decoder_of,
    quiet_transformers,
)
from pytest_npuconf.errors import EngineError

BATCH_NEEDS = ("attention_mask",)
CACHE_NEEDS = ("past_key_values", "use_cache")


def forward_batch(engine: TransformersEngine, rows: Sequence[Sequence[int]], padding: Padding) -> list[StreamedForward]:
    """See :meth:`pytest_npuconf.engines.base.Batches.forward_batch`."""
    torch = import_torch()
    _require_rows(rows)
    if padding not in ("left", "right"):
        raise EngineError(f"padding must be left or right, got {padding!r}")
    decoder = decoder_of(engine.model)
    _require_arguments(decoder, BATCH_NEEDS, "padded batches")
    width = max(len(row) for row in rows)
    first = [width - len(row) if padding == "left" else 0 for row in rows]
    tokens = torch.full((len(rows), width), _pad_id(engine.model), dtype=torch.long)
    mask = torch.zeros_like(tokens)
    for i, row in enumerate(rows):
        tokens[i, first[i] : first[i] + len(row)] = torch.tensor(list(row))
        mask[i, first[i] : first[i] + len(row)] = 1
    device = engine.device.torch_device()
    tokens, mask = tokens.to(device), mask.to(device)
    if padding == "left":
        hidden = _generate(engine.model, tokens, mask, [])
    else:
        with torch.inference_mode():
            hidden = decoder(input_ids=tokens, attention_mask=mask, use_cache=False).last_hidden_state
    if tuple(hidden.shape[:2]) != (len(rows), width):  # whoever compares counts positions, and says which are missing
        return [
            StreamedForward(engine, hidden[i : i + 1] if i < len(hidden) else hidden[:1, :0], None, {})
            for i in range(len(rows))
        ]
    return [
        StreamedForward(engine, hidden[i : i + 1, start : start + len(row)], None, {})
        for i, (start, row) in enumerate(zip(first, rows, strict=True))
    ]


def forward_cached(engine: TransformersEngine, ids: Sequence[int], prefill: int) -> StreamedForward:
    """See :meth:`pytest_npuconf.engines.base.Batches.forward_cached`."""
    torch = import_torch()
    if not 1 <= prefill < len(ids):
        raise EngineError(
            f"prefill must leave something to decode: 1 to {len(ids) - 1} of {len(ids)} tokens, got {prefill}"
        )
    _require_arguments(decoder_of(engine.model), CACHE_NEEDS, "decoding with a KV cache")
    tokens = torch.tensor([list(ids[:prefill])], device=engine.device.torch_device())
    hidden = _generate(engine.model, tokens, torch.ones_like(tokens), ids[prefill:])
    return StreamedForward(engine, hidden, None, {})


class _Forced:
    """A logits processor that leaves no choice: the tokens of one list, one after the other, and anything at the end."""

    def __init__(self, ids: Sequence[int]) -> None:
        self._ids = iter(ids)

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        forced = import_torch().full_like(scores, float("-inf"))
        forced[:, next(self._ids, 0)] = 0.0
        return forced


def _generate(model: Any, tokens: Any, mask: Any, following: Sequence[int]) -> Any:
    """The decoder's last hidden states over a prompt and the tokens that follow it, shape ``(rows, positions, channels)``."""
    torch = import_torch()
    from transformers import LogitsProcessorList

    if not hasattr(model, "generate"):
        raise EngineError(f"{type(model).__name__} has no generate(), so nobody decodes with it")
    seen: list[Any] = []
    # the last forced token is never run: one more step than tokens that follow runs all of them
    settings = {"max_new_tokens": len(following) + 1, "do_sample": False, "pad_token_id": _pad_id(model)}
    with torch.inference_mode(), quiet_transformers(), _plain_generation(model, settings), _keeping(model, seen):
        model.generate(
            input_ids=tokens, attention_mask=mask, logits_processor=LogitsProcessorList([_Forced(following)])
        )
    return torch.cat(seen, dim=1)


@contextlib.contextmanager
def _plain_generation(model: Any, settings: dict[str, Any]) -> Iterator[None]:
    """Greedy, with no stop token, whatever the checkpoint's generation_config.json says: a text may hold any token."""
    from transformers import GenerationConfig

    before = model.generation_config
    model.generation_config = GenerationConfig(**settings)
    try:
        yield
    finally:
        model.generation_config = before


@contextlib.contextmanager
def _keeping(model: Any, seen: list[Any]) -> Iterator[None]:
    """Appends what the decoder returns to ``seen``."""

    def keep(_module: Any, _inputs: Any, output: Any) -> None:
        seen.append(output.last_hidden_state if hasattr(output, "last_hidden_state") else output[0])

    handle = decoder_of(model).register_forward_hook(keep)
    try:
        yield
    finally:
        handle.remove()


def _pad_id(model: Any) -> int:
    """The model's padding token, else its first stop token, else 0: it is masked, so it must not matter."""
    for source in (model.generation_config, model.config):
        for name in ("pad_token_id", "eos_token_id"):
            found = getattr(source, name, None)
            if found is not None:
                return int(found[0] if isinstance(found, (list, tuple)) else found)
    return 0


def _require_rows(rows: Sequence[Sequence[int]]) -> None:
    if not rows or not all(rows):
        raise EngineError(f"a batch needs at least one row and no empty one, got lengths {[len(row) for row in rows]}")


def _require_arguments(decoder: Any, names: Sequence[str], purpose: str) -> None:
    """The class's own signature: a defect that was injected into the instance may hide it."""
    known = inspect.signature(type(decoder).forward).parameters
    missing = [name for name in names if name not in known]
    if missing:
        raise EngineError(
            f"{type(decoder).__name__} takes no {' and no '.join(missing)}: it cannot do {purpose}",
            mend="leave the equivalence checks out of the card's [required] list, with the reason",
        )
