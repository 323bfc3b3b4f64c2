"""kv-bytes, kv-capacity, head-dim: bytes of keys and values per token, how many tokens fit, and the head size that it needs."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pytest_npuconf.audit.context import Context, Rule
from pytest_npuconf.audit.document import Pair
from pytest_npuconf.audit.facts import BINARY, BYTES
from pytest_npuconf.audit.findings import Finding, Level
from pytest_npuconf.audit.interval import Interval, around, plain
from pytest_npuconf.audit.numbers import Number, numbers_in
from pytest_npuconf.audit.rules._full_windows import full_windows
from pytest_npuconf.audit.rules._kv import (
    BLOCK,
    KV,
    PER_TOKEN,
    Capacity,
    capacities,
    fits,
    proved_head_dim,
    shard_counts,
)

_CONTEXT = re.compile(
    r"(?<![\d.,])(\d{1,3}(?:,\d{3})+|\d+)\s?(K)?\s*(?:tokens?\b|上下文|context|ctx|长度|的?窗口)", re.IGNORECASE
)
_CONCURRENCY = re.compile(r"并发|concurren|requests of [\d,]+ tokens|at once", re.IGNORECASE)
_LINES = re.compile(r"Maximum concurrency for\s+([\d,]+)\s+tokens per request:\s*([\d.]+)x", re.IGNORECASE)


def _sentences(context: Context) -> Iterator[Pair]:
    """Sentences of one number that say bytes per token, in a line or section about the KV cache."""
    held = {pair.line for pair in context.card.pairs}
    for prose in context.card.proses:
        numbers = numbers_in(prose.text, prose.line) if prose.line not in held and len(prose.text) <= 200 else []
        if len(numbers) == 1 and PER_TOKEN.search(prose.text) and KV.search(prose.text + prose.section):
            yield Pair(
                f"KV {prose.text[: numbers[0].start]} per token",
                prose.text[numbers[0].start :],
                prose.line,
                prose.section,
            )


def check_bytes(context: Context) -> Iterator[Finding]:
    """Stated bytes per token against ``2 L K D b``."""
    facts = context.facts
    for pair in [*context.card.pairs, *_sentences(context)]:
        if not (KV.search(pair.key) and (PER_TOKEN.search(pair.key) or "/tok" in pair.value)):
            continue
        for number in numbers_in(pair.value, pair.line)[:1]:
            unit = number.unit.partition("/")[0] or (
                "bytes" if re.search(r"bytes|字节", pair.key, re.IGNORECASE) else ""
            )
            if unit not in BYTES or not facts.kv_bytes or re.search(r"每层|per[\s-]*layer", pair.key, re.IGNORECASE):
                continue
            readings = [around(number, scale) for scale in {BYTES[unit], BINARY.get(unit, BYTES[unit])}]
            values = {(d, b, s): v / s for (d, b), v in facts.kv_bytes.items() for s in shard_counts(facts)}
            how = "; ".join(
                f"2 x layers x KV heads x {d} x {plain(b)} bytes = {plain(v)} bytes"
                for (d, b, s), v in values.items()
                if s == 1
            )
            if any(r.overlaps(Interval(v, v)) for r in readings for v in values.values()):
                yield context.finding(
                    "kv-bytes", Level.FINE, number.line, f"{number.text} per token agrees with the configuration", how
                )
            elif number.before not in ("<", ">", "≤", "≥", "<=", ">="):
                level = Level.CONTRADICTION if facts.known_family and len(facts.head_dims) == 1 else Level.IMPLAUSIBLE
                yield context.finding(
                    "kv-bytes",
                    level,
                    number.line,
                    f"{number.text} per token does not follow from the configuration",
                    how,
                )


def check_capacity(context: Context) -> Iterator[Finding]:
    """GiB against tokens, tokens against concurrency, and both against the device's memory."""
    for capacity in capacities(context):
        tokens = capacity.tokens
        if tokens is None:
            continue
        yield from _against_memory(context, capacity, tokens)
        yield from _concurrency(context, tokens)
        yield from _budget(context, tokens)
    yield from full_windows(context)


def _blocks(tokens: Number) -> str:
    if tokens.value % BLOCK == 0 and not tokens.before.startswith(("<", ">")):
        return f"; {plain(tokens.value / BLOCK)} blocks of {BLOCK} exactly"
    return ""


def _against_memory(context: Context, capacity: Capacity, tokens: Number) -> Iterator[Finding]:
    facts = context.facts
    if not facts.kv_bytes:
        return
    if capacity.memory is None:
        how = "; ".join(
            f"{plain(v)} bytes a token (head_dim {d}, {plain(b)} bytes): {plain(v * tokens.value / 2**30, 4)} GiB"
            for (d, b), v in facts.kv_bytes.items()
        )
        message = f"{tokens.text}: no memory is stated beside it{_blocks(tokens)}"
        yield context.finding("kv-capacity", Level.FINE, tokens.line, message, how)
        return
    for head_dim in facts.head_dims:
        agreed = fits(facts, capacity, head_dim)
        if agreed:
            each, unit, shards = agreed
            scale = BYTES[unit] if unit == capacity.memory.unit else BINARY[capacity.memory.unit]
            shared = f", {shards} shards" if shards > 1 else ""
            how = (
                f"{plain(each)} bytes a token (head_dim {head_dim}{shared}); "
                f"{capacity.memory.value} {unit} hold {capacity.memory.value * scale / each:,.0f} tokens{_blocks(tokens)}"
            )
            level = Level.FINE if unit == capacity.memory.unit else Level.AMBIGUOUS
            message = f"{capacity.memory.text} and {tokens.text} agree" + (
                "" if level is Level.FINE else f" only if the unit is {unit}"
            )
            yield context.finding("kv-capacity", level, tokens.line, message, how)
            return
    level = Level.CONTRADICTION if facts.known_family else Level.IMPLAUSIBLE
    memory = capacity.memory.value * BYTES[capacity.memory.unit]
    how = "; ".join(
        f"{plain(v)} bytes a token (head_dim {d}, {plain(b)} bytes): {memory / v:,.0f} tokens"
        for (d, b), v in facts.kv_bytes.items()
    )
    message = f"{capacity.memory.text} / {tokens.text} is {plain(memory / tokens.value)} bytes a token"
    message += ", which the configuration does not give"
    yield context.finding("kv-capacity", level, tokens.line, message, how)


def _concurrency(context: Context, tokens: Number) -> Iterator[Finding]:
    for pair in context.card.pairs:
        if _CONCURRENCY.search(pair.key):
            length = _CONTEXT.search(pair.key) or _CONTEXT.search(pair.value)
            numbers = [n for n in numbers_in(pair.value, pair.line) if n.unit in ("", "requests", "x", "items")]
            if length and numbers:
                base = float(length.group(1).replace(",", ""))
                sizes = [base * 1024, base * 1000] if length.group(2) else [base]
                yield from _judge_concurrency(context, tokens, numbers[0], sizes)
    for i, line in enumerate(context.card.lines, 1):
        match = _LINES.search(line)
        if match:
            number = numbers_in(match.group(2), i)
            if number:
                yield from _judge_concurrency(context, tokens, number[0], [float(match.group(1).replace(",", ""))])


def _judge_concurrency(context: Context, tokens: Number, number: Number, sizes: list[float]) -> Iterator[Finding]:
    if any(size <= 0 for size in sizes) or number.before in ("<", ">", "≥", "≤", "<=", ">="):
        return
    values = [tokens.value / size for size in sizes]
    how = f"{plain(tokens.value)} / {plain(sizes[0])} = {plain(values[0], 4)}"
    room = 0.03 * values[0] if number.before or tokens.before else 0.0
    if any(number.value - number.half_ulp - room <= v <= number.value + 1 + room for v in values):
        yield context.finding(
            "kv-capacity", Level.FINE, number.line, f"{number.text} requests agree with {tokens.text}", how
        )
    elif number.value > max(values) * 1.02 + 0.5:
        message = f"{number.text} requests of that length need more than the {tokens.text} that are stated"
        yield context.finding("kv-capacity", Level.CONTRADICTION, number.line, message, how)
    elif number.value < min(values) * 0.9 and number.value >= 1:
        message = f"{number.text} requests of that length use only a part of the {tokens.text} that are stated"
        yield context.finding("kv-capacity", Level.AMBIGUOUS, number.line, message, how)


_DEVICE = re.compile(r"显存|\bHBM\b|NPU\s*(内存|memory|型号)|device memory|GPU memory|\bVRAM\b", re.IGNORECASE)


def _budget(context: Context, tokens: Number) -> Iterator[Finding]:
    """Keys and values beside the weights in the memory of the devices: an upper bound, with GB read as GiB."""
    facts = context.facts
    memories = [
        n.value * BINARY.get(n.unit, BYTES[n.unit]) for p in context.card.pairs
        if _DEVICE.search(p.key) and not KV.search(p.key) and "权重" not in p.key and "weight" not in p.key.lower()
        for n in numbers_in(p.value, p.line) if n.unit in ("GB", "GiB", "MiB", "MB")
    ]  # fmt: skip
    each = min((v for (_, b), v in facts.kv_bytes.items()), default=0.0) / (
        max(shard_counts(facts)) if facts.kv_bytes else 1
    )
    if not memories or not each:
        return
    need = each * tokens.value
    if need > max(memories) * 1.02:
        message = f"{tokens.text} of keys and values do not fit the device memory that is stated"
        yield context.finding(
            "kv-capacity",
            Level.CONTRADICTION,
            tokens.line,
            message,
            f"{plain(need / 2**30, 4)} GiB of {plain(max(memories) / 2**30, 4)} GiB",
        )


def check_head_dim(context: Context) -> Iterator[Finding]:
    """A head size that is left out or wrong, where the card's own KV figure proves it."""
    facts = context.facts
    hidden, heads, stated = (
        facts.integer("hidden_size"),
        facts.integer("num_attention_heads"),
        facts.integer("head_dim"),
    )
    if not hidden or not heads or hidden % heads or facts.several_models or not facts.plain_attention:
        return
    quotient, line = hidden // heads, facts.config_line("head_dim") or facts.config_line("hidden_size")
    figures = [c for c in capacities(context) if c.memory is not None and c.tokens is not None]
    needed = proved_head_dim(context)
    how = f"hidden_size / num_attention_heads = {quotient}"
    if needed is not None and figures[0].memory and figures[0].tokens:
        how += f"; {figures[0].memory.text} and {figures[0].tokens.text} need head_dim {needed}"
        if stated and stated != needed:
            yield context.finding(
                "head-dim",
                Level.CONTRADICTION,
                line,
                f"head_dim {stated} is not the {needed} that the KV cache figure needs",
                how,
            )
        elif not stated and quotient != needed:
            message = (
                f"head_dim is left out: it is not {quotient} (hidden size / heads), the KV cache figure needs {needed}"
            )
            yield context.finding("head-dim", Level.UNSUPPORTED, line, message, how)
        else:
            yield context.finding(
                "head-dim", Level.FINE, line, f"head_dim {needed} agrees with the KV cache figure", how
            )
    elif not stated and quotient != 128 and facts.qwen3 and not facts.config("num_experts"):
        message = f"head_dim is left out; Qwen3 models have 128, not hidden size / heads = {quotient}"
        yield context.finding("head-dim", Level.AMBIGUOUS, line, message, how)


RULES: tuple[Rule, ...] = (
    Rule("kv-bytes", "Bytes of keys and values per token", check_bytes),
    Rule("kv-capacity", "KV cache memory, tokens and concurrency agree", check_capacity),
    Rule("head-dim", "The head size is stated where it is not hidden size / heads", check_head_dim),
)
