"""Fenced code that never closes, and commands that stand in the text without a fence."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

FENCE = re.compile(r"^[ \t>]*(?P<mark>`{3,}|~{3,})\s*(?P<info>[^`]*)$")
_CJK = re.compile(r"[\u3400-\u9fff]")
_SHELL = re.compile(
    r"^\s*(?:[$>]\s+)?(?:sudo\s+)?(?:"
    r"pip3?\s+(?:install|download|uninstall|list|show)\b|python3?\s+(?:-[mcVu]\b|\S+\.py\b)|curl\s+(?:-|https?:|\"|')"
    r"|wget\s+(?:-|https?:)|git\s+(?:clone|lfs|checkout|pull|apply)\b|docker\s+(?:run|pull|exec|build|compose)\b"
    r"|(?:export|set)\s+[A-Z_][A-Z0-9_]*=|[A-Z][A-Z0-9_]{3,}=\S+\s+(?:python|vllm|pytest|bash)|conda\s+(?:create|activate|install)\b"
    r"|(?:apt|apt-get|yum|dnf)\s+(?:install|update)\b|vllm\s+(?:serve|bench|chat)\b|lm_eval\s+--|evalscope\s+\w|modelscope\s+download"
    r"|huggingface-cli\s+\w|hf\s+download|torchrun\s+-|npu-smi\s+info|source\s+\S+(?:\.sh|activate)|(?:ba)?sh\s+\S+\.sh|uv\s+pip\b"
    r"|msmodelslim\s+\w|lmdeploy\s+\w|cd\s+[\w./~-]+\s*$|mkdir\s+-p\b|pytest\s+-)"
)
_PYTHON = re.compile(
    r"^(?:from\s+[\w.]+\s+import\s+[\w(*]|import\s+[\w.]+(?:\s+as\s+\w+)?(?:,\s*\w+)*\s*(?:#.*)?$|print\(|(?:async\s+)?def\s+\w+\(|class\s+\w+[(:]"
    r"|os\.environ\[|[A-Za-z_][\w.]*(?:\[[^\]]*\])?(?:,\s*\w+)*\s=\s(?:[\w.]+[(\[]|[\"'\[{(frb]|\d)|with\s+[\w.]+\(.*:\s*$|for\s+\w+.*\sin\s.*:\s*$"
    r"|if\s+__name__|@[\w.]+|return\s|assert\s[\w(])"
)
# A command glued to the end of the line before it.
GLUED = re.compile(
    r"(?<=[^\s/\-_=\"'(|;&`])"
    r"(?=(?:python3? -m \w|curl https?://|curl -|export [A-Z_]{3,}=|pip3? install \S|vllm serve \S))"
    r"|(?<=['\"}])(?=export [A-Z_]{3,}=)"
)
MAX_RUN = 200


@dataclass(frozen=True)
class Line:
    """A line on its way to the parser, with the line of the file (from 1) it comes from, and whether it is inside a fence."""

    text: str
    origin: int
    code: bool = False


def close_fences(lines: Sequence[Line]) -> tuple[list[Line], list[str]]:
    """Lines with each fence closed; those inside are marked. A fence that never closes ends where prose begins."""
    result: list[Line] = []
    notes: list[str] = []
    position = 0
    while position < len(lines):
        match = FENCE.match(lines[position].text)
        if match is None:
            result.append(lines[position])
            position += 1
            continue
        end, closed = _end_of_fence(lines, position, match)
        if not closed:
            first, last = lines[position].origin, lines[end - 1].origin
            notes.append(f"the fence in line {first} is not closed; its code was taken to end at line {last}")
        result.extend(Line(line.text, line.origin, True) for line in lines[position:end])
        if not closed:
            result.append(Line(match["mark"], lines[end - 1].origin, True))
        position = end
    return result, notes


def _end_of_fence(lines: Sequence[Line], start: int, opening: re.Match[str]) -> tuple[int, bool]:
    """Index after the fence, and whether a closing line is there."""
    mark, language = opening["mark"], opening["info"].strip().lower()
    for position in range(start + 1, len(lines)):
        match = FENCE.match(lines[position].text)
        if match is None or match["mark"][0] != mark[0] or len(match["mark"]) < len(mark):
            continue
        if not match["info"].strip():
            return position + 1, True
        if language not in ("", "markdown", "md", "text", "txt"):  # another block opens: this one was left open
            return _first_prose(lines, start + 1, position), False
    return _first_prose(lines, start + 1, len(lines)), False


def _first_prose(lines: Sequence[Line], start: int, end: int) -> int:
    """The first line that is a heading, a table or a sentence, or ``end``."""
    for position in range(start, end):
        text = lines[position].text.strip()
        after_blank = position > start and not lines[position - 1].text.strip()
        if re.match(r"#{2,6}\s|\|.*\|$", text):
            return position
        if after_blank and is_sentence(text):
            return position
    return end


def is_sentence(text: str) -> bool:
    """A line of prose: a Chinese clause that is no comment, or an English sentence without code characters."""
    if re.match(r"\s*(?:#|//|\"|'|/\*|\*|-- )", text):
        return False
    if len(_CJK.findall(text)) >= 6 and not re.match(r"[\w.]+\s*[=(]|.*[;{]$", text):
        return True
    words = re.findall(r"[A-Za-z]{2,}", text)
    return len(words) >= 6 and text[:1].isupper() and text[-1:] in ".:!?" and not re.search(r"[={}();]", text)


def fence_commands(lines: Sequence[Line]) -> list[Line]:
    """Lines with a fence put around each run of shell commands or Python that has none."""
    comments_only = not any(re.match(r"\s{0,3}#{2,6}\s", line.text) for line in lines if not line.code)
    result: list[Line] = []
    position = 0
    while position < len(lines):
        end, language = _run(lines, position, comments_only)
        if not language:
            result.append(lines[position])
            position += 1
            continue
        run = [Line(line.text, line.origin, True) for line in lines[position:end]]
        result += [Line("", run[0].origin), Line(f"```{language}", run[0].origin, True), *run]
        result += [Line("```", run[-1].origin, True), Line("", run[-1].origin)]
        position = end
    return result


def _run(lines: Sequence[Line], start: int, comments_only: bool) -> tuple[int, str]:
    """End and language of the run of code that begins at ``start``; no language where none does."""
    first = start
    while first < len(lines) and _is_comment(lines[first]) and first - start < 3:
        first += 1
    if first > start and (first >= len(lines) or not _language(lines[first])):
        return start, ""
    if first >= len(lines) or (first > start and not any(line.text.strip() for line in lines[:start])):
        return start, ""  # a first line "# Title" is a title
    language = _language(lines[first])
    if not language:
        return start, ""
    position = end = first
    while position < len(lines) and position - start < MAX_RUN:
        line = lines[position]
        if line.code or (position > first and line.text.startswith("\x00")):
            break
        if _language(line) == language and not (position > first and _starts_anew(lines, position)):
            position = end = _statement(lines, position, language)
        elif not line.text.strip() or _is_comment(line):
            if _is_comment(line) and (comments_only or end == position):
                end = position + 1
            position += 1
        elif language == "python" and line.text[:1].isspace() and end == position:
            position = end = position + 1
        else:
            break
    return end, language


def _starts_anew(lines: Sequence[Line], position: int) -> bool:
    """Whether this line was cut from the one before it: a new block begins, so that lines stay countable."""
    return lines[position].origin == lines[position - 1].origin


def _is_comment(line: Line) -> bool:
    return not line.code and re.match(r"\s{0,3}#\s?[^#\s]", line.text) is not None


def _language(line: Line) -> str:
    if line.code:
        return ""
    if _SHELL.match(line.text):
        return "bash"
    text = line.text.rstrip()
    return "python" if _PYTHON.match(text) and _parses(text) else ""


def _parses(text: str) -> bool:
    """Whether a line that is complete is Python: ``x = [1, 2]3.11`` is a row that lost its separators."""
    if _open_brackets(text) or text.endswith((":", "\\", ",")) or text.startswith(("return", "@")) or '"""' in text:
        return True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ast.parse(text)
    except (Warning, SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _statement(lines: Sequence[Line], start: int, language: str) -> int:
    """Index after the statement: line continuations, open quotes (shell) or open brackets (Python) belong to it."""
    quote, depth = "", 0
    for position in range(start, min(len(lines), start + 60)):
        line = lines[position]
        if line.code or (position > start and (line.origin == lines[position - 1].origin or "|---" in line.text)):
            return position
        if language == "bash":
            quote = open_quote(line.text, quote)
            if not quote and not line.text.rstrip().endswith("\\"):
                return position + 1
        else:
            depth += _open_brackets(line.text)
            if depth <= 0:
                return position + 1
        if not line.text.strip() and not quote:
            return position
    return start + 1


def open_quote(text: str, quote: str, *, comments: bool = False) -> str:
    """The quotation mark that is open at the end of a line of shell; with ``comments``, what follows ``#`` does not count."""
    escaped = False
    for character in text:
        if escaped:
            escaped = False
        elif character == "\\" and quote != "'":
            escaped = True
        elif quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character == "#" and comments:
            break
    return quote


def _open_brackets(text: str) -> int:
    bare = re.sub(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|#.*", "", text)
    return sum(bare.count(c) for c in "([{") - sum(bare.count(c) for c in ")]}")
