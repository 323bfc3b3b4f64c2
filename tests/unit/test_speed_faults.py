"""Faults of speed: what they do to known latencies, and that they leave every word as it is."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from pytest_npuconf.checks import CHECKS
from pytest_npuconf.engines.server_engine import ServerFactory
from pytest_npuconf.errors import FaultError
from pytest_npuconf.faults import serving_speed
from pytest_npuconf.faults.catalogue import CATALOGUE, choose_fault
from pytest_npuconf.faults.catalogue_speed import SPEED
from pytest_npuconf.faults.leaking import KEPT, Leaking
from pytest_npuconf.faults.proxy import Proxy
from pytest_npuconf.load.run import load
from pytest_npuconf.load.self_check import Truth, truth_server
from pytest_npuconf.load.shape import Shape
from pytest_npuconf.options import Settings
from tests.small_server import SmallServer
from tests.unit.test_proxy import ask

TRUTH, TOKENS = Truth(60.0, 6.0), 11  # 60 + 10 x 6 = 120 ms an answer
PLAIN = {"prompt": "one two three", "max_tokens": 9}


def near(found, milliseconds, room=60.0):
    """Not sooner, but for a clock's tick; later by what a busy host may add."""
    return 0.95 * milliseconds <= found <= milliseconds + room


def measured(inject, requests=4, concurrency=1, warmup=0):
    """Mean milliseconds by figure, and every latency, through a proxy with this fault."""
    with truth_server(TRUTH) as url, Proxy(url) as proxy:
        inject(proxy)
        found = load(proxy.url, "truth", Shape(requests, concurrency, 4, TOKENS, warmup=warmup))
        assert proxy.errors == []
    assert not found.failures
    return {name: spread.mean * 1e3 for name, spread in found.spreads.items()}, [
        (r.ended - r.sent) / 1e6 for r in found.replies
    ]


@pytest.mark.parametrize("share", [0.0, 0.5, 2.0])
def test_everything_takes_longer(share):
    means, _ = measured(serving_speed.slower(share))
    assert near(means["latency"], 120 * (1 + share))
    assert near(means["ttft"], 60 * (1 + share), 30)
    assert near(means["tpot"], 6 * (1 + share) * 0.9, 5)  # a first token that is late shortens the rest


def test_only_the_tokens_behind_the_first_take_longer():
    means, _ = measured(serving_speed.slower_tokens(1.0))
    assert near(means["tpot"], 12.0 * 0.9, 5)
    assert near(means["ttft"], 60.0, 30)


def test_one_in_three():
    _, latencies = measured(serving_speed.one_in(3, 2.0), requests=6)
    assert near(latencies[2], 360)
    assert near(latencies[5], 360)
    assert max(latencies[i] for i in (0, 1, 3, 4)) < 300


def test_throttling_begins_after_a_while():
    _, latencies = measured(serving_speed.throttled(0.5), requests=8)
    assert near(latencies[0], 120)
    assert near(latencies[-1], 240)


def test_an_answer_that_is_no_stream_takes_longer_too():
    with truth_server(TRUTH) as url, Proxy(url) as proxy:
        serving_speed.slower(1.0)(proxy)
        begin = time.perf_counter()
        status, _, _ = ask(proxy.url, "POST", "/v1/completions", json.dumps({**PLAIN, "max_tokens": TOKENS}).encode())
    assert status == 200
    assert near(1e3 * (time.perf_counter() - begin), 240)


def answers(inject, *bodies):
    with SmallServer() as server, Proxy(server.url) as proxy:
        inject(proxy)
        found = [ask(proxy.url, "POST", "/v1/completions", json.dumps(body).encode()) for body in bodies]
        assert proxy.errors == []
        return [(status, said(data)) for status, _, data in found]


def said(data):
    """What it says, however its JSON is spaced."""
    if not data.startswith(b"data:"):
        return json.loads(data)
    events = [block.removeprefix(b"data: ") for block in data.split(b"\n\n") if block]
    return [event if event == b"[DONE]" else json.loads(event) for event in events]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ["slower-5%", "tpot-doubled", "long-tail", "throttling", "memory-leak"])
def test_no_word_changes(name, stream):
    body = {**PLAIN, "stream": stream}
    assert answers(choose_fault(name, []).inject, body) == answers(lambda _: None, body)


@pytest.mark.parametrize("stream", [False, True])
def test_a_cache_gives_the_same_answer_to_the_same_request_only(stream):
    """The small server counts its requests, so a second answer would differ."""
    body, other = {**PLAIN, "stream": stream}, {**PLAIN, "stream": stream, "prompt": "another"}
    first, again, different = answers(serving_speed.answered_from_a_cache, body, body, other)
    assert first == again
    assert different != first


def test_a_cache_answers_at_once():
    with truth_server(TRUTH) as url, Proxy(url) as proxy:
        serving_speed.answered_from_a_cache(proxy)
        shape = Shape(3, 1, 4, TOKENS, warmup=0)
        first, again = (load(proxy.url, "truth", shape).spreads["latency"].mean * 1e3 for _ in range(2))
    assert near(first, 120)
    assert near(again, 60, 45), "one token of the server's, and everything else at once"


def test_the_middleware_keeps_something_of_each_request():
    passed = []

    async def app(scope, _receive, _send):
        passed.append(scope["path"])

    leak = Leaking(app)
    for scope in (
        {"type": "http", "method": "POST", "path": "/v1/completions"},
        {"type": "http", "method": "GET", "path": "/v1/models"},
        {"type": "http", "method": "POST", "path": "/tokenize"},
        {"type": "lifespan"},
    ):
        asyncio.run(leak({"path": "-", **scope}, None, None))
    assert len(passed) == 4
    assert [len(kept) for kept in leak._kept] == [KEPT]


def test_a_server_that_runs_already_cannot_have_it():
    settings = Settings(models=("m",), engine="server", endpoints=(("generate", "http://127.0.0.1:1"),))
    from pytest_npuconf.cards import find_card

    card = find_card("tiny-qwen3")
    with pytest.raises(FaultError, match="memory-leak is in the server's own process") as caught:
        ServerFactory().serve(
            None, card, card.serving.mode("generate"), None, "bfloat16", settings, None, choose_fault("memory-leak", [])
        )
    assert caught.value.mend == "drop --npuconf-endpoint"


@pytest.mark.parametrize("fault", SPEED, ids=lambda f: f.name)
def test_an_entry_is_complete(fault):
    assert fault in CATALOGUE
    assert fault.target == "server"
    assert set(fault.checks) <= set(CHECKS)
    assert all(check.startswith("speed.") for check in fault.checks)
    assert bool(fault.scaled) == bool(fault.magnitudes)
