"""What several rules need from a card, each value with its line; nothing is guessed where a card gives two."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pytest_npuconf.audit import configuration as keys
from pytest_npuconf.audit.counting import GB, GIB, Count, Decoder, count_decoder, count_encoder, kv_bytes_per_token
from pytest_npuconf.audit.document import CardText, Pair
from pytest_npuconf.audit.families import ENCODER, FAMILIES, OTHER_SHAPES, QWEN2, QWEN3, VISION, named_in
from pytest_npuconf.audit.numbers import Number, numbers_in
from pytest_npuconf.audit.quantities import DTYPES, Name, formats_in, read_name
from pytest_npuconf.audit.statements import Parameters, json_values, parameters_in, parameters_of
from pytest_npuconf.audit.told import CORE, names_a_class, told_config

__all__ = [
    "BINARY",
    "BYTES",
    "DTYPE_BYTES",
    "Counted",
    "Fact",
    "Facts",
    "Parameters",
    "Stated",
    "read_facts",
]

BYTES = {
    "KB": 1e3,
    "MB": 1e6,
    "GB": float(GB),
    "TB": 1e12,
    "KiB": 2.0**10,
    "MiB": 2.0**20,
    "GiB": float(GIB),
    "TiB": 2.0**40,
    "bytes": 1.0,
}
BINARY = {"KB": 2.0**10, "MB": 2.0**20, "GB": float(GIB), "TB": 2.0**40}
DTYPE_BYTES = {
    "fp64": 8.0,
    "fp32": 4.0,
    "bf16": 2.0,
    "fp16": 2.0,
    "fp8": 1.0,
    "int8": 1.0,
    "w8a8": 1.0,
    "w8a16": 1.0,
    "int4": 0.5,
    "w4a16": 0.5,
    "w4a8": 0.5,
}


_LONG_KEY = re.compile(r"^[\s•*\-]{0,8}([^:。;]{24,120}):\s{0,4}(\d[\d.,]{0,30}\s?[A-Za-z/]{0,10})$")
_EQUALS = re.compile(r"^[\s•*\-]{0,8}([^=:|.,。;()\d]{2,40}?)\s{0,4}(?:=|\.{3,80}|…{2,40})\s{0,4}([^=]{1,60})$")


# How a card says how many devices it uses.
_DEVICES = (
    r"tensor[-_ ]parallel(?:[-_ ]size)?[^0-9\n]{0,6}(\d{1,3})",
    r"pipeline[-_]parallel(?:[-_]size)?[^0-9\n]{0,6}(\d{1,3})",
    r"\bTP\s?[=:]?\s?(\d{1,3})\b",
    r"-tp\s+(\d{1,3})",
    r"(?:×|\*|(?<=\s)x)\s?(?!86)(\d{1,2})(?![\d.])",
    r"(?<![\d.])(\d{1,2})\s?(?:×|x|\*)\s?(?:ascend|910|A[23]\b|NPU|GPU|A100|H100|Atlas)",
    r"(?<![\d.])(\d{1,3})\s?(?:张|卡|块|cards?\b|NPUs?\b|GPUs?\b|devices\b)",
    r"world[-_ ]size[^0-9\n]{0,6}(\d{1,4})",
    r"nproc[-_]per[-_]node[^0-9\n]{0,4}(\d{1,3})",
)


@dataclass(frozen=True)
class Fact:
    """A value with its line (0: from the config.json beside the card) and the words it stands in."""

    value: Any
    line: int
    text: str


@dataclass(frozen=True)
class Stated:
    """A stated figure: the number, the name it was given, and the section."""

    number: Number
    name: Name
    section: str

    @property
    def line(self) -> int:
        """Line of the number."""
        return self.number.line


@dataclass(frozen=True)
class Counted:
    """A count by formula under one reading of what the card leaves open."""

    count: Count
    head_dim: int
    reading: str


class Facts:
    """Facts of one card, each computed once."""

    def __init__(self, card: CardText, config: Mapping[str, Any] | None) -> None:
        """``config``: the config.json beside the card, or None."""
        self.card = card
        self.given = dict(config or {})
        self.text = "\n".join(card.lines)

    @cached_property
    def pairs(self) -> tuple[Pair, ...]:
        """The card's pairs, and those of prose with "=" or dots between key and value."""
        held = {pair.line for pair in self.card.pairs}
        found = list(self.card.pairs)
        for prose in self.card.proses:
            match = None
            if prose.line not in held and len(prose.text) <= 200:
                match = _EQUALS.match(prose.text) or _LONG_KEY.match(prose.text)
            if match:
                found.append(Pair(match.group(1).strip(), match.group(2).strip(), prose.line, prose.section))
        return tuple(sorted(found, key=lambda pair: pair.line))

    # ---- configuration -------------------------------------------------------------------------------------------
    @cached_property
    def stated_config(self) -> dict[str, list[Fact]]:
        """Every value that the card itself gives for a key of a configuration, under the key's Hugging Face name."""
        found: dict[str, list[Fact]] = {}
        for pair in self.card.pairs:
            for key, value in keys.read_pair(pair.key, pair.value):
                found.setdefault(key, []).append(Fact(value, pair.line, f"{pair.key}: {pair.value}"))
        for code in self.card.codes:
            for key, value, line in json_values(code.text, code.line):
                found.setdefault(key, []).append(Fact(value, line, f"{key}: {value}"))
        for line, text in enumerate(self.card.lines, 1):
            for key, value in keys.read_line(text):
                if all(fact.line != line for fact in found.get(key, [])):
                    found.setdefault(key, []).append(Fact(value, line, f"{key}: {value}"))
        self._add_told(found)
        return found

    def _add_told(self, found: dict[str, list[Fact]]) -> None:
        """A configuration told in one sentence, where no other line gives any of it."""
        told = [(p, dict(told_config(p.text))) for p in self.card.proses] if names_a_class(self.text) else []
        told = [(prose, values) for prose, values in told if values]
        if len(told) != 1 or any(fact.line != told[0][0].line for key in CORE for fact in found.get(key, [])):
            return
        for key, value in told[0][1].items():
            found.setdefault(key, []).append(Fact(value, told[0][0].line, f"{key}: {value}"))

    def config(self, key: str) -> Any:
        """The value of a key: of config.json, else of the card; None where it is missing or given with two values."""
        if key in self.given:
            return self.given[key]
        values = {
            fact.value for fact in self.stated_config.get(key, []) if isinstance(fact.value, (int, float, bool, str))
        }
        return values.pop() if len(values) == 1 else None

    def config_line(self, key: str) -> int:
        """A line that gives the key, or 0."""
        return self.stated_config[key][0].line if self.stated_config.get(key) else 0

    def integer(self, key: str) -> int | None:
        """The value of a key as a positive whole number."""
        value = self.config(key)
        return (
            int(value)
            if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0 and value == int(value)
            else None
        )

    @cached_property
    def tied(self) -> bool | None:
        """Whether embedding and head are one matrix."""
        value = self.config("tie_word_embeddings")
        return value if isinstance(value, bool) else None

    @cached_property
    def family(self) -> str:
        """What names the model's family: model_type and architectures of config.json, else the card's text."""
        return named_in(self.given) or self.text

    @cached_property
    def qwen3(self) -> bool:
        """Whether it is a Qwen3: norms of q and k, and a head size of 128 where none is given."""
        return QWEN3.search(self.family) is not None

    @cached_property
    def head_dims(self) -> tuple[int, ...]:
        """The stated head_dim alone; else the readings of a card that leaves it out: 128 of the family, hidden / heads."""
        stated = self.integer("head_dim")
        if stated:
            return (stated,)
        hidden, heads = self.integer("hidden_size"), self.integer("num_attention_heads")
        readings = [128] if self.qwen3 else []
        if hidden and heads and hidden % heads == 0 and hidden // heads not in readings:
            readings.append(hidden // heads)
        return tuple(readings)

    @cached_property
    def plain_attention(self) -> bool:
        """Whether keys and values of every layer are cached in full: no latent, linear or sliding attention."""
        if any(self.config(k) for k in ("kv_lora_rank", "q_lora_rank", "layer_types", "sliding_window_pattern")):
            return False
        return not OTHER_SHAPES.search(f"{self.text}\n{named_in(self.given)}")

    @cached_property
    def known_family(self) -> bool:
        """Whether the card names a family whose layers the count knows."""
        return bool(FAMILIES.search(self.family) or ENCODER.search(self.family))

    @cached_property
    def several_models(self) -> bool:
        """Whether the configuration is given for more than one model, or of one key with two values."""
        names = ("hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads", "vocab_size")
        return any(len({f.value for f in self.stated_config.get(k, [])}) > 1 for k in names) and not self.given

    @cached_property
    def counted(self) -> tuple[Counted, ...]:
        """Counts of parameters by formula, one for each reading of what the card leaves open; empty where not sure."""
        if self.several_models or VISION.search(self.text) or self.config("vision_config"):
            return ()
        if ENCODER.search(self.family):
            return self._encoder()
        if not self.plain_attention:
            return ()
        return tuple(self._decoders())

    def _encoder(self) -> tuple[Counted, ...]:
        names = ("hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size", "max_position_embeddings")
        values = [self.integer(name) for name in names]
        if any(value is None for value in values):
            return ()
        h, i, n, v, p = (value or 0 for value in values)
        types = self.integer("type_vocab_size") or 2
        return (Counted(count_encoder(h, i, n, v, p, types), 0, "encoder, without pooler"),)

    def _decoders(self) -> Iterator[Counted]:
        names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
        values = [self.integer(name) for name in names]
        if any(value is None for value in values):
            return
        hidden, layers, heads, vocabulary = (value or 0 for value in values)
        experts = self._experts()
        intermediate = self.integer("intermediate_size") or 0
        if experts is None or not (intermediate or experts[0]):
            return
        kv_heads = self.integer("num_key_value_heads") or heads
        qkv_bias = QWEN2.search(self.family) is not None and not self.qwen3
        for head_dim in self.head_dims:
            for tied in (True, False) if self.tied is None else (self.tied,):
                decoder = Decoder(hidden, intermediate, layers, heads, kv_heads, head_dim, vocabulary, tied, *experts)
                count = count_decoder(decoder, qk_norm=self.qwen3, qkv_bias=qkv_bias)
                yield Counted(count, head_dim, f"head_dim {head_dim}, embedding {'tied' if tied else 'and head apart'}")

    def _experts(self) -> tuple[int, int, int, int, int] | None:
        """Experts, used, their intermediate size, the shared one's, dense layers; zeros for a dense model; None: not sure."""
        experts = self.integer("num_experts")
        if not experts:
            return (
                None
                if re.search(r"\bMoE\b|混合专家|mixture.of.experts|\d+B-A\d+", self.text, re.IGNORECASE)
                else (0, 0, 0, 0, 0)
            )
        used, one = (
            self.integer("num_experts_per_tok"),
            self.integer("moe_intermediate_size") or self.integer("intermediate_size"),
        )
        if not used or not one:
            return None
        shared = self.integer("shared_expert_intermediate_size") or (self.integer("n_shared_experts") or 0) * one
        return experts, used, one, shared, self.integer("first_k_dense_replace") or 0

    # ---- sizes and dtypes ------------------------------------------------------------------------------------------
    @cached_property
    def parameters(self) -> tuple[Parameters, ...]:
        """Stated counts of parameters."""
        found = []
        for pair in self.pairs:
            name = read_name(pair.key)
            if name.quantity == "parameters" and not name.devices and len(name.rest) <= 90:
                found += list(parameters_of(pair))
        held = {p.line for p in found}
        for prose in self.card.proses:
            if prose.line not in held and len(prose.text) <= 4000:
                found += list(parameters_in(prose.text, prose.line))
        return tuple(found)

    @cached_property
    def dtypes(self) -> dict[str, int]:
        """Number formats that the card gives for its weights or its run, with a line: keys such as "precision"."""
        found: dict[str, int] = {}
        pattern = re.compile(r"精度|dtype|precision|数据类型|数据格式|权重格式|量化|quantiz", re.IGNORECASE)
        for pair in self.card.pairs:
            if pattern.search(pair.key) and len(pair.value) <= 60:
                for name, form in DTYPES:
                    if form.search(pair.value):
                        found.setdefault(name, pair.line)
        if not found:  # only one format in the whole card
            named = formats_in(self.text)
            for only, form in named if len(named) == 1 else ():
                held = [line for line, text in enumerate(self.card.lines, 1) if form.search(text)]
                return {only: held[-1]} if held else {}
        return found

    @cached_property
    def quantised(self) -> bool:
        """Whether the card speaks of quantised weights of its own."""
        return bool(
            re.search(
                r"\bW\dA\d+|\bint[48]\b|量化(模型|版|权重|后|方式|方案|精度)|\bquantized\b|\bAWQ\b|"
                r"\bGPTQ\b|\bNF4\b|\bGGUF\b|\bFP8\b|\b[48][- ]?bit\b",
                self.text,
                re.IGNORECASE,
            )
        )

    @cached_property
    def weight_bytes_each(self) -> float | None:
        """Bytes of one parameter where the card gives exactly one width for weights, else None."""
        widths = {DTYPE_BYTES[name] for name in self.dtypes if name in DTYPE_BYTES}
        return widths.pop() if len(widths) == 1 else None

    def figures(self, *quantities: str) -> Iterator[Stated]:
        """Figures in pairs whose key names one of the quantities."""
        for pair in self.pairs:
            name = read_name(pair.key)
            if name.quantity in quantities:
                for number in numbers_in(pair.value, pair.line)[:1]:
                    yield Stated(number, name, pair.section)

    @cached_property
    def kv_bytes(self) -> dict[tuple[int, float], float]:
        """Bytes of keys and values per token, by (head_dim, bytes of a number); empty where not sure."""
        layers, heads = self.integer("num_hidden_layers"), self.integer("num_key_value_heads")
        if not layers or not heads or not self.plain_attention or self.several_models:
            return {}
        widths = [2.0]
        if self.quantised or self.has(r"kv[-_ ]?cache[-_ ]?dtype|C8\b"):
            widths.append(1.0)
        if "fp32" in self.dtypes or not self.dtypes:
            widths.append(4.0)
        return {(d, b): kv_bytes_per_token(layers, heads, d, b) for b in widths for d in self.head_dims}

    # ---- deployment ------------------------------------------------------------------------------------------------
    def has(self, pattern: str) -> bool:
        """Whether the pattern occurs in the card."""
        return re.search(pattern, self.text, re.IGNORECASE) is not None

    @cached_property
    def cards(self) -> int:
        """The most devices that the card speaks of: tensor parallel sizes, "× 2", "8 卡"."""
        found = [1]
        for pattern in _DEVICES:
            found += [int(m) for m in re.findall(pattern, self.text, re.IGNORECASE) if 1 <= int(m) <= 1024]
        if re.search(r"双卡|两卡|双芯", self.text):
            found.append(2)
        return max(found)


def read_facts(card: CardText, config: Mapping[str, Any] | None = None) -> Facts:
    """The facts of a card; ``config`` is the config.json beside it."""
    return Facts(card, config)
