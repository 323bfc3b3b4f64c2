"""What a serving engine says of its capacity, in its log or its metrics, and what the configuration implies.

Lines of vLLM (files of the wheels; the forms are read from them by ``tests/unit/test_capacity.py``):

- 0.18.0, v1/core/kv_cache_utils.py: ``GPU KV cache size: %s tokens`` and, in a line of its own, ``Maximum concurrency for %s
  tokens per request: %.2fx``; the tokens are whole blocks.
- 0.32.0, the same file: both in one line, with the device's name; the tokens are the concurrency times the length.
- model_loader/default_loader.py ``Loading weights took %.2f seconds``; v1/worker/gpu_model_runner.py ``Model loading took %s GiB
  memory and %.6f seconds`` (not on a CPU); v1/engine/core.py ``init engine (...) took %.2f`` seconds, or s.
- v1/worker/gpu_worker.py ``Available KV cache memory: %s GiB``; cpu_worker.py ``Explicitly set (%s/%s) GiB for KV cache``.
- vllm-ascend 0.18.0 and 0.23.0, worker/worker.py ``Available KV cache memory: %.2f GiB``; worker/model_runner_v1.py ``Loading
  model weights took %.4f GB``, which divides by 2**30: GiB.

``vllm:cache_config_info`` of ``/metrics`` has blocks and block size, which no line of these has.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from pytest_npuconf.audit.counting import GIB, kv_bytes_per_token
from pytest_npuconf.audit.families import ENCODER, named_in
from pytest_npuconf.errors import EngineError

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "fp8": 1, "fp8_e4m3": 1, "fp8_e5m2": 1, "int8": 1}
BLOCK = 128  # tokens; vLLM's on a CPU (platforms/cpu.py) and vllm-ascend's (utils.py, refresh_block_size)
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_NUMBER = r"([\d,]+(?:\.\d+)?)"
_LINES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (rf"KV cache size: {_NUMBER} tokens", ("kv_tokens",)),
    (rf"Maximum concurrency for {_NUMBER} tokens per request: {_NUMBER}x", ("concurrency_tokens", "concurrency")),
    (rf"(?:Available KV cache memory: |(?:Explicitly|Auto) set \(){_NUMBER}(?: GiB|/[\d.]+\) GiB for KV cache)", ("kv_gib",)),
    (rf"Model loading took {_NUMBER} GiB(?: memory)? and {_NUMBER} seconds", ("weights_gib", "model_seconds")),
    (rf"Loading model weights took {_NUMBER} GB", ("weights_gib",)),
    (rf"Checkpoint size: {_NUMBER} GiB", ("checkpoint_gib",)),
    (rf"Loading weights took {_NUMBER} seconds", ("load_seconds",)),
    (rf"init engine \([^)]*\) took {_NUMBER} s", ("init_seconds",)),
)  # fmt: skip
_LOWEST = ("kv_tokens", "concurrency", "kv_gib", "concurrency_tokens")
_WHOLE = ("kv_tokens", "concurrency_tokens", "kv_blocks", "block_size", "kv_bytes")
_INFO = re.compile(r"^vllm:cache_config_info\{(.*)\} ", re.MULTILINE)
_LABELS = {"num_gpu_blocks": "kv_blocks", "block_size": "block_size", "kv_cache_memory_bytes": "kv_bytes",
           "kv_cache_size_tokens": "kv_tokens", "kv_cache_max_concurrency": "concurrency"}  # fmt: skip


@dataclass(frozen=True)
class Reported:
    """What the engine said; None: it did not say.

    ``kv_tokens``: tokens that the KV cache holds. ``kv_blocks``: blocks, with the one that vLLM keeps back. ``block_size``:
    tokens. ``kv_gib``, ``kv_bytes``: memory for keys and values, per rank. ``concurrency``: requests of
    ``concurrency_tokens`` tokens. ``weights_gib``: memory of the loaded model, per rank; ``checkpoint_gib``: of its files.
    ``load_seconds``: reading the weights; ``model_seconds``: with building the model; ``init_seconds``: of the engine
    after that. Several ranks: the least capacity, the largest of the others.
    """

    kv_tokens: int | None = None
    kv_blocks: int | None = None
    block_size: int | None = None
    kv_gib: float | None = None
    kv_bytes: int | None = None
    concurrency: float | None = None
    concurrency_tokens: int | None = None
    weights_gib: float | None = None
    checkpoint_gib: float | None = None
    load_seconds: float | None = None
    model_seconds: float | None = None
    init_seconds: float | None = None

    def completed(self, other: Reported) -> Reported:
        """This, and what ``other`` says beyond it."""
        mine = {each.name: getattr(self, each.name) for each in fields(self)}
        return Reported(**{k: v if v is not None else getattr(other, k) for k, v in mine.items()})


def read_capacity(log: str) -> Reported:
    """Read the log of one start of vLLM, a server's or the offline ``LLM``'s."""
    found: dict[str, list[float]] = {}
    plain = _ANSI.sub("", log)
    for pattern, names in _LINES:
        for match in re.finditer(pattern, plain):
            for name, text in zip(names, match.groups(), strict=True):
                found.setdefault(name, []).append(float(text.replace(",", "")))
    return _reported({name: (min if name in _LOWEST else max)(values) for name, values in found.items()})


def read_cache_metrics(metrics: str) -> Reported:
    """Read ``/metrics`` of a running vLLM; of several engines behind one address, the first."""
    match = _INFO.search(metrics)
    if match is None:
        return Reported()
    labels = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match.group(1)))
    found = {name: labels.get(label, "") for label, name in _LABELS.items()}
    return _reported({name: float(text) for name, text in found.items() if re.fullmatch(r"\d+(\.\d+)?", text)})


def _reported(found: Mapping[str, float]) -> Reported:
    return Reported(**{name: int(value) if name in _WHOLE else value for name, value in found.items()})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Expected:
    """What a configuration and an amount of memory imply, per rank.

    ``token_bytes``: keys and values of one token. ``block_bytes``: of a block of ``block_size`` tokens. ``blocks``: whole
    blocks in the memory. ``tokens``: tokens in them, as vLLM 0.18 reports them. ``concurrency``: requests of
    ``max_model_len`` tokens, each in whole blocks. ``request_tokens``: ``concurrency x max_model_len`` cut to a whole
    number, as vLLM 0.32 reports the tokens; the same where ``max_model_len`` is whole blocks. ``weight_bytes``: None where
    the number of parameters was not given.
    """

    token_bytes: int
    block_size: int
    block_bytes: int
    blocks: int
    tokens: int
    concurrency: float
    request_tokens: int
    weight_bytes: int | None = None


def expected_capacity(
    config: Mapping[str, Any], dtype: str, kv_dtype: str, block_size: int, kv_bytes: int, max_model_len: int, *,
    tensor_parallel: int = 1, parameters: int | None = None,
) -> Expected:  # fmt: skip
    """The capacity of full attention with grouped heads.

    ``blocks = floor(kv_bytes / (block_size x 2 L K D b))`` and ``concurrency = blocks / ceil(max_model_len / block_size)``:
    get_max_concurrency_for_kv_cache_config in v1/core/kv_cache_utils.py of vLLM 0.18.0 and 0.32.0, for one group of layers.

    Args:
        config: a model's config.json, or a card's ``[config]``.
        dtype: of the weights.
        kv_dtype: ``auto`` for that of the weights.
        kv_bytes: memory for keys and values of one rank.
        tensor_parallel: each rank keeps its share of the key/value heads, at least one.
        parameters: of the whole model.

    Raises:
        EngineError: a dtype without a known size, or an attention that has another cache (see :func:`cache_shape`).
    """
    layers, heads, size = cache_shape(config)
    each = _width(dtype if kv_dtype == "auto" else kv_dtype)
    token_bytes = int(kv_bytes_per_token(layers, max(1, heads // tensor_parallel), size, each))
    block_bytes = block_size * token_bytes
    blocks = kv_bytes // block_bytes
    concurrency = blocks / math.ceil(max_model_len / block_size)
    weights = None if parameters is None else parameters * _width(dtype)
    return Expected(
        token_bytes,
        block_size,
        block_bytes,
        blocks,
        blocks * block_size,
        concurrency,
        int(concurrency * max_model_len),
        weights,
    )


def cache_shape(config: Mapping[str, Any]) -> tuple[int, int, int]:
    """Layers, key/value heads and head size of a decoder whose every layer keeps all keys and values.

    Raises:
        EngineError: another attention (latent, windowed, linear, or an encoder's), or a size that is missing.
    """
    kinds = set(config.get("layer_types") or ())
    other = [name for name in ("kv_lora_rank", "is_encoder_decoder", "num_kv_shared_layers") if config.get(name)]
    if ENCODER.search(named_in(config)):
        raise EngineError(f"{named_in(config)} is an encoder: it keeps no keys and values")
    windowed = config.get("sliding_window") and config.get("use_sliding_window", True)
    if other or windowed or kinds - {"full_attention"}:
        named = ", ".join([*other, *(["sliding_window"] if windowed else []), *sorted(kinds - {"full_attention"})])
        raise EngineError(f"the KV cache of {config.get('model_type', 'this model')} is not the plain one: {named}")
    heads, hidden = config.get("num_attention_heads"), config.get("hidden_size")
    size = config.get("head_dim") or (hidden // heads if hidden and heads else None)
    found = {"num_hidden_layers": config.get("num_hidden_layers"), "head_dim": size,
             "num_key_value_heads": config.get("num_key_value_heads", heads)}  # fmt: skip
    missing = [name for name, value in found.items() if not value]
    if missing:
        raise EngineError(
            f"the configuration has no {', '.join(missing)}: the size of the KV cache does not follow from it"
        )
    return int(found["num_hidden_layers"] or 0), int(found["num_key_value_heads"] or 0), int(found["head_dim"] or 0)


def kv_space_gib(config: Mapping[str, Any], dtype: str, max_model_len: int | None) -> int:
    """Whole GiB for a KV cache on a CPU: one request of the full length and the block that vLLM keeps back, at least 1 GiB
    (what VLLM_CPU_KVCACHE_SPACE counts); 1 where the configuration does not tell."""
    longest = max_model_len or config.get("max_position_embeddings")
    if not isinstance(longest, int):
        return 1
    try:
        one = expected_capacity(config, dtype, "auto", BLOCK, 0, longest)
    except EngineError:
        return 1  # vLLM says itself how much it lacks
    return max(1, math.ceil((math.ceil(longest / BLOCK) + 1) * one.block_bytes / GIB))


def _width(dtype: str) -> int:
    if dtype not in BYTES:
        raise EngineError(f"no size is known of a number of dtype {dtype}", mend=f"one of: auto, {', '.join(BYTES)}")
    return BYTES[dtype]
