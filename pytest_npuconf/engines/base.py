"""What an engine must be able to do. A new engine is one class behind this protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

from pytest_npuconf.cards.schema import Card
from pytest_npuconf.devices.base import Device
from pytest_npuconf.engines.execution import Executed
from pytest_npuconf.engines.modules import ModuleRunner
from pytest_npuconf.metrics.arrays import Float32
from pytest_npuconf.options import Settings
from pytest_npuconf.weights.checkpoint import Checkpoint

Padding = Literal["left", "right"]


class Forward(Protocol):
    """The result of one forward pass; logits are made on demand, some positions at a time."""

    @property
    def positions(self) -> int:
        """Number of positions."""

    def logits(self, start: int, stop: int) -> Float32:
        """Logits of positions ``start..stop-1``, shape ``(stop - start, vocabulary)``, float32 on the host."""


class Engine(Protocol):
    """A loaded model at one dtype on one device."""

    name: str
    device: Device
    dtype: str

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a plain text, with the special tokens that the tokenizer adds by default."""

    def forward(self, ids: Sequence[int]) -> Forward:
        """One pass over one sequence, no cache, batch 1."""

    def hidden_states(self, ids: Sequence[int], layers: Sequence[str]) -> Mapping[str, Float32]:
        """Outputs of the named modules of the decoder (``layers.0``, ``norm``) in one pass over one sequence, each of shape
        ``(positions, channels)``, float32 on the host.

        Raises:
            EngineError: the model has no such module.
        """

    def parameters(self) -> dict[str, tuple[str, str]]:
        """Dtype and device type of each floating-point parameter, as they are in the loaded model."""

    def close(self) -> None:
        """Give the model's memory back; idempotent."""


@runtime_checkable
class Chat(Protocol):
    """What an engine offers on top of :class:`Engine` when it can answer through the model's chat template."""

    def chat(self, messages: Sequence[Mapping[str, str]], max_new_tokens: int, thinking: bool) -> str:
        """The greedy text after the template's prompt, at most ``max_new_tokens`` long and without the end of the turn.

        It begins with ``<think>`` when the template itself opened the thought.

        Args:
            messages: each with ``role`` and ``content``.
            thinking: given to the template as ``enable_thinking``.

        Raises:
            EngineError: the model has no chat template.
        """


@runtime_checkable
class Batches(Protocol):
    """What an engine offers on top of :class:`Engine` when it can run padded batches and decode with a KV cache."""

    def forward_batch(self, rows: Sequence[Sequence[int]], padding: Padding) -> Sequence[Forward]:
        """One pass over several sequences, padded to the longest; the result of each, without its padding.

        Raises:
            EngineError: the model takes no attention mask; no rows, or an empty one.
        """

    def forward_cached(self, ids: Sequence[int], prefill: int) -> Forward:
        """The first ``prefill`` ids in one pass that fills the KV cache, then one at a time, teacher forced; the result has
        ``len(ids)`` positions.

        Raises:
            EngineError: the model has no cache, or ``prefill`` leaves nothing to decode.
        """

    def forward_decoded(self, rows: Sequence[Sequence[int]], prefills: Sequence[int]) -> Sequence[Forward]:
        """Several sequences as one batch: the first ``prefills[i]`` ids of each in one pass, padded on the left, then one id of
        each at a time, teacher forced; the result of each has ``len(rows[i])`` positions.

        Raises:
            EngineError: as :meth:`forward_cached`.
        """

    def forward_continued(self, ids: Sequence[int], cached: int) -> Forward:
        """The first ``cached`` ids in one pass that fills the KV cache, all others in one more, as in a conversation's next turn;
        the result has ``len(ids)`` positions.

        Raises:
            EngineError: as :meth:`forward_cached`.
        """


@runtime_checkable
class Watched(Protocol):
    """What an engine offers on top of :class:`Engine` when its ops are dispatched by torch in this process."""

    def executed(self, ids: Sequence[int]) -> Executed:
        """Where each op of a short pass and a few decode steps over these ids ran."""


@runtime_checkable
class Modules(Protocol):
    """What an engine offers on top of :class:`Engine` when its model is transformers' own, in this process, so that its
    modules can be fed one by one."""

    def modules(self) -> ModuleRunner:
        """Feeds the modules of the loaded model by their transformers names."""


@runtime_checkable
class EngineFactory(Protocol):
    """Makes engines; registered by name through the hook ``pytest_npuconf_engines``."""

    name: str

    def check(self, card: Card, settings: Settings) -> None:
        """Whether the engine can run here.

        Raises:
            EngineError: not installed, or cannot run what was asked, with the mend.
        """

    def load(self, checkpoint: Checkpoint, device: Device, dtype: str, settings: Settings) -> Any:
        """Load the model as an :class:`Engine`."""

    def versions(self) -> dict[str, str]:
        """Versions of the packages behind this engine."""
