"""One request on its way through the proxy, and what faults keep between requests."""

from __future__ import annotations

import http.client
import json
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pytest_npuconf.errors import EngineError

Body = dict[str, Any]
GENERATE = ("/v1/completions", "/v1/chat/completions")
EMBED = ("/v1/embeddings",)
RERANK = ("/rerank", "/v1/rerank", "/v2/rerank")
SCORE = ("/score", "/v1/score")
ANSWERING = (*GENERATE, *EMBED, *RERANK, *SCORE, "/pooling", "/classify")
PATIENCE = 600.0  # seconds that an upstream may be silent: a model on a CPU takes its time over a long prompt


class Store:
    """What calls share. Hold ``lock`` to read and write ``values`` in one step."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.values: dict[str, Any] = {}

    def count(self, name: str) -> int:
        """One more of these; the number so far, from 1."""
        with self.lock:
            self.values[name] = self.values.get(name, 0) + 1
            return int(self.values[name])


@dataclass
class Call:
    """A request.

    Attributes:
        body: the parsed JSON object, which rules may change before it is sent; None when there is none.
        path: with its query; a rule may send the request to another one.
        number: of this request among all, from 1.
        beside: requests that ask the model for something and were under way when this one came.
        notes: what the rules of one fault tell each other about this call.
        ask: ``ask(path, body)``: a question of the proxy's own to the server, past all rules (see :func:`ask_upstream`).
    """

    number: int
    method: str
    path: str
    body: Body | None
    store: Store
    ask: Callable[..., Body]
    beside: int = 0
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def route(self) -> str:
        """The path without its query."""
        return self.path.partition("?")[0]

    def to(self, *routes: str) -> Body | None:
        """The body if this call goes to one of the routes, else None."""
        return self.body if self.method == "POST" and self.route in (routes or ANSWERING) else None


RequestRule = Callable[[Call], None]
AnswerRule = Callable[[Call, Body], None]
EventRule = Callable[[Call, Iterator[Body]], Iterator[Body]]
LossRule = Callable[[Call], bool]


def json_of(data: bytes) -> Body | None:
    """The JSON object that the bytes are, if they are one."""
    try:
        found = json.loads(data)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def connect(upstream: str) -> http.client.HTTPConnection:
    """A connection that is not open yet."""
    place = urllib.parse.urlsplit(upstream)
    return http.client.HTTPConnection(str(place.hostname), place.port or 80, timeout=PATIENCE)


def base_of(upstream: str) -> str:
    """What stands before every path: ``/base`` of ``http://host:port/base/``."""
    return urllib.parse.urlsplit(upstream).path.rstrip("/")


def ask_upstream(upstream: str, headers: dict[str, str], path: str, body: Body | None = None) -> Body:
    """The server's JSON answer to a question of the proxy's own.

    Raises:
        EngineError: it does not answer, or not with a JSON object and status 200.
    """
    connection = connect(upstream)
    data = None if body is None else json.dumps(body).encode()
    try:
        more = {"Content-Type": "application/json"} if body is not None else {}
        connection.request("GET" if body is None else "POST", base_of(upstream) + path, data, {**headers, **more})
        response = connection.getresponse()
        text = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise EngineError(f"{upstream}{path} does not answer: {error!r}", mend="start the server") from error
    finally:
        connection.close()
    found = json_of(text)
    if response.status != 200 or found is None:
        raise EngineError(
            f"{upstream}{path} answers {response.status}: {text[:200]!r}", mend="serve the model with vLLM"
        )
    return found
