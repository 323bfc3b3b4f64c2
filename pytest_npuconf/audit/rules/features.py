"""Features that the card claims and nothing in it shows."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pytest_npuconf.audit.context import Context, Rule
from pytest_npuconf.audit.findings import Finding, Level
from pytest_npuconf.audit.lines import DENIED, PENDING, Line, lines_of

ID = "feature-sample"
_WORKS = re.compile(
    r"(?:thinking|think|思考|推理过程|思维链|reasoning)[^。.;;|]{0,12}(?:模式|过程|mode|process|output)?[^。.;;|]{0,8}(?:正常|可用|已验证"
    r"|验证通过|工作正常|works?\b|verified|normal|as expected)"
    r"|支持[^。;|]{0,4}(?:深度思考|思考模式|thinking mode)|具备\s*(?:think|思考|思维链|推理)[^。.;;|]{0,12}(?:能力|过程)",
    re.I,
)
_SHOWN = re.compile(
    r"</?think(?:ing)?>|reasoning_content|reasoning_tokens|思考过程[:]|思考内容|<\|begin_of_thought\|>|\[思考\]|Thinking Process",
    re.I,
)
_SAMPLE = re.compile(
    r"模型输出|输出[:]|示例\s*\d|样例\s*\d|推理输出|(?:model )?(?:output|response|answer)\s*[:]|^(?:assistant|模型|助手)\s*[:]"
    r"|example \d|sample \d",
    re.I,
)
_TOOLS = re.compile(
    r"支持[^。;|]{0,6}(?:工具调用|函数调用)|\bsupports? (?:native )?(?:tool|function)[- ]calling|(?:tool"
    r"|function) calling (?:is )?(?:works|supported)",
    re.I,
)
_TOOL_SHOWN = re.compile(
    r"tool_call|tool_choice|function_call|\"tools\"|tools=|tool-call-parser|auto-tool-choice|调用工具|工具返回", re.I
)
# A service that answers with vectors and has no conversation.
_VECTORS = re.compile(r"/v1/embeddings|--convert embed|llm\.embed\(", re.I)
_CHAT = re.compile(r"chat/completions|/v1/completions|\.generate\(|\.chat\(|apply_chat_template", re.I)
_VERIFIED = re.compile(
    r"(?<![\d,])(\d[\d,]{0,12}\s?[kK]?)\s{0,4}(?:tokens?)?\s{0,4}[((\[]\s*(?:已验证|已测试|实测|verified|tested)|(?:已验证|实测|测试)(?:的)?(?:上下文|长度"
    r"|序列)\w{0,6}\s*[:|为]?\s*(\d[\d,]*\s?[kK]?)"
    r"|(?:verified|tested|validated) (?:up to|at"
    r"|with)(?: a)?(?: context(?: length)?(?: of)?)?\s*(\d[\d,]*\s?[kK]?)\s*(?:tokens|context)"
    r"|(?:verified|tested|validated) context(?: (?:length|window))?\s*[:|]?\s*(\d[\d,]*\s?[kK]?)",
    re.I,
)
_SERVED = re.compile(r"max[-_]model[-_]len[\"']?[\s=:]+(\d{1,9})\s?([kK](?![A-Za-z]))?")


def check(context: Context) -> Iterator[Finding]:
    """Thinking said to work without a sample that thinks; a context length served that was never verified."""
    lines = lines_of(context.card)
    yield from _thinking(context, lines)
    yield from _tools(context, lines)
    yield from _length(context, lines)


def _claimed(line: Line, pattern: re.Pattern[str]) -> bool:
    """Whether a line of text says it, neither denied nor pending."""
    said = not line.code and pattern.search(line.text)
    return bool(said) and not DENIED.search(line.text) and not PENDING.search(line.text)


def _thinking(context: Context, lines: tuple[Line, ...]) -> Iterator[Finding]:
    if any(_SHOWN.search(line) for line in context.card.raw) or not any(_SAMPLE.search(line.text) for line in lines):
        return
    for line in lines:
        if _claimed(line, _WORKS):
            message = "thinking is said to work, and none of the card's samples shows a thought"
            yield context.finding(
                ID, Level.UNSUPPORTED, line.number, message, "looked for <think>, </think> and reasoning_content"
            )


def _tools(context: Context, lines: tuple[Line, ...]) -> Iterator[Finding]:
    """Tool calling claimed beside samples none of which calls a tool."""
    if any(_TOOL_SHOWN.search(line) for line in context.card.raw):
        return
    vectors = any(_VECTORS.search(line.text) for line in lines) and not any(_CHAT.search(line.text) for line in lines)
    if not vectors and not any(_SAMPLE.search(line.text) for line in lines):
        return
    for line in lines:
        if _claimed(line, _TOOLS):
            message = "tool calling is claimed, and none of the card's samples or commands calls a tool"
            yield context.finding(
                ID, Level.UNSUPPORTED, line.number, message, "looked for tool_call, tools and tool_choice"
            )
            return


def _length(context: Context, lines: tuple[Line, ...]) -> Iterator[Finding]:
    verified = [(tokens, line.number) for line in lines if not line.code for tokens in _verified_in(line.text)]
    if not verified:
        return
    longest, where = max(verified)
    done = set()
    for line in lines:
        served = _SERVED.search(line.text)
        if served is None:
            continue
        tokens = int(served[1]) * (1024 if served[2] else 1)
        if tokens > longest and tokens not in done:
            done.add(tokens)
            message = f"{tokens} tokens are served, {longest} were verified (line {where})"
            yield context.finding(
                ID, Level.UNSUPPORTED, line.number, message, f"{tokens} / {longest} = {tokens / longest:g}"
            )


def _verified_in(text: str) -> Iterator[int]:
    for found in _VERIFIED.finditer(text):
        written = next(group for group in found.groups() if group)
        digits = re.sub(r"[^\d]", "", written)
        tokens = int(digits[:9] or "0") * (1024 if written.rstrip().lower().endswith("k") else 1)
        if tokens >= 256 and not DENIED.search(text):
            yield tokens


RULES = (Rule(ID, "a claimed feature is shown", check),)
