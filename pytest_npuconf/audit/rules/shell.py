"""Commands that do something else than they seem to."""

from __future__ import annotations

import re
from collections.abc import Iterator

from packaging.version import Version

from pytest_npuconf.audit.context import Context, Rule
from pytest_npuconf.audit.data import Option
from pytest_npuconf.audit.data import versions as version_data
from pytest_npuconf.audit.document import Code
from pytest_npuconf.audit.fences import open_quote
from pytest_npuconf.audit.findings import Finding, Level
from pytest_npuconf.audit.lines import DENIED, Line, lines_of
from pytest_npuconf.audit.stated_versions import settled, stated_versions

ID = "shell"
_SHELL = {"", "sh", "bash", "shell", "zsh", "console", "shell-session", "shellscript", "cmd", "terminal"}
_PIP = re.compile(
    r"^\s*(?:[$#>%]\s+)?(?:sudo\s+(?:-\w+\s+)?)?(?:python3?\s+-m\s+|uv\s+|!\s?)?pip3?\s+install\b(?P<rest>.*)$"
)
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_REDIRECT = re.compile(
    r"(?<![\w<>=-])(?P<name>[A-Za-z][A-Za-z0-9._-]*(?:\[[^\]\s]*\])?)(?P<op>>=?|<=?)(?P<version>\d[\w.]*)"
)
_COMMAND = re.compile(
    r"^\s*(?:[$#]\s+)?(?:sudo\s+)?(?:vllm|python3?|pip3?|export|docker|bash|sh|torchrun|lm[_-]eval|accelerate|curl"
    r"|ais_bench|evalscope|msmodelslim|\./)\b"
)
# The output of --help and synopses show how options are written; nobody types them.
_HELP = re.compile(r"^\s*usage:|^\s*(?:optional|positional) arguments:|^\s*\[--?\w", re.IGNORECASE | re.MULTILINE)
_HOLE = re.compile(
    r"[\[<](?:[A-Z][A-Z_ ]+|[^<>\[\]\n]{0,60}[\u3040-\u30ff\u4e00-\u9fff][^<>\[\]\n]{0,60}|[a-z]+(?:[_ -][a-z]+)+)[\]>]"
)
_BARE = re.compile(
    r"^\s*(?:sudo|pip3?|python3?|git|cd|export|conda|uv|source|bash|sh|apt|apt-get|yum|make|vllm|docker|wget)\s"
)
# A backslash at the end, or one that only a comment follows.
_COMMENTED = re.compile(r"\\[ \t]{1,40}#")
_ENDED = re.compile(r"\\\s{0,40}(?:#.*)?$")
# An option as it is typed; "--name: what it is" and "--name      Words about it" describe one.
_OPTION_LINE = re.compile(r"^\s*--[a-zA-Z][\w-]*(?=$|[\s=])(?!\s*[:：]|\s{3,}[A-Z][a-z]|.*[\u4e00-\u9fff])")


def check(context: Context) -> Iterator[Finding]:
    """Redirections by an unquoted specifier, commands cut short, options that a version no longer has."""
    commented = _commented(context)
    for line in lines_of(context.card):
        if line.number not in commented:
            yield from _redirect(context, line)
    for code in context.card.codes:
        if code.language.strip().lower() in _SHELL:
            yield from _continued(context, code)
    yield from _options(context)


def _commented(context: Context) -> set[int]:
    """Lines of code that begin with "#" where that is no prompt: other commands of the block have none."""
    found: set[int] = set()
    for code in context.card.codes:
        lines = code.text.split("\n")
        if any(_BARE.match(line) for line in lines):
            found |= {code.line + offset for offset, line in enumerate(lines) if line.lstrip().startswith("# ")}
    return found


def _redirect(context: Context, line: Line) -> Iterator[Finding]:
    command = _PIP.match(line.text)
    if command is None or DENIED.search(line.text):
        return
    found = _REDIRECT.search(_QUOTED.sub("''", command["rest"].split(" #")[0]))
    if found is None:
        return
    if found["op"].startswith(">"):
        file = found["op"][1:] + found["version"]
        what = f"writes pip's output into a file called {file}, and installs {found['name']} without a bound"
    else:
        what = (
            f"reads the command's input from a file called {found['op'][1:] + found['version']}, and stops where "
            "there is none"
        )
    message = f"unquoted, {found.group()} is a redirection: the shell {what}; quote it: '{found.group()}'"
    yield context.finding(
        ID, Level.CONTRADICTION, line.number, message, "POSIX shell command language, 2.7 Redirection"
    )


def _continued(context: Context, code: Code) -> Iterator[Finding]:
    """Options on a line of their own after a line that does not end in a backslash, and backslashes that are none."""
    lines = code.text.rstrip("\n").split("\n")
    if not any(_COMMAND.match(line) for line in lines) or _HELP.search(code.text):
        return
    laid_out = _HOLE.search(code.text) and not any(line.rstrip().endswith("\\") for line in lines)
    quote, array, run = "", False, False
    for offset, line in enumerate(lines):
        was_inside = bool(quote) or array
        quote = open_quote(line, quote, comments=True)
        array = bool(re.match(r"\s*[\w]+\+?=\(", line) or array) and not re.search(r"\)\s*$", line)
        cut = None
        if offset > 0 and not was_inside and not quote:
            after = lines[offset + 1] if offset + 1 < len(lines) else ""
            typed = _typed(lines[:offset])
            cut = _cut(context, code.line + offset, (lines[offset - 1], line, after), typed)
        if cut is not None and not run:
            # with holes to fill, it may be wrapped to be read
            level = Level.AMBIGUOUS if laid_out else Level.IMPLAUSIBLE
            yield context.finding(ID, level, code.line + offset, *cut)
        run = cut is not None  # of several lines in a row the first is enough


def _typed(lines: list[str]) -> bool:
    """Whether the options at the end of the lines belong to a command: they may as well be a list of options."""
    first = len(lines) - 1
    while first > 0 and (_OPTION_LINE.match(lines[first]) or lines[first - 1].rstrip().endswith("\\")):
        first -= 1
    return not _OPTION_LINE.match(lines[first]) and (
        _COMMAND.match(lines[first]) is not None or _ENDED.search(lines[first]) is not None
    )


def _cut(context: Context, number: int, around: tuple[str, str, str], typed: bool) -> tuple[str, str] | None:
    """What cuts the command short between two lines, and why it does."""
    before, line, after = around
    raw = context.card.raw[number - 2] if 2 <= number <= len(context.card.raw) + 1 else before
    if _OPTION_LINE.match(line) and re.search(r"\\[ \t]+$", raw):
        message = "the backslash before has spaces after it, so it continues nothing: this line is run as a command"
        return message, f"line {number - 1} ends in a backslash and spaces"
    if _OPTION_LINE.match(line) and _ends_command(before) and typed:
        if _COMMENTED.search(before):
            why = f"the backslash of line {number - 1} is followed by a comment, so it continues nothing"
        else:
            why = f"line {number - 1} does not end in a backslash"
        message = f"{why}: the shell runs this line as a command of its own"
        return message, "POSIX shell command language, 2.2.1 Escape character"
    comment = line.lstrip().startswith("# ") and not before.lstrip().startswith("#") and _OPTION_LINE.match(after)
    if before.rstrip().endswith("\\") and comment:
        message = "a comment stands inside a continued command: it ends the command, and what follows is run apart"
        return message, "POSIX shell command language, 2.3 Token recognition"
    return None


def _ends_command(before: str) -> bool:
    text = before.strip()
    if not text or text.startswith("#") or text.endswith(("\\", "|", "&&", "||", "(", "{", ",")):
        return False
    return bool(_COMMAND.match(before) or _OPTION_LINE.match(before))


def _options(context: Context) -> Iterator[Finding]:
    vllm = settled(stated_versions(context.card), "vllm")
    if vllm is None:
        return
    commands = joined(context)
    for option in version_data().options:
        if vllm.version < Version(option.removed):
            continue
        values = "|".join(option.values)
        written = re.compile(
            rf"(?<![\w-]){re.escape(option.name)}" + (rf"[\s=]+['\"`]?({values})\b" if values else r"(?![\w-])")
        )
        for line in lines_of(context.card):
            found = written.search(line.text)
            if found and not DENIED.search(line.text) and _is_vllm(line, commands, context, option):
                message = f"vLLM {vllm.text} has no option {option.name} (until {option.removed}); now {option.instead}"
                yield context.finding(
                    ID,
                    Level.CONTRADICTION,
                    line.number,
                    message,
                    f"line {vllm.line}: vLLM {vllm.text}; {option.source}",
                )


def joined(context: Context) -> dict[int, str]:
    """Each line of code with the whole command that it belongs to."""
    commands: dict[int, str] = {}
    for code in context.card.codes:
        group: list[int] = []
        text = ""
        for offset, line in enumerate(code.text.rstrip("\n").split("\n")):
            group.append(code.line + offset)
            text += " " + line.rstrip().removesuffix("\\")
            if not line.rstrip().endswith("\\"):
                commands |= dict.fromkeys(group, text)
                group, text = [], ""
        commands |= dict.fromkeys(group, text)
    return commands


def _is_vllm(line: Line, commands: dict[int, str], context: Context, option: Option) -> bool:
    """Whether the option is given to vLLM: its command, or a table that also has vLLM's newer options."""
    if line.code:
        return bool(re.search(rf"\b{option.program}\b", commands.get(line.number, line.text)))
    if re.search(r"\bpython3?\s+(?!-m)\S+\.py\b", line.text):
        return False
    table = next(
        (t for t in context.card.tables if any(cell.line == line.number for row in t.rows for cell in row)), None
    )
    around = " ".join(cell.text for row in table.rows for cell in row) if table is not None else line.text
    return bool(re.search(rf"--runner|--convert|--reasoning-parser|\b{option.program}\b", around, re.IGNORECASE))


RULES = (Rule(ID, "commands do what they seem to do", check),)
