"""parameters, weight-size: the count by formula from the card's own configuration, and the bytes of the weights."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pytest_npuconf.audit.context import Context, Rule
from pytest_npuconf.audit.facts import BINARY, BYTES, DTYPE_BYTES, Counted, Facts, Parameters, Stated
from pytest_npuconf.audit.findings import Finding, Level
from pytest_npuconf.audit.interval import Interval, around, plain

NORMS = 0.002  # relative: what a family's own norms, biases and gates may add to the count
CLASS = 0.25  # relative: "7B" names a class (Qwen2.5-7B has 7.6 billion, Gemma-7B 8.5)
PADDING = 0.006  # relative: headers, padding and buffers of a weight file
_PER_CARD = re.compile(r"每卡|单卡|per (?:card|device|npu|rank)", re.IGNORECASE)
_WIDTHS = {4.0: "32-bit", 2.0: "16-bit", 1.0: "8-bit", 0.5: "4-bit"}


def _interval(counted: Counted, value: int) -> Interval:
    return Interval(value * (1 - NORMS), (value + counted.count.uncertain) * (1 + NORMS))


def _readings(facts: Facts, kind: str) -> Iterator[tuple[str, Interval, int, str]]:
    """How a stated count may be meant: what it counts, the interval, the exact value, the reading of the configuration."""
    embedding = (facts.integer("vocab_size") or 0) * (facts.integer("hidden_size") or 0)
    for counted in facts.counted:
        count = counted.count
        if kind == "active":
            yield "active", _interval(counted, count.active), count.active, counted.reading
            yield "active", _interval(counted, count.active - embedding), count.active - embedding, counted.reading
            continue
        if kind == "total":
            yield "total", _interval(counted, count.total), count.total, counted.reading
        yield "body", _interval(counted, count.body), count.body, counted.reading
        if kind == "total" and count.total - count.body > embedding:
            yield "headless", _interval(counted, count.total - embedding), count.total - embedding, counted.reading
        if kind == "total" and facts.tied:
            yield "twice", _interval(counted, count.total + embedding), count.total + embedding, counted.reading


_MEANING = {
    "body": "without the embedding", "headless": "without the output head", "active": "active",
    "twice": "with the tied matrix counted twice",
}  # fmt: skip


def _judge_count(context: Context, stated: Parameters) -> Finding | None:
    facts = context.facts
    readings = list(_readings(facts, stated.kind))
    if not readings:
        return None
    how = "; ".join(
        f"{value:,} {_MEANING.get(what, '')}".strip() + f" ({reading})" for what, _, value, reading in readings
    )
    for what, interval, value, _ in readings:
        if stated.value.overlaps(interval):
            expected = what == stated.kind or what == "active" or stated.loose
            level = Level.FINE if expected else Level.AMBIGUOUS
            message = (
                f"{stated.text} agrees with the configuration: {value:,} parameters {_MEANING.get(what, '')}".rstrip()
            )
            return context.finding("parameters", level, stated.line, message, how)
    first = min(readings, key=lambda r: abs(r[1].middle - stated.value.middle))
    off = stated.value.middle / first[2] - 1
    if stated.loose and abs(off) <= CLASS:
        message = f"{stated.text} is the name of a class; the configuration has {first[2]:,} parameters"
        return context.finding("parameters", Level.FINE, stated.line, message, how)
    level = Level.CONTRADICTION if facts.known_family else Level.IMPLAUSIBLE
    message = (
        f"{stated.text} parameters do not follow from the configuration: "
        f"{100 * off:+.1f} % from the nearest reading, {first[2]:,}"
    )
    return context.finding("parameters", level, stated.line, message, how)


def check_parameters(context: Context) -> Iterator[Finding]:
    """Stated counts against the configuration."""
    for stated in context.facts.parameters:
        finding = _judge_count(context, stated)
        if finding is not None:
            yield finding


def _parameter_interval(facts: Facts) -> tuple[Interval, str] | None:
    """Parameters: by formula where the configuration has one reading, else as stated."""
    if len({c.count.total for c in facts.counted}) == 1:
        counted = facts.counted[0]
        return _interval(counted, counted.count.total), f"{counted.count.total:,} parameters of the configuration"
    totals = [p for p in facts.parameters if p.kind == "total" and p.value.lo > 0]  # "0 M" is a slip, no model
    if facts.counted:  # several readings: all of them
        low, high = min(c.count.total for c in facts.counted), max(c.count.total for c in facts.counted)
        return Interval(low * (1 - NORMS), high * (1 + NORMS)), f"{low:,} to {high:,} parameters of the configuration"
    sharp = [p for p in totals if not p.loose]
    if len(sharp) == 1:
        return sharp[0].value, f"{sharp[0].text} parameters as stated"
    if len(totals) == 1:
        return totals[0].value * Interval(
            1 - CLASS, 1 + CLASS
        ), f"{totals[0].text} parameters as stated, within {CLASS:.0%}"
    return None


def _judge_size(context: Context, stated: Stated, parameters: Interval, source: str) -> Finding | None:
    facts, number = context.facts, stated.number
    decimal = around(number, BYTES[number.unit]) * Interval(1 - PADDING, 1.0)
    binary = around(number, BINARY.get(number.unit, BYTES[number.unit])) * Interval(1 - PADDING, 1.0)
    loaded = "memory" in (stated.name.quantity, read_kind(stated))
    own = {DTYPE_BYTES[t] for t in stated.name.tags if t in DTYPE_BYTES}
    if _PER_CARD.search(stated.name.text):
        shards = re.search(r"TP\s?=?\s?([1-9]\d*)", stated.name.text, re.IGNORECASE)
        parameters = parameters / float(shards.group(1) if shards else facts.cards) * Interval(1.0, 1.1)
    widths = list(own) if len(own) == 1 else [facts.weight_bytes_each] if facts.weight_bytes_each else list(_WIDTHS)
    if not own and not facts.quantised and not facts.weight_bytes_each:
        widths = [2.0, 4.0]
    needed = {w: parameters * w for w in widths if w}
    listed = "; ".join(
        f"x {plain(w)} bytes = {plain(n.middle / 1e9, 4)} GB = {plain(n.middle / 2**30, 4)} GiB"
        for w, n in needed.items()
    )
    how = f"{source} {listed}"
    for need in needed.values():
        if decimal.overlaps(need):
            return context.finding(
                "weight-size", Level.FINE, number.line, f"{number.text} agrees with the parameters", how
            )
    for need in needed.values():
        if binary.overlaps(need):
            message = f"{number.text} agrees with the parameters only if the unit is {number.unit[0]}iB (2^30 bytes)"
            return context.finding("weight-size", Level.AMBIGUOUS, number.line, message, how)
    if loaded:
        return _judge_loaded(context, stated, decimal, binary, needed, how)
    return _judge_misfit(context, stated, decimal, binary, parameters, needed, how)


def read_kind(stated: Stated) -> str:
    """``memory`` where the key speaks of weights in memory, not of a file."""
    return "memory" if any(word in stated.name.text.lower() for word in ("显存", "内存", "memory")) else "file"


def _judge_loaded(
    context: Context, stated: Stated, decimal: Interval, binary: Interval, needed: dict[float, Interval], how: str
) -> Finding | None:
    """Weights in memory take no less than the weights, and hardly a quarter more."""
    number, least = stated.number, min(n.lo for n in needed.values())
    if any(n.lo <= decimal.hi and decimal.lo <= 1.25 * n.hi for n in needed.values()):
        return context.finding("weight-size", Level.FINE, number.line, f"{number.text} holds the weights", how)
    if any(n.lo <= binary.hi and binary.lo <= 1.25 * n.hi for n in needed.values()):
        message = f"{number.text} holds the weights only if the unit is {number.unit[0]}iB (2^30 bytes)"
        return context.finding("weight-size", Level.AMBIGUOUS, number.line, message, how)
    if binary.hi * context.facts.cards < least * 0.97 and not context.facts.quantised:
        return context.finding(
            "weight-size", Level.CONTRADICTION, number.line, f"{number.text} cannot hold the weights", how
        )
    return None


def _judge_misfit(
    context: Context,
    stated: Stated,
    decimal: Interval,
    binary: Interval,
    parameters: Interval,
    needed: dict[float, Interval],
    how: str,
) -> Finding | None:
    """A file size that fits no width which the card states."""
    number, facts = stated.number, context.facts
    if facts.quantised:  # scales, and layers that stay in 16 bits: only the bounds are sure
        if binary.hi < parameters.lo * 0.45 or decimal.lo > parameters.hi * 4.3:
            return context.finding(
                "weight-size", Level.IMPLAUSIBLE, number.line, f"{number.text} fits no width from 4 to 32 bits", how
            )
        return None
    width = facts.weight_bytes_each or (1.0 if stated.name.dtypes else None)
    other = [w for w in _WIDTHS if w not in needed and any(i.overlaps(parameters * w) for i in (decimal, binary))]
    if other:
        message = f"{number.text} is the size of {_WIDTHS[other[0]]} weights, which the card does not state"
        return context.finding("weight-size", Level.IMPLAUSIBLE, number.line, message, how)
    ratio = decimal.middle / (next(iter(needed.values())).middle)
    level = (
        Level.CONTRADICTION if width and binary.hi < min(n.lo for n in needed.values()) * 0.97 else Level.IMPLAUSIBLE
    )
    message = f"{number.text} fits neither as GB nor as GiB: {plain(ratio, 3)} times the weights"
    return context.finding("weight-size", level, number.line, message, how)


def check_weight_size(context: Context) -> Iterator[Finding]:
    """Stated sizes of the weights against the parameters."""
    parameters = _parameter_interval(context.facts)
    if parameters is None:
        return
    for stated in context.facts.figures("weight_size"):
        if (
            stated.number.unit in BYTES
            and stated.number.before in ("", "~", "≈", "约")
            and not stated.name.delta
            and not stated.name.ratio
        ):
            finding = _judge_size(context, stated, *parameters)
            if finding is not None:
                yield finding


RULES: tuple[Rule, ...] = (
    Rule("parameters", "The parameter count follows from the configuration", check_parameters),
    Rule("weight-size", "The size of the weights follows from parameters and number format", check_weight_size),
)
