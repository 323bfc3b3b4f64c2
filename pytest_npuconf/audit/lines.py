"""A card line by line, for rules about words: which lines are code, and what a line is worth."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pytest_npuconf.audit.document import CardText, kept
from pytest_npuconf.audit.normalise import without_markup

# Said of something, it takes the force out of the line: an option that was removed, a variable that does not exist.
DENIED = re.compile(
    r"不存在|不再|已移除|已删除|已废弃|废弃|弃用|不支持|无效|不是|并非|切勿|请勿|不要|不能|误写|拼写|错误|改用|应使用|而非|而不是|替代|取代|旧版|旧版本"
    r"|\b(?:no longer|removed|deprecated|does not exist|do not|don't|doesn't|never|not an?|instead|rather than"
    r"|replaced|replaces"
    r"|misspel|typo|obsolete|unsupported|invalid|wrong|former|formerly|legacy|is not|are not)\b",
    re.IGNORECASE,
)
PENDING = re.compile(
    r"待执行|待判定|待测试|待测|待验证|待评估|待完成|待补充|待运行|未执行|未测试|未测|未验证|未完成|未运行|尚未|进行中|计划中|暂无"
    r"|\b(?:pending|to be (?:done|run|measured|determined|executed|evaluated|verified)|not (?:yet )?(?:run|executed"
    r"|measured|tested|evaluated"
    r"|verified|done)|in progress|TBD|TODO|planned|awaiting)\b",
    re.IGNORECASE,
)
PASSED = re.compile(r"通过|合格|达标|✅|✔|☑|\b(?:pass(?:ed|es)?|conformant|accepted|ok)\b", re.IGNORECASE)
NOT_PASSED = re.compile(
    r"未通过|不通过|不合格|未达标|不达标|❌|✗|✘|\b(?:fail(?:ed|s|ure)?|not pass(?:ed)?|does not pass|inconclusive|incomplete)\b",
    re.IGNORECASE,
)
# A line that gives a rule or a condition, not a result.
CONDITION = re.compile(
    r"若|如果|即为|即视为|视为|应在|标准|阈值|门禁|通过率|通过标准|\b(?:if|when|criteri(?:on|a)|threshold|gate|pass rate)\b",
    re.I,
)


@dataclass(frozen=True)
class Line:
    """A line that says something: its number, its text without markup, and whether it is code."""

    number: int
    text: str
    code: bool


@kept
def lines_of(card: CardText) -> tuple[Line, ...]:
    """The lines of the card that are not blank."""
    code = code_lines(card)
    found = []
    for number, line in enumerate(card.lines, 1):
        text = line.strip() if number in code else without_markup(line)
        if text:
            found.append(Line(number, text, number in code))
    return tuple(found)


def prose_of(card: CardText) -> Iterator[Line]:
    """The lines that are not code."""
    return (line for line in lines_of(card) if not line.code)


def code_lines(card: CardText) -> frozenset[int]:
    """The numbers of the lines inside code."""
    return frozenset(
        number
        for code in card.codes
        for number in range(code.line, code.line + len(code.text.rstrip("\n").split("\n")))
    )


def cells_of(text: str) -> list[str]:
    """A line of a pipe table as its cells; any other line as one cell."""
    return [cell.strip() for cell in text.strip().strip("|").split("|")] if "|" in text else [text]
