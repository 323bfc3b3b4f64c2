"""Chats against the reference: the template's own tokens, the answer's tokens, and what the card expects of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pytest_npuconf.cards.schema import Sample
from pytest_npuconf.engines.chat import chat_prompt
from pytest_npuconf.engines.served import Answer, Served
from pytest_npuconf.gates import Measurement, Row
from pytest_npuconf.measurements.samples import judge_sample
from pytest_npuconf.serving.near_ties import Judge


def template_ids(tokenizer: Any, sample: Sample, thinking: bool) -> list[int]:
    """Token ids of the conversation by the model's own chat template, ready for the answer.

    Raises:
        EngineError: the template cannot be used.
    """
    text = chat_prompt(tokenizer, sample.conversation, thinking)
    return [int(i) for i in tokenizer(text, add_special_tokens=False)["input_ids"]]


def chats(served: Served, samples: Sequence[Sample], tokenizer: Any, judge: Judge, *, decide: bool) -> Measurement:
    """The card's samples through the chat route, with thinking and without: answers that are lost, that are not the
    reference's after the template's own tokens, or (asked as documented, where samples ``decide``) not as documented."""
    rows, kept = [], {}
    for sample in samples:
        for thinking in (sample.thinking, not sample.thinking):
            name = f"{sample.name}, thinking {'on' if thinking else 'off'}"
            answer = served.chat(sample.conversation, sample.max_new_tokens, thinking)
            documented = decide and thinking == sample.thinking
            kept[name] = {"text": answer.text, "finish": answer.finish, "messages": sample.conversation}
            if why := _wrong(answer, template_ids(tokenizer, sample, thinking), judge, sample if documented else None):
                rows.append(Row(name, 1.0, why))
    return Measurement.counted("chats.wrong", rows, n=len(kept), of="answers", answers=kept)


def _wrong(answer: Answer, ids: Sequence[int], judge: Judge, sample: Sample | None) -> str:
    if answer.error:
        return answer.error
    if answer.prompt_tokens is not None and answer.prompt_tokens != len(ids):
        return f"the server's prompt has {answer.prompt_tokens} tokens, the model's own template gives {len(ids)}"
    if not answer.ids:
        return "the server does not tell the token ids of its answer (return_token_ids)"
    if found := judge.deviations(ids, answer.ids):
        first = found[0]
        return (
            f"step {first.step}: token {first.token} for {first.best}, gap {first.gap:.3g} logits, tau {first.tau:.3g}; "
            f"answer {answer.text[:100]!r}"
        )
    unmet = judge_sample(sample, answer.text) if sample is not None else []
    return f"answer {answer.text[:100]!r}; {'; '.join(unmet)}" if unmet else ""
