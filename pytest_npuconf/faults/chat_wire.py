"""A chat request sent on as a completion, and the completion's answer handed back as a chat's: the way to give a server that
accepts no template from outside another prompt than its own template makes."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_npuconf.faults.calls import Body, Call
from pytest_npuconf.faults.prompts import CHAT, COMPLETIONS, Prompt, text_in
from pytest_npuconf.faults.proxy import Proxy

CHAT_ONLY = ("messages", "tools", "tool_choice", "parallel_tool_calls", "chat_template_kwargs", "add_generation_prompt",
             "continue_final_message", "max_completion_tokens", "top_logprobs", "reasoning_effort",
             "include_reasoning")  # fmt: skip


def as_completion(call: Call, prompt: Prompt) -> None:
    """Send this chat request on as a completion of ``prompt``; :func:`give_back` must be among the proxy's rules."""
    body = call.body or {}
    most = body.get("max_completion_tokens") or body.get("max_tokens")
    logprobs = (body.get("top_logprobs") or 0) if body.get("logprobs") else None
    for name in CHAT_ONLY:
        body.pop(name, None)
    body["prompt"] = prompt
    body["add_special_tokens"] = False
    body["logprobs"] = logprobs
    # a completion's own default is 16 tokens, a chat's is what is left of the context
    body["max_tokens"] = most or context(call) - (len(prompt) if isinstance(prompt, list) else context(call) // 2)
    call.path = COMPLETIONS
    call.notes["chat"] = True


def context(call: Call) -> int:
    """Tokens that the served model takes, prompt and answer together."""
    if "context" not in call.store.values:
        models = call.ask("/v1/models")["data"]
        name = (call.body or {}).get("model")
        [model] = [one for one in models if one["id"] == name] or models[:1]
        call.store.values["context"] = int(model["max_model_len"])
    return int(call.store.values["context"])


def give_back(proxy: Proxy) -> None:
    """Hand answers to such requests back as a chat's."""
    proxy.answers.append(_answer)
    proxy.events.append(_events)


def is_chat(call: Call) -> Body | None:
    """The body of a chat request."""
    return call.to(CHAT)


def _answer(call: Call, answer: Body) -> None:
    if not call.notes.get("chat"):
        return
    _retitle(answer, "chat.completion")
    for choice in answer["choices"]:
        choice["message"] = {"role": "assistant", "content": choice.pop("text")}
        choice["logprobs"] = _logprobs(choice.get("logprobs"))
        answer["prompt_token_ids"] = choice.pop("prompt_token_ids", None)


def _events(call: Call, stream: Iterator[Body]) -> Iterator[Body]:
    if not call.notes.get("chat"):
        yield from stream
        return
    begun = False
    for event in stream:
        if "choices" in event:
            _retitle(event, "chat.completion.chunk")
        if not begun and event.get("choices"):
            begun = True
            role = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
            yield {
                **{key: event[key] for key in ("id", "object", "created", "model") if key in event},
                "choices": [role],
            }
        for choice in event.get("choices", []):
            choice["delta"] = {"content": choice.pop("text")}
            choice["logprobs"] = _logprobs(choice.get("logprobs"))
            choice.pop("prompt_token_ids", None)
        if not _says_nothing(event):
            yield event


def _says_nothing(event: Body) -> bool:
    return bool(event.get("choices")) and not any(c.get("finish_reason") or text_in(c) for c in event["choices"])


def _retitle(answer: Body, kind: str) -> None:
    answer["object"] = kind
    answer["id"] = f"chat{answer.get('id', 'cmpl')}"


def _logprobs(found: Body | None) -> Body | None:
    """From the parallel lists of a completion to a chat's list of tokens."""
    if not found:
        return None
    tops = found.get("top_logprobs") or [None] * len(found["tokens"])
    rows = zip(found["tokens"], found["token_logprobs"], tops, strict=True)
    return {"content": [{**_token(token, value), "top_logprobs": [_token(t, v) for t, v in (top or {}).items()]}
                        for token, value, top in rows]}  # fmt: skip


def _token(token: str, value: float) -> Body:
    return {"token": token, "logprob": value, "bytes": list(token.encode())}
