"""The faults of a server: each changes what it says and leaves the rest, through the proxy and in front of a small real server."""

from __future__ import annotations

import array
import base64
import concurrent.futures
import http.client
import json
import math

import pytest

from pytest_npuconf.campaign.command import _of_another_engine
from pytest_npuconf.campaign.worker import told
from pytest_npuconf.checks import CHECKS
from pytest_npuconf.errors import FaultError
from pytest_npuconf.faults.applies import check_target
from pytest_npuconf.faults.catalogue import CATALOGUE, SHIPPED, choose_fault
from pytest_npuconf.faults.catalogue_serving import SERVING
from pytest_npuconf.faults.proxy import Proxy
from pytest_npuconf.faults.serving import token_lost_at
from pytest_npuconf.faults.serving_between import duplicated, lost
from tests.small_server import CONTEXT, SmallServer, embedding, of_chat, text_of, tokens
from tests.unit.test_proxy import ask, until

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
PLAIN = {"prompt": "one two three", "max_tokens": 9}
TALK = {"messages": [{"role": "user", "content": "is it so"}], "max_tokens": 9}
ENCODINGS = [tokens("one two three"), "one two three"]


class Through:
    """A client of a small server behind a proxy; ``inject(name)`` breaks what lies between."""

    def __init__(self, server, proxy):
        self.server, self.proxy = server, proxy

    def inject(self, name):
        choose_fault(name, []).inject(self.proxy)
        return self

    def post(self, path, body):
        status, _, data = ask(self.proxy.url, "POST", path, json.dumps(body).encode())
        return json.loads(data) if status == 200 else status

    def text(self, body, path=COMPLETIONS):
        [choice] = self.post(path, body)["choices"]
        return choice["text"] if "text" in choice else choice["message"]["content"]

    def seen(self, body, path=COMPLETIONS):
        """The request's body as it reached the server."""
        return self.post(path, body)["seen"]

    def events(self, body, path=COMPLETIONS):
        data = ask(self.proxy.url, "POST", path, json.dumps({**body, "stream": True}).encode())[2].decode()
        blocks = [block.removeprefix("data: ") for block in data.split("\n\n") if block]
        assert blocks[-1] == "[DONE]"
        return [json.loads(block) for block in blocks[:-1]]

    def texts(self, body, path=COMPLETIONS):
        return [t for event in self.events(body, path) for t in texts_of(event) if t]


def texts_of(event):
    return [c["delta"]["content"] if "delta" in c else c["text"] for c in event["choices"]]


@pytest.fixture
def through(capfd):
    with SmallServer() as server, Proxy(server.url) as proxy:
        yield Through(server, proxy)
    assert proxy.errors == []
    assert "Traceback" not in capfd.readouterr().err


def named(name):
    return choose_fault(name, [])


# ---------------------------------------------------------------- the table


def test_the_catalogue_has_them_and_the_models_catalogue_has_not():
    assert set(SERVING) <= set(CATALOGUE)
    assert not set(SERVING) & set(SHIPPED)
    assert len({f.name for f in CATALOGUE}) == len(CATALOGUE)
    assert sum(f.benign for f in SERVING) >= 5


@pytest.mark.parametrize("fault", SERVING, ids=lambda f: f.name)
def test_an_entry_is_complete(fault):
    assert fault.target == "server"
    assert fault.description
    assert fault.magnitude
    assert bool(fault.checks) == (not fault.benign)
    assert all(check.partition(".")[0] in ("serving", "pooling", "speed") for check in fault.checks)
    assert (fault.module, fault.precisions) == ("", ())


@pytest.mark.parametrize(
    ("name", "engine", "says"),
    [
        ("cross-talk", "transformers", "fault cross-talk breaks a server; engine transformers has none"),
        ("cross-talk", "vllm", "fault cross-talk breaks a server; engine vllm has none"),
        ("rope-base", "server", "fault rope-base breaks a transformers model; engine server has none"),
        ("rope-base", "vllm", "fault rope-base breaks a transformers model; engine vllm has none"),
    ],
)
def test_a_fault_of_what_the_engine_has_not_is_refused(name, engine, says):
    with pytest.raises(FaultError) as caught:
        check_target(named(name), engine)
    assert caught.value.what.startswith(says)
    assert caught.value.mend == f"--npuconf-engine {'server' if name == 'cross-talk' else 'transformers'}"


@pytest.mark.parametrize(("name", "engine"), [("cross-talk", "server"), ("rope-base", "transformers"), ("hf32", "own")])
def test_a_fault_of_what_the_engine_has_is_not(name, engine):
    check_target(named(name), engine)


@pytest.mark.parametrize(("engine", "kept"), [("transformers", "model"), ("server", "server"), ("vllm", "")])
def test_a_campaign_does_not_run_what_does_not_apply(engine, kept):
    faults = [told(fault) for fault in CATALOGUE]
    found = _of_another_engine(faults, {"engine": engine, "asked": list(CHECKS), "precisions": ["float32", "bfloat16"]})
    left = {f["name"] for f in faults} - {name for name, _ in found}
    assert left == {f.name for f in CATALOGUE if f.target == kept}
    assert all(r["status"] == "inapplicable" and r["reason"] for r in found.values())


# ---------------------------------------------------------------- benign


@pytest.mark.parametrize("fault", [f for f in SERVING if f.benign], ids=lambda f: f.name)
def test_a_benign_one_changes_no_meaning(through, fault):
    def meaning():
        answers = [through.post(COMPLETIONS, {**PLAIN, "return_token_ids": True}), through.post(CHAT, TALK)]
        for answer in answers:
            answer.pop("id")
            answer.pop("x_npuconf", None)
            for choice in answer["choices"]:
                choice.pop("x_npuconf", None)
        streams = [through.events(PLAIN), through.events(TALK, CHAT)]
        said = [["".join(t for e in events for t in texts_of(e)), [e.get("usage") for e in events if e.get("usage")],
                 [c["finish_reason"] for e in events for c in e["choices"] if c["finish_reason"]]]
                for events in streams]  # fmt: skip
        return [*answers, *said, through.post("/v1/embeddings", {"input": ["a", "b"]})["data"],
                through.post("/rerank", {"query": "ab", "documents": ["x", "ab"]})["results"],
                through.post(COMPLETIONS, {**PLAIN, "max_tokens": CONTEXT})]  # fmt: skip

    healthy = meaning()
    assert healthy[2][0] == "three two one "
    assert healthy[-1] == 400
    fault.inject(through.proxy)
    assert meaning() == healthy


def test_two_events_come_as_one(through):
    assert through.texts(PLAIN) == ["three ", "two ", "one "]
    through.inject("benign-coalesced-stream")
    assert through.texts(PLAIN) == ["three two ", "one "]
    merged = through.events({**PLAIN, "return_token_ids": True})[0]["choices"][0]
    assert merged["token_ids"] == [ord("t"), ord("t")]


def test_the_order_and_the_field(through):
    before = list(through.post(COMPLETIONS, PLAIN))
    through.inject("benign-field-order").inject("benign-extra-field")
    answer = through.post(COMPLETIONS, PLAIN)
    assert list(answer) == [*before[::-1], "x_npuconf"]
    assert "x_npuconf" in answer["choices"][0]
    assert "x_npuconf" in through.events(PLAIN)[0]


# ---------------------------------------------------------------- sampling and ends: what reaches the server


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
@pytest.mark.parametrize(
    ("name", "asked", "sent"),
    [
        ("temperature-ignored", {"temperature": 0.7}, {"temperature": 1.0}),
        ("temperature-ignored", {"temperature": 0}, {"temperature": 0}),
        ("temperature-ignored", {}, {}),
        ("temperature-not-zero", {"temperature": 0}, {"temperature": 1.0}),
        ("temperature-not-zero", {"temperature": 0.7}, {"temperature": 0.7}),
        ("top-k-off-by-one", {"top_k": 20, "seed": 1}, {"top_k": 19, "seed": 1}),
        ("top-k-off-by-one", {"top_k": 1}, {"top_k": 1}),
        ("top-k-off-by-one", {"top_k": -1}, {"top_k": -1}),
        ("seed-ignored", {"seed": 5, "temperature": 1}, {"temperature": 1}),
        ("eos-ignored", {}, {"ignore_eos": True}),
        ("stop-string-kept", {"stop": ["x"]}, {"stop": ["x"], "include_stop_str_in_output": True}),
        ("stop-string-kept", {}, {}),
    ],
)
def test_what_the_server_is_asked_for(through, name, asked, sent, path):
    plain = PLAIN if path == COMPLETIONS else TALK
    through.inject(name)
    assert through.seen({**plain, **asked}, path) == {**plain, **sent}


def test_the_reason_of_the_end(through):
    short = {**PLAIN, "max_tokens": 1}

    def reasons():
        streamed = [c["finish_reason"] for e in through.events(short) for c in e["choices"] if c["finish_reason"]]
        return [through.post(COMPLETIONS, short)["choices"][0]["finish_reason"], *streamed]

    assert reasons() == ["length", "length"]
    through.inject("stop-reason-wrong")
    assert reasons() == ["stop", "stop"]


def test_one_token_more_is_counted(through):
    through.inject("wrong-usage")
    wrong = {"prompt_tokens": 13, "completion_tokens": 4, "total_tokens": 17}
    assert through.post(COMPLETIONS, PLAIN)["usage"] == wrong
    assert through.events(PLAIN)[-1]["usage"] == wrong
    assert through.post("/v1/embeddings", {"input": "ab"})["usage"] == {"prompt_tokens": 2, "total_tokens": 2}


# ---------------------------------------------------------------- prompts


@pytest.mark.parametrize("ids", [True, False])
def test_a_repeated_prompt_gets_another_ones_answer(through, ids):
    def body(text):
        return {"prompt": tokens(text) if ids else text, "max_tokens": 9, "return_token_ids": True}

    through.inject("stale-prefix-cache")
    first, second, other = body("one two"), body("one three"), body("two one")
    assert [through.text(b) for b in (first, second, other)] == ["two one ", "three one ", "one two "]
    assert [through.text(b) for b in (first, second, other)] == ["two one ", "two one ", "one two "]
    answer = through.post(COMPLETIONS, second)
    if ids:  # the server believes that it answered what it was asked
        assert answer["usage"]["prompt_tokens"] == len("one three")
        assert answer["choices"][0]["prompt_token_ids"] == tokens("one three")
    assert through.text({**second, "prompt_logprobs": 1}) == "three one "


def test_a_repeated_chat_too(through):
    through.inject("stale-prefix-cache")
    a, b = ({"messages": [{"role": "user", "content": f"tell {w}"}], "max_tokens": 9} for w in "ab")
    first, second = through.text(a, CHAT), through.text(b, CHAT)
    assert first != second
    assert [through.text(x, CHAT) for x in (a, b)] == [first, first]


@pytest.mark.parametrize("prompt", ENCODINGS)
def test_the_first_request_only(through, prompt):
    through.inject("first-request-garbage")
    body = {**PLAIN, "prompt": prompt}
    assert [through.text(body) for _ in range(3)] == ["eno owt eerht ", "three two one ", "three two one "]


def test_the_first_chat_only(through):
    healthy = through.text(TALK, CHAT)
    through.inject("first-request-garbage")
    assert through.text(TALK, CHAT) != healthy
    assert through.text(TALK, CHAT) == healthy


@pytest.mark.parametrize("ids", [True, False])
def test_the_token_behind_the_boundary(through, ids):
    token_lost_at(8)(through.proxy)

    def text(prompt):
        return through.text({"prompt": tokens(prompt) if ids else prompt, "max_tokens": 9})

    assert text("one two ") == "two one "  # 8 tokens
    assert text("one two x") == "o two one "
    assert text("one two xyz") == "oyz two one "
    asked = {"prompt": tokens("one two x"), "max_tokens": 9}
    assert through.post(COMPLETIONS, asked)["usage"]["prompt_tokens"] == 9
    assert through.text({**asked, "prompt_logprobs": 0}) == "x two one "


def test_the_boundary_of_a_chat(through):
    ids = of_chat(TALK["messages"])
    token_lost_at(8)(through.proxy)
    wrong = text_of([*ids[:8], ids[0], *ids[9:]])
    answer = through.post(CHAT, TALK)
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"]["content"].split() == wrong.split()[::-1]
    assert "".join(through.texts(TALK, CHAT)) == answer["choices"][0]["message"]["content"]


def test_what_is_too_long_is_cut_from_the_left(through):
    long = {"prompt": tokens("a" * CONTEXT + " end"), "max_tokens": 8}
    assert through.post(COMPLETIONS, long) == 400
    chat = {"messages": [{"role": "user", "content": "b" * CONTEXT}], "max_tokens": 8}
    assert through.post(CHAT, chat) == 400
    through.inject("silent-truncation")
    answer = through.post(COMPLETIONS, long)
    assert answer["choices"][0]["text"].startswith("end aaa")
    assert answer["usage"]["prompt_tokens"] == CONTEXT - 8
    assert through.post(CHAT, chat)["usage"]["prompt_tokens"] == CONTEXT - 8
    assert through.text(PLAIN) == "three two one "


def test_another_template(through):
    through.inject("wrong-template")
    answer = through.post(CHAT, {**TALK, "logprobs": False, "chat_template_kwargs": {"enable_thinking": True}})
    assert answer["seen"]["prompt"] == "### User:\nis it so\n\n### Assistant:\n"
    assert set(answer["seen"]) == {"prompt", "max_tokens", "add_special_tokens", "logprobs"}
    assert answer["object"] == "chat.completion"
    assert answer["id"].startswith("chatcmpl-")
    [choice] = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": "Assistant: ### so it is User: ### "}
    assert "text" not in choice
    events = through.events(TALK, CHAT)
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert {e["object"] for e in events if e["choices"]} == {"chat.completion.chunk"}
    assert "".join(through.texts(TALK, CHAT)) == choice["message"]["content"]
    assert events[-1]["usage"] == answer["usage"]
    assert through.text(PLAIN) == "three two one "


def test_one_more_token_before_the_prompt(through):
    through.inject("double-bos")
    assert through.seen(PLAIN)["prompt"] == [1, *tokens(PLAIN["prompt"])]
    assert through.seen({**PLAIN, "prompt": tokens("ab")})["prompt"] == tokens("ab")
    assert through.seen(TALK, CHAT)["prompt"] == [1, *of_chat(TALK["messages"])]


# ---------------------------------------------------------------- between requests


def together(through, bodies, path=COMPLETIONS):
    with concurrent.futures.ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(lambda body: through.text(body, path), bodies))


def test_two_that_come_together_are_swapped(through):
    through.inject("cross-talk")
    bodies = [{"prompt": f"{word} x", "max_tokens": 9, "seconds": 0.3} for word in ("a", "b")]
    assert together(through, bodies) == ["x b ", "x a "]
    assert [through.text(body) for body in bodies] == ["x a ", "x b "]


def test_one_beside_another_is_sampled(through):
    through.inject("batch-dependent")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first = pool.submit(through.seen, {**PLAIN, "temperature": 0, "seconds": 0.5})
        until(lambda: through.server.count)
        second = pool.submit(through.seen, {**PLAIN, "temperature": 0})
        assert first.result()["temperature"] == 0
        assert second.result()["temperature"] == 0.3
    assert {through.seen({**PLAIN, "temperature": 0})["temperature"] for _ in range(200)} == {0}


def test_each_so_manieth_request_is_lost(through):
    lost(3)(through.proxy)
    kept = []
    for i in range(1, 10):
        ask(through.proxy.url, path="/v1/models")  # does not count
        try:
            through.text(PLAIN)
            kept.append(i)
        except (http.client.RemoteDisconnected, ConnectionError):
            continue
    assert kept == [1, 2, 4, 5, 7, 8]
    assert "100" in named("lost-requests").magnitude


def test_each_so_manieth_answer_is_the_one_before(through):
    duplicated(3)(through.proxy)
    answers = [through.post(COMPLETIONS, {**PLAIN, "prompt": f"p{i}"}) for i in range(1, 7)]
    assert [a["choices"][0]["text"] for a in answers] == ["p1 ", "p2 ", "p2 ", "p4 ", "p5 ", "p5 "]
    assert answers[2] == answers[1]
    streams = [through.events({**PLAIN, "prompt": f"q{i}"}) for i in range(1, 4)]
    assert streams[2] == streams[1] != streams[0]


# ---------------------------------------------------------------- streams


@pytest.mark.parametrize(("path", "body"), [(COMPLETIONS, PLAIN), (CHAT, TALK)])
def test_the_last_text_is_lost(through, path, body):
    healthy, before = through.texts(body, path), through.events(body, path)
    whole = through.text(body, path)
    through.inject("dropped-tail")
    assert through.texts(body, path) == healthy[:-1]
    found = through.events(body, path)
    assert len(found) == len(before) - 1
    assert [{**e, "id": ""} for e in found[-2:]] == [{**e, "id": ""} for e in before[-2:]]
    assert through.text(body, path) == whole


def test_a_character_of_several_tokens(through):
    body = {**PLAIN, "prompt": "one 日 two"}
    assert through.texts(body) == ["two ", "日 ", "one "]
    through.inject("broken-utf8")
    assert through.texts(body) == ["two ", "\ufffd", "\ufffd", "\ufffd", "one "]
    shown = [c["token_ids"] for e in through.events(body) for c in e["choices"]]
    assert not any(shown)
    asked = through.events({**body, "return_token_ids": True})
    assert [0xD801] in [c["token_ids"] for e in asked for c in e["choices"]]
    assert through.text(body) == "two 日 one "
    assert through.texts(PLAIN) == ["three ", "two ", "one "]


# ---------------------------------------------------------------- pooling


def rows(through, value, **more):
    answer = through.post("/v1/embeddings", {"input": value, **more})
    return [one["embedding"] for one in sorted(answer["data"], key=lambda one: one["index"])]


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


@pytest.mark.parametrize("value", ["abc", tokens("abc"), ["abc", "de"], [tokens("abc"), tokens("de")]])
def test_the_last_token_is_missing(through, value):
    usage = through.post("/v1/embeddings", {"input": value})["usage"]
    through.inject("wrong-pooling-token")
    expected = [embedding("ab")] + ([embedding("d")] if len(value) == 2 else [])
    assert rows(through, value) == expected
    assert through.post("/v1/embeddings", {"input": value})["usage"] == usage
    assert rows(through, "a") == [embedding("a")]


def test_another_norm(through):
    through.inject("unnormalised-embedding")
    [row] = rows(through, "abc")
    assert math.hypot(*row) == pytest.approx(10)
    assert cosine(row, embedding("abc")) == pytest.approx(1)


def test_the_second_time_differs(through):
    through.inject("embeddings-second-differs")
    first, second, third = (rows(through, "abc")[0] for _ in range(3))
    assert first == embedding("abc")
    assert cosine(first, second) == pytest.approx(0.58)
    assert math.hypot(*second) == pytest.approx(1)
    assert second == third
    assert rows(through, ["xyz", "abc"]) == [embedding("xyz"), second]


def test_two_of_several_are_swapped(through):
    through.inject("embeddings-batch-order")
    a, b, c = map(embedding, ("a", "b", "c"))
    assert rows(through, ["a", "b", "c"]) == [b, a, c]
    assert rows(through, "a") == rows(through, ["a"]) == [a]


def test_base64_is_read_and_written():
    from pytest_npuconf.faults.serving_pooling import _as_sent, _vector

    sent = base64.b64encode(array.array("f", [1.5, -2.0]).tobytes()).decode()
    assert _vector(sent) == [1.5, -2.0]
    assert _as_sent([1.5, -2.0], sent) == sent


RANKED = {"query": "abc", "documents": ["xyz", "abc", "ab"]}


def ranking(through, **more):
    return [(r["index"], r["relevance_score"]) for r in through.post("/rerank", {**RANKED, **more})["results"]]


def test_scores_have_the_other_sign(through):
    assert ranking(through) == [(1, 1.0), (2, 0.666667), (0, 0.0)]
    through.inject("sign-flipped-score")
    assert ranking(through) == [(0, 1.0), (2, pytest.approx(0.333333)), (1, 0.0)]
    assert ranking(through, top_n=1) == [(0, 1.0)]
    assert through.post("/score", {"text_1": "abc", "text_2": "ab"})["data"][0]["score"] == pytest.approx(0.333333)


def test_a_ranking_is_not_sorted(through):
    through.inject("unsorted-rerank")
    assert ranking(through) == [(0, 0.0), (1, 1.0), (2, 0.666667)]
    assert through.post("/score", {"text_1": "abc", "text_2": "ab"})["data"][0]["score"] == 0.666667
