"""What an engine that serves must be able to do. The same verbs for a server behind HTTP and for vLLM's offline ``LLM``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from pytest_npuconf.cards.schema import Card, ServingMode
from pytest_npuconf.devices.base import Device
from pytest_npuconf.metrics.arrays import Float32
from pytest_npuconf.options import Settings
from pytest_npuconf.progress import Progress
from pytest_npuconf.weights.checkpoint import Checkpoint


@dataclass(frozen=True)
class Ask:
    """One request to go on from token ids. ``temperature`` 0 is greedy; ``top_k`` 0 is all words."""

    ids: tuple[int, ...]
    max_tokens: int = 16
    temperature: float = 0.0
    top_k: int = 0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False


@dataclass(frozen=True)
class Answer:
    """What came back. ``logprobs``: of each generated token, nats; ``finish``: ``stop``, ``length``, or what the server
    says; ``error``: why there is no answer (then the rest is empty). The counts are the server's own, None without."""

    text: str = ""
    ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    finish: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    error: str = ""


@runtime_checkable
class Served(Protocol):
    """A served model in one mode at one dtype."""

    name: str
    mode: str
    dtype: str
    max_model_len: int

    def complete(self, asks: Sequence[Ask], together: int = 1) -> list[Answer]:
        """The answers in the order of the questions; ``together``: how many are under way at once. A failed request is an
        answer with its ``error``, never repeated."""

    def samples(self, ask: Ask, count: int) -> list[Answer]:
        """``count`` answers to one question, drawn independently."""

    def top(self, ids: Sequence[int], k: int) -> list[dict[int, float]]:
        """For each position the log-probabilities (nats) of the ``k`` likeliest next tokens, and of the one that follows in
        ``ids``, by id; ``len(ids)`` rows.

        Raises:
            EngineError: the server gives no log-probabilities of a prompt.
        """

    def chat(self, messages: Sequence[Mapping[str, str]], max_tokens: int, thinking: bool) -> Answer:
        """The greedy answer through the model's chat template. Its ids are empty where the server does not tell them."""

    def embed(self, texts: Sequence[str], together: int = 1) -> Float32:
        """Embeddings, shape ``(texts, width)``, each text in a request of its own.

        Raises:
            EngineError: the mode embeds nothing.
        """

    def log_text(self) -> str:
        """What the engine printed, empty where it is somebody else's process."""

    def check_alive(self) -> None:
        """Whether it still answers.

        Raises:
            EngineError: it has ended or hangs; the last lines of its log are quoted.
        """

    def close(self) -> None:
        """End it; idempotent."""


@runtime_checkable
class ServingFactory(Protocol):
    """Starts served models; registered by name as any engine's factory."""

    name: str

    def check(self, card: Card, settings: Settings) -> None:
        """Whether the engine can run here.

        Raises:
            EngineError: not installed, or nothing answers at the endpoint, with the mend.
        """

    def serve(
        self, checkpoint: Checkpoint, card: Card, mode: ServingMode, device: Device, dtype: str, settings: Settings,
        progress: Progress, fault: Any,
    ) -> Served:  # fmt: skip
        """Start one mode of the card and wait until it answers.

        Args:
            fault: a fault of a server, or None.

        Raises:
            EngineError: it does not start; the last lines of its log are quoted.
        """

    def versions(self) -> dict[str, str]:
        """Versions of the packages behind this engine."""
