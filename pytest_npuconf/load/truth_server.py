"""A server whose latencies are known, to measure a client with: token k of an answer is sent ``ttft + k * itl`` after the request
was there, or the whole of it with the last where it is no stream. It generates nothing.

Run: ``python -m pytest_npuconf.load.truth_server --port P --ttft 50 --itl 5``. ``GET /truth`` says how late it was itself.
"""

from __future__ import annotations

import argparse
import gc
import heapq
import json
import re
import selectors
import signal
import socket
import sys
import time
from collections import deque

from pytest_npuconf.load.waiting import ready

_LENGTH = re.compile(rb"content-length:\s*(\d+)", re.IGNORECASE)
HEADER = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
MS = 1_000_000


def chunk(data: bytes) -> bytes:
    """One chunk of the chunked transfer coding."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(value: dict[str, object]) -> bytes:
    """One server-sent event, as a chunk."""
    return chunk(b"data: " + json.dumps(value).encode() + b"\n\n")


TEXT = event(
    {"object": "text_completion", "model": "truth", "choices": [{"index": 0, "text": " t", "finish_reason": None}]}
)
CHAT = event({"object": "chat.completion.chunk", "model": "truth",
              "choices": [{"index": 0, "delta": {"content": " t"}, "finish_reason": None}]})  # fmt: skip


def ending(prompt: int, tokens: int) -> bytes:
    """Usage, [DONE] and the last chunk."""
    usage = {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}
    return (
        event({"object": "text_completion", "choices": [], "usage": usage}) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
    )


def whole(path: str, prompt: int, tokens: int) -> bytes:
    """An answer that is no stream, with its header."""
    said = {"message": {"role": "assistant", "content": " t" * tokens}} if "chat" in path else {"text": " t" * tokens}
    usage = {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}
    choice = {"index": 0, **said, "token_ids": [1] * tokens, "finish_reason": "length"}
    data = json.dumps({"object": "text_completion", "model": "truth", "choices": [choice], "usage": usage}).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(data) + data


class _Client:
    """One connection: what came of its request, and which token it waits for."""

    __slots__ = ("first", "got", "last", "left", "socket", "token")

    def __init__(self, connection: socket.socket) -> None:
        self.socket, self.got, self.left = connection, b"", 0
        self.token = self.last = self.first = b""


class TruthServer:
    """Listens on 127.0.0.1. ``ttft`` and ``itl`` in milliseconds."""

    def __init__(self, port: int, ttft: float, itl: float) -> None:
        self._ttft, self._itl = int(ttft * MS), int(itl * MS)
        self._due: list[tuple[int, int, _Client]] = []
        self._asked: deque[tuple[_Client, bytes, bytes, int]] = deque()
        self._order = self._late = self._most = self._sent = 0
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", port), backlog=1024)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ, None)
        self.port = int(self._listener.getsockname()[1])

    def serve(self) -> None:
        """Until the process is told to end."""
        gc.disable()
        while True:
            now = time.perf_counter_ns()
            while self._due and self._due[0][0] <= now:
                self._send_next(*heapq.heappop(self._due))
                now = time.perf_counter_ns()
            wait = min(0.1, max(0.0, (self._due[0][0] - now) / 1e9)) if self._due else 0.1
            for key, _ in ready(self._selector, 0.0 if self._asked else wait):
                if key.data is None:
                    self._accept()
                else:
                    self._receive(key.data)
            if (
                self._asked
            ):  # one at a time: what has come gets its stamp, and what is due is sent, before the next is parsed
                self._answer(*self._asked.popleft())

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._selector.register(connection, selectors.EVENT_READ, _Client(connection))

    def _receive(self, client: _Client) -> None:
        stamp = time.perf_counter_ns()
        try:
            data = client.socket.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(client.socket)
            client.socket.close()
            client.left = 0
            return
        client.got += data
        head, end, body = client.got.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if end and len(body) >= (int(length[1]) if length else 0):
            client.got = b""
            self._asked.append((client, head, body, stamp))

    def _answer(self, client: _Client, head: bytes, body: bytes, stamp: int) -> None:
        path = head.split(b" ", 2)[1].decode()
        if path not in ("/v1/completions", "/v1/chat/completions"):
            self._say(client, path)
            return
        asked = json.loads(body)
        prompt, tokens = asked.get("prompt", asked.get("messages")), int(asked.get("max_tokens", 16))
        client.left = tokens
        if not asked.get("stream"):
            client.left, client.first, client.last = 1, b"", whole(path, len(prompt), tokens)
            self._push(stamp + self._ttft + (tokens - 1) * self._itl, client)
            return
        client.token = CHAT if path.endswith("chat/completions") else TEXT
        client.first, client.last = HEADER, client.token + ending(len(prompt), tokens)
        self._push(stamp + self._ttft, client)

    def _push(self, due: int, client: _Client) -> None:
        self._order += 1
        heapq.heappush(self._due, (due, self._order, client))

    def _send_next(self, due: int, _: int, client: _Client) -> None:
        if client.left == 0:  # it hung up
            return
        data = client.token if client.left > 1 else client.last
        data, client.first = client.first + data, b""
        client.left -= 1
        late = time.perf_counter_ns() - due
        self._sent, self._late, self._most = self._sent + 1, self._late + late, max(self._most, late)
        self._write(client, data)
        if client.left:
            self._push(due + self._itl, client)

    def _write(self, client: _Client, data: bytes) -> None:
        """A client that does not read for so long that its buffer is full is waited for: then nothing here is true any more, and
        the lateness says so."""
        try:
            sent = client.socket.send(data)
            if sent < len(data):
                client.socket.setblocking(True)
                client.socket.sendall(data[sent:])
                client.socket.setblocking(False)
        except OSError:
            client.left = 0

    def _say(self, client: _Client, path: str) -> None:
        told: dict[str, object] = {"detail": "Not Found"}
        if path == "/v1/models":
            told = {"object": "list", "data": [{"id": "truth", "object": "model", "max_model_len": 1 << 20}]}
        elif path == "/health":
            told = {}
        elif path == "/truth":
            told = {
                "sent": self._sent,
                "mean_late_ms": self._late / max(1, self._sent) / MS,
                "most_late_ms": self._most / MS,
            }
            self._sent = self._late = self._most = 0
        status = b"404 Not Found" if "detail" in told else b"200 OK"
        data = json.dumps(told).encode()
        head = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(data))
        self._write(client, head + data)


def main(arguments: list[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--ttft", type=float, default=50.0, help="milliseconds to the first token")
    parser.add_argument("--itl", type=float, default=5.0, help="milliseconds from token to token")
    parsed = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server = TruthServer(parsed.port, parsed.ttft, parsed.itl)
    print(f"http://127.0.0.1:{server.port}", flush=True)
    server.serve()


if __name__ == "__main__":
    main()
