"""Families of models by their names: whose layers the count of parameters knows, and whose it does not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

QWEN3 = re.compile(r"\bqwen3\b|qwen3(?=[-_. ]?\d|for|_?moe)", re.IGNORECASE)
# What makes the plain count of a decoder wrong, or the KV cache another one.
OTHER_SHAPES = re.compile(
    r"\bMLA\b|multi-head latent|kv_lora_rank|linear[ _]attention|线性注意力|"
    r"DeltaNet|Qwen3[-_]?Next|Qwen3\.5|Mamba|RWKV|sliding[ _]window|"
    r"滑动窗口"
    r"|DeepSeek[-_ ]?(V[23]|R1)(?![-_ ]?Distill)|gemma[-_ ]?[23]|gpt[-_]oss|"
    r"GLM-4\.5|Kimi|MiniMax|cross[-_ ]attention|encoder-decoder|whisper|"
    r"\bT5\b",
    re.IGNORECASE,
)
VISION = re.compile(
    r"[-_ ]VL\b|视觉编码器|vision[_ ](encoder|config|tower)|\bViT\b|多模态|multimodal|"
    r"InternVL|LLaVA|Omni|[-_ ]Audio|\bASR\b|\bTTS\b", re.IGNORECASE)  # fmt: skip
ENCODER = re.compile(
    r"\b(Bert|XLMRoberta|Roberta)(Model|For\w+)\b|\bbge-(?!reranker-v2-gemma|multilingual|en-icl)|XLM-R", re.IGNORECASE
)
QWEN2 = re.compile(r"qwen(1\.5|2(\.5)?)\b|qwen2for|qwen2_?moe|QwQ|DeepSeek-R1-Distill-Qwen", re.IGNORECASE)
FAMILIES = re.compile(

        r"qwen(1\.5|2(\.5)?|3)|qwq|llama|mistral|mixtral|\byi-|internlm[23]|"
        r"baichuan2?-7b|deepseek-(llm|coder|r1-distill)|smollm|vicuna|tinyllama", re.IGNORECASE
)  # fmt: skip


def named_in(config: Mapping[str, Any]) -> str:
    """model_type and architectures of a config.json; an empty text where it gives neither."""
    architectures = config.get("architectures")
    names = [config.get("model_type"), *(architectures if isinstance(architectures, list) else ())]
    return " ".join(name for name in names if isinstance(name, str))
