"""Mean, median and extremes told in sentences: against each other, and against figures listed in the sentence before."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pytest_npuconf.audit.context import Context
from pytest_npuconf.audit.findings import Finding, Level
from pytest_npuconf.audit.interval import Interval, geometric_mean, largest, mean, median, plain, smallest
from pytest_npuconf.audit.numbers import Number, numbers_in
from pytest_npuconf.audit.rules._grid import exact, stated
from pytest_npuconf.audit.rules._sentences import ABSENT, bare, sentences

_KINDS = {
    "mean": r"(?:arithmetic )?mean|average|算术平均值?|平均值?|均值",
    "median": r"median|中位数|中位值",
    "max": r"maximum|largest|highest|最大值?|最高值?",
    "min": r"minimum|smallest|lowest|最小值?|最低值?",
}
_FUNCTIONS = {"mean": mean, "median": median, "max": largest, "min": smallest}
# A whole item: nothing between two figures but an aggregate, what it is of, and a verb.
_ITEM = re.compile(
    r"[,、]?\s*(?:and\s+|以及|和)?(?:(?:the|their|its|其)\s*)?(?:"
    + "|".join(f"(?P<{kind}>{words})" for kind, words in _KINDS.items())
    + r")(?P<what>(?:\s[a-z/-]+){0,3}?|[\u4e00-\u9fff]{0,8}?)\s*(?:is|was|are|were|of|at|为|是|=|:)?\s*",
    re.IGNORECASE,
)
# Limits and settings, whose largest bounds no mean, and words that begin another set of values.
_NO_SAMPLE = re.compile(
    r"\b(?:of|in|on|at|for|over|per|with|than|by|among|across|number|length|context|batch|concurrency|input|window|allowed|permitted"
    r"|possible|requirements?|supported|configured|limit|target|expected|required|theoretical|mean|average|median|maximum|minimum)\b"
    r"|长度|上下文|批|并发|输入|窗口|允许|支持|配置|上限|目标|要求|理论|平均|中位|最大|最小",
    re.IGNORECASE,
)
# A part of the sample, or settings, whose mean nobody tells.
_EXCERPT = re.compile(
    r"\b(?:first|last|other|rest|among|such as|e\.g|example|some|including|excerpt|only|outlier|excluding|without|warm"
    r"|of (?:the |our |these )?(?:all|two|three|four|five|six|seven|eight|nine|ten|twelve|twenty|thirty|fifty"
    r"|\d+ (?:runs|trials|seeds|rounds)))\b|前|后|其中|例如|比如|部分|去掉|预热|以外"
    r"|\b(?:timeouts?|thresholds?|temperatures?|windows?|limits?|settings?|budgets?|delays?|learning|tried|used|swept|chosen"
    r"|set)\b|阈值|温度|设置|设为|超时|上限|尝试",
    re.IGNORECASE,
)
_BETWEEN = re.compile(r"\s{0,2}(?:[,、/]|,?\s{0,2}and|和|与|以及|及)\s{0,2}", re.IGNORECASE)
_COUNTS = {
    3: "three|三",
    4: "four|四",
    5: "five|五",
    6: "six|六",
    7: "seven|七",
    8: "eight|八",
    9: "nine|九",
    10: "ten|十",
}


@dataclass(frozen=True)
class Item:
    """ "the mean latency is 3.2 ms": kind, what it is of, and the figure."""

    kind: str
    what: str
    number: Number


def _chain(sentence: str, line: int) -> list[Item]:
    """The items of a sentence that consists of nothing else; empty for any other sentence."""
    text, found, last, what = bare(sentence), list[Item](), 0, ""
    if not _ITEM.match(text):
        return []
    for number in numbers_in(text, line):
        match = _ITEM.fullmatch(text, last, number.start)
        if match is None or exact(number) is None or _NO_SAMPLE.search(match["what"]):
            return []
        what = match["what"].strip().lower() or what
        found.append(Item(next(kind for kind in _KINDS if match[kind]), what, number))
        last = number.end
    return [] if text[last:].strip() else found


def _order(context: Context, items: list[Item]) -> Iterator[Finding]:
    """No mean or median of a sample lies outside its extremes."""
    for high in items:
        for low in items:
            same = high.what == low.what and high.number.unit == low.number.unit != "tokens"
            wrong = (low.kind, high.kind) in {
                ("min", "mean"),
                ("min", "median"),
                ("mean", "max"),
                ("median", "max"),
                ("min", "max"),
            }
            positive = (
                high.number.value > 0 and low.number.value > 0
            )  # of negative ones the largest may be meant by size
            if same and wrong and positive and stated(low.number).lo > stated(high.number).hi:
                message = (
                    f"the {low.kind} {low.number.text} is above the {high.kind} {high.number.text} of the same values"
                )
                yield context.finding(
                    "aggregate", Level.CONTRADICTION, low.number.line, message, "min <= mean, median <= max"
                )


def _listed(sentence: str, line: int) -> list[Number]:
    """The figures of a list of three or more with which the sentence ends, of one unit or of none but a point."""
    text = bare(sentence)
    found = numbers_in(text, line)
    if not found or text[found[-1].end :].strip() or _EXCERPT.search(text) or ABSENT.search(text):
        return []
    run = [found[-1]]
    for number in reversed(found[:-1]):
        if not _BETWEEN.fullmatch(text, number.end, run[0].start):
            break
        run.insert(0, number)
    units = {n.unit for n in run if n.unit}
    measured = units or all(n.decimals > 0 for n in run)
    if len(run) < 3 or len(units) > 1 or not measured or any(exact(n) is None for n in run):
        return []
    return run


def _fits(kind: str, values: list[Interval], number: Number) -> bool:
    """Rounded or cut off."""
    value = _FUNCTIONS[kind](values)
    return value.overlaps(stated(number)) or value.overlaps(Interval(number.value, number.value + 2 * number.half_ulp))


def _against(context: Context, before: str, listed: list[Number], items: list[Item]) -> Iterator[Finding]:
    """Aggregates against the list, where a count or another aggregate shows that the list is the whole sample."""
    values = [stated(n) for n in listed]
    unit = next((n.unit for n in listed if n.unit), "")
    fits = [item.number.unit == unit and _fits(item.kind, values, item.number) for item in items]
    words = before[: listed[0].start]
    counted = unit and re.search(
        rf"\b(?:{_COUNTS.get(len(listed), '-')}|{len(listed)})(?![\d.,])", words, re.IGNORECASE
    )
    if not (counted or any(fits)) or any(item.what for item in items):
        return
    for item, agrees in zip(items, fits, strict=True):
        if item.number.unit != unit:
            continue
        level = Level.FINE if agrees else Level.CONTRADICTION
        if not agrees and item.kind == "mean" and all(v.lo > 0 for v in values):
            harmonic = Interval(1.0, 1.0) / mean(Interval(1.0, 1.0) / v for v in values)
            if any(v.overlaps(stated(item.number)) for v in (geometric_mean(values), harmonic)):
                level = Level.AMBIGUOUS
        message = f"{item.number.text} is {'' if agrees else 'not '}the {item.kind} of the figures before it"
        how = f"{item.kind} of {', '.join(n.text for n in listed[:10])} = {plain(_FUNCTIONS[item.kind](values).middle)}"
        yield context.finding("aggregate", level, item.number.line, message, how)


def statistics_in_prose(context: Context) -> Iterator[Finding]:
    """ "... rates of 31.4, 29.8 and 30.6 tok/s. The mean is 30.6 tok/s, the maximum 31.4 tok/s." """
    for prose, parts in sentences(context.card):
        for i, part in enumerate(parts):
            items = _chain(part, prose.line)
            if len(items) > 1:
                yield from _order(context, items)
            listed = _listed(parts[i - 1], prose.line) if items and i else []
            if listed:
                yield from _against(context, parts[i - 1], listed, items)
