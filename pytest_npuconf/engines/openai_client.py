"""A synchronous client of an OpenAI-compatible server. Nothing is retried; each failure is named and classified."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from pytest_npuconf.engines import sse
from pytest_npuconf.engines.answers_refused import (
    Answer,
    error_object,
    error_status,
    interrupted,
    refused_status,
)
from pytest_npuconf.errors import EngineError, ServerError, SettingsError

if TYPE_CHECKING:
    import httpx

KEY_VARIABLE = "NPUCONF_API_KEY"
CONNECT_SECONDS = 20.0
DEADLINE_FACTOR = 5.0  # of the timeout: the longest answer, however steadily it drips
LARGEST = 1 << 29  # bytes of an answer: full log-probabilities are hundreds of MB, more would fill the memory
_LOCAL = ("localhost", "127.0.0.1", "::1")


class Client:
    """Requests to one server. Safe to use from several threads.

    ``url``: with or without a trailing ``/v1``. ``timeout``: longest silence, seconds. ``deadline``: longest answer in
    all, seconds; 5 times the timeout if None. ``largest``: bytes of one answer. ``key``: sent as a bearer token; the
    environment's NPUCONF_API_KEY if empty.

    Raises SettingsError for a URL or key that cannot be used, EngineError where httpx is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 120.0,
        key: str = "",
        deadline: float | None = None,
        largest: int = LARGEST,
    ) -> None:
        library = _httpx()
        self.base, self.url, host = _addresses(url)
        self._deadline = deadline if deadline is not None else timeout * DEADLINE_FACTOR
        self._largest = largest
        self._open: set[_Exchange] = set()
        self._lock = threading.Lock()
        self._http: httpx.Client = library.Client(
            headers=_headers(key or os.environ.get(KEY_VARIABLE, "")),
            timeout=library.Timeout(timeout, connect=min(timeout, CONNECT_SECONDS)),
            # A kept connection may be closed by the server just as the next request leaves, an error that nobody made.
            limits=library.Limits(max_connections=None, max_keepalive_connections=0),
            follow_redirects=False,
            trust_env=host not in _LOCAL,  # no proxy to this machine itself
        )

    def get(self, route: str) -> Any:
        """The JSON of a GET. Raises ServerError."""
        return self._json(self._whole("GET", route, None))

    def text(self, route: str) -> str:
        """The answer to a GET as it stands, such as ``/metrics``."""
        answer = self._whole("GET", route, None)
        self._accepted(answer, None)
        try:
            return answer.body.decode("utf-8")
        except UnicodeDecodeError as error:
            raise answer.error("not-openai", f"the answer is no UTF-8: {error}", _other_server(answer)) from error

    def post(self, route: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON object of a POST. Raises ServerError, also for JSON that is no object or holds an error."""
        answer = self._whole("POST", route, body)
        found = self._json(answer)
        if not isinstance(found, dict):
            raise answer.error("not-openai", "the answer is JSON but no object", _other_server(answer))
        self._no_error(answer, found)
        return found

    def status(self, method: str, route: str, body: Mapping[str, Any] | None = None) -> int:
        """The HTTP status alone. Raises ServerError where no answer began."""
        answer = self._exchange(method, route, body, read=False)
        if answer.status is None:
            raise interrupted(answer)
        return answer.status

    def stream(self, route: str, body: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Every event of a stream, in order, without the closing [DONE].

        Raises ServerError of kind ``malformed-stream`` for an event that is no JSON object or no UTF-8, a missing
        [DONE], anything after it, a stream cut in the middle; of kind ``status`` for an event that is an error.
        """
        answer = self._exchange("POST", route, body, read=True)
        self._accepted(answer, body)
        if answer.kind and answer.kind != "closed":
            raise interrupted(answer)
        found = sse.decode(answer.body)
        if answer.kind == "closed" and not (found.trouble and found.done):
            count = len(found.events)
            raise answer.error("malformed-stream", f"cut after {count} events: {answer.trouble}", _LOG)
        if found.trouble and not found.events and "event-stream" not in answer.content_type:
            what = f"no event stream but {answer.content_type or 'something without a content type'}"
            mend = 'ask with "stream": true; if you did, the server ignores it'
            raise answer.error("malformed-stream", what, _other_server(answer) if answer.page else mend)
        if found.trouble:
            raise answer.error("malformed-stream", found.trouble, _LOG)
        for event in found.events:
            self._no_error(answer, event)
        return found.events

    def together(
        self, calls: Sequence[tuple[str, Mapping[str, Any]]], concurrency: int
    ) -> list[dict[str, Any] | ServerError]:
        """POST all ``calls`` (route, body), at most ``concurrency`` at a time; answers or errors in their order."""
        if concurrency < 1:
            raise ValueError(f"concurrency {concurrency}: at least one request at a time")
        pool = ThreadPoolExecutor(min(concurrency, max(len(calls), 1)), thread_name_prefix="npuconf-request")
        try:
            return list(pool.map(self._post_or_error, calls))
        except BaseException:  # Ctrl-C: the answers under way are not waited for
            pool.shutdown(wait=False, cancel_futures=True)
            self._abort()
            raise
        finally:
            pool.shutdown()

    def models(self) -> list[str]:
        """The names that /v1/models serves. Raises ServerError, kind ``not-openai`` where it is another server."""
        return [str(model["id"]) for model in self._models()]

    def max_model_len(self, name: str) -> int | None:
        """The context length in tokens that /v1/models states of a model (vLLM does; it is not in OpenAI's interface), or
        None."""
        lengths = [model.get("max_model_len") for model in self._models() if model["id"] == name]
        return next((n for n in lengths if isinstance(n, int) and not isinstance(n, bool)), None)

    def close(self) -> None:
        """Ends every request under way and the connections. May be called again."""
        self._abort()
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _models(self) -> list[Mapping[str, Any]]:
        answer = self._exchange("GET", "/v1/models", None, read=True)
        if not answer.kind and (answer.page or answer.status in (404, 405)):
            raise answer.error("not-openai", "this is no OpenAI-compatible server", _other_server(answer))
        self._accepted(answer, None)
        if answer.kind:
            raise interrupted(answer)
        try:
            data = self._json(answer)["data"]
            models = [model for model in data if isinstance(model["id"], str)]
        except (ServerError, TypeError, KeyError, IndexError) as error:
            what = "this is no OpenAI-compatible server: no list of models under 'data'"
            raise answer.error("not-openai", what, _other_server(answer)) from error
        return models

    def _post_or_error(self, call: tuple[str, Mapping[str, Any]]) -> dict[str, Any] | ServerError:
        try:
            return self.post(*call)
        except ServerError as error:
            return error

    def _whole(self, method: str, route: str, body: Mapping[str, Any] | None) -> Answer:
        answer = self._exchange(method, route, body, read=True)
        self._accepted(answer, body)
        if answer.kind:
            raise interrupted(answer)
        return answer

    def _accepted(self, answer: Answer, body: Mapping[str, Any] | None) -> None:
        """Raises where no answer began, or it has a status other than 2xx."""
        if answer.status is None:
            raise interrupted(answer)
        if 200 <= answer.status < 300:
            return
        asked, served = (body or {}).get("model"), None
        if isinstance(asked, str) and answer.status in (400, 404):
            with contextlib.suppress(ServerError):  # only to enrich the error that is raised in any case
                served = self.models()
        raise refused_status(answer, asked if isinstance(asked, str) else None, served)

    def _json(self, answer: Answer) -> Any:
        trouble = sse.utf8_trouble(answer.body)
        if trouble:
            raise answer.error("not-json", trouble, _LOG)
        try:
            return json.loads(answer.body)
        except (ValueError, RecursionError) as error:
            what = "a web page, no JSON" if answer.page else f"the answer is no JSON ({error})"
            raise answer.error("not-json", what, _other_server(answer)) from error

    @staticmethod
    def _no_error(answer: Answer, found: Mapping[str, Any]) -> None:
        error = error_object(found)
        if error is not None:
            whole = dataclasses.replace(answer, body=json.dumps(error).encode())
            failure = whole.error("status", "the answer is an error object", _LOG)
            failure.status = error_status(error, answer.status)
            raise failure

    def _exchange(self, method: str, route: str, body: Mapping[str, Any] | None, *, read: bool) -> Answer:
        """One request and its answer, whatever became of it."""
        import httpx

        known: dict[str, Any] = {"method": method, "url": self.url, "route": route}
        parts: list[bytes] = []
        trouble = ("", "")
        with self._limited() as exchange:
            try:
                content = None if body is None else json.dumps(body).encode()
                request = self._http.build_request(
                    method, self.base + route, content=content, extensions={"trace": exchange.trace}
                )
                response = self._http.send(request, stream=True)
                try:
                    known |= _head(response)
                    if read:
                        self._read(response, parts)
                finally:
                    response.close()
            except _TooLarge as error:
                trouble = ("endless", str(error))
            except httpx.HTTPError as error:
                trouble = _classified(error, known.get("status") is not None)
        if exchange.expired:
            trouble = ("endless", f"the answer did not end within the deadline of {self._deadline:g} s")
        return Answer(**known, body=b"".join(parts), kind=trouble[0], trouble=trouble[1])

    def _read(self, response: httpx.Response, parts: list[bytes]) -> None:
        size = 0
        for part in response.iter_bytes():
            parts.append(part)
            size += len(part)
            if size > self._largest:
                raise _TooLarge(f"the answer is larger than {self._largest} bytes; it was cut there")

    @contextlib.contextmanager
    def _limited(self) -> Iterator[_Exchange]:
        """An exchange that is cut at the deadline, wherever it is: the read timeout begins anew with each byte."""
        exchange = _Exchange()
        timer = threading.Timer(self._deadline, exchange.expire)
        timer.daemon = True
        with self._lock:
            self._open.add(exchange)
        timer.start()
        try:
            yield exchange
        finally:
            timer.cancel()
            with self._lock:
                self._open.discard(exchange)

    def _abort(self) -> None:
        with self._lock:
            under_way = list(self._open)
        for exchange in under_way:
            exchange.cut()


_LOG = "look into the server's log; the answer above is what it sent"


class _TooLarge(Exception):
    pass


class _Exchange:
    """One request under way, with its socket, so that another thread can end it."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._cut = False
        self.expired = False

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """httpx's ``trace`` extension: told of each connection (www.python-httpx.org/advanced/extensions)."""
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            self._socket = info["return_value"].get_extra_info("socket")
            if self._cut:
                self.cut()

    def expire(self) -> None:
        self.expired = True
        self.cut()

    def cut(self) -> None:
        self._cut = True
        if self._socket is not None:
            with contextlib.suppress(OSError):  # closed already
                self._socket.shutdown(socket.SHUT_RDWR)


def _httpx() -> Any:
    try:
        import httpx
    except ImportError as error:
        raise EngineError(
            f"asking a server needs httpx, which cannot be imported: {error}",
            mend="pip install 'pytest-npuconf[server]'",
        ) from error
    return httpx


def _addresses(url: str) -> tuple[str, str, str]:
    """The base without ``/v1``; the same without a password, for messages; the host."""
    mend = "give it as http://HOST:PORT or https://HOST/PATH, with or without /v1"
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError as error:
        raise SettingsError(f"the endpoint {url!r} is no URL: {error}", mend=mend) from error
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or port == 0:
        raise SettingsError(f"the endpoint {url!r} is no server's URL", mend=mend)
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    bare = parts.netloc.rpartition("@")[2]
    return (
        urlunsplit((parts.scheme, parts.netloc, path, "", "")),
        urlunsplit((parts.scheme, bare, path, "", "")),
        parts.hostname,
    )


def authorization(key: str) -> dict[str, str]:
    """The header that carries the server's key; none where it is empty.

    Raises:
        SettingsError: a character that no header can carry.
    """
    if not key:
        return {}
    if not (key.isascii() and key.isprintable()):
        raise SettingsError(
            "the server's key holds a character that no HTTP header can carry (a line end?)",
            mend="set NPUCONF_API_KEY to the key alone",
        )
    return {"Authorization": f"Bearer {key}"}


def _headers(key: str) -> dict[str, str]:
    fixed = {"Content-Type": "application/json", "Accept-Encoding": "identity", "Connection": "close"}
    return {**fixed, **authorization(key)}


def _head(response: httpx.Response) -> dict[str, Any]:
    return {
        "status": response.status_code,
        "location": response.headers.get("location", ""),
        "content_type": response.headers.get("content-type", ""),
    }


def _classified(error: httpx.HTTPError, began: bool) -> tuple[str, str]:
    """Kind and words of a transport failure."""
    import httpx

    words = str(error) or type(error).__name__
    if isinstance(error, httpx.ConnectTimeout):
        return "timeout", f"no connection: {words}"
    if isinstance(error, httpx.TimeoutException):
        return "timeout", f"silence for longer than the timeout: {words}"
    if isinstance(error, (httpx.ConnectError, httpx.ProxyError)):
        return "refused", f"no connection: {words}"
    if isinstance(error, httpx.DecodingError):
        return "not-json", f"the answer's compression is damaged: {words}"
    if isinstance(error, httpx.RemoteProtocolError) and not began and "disconnected" not in words:
        return "not-openai", f"what listens there speaks no HTTP: {words}"
    return "closed", f"the connection was closed before the answer was whole: {words}"


def _other_server(answer: Answer) -> str:
    return f"name the URL of the OpenAI-compatible server (port?); to try: curl {answer.url}/v1/models"
