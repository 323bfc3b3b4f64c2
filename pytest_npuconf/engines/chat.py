"""Answers through a model's own chat template, greedily."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pytest_npuconf.answers import THINK
from pytest_npuconf.cards.schema import Sample
from pytest_npuconf.devices.base import import_torch
from pytest_npuconf.engines.base import Chat, Engine
from pytest_npuconf.errors import EngineError


def answers_of(engine: Engine, samples: Sequence[Sample]) -> dict[str, str]:
    """The engine's greedy text for each sample, by its name.

    Raises:
        EngineError: the engine cannot chat, or the model has no chat template.
    """
    if not isinstance(engine, Chat):
        raise EngineError(
            f"engine {engine.name} cannot chat, so it cannot answer the card's samples",
            mend="give it chat(messages, max_new_tokens, thinking), or name what decides under [required] in the card",
        )
    return {sample.name: engine.chat(sample.conversation, sample.max_new_tokens, sample.thinking) for sample in samples}


def generate(
    model: Any, tokenizer: Any, messages: Sequence[Mapping[str, str]], max_new_tokens: int, thinking: bool
) -> str:
    """Greedy text of a transformers model after the chat template's prompt, up to the end of the turn; see
    :class:`pytest_npuconf.engines.base.Chat`."""
    torch = import_torch()
    prompt = chat_prompt(tokenizer, messages, thinking)
    ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"].to(model.device)
    ends = ends_of_turn(model, tokenizer)
    with _greedy(model, max_new_tokens, ends, tokenizer.pad_token_id) as settings:
        output = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings)
    new = output[0, ids.shape[1] :].tolist()
    end = next((i for i, token in enumerate(new) if token in ends), len(new))
    text: str = tokenizer.decode(new[:end], skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return THINK + text if prompt.rstrip().endswith(THINK) else text


def chat_prompt(tokenizer: Any, messages: Sequence[Mapping[str, str]], thinking: bool) -> str:
    """What the model's own chat template makes of a conversation, ready for the answer.

    Raises:
        EngineError: the template cannot be used.
    """
    try:
        prompt: str = tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=True, enable_thinking=thinking
        )
    except Exception as error:  # a template is the checkpoint's own program, and may be missing
        raise EngineError(f"the chat template cannot be used: {type(error).__name__}: {error}") from error
    return prompt


def ends_of_turn(model: Any, tokenizer: Any) -> list[int]:
    """Every token that ends a turn, by the tokenizer and by the checkpoint's own settings."""
    stated = [tokenizer.eos_token_id, model.generation_config.eos_token_id]
    ids = [i for one in stated for i in (one if isinstance(one, (list, tuple)) else [one]) if i is not None]
    return sorted(set(map(int, ids)))


@contextlib.contextmanager
def _greedy(model: Any, max_new_tokens: int, ends: list[int], pad: int | None) -> Iterator[Any]:
    """Plain greedy decoding, whatever generation_config.json says: transformers fills what a call leaves open from the
    model's own settings (temperature, penalties), so those are set aside meanwhile."""
    from transformers import GenerationConfig

    settings = GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        eos_token_id=ends or None,
        pad_token_id=pad if pad is not None else (ends[0] if ends else 0),
    )
    before, model.generation_config = model.generation_config, settings
    try:
        yield settings
    finally:
        model.generation_config = before
