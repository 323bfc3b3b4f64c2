"""Faults of caches, batches and calls: a plain pass, alone, is whole or almost."""

from __future__ import annotations

from pytest_npuconf.faults import batches, cache, masks
from pytest_npuconf.faults.base import Fault

EVERY = ("float32", "bfloat16", "float16")
BATCH = "equivalence.batch"
CACHE = "equivalence.cache"
REPEAT = "equivalence.repeat"
MLP = "model.layers.{middle}.mlp"

CACHES = (
    Fault("kv-page-lost", "the first page of cached keys and values is zero", "128 tokens", CACHE, cache.lost_page,
          precisions=EVERY, seen="vllm-project/vllm#37152: a page read before it was written"),
    Fault("kv-page-stale", "the first page is what the request before left there", "128 tokens", CACHE, cache.stale_page,
          precisions=EVERY, seen="tenstorrent/vllm#415: prefix caching returns corrupted pages"),
    Fault("kv-pages-swapped", "the first two pages of the values, not of the keys, have changed places", "2 x 128 tokens", CACHE,
          cache.swapped_values, precisions=EVERY, seen="vllm-project/vllm#7018: a wrong block table"),
    Fault("kv-boundary-lost", "the first slot of a page is not written while decoding", "1 token of 128", CACHE,
          cache.boundary_lost),
    Fault("decode-ahead", "decode steps take the position after their own", "1 position", CACHE, cache.decode_ahead(),
          precisions=EVERY),
    Fault("kv-full-page", "the first token behind a prompt that fills its last page is not written", "1 token", CACHE,
          cache.full_page, seen="Wenyueh/MinivLLM#76: the slot is wrong where the length is a multiple of the page"),
    Fault("chunk-mask", "tokens that come at once behind cached ones see from the first key on", "every such call", CACHE,
          cache.chunk_mask, precisions=EVERY,
          seen="pytorch/executorch#21749, gittensor-ai-lab/sparkinfer#3: the mask of a later chunk is aligned to the top left"),
    Fault("decode-slots", "decode steps of left-padded rows take slots for positions", "the padding", CACHE, cache.decode_slots,
          precisions=EVERY, seen="unslothai/unsloth#3699: positions of prefill and decode disagree in left-padded rows"),
    Fault("kv-pages-permuted", "the first two pages of keys and values together have changed places", "2 x 128 tokens", CACHE,
          cache.swapped_pages,
          equivalent="attention sums over keys: where keys (rotated before they are cached) and values move together and the "
          "mask is full, as in a decode step, only the order of summation changes"),
)  # fmt: skip

BATCHES = (
    Fault("pad-side", "the padding mask is made for the other side", "every padded row", BATCH, masks.pad_side, precisions=EVERY),
    Fault("pads-seen", "padding is not masked", "every padded row", BATCH, masks.pads_seen, precisions=EVERY),
    Fault("left-pad-positions", "positions count the padding on the left", "every padded row", BATCH, masks.left_pad_positions,
          seen="unslothai/unsloth#3699: garbage for the shorter rows of a left-padded batch",
          equivalent="rotary embedding is relative: a row whose queries and keys are all moved by the same number of "
          "positions has the same scores"),
    Fault("left-pad-keys", "of left-padded rows keys are rotated by their slot, queries by their position", "the padding", BATCH,
          batches.keys_by_slot, precisions=EVERY,
          seen="unslothai/unsloth#3699: positions of prefill and decode disagree in left-padded rows"),
    Fault("batch-cross-talk", "one key/value head of one layer is the neighbouring row's", "1 head", BATCH, batches.cross_talk,
          precisions=EVERY, seen="vllm-project/vllm#27034: wrong answers with batches on AArch64"),
    Fault("even-batch-cross-talk", "the same, of batches that need no padding", "1 head", BATCH, batches.even_cross_talk,
          precisions=EVERY),
    Fault("batch-last-row", "the last row of a batch loses one layer's MLP", "1 row", BATCH, batches.last_row, precisions=EVERY),
)  # fmt: skip

CALLS = (
    Fault("mask-left-over", "keys beyond the length of the request before are not seen", "the difference", REPEAT, masks.left_over,
          precisions=EVERY, seen="vllm-project/vllm-ascend#1678: a short request pollutes the mask of all later ones"),
    Fault("first-call", "the first call loses one layer's MLP", "1 call", REPEAT, batches.first_call),
    Fault("nondeterminism", "one layer's MLP carries noise that is another on each call", "relative 2^-8", REPEAT,
          batches.noise(2.0**-8), seen="vllm-project/vllm-ascend#9373: Qwen3-4B differs from run to run at temperature 0",
          scaled=batches.noise, magnitudes=tuple(2.0**-k for k in range(20, 2, -2))),
    Fault("rows-past-256", "one layer's MLP is 5 % too big for the rows of a call past the 256th", "x1.05",
          "kl.positions, modules.noise_ratio",
          batches.rows_past_tile(0.05), module=MLP, beyond=batches.TILE, scaled=batches.rows_past_tile,
          magnitudes=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)),
    Fault("tile-edge", "one layer's MLP leaves out the first row past 256", "1 row", "kl.positions, modules.noise_ratio",
          batches.without_rows(batches.TILE, 1), module=MLP, beyond=batches.TILE),
    Fault("hole-past-700", "one layer's MLP leaves out 16 rows of a call, from row 700 on", "16 rows", "token.match",
          batches.without_rows(700, 16), module=MLP, beyond=700),
)  # fmt: skip

STATE: tuple[Fault, ...] = (*CACHES, *BATCHES, *CALLS)
