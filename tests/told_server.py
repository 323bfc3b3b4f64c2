"""A real HTTP server for tests that says what each test tells it to say, wrong shapes and statuses too."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from collections.abc import Callable, Mapping
from typing import Any

Told = (
    Any  # dict: JSON, status 200; list: a stream of events; (status, dict); bytes: as they are; None: no answer at all
)
MODELS = {"data": [{"id": "m", "max_model_len": 64}]}


class ToldServer(http.server.ThreadingHTTPServer):
    """``routes``: path to what is said there, or to a function of the request's body. Another path is a 404."""

    daemon_threads = True
    block_on_close = True

    def __init__(self, routes: Mapping[str, Told | Callable[[dict[str, Any]], Told]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.routes = {"/v1/models": MODELS, **routes}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def bodies(self, route: str) -> list[dict[str, Any]]:
        return [body for path, body in self.asked if path == route]

    def __enter__(self) -> ToldServer:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ToldServer

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._say({})

    def do_POST(self) -> None:
        self._say(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _say(self, body: dict[str, Any]) -> None:
        with self.server.lock:
            self.server.asked.append((self.path, body))
        told = self.server.routes.get(self.path, (404, {"detail": "Not Found"}))
        told = told(body) if callable(told) else told
        self.close_connection = True
        if told is None:
            return
        status, told = told if isinstance(told, tuple) else (200, told)
        kind = "application/json"
        if isinstance(told, list):
            kind = "text/event-stream"
            told = "".join(f"data: {json.dumps(one)}\n\n" for one in [*told]).encode() + b"data: [DONE]\n\n"
        data = told if isinstance(told, bytes) else json.dumps(told).encode()
        with contextlib.suppress(OSError):  # a client that only wanted the status is gone
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(data)
