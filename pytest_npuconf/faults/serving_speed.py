"""Faults of a server's speed. Each injector is given the proxy in front of it; what is answered stays as it is, but for when."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Iterator

from pytest_npuconf.faults.base import Injector
from pytest_npuconf.faults.calls import GENERATE, Body, Call
from pytest_npuconf.faults.prompts import text_in
from pytest_npuconf.faults.proxy import Proxy

Pace = Callable[[Call], float]
"""How much longer than it took is waited now, for this call: 1 is twice as long."""
IDLE = 2.0  # seconds without a request after which a device is cool again


def paced(pace: Pace, *, from_first: bool = False) -> Injector:
    """Between what came at ``a`` and at ``b`` the client waits ``(1 + pace) (b - a)``.

    Args:
        from_first: only behind the first token; else from the request on.
    """

    def inject(proxy: Proxy) -> None:
        def request(call: Call) -> None:
            call.notes["sent"] = time.perf_counter()

        def answer(call: Call, _: Body) -> None:
            if call.to(*GENERATE) is not None:
                time.sleep(pace(call) * (time.perf_counter() - call.notes["sent"]))

        def events(call: Call, stream: Iterator[Body]) -> Iterator[Body]:
            came = out = call.notes["sent"]
            begun = not from_first
            for at, event in _stamped(stream):
                out = max(at, out + (1 + (pace(call) if begun else 0.0)) * (at - came))
                came = at
                begun = begun or any(text_in(choice) for choice in event.get("choices", []))
                time.sleep(max(0.0, out - time.perf_counter()))
                yield event

        proxy.requests.append(request)
        proxy.answers.append(answer)
        proxy.events.append(events)

    return inject


def _stamped(stream: Iterator[Body]) -> Iterator[tuple[float, Body]]:
    """Each event with when it was there, however late it is asked for."""
    there: queue.SimpleQueue[tuple[float, Body] | BaseException | None] = queue.SimpleQueue()

    def read() -> None:
        try:
            for event in stream:
                there.put((time.perf_counter(), event))
        except BaseException as error:
            there.put(error)
        else:
            there.put(None)

    threading.Thread(target=read, name="npuconf-proxy-stamps", daemon=True).start()
    while (found := there.get()) is not None:
        if isinstance(found, BaseException):
            raise found
        yield found


def slower(share: float) -> Injector:
    """Everything takes ``1 + share`` times as long."""
    return paced(lambda _: share)


def slower_tokens(share: float) -> Injector:
    """Every token behind the first takes ``1 + share`` times as long."""
    return paced(lambda _: share, from_first=True)


def one_in(every: int, share: float) -> Injector:
    """Every ``every``-th request takes ``1 + share`` times as long."""

    def pace(call: Call) -> float:
        if "turn" not in call.notes:
            call.notes["turn"] = call.store.count("paced")
        return share if call.notes["turn"] % every == 0 else 0.0

    return paced(pace)


def throttled(after: float, share: float = 1.0) -> Injector:
    """After ``after`` seconds of load everything takes ``1 + share`` times as long, until two seconds without any."""

    def inject(proxy: Proxy) -> None:
        since = last = time.monotonic()
        lock = threading.Lock()

        def hot() -> bool:
            nonlocal since, last
            with lock:
                now = time.monotonic()
                since = now if now - last > IDLE else since
                last = now
                return now - since > after

        def request(call: Call) -> None:
            if call.to(*GENERATE) is not None:
                hot()  # load has begun

        proxy.requests.append(request)
        paced(lambda _: share if hot() else 0.0)(proxy)

    return inject


def answered_from_a_cache(proxy: Proxy) -> None:
    """A request that was asked before gets the same answer again, at once. The server is asked for a single token instead."""

    def request(call: Call) -> None:
        body = call.to(*GENERATE)
        if body is None:
            return
        key = json.dumps([call.route, body], sort_keys=True)
        with call.store.lock:
            kept = call.store.values.setdefault("answered", {}).get(key)
        call.notes.update(key=key, kept=kept)
        if kept is not None:
            body["max_tokens"] = 1

    def answer(call: Call, found: Body) -> None:
        if call.notes.get("kept") is not None:
            found.clear()
            found.update(call.notes["kept"])
        elif "key" in call.notes:
            with call.store.lock:
                call.store.values["answered"][call.notes["key"]] = json.loads(json.dumps(found))

    def events(call: Call, stream: Iterator[Body]) -> Iterator[Body]:
        if call.notes.get("kept") is not None:
            yield from call.notes["kept"]
            return
        seen = []
        for event in stream:
            seen.append(event)
            yield event
        with call.store.lock:
            call.store.values["answered"][call.notes["key"]] = seen

    proxy.requests.append(request)
    proxy.answers.append(answer)
    proxy.events.append(events)


def in_the_server(_: Proxy) -> None:
    """Nothing is done in front of it: the fault is in the words of its command."""
