"""What a decode step of a checkpoint reads, from its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytest_npuconf.audit.counting import kv_bytes_per_token
from pytest_npuconf.engines.capacity import BYTES, cache_shape
from pytest_npuconf.errors import EngineError

EXPERTS = ("num_experts", "n_routed_experts", "num_local_experts")


@dataclass(frozen=True)
class Roof:
    """``weight_bytes`` of all devices together; ``kv_bytes_per_token``, 0 where the cache is not the plain one; ``dense``: every
    weight is read in every step; ``ranks``: devices that read side by side."""

    weight_bytes: float
    kv_bytes_per_token: float
    dense: bool
    ranks: int


def roof_of(config: Mapping[str, Any], parameters: int, dtype: str, ranks: int) -> Roof:
    """An embedding that is not tied to the head is looked up, not read: a row a token."""
    looked_up = 0
    if not config.get("tie_word_embeddings", False):
        looked_up = int(config.get("vocab_size") or 0) * int(config.get("hidden_size") or 0)
    each = BYTES[dtype]
    try:
        kv = kv_bytes_per_token(*cache_shape(config), each)
    except EngineError:
        kv = 0.0  # less to read makes the roof higher, never a false alarm
    dense = not any(config.get(name) for name in EXPERTS)
    return Roof(max(1, parameters - looked_up) * each, kv, dense, ranks)
