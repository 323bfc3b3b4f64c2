"""Padded batches and decoding with the KV cache, through transformers' own code: what a user of ``generate`` gets.

Left padding and the cache go through ``model.generate`` itself, with the next tokens forced: it makes the positions from the
mask, the cache and the mask of each step, in the way of the installed version. Right padding is what a user who scores texts
does: the decoder with a mask and nothing else.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from pytest_npuconf.devices.base import import_torch
from pytest_npuconf.engines.base import Padding
from pytest_npuconf.engines.transformers_engine import (
    StreamedForward,
    TransformersEngine,
    decoder_of,
    quiet_transformers,
)
from pytest_npuconf.errors import EngineError
from pytest_npuconf.metrics.arrays import Float32

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
    tokens, mask = _padded(engine, rows, first, width)
    if padding == "left":
        hidden, _ = _generate(engine.model, tokens, mask, [])
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
    (found,) = forward_decoded(engine, [ids], [prefill])
    return found


def forward_decoded(
    engine: TransformersEngine, rows: Sequence[Sequence[int]], prefills: Sequence[int]
) -> list[StreamedForward]:
    """See :meth:`pytest_npuconf.engines.base.Batches.forward_decoded`."""
    _require_rows(rows)
    for ids, prefill in zip(rows, prefills, strict=True):
        _require_part(ids, prefill, "decode")
    needs = CACHE_NEEDS if len(rows) == 1 else (*BATCH_NEEDS, *CACHE_NEEDS)
    _require_arguments(decoder_of(engine.model), needs, "decoding with a KV cache")
    width = max(prefills)
    first = [width - prefill for prefill in prefills]
    prompts = [ids[:prefill] for ids, prefill in zip(rows, prefills, strict=True)]
    tokens, mask = _padded(engine, prompts, first, width)
    following = [ids[prefill:] for ids, prefill in zip(rows, prefills, strict=True)]
    hidden, found = _generate(engine.model, tokens, mask, following)
    # a row that has no more tokens goes on with others, as in a batch where another row is not done yet
    return [
        Decoded(engine, hidden[i : i + 1, start : start + len(ids)], prefill, [step[i] for step in found.logits])
        for i, (start, prefill, ids) in enumerate(zip(first, prefills, rows, strict=True))
    ]


def forward_continued(engine: TransformersEngine, ids: Sequence[int], cached: int) -> StreamedForward:
    """See :meth:`pytest_npuconf.engines.base.Batches.forward_continued`."""
    torch = import_torch()
    _require_part(ids, cached, "run behind the cache")
    _require_arguments(decoder_of(engine.model), CACHE_NEEDS, "going on from a KV cache")
    tokens = torch.tensor([list(ids)], device=engine.device.torch_device())
    mask = torch.ones_like(tokens)
    before, found = _generate(engine.model, tokens[:, :cached], mask[:, :cached], [])
    after, _ = _generate(engine.model, tokens, mask, [], found.past_key_values)
    return StreamedForward(engine, torch.cat([before, after], dim=1), None, {})


class Decoded(StreamedForward):
    """Logits from the end of the prompt on are those that ``generate`` itself made, one row at a time: a head may go wrong in
    that shape alone. ``steps``: of the prompt's last position and of each decode step, shape ``(vocabulary,)``."""

    def __init__(self, engine: TransformersEngine, hidden: Any, prefill: int, steps: Sequence[Any]) -> None:
        super().__init__(engine, hidden, None, {})
        self._first, self._steps = prefill - 1, steps

    def logits(self, start: int, stop: int) -> Float32:
        """See :meth:`pytest_npuconf.engines.base.Forward.logits`."""
        parts = [super().logits(start, min(stop, self._first))] if start < self._first else []
        made = self._steps[max(start, self._first) - self._first : max(stop - self._first, 0)]
        parts += [import_torch().stack(list(made)).float().cpu().numpy()] if made else []
        return np.concatenate(parts)


class _Forced:
    """A logits processor that leaves no choice: each row's own tokens, one after the other, and token 0 at its end."""

    def __init__(self, following: Sequence[Sequence[int]]) -> None:
        self._steps = zip_longest(*following, fillvalue=0)

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        forced = import_torch().full_like(scores, float("-inf"))
        for row, token in enumerate(next(self._steps, (0,) * len(scores))):
            forced[row, token] = 0.0
        return forced


def _padded(
    engine: TransformersEngine, rows: Sequence[Sequence[int]], first: Sequence[int], width: int
) -> tuple[Any, Any]:
    """Tokens and mask, shape ``(rows, width)``; each row begins at its ``first``."""
    torch = import_torch()
    tokens = torch.full((len(rows), width), _pad_id(engine.model), dtype=torch.long)
    mask = torch.zeros_like(tokens)
    for i, row in enumerate(rows):
        tokens[i, first[i] : first[i] + len(row)] = torch.tensor(list(row))
        mask[i, first[i] : first[i] + len(row)] = 1
    device = engine.device.torch_device()
    return tokens.to(device), mask.to(device)


def _generate(
    model: Any, tokens: Any, mask: Any, following: Sequence[Sequence[int]], cache: Any = None
) -> tuple[Any, Any]:
    """The decoder's last hidden states over prompts and the tokens that follow each, shape ``(rows, positions, channels)``,
    and what ``generate`` returns. With a ``cache`` of the first tokens, the states of the others."""
    torch = import_torch()
    from transformers import LogitsProcessorList

    if not hasattr(model, "generate"):
        raise EngineError(f"{type(model).__name__} has no generate(), so nobody decodes with it")
    seen: list[Any] = []
    # the last forced token is never run: one more step than tokens that follow runs all of them
    steps = max(map(len, following), default=0) + 1
    settings = {
        "max_new_tokens": steps, "do_sample": False, "pad_token_id": _pad_id(model), "return_dict_in_generate": True,
        "output_logits": True,
    }  # fmt: skip
    given = {} if cache is None else {"past_key_values": cache}
    with torch.inference_mode(), quiet_transformers(), _plain_generation(model, settings), _keeping(model, seen):
        found = model.generate(
            input_ids=tokens, attention_mask=mask, logits_processor=LogitsProcessorList([_Forced(following)]), **given
        )
    return torch.cat(seen, dim=1), found


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


def _require_part(ids: Sequence[int], cached: int, purpose: str) -> None:
    if not 1 <= cached < len(ids):
        raise EngineError(
            f"prefill must leave something to {purpose}: 1 to {len(ids) - 1} of {len(ids)} tokens, got {cached}"
        )


def _require_arguments(decoder: Any, names: Sequence[str], purpose: str) -> None:
    """The class's own signature: a defect that was injected into the instance may hide it."""
    known = inspect.signature(type(decoder).forward).parameters
    missing = [name for name in names if name not in known]
    if missing:
        raise EngineError(
            f"{type(decoder).__name__} takes no {' and no '.join(missing)}: it cannot do {purpose}",
            mend="leave the equivalence checks out of the card's [required] list, with the reason",
        )
