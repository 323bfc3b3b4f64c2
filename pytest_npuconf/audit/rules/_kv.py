"""The KV cache as a card states it: memory, tokens, and the head size with which they agree."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pytest_npuconf.audit.context import Context
from pytest_npuconf.audit.counting import kv_bytes_per_token
from pytest_npuconf.audit.facts import BINARY, BYTES, Facts
from pytest_npuconf.audit.interval import Interval, around
from pytest_npuconf.audit.numbers import Number, numbers_in

BLOCK = 128  # tokens: vllm-ascend's block; the last block that does not fit is lost
ROOM = 0.004  # relative: scratch blocks, alignment
KV = re.compile(r"\bKV\b|键值", re.IGNORECASE)
PER_TOKEN = re.compile(r"每\s*(个)?\s*token|per[\s-]*token|/\s*tok", re.IGNORECASE)
_HOLDS = re.compile(r"token capacity|tokens that fit|可容纳|容纳|token 容量", re.IGNORECASE)
_KEEP_OUT = re.compile(
    r"one full|full window|整窗|单窗口|每请求|per[- ]request|block|块|头|head|压缩|量化|quant|dtype|命中|hit|利用率|usage|节省|sav",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Capacity:
    """Memory for keys and values, and the tokens it is said to hold."""

    memory: Number | None
    tokens: Number | None


def _texts(context: Context) -> Iterator[tuple[str, str, int]]:
    """Key, value and line of pairs about the KV cache, and lines of logs."""
    near = {pair.line for pair in context.card.pairs if KV.search(pair.key)}
    for pair in context.card.pairs:
        beside = _HOLDS.search(pair.key) and any(abs(pair.line - line) <= 4 for line in near)
        if (KV.search(pair.key) or beside) and not _KEEP_OUT.search(pair.key):
            yield pair.key, pair.value, pair.line
    for code in context.card.codes:
        for i, line in enumerate(code.text.splitlines()):
            if re.search(r"KV cache (size|memory)", line, re.IGNORECASE):
                key, _, value = line.rpartition(":")
                yield key, value, code.line + i


def capacities(context: Context) -> list[Capacity]:
    """What the card says of the KV cache: figures of one value belong together; else one memory and one token figure do."""
    found, memories, tokens = [], [], []
    for key, value, line in _texts(context):
        if PER_TOKEN.search(key):
            continue
        numbers = numbers_in(value, line)
        memory = next((n for n in numbers if n.unit in BYTES and n.unit != "bytes"), None)
        count = next((n for n in numbers if n.unit == "tokens"), None)
        if (
            count is None
            and len(numbers) == 1
            and numbers[0].unit == ""
            and re.search(r"token|size|容纳", key, re.IGNORECASE)
        ):
            count = numbers[0]
        if memory and count:
            found.append(Capacity(memory, count))
        elif memory:
            memories.append(memory)
        elif count and count.value >= 16:
            tokens.append(count)
    if not found and len(tokens) == 1:
        found.append(Capacity(memories[0] if len(memories) == 1 else None, tokens[0]))
    return found


def shard_counts(facts: Facts) -> list[int]:
    """Tensor parallel sizes that the card may mean: each rank keeps its share of the heads."""
    heads = facts.integer("num_key_value_heads") or 1
    return [n for n in range(1, min(facts.cards, heads) + 1) if heads % n == 0]


def _memories(number: Number) -> list[tuple[str, Interval]]:
    readings = [(number.unit, around(number, BYTES[number.unit]))]
    if number.unit in BINARY:
        readings.append((number.unit[0] + "iB", around(number, BINARY[number.unit])))
    return readings


def fits(facts: Facts, capacity: Capacity, head_dim: int) -> tuple[float, str, int] | None:
    """Bytes per token, unit of the memory, and shards with which the figures agree; None: with none."""
    layers, heads = facts.integer("num_hidden_layers"), facts.integer("num_key_value_heads")
    if capacity.memory is None or capacity.tokens is None or not layers or not heads:
        return None
    tokens = around(capacity.tokens)
    slack = tokens.widened(4 * capacity.tokens.half_ulp) if capacity.tokens.before else tokens
    for width in dict.fromkeys(width for _, width in facts.kv_bytes):
        for shards in shard_counts(facts):
            each = kv_bytes_per_token(layers, heads, head_dim, width) / shards
            for unit, memory in _memories(capacity.memory):
                room = Interval(memory.lo / each * (1 - ROOM) - 2 * BLOCK, memory.hi / each * (1 + ROOM))
                if slack.overlaps(room):
                    return each, unit, shards
    return None


def proved_head_dim(context: Context) -> int | None:
    """The one head size with which every KV cache figure of the card agrees, out of those that are usual; or None."""
    facts = context.facts
    hidden, heads, stated = (
        facts.integer("hidden_size"),
        facts.integer("num_attention_heads"),
        facts.integer("head_dim"),
    )
    figures = [c for c in capacities(context) if c.memory is not None]
    if not hidden or not heads or not figures:
        return None
    quotient = hidden // heads
    usual = {128, quotient, stated or quotient}
    if not facts.qwen3:
        usual |= {64, 80, 96, 256}
    usual.discard(0)  # more heads than channels: another rule's matter
    proved = [d for d in usual if all(fits(facts, c, d) for c in figures)]
    return proved[0] if len(proved) == 1 else None
