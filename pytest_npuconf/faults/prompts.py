"""The prompts of a request, whichever way it states them, and another prompt in their place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pytest_npuconf.faults.calls import GENERATE, Body, Call
from pytest_npuconf.faults.proxy import Proxy

Prompt = str | list[int]
COMPLETIONS, CHAT = GENERATE
# What /tokenize takes of a chat request (vLLM 0.18, entrypoints/openai/protocol.py, TokenizeChatRequest).
OF_TEMPLATE = ("model", "messages", "tools", "chat_template_kwargs", "add_generation_prompt", "continue_final_message")


def several(value: Any) -> list[Prompt]:
    """The prompts or inputs of ``prompt``/``input``: a text, token ids, or a list of either."""
    if isinstance(value, str) or (isinstance(value, list) and all(isinstance(one, int) for one in value)):
        return [value]
    return list(value) if isinstance(value, list) else []


def in_the_form_of(value: Any, prompts: list[Prompt]) -> Any:
    """Prompts as ``value`` had them: one alone, or a list."""
    return prompts[0] if several(value) == [value] else prompts


def ids_of(call: Call, prompt: Prompt) -> list[int]:
    """Token ids of a prompt, from the server's own tokenizer where it is a text."""
    if not isinstance(prompt, str):
        return prompt
    body = call.body or {}
    asked = {"model": body.get("model"), "prompt": prompt, "add_special_tokens": body.get("add_special_tokens", True)}
    return [int(i) for i in call.ask("/tokenize", asked)["tokens"]]


def chat_ids(call: Call, messages: list[Body] | None = None) -> list[int]:
    """Token ids of a chat request, or of other messages in its place, through the server's template."""
    body = call.body or {}
    asked = {name: body[name] for name in OF_TEMPLATE if body.get(name) is not None}
    return [int(i) for i in call.ask("/tokenize", asked | ({"messages": messages} if messages else {}))["tokens"]]


def shows_its_prompt(call: Call) -> bool:
    """Whether the answer will show the prompt, token by token, so that another one in its place could not pass."""
    body = call.body or {}
    return body.get("prompt_logprobs") is not None or bool(body.get("echo"))


def replace(call: Call, prompts: list[Prompt]) -> None:
    """Other prompts for a completion; :func:`hide` tells the client what it asked for itself."""
    body = call.body if call.body is not None else {}
    asked = several(body["prompt"])
    ids = [one if isinstance(one, list) else None for one in asked]
    call.notes["asked"] = ids
    call.notes["length"] = None if None in ids else sum(len(one or ()) for one in ids)
    body["prompt"] = in_the_form_of(body["prompt"], prompts)


def hide(proxy: Proxy) -> None:
    """Let answers state the prompt that was asked for: its ids and its number of tokens, as a server with the defect does."""

    def told(call: Call, answer: Body) -> None:
        asked, length = call.notes.get("asked", []), call.notes.get("length")
        usage = answer.get("usage")
        if length is not None and usage:
            usage["total_tokens"] += length - usage["prompt_tokens"]
            usage["prompt_tokens"] = length
        for choice in answer.get("choices", []) if asked else []:
            own = asked[min(choice["index"], len(asked) - 1)]
            if choice.get("prompt_token_ids") is not None and own is not None:
                choice["prompt_token_ids"] = own

    in_answers_and_events(proxy, told)


def in_answers_and_events(proxy: Proxy, change: Any) -> None:
    """Let ``change(call, answer)`` change the answers of the generating routes, and each event of a stream."""

    def answers(call: Call, answer: Body) -> None:
        if call.to(*GENERATE) is not None:
            change(call, answer)

    def events(call: Call, stream: Iterator[Body]) -> Iterator[Body]:
        for event in stream:
            answers(call, event)
            yield event

    proxy.answers.append(answers)
    proxy.events.append(events)


def content_of(message: Body) -> str:
    """The text of a chat's message."""
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def text_in(choice: Body) -> str:
    """The text of a choice of an event: of a completion or of a chat."""
    delta = choice.get("delta")
    return (choice.get("text") if delta is None else delta.get("content")) or ""


def put_text(choice: Body, text: str) -> None:
    """Other text in such a choice."""
    if "delta" in choice:
        choice["delta"]["content"] = text
    else:
        choice["text"] = text
