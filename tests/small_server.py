"""A small HTTP server with OpenAI's routes for the tests of the proxy: its answers follow from the request alone, and say what
reached it (``seen``). Its model answers with the words of the prompt backwards; a token is a character."""

from __future__ import annotations

import http.server
import json
import math
import threading
import time
from typing import Any

CONTEXT = 64
HIDDEN = 8


class SmallServer(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.go_on = threading.Event()  # of /slow-stream and /wait
        self.told: list[str] = []
        self.count = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        self.told.append("client gone")

    def __enter__(self) -> SmallServer:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on.set()
        self.shutdown()
        self.server_close()


def tokens(value: Any) -> list[int]:
    return value if isinstance(value, list) else [ord(c) for c in value]


def text_of(ids: list[int]) -> str:
    return "".join(map(chr, ids))


def of_chat(messages: list[dict[str, Any]]) -> list[int]:
    return [1, *tokens(" ".join(f"{m['role']} {m['content']}" for m in messages)), 2]


def embedding(value: Any) -> list[float]:
    ids = tokens(value)
    row = [math.sin(sum(i * (k + 1) for i in ids) + k) for k in range(HIDDEN)]
    norm = math.sqrt(sum(x * x for x in row))
    return [x / norm for x in row]


def score(query: str, document: str) -> float:
    return round(len({*query} & {*document}) / len({*query, *document}), 6)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: SmallServer

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _read(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _plain(self) -> None:
        data = self._read()
        status = int(self.headers.get("X-Status", 200))
        self.send_response(status)
        self.send_header("X-Seen", json.dumps([self.command, self.path, self.headers.get("X-Mine"), len(data)]))
        self.send_header("Retry-After", "7")
        if status != 204:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if status != 204 and self.command != "HEAD":
            self.wfile.write(data)

    do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_HEAD = _plain

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self._say({"data": [{"id": "small", "max_model_len": CONTEXT}]})
        elif self.path == "/chunked":
            self._begin("text/plain")
            for _ in range(50):
                self._piece(b"x" * 10_000)
            self._piece(b"")
        elif self.path in ("/slow-stream", "/cut-stream"):
            self._slow()
        else:
            self._plain()

    def _slow(self) -> None:
        self._begin("text/event-stream")
        self._piece(b": a comment\n\n")
        self._piece(b'data: {"choices":[{"index":0,"text":"one"}]}\n\n')
        self.server.go_on.wait(10)
        if self.path == "/cut-stream":
            self.connection.close()
            return
        try:
            for _ in range(1000):
                self._piece(b'data: {"choices":[{"index":0,"text":"two"}]}\n\n')
                if self.headers.get("X-Endless") is None:
                    break
                time.sleep(0.005)
        except OSError:
            self.server.told.append("client gone")
            raise
        self._piece(b"data: [DONE]\n\n")
        self._piece(b"")

    def _begin(self, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _piece(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _say(self, answer: dict[str, Any], status: int = 200) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self) -> None:
        if self.path.startswith("/plain"):
            self._plain()
            return
        body = json.loads(self._read())
        routes = {"/v1/completions": self._generate, "/v1/chat/completions": self._generate, "/v1/embeddings": self._embed,
                  "/rerank": self._rerank, "/score": self._score, "/wait": self._wait}  # fmt: skip
        if self.path == "/tokenize":
            ids = of_chat(body["messages"]) if "messages" in body else tokens(body["prompt"])
            self._say({"tokens": ids, "count": len(ids)})
        elif self.path == "/detokenize":
            [token] = body["tokens"]
            self._say({"prompt": chr(token) if token < 0xD800 else "\ufffd"})
        else:
            routes[self.path](body)

    def _wait(self, _: dict[str, Any]) -> None:
        self.connection.settimeout(10)
        if self.connection.recv(1) == b"":
            self.server.told.append("client gone")

    def _generate(self, body: dict[str, Any]) -> None:
        with self.server.lock:
            self.server.count += 1
            number = self.server.count
        chat = "messages" in body
        ids = of_chat(body["messages"]) if chat else tokens(body["prompt"])
        if keep := body.get("truncate_prompt_tokens"):
            ids = ids[-keep:]
        most = body.get("max_tokens", 16)
        if len(ids) + most > CONTEXT:
            self._say({"error": {"message": "too long", "code": 400}}, 400)
            return
        time.sleep(body.get("seconds", 0))
        words = [word + " " for word in text_of(ids).split()[::-1]]
        finish = "length" if len(words) > most else "stop"
        words = words[:most]
        usage = {"prompt_tokens": len(ids), "completion_tokens": len(words), "total_tokens": len(ids) + len(words)}
        base = {"id": f"{'chat' if chat else ''}cmpl-{number}", "object": "x", "model": "small"}
        shown = ids if body.get("return_token_ids") else None
        if body.get("stream"):
            self._stream(body, base, words, finish, usage, chat, shown)
            return
        choice = {"index": 0, "finish_reason": finish, "logprobs": None}
        choice |= {"message": {"role": "assistant", "content": "".join(words)}} if chat else {"text": "".join(words)}
        choice |= {"prompt_token_ids": shown}
        self._say({**base, "choices": [choice], "usage": usage, "seen": body})

    def _stream(self, body: Any, base: Any, words: list[str], finish: str, usage: Any, chat: bool, shown: Any) -> None:
        self._begin("text/event-stream")

        def event(text: str, **more: Any) -> None:
            told = {"delta": {"content": text}} if chat else {"text": text}
            choice = {"index": 0, **told, "finish_reason": None, **({"token_ids": None} | more)}
            self._piece(b"data: " + json.dumps({**base, "choices": [choice]}).encode() + b"\n\n")

        if body.get("hold"):
            self._piece(b": a comment\n\n")
        for place, word in enumerate(words):
            if place == 1 and body.get("hold"):
                self.server.go_on.wait(10)
            if word.startswith("日"):  # of three tokens, as in a byte-level vocabulary
                event("", token_ids=[0xD801] if shown else None)
                event("", token_ids=[0xD802] if shown else None)
                event(word, token_ids=[0xD803] if shown else None)
            else:
                event(word, token_ids=[ord(word[0])] if shown else None)
        event("", finish_reason=finish)
        self._piece(b"data: " + json.dumps({**base, "choices": [], "usage": usage}).encode() + b"\n\n")
        self._piece(b"data: [DONE]\n\n")
        self._piece(b"")

    def _embed(self, body: dict[str, Any]) -> None:
        value = body["input"]
        several = value if isinstance(value, list) and not isinstance(value[0], int) else [value]
        rows = [{"index": i, "embedding": embedding(one)} for i, one in enumerate(several)]
        count = sum(len(tokens(one)) for one in several)
        self._say({"data": rows[::-1], "usage": {"prompt_tokens": count, "total_tokens": count}})

    def _rerank(self, body: dict[str, Any]) -> None:
        rows = [{"index": i, "relevance_score": score(body["query"], d)} for i, d in enumerate(body["documents"])]
        rows.sort(key=lambda one: -one["relevance_score"])
        self._say({"results": rows[: body.get("top_n")]})

    def _score(self, body: dict[str, Any]) -> None:
        self._say({"data": [{"index": 0, "score": score(body["text_1"], body["text_2"])}]})
