"""The load generator against real sockets: what is stamped, what is read out of it afterwards, and each way to fail."""

import contextlib
import http.server
import itertools
import json
import re
import socket
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_npuconf.cli import main
from pytest_npuconf.errors import SettingsError
from pytest_npuconf.load import compare, exports, result, server_metrics
from pytest_npuconf.load.ask import address_of, requests_of
from pytest_npuconf.load.exchange import SECOND, Exchange, Framing
from pytest_npuconf.load.generator import Address, Generator, Watch, poisson
from pytest_npuconf.load.reply import Reply, read
from pytest_npuconf.load.run import load
from pytest_npuconf.load.self_check import Bias, Truth, measure, truth_server
from pytest_npuconf.load.shape import Shape
from pytest_npuconf.load.truth_server import HEADER, chunk, ending, event

ANSWER = (
    HEADER
    + event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
    + event({"choices": [{"index": 0, "delta": {"reasoning_content": "well"}}]})
    + event({"choices": [{"index": 0, "delta": {"content": "天"}}]})
    + event({"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]}}]})
    + ending(7, 3)
)
REQUEST = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"


def exchanged(*reads, trouble="", step=10):
    """An exchange whose reads came ``step`` ns apart, the first at 1000, sent at 900."""
    stamps = [1000 + step * i for i in range(len(reads))]
    return Exchange(0, 800, 900, stamps[-1] if stamps else 950, stamps, list(reads), trouble)


def plain(body, head=b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"):
    return head + body


# ---------------------------------------------------------------- what an exchange says


@given(st.lists(st.integers(1, len(ANSWER) - 1), max_size=12))
def test_an_answer_split_anywhere_says_the_same_and_is_whole_at_its_end(cuts):
    ends = [0, *sorted(set(cuts)), len(ANSWER)]
    reads = [ANSWER[a:b] for a, b in itertools.pairwise(ends)]
    framing = Framing()
    assert [framing.is_whole(part) for part in reads] == [False] * (len(reads) - 1) + [True]
    reply = read(exchanged(*reads), 3)
    assert (reply.kind, reply.tokens, reply.prompt_tokens, len(reply.arrivals)) == ("", 3, 7, 3)
    for stamp, word in zip(reply.arrivals, (b"well", "天".encode("unicode_escape"), b"tool_calls"), strict=True):
        end = ANSWER.index(b"\n\n", ANSWER.index(word)) + 2
        assert stamp == 1000 + 10 * next(i for i, e in enumerate(ends[1:]) if e >= end)


def test_chunks_that_came_together_are_counted():
    assert read(exchanged(ANSWER)).coalesced == 2
    pieces = ANSWER.split(b"\n\n")
    assert read(exchanged(*(p + b"\n\n" for p in pieces[:-1]), pieces[-1])).coalesced == 0


def test_an_answer_that_ends_with_its_connection():
    events = (b'{"choices":[{"text":"a"}]}', b'{"choices":[],"usage":{"completion_tokens":1}}', b"[DONE]")
    lines = b"".join(b"data: " + one + b"\r\n\r\n" for one in events)
    framing = Framing()
    assert not framing.is_whole(plain(lines))
    assert framing.ends_with_connection
    assert read(exchanged(plain(lines)), 1).kind == ""


def test_tokens_of_the_first_chunk_are_the_servers_count():
    first = {"choices": [{"text": "a b c"}], "usage": {"completion_tokens": 3, "prompt_tokens": 1}}
    reply = read(exchanged(HEADER + event(first), event({"choices": [{"text": "d"}]}), ending(1, 4)))
    assert (reply.first_tokens, reply.first_told, reply.tokens) == (3, True, 4)
    assert read(exchanged(ANSWER)).first_told is False


def test_a_token_without_text_is_a_token_where_the_server_counts_it():
    def said(text, count):
        return event({"choices": [{"text": text}], "usage": {"completion_tokens": count, "prompt_tokens": 1}})

    reply = read(exchanged(HEADER, said("", 0), said("", 1), said("天", 2), said("", 2) + ending(1, 2)))
    assert reply.arrivals == (1020, 1030)
    assert (reply.first_tokens, reply.tokens, reply.kind) == (1, 2, "")


DONE = chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
WRONG = {
    "no HTTP": ((b"hello",), "malformed", "no HTTP"),
    "status": ((b"HTTP/1.1 429 Too Many\r\nContent-Length: 4\r\n\r\nslow",), "status", "429: 'slow'"),
    "no usage": ((HEADER + event({"choices": [{"text": "a"}]}) + DONE,), "no-usage", "include_usage"),
    "no token": ((HEADER + ending(1, 3),), "empty", "usage says 3"),
    "short": ((HEADER + event({"choices": [{"text": "a"}]}) + ending(1, 2),), "short", "2 tokens where 3"),
    "long": ((HEADER + event({"choices": [{"text": "a"}]}) + ending(1, 4),), "long", "4 tokens where 3"),
    "not JSON": ((HEADER + chunk(b"data: {\n\n") + DONE,), "malformed", "no JSON"),
    "no object": ((HEADER + chunk(b"data: [1]\n\n") + DONE,), "malformed", "no object"),
    "no UTF-8": ((HEADER + chunk(b'data: {"a": "\xff"}\n\n') + DONE,), "malformed", "no UTF-8"),
    "an error": ((HEADER + event({"error": {"message": "out of memory"}}) + DONE,), "malformed", "out of memory"),
    "no end": ((HEADER + event({"choices": [{"text": "a"}]}) + b"0\r\n\r\n",), "malformed", "without [DONE]"),
    "cut": ((HEADER + chunk(b'data: {"choices"') + b"0\r\n\r\n",), "malformed", "middle of an event"),
    "after the end": (
        (HEADER + chunk(b"data: [DONE]\n\n") + event({"choices": []}) + b"0\r\n\r\n",), "malformed", "after [DONE]"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_answer_is_a_failure_of_its_kind(name):
    reads, kind, said = WRONG[name]
    reply = read(exchanged(*reads), 3)
    assert reply.kind == kind
    assert said in reply.trouble


def test_a_clock_that_goes_backwards_measures_nothing():
    assert read(exchanged(ANSWER[:200], ANSWER[200:], step=-10)).kind == "clock"


def test_what_the_generator_says_of_a_failure_is_kept():
    reply = read(exchanged(trouble="closed: after 12 bytes"))
    assert (reply.kind, reply.trouble) == ("closed", "after 12 bytes")


# ---------------------------------------------------------------- the generator


class Server(http.server.ThreadingHTTPServer):
    """Answers each connection with what ``say(number, handler)`` writes; ``number`` counts requests."""

    daemon_threads = True
    request_queue_size = 512

    def __init__(self, say):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.say, self.count, self.connections, self.lock = say, 0, 0, threading.Lock()

    def __enter__(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    @property
    def address(self):
        return Address(*self.server_address)

    def handle_error(self, request, client_address):
        pass


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        with self.server.lock:
            self.server.connections += 1

    def log_message(self, *_):
        pass

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.lock:
            number, self.server.count = self.server.count, self.server.count + 1
        self.server.say(number, self)


def right(_number, handler):
    handler.wfile.write(ANSWER)


def test_connections_are_used_again_and_no_more_than_asked_for():
    with Server(right) as server:
        generator = Generator(server.address, [REQUEST] * 60, concurrency=4)
        replies = [read(e, 3) for e in generator.run()]
    assert [r.number for r in replies] == list(range(60))
    assert {r.kind for r in replies} == {""}
    assert server.connections <= 4
    assert all(r.intended <= r.sent <= r.arrivals[0] <= r.arrivals[-1] <= r.ended for r in replies)
    assert generator.watch.loops > 0


def test_a_server_that_closes_after_each_answer():
    def close(_number, handler):
        handler.wfile.write(ANSWER.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n", 1))
        handler.close_connection = True

    with Server(close) as server:
        replies = [read(e, 3) for e in Generator(server.address, [REQUEST] * 12, concurrency=3).run()]
    assert {r.kind for r in replies} == {""}
    assert server.connections == 12


def test_a_server_that_closes_without_a_word_is_said_to_have_answered_before():
    def again(number, handler):
        if number == 0:
            handler.wfile.write(ANSWER)
        handler.close_connection = number > 0

    with Server(again) as server:
        replies = [read(e, 3) for e in Generator(server.address, [REQUEST] * 2, concurrency=1).run()]
    assert [r.trouble for r in replies] == ["", "after 0 bytes, on a connection that had answered before"]


def test_an_answer_without_length_ends_with_the_connection():
    def say(_number, handler):
        handler.wfile.write(
            plain(b'data: {"choices":[{"text":"a"}],"usage":{"completion_tokens":3}}\n\ndata: [DONE]\n\n')
        )
        handler.close_connection = True

    with Server(say) as server:
        [reply] = [read(e, 3) for e in Generator(server.address, [REQUEST], concurrency=1).run()]
    assert reply.kind == ""


def test_a_large_request_arrives_whole():
    got = []

    class Takes(_Handler):
        def do_POST(self):
            got.append(len(self.rfile.read(int(self.headers["Content-Length"]))))
            self.wfile.write(ANSWER)

    body = b"x" * 6_000_000
    request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with Server(right) as server:
        server.RequestHandlerClass = Takes
        replies = [read(e, 3) for e in Generator(server.address, [request] * 3, concurrency=2).run()]
    assert got == [len(body)] * 3
    assert {r.kind for r in replies} == {""}


def test_each_failure_is_counted_and_the_others_are_answered():
    def say(number, handler):
        if number == 2:
            handler.wfile.write(ANSWER[:300])
            handler.close_connection = True
        elif number == 3:
            handler.close_connection = True
        elif number == 4:
            handler.wfile.write(b"HTTP/1.1 500 No\r\nContent-Length: 3\r\n\r\nbad")
        else:
            handler.wfile.write(ANSWER)

    with Server(say) as server:
        replies = [read(e, 3) for e in Generator(server.address, [REQUEST] * 8, concurrency=1).run()]
    assert [r.kind for r in replies] == ["", "", "closed", "closed", "status", "", "", ""]
    assert result.result_of(SHAPE, replies, Watch()).failures == {"closed": 2, "status": 1}


def test_silence_ends_at_the_timeout():
    go_on = threading.Event()

    def say(number, handler):
        if number == 0:
            go_on.wait(20)
            handler.close_connection = True
        else:
            handler.wfile.write(ANSWER)

    with Server(say) as server:
        replies = [read(e, 3) for e in Generator(server.address, [REQUEST] * 3, concurrency=1, timeout=0.5).run()]
        go_on.set()
    assert [r.kind for r in replies] == ["timeout", "", ""]


def test_nobody_listens():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = Address(*closed.getsockname())
    replies = [read(e) for e in Generator(address, [REQUEST] * 3, concurrency=2).run()]
    assert {r.kind for r in replies} == {"refused"}


def test_ctrl_c_closes_every_socket():
    def stop(_line):
        raise KeyboardInterrupt

    go_on = threading.Event()
    with Server(lambda *_: go_on.wait(20)) as server:
        generator = Generator(server.address, [REQUEST] * 2, concurrency=2, announce=stop)
        with pytest.raises(KeyboardInterrupt):
            generator.run()
        go_on.set()
    assert generator._selector.get_map() is None


def test_an_open_loop_sends_when_it_was_to_be_sent():
    offsets = [0, 30_000_000, 60_000_000, 61_000_000]
    with Server(right) as server:
        replies = [read(e, 3) for e in Generator(server.address, [REQUEST] * 4, concurrency=4, offsets=offsets).run()]
    assert [r.intended - replies[0].intended for r in replies] == offsets
    assert all(r.sent >= r.intended for r in replies)


def test_an_open_loop_that_may_not_send_shows_the_wait_from_the_intended_time():
    def slow(_number, handler):
        time.sleep(0.05)
        handler.wfile.write(ANSWER)

    shape = Shape(4, 1, 1, 3, rate=1000.0)
    with Server(slow) as server:
        generator = Generator(server.address, [REQUEST] * 4, concurrency=1, offsets=[0, 0, 0, 0])
        found = result.result_of(shape, [read(e, 3) for e in generator.run()], generator.watch)
    assert found.spreads["ttft_intended"].largest > 2.5 * found.spreads["ttft"].mean


@pytest.mark.parametrize("rate", [0.0, -1.0, float("inf"), float("nan")])
def test_a_rate_that_cannot_be_sent(rate):
    with pytest.raises(ValueError, match="requests a second above 0"):
        poisson(10, rate, 0)


def test_poisson_times_are_seeded_and_have_the_rate():
    times = poisson(4000, 50.0, 1)
    assert times == poisson(4000, 50.0, 1) != poisson(4000, 50.0, 2)
    assert times[0] == 0
    assert all(b >= a for a, b in itertools.pairwise(times))
    assert times[-1] / SECOND == pytest.approx(3999 / 50.0, rel=5 / 4000**0.5)


@pytest.mark.parametrize(("concurrency", "offsets"), [(0, None), (1, [0])])
def test_a_generator_that_cannot_be(concurrency, offsets):
    with pytest.raises(ValueError, match=r"at least one|1 times for 2"):
        Generator(Address("127.0.0.1", 1), [REQUEST] * 2, concurrency=concurrency, offsets=offsets)


# ---------------------------------------------------------------- requests

SHAPE = Shape(requests=5, concurrency=2, input_len=16, output_len=3)


def bodies(shape, **more):
    return [json.loads(r.partition(b"\r\n\r\n")[2]) for r in requests_of(shape, "m", Address("h", 80), "", **more)]


def test_prompts_are_of_the_length_all_different_and_seeded():
    found = bodies(SHAPE)
    assert {len(body["prompt"]) for body in found} == {16}
    assert len({tuple(body["prompt"]) for body in found}) == 5
    assert found == bodies(SHAPE)
    assert found != bodies(Shape(5, 2, 16, 3, seed=1))
    assert not {tuple(b["prompt"]) for b in bodies(SHAPE, first=5)} & {tuple(b["prompt"]) for b in found}
    assert {(b["max_tokens"], b["ignore_eos"], b["stream"]) for b in found} == {(3, True, True)}


def test_a_chat_has_words(monkeypatch):
    monkeypatch.setenv("NPUCONF_API_KEY", "secret")
    [request] = requests_of(Shape(1, 1, 16, 3, route="chat"), "m", Address("h", 80), "/team")
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /team/v1/chat/completions HTTP/1.1\r\nHost: h:80\r\n")
    assert b"Authorization: Bearer secret" in head
    assert len(json.loads(body)["messages"][0]["content"].split()) == 16


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://h:8000", (Address("h", 8000), "")),
        ("http://h:8000/v1/", (Address("h", 8000), "")),
        ("https://h/team/v1", (Address("h", 443, True), "/team")),
    ],
)
def test_where_a_url_points(url, found):
    assert address_of(url) == found


@pytest.mark.parametrize("url", ["h:8000", "ftp://h", "http://", "http://me:word@h", "http://h:99999", "http://h?a=b"])
def test_what_is_no_url(url):
    with pytest.raises(SettingsError, match=r"is no URL|Port out of range"):
        address_of(url)


# ---------------------------------------------------------------- results


def reply(number, *, sent=0.0, first=0.1, last=0.4, tokens=4, **more):
    first_ns, last_ns = (int((sent + t) * SECOND) for t in (first, last))
    arrivals = (first_ns, (first_ns + last_ns) // 2, last_ns)
    return Reply(number, int(sent * SECOND), int(sent * SECOND), last_ns, arrivals, tokens, 5, **more)


def test_what_is_aggregated():
    found = result.result_of(Shape(10, 2, 16, 3), [reply(i, sent=i * 0.4) for i in range(10)], Watch())
    assert found.spreads["ttft"].mean == pytest.approx(0.1)
    assert found.spreads["tpot"].mean == pytest.approx(0.1)
    assert found.spreads["itl"].n == 20
    told = found.to_json()["aggregates"]
    assert told["itl"]["mean_interval"] is told["itl"]["p50"]["interval"] is None, (
        "gaps of a request are not independent"
    )
    assert told["ttft"]["mean_interval"] is not None
    assert found.throughput == pytest.approx(10.0)
    assert found.to_json()["aggregates"]["amortised_ms_per_token"] == pytest.approx(100.0)
    assert found.delivered == pytest.approx(1.0)
    assert "1.0 requests were under way on average, 2 were asked for" in found.doubts[0]
    assert (found.verdict, found.failures) == ("inconclusive", {})


def test_tokens_of_the_first_chunk_take_no_time_between_them():
    found = result.result_of(SHAPE, [reply(0, first_tokens=3, first_told=True)], Watch())
    assert found.spreads["tpot"].mean == pytest.approx(0.3)
    assert "tpot" not in result.result_of(SHAPE, [reply(0, first_tokens=4)], Watch()).spreads


def test_a_failure_is_in_no_latency_and_in_the_verdict():
    lost = Reply(1, 0, 0, 100 * SECOND, kind="timeout", trouble="silence")
    found = result.result_of(SHAPE, [reply(0), lost], Watch())
    assert (found.verdict, found.failures, found.spreads["latency"].largest) == ("failed", {"timeout": 1}, 0.4)


def test_nothing_was_answered():
    found = result.result_of(SHAPE, [Reply(0, 0, 0, 1, kind="refused")], Watch())
    assert (found.verdict, found.throughput, found.spreads) == ("failed", None, {})
    assert json.dumps(found.to_json())


@pytest.mark.parametrize(
    ("watch", "said"),
    [(Watch(busy_ns=5_000_000), "busy for 5.0 ms"), (Watch(cpu_seconds=9.0, wall_seconds=10.0), "took 90% of a core")],
)
def test_a_client_that_limits_is_said(watch, said):
    found = result.result_of(Shape(1, 1, 1, 4), [reply(0)], watch)
    assert found.verdict == "inconclusive"
    assert said in found.doubts[0]


def test_a_percentile_with_too_few_requests_says_how_many_it_needs():
    told = result.result_of(SHAPE, [reply(i) for i in range(367)], Watch()).to_json()["aggregates"]["ttft"]
    assert "p99" not in told
    assert told["missing"]["p99"] == "368 requests, 367 were measured"
    told = result.result_of(SHAPE, [reply(i) for i in range(368)], Watch()).to_json()["aggregates"]["ttft"]
    assert told["p99"]["interval"] is not None


@pytest.mark.parametrize(
    "wrong", [{"requests": 0}, {"concurrency": 0}, {"input_len": 0}, {"output_len": 0}, {"rate": 0.0}, {"warmup": -1}]
)
def test_a_shape_that_asks_for_nothing(wrong):
    shape = {"requests": 1, "concurrency": 1, "input_len": 1, "output_len": 1, **wrong}
    with pytest.raises(SettingsError, match="--" + next(iter(wrong)).replace("_", "-")):
        load("http://127.0.0.1:1", "m", Shape(**shape))


# ---------------------------------------------------------------- the truth


def test_a_known_server_is_measured():
    """Bounds as wide as a busy machine needs; the figures are in docs/load.md, from ``make load-bias``."""
    truth = Truth(ttft=20.0, itl=2.0)
    with truth_server(truth) as url:
        bias, found = measure(url, truth, Shape(12, 4, 8, 16))
    assert found.failures == {}
    assert {r.tokens for r in found.replies} == {16}
    assert {r.prompt_tokens for r in found.replies} == {8}
    assert bias.ttft > -1.0
    assert min(r.arrivals[0] - r.sent for r in found.replies) >= 20 * 1_000_000
    assert 0 < bias.rate < 1.1


def test_doubts_of_a_bias():
    assert Bias(0.5, 0.5, 0.995, 0.1, 0).doubts == []
    assert len(Bias(3.0, -3.0, 0.9, 0.1, 1).doubts) == 4
    assert "too busy to tell" in Bias(9.0, 9.0, 0.1, 5.0, 0).doubts[0]


def test_the_truth_server_ends_with_its_block():
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(truth_server(Truth()))
        port = int(url.rpartition(":")[2])
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


# ---------------------------------------------------------------- the command


def told(capsys, *words):
    status = main(["load", *map(str, words)])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_the_command_measures_and_writes(capsys, tmp_path):
    with truth_server(Truth(10.0, 1.0)) as url:
        status, out, err = told(capsys, "--endpoint", url, "--model", "truth", "--requests", 8, "--concurrency", 2,
                                "--output-len", 8, "--json", tmp_path / "load.json", "--openmetrics", tmp_path / "load.txt",
                                "--bencher", tmp_path / "bencher.json")  # fmt: skip
    kept = json.loads((tmp_path / "load.json").read_text())
    assert status == {"valid": 0, "inconclusive": 3}[kept["verdict"]]
    assert out.splitlines()[-2] == kept["verdict"].upper()
    assert "measuring this client" in err
    assert len(kept["requests"]) == 8
    assert kept["aggregates"]["ttft"]["mean"] >= 10.0
    assert kept["self_check"]["truth_late"] >= 0.0
    assert "p99: needs 368 requests, 8 were measured" in out
    assert (tmp_path / "load.txt").read_text().endswith("# EOF\n")
    assert json.loads((tmp_path / "bencher.json").read_text())


def test_a_server_that_fails_is_exit_1_and_says_why(capsys):
    def say(number, handler):
        broken = b"HTTP/1.1 500 No\r\nContent-Length: 3\r\n\r\nbad"
        handler.wfile.write(ANSWER if number == 0 else broken)

    with Server(say) as server:
        url = f"http://127.0.0.1:{server.server_address[1]}"
        status, out, _ = told(
            capsys, "--endpoint", url, "--model", "m", "--requests", 3, "--output-len", 3, "--no-self-check"
        )
    assert status == 1
    assert "3 failed: status" in out
    assert "first: request 0: 500: 'bad'" in out
    assert out.splitlines()[-1] == "FAILED"


def test_a_key_that_no_header_carries_is_refused(monkeypatch):
    monkeypatch.setenv("NPUCONF_API_KEY", "secret\r\nX-Other: 1")
    with pytest.raises(SettingsError, match="no HTTP header can carry") as caught:
        bodies(SHAPE)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--requests", "2", "--against", "http://h:1", "--bencher", "f"), "--against is several runs"),
        (("--requests", "2", "--sweep", "1,2", "--openmetrics", "f"), "--sweep is several runs"),
        (("--requests", "2", "--sweep", "1,2", "--against", "http://h:1"), "--against with --sweep"),
        (("--requests", "2", "--sweep", "1,2", "--rate", "1"), "--sweep with --rate"),
        (("--requests", "2", "--sweep", "2,1"), "two or more growing numbers"),
        (("--requests", "2", "--sweep", "1,x"), "two or more growing numbers"),
        (("--requests", "2", "--sweep", "1"), "two or more growing numbers"),
        (("--requests", "2", "--slo-ttft-ms", "5"), "are of --sweep"),
        (("--requests", "2", "--sweep", "1,2", "--slo-tpot-ms", "0"), "--slo-tpot-ms 0: must be above 0"),
        (("--requests", "0"), "--requests 0: must be at least 1"),
        (("--requests", "2", "--rate", "0"), "--rate 0: must be requests a second above 0"),
        (("--requests", "2", "--endpoint", "h:1"), "'h:1' is no URL of a server"),
        (("--requests", "2", "--no-self-check"), "1 of 1 warm-up requests failed, the first: refused"),
    ],
)
def test_a_wrong_command_is_one_error(capsys, words, said):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    status, out, err = told(capsys, "--endpoint", f"http://127.0.0.1:{port}", "--model", "m", "--no-self-check", *words)
    assert status == 1
    assert said in err
    assert "  mend: " in err
    assert out == ""


# ---------------------------------------------------------------- what the server says itself

METRICS = """# HELP vllm:time_to_first_token_seconds ...
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.1"} 3.0
vllm:time_to_first_token_seconds_count{engine="0",model_name="m"} 4.0
vllm:time_to_first_token_seconds_sum{engine="0",model_name="m"} 0.5
vllm:time_to_first_token_seconds_count{engine="1",model_name="m"} 1.0
vllm:time_to_first_token_seconds_sum{engine="1",model_name="m"} 0.25
vllm:request_queue_time_seconds_count 5
vllm:request_queue_time_seconds_sum 1e-2
"""


def later(text, count, total):
    return text.replace('_count{engine="0",model_name="m"} 4.0', f'_count{{engine="0"}} {count}').replace(
        '_sum{engine="0",model_name="m"} 0.5', f'_sum{{engine="0"}} {total}'
    )


def test_what_happened_between_two_readings():
    before, after = server_metrics.parse(METRICS), server_metrics.parse(later(METRICS, 14, 1.5))
    found = server_metrics.between(before, after)
    assert found == server_metrics.ServerSide(10, {"ttft": pytest.approx(100.0)})
    assert found.to_json({"ttft": 103.0, "tpot": 1.0})["outside"] == {"ttft": pytest.approx(3.0)}
    assert found.doubts(10) == []
    assert "10 requests meanwhile, 8 of them ours" in found.doubts(8)[0]


@pytest.mark.parametrize("text", ["", "up 1", "vllm:time_to_first_token_seconds_count 3"])
def test_what_are_no_metrics_of_vllm(text):
    assert server_metrics.parse(text) is None


def test_a_reading_that_is_missing_or_went_back_says_nothing():
    here, anew = server_metrics.parse(METRICS), server_metrics.parse(later(METRICS, 1, 0.1))
    assert server_metrics.between(None, here) is None
    assert server_metrics.between(here, None) is None
    assert server_metrics.between(here, anew) is None
    assert server_metrics.between(here, here) is None


def test_a_server_without_metrics_is_measured_all_the_same():
    with truth_server(Truth(2.0, 1.0)) as url:
        assert server_metrics.read(url) is None
        assert load(url, "truth", Shape(2, 1, 4, 4)).server is None
    assert server_metrics.read("http://127.0.0.1:9") is None


# ---------------------------------------------------------------- other tools


@pytest.fixture
def measured():
    found = result.result_of(Shape(400, 2, 16, 3), [reply(i, sent=i * 0.4) for i in range(400)], Watch())
    return {**found.to_json(), "model": 'a "model"'}


def test_openmetrics_has_each_figure_in_seconds_and_an_end(measured):
    lines = exports.as_openmetrics(measured).splitlines()
    assert lines[-1] == "# EOF"
    samples = dict(re.fullmatch(r"(\S+\{.*\}) (\S+)", line).groups() for line in lines if not line.startswith("#"))
    labels = r'model="a \"model\"",concurrency="2",input_len="16",output_len="3",loop="closed",verdict="inconclusive"'
    assert float(samples[f'npuconf_ttft_seconds{{{labels},stat="mean"}}']) == pytest.approx(0.1)
    assert float(samples[f'npuconf_ttft_seconds{{{labels},stat="p99"}}']) == pytest.approx(0.1)
    assert samples[f'npuconf_failed_requests{{{labels},kind="none"}}'] == "0.0"
    families = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(families) == len(set(families))


def test_bencher_has_values_with_their_ends(measured):
    [(name, measures)] = json.loads(exports.as_bencher(measured)).items()
    assert name == 'a "model", 2 at once, 16 in, 3 out'
    assert measures["ttft_ms"]["lower_value"] <= measures["ttft_ms"]["value"] <= measures["ttft_ms"]["upper_value"]
    assert "lower_value" not in measures["itl_ms"]
    assert measures["failed_requests"] == {"value": 0}


def test_what_was_not_measured_is_not_exported():
    lost = {**result.result_of(SHAPE, [Reply(0, 0, 0, 1, kind="refused")], Watch()).to_json(), "model": "m"}
    assert "npuconf_ttft" not in exports.as_openmetrics(lost)
    assert 'kind="refused"} 1.0' in exports.as_openmetrics(lost)
    assert json.loads(exports.as_bencher(lost)) == {"m, 2 at once, 16 in, 3 out": {"failed_requests": {"value": 1}}}


# ---------------------------------------------------------------- two servers


def compared(capsys, a, b, *more):
    shape = ("--requests", 3, "--concurrency", 1, "--output-len", 8, "--input-len", 4, "--no-self-check", "--blocks", 6)
    return told(capsys, "--endpoint", a, "--against", b, "--model", "truth", *shape, *more)


def test_a_server_that_takes_three_times_as_long_is_worse(capsys, tmp_path):
    """Far enough apart for a busy machine; ten per cent are shown by simulation in tests/property."""
    with truth_server(Truth(10.0, 1.0)) as a, truth_server(Truth(30.0, 3.0)) as b:
        status, out, err = compared(capsys, a, b, "--margin", "1.5", "--json", tmp_path / "found.json")
    kept = json.loads((tmp_path / "found.json").read_text())
    assert kept["standing"] == "worse"
    assert status == (3 if kept["doubts"] else 1)
    assert {name: one["standing"] for name, one in kept["figures"].items()}["latency_ms"] == "worse"
    assert kept["figures"]["ttft_ms"]["slowdown"] == pytest.approx(3.0, rel=0.3)
    assert kept["order"] == "ABBABAAB" * 3
    assert "A against A, round 1 of 24: A" in err
    assert "B is WORSE than A" in out


def test_a_second_server_that_fails_is_an_error(capsys):
    def say(_number, handler):
        handler.wfile.write(b"HTTP/1.1 500 No\r\nContent-Length: 3\r\n\r\nbad")

    with truth_server(Truth(5.0, 1.0)) as a, Server(say) as broken:
        # on a busy host A differs from itself: that is not what is asked here
        more = ("--warmup", 0, "--margin", 0.9)
        status, _, err = compared(capsys, a, f"http://127.0.0.1:{broken.server_address[1]}", *more)
    assert status == 1
    assert "in round 2, the first: status: 500" in err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--blocks", 5), "--blocks 5: at least 6"),
        (("--margin", 0), "--margin 0: must be a share above 0 and below 10"),
        (("--margin", 20), "--margin 20: must be a share above 0 and below 10"),
    ],
)
def test_a_comparison_that_cannot_be(capsys, more, said):
    status, _, err = compared(capsys, "http://127.0.0.1:1", "http://127.0.0.1:2", *more)
    assert status == 1
    assert said in err


def test_a_server_that_differs_from_itself_by_more_than_matters_is_said(monkeypatch):
    draw = np.random.default_rng(0)

    def noisy(_url, _model, shape, **_):
        seconds = float(np.exp(draw.normal(0, 0.5)))
        return result.result_of(
            shape, [reply(i, sent=i * seconds, first=seconds / 4, last=seconds) for i in range(3)], Watch()
        )

    asked = []
    monkeypatch.setattr(compare, "load", lambda url, *more, **named: asked.append(url) or noisy(url, *more, **named))
    with pytest.raises(SettingsError, match="A differs from itself by") as caught:
        compare.compare("a", "b", ("m", "m"), Shape(3, 1, 4, 4), blocks=6)
    assert set(asked) == {"a"}, "before B is asked anything"
    assert "--blocks" in caught.value.mend
