"""The proxy of the serving faults against a real server: what goes through, what breaks, what is left when it is closed."""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import socket
import threading
import time
import urllib.parse

import pytest

from pytest_npuconf.faults.proxy import Proxy
from tests.small_server import SmallServer


@pytest.fixture
def server():
    with SmallServer() as running:
        yield running


@pytest.fixture
def proxy(server, capfd):
    before = threading.active_count()
    with Proxy(server.url) as running:
        yield running
    until(lambda: threading.active_count() <= before)
    assert "Traceback" not in capfd.readouterr().err
    assert running.errors == []


def until(done, seconds=5.0):
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def connect(url):
    return http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=10)


def ask(url, method="GET", path="/", body=None, headers=None):
    connection = connect(url)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


def broken(proxy):
    """A rule in each list that would change whatever it sees."""
    proxy.answers.append(lambda _, answer: answer.clear())
    proxy.events.append(lambda *_: iter(()))


# ---------------------------------------------------------------- what goes through


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"])
def test_every_method_path_and_header(server, proxy, method):
    body = None if method in ("GET", "HEAD") else b"\x00\xff not JSON"
    headers = {"X-Mine": "yes, mine"}
    direct = ask(server.url, method, "/plain/a?b=%20c&d", body, headers)
    through = ask(proxy.url, method, "/plain/a?b=%20c&d", body, headers)
    assert through[0] == direct[0] == 200
    assert through[2] == direct[2]
    for name in ("X-Seen", "Retry-After", "Content-Length", "Server"):
        assert through[1].get(name) == direct[1].get(name)
    assert json.loads(through[1]["X-Seen"])[:3] == [method, "/plain/a?b=%20c&d", "yes, mine"]


@pytest.mark.parametrize("status", [204, 304, 404, 429, 500, 503])
def test_every_status_and_no_rule_touches_it(proxy, status):
    broken(proxy)
    body = b'{"error": {"message": "busy"}}'
    found = ask(proxy.url, "POST", "/plain", body, {"X-Status": str(status)})
    assert found[0] == status
    assert found[1]["Retry-After"] == "7"
    assert found[2] == (b"" if status in (204, 304) else body)


def test_large_and_chunked_bodies_both_ways(proxy):
    large = bytes(range(256)) * 20_000
    assert ask(proxy.url, "POST", "/plain", large)[2] == large
    pieces = iter([b"a" * 70_000, b"b", b"c" * 300_000])
    assert ask(proxy.url, "POST", "/plain", pieces)[2] == b"a" * 70_000 + b"b" + b"c" * 300_000
    assert ask(proxy.url, path="/chunked")[2] == b"x" * 500_000


def test_a_body_that_no_rule_changes_is_sent_byte_for_byte(proxy):
    proxy.requests.append(lambda _: None)
    body = b'{ "prompt" : "\\u65e5",  "x":1.50 }'
    assert ask(proxy.url, "POST", "/plain", body)[2] == body


def test_a_connection_is_kept(proxy):
    connection = connect(proxy.url)
    sockets = set()
    for _ in range(3):
        connection.request("POST", "/plain", b"x")
        assert connection.getresponse().read() == b"x"
        sockets.add(connection.sock.getsockname())
    connection.close()
    assert len(sockets) == 1


def test_many_at_once(proxy):
    beside = []
    proxy.requests.append(lambda call: beside.append(call.beside))
    bodies = [json.dumps({"prompt": f"p{i} q", "seconds": 0.1}).encode() for i in range(64)]
    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        found = list(pool.map(lambda b: json.loads(ask(proxy.url, "POST", "/v1/completions", b)[2]), bodies))
    assert [one["choices"][0]["text"] for one in found] == [f"q p{i} " for i in range(64)]
    assert max(beside) > 1
    assert min(beside) == 0
    assert proxy.asking == 0


# ---------------------------------------------------------------- streams


@pytest.mark.parametrize("ruled", [False, True])
def test_events_come_one_by_one(server, proxy, ruled):
    if ruled:
        proxy.events.append(lambda _, events: ({**event, "more": 1} for event in events))
    connection = connect(proxy.url)
    connection.request("POST", "/v1/completions", b'{"prompt": "two one", "stream": true, "hold": true}')
    response = connection.getresponse()
    assert response.getheader("Content-Type") == "text/event-stream"
    assert response.readline() == b": a comment\n"
    response.readline()
    event = response.readline()  # the server has not said "two" yet, and waits
    assert b"one" in event
    assert (b'"more":1' in event) == ruled
    server.go_on.set()
    rest = response.read()
    assert b"two" in rest
    assert rest.endswith(b"data: [DONE]\n\n")
    connection.close()


def test_rules_see_the_events_of_what_was_asked(proxy):
    def turned(_, events):
        for event in events:
            for choice in event["choices"]:
                choice["text"] = choice["text"].upper()
            yield event

    proxy.events.append(turned)
    body = json.dumps({"prompt": "a b", "stream": True}).encode()
    said = ask(proxy.url, "POST", "/v1/completions", body)[2].decode()
    assert said.index('"B "') < said.index('"A "') < said.index("usage") < said.index("[DONE]")


def test_a_stream_that_breaks_off_breaks_off_for_the_client(server, proxy):
    connection = connect(proxy.url)
    connection.request("GET", "/cut-stream")
    response = connection.getresponse()
    server.go_on.set()
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        response.read()
    connection.close()


def test_a_client_that_goes_away_in_a_stream_is_told_to_the_server(server, proxy):
    connection = connect(proxy.url)
    connection.request("GET", "/slow-stream", headers={"X-Endless": "1"})
    response = connection.getresponse()
    response.readline()
    server.go_on.set()
    response.close()
    connection.close()
    until(lambda: "client gone" in server.told)
    assert ask(proxy.url, "POST", "/plain", b"x")[2] == b"x"


def test_a_client_that_does_not_wait_is_told_to_the_server(server, proxy):
    connection = connect(proxy.url)
    connection.request("POST", "/wait", b"{}")
    time.sleep(0.2)
    assert server.told == []
    connection.close()
    until(lambda: "client gone" in server.told)


# ---------------------------------------------------------------- what goes wrong


def test_a_server_that_is_gone_is_said():
    with SmallServer() as server, Proxy(server.url) as proxy:
        assert ask(proxy.url, "POST", "/plain", b"x")[0] == 200
        server.shutdown()
        server.server_close()
        status, _, text = ask(proxy.url, "POST", "/plain", b"x")
        assert status == 502
        assert f"{server.url} is gone" in json.loads(text)["error"]["message"]


def test_a_rule_that_fails_is_said_and_kept(server):
    with Proxy(server.url) as proxy:
        proxy.requests.append(lambda call: call.ask("/nothing", {}))
        status, _, text = ask(proxy.url, "POST", "/v1/completions", b'{"prompt": "a"}')
        assert status == 502
        assert "a fault could not act" in text.decode()
        proxy.requests.clear()
        proxy.answers.append(lambda _, answer: answer["no such key"])
        assert ask(proxy.url, "POST", "/v1/completions", b'{"prompt": "a"}')[0] == 502
    assert [("/nothing" in said, "no such key" in said) for said in proxy.errors] == [(True, False), (False, True)]


def test_a_body_shorter_than_it_says_is_no_traceback(proxy):
    with socket.create_connection(urllib.parse.urlsplit(proxy.url).netloc.split(":"), timeout=5) as client:
        client.sendall(b"POST /plain HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100).startswith(b"HTTP/1.1 400")


def test_a_lost_request_has_no_answer_and_does_not_reach_the_server(server, proxy):
    proxy.lose.append(lambda call: call.number == 2)
    assert ask(proxy.url, "POST", "/v1/completions", b'{"prompt": "a"}')[0] == 200
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
        ask(proxy.url, "POST", "/v1/completions", b'{"prompt": "a"}')
    assert ask(proxy.url, "POST", "/v1/completions", b'{"prompt": "a"}')[0] == 200
    assert server.count == 2


# ---------------------------------------------------------------- the end


def test_nothing_is_left_when_it_is_closed(server):
    before = set(threading.enumerate())
    proxy = Proxy(server.url).start()
    idle, busy, waiting = connect(proxy.url), connect(proxy.url), connect(proxy.url)
    idle.request("POST", "/plain", b"x")
    assert idle.getresponse().read() == b"x"
    busy.request("GET", "/slow-stream")
    busy.getresponse().readline()
    waiting.request("POST", "/wait", b"{}")
    time.sleep(0.1)
    start = time.monotonic()
    proxy.close()
    proxy.close()
    assert time.monotonic() - start < 4
    assert not [t for t in set(threading.enumerate()) - before if t.name.startswith("npuconf-proxy")]
    with pytest.raises(ConnectionRefusedError):
        ask(proxy.url)
    for one in (idle, busy, waiting):
        one.close()


def test_one_that_was_never_started_gives_its_port_back(server):
    proxy = Proxy(server.url)
    proxy.close()
    with pytest.raises(ConnectionRefusedError):
        ask(proxy.url)
