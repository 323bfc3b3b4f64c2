"""vLLM's offline ``LLM`` in a child process of ours: what it holds is given back when the process ends."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pytest_npuconf.cards.schema import Card, ServingMode
from pytest_npuconf.devices.base import Device
from pytest_npuconf.engines.launchers import VllmLauncher
from pytest_npuconf.engines.openai_client import Client
from pytest_npuconf.engines.served import Answer, Ask
from pytest_npuconf.engines.server_engine import check_httpx, start_process
from pytest_npuconf.engines.server_process import ServerProcess
from pytest_npuconf.engines.transformers_engine import TransformersFactory
from pytest_npuconf.errors import EngineError
from pytest_npuconf.metrics.arrays import Float32
from pytest_npuconf.options import Settings
from pytest_npuconf.progress import Progress
from pytest_npuconf.weights.checkpoint import Checkpoint

WORKER = "pytest_npuconf.engines.offline_worker"


class OfflineFactory:
    """See :class:`pytest_npuconf.engines.served.ServingFactory`."""

    name = "vllm"

    def __init__(self) -> None:
        self._versions: dict[str, str] = {}

    def check(self, card: Card, settings: Settings) -> None:
        launcher = VllmLauncher()
        launcher.check(settings.device)
        check_httpx()
        self._versions = launcher.versions()

    def serve(
        self, checkpoint: Checkpoint, card: Card, mode: ServingMode, device: Device, dtype: str, settings: Settings,
        progress: Progress, fault: Any = None,
    ) -> OfflineServed:  # fmt: skip
        if fault is not None:
            raise EngineError(
                f"fault {fault.name} breaks a server; engine vllm has none", mend="--npuconf-engine server"
            )
        launcher = VllmLauncher()
        process, seconds = start_process(
            launcher, lambda launch: [sys.executable, "-m", WORKER, *launcher.arguments(launch)], checkpoint, card, mode,
            device, dtype, settings, progress, name=f"vLLM offline, {mode.name}",
        )  # fmt: skip
        try:
            return OfflineServed(process, Client(process.url, timeout=settings.timeout), mode.name, dtype, seconds)
        except BaseException:
            process.close()
            raise

    def versions(self) -> dict[str, str]:
        return {**TransformersFactory().versions(), **self._versions}


class OfflineServed:
    """See :class:`pytest_npuconf.engines.served.Served`. The worker answers over a connection of its own on this host; that
    is no API of vLLM, and nothing of it is judged."""

    name = "vllm"

    def __init__(self, process: ServerProcess, client: Client, mode: str, dtype: str, start_seconds: float) -> None:
        self.mode, self.dtype, self.start_seconds = mode, dtype, start_seconds
        self._process, self._client = process, client
        self.max_model_len = int(client.get("/about")["max_model_len"])

    def complete(self, asks: Sequence[Ask], together: int = 1) -> list[Answer]:
        found: list[Answer] = []
        for start in range(0, len(asks), together):
            part = [dataclasses.asdict(ask) for ask in asks[start : start + together]]
            found += [_answer(one) for one in self._post("/complete", {"asks": part})["answers"]]
        return found

    def samples(self, ask: Ask, count: int) -> list[Answer]:
        return [
            _answer(one) for one in self._post("/complete", {"asks": [dataclasses.asdict(ask)], "n": count})["answers"]
        ]

    def top(self, ids: Sequence[int], k: int) -> list[dict[int, float]]:
        rows = self._post("/top", {"ids": list(ids), "k": k})["rows"]
        return [{int(i): float(p) for i, p in row.items()} for row in rows]

    def chat(self, messages: Sequence[Mapping[str, str]], max_tokens: int, thinking: bool) -> Answer:
        body = {"messages": list(messages), "max_tokens": max_tokens, "thinking": thinking}
        return _answer(self._post("/chat", body)["answers"][0])

    def embed(self, texts: Sequence[str], together: int = 1) -> Float32:
        rows = [row for start in range(0, len(texts), together)
                for row in self._post("/embed", {"texts": list(texts[start : start + together])})["rows"]]  # fmt: skip
        return np.asarray(rows, dtype=np.float32)

    def log_text(self) -> str:
        return self._process.log_text()

    def check_alive(self) -> None:
        self._process.check_alive()

    def close(self) -> None:
        self._client.close()
        self._process.close()

    def _post(self, route: str, body: Mapping[str, Any]) -> dict[str, Any]:
        self._process.check_alive()
        return self._client.post(route, body)


def _answer(found: Mapping[str, Any]) -> Answer:
    return Answer(**{**found, "ids": tuple(found["ids"]), "logprobs": tuple(found["logprobs"])})


def read_asks(text: bytes) -> dict[str, Any]:
    """The body of a request to the worker."""
    data: dict[str, Any] = json.loads(text)
    if "asks" in data:
        data["asks"] = [Ask(**{**ask, "ids": tuple(ask["ids"]), "stop": tuple(ask["stop"])}) for ask in data["asks"]]
    return data
