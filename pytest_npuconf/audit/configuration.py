"""Keys of a model's configuration as cards write them, under their Hugging Face names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pytest_npuconf.audit.numbers import numbers_in

_WRITTEN = {
    "hidden_size":
        "hidden_size hidden-size hidden\u00a0size hidden\u00a0dim hidden_dim "
        "hidden\u00a0dimension d_model n_embd 隐藏层维度 隐藏维度 隐层维度 隐藏层大小 隐藏大小 "
        "隐藏层尺寸 模型维度",
    "intermediate_size":
        "intermediate_size intermediate\u00a0size ffn_hidden_size ffn\u00a0dim "
        "ffn\u00a0size ffn\u00a0hidden\u00a0size mlp\u00a0size 中间层维度 中间层大小 "
        "中间维度 ffn\u00a0中间维度 前馈维度 前馈层维度 前馈网络维度 ffn\u00a0维度 mlp\u00a0维度",
    "num_hidden_layers":
        "num_hidden_layers num_layers n_layer n_layers layers number\u00a0of\u00a0layers "
        "transformer\u00a0layers hidden\u00a0layers 层数 网络层数 隐藏层数 隐藏层数量 "
        "transformer\u00a0层数 模型层数 解码器层数",
    "num_attention_heads":
        "num_attention_heads n_head n_heads num_heads attention\u00a0heads "
        "number\u00a0of\u00a0attention\u00a0heads query\u00a0heads q\u00a0heads "
        "注意力头数 注意力头数量 注意力头 q\u00a0头数 查询头数 number\u00a0of\u00a0attention\u00a0heads\u00a0(gqa) "
        "注意力头数\u00a0(gqa) 注意力头数(gqa)",
    "num_key_value_heads":
        "num_key_value_heads num_kv_heads n_kv_heads kv\u00a0heads kv_heads "
        "key-value\u00a0heads key\u00a0value\u00a0heads kv\u00a0头数 kv头数 "
        "键值头数 kv\u00a0注意力头数 kv\u00a0头 gqa\u00a0kv\u00a0头数",
    "head_dim": "head_dim head\u00a0dim head-dim head_size head\u00a0dimension 头维度 每头维度 注意力头维度 单头维度 头维",
    "vocab_size": "vocab_size vocab\u00a0size vocabulary vocabulary\u00a0size n_vocab 词表大小 词表 词汇表大小 词表规模 词汇量",
    "max_position_embeddings": "max_position_embeddings max\u00a0position\u00a0embeddings n_positions",
    "type_vocab_size": "type_vocab_size",
    "rope_theta": "rope_theta rope\u00a0theta",
    "rms_norm_eps": "rms_norm_eps",
    "tie_word_embeddings":
        "tie_word_embeddings tie\u00a0word\u00a0embeddings tied\u00a0embeddings "
        "共享词嵌入 词嵌入共享 权重共享 绑定词嵌入",
    "num_experts":
        "num_experts n_routed_experts num_local_experts experts number\u00a0of\u00a0experts "
        "专家数 专家数量 专家总数 路由专家数",
    "num_experts_per_tok":
        "num_experts_per_tok number\u00a0of\u00a0activated\u00a0experts "
        "activated\u00a0experts top_k_experts 激活专家数 每\u00a0token\u00a0激活专家数 "
        "每token激活专家数",
    "moe_intermediate_size":
        "moe_intermediate_size moe\u00a0intermediate\u00a0size expert_intermediate_size "
        "专家中间层维度 专家中间维度",
    "shared_expert_intermediate_size": "shared_expert_intermediate_size",
    "n_shared_experts": "n_shared_experts num_shared_experts 共享专家数",
    "first_k_dense_replace": "first_k_dense_replace",
    "kv_lora_rank": "kv_lora_rank",
    "q_lora_rank": "q_lora_rank",
    "sliding_window": "sliding_window",
    "torch_dtype": "torch_dtype",
}  # fmt: skip
ALIASES = {form.replace("\u00a0", " "): key for key, forms in _WRITTEN.items() for form in forms.split(" ")}
_TRUE = re.compile(r"^(true|yes|是|✅|1)\b|^(是|✅)", re.IGNORECASE)
_FALSE = re.compile(r"^(false|no|否|❌|0)\b|^(否|❌)", re.IGNORECASE)
_Q_KV = re.compile(
    r"(?<!\d)(\d{1,4})\s{0,2}个?\s{0,2}(?:for\s{1,2})?\(?Q\b\)?\D{0,12}?(\d{1,4})\s{0,2}个?\s{0,2}(?:for\s{1,2})?\(?KV\b",
    re.IGNORECASE,
)
_KEY_QUALIFIER = re.compile(r"\s{0,2}\([^()]{0,80}\)\s{0,2}$")


def name_of(key: str) -> str | None:
    """The Hugging Face name of a key, or None. "词表大小 (vocab_size)" is vocab_size."""
    low = " ".join(key.strip().strip("`*").lower().split())
    if low in ALIASES:
        return ALIASES[low]
    inside = re.search(r"\(([a-z_ ]+)\)$", low)
    if inside and inside.group(1) in ALIASES:
        return ALIASES[inside.group(1)]
    return ALIASES.get(_KEY_QUALIFIER.sub("", low))


_EXACT = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "vocab_size",
    "num_experts", "num_experts_per_tok", "moe_intermediate_size", "max_position_embeddings", "tie_word_embeddings",
)  # fmt: skip
_LINE = re.compile(
    r"(?<![\w.\"'])(?<![/×*+-] )(?<![/×*+-])("
    + "|".join(_EXACT)
    + r")(?:\s*[=:]\s*|\s+(?:is\s+|为\s*)?)(\d{1,3}(?:,\d{3})+|\d+|true|false)(?![\w.])",
    re.IGNORECASE,
)
_TIED = re.compile(r"(?<!un)\btied (?:word )?embeddings?\b|embeddings? (?:are )?tied\b", re.IGNORECASE)


def read_line(text: str) -> Iterator[tuple[str, Any]]:
    """Keys by their exact names with "=", ":" or a space before the value, anywhere in a line."""
    if "_" not in text and "tied" not in text.lower():
        return
    tied = False
    for match in _LINE.finditer(text):
        name, value = match.group(1).lower(), match.group(2).lower()
        if (name == "tie_word_embeddings") == value.isalpha():
            tied = tied or name == "tie_word_embeddings"
            yield name, value == "true" if value.isalpha() else int(value.replace(",", ""))
    if not tied and "hidden_size" in text and _TIED.search(text):
        yield "tie_word_embeddings", True


def read_pair(key: str, value: str) -> Iterator[tuple[str, Any]]:
    """The key's name and the value, where the value is one plain value; "32 for Q and 8 for KV" is two."""
    name = name_of(key)
    if name is None:
        return
    if name == "num_attention_heads":
        both = _Q_KV.search(value) or re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*(?:\(.*\))?\s*", value)
        if both:
            yield name, int(both.group(1))
            yield "num_key_value_heads", int(both.group(2))
            return
    if name in ("tie_word_embeddings",):
        if _TRUE.search(value.strip()):
            yield name, True
        elif _FALSE.search(value.strip()):
            yield name, False
        return
    if name == "torch_dtype":
        yield name, value.strip().strip('"`')
        return
    numbers = numbers_in(value)
    if len(numbers) != 1 or numbers[0].before or numbers[0].unit not in ("", "layers", "dimensions", "items", "tokens"):
        return
    if value[: numbers[0].start].strip(" `\"'"):
        return
    number = numbers[0].value
    yield name, int(number) if number == int(number) and name not in ("rope_theta", "rms_norm_eps") else number
