"""An HTTP proxy in front of a server, in threads of this process, whose rules break what goes through it.

Without rules every method, path, header, status and byte is passed on; a stream stays a stream, event by event. Rules see
JSON only: the bodies of requests, answers of status 200, and events of a stream that carry a JSON object.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import http.server
import json
import selectors
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

from pytest_npuconf.errors import NpuconfError
from pytest_npuconf.faults import calls
from pytest_npuconf.faults.calls import AnswerRule, Body, Call, EventRule, LossRule, RequestRule, Store
from pytest_npuconf.faults.streams import DONE, block_of, blocks, event_of, is_done, pieces

HOP_BY_HOP = {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding",
              "upgrade"}  # RFC 9110, 7.6.1  # fmt: skip
GONE = (OSError, http.client.HTTPException)
JOIN = 5.0  # seconds to wait for a thread whose sockets are closed


class Proxy:
    """A proxy on 127.0.0.1. Faults append to its lists of rules before requests come.

    Attributes:
        upstream: the server, ``http://host:port``.
        requests: change ``call.body`` or ``call.path`` before it is sent.
        lose: a request for which one says True is never sent, and its connection is closed without an answer.
        answers: change a JSON answer of status 200 in place.
        events: each is given the events of a stream as an iterator and yields what the client gets.
        errors: what went wrong in a rule; its request was answered with 502.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream.rstrip("/")
        self.requests: list[RequestRule] = []
        self.lose: list[LossRule] = []
        self.answers: list[AnswerRule] = []
        self.events: list[EventRule] = []
        self.errors: list[str] = []
        self.store = Store()
        self.asking = 0  # requests under way that ask the model for something
        self._server = _Server(self)
        self._thread: threading.Thread | None = None
        self._closed = False

    @property
    def url(self) -> str:
        """``http://127.0.0.1:port``."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def start(self) -> Proxy:
        """Take requests."""
        if self._thread is None and not self._closed:
            serve = functools.partial(self._server.serve_forever, poll_interval=0.05)
            self._thread = threading.Thread(target=serve, name="npuconf-proxy", daemon=True)
            self._thread.start()
        return self

    def close(self) -> None:
        """End every thread and connection and give the port back; idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join(JOIN)
        self._server.server_close()
        self._server.end_all()

    def __enter__(self) -> Proxy:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, path: str, body: Body | None = None, headers: dict[str, str] | None = None) -> Body:
        """What the server says to ``path``, past all rules: see :func:`pytest_npuconf.faults.calls.ask_upstream`."""
        return calls.ask_upstream(self.upstream, headers or {}, path, body)


class _Server(http.server.ThreadingHTTPServer):
    """Knows its threads and sockets, so that it can end them."""

    daemon_threads = True
    request_queue_size = 512

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self._lock = threading.Lock()
        self._running: set[threading.Thread] = set()
        self._sockets: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """In a thread that is known before it starts, so that none is missed."""
        thread = threading.Thread(
            target=self.process_request_thread, args=(request, client_address), name="npuconf-proxy-call", daemon=True
        )
        with self._lock:
            self._running.add(thread)
            self._sockets.add(request)
        thread.start()

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                self._running.discard(threading.current_thread())
                self._sockets.discard(request)

    @contextlib.contextmanager
    def watching(self, one: socket.socket) -> Iterator[None]:
        """Close this socket when the proxy is closed."""
        with self._lock:
            self._sockets.add(one)
        try:
            yield
        finally:
            with self._lock:
                self._sockets.discard(one)

    def end_all(self) -> None:
        """Wake every thread by closing its sockets, and wait for it."""
        with self._lock:
            sockets, threads = list(self._sockets), list(self._running)
        for one in sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(JOIN)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error."""
        error = sys.exc_info()[1]
        if not isinstance(error, (OSError, _ClientGoneError)):
            self.proxy.errors.append(repr(error))


class _LostError(Exception):
    """A rule lost the request."""


class _ClientGoneError(Exception):
    """The client closed its connection."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server
    _asking = False

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _forward(self) -> None:
        data = self._read_body()
        if data is None:
            self._say(400, "the request's body is not what its headers say")
            return
        call = self._call(data)
        if call.to() is not None:
            call.beside = self._begin()
        try:
            self._answer(call, data)
        except (_LostError, _ClientGoneError):
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
        finally:
            self._end()

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _forward

    def _call(self, data: bytes) -> Call:
        proxy = self.server.proxy
        secret = {k: v for k, v in self.headers.items() if k.lower() == "authorization"}
        ask = functools.partial(calls.ask_upstream, proxy.upstream, secret)
        return Call(proxy.store.count("calls"), self.command, self.path, calls.json_of(data), proxy.store, ask)

    def _begin(self) -> int:
        """A request for the model is under way; how many were before."""
        proxy = self.server.proxy
        with proxy.store.lock:
            self._asking = True
            proxy.asking += 1
            return proxy.asking - 1

    def _end(self) -> None:
        """It is not any more: said before the client has its last byte, for it may ask again at once."""
        with self.server.proxy.store.lock:
            self.server.proxy.asking -= self._asking
            self._asking = False

    def _read_body(self) -> bytes | None:
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            length = int(self.headers.get("Content-Length") or 0)
            data = self.rfile.read(length)
            return data if len(data) == length else None
        parts = []
        try:
            while size := int(self.rfile.readline(64).partition(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline(8)
            while self.rfile.readline(65536).strip():
                continue  # trailers
        except ValueError:
            return None
        return b"".join(parts)

    # the server's answer

    def _answer(self, call: Call, data: bytes) -> None:
        proxy, connection = self.server.proxy, calls.connect(self.server.proxy.upstream)
        before = json.dumps(call.body)
        try:
            self._rules(call)
            if json.dumps(call.body) != before:
                data = json.dumps(call.body, ensure_ascii=False).encode()
            connection.connect()
            with self.server.watching(connection.sock):
                connection.request(
                    call.method, calls.base_of(proxy.upstream) + call.path, data or None, self._onwards(data)
                )
                self._wait(connection)
                self._pass_on(call, connection.getresponse())
        except GONE as error:
            self._say(502, f"npuconf's proxy: {proxy.upstream} is gone: {error!r}")
        except (_LostError, _ClientGoneError):
            raise
        except Exception as error:
            proxy.errors.append(_said(error))
            self._say(502, f"npuconf's proxy: a fault could not act: {_said(error)}")
        finally:
            connection.close()

    def _rules(self, call: Call) -> None:
        lost = [rule(call) for rule in self.server.proxy.lose]  # each of them counts
        if any(lost):
            raise _LostError
        for rule in self.server.proxy.requests:
            rule(call)

    def _onwards(self, data: bytes) -> dict[str, str]:
        """The request's headers. Compressed answers could not be read by the rules."""
        dropped = {*HOP_BY_HOP, "content-length", "host", "accept-encoding", "expect"}
        headers = {k: v for k, v in self.headers.items() if k.lower() not in dropped}
        sized = {"Content-Length": str(len(data))} if data or self.command in ("POST", "PUT", "PATCH") else {}
        return {**headers, **sized, "Accept-Encoding": "identity", "Connection": "close"}

    def _wait(self, connection: http.client.HTTPConnection) -> None:
        """Until the server answers.

        Raises:
            _ClientGoneError: the client did not wait for it; closing the connection tells the server.
        """
        with selectors.DefaultSelector() as selector:
            selector.register(connection.sock, selectors.EVENT_READ)
            selector.register(self.connection, selectors.EVENT_READ)
            while connection.sock not in {key.fileobj for key, _ in selector.select()}:
                with contextlib.suppress(OSError):
                    if self.connection.recv(1, socket.MSG_PEEK):
                        selector.unregister(self.connection)  # it has sent its next request already
                        continue
                raise _ClientGoneError

    def _pass_on(self, call: Call, response: http.client.HTTPResponse) -> None:
        kind = (response.getheader("Content-Type") or "").partition(";")[0].strip().lower()
        if kind == "text/event-stream":
            self._stream(call, response)
            return
        data = response.read()
        self._end()
        if response.status == 200 and (answer := calls.json_of(data)) is not None and self.server.proxy.answers:
            before = json.dumps(answer)
            for rule in self.server.proxy.answers:
                rule(call, answer)
            if json.dumps(answer) != before:
                data = json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode()
        self._head(response)
        if self.command == "HEAD":
            for value in response.headers.get_all("Content-Length", []):
                self.send_header("Content-Length", value)
        elif response.status not in (204, 304):
            self.send_header("Content-Length", str(len(data)))
        self._write_head()
        if self.command != "HEAD":
            self._write(data)

    def _head(self, response: http.client.HTTPResponse) -> None:
        self.send_response_only(response.status, response.reason)
        for name, value in response.getheaders():
            if name.lower() not in HOP_BY_HOP and name.lower() != "content-length":
                self.send_header(name, value)

    def _stream(self, call: Call, response: http.client.HTTPResponse) -> None:
        """Pass a stream on. One that breaks off breaks off here too: the last chunk is not sent."""
        chunked = self.request_version >= "HTTP/1.1"
        self._head(response)
        self.send_header(*(("Transfer-Encoding", "chunked") if chunked else ("Connection", "close")))
        self._write_head()

        def write(piece: bytes) -> None:
            self._write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)

        self.close_connection = self.close_connection or not chunked
        try:
            for piece in self._changed(call, response):
                if DONE in piece:
                    self._end()
                write(piece)
        except GONE as error:
            raise _LostError from error
        except _ClientGoneError:
            raise
        except Exception as error:
            self.server.proxy.errors.append(_said(error))
            raise _LostError from error
        self._end()
        if chunked:
            self._write(b"0\r\n\r\n")

    def _changed(self, call: Call, response: http.client.HTTPResponse) -> Iterator[bytes]:
        """The bytes of a stream after the rules. What is no JSON event keeps its place among those that are."""
        rules = self.server.proxy.events
        if not rules or response.status != 200 or call.to() is None:
            yield from pieces(response)
            return
        others: list[bytes] = []

        def events(stream: Iterator[bytes]) -> Iterator[Body]:
            for block in stream:
                if is_done(block):
                    others.append(block)
                    return
                event = event_of(block)
                if event is None:
                    others.append(block)
                else:
                    yield event

        stream = blocks(pieces(response))
        source = events(stream)
        changed: Iterator[Body] = source
        for rule in rules:
            changed = rule(call, changed)
        for event in changed:
            comments = [block for block in others if not is_done(block)]
            del others[: len(comments)]
            yield from comments
            yield block_of(event)
        for _ in source:
            continue  # a rule that ended early has dropped the rest
        yield from others
        yield from stream

    # the client

    def _write_head(self) -> None:
        try:
            self.end_headers()
        except OSError as error:
            raise _ClientGoneError from error

    def _write(self, data: bytes) -> None:
        try:
            self.wfile.write(data)
        except OSError as error:
            raise _ClientGoneError from error

    def _say(self, status: int, text: str) -> None:
        """An error in the words of OpenAI's API."""
        data = json.dumps({"error": {"message": text, "type": "proxy_error", "code": status}}).encode()
        self.close_connection = True
        self.send_response_only(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Connection", "close")
        self._write_head()
        self._write(data)


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, NpuconfError) else repr(error)
