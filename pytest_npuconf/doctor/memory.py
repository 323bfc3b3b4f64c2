"""What a card needs in memory, as the run itself reckons it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_npuconf.audit.counting import kv_bytes_per_token
from pytest_npuconf.cards import Card
from pytest_npuconf.errors import WeightsError
from pytest_npuconf.options import WEIGHTS_VARIABLE, Settings, environment_path
from pytest_npuconf.plan import BYTES, WORKING_BYTES, needed_bytes
from pytest_npuconf.weights import Checkpoint, find_weights


@dataclass(frozen=True)
class Needed:
    """``parameters``: None where neither card nor checkpoint tells, and ``source`` says why. ``kv_numbers``: keys and values
    of one sequence at the model's full length, in numbers (not bytes), 0 where the card does not tell."""

    model: str
    parameters: int | None
    source: str
    precisions: tuple[str, ...]
    kv_numbers: int = 0

    def on_device(self, engine: str) -> dict[str, int]:
        """Bytes by part on a device of its own. vLLM starts only where one sequence of the full length fits."""
        widest = max(BYTES[precision] for precision in self.precisions)
        parts = {"weights": widest * (self.parameters or 0), "working memory": WORKING_BYTES}
        if engine == "vllm" and self.kv_numbers:
            parts["KV cache of one full sequence"] = widest * self.kv_numbers
        return parts

    def on_host(self, *, candidate: bool) -> dict[str, int]:
        """Bytes by part on the host: a live reference, and the candidate where it runs here too."""
        checkpoint = Checkpoint(Path(), {}, self.parameters or 0, 0, self.source)
        return needed_bytes(checkpoint, self.precisions, on_host=candidate)


def needed_of(card: Card, precisions: Sequence[str], environ: dict[str, str]) -> Needed:
    """From the card's count of parameters, else from the checkpoint's headers. Nothing is converted or downloaded."""
    chosen = tuple(precision for precision in (precisions or card.precisions) if precision in BYTES)
    kv = kv_numbers(card)
    if card.parameters is not None:
        return Needed(card.name, card.parameters, f"{card.path}: parameters", chosen, kv)
    if card.weights.package:
        return Needed(card.name, None, f"{card.path} has no parameters", chosen, kv)
    try:
        checkpoint = find_weights(
            card, Settings(weights_root=environment_path(environ, WEIGHTS_VARIABLE)), environ=environ
        )
    except WeightsError as error:
        return Needed(card.name, None, error.what.splitlines()[0], chosen, kv)
    return Needed(card.name, checkpoint.parameters, str(checkpoint.folder), chosen, kv)


def kv_numbers(card: Card) -> int:
    """``2 x layers x key/value heads x head size x longest sequence`` of the card's config, 0 where one of them is missing."""
    names = ("num_hidden_layers", "num_key_value_heads", "head_dim", "max_position_embeddings")
    values = [card.config.get(name) for name in names]
    if not all(isinstance(value, int) for value in values):
        return 0
    layers, heads, size, length = (int(value or 0) for value in values)
    return int(kv_bytes_per_token(layers, heads, size, 1)) * length
