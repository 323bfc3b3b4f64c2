"""One thing told twice in other forms: the window in two sentences, the length of a vector, a latency in a log."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pytest_npuconf.audit.context import Context
from pytest_npuconf.audit.findings import Finding, Level
from pytest_npuconf.audit.interval import plain
from pytest_npuconf.audit.numbers import Number, numbers_in
from pytest_npuconf.audit.quantities import read_name
from pytest_npuconf.audit.rules._grid import exact
from pytest_npuconf.audit.rules._performance import Speed, speed
from pytest_npuconf.audit.rules._sentences import ABSENT, bare, sentences

_WINDOW = re.compile(
    r"(?:the|its) (?:maximum )?context (?:window|length) (?:is|has)(?: limited to)? (?P<n>\d{1,3}(?:,\d{3})+|\d+) tokens"
    r"|(?:模型)?(?:最大)?上下文(?:窗口|长度)(?:为|是)\s?(?P<zh>\d{1,3}(?:,\d{3})+|\d+)\s?(?:个\s?)?tokens?",
    re.IGNORECASE,
)
# Sections about the model as a whole: nothing in such a title names another model or another setting.
_GENERAL = re.compile(
    r"(?:\W|\d+\.|[一二三四五六七八九十]、|context|window|length|limits?|limitations?|known|usage|use|notes?|overview|introduction"
    r"|description|summary|about|and|the|input|tokenizer|intended|details"
    r"|上下文|窗口|长度|限制|局限|局限性|已知|使用|说明|概述|简介|介绍|与|和)+",
    re.IGNORECASE,
)


def _is_general(context: Context, line: int) -> bool:
    """Whether the line speaks of the whole card: in the part before any subsection, or under such a title."""
    title = context.card.section_at(line)
    head = next((s for s in context.card.sections if s.line <= line <= s.end), None)
    return (head is not None and head.title == title and head.end >= len(context.card.lines) - 1) or bool(
        _GENERAL.fullmatch(title)
    )


_NAMED_SIZE = re.compile(r"(?<=[A-Za-z][-_ ])(\d{1,4}(?:\.\d+)?[BM])(?![\w/]| ?param)", re.IGNORECASE)


def _one_model(context: Context) -> bool:
    """Whether the card speaks of models of one size only."""
    sizes = {m[1].lower() for prose in context.card.proses for m in _NAMED_SIZE.finditer(prose.text[:4000])}
    return len(sizes) <= 1 and not context.facts.several_models


def windows(context: Context) -> Iterator[Finding]:
    """ "The context window is n tokens", twice with another n, where both speak of the whole card."""
    found: list[tuple[float, int, str]] = []
    for prose, parts in sentences(context.card) if _one_model(context) else ():
        for part in parts:
            match = _WINDOW.fullmatch(bare(part))
            if match and _is_general(context, prose.line) and not ABSENT.search(prose.text):
                found.append((float((match["n"] or match["zh"]).replace(",", "")), prose.line, prose.section))
    for value, line, section in found[1:]:
        if value != found[0][0] and section != found[0][2] and len({v for v, *_ in found}) == 2:
            message = f"the context window is {plain(value)} tokens here and {plain(found[0][0])} on line {found[0][1]}"
            yield context.finding(
                "repeated-quantity", Level.CONTRADICTION, line, message, f"{plain(found[0][0])} / {plain(value)}"
            )


_DIMENSION = re.compile(
    r"(?:output )?(?:embedding|vector) (?:dimensions?|dim)|embedding size|(?:输出)?(?:嵌入|向量)(?:维度|维数)|output dimensions?",
    re.IGNORECASE,
)
_ENTRIES = re.compile(
    r"(?:a|each|every|the) (?:returned )?(?:vector|embedding) has (?P<n>\d{2,5}) "
    r"(?:entries|dimensions|components|elements|numbers|values)"
    r"|(?:每个)?(?:返回的)?向量(?:有|为|共)\s?(?P<zh>\d{2,5})\s?(?:维|个分量|个元素)",
    re.IGNORECASE,
)
_PRINTED = re.compile(r"\blen\([^#\n]{0,80}embedding\w*\)+\s*#\s*(?:->|=>|→)?\s*(\d{2,5})\s*$")
# Vectors that may be shortened, or that are not the model's last.
_SHORTER = re.compile(
    r"matryoshka|\bMRL\b|truncat|dimensions\s*=|\bPCA\b|project|reduced dim"
    r"|shorten|colbert|multi-vector|late interaction|sparse|binary"
    r"|俄罗斯套娃|稀疏|多向量|截断|降维|投影|可变维度|自定义维度",
    re.IGNORECASE,
)


def vector_lengths(context: Context) -> Iterator[Finding]:
    """The embedding dimension of a key against "a vector has n entries" and the length that a sample prints."""
    stated = {
        (n.value, pair.line)
        for pair in context.card.pairs
        if _DIMENSION.fullmatch(pair.key.strip())
        for n in numbers_in(pair.value, pair.line)
        if n.text == pair.value.strip() and n.unit in ("", "dimensions")
    }
    if len({value for value, _ in stated}) != 1 or context.facts.has(_SHORTER.pattern) or not _one_model(context):
        return
    value, where = min(stated)
    said: list[tuple[str, int]] = []
    for prose, parts in sentences(context.card):
        matches = [_ENTRIES.fullmatch(bare(part)) for part in parts]
        said += [(m["n"] or m["zh"], prose.line) for m in matches if m]
    for code in context.card.codes:
        lines = enumerate(code.text.splitlines(), code.line)
        said += [(m[1], line) for line, text in lines if (m := _PRINTED.search(text[:400]))]
    for text, line in said:
        agrees = float(text) == value
        level = Level.FINE if agrees else Level.CONTRADICTION
        message = f"a vector has {text} entries" + (
            " as stated" if agrees else f" here, its dimension is {plain(value)} on line {where}"
        )
        yield context.finding("repeated-quantity", level, line, message, f"{plain(value)} / {text}")


_RESULT = re.compile(
    r"(?:\W|npu|ascend|昇腾|推理|运行|测试|实测|结果|概览|总览|摘要|run|test|inference|results?|summary|overview)*",
    re.IGNORECASE,
)
_SETTING = re.compile(
    r"首次|首轮|第一次|冷启动|预热|编译|图模式|单算子|优化|重启|first|cold|warm|eager|graph|compile|optimi[sz]|before|after"
    r"|fp16|bf16|int8|CPU|GPU",
    re.IGNORECASE,
)
_BATCH = re.compile(r"batch[_ ]?size\W{0,3}(\d+)|\bbs\W{0,2}(\d+)|批大小\W{0,2}(\d+)", re.IGNORECASE)


def _latencies(context: Context) -> Iterator[tuple[Speed, str, Number]]:
    """Lone latencies of three digits or more, whose keys say latency (of the NPU, on average) and nothing else."""
    for pair in context.card.pairs:
        name, numbers = read_name(pair.key), numbers_in(pair.value, pair.line)
        plainly = (
            name.quantity == "latency"
            and name.aggregate in ("", "mean")
            and not (name.rest or name.delta or name.ratio)
        )
        if not plainly or name.tags - {"npu"} or len(numbers) != 1 or numbers[0].text != pair.value.strip():
            continue
        figure = speed(numbers[0], name) if exact(numbers[0]) else None
        if figure is not None and len(re.sub(r"\D", "", numbers[0].text).strip("0")) >= 3:
            yield figure, pair.section, numbers[0]


def odd_latency(context: Context) -> Iterator[Finding]:
    """Of three or more mean latencies all but one are the same, and nothing says what was different about that one."""
    found = list(_latencies(context))
    batches = {next(filter(None, m.groups())) for line in context.card.lines for m in _BATCH.finditer(line[:400])}
    for odd, section, number in found:
        others = [(figure, s) for figure, s, n in found if n is not number]
        if (
            len(others) < 2
            or len({s for _, s in others}) < 2
            or len({o.value for o, _ in others}) != 1
            or len(batches) > 1
        ):
            continue
        around_it = [p for p in context.card.proses if p.section == section and p.line >= number.line - 12]
        spoken = [*(p.text for p in around_it), *(p.key for p in context.card.pairs if p.section == section)]
        if not _RESULT.fullmatch(section) or any(_SETTING.search(text) for text in spoken):
            continue
        if odd.value.overlaps(others[0][0].value) or 0.9 < odd.value.middle / others[0][0].value.middle < 1.1:
            continue
        message = (
            f"the mean latency is {odd.text} here and {others[0][0].text} on lines "
            f"{' and '.join(str(o.line) for o, _ in others)}: nothing says what differed"
        )
        yield context.finding("repeated-quantity", Level.IMPLAUSIBLE, number.line, message)
