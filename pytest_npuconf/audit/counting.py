"""Parameters, weight bytes and KV bytes from a configuration: plain arithmetic, each formula with where it comes from.

Sources: the modules of transformers that build these layers (models/llama, models/qwen2, models/qwen3, models/qwen3_moe,
models/bert, models/xlm_roberta), read layer by layer.
"""

from __future__ import annotations

from dataclasses import dataclass

GIB = 2**30
GB = 10**9


@dataclass(frozen=True)
class Decoder:
    """A decoder with grouped-query attention and a gated MLP (Llama, Mistral, Qwen2, Qwen2.5, Qwen3, InternLM2, Yi …)."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    experts: int = 0
    experts_used: int = 0
    expert_intermediate: int = 0
    shared_intermediate: int = 0
    dense_layers: int = 0
    """Of a mixture: how many of the first layers have the dense MLP."""


@dataclass(frozen=True)
class Count:
    """Parameters by what they are: ``total`` with the output head, ``body`` without embedding and head."""

    total: int
    body: int
    active: int
    uncertain: int
    """At most this many more: biases of q, k, v, o and norms of q and k, which a card does not state."""


def count_decoder(d: Decoder, *, qk_norm: bool = False, qkv_bias: bool = False) -> Count:
    """Per layer ``2 h H D + 2 h K D`` (q, o; k, v) + ``3 h i`` (gate, up, down) + two norms ``2 h``; then the last norm ``h``,
    the embedding ``V h``, and the head ``V h`` unless tied. Of a mixture ``E (3 h m)`` and the router ``h E`` stand for
    the dense MLP, and ``h`` for the gate of a shared expert.
    """
    attention = 2 * d.hidden * d.head_dim * (d.heads + d.kv_heads) + 2 * d.hidden
    extra = (d.heads + 2 * d.kv_heads) * d.head_dim
    attention += 2 * d.head_dim if qk_norm else 0
    attention += extra if qkv_bias else 0
    dense = 3 * d.hidden * d.intermediate
    sparse = active = dense
    if d.experts:
        shared = 3 * d.hidden * d.shared_intermediate + (d.hidden if d.shared_intermediate else 0)
        one = 3 * d.hidden * d.expert_intermediate
        sparse = d.experts * (one + d.hidden) + shared
        active = d.experts_used * one + d.experts * d.hidden + shared
    sparse_layers = d.layers - d.dense_layers if d.experts else d.layers
    other = (d.layers - sparse_layers) * dense + d.layers * attention + d.hidden
    body = other + sparse_layers * sparse
    embedding = d.vocabulary * d.hidden * (1 if d.tied else 2)
    uncertain = d.layers * (extra + d.hidden + 2 * d.head_dim)
    return Count(body + embedding, body, other + sparse_layers * active + embedding, uncertain)


def count_encoder(hidden: int, intermediate: int, layers: int, vocabulary: int, positions: int, types: int) -> Count:
    """BERT and XLM-R: embeddings ``(V + P + T) h + 2 h``; per layer four projections with bias, two norms and an MLP with
    bias ``4 (h^2 + h) + 2 h i + i + h + 4 h``. The pooler ``h^2 + h`` may be there or not (``uncertain``).
    """
    embedding = (vocabulary + positions + types) * hidden + 2 * hidden
    layer = 4 * (hidden * hidden + hidden) + 2 * hidden * intermediate + intermediate + hidden + 4 * hidden
    body = layers * layer
    return Count(embedding + body, body, embedding + body, hidden * hidden + hidden)


def kv_bytes_per_token(layers: int, kv_heads: int, head_dim: int, bytes_each: float) -> float:
    """``2 L K D b``: a key and a value of ``K D`` numbers in each layer."""
    return 2 * layers * kv_heads * head_dim * bytes_each
