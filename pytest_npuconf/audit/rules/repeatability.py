"""Samples that nobody can draw again."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pytest_npuconf.audit.context import Context, Rule
from pytest_npuconf.audit.findings import Finding, Level
from pytest_npuconf.audit.lines import Line, lines_of

ID = "repeatability"
_TEMPERATURE = re.compile(
    r"(?:temperature|温度)[\"'`]?\s*(?:为|是|of)?\s*[:=|]?\s*(\d+(?:\.\d+)?)(?![\d.]*\s*(?:°|℃|度))", re.I
)
_SEED = re.compile(
    r"(?<![A-Za-z])(?:random[_ ]?)?seeds?[\"'`]?\s*(?:为|is|of)?\s*[:=|]?\s*\d+|(?:随机)?种子\s*(?:数|值)?\s*(?:为"
    r"|是)?\s*[:=|]?\s*\d+|manual_seed\(",
    re.I,
)
_SAMPLE = re.compile(
    r"示例|样例|推理输出|真实输出|生成结果|模型输出|\bsamples?\b|\bsampled\b|outputs?\b|generated|responses?\b|answers?\b",
    re.I,
)
_RESULT = re.compile(
    r"测试环境|测试条件|测试配置|测试参数|采样参数|示例输出|推理输出|真实输出|实测|评测|评估|生成结果|输出示例|样例"
    r"|test environment|test setting|test config"
    r"|sampled|samples? (?:were|was|below|drawn)"
    r"|outputs? (?:were|was|below)|generated with|evaluat|benchmark|measured|real output|actual output",
    re.I,
)
_ADVICE = re.compile(
    r"建议|推荐|可选|默认|生成配置|generation config|recommend|suggest|default"
    r"|best practice|usage|example request|请求示例|调用示例",
    re.I,
)


def check(context: Context) -> Iterator[Finding]:
    """Results drawn at a temperature above zero, in a card that gives no seed."""
    lines = lines_of(context.card)
    if any(_SEED.search(line.text) for line in lines):
        return
    for line in lines:
        temperature = _drawn(context, line)
        if temperature:
            message = f"drawn at temperature {temperature:g} without a seed: nobody can draw these outputs again"
            shown = _SAMPLE.search(line.text + " " + context.card.section_at(line.number))
            level = Level.UNSUPPORTED if shown else Level.AMBIGUOUS  # scores are often means over several draws
            yield context.finding(ID, level, line.number, message)


def _drawn(context: Context, line: Line) -> float:
    """The temperature that the line says its outputs were drawn at, else 0."""
    found = _TEMPERATURE.search(line.text)
    if line.code or found is None or not 0 < float(found[1]) <= 2:
        return 0.0
    section = context.card.section_at(line.number)
    if _ADVICE.search(line.text) or (_ADVICE.search(section) and not _RESULT.search(line.text)):
        return 0.0
    if not _RESULT.search(line.text) and not (
        _RESULT.search(section) or re.search(r"推理输出|输出示例|samples?\b|outputs?\b|评估|evaluation", section, re.I)
    ):
        return 0.0
    return float(found[1])


RULES = (Rule(ID, "samples can be drawn again", check),)
