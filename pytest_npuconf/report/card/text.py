"""Text of a card: names escaped for Markdown, model output in fences, numbers with the digits that their interval supports."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from pytest_npuconf.audit.output import safe
from pytest_npuconf.gates import Sense, format_number

_MOST_DIGITS = 17
_SIGNS = {Sense.AT_MOST.value: "≤", Sense.AT_LEAST.value: "≥", Sense.WITHIN.value: "±"}
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_ACTIVE = re.compile(r"[\\`*\[\]|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|://|(?<=\bwww)\.|(?<=[\w.+-])@(?=\w)|#(?=\s|$)")
_LONGEST = 2000  # characters of a name or of a detail in a cell


def escaped(text: str) -> str:
    """``text`` on one line, so that nothing in it is Markdown, HTML or a link."""
    flat = " ".join(safe(text).split())
    if len(flat) > _LONGEST:
        flat = f"{flat[:_LONGEST]} …"
    flat = re.sub("[&<>]", lambda found: _ENTITIES[found.group()], flat)
    return _ACTIVE.sub(lambda found: "".join(f"\\{c}" if not c.isalnum() else c for c in found.group()), flat)


def fenced(text: str, info: str = "text") -> list[str]:
    """``text`` as it stands, in a fence that nothing in it can close."""
    lines = [safe(line) for line in text.replace("\r\n", "\n").split("\n")]
    longest = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{info}", *lines, fence]


def row_of(cells: Sequence[str]) -> str:
    """One row of a table; an empty cell says that there is nothing."""
    return f"| {' | '.join(cell or '—' for cell in cells)} |"


def gate_text(sense: str | None, bound: float | None) -> str:
    """``≤ 1.5``, ``± 0.03``; empty where nothing is gated."""
    return "" if sense is None or bound is None else f"{_SIGNS.get(sense, sense)} {bound:.12g}"


def plain(value: float) -> str:
    """A figure without an interval: a whole number in full, else four significant digits."""
    if value == int(value) and abs(value) < 1e15:
        return str(int(value))
    return f"{value:.0f}" if 1e4 <= abs(value) < 1e15 else format_number(value)


def figure(value: float, interval: Sequence[float | None] | None, bound: float | None) -> tuple[str, str, int | None]:
    """A value and the two ends of its interval, in one number of decimals: two digits of the half width, and more where the
    rounded numbers would lie on another side of the bound than the numbers do.

    Returns:
        The value, the ends in brackets (empty without an interval), the decimals (None: four significant digits).
    """
    ends = [end for end in interval or () if end is not None]
    half = (max(ends) - min(ends)) / 2 if len(ends) == 2 else 0.0
    if half <= 0 or not math.isfinite(half):
        text = _on_its_side(value, bound)
        return text, _bracketed([None if end is None else _on_its_side(end, bound) for end in interval or ()]), None
    decimals = max(0, 1 - math.floor(math.log10(half)))
    numbers = [value, *ends]
    while decimals < _MOST_DIGITS and not all(_same_side(x, float(at(x, decimals)), bound) for x in numbers):
        decimals += 1
    shown = [at(x, decimals) for x in numbers]
    shown = [text if _same_side(x, float(text), bound) else plain(x) for x, text in zip(numbers, shown, strict=True)]
    return shown[0], _bracketed(shown[1:]), decimals


def at(value: float, decimals: int) -> str:
    """``value`` to so many decimals, with an exponent where it would be mostly zeros."""
    if value == 0 or abs(value) >= 1e-3 or decimals <= 6:
        text = f"{value:.{decimals}f}"
        return text[1:] if text.startswith("-") and not text.strip("-0.") else text
    digits = decimals + math.floor(math.log10(abs(value)))
    return f"{value:.{digits}e}" if digits >= 0 else "0"


def margin_text(margin: float | None, decimals: int | None) -> str:
    """The room left, to the decimals of the figure that it belongs to; never rounded to nothing."""
    if margin is None:
        return ""
    text = plain(margin) if decimals is None else at(margin, decimals)
    return text if float(text) != 0 or margin == 0 else plain(margin)


def percent(value: float, decimals: int) -> str:
    """``-0.3224 %`` of a fraction."""
    text = f"{100 * value:.{decimals}f}" if abs(value) < 1e7 else f"{100 * value:.8e}"
    return f"{text[1:] if not text.strip('-0.') and text.startswith('-') else text} %"


def _bracketed(ends: Sequence[str | None]) -> str:
    return f"[{', '.join('∞' if end is None else end for end in ends)}]" if ends else ""


def _on_its_side(value: float, bound: float | None) -> str:
    """Four significant digits, or as many as keep it on its side of the bound."""
    text = plain(value)
    digits = 4
    while digits < _MOST_DIGITS and not _same_side(value, float(text), bound):
        digits += 1
        text = f"{value:.{digits}g}"
    return text


def _same_side(value: float, shown: float, bound: float | None) -> bool:
    if bound is None:
        return True
    return all(_sign(value - b) == _sign(shown - b) for b in (bound, -bound))


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
