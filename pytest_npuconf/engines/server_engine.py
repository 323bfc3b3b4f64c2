"""An OpenAI-compatible server behind HTTP: started as the card says, or already running at an endpoint."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pytest_npuconf.answers import THINK, THINK_END
from pytest_npuconf.cards.schema import Card, ServingMode
from pytest_npuconf.devices.base import Device
from pytest_npuconf.engines.launchers import Launch, Launcher, launcher_of
from pytest_npuconf.engines.openai_client import Client
from pytest_npuconf.engines.served import Answer, Ask
from pytest_npuconf.engines.server_process import ServerProcess, free_port
from pytest_npuconf.engines.transformers_engine import TransformersFactory
from pytest_npuconf.errors import EngineError, FaultError, ServerError
from pytest_npuconf.metrics.arrays import Float32
from pytest_npuconf.options import Settings
from pytest_npuconf.progress import Progress
from pytest_npuconf.weights.checkpoint import Checkpoint

HOST = "127.0.0.1"
QUICK = 10.0  # seconds for a question that needs no model
# A server that computes on the CPU keeps every core busy, and its client then waits for one while whole answers pass: it measured
# 270 ms to a first token where the server's own metrics said 8. So such a server gives way.
NICE = 10
TOKEN_ID = "token_id:"  # how vLLM spells a token under return_tokens_as_token_ids


class ServerFactory:
    """See :class:`pytest_npuconf.engines.served.ServingFactory`."""

    name = "server"

    def __init__(self) -> None:
        self._versions: dict[str, str] = {}

    def check(self, card: Card, settings: Settings) -> None:
        if settings.endpoints:
            check_httpx()
            for mode, url in settings.endpoints:
                if card.serving.mode(mode) is None:
                    raise EngineError(
                        f"--npuconf-endpoint {mode}={url}: {card.name} has no mode {mode!r}",
                        mend=f"one of: {', '.join(m.name for m in card.serving.modes)}",
                    )
                served_name(url, card)
            return
        launcher = launcher_of(card.serving.server)
        launcher.check(settings.device)
        check_httpx()
        self._versions = launcher.versions()

    def serve(
        self, checkpoint: Checkpoint, card: Card, mode: ServingMode, device: Device, dtype: str, settings: Settings,
        progress: Progress, fault: Any = None,
    ) -> HttpServed:  # fmt: skip
        url, words = dict(settings.endpoints).get(mode.name), () if fault is None else fault.arguments
        if url is not None:
            if words:
                raise FaultError(f"fault {fault.name} is in the server's own process", mend="drop --npuconf-endpoint")
            return HttpServed(
                url, served_name(url, card), mode.name, dtype, None, fault, 0.0, settings.timeout,
                longest=card.serving.max_model_len,
            )  # fmt: skip
        launcher = launcher_of(card.serving.server)
        process, seconds = start_process(
            # the fault's words are ours, so they are not held against what a card may ask for
            launcher, lambda launch: [*launcher.command(launch), *words], checkpoint, card, mode, device, dtype, settings,
            progress, name=f"{card.serving.server}, {mode.name}",
        )  # fmt: skip
        try:
            return HttpServed(process.url, card.name, mode.name, dtype, process, fault, seconds,
                              settings.timeout, longest=card.serving.max_model_len)  # fmt: skip
        except BaseException:
            process.close()
            raise

    def versions(self) -> dict[str, str]:
        return {**TransformersFactory().versions(), **self._versions}


def start_process(
    launcher: Launcher, command: Callable[[Launch], list[str]], checkpoint: Checkpoint, card: Card, mode: ServingMode,
    device: Device, dtype: str, settings: Settings, progress: Progress, *, name: str,
) -> tuple[ServerProcess, float]:  # fmt: skip
    """Start one mode of the card on a free port and wait until it answers; the process and the seconds that it took.

    Args:
        command: the words that start it, program first.
        name: of the process, in messages.

    Raises:
        EngineError: it does not start; the last lines of its log are quoted.
    """
    port = free_port(HOST)
    launch = Launch(
        weights=checkpoint.folder, served_name=card.name, host=HOST, port=port, dtype=dtype, environment={},
        max_model_len=card.serving.max_model_len, arguments=arguments_of(card, mode), device=device.name,
        trust_remote_code=settings.trust_remote_code,
    )  # fmt: skip
    process = ServerProcess(
        command(launch), launcher.environment(launch), f"http://{HOST}:{port}", launcher.ready_route,
        log_file(settings, card, dtype, mode), name=name, nice=NICE if device.name == "cpu" else 0,
    )  # fmt: skip
    seconds = process.start(progress.step)
    progress.phase(f"{card.name}, {dtype}, mode {mode.name}: ready after {seconds:.0f} s")
    return process, seconds


def arguments_of(card: Card, mode: ServingMode) -> tuple[str, ...]:
    """The card's words for one mode of the server."""
    template = ("--chat-template", str(mode.template)) if mode.template is not None else ()
    return (*card.serving.arguments, *mode.arguments, *template)


def log_file(settings: Settings, card: Card, dtype: str, mode: ServingMode) -> Path:
    """Where a server's log is kept: beside the results, else in the cache."""
    folder = settings.results.parent if settings.results is not None else settings.cache / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"server-{card.name}-{dtype}-{mode.name}.log"


def check_httpx() -> None:
    """Refuse to go on without the package that speaks HTTP.

    Raises:
        EngineError: it is not installed.
    """
    try:
        importlib.metadata.version("httpx")
    except importlib.metadata.PackageNotFoundError as error:
        raise EngineError(
            "engine server: the package httpx is not installed in this Python",
            mend="pip install 'pytest-npuconf[server]'",
        ) from error


def served_name(url: str, card: Card) -> str:
    """What the server at ``url`` calls the card's model: its name, or whatever is served alone.

    Raises:
        EngineError: nobody answers as an OpenAI-compatible server does, or several models are served and none has the name.
    """
    with Client(url, timeout=QUICK) as client:
        names = client.models()
    if card.name in names:
        return card.name
    if len(names) == 1:
        return names[0]
    raise EngineError(
        f"{client.url} serves {', '.join(names) or 'nothing'}, and none of it is called {card.name}",
        mend=f"start it with --served-model-name {card.name}",
    )


class HttpServed:
    """See :class:`pytest_npuconf.engines.served.Served`; ``start_seconds`` until it was ready, 0 where it ran already."""

    name = "server"

    def __init__(
        self, url: str, model: str, mode: str, dtype: str, process: ServerProcess | None, fault: Any,
        start_seconds: float, timeout: float, *, longest: int | None = None,
    ) -> None:  # fmt: skip
        self.model, self.mode, self.dtype, self.start_seconds = model, mode, dtype, start_seconds
        self._process = process
        self._proxy = None if fault is None else fault.in_front_of(url)
        self.url = url if self._proxy is None else self._proxy.url
        self.client = Client(self.url, timeout=timeout)
        try:
            self.max_model_len = self._longest(longest)
        except BaseException:
            self._release()
            raise

    def _longest(self, stated: int | None) -> int:
        found = self.client.max_model_len(self.model) or stated
        if found is None:
            raise EngineError(
                f"{self.url} does not say how many tokens it takes (max_model_len in /v1/models)",
                mend="say it in the card: [serving] max_model_len = ...",
            )
        return found

    def complete(self, asks: Sequence[Ask], together: int = 1) -> list[Answer]:
        calls = [("/v1/completions", self._body(ask)) for ask in asks]
        return [_answer(found) for found in self._all(calls, together)]

    def samples(self, ask: Ask, count: int) -> list[Answer]:
        found = self.client.post("/v1/completions", {**self._body(ask), "n": count})
        choices = found.get("choices")
        if not isinstance(choices, list):
            raise self._misshapen("/v1/completions", f"no list of choices in {str(found)[:200]}")
        return [_answer({**found, "choices": [choice]}) for choice in choices]

    def top(self, ids: Sequence[int], k: int) -> list[dict[int, float]]:
        body = {**self._body(Ask(tuple(ids), max_tokens=1, ignore_eos=True)), "logprobs": k, "prompt_logprobs": k,
                "return_tokens_as_token_ids": True}  # fmt: skip
        found = self.client.post("/v1/completions", body)
        try:
            return self._rows(found, len(ids))
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise self._misshapen(
                "/v1/completions", f"{type(error).__name__}: {error} in {str(found)[:200]}"
            ) from error

    def _rows(self, found: Mapping[str, Any], positions: int) -> list[dict[int, float]]:
        [choice] = found["choices"]
        prompt, last = choice.get("prompt_logprobs"), (choice.get("logprobs") or {}).get("top_logprobs")
        if not prompt or len(prompt) != positions or not last:
            raise EngineError(
                f"{self.url}/v1/completions gives no log-probabilities of a prompt (prompt_logprobs, logprobs)",
                mend="serve it with vLLM, or name what decides under [required] server = [...] in the card",
            )
        rows = [{int(i): float(one["logprob"]) for i, one in row.items()} for row in prompt[1:]]
        return [*rows, {int(word.removeprefix(TOKEN_ID)): float(p) for word, p in last[0].items()}]

    def chat(self, messages: Sequence[Mapping[str, str]], max_tokens: int, thinking: bool) -> Answer:
        [found] = self._all([("/v1/chat/completions", self.chat_body(messages, max_tokens, thinking))], 1)
        return _answer(found, chat=True)

    def chat_body(self, messages: Sequence[Mapping[str, str]], max_tokens: int, thinking: bool) -> dict[str, Any]:
        """The request of a greedy chat."""
        return {
            "model": self.model, "messages": list(messages), "max_tokens": max_tokens, "temperature": 0.0,
            "chat_template_kwargs": {"enable_thinking": thinking}, "return_token_ids": True,
        }  # fmt: skip

    def embed(self, texts: Sequence[str], together: int = 1) -> Float32:
        calls = [("/v1/embeddings", {"model": self.model, "input": [text]}) for text in texts]
        rows = []
        for found in self._all(calls, together):
            if isinstance(found, ServerError):
                raise found
            rows.append(found)
        try:
            vectors = [found["data"][0]["embedding"] for found in rows]
            return np.asarray(vectors, dtype=np.float32).reshape(len(rows), -1 if rows else 0)
        except (LookupError, TypeError, ValueError) as error:  # ValueError: not all of one width
            raise self._misshapen("/v1/embeddings", f"{type(error).__name__}: {error} in {str(rows)[:200]}") from error

    def _misshapen(self, route: str, why: str) -> ServerError:
        return ServerError(
            f"POST {self.url}{route}: not as OpenAI's interface says: {why}", kind="not-openai", route=route,
            mend="name the URL of an OpenAI-compatible server, or look into its log",
        )  # fmt: skip

    def log_text(self) -> str:
        return self._process.log_text() if self._process is not None else ""

    def processes(self) -> set[int]:
        """Process ids of the server; empty where somebody else started it."""
        return self._process.processes() if self._process is not None else set()

    def check_alive(self) -> None:
        if self._process is not None:
            self._process.check_alive()
        with Client(self.url, timeout=QUICK) as client:
            client.models()

    def close(self) -> None:
        try:
            self._release()
        finally:
            if self._process is not None:
                self._process.close()

    def _release(self) -> None:
        self.client.close()
        if self._proxy is not None:
            self._proxy.close()

    def _all(self, calls: Sequence[tuple[str, Mapping[str, Any]]], together: int) -> list[dict[str, Any] | ServerError]:
        found = self.client.together(calls, together)
        if self._process is not None and any(isinstance(one, ServerError) for one in found):
            self._process.check_alive()
        for one in found:
            if isinstance(one, ServerError) and one.kind == "timeout":
                raise one  # what hangs would make each of the other requests wait as long
        return found

    def _body(self, ask: Ask) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model, "prompt": list(ask.ids), "max_tokens": ask.max_tokens, "temperature": ask.temperature,
            "logprobs": 0, "return_token_ids": True,
        }  # fmt: skip
        more = {"top_k": ask.top_k or None, "seed": ask.seed, "stop": list(ask.stop) or None}
        return (
            body | {k: v for k, v in more.items() if v is not None} | ({"ignore_eos": True} if ask.ignore_eos else {})
        )


def _answer(found: dict[str, Any] | ServerError, *, chat: bool = False) -> Answer:
    if isinstance(found, ServerError):
        return Answer(error=f"{found.kind}: {found.what}")
    try:
        [choice] = found["choices"]
        usage = found.get("usage") or {}
        return Answer(
            text=text_of_message(choice["message"]) if chat else _text(choice["text"]),
            ids=tuple(choice.get("token_ids") or ()),
            logprobs=tuple((choice.get("logprobs") or {}).get("token_logprobs") or ()),
            finish=str(choice.get("finish_reason")),
            prompt_tokens=usage.get("prompt_tokens"),
            completion_tokens=usage.get("completion_tokens"),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return Answer(error=f"not-openai: {type(error).__name__}: {error} in {str(found)[:200]}")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"the text is {value!r}")
    return value


def text_of_message(message: Mapping[str, Any]) -> str:
    """The whole text of a chat message: a reasoning parser moves the thought into a field of its own."""
    thought = message.get("reasoning") or message.get("reasoning_content")
    text = message.get("content") or ""
    return f"{THINK}{thought}{THINK_END}{text}" if thought else text
