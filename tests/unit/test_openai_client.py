"""The client against small real servers on sockets, each with one way of answering wrongly."""

import contextlib
import gzip
import json
import pickle
import socket
import subprocess
import sys
import threading
import time

import pytest

from pytest_npuconf.engines import sse
from pytest_npuconf.engines.openai_client import Client
from pytest_npuconf.engines.server_process import free_port
from pytest_npuconf.errors import ServerError, SettingsError

MODELS = {"object": "list", "data": [{"id": "tiny-qwen3", "max_model_len": 1024}, {"id": "adapter"}]}
TEXT = "猫 and 🙂 é"
EVENTS = [{"choices": [{"text": TEXT}]}, {"choices": []}]
ROUTE = "/v1/completions"


class Server:
    """Answers each connection with ``answer(connection, request)``: raw bytes, so that anything can be said."""

    def __init__(self, answer):
        self.answer = answer
        self.requests = []
        self.open = self.peak = 0
        self._lock = threading.Lock()
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.stopped = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self):
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection):
        with connection, contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            request = read_request(connection)
            with self._lock:
                self.requests.append(request)
                self.open += 1
                self.peak = max(self.peak, self.open)
            try:
                self.answer(connection, request)
            finally:
                with self._lock:
                    self.open -= 1

    def close(self):
        self.stopped.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()


def receive(connection):
    data = connection.recv(65536)
    if not data:
        raise ConnectionError("the client is gone")
    return data


def read_request(connection):
    data = b""
    while b"\r\n\r\n" not in data:
        data += receive(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:])}
    while len(body) < int(headers.get("content-length", 0)):
        body += receive(connection)
    method, path, _ = lines[0].split(" ")
    return {"method": method, "path": path, "headers": headers, "body": json.loads(body) if body else None}


def http(status, body=b"", *, kind="application/json", length=None, more=()):
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    size = len(body) if length is None else length
    lines = [f"HTTP/1.1 {status} X", f"Content-Type: {kind}", f"Content-Length: {size}", "Connection: close", *more]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunked(parts, *, end=True):
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    return [head, *(b"%x\r\n%s\r\n" % (len(part), part) for part in parts), *([b"0\r\n\r\n"] if end else [])]


def events(*items, done=True):
    text = "".join(f"data: {json.dumps(item, ensure_ascii=False)}\n\n" for item in items)
    return (text + ("data: [DONE]\n\n" if done else "")).encode()


@pytest.fixture
def serve():
    """A server that sends the given bytes (or list of packets, or what a function of the request gives)."""
    with contextlib.ExitStack() as stack:

        def start(answer):
            def send(connection, request):
                found = answer(request) if callable(answer) else answer
                for packet in [found] if isinstance(found, bytes) else found:
                    connection.sendall(packet)

            server = Server(send)
            stack.callback(server.close)
            return server

        yield start


@pytest.fixture
def client_of():
    with contextlib.ExitStack() as stack:
        yield lambda url, **more: stack.enter_context(Client(url, **{"timeout": 10.0, **more}))


def failure(call, kind, *words):
    with pytest.raises(ServerError) as caught:
        call()
    error = caught.value
    assert error.kind == kind, error
    assert error.mend
    for word in words:
        assert word in str(error)
    return error


class TestAnswers:
    def test_post_sends_the_body_and_gives_the_object(self, serve, client_of):
        server = serve(http(200, {"text": TEXT}))
        assert client_of(server.url).post(ROUTE, {"prompt": TEXT, "n": 1}) == {"text": TEXT}
        [request] = server.requests
        assert (request["method"], request["path"], request["body"]) == ("POST", ROUTE, {"prompt": TEXT, "n": 1})
        assert request["headers"]["connection"] == "close"

    @pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
    def test_the_url_may_end_in_v1(self, serve, client_of, suffix):
        server = serve(http(200, MODELS))
        client = client_of(server.url + suffix)
        assert (client.models(), client.max_model_len("tiny-qwen3")) == (["tiny-qwen3", "adapter"], 1024)
        assert {request["path"] for request in server.requests} == {"/v1/models"}

    def test_a_path_before_v1_is_kept(self, serve, client_of):
        server = serve(http(200, {}))
        client_of(f"{server.url}/team/v1").post(ROUTE, {})
        assert server.requests[0]["path"] == f"/team{ROUTE}"

    def test_a_server_may_keep_its_context_length_to_itself(self, serve, client_of):
        assert client_of(serve(http(200, {"data": [{"id": "m"}]})).url).max_model_len("m") is None

    @pytest.mark.parametrize("status", [200, 204, 302, 404, 500])
    def test_status_never_raises_for_a_status(self, serve, client_of, status):
        server = serve(http(status))
        assert client_of(server.url).status("DELETE", "/x") == status
        assert server.requests[0]["method"] == "DELETE"

    def test_status_does_not_wait_for_the_body(self, serve, client_of):
        server = serve(http(200, b"never whole", length=1000))
        assert client_of(server.url).status("POST", ROUTE, {"stream": True}) == 200

    def test_no_proxy_to_this_machine(self, serve, client_of, monkeypatch):
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
        assert client_of(serve(http(200, {})).url).get("/x") == {}


class TestKey:
    def test_the_key_goes_as_a_bearer_token_and_into_no_message(self, serve, client_of, monkeypatch):
        monkeypatch.setenv("NPUCONF_API_KEY", "from-the-environment")
        server = serve(http(401, {"error": {"message": "no"}}))
        for more, expected in (({"key": "secret"}, "secret"), ({}, "from-the-environment")):
            error = failure(lambda more=more: client_of(server.url, **more).get("/x"), "status", "NPUCONF_API_KEY")
            assert server.requests[-1]["headers"]["authorization"] == f"Bearer {expected}"
            assert expected not in str(error)

    def test_no_key_no_header(self, serve, client_of, monkeypatch):
        monkeypatch.delenv("NPUCONF_API_KEY", raising=False)
        server = serve(http(200, {}))
        client_of(server.url).get("/x")
        assert "authorization" not in server.requests[0]["headers"]

    @pytest.mark.parametrize("key", ["line\nend", "schlüssel"])
    def test_a_key_that_no_header_carries(self, key):
        with pytest.raises(SettingsError, match="no HTTP header can carry") as caught:
            Client("http://localhost:1", key=key)
        assert key not in str(caught.value)

    def test_a_password_in_the_url_is_in_no_message(self, client_of):
        error = failure(client_of(f"http://me:secret@127.0.0.1:{free_port()}").models, "refused")
        assert "secret" not in str(error)


@pytest.mark.parametrize(
    "url",
    ["", "localhost:8000", "ftp://x", "http://", "http://x:99999", "http://x:port", "http://x?a=1", "http://[::1"],
)
def test_a_url_that_is_none(url):
    with pytest.raises(SettingsError, match="the endpoint"):
        Client(url)


class TestNobody:
    def test_nobody_listens(self, client_of):
        url = f"http://127.0.0.1:{free_port()}"
        error = failure(client_of(url).models, "refused", url, "/v1/models", "Connection refused", "start the server")
        assert (error.status, error.route) == (None, "/v1/models")

    def test_an_unknown_host(self, client_of):
        failure(client_of("http://no-such-host.invalid").models, "refused", "no-such-host.invalid")

    @pytest.mark.parametrize(
        ("said", "kind", "words"),
        [
            (b"SSH-2.0-OpenSSH_9.2\r\n", "closed", "no HTTP server's"),
            (b"-ERR unknown command\r\n\r\n", "not-openai", "speaks no HTTP"),
        ],
        ids=["ssh", "redis"],
    )
    def test_what_listens_speaks_no_http(self, serve, client_of, said, kind, words):
        failure(client_of(serve(said).url).models, kind, words)

    def test_it_closes_without_a_word(self, serve, client_of):
        failure(lambda: client_of(serve(b"").url).post(ROUTE, {}), "closed", "log")

    def test_https_asked_of_http(self, serve, client_of):
        server = serve(http(200, MODELS))
        client = client_of(server.url.replace("http", "https"), timeout=1.0)
        with pytest.raises(ServerError) as caught:
            client.models()
        assert caught.value.kind in ("refused", "timeout")  # the server waits for the end of what is no HTTP head


class TestOtherServers:
    PAGE = http(200, b"<!DOCTYPE html><html>hello</html>", kind="text/html")

    def test_a_web_page_for_models(self, serve, client_of):
        error = failure(client_of(serve(self.PAGE).url).models, "not-openai", "no OpenAI-compatible", "<html>hello")
        assert error.status == 200

    def test_a_web_page_for_an_answer(self, serve, client_of):
        failure(lambda: client_of(serve(self.PAGE).url).post(ROUTE, {}), "not-json", "a web page", "curl")

    def test_a_web_page_for_a_stream(self, serve, client_of):
        failure(lambda: client_of(serve(self.PAGE).url).stream(ROUTE, {}), "malformed-stream", "text/html", "curl")

    @pytest.mark.parametrize("status", [404, 405])
    def test_no_models_route(self, serve, client_of, status):
        failure(client_of(serve(http(status, {"detail": "Not Found"})).url).models, "not-openai", "Not Found")

    @pytest.mark.parametrize("body", [[], {}, {"data": None}, {"data": [1]}, {"data": [{}]}, "text", None, 3])
    def test_json_without_models(self, serve, client_of, body):
        failure(client_of(serve(http(200, body)).url).models, "not-openai", "no list of models")

    @pytest.mark.parametrize("body", [[1], "text", None, 3, True])
    def test_json_that_is_no_object(self, serve, client_of, body):
        failure(lambda: client_of(serve(http(200, body)).url).post(ROUTE, {}), "not-openai", json.dumps(body))

    @pytest.mark.parametrize(
        "body", [b"", b"{", b"[" * 200_000, b'{"n": ' + b"9" * 5000 + b"}"], ids=["none", "cut", "deep", "long"]
    )
    def test_no_json(self, serve, client_of, body):
        failure(lambda: client_of(serve(http(200, body)).url).get("/x"), "not-json", "no JSON")

    def test_bytes_that_are_no_utf8_stay_visible(self, serve, client_of):
        body = b'{"text": "caf\xe9"}'
        failure(lambda: client_of(serve(http(200, body)).url).get("/x"), "not-json", "byte 13 (0xe9)", r"caf\xe9")

    def test_damaged_compression(self, serve, client_of):
        body = bytearray(gzip.compress(b'{"a": 1}' * 50))
        body[12] ^= 0xFF
        server = serve(http(200, bytes(body), more=["Content-Encoding: gzip"]))
        failure(lambda: client_of(server.url).get("/x"), "not-json", "compression is damaged")

    def test_a_message_holds_300_characters_of_the_answer(self, serve, client_of):
        error = failure(lambda: client_of(serve(http(500, b"x" * 5000)).url).get("/x"), "status", "(5000 bytes)")
        assert "x" * 300 in str(error)
        assert "x" * 301 not in str(error)


class TestStatuses:
    @pytest.mark.parametrize(
        ("status", "mend"),
        [
            (400, "change what the answer names"),
            (403, "NPUCONF_API_KEY"),
            (429, "lower the concurrency"),
            (500, "log for the traceback"),
            (503, "lower the concurrency"),
            (599, "log for the traceback"),
        ],
    )
    def test_each_status_has_its_mend(self, serve, client_of, status, mend):
        server = serve(http(status, {"error": {"message": "reason"}}))
        for call in ("post", "stream"):
            error = failure(lambda call=call: getattr(client_of(server.url), call)(ROUTE, {}), "status", mend, "reason")
            assert (error.status, error.route) == (status, ROUTE)
            assert f"POST {server.url}{ROUTE}" in str(error)
        assert len(server.requests) == 2, "one request each: nothing is retried"

    def test_a_wrong_model_name_gives_the_served_names(self, serve, client_of):
        answer = {"error": {"message": "The model `tiny` does not exist.", "code": 404}}
        server = serve(lambda request: http(200, MODELS) if request["method"] == "GET" else http(404, answer))
        error = failure(
            lambda: client_of(server.url).post(ROUTE, {"model": "tiny-qwen"}), "status",
            "no model 'tiny-qwen'; did you mean 'tiny-qwen3'?", "tiny-qwen3, adapter", "--served-model-name tiny-qwen",
        )  # fmt: skip
        assert error.status == 404

    @pytest.mark.parametrize(
        ("route", "mode"),
        [(ROUTE, "generate"), ("/v1/embeddings", "pooling"), ("/score", "pooling"), ("/x", "openapi")],
    )
    def test_a_missing_route_names_the_mode_that_has_it(self, serve, client_of, route, mode):
        server = serve(lambda r: http(200, MODELS) if r["method"] == "GET" else http(404, {"detail": "Not Found"}))
        failure(lambda: client_of(server.url).post(route, {"model": "adapter"}), "status", mode, "Not Found")

    def test_a_missing_route_where_models_cannot_be_asked(self, serve, client_of):
        failure(lambda: client_of(serve(http(404)).url).post(ROUTE, {"model": "m"}), "status", "generate")

    def test_a_redirect_is_named_not_followed(self, serve, client_of):
        server = serve(http(307, more=["Location: https://elsewhere/v1"]))
        failure(lambda: client_of(server.url).post(ROUTE, {}), "status", "307", "https://elsewhere/v1")
        assert len(server.requests) == 1

    @pytest.mark.parametrize(
        ("answer", "status"),
        [
            ({"error": {"message": "engine died", "code": 500}}, 500),
            ({"error": "engine died"}, 200),
            ({"object": "error", "message": "engine died", "code": "400"}, 400),
        ],
    )
    def test_an_error_in_a_200_answer(self, serve, client_of, answer, status):
        assert failure(
            lambda: client_of(serve(http(200, answer)).url).post(ROUTE, {}), "status", "engine died"
        ).status == status  # fmt: skip

    def test_an_error_that_is_null_is_none(self, serve, client_of):
        assert client_of(serve(http(200, {"error": None, "id": 1})).url).post(ROUTE, {})["id"] == 1


class TestStreams:
    def stream(self, serve, client_of, packets, **more):
        return client_of(serve(packets).url, **more).stream(ROUTE, {"stream": True})

    def test_events_in_order_without_done(self, serve, client_of):
        assert self.stream(serve, client_of, chunked([events(*EVENTS)])) == EVENTS

    def test_split_at_any_byte(self, serve, client_of):
        body = events(*EVENTS)
        assert len(TEXT.encode()) > len(TEXT)
        packets = chunked([body[i : i + 1] for i in range(len(body))])
        assert self.stream(serve, client_of, packets) == EVENTS

    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
    def test_line_ends_comments_other_fields_and_several_data_lines(self, serve, client_of, end):
        lines = [
            ": ping",
            "event: x",
            "id: 1",
            'data: {"a":',
            "data: 1}",
            "",
            "",
            'data:{"b": 2}',
            "",
            "data: [DONE]",
            "",
            "",
        ]
        body = b"\xef\xbb\xbf" + end.join(lines).encode()
        assert self.stream(serve, client_of, chunked([body])) == [{"a": 1}, {"b": 2}]

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            (events(*EVENTS, done=False), "ends after 2 events without [DONE]"),
            (b"", "ends after 0 events without [DONE]"),
            (events({"a": 1}, done=False) + b'data: {"choi', "its last line is cut: 'data: {\"choi'"),
            (events({"a": 1}, done=False) + b'data: {"choi\n\ndata: [DONE]\n\n', "event 2 is no JSON"),
            (events({"a": 1}) + events({"b": 1}), "event 3 comes after [DONE]"),
            (events() + events(), "event 2 comes after [DONE]"),
            (b"data: [1]\n\ndata: [DONE]\n\n", "event 1 is JSON but no object: '[1]'"),
            (b'data: {"text": "caf\xe9"}\n\ndata: [DONE]\n\n', r"byte 13 (0xe9) is no UTF-8"),
            (b"data: \xff\xfe\n\n", r"\xff\xfe"),
            (b"data: [DONE]\n", "without [DONE]"),
        ],
    )
    def test_malformed(self, serve, client_of, body, words):
        error = failure(lambda: self.stream(serve, client_of, chunked([body])), "malformed-stream", words)
        assert error.status == 200

    def test_cut_in_the_middle(self, serve, client_of):
        packets = chunked([events({"a": 1}, {"b": 2}, done=False)], end=False)
        failure(lambda: self.stream(serve, client_of, packets), "malformed-stream", "cut after 2 events")

    def test_cut_in_the_middle_of_a_character(self, serve, client_of):
        body = events(EVENTS[0])
        packets = chunked([body[: body.index("🙂".encode()) + 2]], end=False)
        failure(lambda: self.stream(serve, client_of, packets), "malformed-stream", "cut after 0 events", r"\xf0\x9f")

    def test_an_error_event(self, serve, client_of):
        packets = chunked([events({"a": 1}, {"error": {"message": "engine died", "code": 500}})])
        assert failure(lambda: self.stream(serve, client_of, packets), "status", "engine died").status == 500

    def test_an_answer_that_is_no_stream(self, serve, client_of):
        call = lambda: self.stream(serve, client_of, http(200, {"choices": []}))  # noqa: E731
        failure(call, "malformed-stream", "no event stream but application/json", '"stream": true')


class TestTime:
    def test_silence(self, serve, client_of):
        done = threading.Event()
        server = serve(lambda _: done.wait(20) and b"")
        begin = time.monotonic()
        for call in (lambda c: c.post(ROUTE, {}), lambda c: c.stream(ROUTE, {}), lambda c: c.status("GET", "/x")):
            failure(lambda call=call: call(client_of(server.url, timeout=0.3)), "timeout", "silence")
        assert time.monotonic() - begin < 5
        done.set()

    @pytest.mark.parametrize("head", [b"", chunked([])[0]], ids=["in the head", "in the body"])
    def test_a_drip_ends_at_the_deadline(self, client_of, head):
        def drip(connection, _):
            connection.sendall(head or b"HTTP/1.1 200 OK\r\nX-Long: ")
            while not server.stopped.wait(0.05):
                connection.sendall(b"1\r\n:\r\n" if head else b"x")

        server = Server(drip)
        with contextlib.closing(server):
            client = client_of(server.url, timeout=5.0, deadline=0.6)
            begin = time.monotonic()
            failure(lambda: client.stream(ROUTE, {}), "endless", "deadline of 0.6 s")
            assert 0.5 < time.monotonic() - begin < 4

    def test_the_deadline_shows_where_the_end_of_the_connection_ends_the_body(self, client_of):
        """HTTP/1.0 style: when the deadline cuts the connection, the body seems whole."""

        def drip(connection, _):
            connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{}")
            while not server.stopped.wait(0.05):
                connection.sendall(b" ")

        server = Server(drip)
        with contextlib.closing(server):
            client = client_of(server.url, deadline=0.5)
            failure(lambda: client.post(ROUTE, {}), "endless")

    def test_a_flood_ends_at_the_size_limit(self, client_of):
        def flood(connection, _):
            connection.sendall(chunked([])[0])
            while not server.stopped.is_set():
                connection.sendall(b"1000\r\n" + b"x" * 4096 + b"\r\n")

        server = Server(flood)
        with contextlib.closing(server):
            client = client_of(server.url, largest=1 << 20)
            failure(lambda: client.post(ROUTE, {}), "endless", "larger than 1048576 bytes")

    def test_close_ends_what_is_under_way(self, serve):
        done = threading.Event()
        server = serve(lambda _: done.wait(20) and b"")
        client = Client(server.url, timeout=20.0)
        found = []
        thread = threading.Thread(target=lambda: found.extend(client.together([(ROUTE, {})], 1)))
        thread.start()
        while not server.requests:
            time.sleep(0.01)
        begin = time.monotonic()
        client.close()
        client.close()
        thread.join(5)
        assert time.monotonic() - begin < 4
        assert found[0].kind == "closed"
        done.set()


class TestTogether:
    def test_order_concurrency_and_each_failure_in_its_place(self, serve, client_of):
        gate = threading.Barrier(3)

        def answer(request):
            number = request["body"]["n"]
            with contextlib.suppress(threading.BrokenBarrierError):
                gate.wait(5)  # three are under way at once, or the barrier breaks
            return http(500, {"error": {"message": f"n={number}"}}) if number % 4 == 0 else http(200, {"n": number})

        server = serve(answer)
        found = client_of(server.url).together([(ROUTE, {"n": n}) for n in range(12)], 3)
        for number, one in enumerate(found):
            if number % 4 == 0:
                assert isinstance(one, ServerError)
                assert (one.kind, one.status) == ("status", 500)
                assert f"n={number}" in str(one)
            else:
                assert one == {"n": number}
        assert not gate.broken
        assert server.peak == 3
        assert sorted(request["body"]["n"] for request in server.requests) == list(range(12)), "one request each"

    def test_nothing_to_ask(self, client_of):
        assert client_of("http://127.0.0.1:1").together([], 4) == []

    def test_a_concurrency_below_one(self, client_of):
        with pytest.raises(ValueError, match="concurrency 0"):
            client_of("http://127.0.0.1:1").together([(ROUTE, {})], 0)

    def test_ctrl_c_waits_for_no_answer(self, serve):
        done = threading.Event()
        server = serve(lambda _: done.wait(30) and b"")
        script = (
            "import os, signal, threading, time\n"
            "from pytest_npuconf.engines.openai_client import Client\n"
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background job ignores it
            f"client = Client({server.url!r}, timeout=60.0)\n"
            "threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
            f"client.together([({ROUTE!r}, {{}})] * 50, 2)\n"
        )
        begin = time.monotonic()
        ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=25)
        assert time.monotonic() - begin < 20
        assert "KeyboardInterrupt" in ended.stderr
        assert len(server.requests) == 2
        done.set()


def test_an_error_crosses_a_process_boundary(client_of):
    error = failure(client_of(f"http://127.0.0.1:{free_port()}").models, "refused")
    other = pickle.loads(pickle.dumps(error))
    assert (str(other), other.kind, other.status, other.route) == (str(error), "refused", None, "/v1/models")


def test_without_httpx_the_message_says_what_to_install():
    script = (
        "import sys\nfrom pytest_npuconf.engines.openai_client import Client\nassert 'httpx' not in sys.modules\n"
        "sys.modules['httpx'] = None\nClient('http://localhost:1')\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "pip install 'pytest-npuconf[server]'" in ended.stderr


def test_a_quotation_counts_characters_not_bytes():
    assert sse.quoted("é".encode() * 300) == f"'{'é' * 300}'"
