"""A configuration that is told in a sentence: "12 layers, a hidden size of 768, 12 attention heads with 4 key-value heads"."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pytest_npuconf.audit import configuration as keys

_N = r"(\d{1,3}(?:,\d{3})+|\d+)(?![\d.]*\d|\s?[BMKG]\b)"
_TOLD = {
    "num_hidden_layers": rf"(?<![\d.,-]){_N} (?:transformer |decoder |hidden )?layers\b|(?<![\d.]){_N}\s?层",
    "hidden_size": rf"\bhidden (?:size|dimension|width) (?:of |is )?{_N}|隐藏(?:层)?(?:维度|大小)(?:为|是)?\s?{_N}",
    "intermediate_size":
        rf"\b(?:feed-forward|ffn|intermediate|mlp)(?: hidden)? (?:size|dimension|width) (?:of |is )?{_N}"
        rf"|(?:前馈|中间)(?:网络|层)?(?:维度|大小)(?:为|是)?\s?{_N}",
    "num_attention_heads": rf"(?<![\d.,-]){_N} (?:attention|query) heads\b|(?<![\d.]){_N}\s?个(?:注意力|查询)头",
    "num_key_value_heads": rf"(?<![\d.,-]){_N} (?:key-value|key/value|kv) heads\b|(?<![\d.]){_N}\s?个\s?(?:键值|KV)\s?头",
    "vocab_size": rf"\bvocabulary (?:size )?of {_N}|词表(?:大小)?(?:为|是)?\s?{_N}",
}  # fmt: skip
_PATTERNS = {key: re.compile(pattern, re.IGNORECASE) for key, pattern in _TOLD.items()}
_TIED = re.compile(
    r"embedding (?:matrix )?(?:is|are) (?:shared|tied) with the (?:output|head)|\btied embeddings?\b|词嵌入与输出层共享",
    re.IGNORECASE,
)
_APART = re.compile(
    r"embedding and (?:the )?(?:output )?(?:head|layer|projection) (?:are|being) (?:separate|untied|not tied)"
    r"|\buntied\b|不共享词嵌入",
    re.IGNORECASE,
)
# Another model than the card's, or one whose layers are others.
_ANOTHER = re.compile(
    r"teacher|sibling|sister|larger|bigger|smaller|variant|previous|draft|encoder|vision|student"
    r"|unlike|instead|compared|whereas|expert|\bMoE\b|sliding|latent"
    r"|教师|草稿|编码器|视觉|学生|专家|相比|而不是",
    re.IGNORECASE,
)
_CLASS = re.compile(r"\b(?:Llama|Mistral|Qwen2|Qwen3)ForCausalLM\b")
CORE = frozenset(_PATTERNS)


def told_config(text: str) -> Iterator[tuple[str, Any]]:
    """Keys and values of a line that tells the whole shape of a decoder, each once; nothing of any other line."""
    if len(text) > 2000 or ("layers" not in text.lower() and "层" not in text) or _ANOTHER.search(text):
        return
    exact = dict(keys.read_line(text))
    found: dict[str, Any] = {}
    for key, pattern in _PATTERNS.items():
        values = {int(next(filter(None, m.groups())).replace(",", "")) for m in pattern.finditer(text)}
        values |= {exact[key]} if key in exact else set()
        if len(values) != 1:
            return
        found[key] = values.pop()
    if bool(_TIED.search(text)) != bool(_APART.search(text)):
        found["tie_word_embeddings"] = bool(_TIED.search(text))
    yield from ((key, value) for key, value in found.items() if key not in exact)


def names_a_class(text: str) -> bool:
    """Whether a class is named whose layers the count knows: in a sentence anything may be called a layer."""
    return bool(_CLASS.search(text))
