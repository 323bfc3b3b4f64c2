"""Faults between requests: what one gets depends on others. Each injector is given the proxy in front of the server."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from typing import Any

from pytest_npuconf.faults.base import Injector
from pytest_npuconf.faults.calls import GENERATE, Body, Call
from pytest_npuconf.faults.chat_wire import is_chat
from pytest_npuconf.faults.prompts import content_of, hide, replace, several, shows_its_prompt
from pytest_npuconf.faults.proxy import Proxy


def warm_beside_others(temperature: float) -> Injector:
    """A request that comes while another is under way is sampled at ``temperature``."""

    def inject(proxy: Proxy) -> None:
        def rule(call: Call) -> None:
            if call.beside and (body := call.to(*GENERATE)) is not None:
                body["temperature"] = temperature

        proxy.requests.append(rule)

    return inject


def first_request_garbage(proxy: Proxy) -> None:
    """The first request that generates is answered as if its prompt stood backwards. One for the prompt's own
    log-probabilities does not count."""

    def rule(call: Call) -> None:
        body = call.to(*GENERATE)
        if body is None or shows_its_prompt(call) or call.store.count("generating") > 1:
            return
        if is_chat(call) is not None:
            body["messages"] = [{**one, "content": content_of(one)[::-1]} for one in body["messages"]]
        else:
            replace(call, [prompt[::-1] for prompt in several(body.get("prompt"))])

    proxy.requests.append(rule)
    hide(proxy)


def stale_prefix(proxy: Proxy) -> None:
    """A prompt that was asked before gets what the first prompt with the same beginning (one token, four characters) gets.
    As in vLLM a request for the prompt's own log-probabilities does not use the cache."""

    def rule(call: Call) -> None:
        body = call.to(*GENERATE)
        if body is None or shows_its_prompt(call):
            return
        asked: Any = body["messages"] if is_chat(call) is not None else several(body.get("prompt"))[0]
        beginning = asked[:1] if isinstance(asked, list) else asked[:4]
        key = (call.route, str(beginning) if is_chat(call) is None else content_of(asked[-1])[:4])
        with call.store.lock:
            known = call.store.values.setdefault("known", {}).setdefault(key, [])
            if asked not in known:
                known.append(copy.deepcopy(asked))
                return
            if is_chat(call) is not None:
                body["messages"] = known[0]
            elif len(several(body["prompt"])) == 1 and known[0] != asked:
                replace(call, [known[0]])

    proxy.requests.append(rule)
    hide(proxy)


def cross_talk(patience: float) -> Injector:
    """Of two requests that come within ``patience`` seconds each gets the other's answer."""

    def rule(call: Call) -> None:
        body = call.to(*GENERATE)
        if body is None or shows_its_prompt(call):
            return
        name, key, values = ("prompt" if "prompt" in body else "messages"), f"waiting {call.route}", call.store.values
        mine: tuple[Body, threading.Event] = (body, threading.Event())
        with call.store.lock:
            waiting: Any = values.get(key)
            if waiting is not None and waiting[0].get(name) == body.get(name):
                return
            if waiting is not None:
                body[name], waiting[0][name] = waiting[0][name], body[name]
                del values[key]
                waiting[1].set()
                return
            values[key] = mine
        if not mine[1].wait(patience):
            with call.store.lock:
                if values.get(key) is mine:
                    del values[key]

    return lambda proxy: proxy.requests.append(rule)


def lost(every: int) -> Injector:
    """Each request of this number is lost: the connection is closed without an answer."""

    def rule(call: Call) -> bool:
        return call.to() is not None and call.store.count("asked") % every == 0

    return lambda proxy: proxy.lose.append(rule)


def duplicated(every: int) -> Injector:
    """Each answer of this number is the one before once more, whole."""

    def kept(call: Call, kind: str) -> str:
        return f"{kind} {call.route}"

    def answers(call: Call, answer: Body) -> None:
        if call.to(*GENERATE) is None or "choices" not in answer:
            return
        with call.store.lock:
            before = call.store.values.get(kept(call, "answer"))
            if call.store.count("answers") % every == 0 and before is not None:
                answer.clear()
                answer.update(before)
            call.store.values[kept(call, "answer")] = copy.deepcopy(answer)

    def events(call: Call, stream: Iterator[Body]) -> Iterator[Body]:
        with call.store.lock:
            before = call.store.values.get(kept(call, "stream"))
            again = call.store.count("answers") % every == 0
        if again and before is not None:
            yield from before
            return
        seen = []
        for event in stream:
            seen.append(copy.deepcopy(event))
            yield event
        call.store.values[kept(call, "stream")] = seen

    def inject(proxy: Proxy) -> None:
        proxy.answers.append(answers)
        proxy.events.append(events)

    return inject
