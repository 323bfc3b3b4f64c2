"""Faults of a server that generates: sampling, ends, prompts. Each injector is given the proxy in front of it."""

from __future__ import annotations

from collections.abc import Callable

from pytest_npuconf.faults.base import Injector
from pytest_npuconf.faults.calls import GENERATE, Body, Call
from pytest_npuconf.faults.chat_wire import as_completion, context, give_back, is_chat
from pytest_npuconf.faults.prompts import (
    COMPLETIONS,
    Prompt,
    chat_ids,
    content_of,
    hide,
    ids_of,
    in_answers_and_events,
    in_the_form_of,
    replace,
    several,
    shows_its_prompt,
)
from pytest_npuconf.faults.proxy import Proxy


def asking(change: Callable[[Body], None]) -> Injector:
    """Change the body of every generating request."""

    def inject(proxy: Proxy) -> None:
        def rule(call: Call) -> None:
            if (body := call.to(*GENERATE)) is not None:
                change(body)

        proxy.requests.append(rule)

    return inject


# sampling


@asking
def temperature_ignored(body: Body) -> None:
    """Temperature 1 where another above 0 is asked for."""
    if body.get("temperature"):
        body["temperature"] = 1.0


def temperature_not_zero(value: float) -> Injector:
    """``value`` where temperature 0 is asked for."""

    @asking
    def change(body: Body) -> None:
        if body.get("temperature") == 0:
            body["temperature"] = value

    return change


@asking
def top_k_less_one(body: Body) -> None:
    """One candidate fewer; of a single one there is none to lose."""
    if isinstance(body.get("top_k"), int) and body["top_k"] > 1:
        body["top_k"] -= 1


@asking
def seed_ignored(body: Body) -> None:
    """No seed."""
    body.pop("seed", None)


# where an answer ends


@asking
def eos_ignored(body: Body) -> None:
    """Generation goes on behind the end-of-sequence token."""
    body["ignore_eos"] = True


@asking
def stop_string_kept(body: Body) -> None:
    """The stop string stays at the end of the text."""
    if body.get("stop"):
        body["include_stop_str_in_output"] = True


def always_stop(proxy: Proxy) -> None:
    """``finish_reason`` is ``stop``, also where max_tokens cut the answer."""

    def change(_: Call, answer: Body) -> None:
        for choice in answer.get("choices", []):
            if choice.get("finish_reason"):
                choice["finish_reason"] = "stop"

    in_answers_and_events(proxy, change)


def one_token_more(proxy: Proxy) -> None:
    """``usage`` counts one completion token more than there are."""

    def change(_: Call, answer: Body) -> None:
        usage = answer.get("usage")
        if usage and "completion_tokens" in usage:
            usage["completion_tokens"] += 1
            usage["total_tokens"] += 1

    in_answers_and_events(proxy, change)


# prompts


def cut_from_the_left(proxy: Proxy) -> None:
    """A prompt that leaves no room for the answer loses its beginning. ``usage`` counts what was left, as Ollama's does."""

    def rule(call: Call) -> None:
        body = call.to(*GENERATE)
        if body is None:
            return
        room = context(call) - int(body.get("max_completion_tokens") or body.get("max_tokens") or 16)
        if room > 0:
            body.setdefault("truncate_prompt_tokens", room)

    proxy.requests.append(rule)


def other_template(proxy: Proxy) -> None:
    """A chat is put to the model as headings and paragraphs, not through its template."""

    def rule(call: Call) -> None:
        if (body := is_chat(call)) is not None:
            told = [f"### {one['role'].capitalize()}:\n{content_of(one)}\n\n" for one in body["messages"]]
            as_completion(call, "".join([*told, "### Assistant:\n"]))

    proxy.requests.append(rule)
    give_back(proxy)


def first_token_twice(proxy: Proxy) -> None:
    """The token that the chat template begins with stands once more before a prompt that is a text or a chat."""

    def rule(call: Call) -> None:
        if is_chat(call) is not None:
            ids = chat_ids(call)
            as_completion(call, [ids[0], *ids])
        elif (body := call.to(COMPLETIONS)) is not None:
            prompts = several(body.get("prompt"))
            if any(isinstance(prompt, str) for prompt in prompts):
                first = chat_ids(call, [{"role": "user", "content": "x"}])[0]
                longer: list[Prompt] = [[first, *ids_of(call, p)] if isinstance(p, str) else p for p in prompts]
                body["prompt"] = in_the_form_of(body["prompt"], longer)

    proxy.requests.append(rule)
    give_back(proxy)


def token_lost_at(place: int) -> Injector:
    """In a prompt longer than ``place`` tokens the one at ``place`` (counted from 0) is lost: its slot has the first one.
    A request for the prompt's own log-probabilities is left alone: its answer would name the token."""

    def broken(ids: list[int]) -> list[int]:
        return [*ids[:place], ids[0], *ids[place + 1 :]] if len(ids) > place else ids

    def rule(call: Call) -> None:
        if shows_its_prompt(call):
            return
        if is_chat(call) is not None:
            if (found := broken(ids := chat_ids(call))) != ids:
                as_completion(call, found)
        elif (body := call.to(COMPLETIONS)) is not None:
            every = [ids_of(call, prompt) for prompt in several(body.get("prompt"))]
            if any(len(ids) > place for ids in every):
                replace(call, [broken(ids) for ids in every])

    def inject(proxy: Proxy) -> None:
        proxy.requests.append(rule)
        give_back(proxy)
        hide(proxy)

    return inject
