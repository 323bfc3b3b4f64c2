"""What a decode step of a checkpoint reads, from its configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pytest_npuconf.audit.counting import kv_bytes_per_token
from pytest_npuconf.engines.capacity import BYTES, cache_shape
from pytest_npuconf.engines.command_lines import value_of
from pytest_npuconf.errors import EngineError
from pytest_npuconf.weights.checkpoint import Checkpoint

EXPERTS = ("num_experts", "n_routed_experts", "num_local_experts")
HEAD = "lm_head.weight"


@dataclass(frozen=True)
class Roof:
    """``weight_bytes`` of all devices together; ``kv_bytes_per_token``, 0 where the cache is not the plain one; ``dense``: every
    weight is read in every step; ``ranks``: devices that read side by side."""

    weight_bytes: float
    kv_bytes_per_token: float
    dense: bool
    ranks: int


def roof_of(checkpoint: Checkpoint, dtype: str, ranks: int, words: Sequence[str] = ()) -> Roof:
    """What is not sure to be read is left out: less to read makes the roof higher, and never a false alarm.

    An embedding that is not tied to the head is looked up, a row a token; a head that is stored beside the embedding that it is
    tied to is not read twice. Quantized weights are as many bytes as their files at most; where the server is told to quantize
    them (``words``) their size is not known, and of a mixture of experts not which are read.
    """
    config = {**checkpoint.config, **(checkpoint.config.get("text_config") or {})}
    tied = bool(config.get("tie_word_embeddings", False))
    table = int(config.get("vocab_size") or 0) * int(config.get("hidden_size") or 0)
    unread = 0 if tied and HEAD not in checkpoint.tensors else table
    each = BYTES[dtype]
    size = float(max(1, checkpoint.parameters - unread) * each)
    if config.get("quantization_config"):
        size = min(size, float(checkpoint.stored_bytes))
    try:
        kv = kv_bytes_per_token(*cache_shape(config), each)
    except EngineError:
        kv = 0.0
    other = any(config.get(name) for name in (*EXPERTS, "vision_config", "audio_config"))
    return Roof(size, kv, not other and value_of(words, "--quantization", "-q") is None, ranks)
