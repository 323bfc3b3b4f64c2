"""Faults of streams, and variants of a server that nothing may object to. Each injector is given the proxy."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from pytest_npuconf.faults.base import Injector
from pytest_npuconf.faults.calls import GENERATE, Body, Call
from pytest_npuconf.faults.prompts import in_answers_and_events, put_text, text_in
from pytest_npuconf.faults.proxy import Proxy


def tail_dropped(proxy: Proxy) -> None:
    """The last text of a stream is lost, of each choice; the event stays where it says more than text."""

    def events(_: Call, stream: Iterator[Body]) -> Iterator[Body]:
        held: list[Body] = []
        for event in stream:
            if any(text_in(choice) for choice in event.get("choices", [])):
                yield from held
                held = []
            elif not held:
                yield event
                continue
            held.append(event)
        for event in held[:1]:
            for choice in event["choices"]:
                put_text(choice, "")
            if any(choice.get("finish_reason") for choice in event["choices"]):
                yield event
        yield from held[1:]

    proxy.events.append(events)


def characters_split(proxy: Proxy) -> None:
    """A character whose tokens come in several events is decoded token by token: replacement characters. The server is asked
    for token ids; the client sees them only where it asked for them itself."""

    def request(call: Call) -> None:
        body = call.to(*GENERATE)
        if body is not None and body.get("stream"):
            call.notes["shown"] = bool(body.get("return_token_ids"))
            body["return_token_ids"] = True

    def events(call: Call, stream: Iterator[Body]) -> Iterator[Body]:
        within: dict[int, bool] = {}  # by choice: whether the event before had a part of a character, so no text
        for event in stream:
            for choice in event.get("choices", []):
                ids, index = choice.get("token_ids") or [], choice["index"]
                part = bool(ids) and not text_in(choice) and not choice.get("finish_reason")
                if part or (within.get(index) and text_in(choice)):
                    put_text(choice, "".join(_decoded(call, i) for i in ids))
                within[index] = part
            if not call.notes.get("shown"):
                for one in (event, *event.get("choices", [])):
                    one.update({name: None for name in ("token_ids", "prompt_token_ids") if name in one})
            yield event

    proxy.requests.append(request)
    proxy.events.append(events)


def _decoded(call: Call, token: int) -> str:
    return str(call.ask("/detokenize", {"model": (call.body or {}).get("model"), "tokens": [token]})["prompt"])


# what nothing may object to


def nothing(_: Proxy) -> None:
    """Everything goes through."""


def delay(seconds: float) -> Injector:
    """Every request takes so much longer."""
    return lambda proxy: proxy.requests.append(lambda _: time.sleep(seconds))


def coalesced(proxy: Proxy) -> None:
    """Of the events that carry text two and two come as one."""

    def events(_: Call, stream: Iterator[Body]) -> Iterator[Body]:
        held: Body | None = None
        for event in stream:
            if held is None:
                if _alone(event):
                    held = event
                else:
                    yield event
                continue
            if _alone(event, held):
                yield _merged(held, event)
            else:
                yield held
                yield event
            held = None
        if held is not None:
            yield held

    proxy.events.append(events)


def _alone(event: Body, before: Body | None = None) -> bool:
    """Whether an event has one choice with text and can be merged: with a following one, or with the one ``before``."""
    choices = event.get("choices", [])
    if len(choices) != 1 or not text_in(choices[0]):
        return False
    if before is None:
        return not choices[0].get("finish_reason")
    return bool(choices[0]["index"] == before["choices"][0]["index"])


def _merged(first: Body, second: Body) -> Body:
    one, two = first["choices"][0], second["choices"][0]
    put_text(two, text_in(one) + text_in(two))
    for name in ("token_ids", "logprobs"):
        two[name] = _joined(one.get(name), two.get(name))
    if one.get("prompt_token_ids") is not None:
        two["prompt_token_ids"] = one["prompt_token_ids"]
    return second


def _joined(one: Any, two: Any) -> Any:
    """Lists one after the other, also within dicts."""
    if isinstance(one, dict) and isinstance(two, dict):
        return {name: _joined(one.get(name), two.get(name)) for name in two}
    return one + two if isinstance(one, list) and isinstance(two, list) else two


def fields_backwards(proxy: Proxy) -> None:
    """The fields of every JSON object come in the opposite order."""

    def change(_: Call, answer: Body) -> None:
        turned = _backwards(answer)
        answer.clear()
        answer.update(turned)

    proxy.answers.append(change)
    proxy.events.append(lambda _, stream: (_backwards(event) for event in stream))


def _backwards(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _backwards(one) for name, one in reversed(value.items())}
    return [_backwards(one) for one in value] if isinstance(value, list) else value


def unknown_field(proxy: Proxy) -> None:
    """Answers, events and their choices have a field that nobody knows."""

    def change(_: Call, answer: Body) -> None:
        for one in [answer, *answer.get("choices", [])]:
            one["x_npuconf"] = {"unknown": True}

    in_answers_and_events(proxy, change)
