"""Faults of what a model computes and of its arithmetic: they show in a plain pass."""

from __future__ import annotations

from pytest_npuconf.faults import arithmetic, attention, masks, norms, rotary, weights
from pytest_npuconf.faults.base import Fault

EVERY = ("float32", "bfloat16", "float16")
FLOAT32 = ("float32",)
TINY = (1e-6, 1e-5, 1e-4)  # where a detection curve begins: float32 alone may see these
LOGITS = "kl.noise_ratio, modules.noise_ratio"
MASK = "kl.noise_ratio"
ROTARY = "model.rotary_emb"
ATTENTION = "model.layers.*.self_attn"

ROPE = (
    Fault("rope-base-tenth", "the base of the rotary embedding is ten times too small", "x0.1", LOGITS, rotary.scale_base(0.1),
          seen="deepspeedai/DeepSpeed#8345: transformers 5 moved rope_theta and readers fell back to 10000",
          module=ROTARY, precisions=EVERY),
    Fault("rope-base", "the base of the rotary embedding is 10 % too big", "x1.1", LOGITS, rotary.scale_base(1.1),
          seen="Open-Athena/MarinFold#184: a base 50 times too small, in silence", module=ROTARY, precisions=EVERY,
          scaled=lambda m: rotary.scale_base(1 + m), magnitudes=(*TINY, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)),
    Fault("rope-width", "rotary frequencies are made for a head twice as wide", "exponents halved", LOGITS, rotary.double_width,
          module=ROTARY, precisions=EVERY),
    Fault("rope-interleaved", "rotary embedding turns neighbours (GPT-J) where the weights have halves", "every pair",
          LOGITS, rotary.interleave, module=ATTENTION, precisions=EVERY,
          seen="ggml-org/llama.cpp#3018, jzhang38/TinyLlama#24: gibberish after a conversion"),
    Fault("rope-bf16-positions", "positions of the rotary embedding go through bfloat16", "exact to 256 only",
          f"{LOGITS}, kl.positions", rotary.bfloat16_positions, module=ROTARY, precisions=EVERY, beyond=256,
          seen="huggingface/candle#3520: wrong beyond 256 positions; huggingface/transformers#29285"),
    Fault("rope-bf16-frequencies", "inverse frequencies are kept in bfloat16", "relative 2^-9, times the position",
          LOGITS, rotary.bfloat16_frequencies, module=ROTARY, precisions=EVERY,
          seen="sgl-project/sglang-jax#1472"),
    Fault("rope-q-ahead", "queries are rotated for the next position", "1 position", LOGITS, rotary.off_by_one("q"),
          module=ATTENTION, precisions=EVERY),
    Fault("rope-k-ahead", "keys are rotated for the next position", "1 position", LOGITS, rotary.off_by_one("k"),
          module=ATTENTION, precisions=EVERY),
    Fault("rope-table-clamped", "the cosine table has 256 rows, positions beyond take the last", "256 of the window",
          f"{LOGITS}, kl.positions", rotary.clamp_table, module=ROTARY, precisions=EVERY, beyond=256,
          seen="vllm-project/vllm-ascend#1266: sine/cosine cache shorter than the model's positions"),
    Fault("rope-table-wrapped", "the cosine table has 256 rows, positions beyond begin again", "256 of the window",
          f"{LOGITS}, kl.positions", rotary.wrap_table, module=ROTARY, precisions=EVERY, beyond=256,
          seen="vllm-project/vllm-ascend#1266: sine/cosine cache shorter than the model's positions"),
)  # fmt: skip

NORMS = (
    Fault("qk-norm-missing", "queries and keys are not normed", "every layer", LOGITS, norms.no_qk_norm,
          module="model.layers.*.self_attn.?_norm", precisions=EVERY,
          seen="lmstudio-ai/mlx-engine#283: an engine without the norms of Qwen3; unslothai/unsloth#2427"),
    Fault("norm-eps-1e-5", "norms have the epsilon 1e-5", "1e-5", LOGITS, norms.set_epsilon(1e-5),
          module="model.*norm*", precisions=FLOAT32,
          seen="Wenyueh/MinivLLM#82: 1e-5 for the 1e-6 of Qwen3",
          scaled=norms.scale_epsilon, magnitudes=(1.0, 9.0, 99.0, 999.0, 9999.0)),
    Fault("norm-eps-1e-6", "norms have the epsilon 1e-6", "1e-6", LOGITS, norms.set_epsilon(1e-6),
          module="model.*norm*", precisions=FLOAT32,
          seen="ggml-org/llama.cpp#2373: 1e-6 hard-coded, LLaMA 2 has 1e-5"),
    Fault("norm-one-plus-weight", "norms multiply by 1 + weight, as Gemma's do", "every norm", LOGITS, norms.one_plus_weight,
          module="model.*norm*", precisions=EVERY,
          seen="linkedin/Liger-Kernel#74: the offset of Gemma's norm, mistaken the other way"),
    Fault("nan-weight", "one element of one norm weight is NaN", "1 element", "logits.finite", norms.poison_weight,
          module="model.layers.{middle}.*norm", precisions=EVERY),
    Fault("nan-to-zero", "one element of one norm weight is NaN and the device makes NaN zero", "1 channel", LOGITS,
          norms.nan_to_zero, module="model.layers.{middle}.*norm",
          seen="DeepLink-org/DIOPI#644: NaN and Inf do not show where Ascend saturates"),
)  # fmt: skip

ATTENTIONS = (
    Fault("attention-scale", "attention scores are scaled by 1.5", "x1.5", LOGITS, attention.scale(1.5),
          module=ATTENTION, precisions=EVERY,
          seen="mlc-ai/mlc-llm#3426: 1/sqrt(d) left out on one path"),
    Fault("attention-scale-2%", "attention scores are scaled by 1.02", "x1.02", LOGITS, attention.scale(1.02),
          module=ATTENTION, precisions=EVERY, scaled=lambda m: attention.scale(1 + m),
          magnitudes=(*TINY, 0.0003, 0.001, 0.003, 0.01, 0.02, 0.05, 0.1, 0.5)),
    Fault("gqa-tiled", "key/value heads are tiled where they should be repeated", "every layer", LOGITS, attention.tile_heads,
          module=ATTENTION, precisions=EVERY,
          seen="onnx/onnx#7274: Tile in the definition of attention; ekzhang/jax-js#180"),
    Fault("scores-bf16", "attention scores are rounded to bfloat16", "relative 2^-9", "modules.noise_ratio, logits.rel_l2",
          attention.scores_in("bfloat16"), module=ATTENTION, precisions=FLOAT32,
          seen="huggingface/transformers#33317: perplexity 8.0 for 7.1 with eager attention in bfloat16"),
    Fault("softmax-bf16", "softmax is computed in bfloat16, sums and all", "relative 2^-9, accumulated", LOGITS,
          attention.softmax_in("bfloat16"), module=ATTENTION, precisions=("float32", "float16"),
          seen="huggingface/transformers#24519: whether softmax may stay in bfloat16"),
    Fault("softmax-fp16", "softmax is computed in float16, sums and all", "relative 2^-12, accumulated",
          "modules.noise_ratio, logits.rel_l2", attention.softmax_in("float16"), module=ATTENTION, precisions=FLOAT32,
          seen="mit-han-lab/llm-awq#69: attention in float16, infinities"),
)  # fmt: skip

MASKS = (
    Fault("mask-ahead", "each position sees the next one", "1 position", MASK, masks.one_ahead,
          module="attention_mask", precisions=EVERY),
    Fault("mask-self-excluded", "no position sees itself", "1 position", MASK, masks.self_excluded,
          module="attention_mask", precisions=EVERY),
    Fault("mask-sink-dropped", "the first token is not seen from position 16 on", "1 token", MASK, masks.sink_dropped,
          module="attention_mask", precisions=EVERY,
          seen="huggingface/transformers#40524: much higher perplexity where the first token is not seen"),
    Fault("window-imposed", "a window of 256 where the model has full attention", "256 positions", "kl.positions",
          masks.window_imposed, module="attention_mask", beyond=256,
          seen="InternLM/lmdeploy#3614: use_sliding_window of Qwen2 not obeyed"),
    Fault("window-ignored", "layers with a sliding window see everything", "the whole context", "kl.positions",
          masks.window_ignored, module="attention_mask", seen="vllm-project/vllm#14896: interleaved windows not detected"),
    Fault("window-short", "the sliding window is one position too small", "1 position", "kl.positions",
          masks.window_short, module="attention_mask", seen="ModelTC/LightLLM#1312: a wrong window size in a kernel"),
)  # fmt: skip

ARITHMETIC = (
    Fault("accumulate-bf16", "partial sums of matrix products are kept in bfloat16", "relative 2^-9, each 32 products",
          LOGITS, arithmetic.accumulate_in("bfloat16"), module="model.layers.*_proj", precisions=EVERY,
          seen="modular/modular#7165: split-K in the output's dtype, up to 40 % off; pytorch/pytorch#188998",
          scaled=arithmetic.accumulate_to, magnitudes=tuple(2.0**-k for k in range(24, 5, -2))),
    Fault("accumulate-fp16", "partial sums of matrix products are kept in float16", "relative 2^-12, each 32 products",
          "modules.noise_ratio, logits.rel_l2", arithmetic.accumulate_in("float16"), module="model.layers.*_proj",
          precisions=FLOAT32, seen="flagos-ai/FlagGems#5876: partial sums added in the output's dtype"),
    Fault("tf32", "inputs of float32 products are cut to ten bits", "relative 2^-10", "logits.rel_l2, modules.noise_ratio",
          arithmetic.truncate_inputs(arithmetic.to_zero, 10), module="model.layers.*", precisions=FLOAT32,
          seen="pytorch/pytorch#67384: TF32 on by default"),
    Fault("hf32", "inputs of float32 products are rounded to ten bits", "relative 2^-11", "logits.rel_l2, modules.noise_ratio",
          arithmetic.truncate_inputs(arithmetic.to_nearest, 10), module="model.layers.*", precisions=FLOAT32,
          seen="hw-native-sys/PTOAS#990: HF32 of Ascend's cube unit, 19 bits in all, to zero or to even"),
    Fault("saturation", "a flipped exponent bit of one weight; the device saturates at 65504 instead of Inf", "1 weight x2^14",
          LOGITS, weights.saturate, module="model.layers.{middle}.mlp.down_proj", precisions=EVERY,
          seen="DeepLink-org/DIOPI#644, DeepLink-org/deeplink.framework#684: overflow is 65504 on Ascend by default"),
)  # fmt: skip

WEIGHTS = (
    Fault("skipped-layer", "the middle decoder layer returns its input", "1 layer", LOGITS, weights.skip_layer,
          module="model.layers.{middle}", precisions=EVERY),
    Fault("wrong-activation", "MLPs are gated by GELU for SiLU", "every layer", LOGITS, weights.gelu,
          module="model.layers.*.mlp*", precisions=EVERY,
          seen="vllm-project/vllm#3411, huggingface/transformers#29402: another GELU than the model's"),
    Fault("gate-up-swapped", "gate and up projections have changed places", "every layer", LOGITS, weights.swap_gate,
          module="model.layers.*.mlp*", precisions=EVERY),
    Fault("dead-weight-row", "one row of one MLP weight is zero", "1 of all rows", "modules.noise_ratio, logits.rel_l2",
          weights.dead_rows(1), module="model.layers.{middle}.mlp.up_proj", precisions=FLOAT32,
          scaled=weights.dead_rows, magnitudes=(1 / 256, 1 / 64, 1 / 16, 1 / 4, 1.0, 4.0, 16.0, 64.0, 128.0)),
    Fault("stale-head", "the head is another copy of the tied embedding, 10 % off", "relative 0.1", LOGITS,
          weights.stale_head(0.1), module="lm_head", precisions=EVERY, scaled=weights.stale_head,
          magnitudes=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3),
          seen="huggingface/transformers#43429: lm_head not tied to the embedding; vllm-project/vllm#5621"),
    Fault("int8-per-tensor", "projections are kept in eight bits with one scale for each tensor", "1/254 of the greatest weight",
          LOGITS, weights.int8_per_tensor, module="model.layers.*_proj", precisions=EVERY),
    Fault("int8-scale", "the scale of one tensor is 5 % too big", "x1.05", "modules.noise_ratio", weights.int8_scale(0.05),
          module="model.layers.{middle}.mlp.up_proj", precisions=EVERY, scaled=weights.int8_scale,
          magnitudes=(*TINY, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.05, 0.1, 0.3)),
    Fault("int4-nibbles", "one tensor is kept in four bits and the halves of each byte are swapped", "1 tensor", LOGITS,
          weights.nibbles, module="model.layers.{middle}.mlp.up_proj", precisions=EVERY,
          seen="amd/Quark#30: packed in one order, read in another"),
)  # fmt: skip

STRUCTURE: tuple[Fault, ...] = (*ROPE, *NORMS, *ATTENTIONS, *MASKS, *ARITHMETIC, *WEIGHTS)
