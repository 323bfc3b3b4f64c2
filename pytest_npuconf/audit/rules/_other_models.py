"""Whether two lines speak of two models: a list of models gives one key many values, and none of them contradicts another."""

from __future__ import annotations

import re

from pytest_npuconf.audit.configuration import read_line
from pytest_npuconf.audit.context import Context
from pytest_npuconf.audit.document import CardText
from pytest_npuconf.audit.interval import Interval
from pytest_npuconf.audit.statements import Parameters

CLASS = 0.25  # relative: "7B" names a class
MANY = 2  # values that exclude each other: one is a slip of the pen, more are a list
ALIKE = 3  # keys that two lists share: the same form, filled in for another model
_ITEM = re.compile(
    r"^\W*(?:(?:model|checkpoint|variant|config(?:uration)?)[-_ ]?)?(?:name|id)\W{0,3}[:=]", re.IGNORECASE
)
_MODEL = re.compile(r"[A-Za-z][A-Za-z0-9.]*(?:-[A-Za-z0-9.]+)*-\d[A-Za-z0-9.]*(?:-[A-Za-z0-9.]+)*")
_NEAR = 200  # characters before a count that can name whose it is
_LABEL = re.compile(r"^\s*(?:#{1,6}\s+(?P<title>.+)|(?:[-*+]\s|\d+[.)]\s)?\s*\*\*(?P<bold>[^*]+)\*\*)")
# CLIP and InternVL are told by their capitals; these families are written as plain words too.
_CALLED = re.compile(
    r"(?<![A-Za-z0-9])(?:[A-Z]{3,}(?![A-Za-z])|[A-Z][a-z]+[A-Z]\w*"
    r"|(?i:llama|qwen|bert|mistral|mixtral|deepseek|baichuan|internlm|gemma|falcon|bloom|whisper|kimi|hunyuan|pangu))"
)
_NO_MODEL = {
    "npu", "cpu", "gpu", "api", "cann", "hbm", "mmlu", "tpot", "ttft", "faq", "gqa", "mha", "mla", "ffn", "todo", "json",
    "pytorch", "gib", "rope", "modelscope", "huggingface", "swiglu", "layernorm", "bpe", "ppl",
}  # fmt: skip
_FAR = 30  # lines from a label to what it labels


def widened(p: Parameters) -> Interval:
    """What a stated count can mean."""
    return p.value * Interval(1 - CLASS, 1 + CLASS) if p.loose else p.value


def _item_between(context: Context, a: int, b: int) -> bool:
    """Whether a line "name: ..." stands between the two: there another item of a list begins."""
    return any(_ITEM.match(text) for text in context.card.lines[min(a, b) : max(a, b) - 1])


def _models(card: CardText, line: int) -> set[str]:
    """Names in the nearest label in bold that has one, or in the nearest heading."""
    for number in range(line, max(0, line - _FAR), -1):
        label = _LABEL.match(card.lines[number - 1]) if number <= len(card.lines) else None
        if label is None:
            continue
        names = {name.lower() for name in _CALLED.findall(label["title"] or label["bold"])} - _NO_MODEL
        if names or label["title"]:
            return names
    return set()


def _named_apart(card: CardText, a: int, b: int) -> bool:
    """Whether the two lines stand under names of models that have none in common."""
    first, second = _models(card, a), _models(card, b)
    return bool(first and second and not first & second)


def apart(context: Context, a: int, b: int) -> bool:
    """Whether the two lines stand in two items of a list, or under the names of two models."""
    return _item_between(context, a, b) or _named_apart(context.card, a, b)


def other_configuration(context: Context, a: int, b: int) -> bool:
    """Whether the lines give two configurations: at least two keys differ, or both are commands."""
    first, second = (dict(read_line(context.card.lines[line - 1])) for line in (a, b))
    if sum(first[key] != second[key] for key in first.keys() & second.keys()) >= 2:
        return True
    commands = [
        code
        for code in context.card.codes
        if not code.text.lstrip().startswith("{")
        for line in (a, b)
        if code.line <= line <= code.line + code.text.count("\n")
    ]
    return len(commands) == 2


def _section(context: Context, line: int) -> tuple[int, str]:
    held = [s for s in context.card.sections if s.line <= line <= s.end]
    return (held[-1].line, held[-1].title) if held else (0, "")


def _keys(context: Context, start: int) -> set[str]:
    end = next((s.line for s in context.card.sections if s.line > start), len(context.card.lines) + 1)
    return {" ".join(p.key.lower().split()) for p in context.card.pairs if start <= p.line < end}


def _named(context: Context, p: Parameters) -> set[str]:
    """Names of models on the line before the count, in small letters."""
    text = context.card.lines[p.line - 1] if 1 <= p.line <= len(context.card.lines) else ""
    at = text.find(p.text)
    return {name.lower() for name in _MODEL.findall(text[max(0, at - _NEAR) : at if at >= 0 else None])}


def _in_prose(context: Context, p: Parameters) -> bool:
    return all(pair.line != p.line for pair in context.card.pairs)


def _in_brackets(context: Context, p: Parameters) -> bool:
    """Whether the count stands in brackets behind the name that it belongs to."""
    return f"({p.text}" in context.card.lines[p.line - 1]


def another(context: Context, p: Parameters, first: Parameters, found: list[Parameters]) -> bool:
    """Whether a count of parameters is, or may be, that of another model than ``first``."""
    clusters: list[Interval] = []
    for value in sorted((widened(q) for q in found), key=lambda v: v.hi - v.lo):
        if not any(value.overlaps(other) for other in clusters):
            clusters.append(value)
    if len(clusters) > MANY or _beside(found, p, first) or apart(context, first.line, p.line):
        return True
    names, own = _named(context, p), _named(context, first)
    if names and own and not names & own:
        return True
    (here, _), (there, _) = _section(context, p.line), _section(context, first.line)
    if here != there and len(_keys(context, here) & _keys(context, there)) >= ALIKE:
        return True
    if not _in_prose(context, p) or not _in_prose(context, first):
        return False
    return (here != there and bool(names or own)) or any(_in_brackets(context, q) for q in (p, first))


def _beside(found: list[Parameters], p: Parameters, first: Parameters) -> bool:
    """Whether the line also gives the count that it would contradict: then it compares models."""
    return any(q.line == p.line and q is not p and q.value.overlaps(first.value) for q in found)
