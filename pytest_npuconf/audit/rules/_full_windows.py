"""How many full windows a card holds: told in a sentence, against the memory left and the memory of one window."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pytest_npuconf.audit.context import Context
from pytest_npuconf.audit.facts import BINARY, BYTES
from pytest_npuconf.audit.findings import Finding, Level
from pytest_npuconf.audit.interval import Interval, around, plain
from pytest_npuconf.audit.numbers import Number, numbers_in
from pytest_npuconf.audit.rules._grid import exact
from pytest_npuconf.audit.rules._sentences import bare, sentences

_ONE = re.compile(
    r"\bKV\b.{0,20}\b(?:one|a|per) (?:full|whole) window|单个?(?:完整)?窗口.{0,6}KV|KV.{0,8}(?:单个?窗口|整窗)",
    re.IGNORECASE,
)
_LEFT = re.compile(
    r"\bKV\b.{0,20}\b(?:left|available|free|budget)\b.{0,6}(?:\b(?:one|a|each|per)\b.{0,24}card)?"
    r"|可用.{0,4}KV|KV.{0,8}(?:可用|剩余)",
    re.I,
)
_HOLDS = re.compile(
    r"(?:one|a|each)(?: single)?(?: \d+ ?G(?:i)?B)? (?:card|NPU|device)(?: \([^()]{1,30}\))?,?"
    r"(?: therefore| thus| so| hence)? holds "
    r"(?:at most |about |up to )?(?P<n>\d+(?:\.\d+)?) (?:full|whole) windows(?: at most| at once)?",
    re.IGNORECASE,
)
ROOM = 0.02  # relative: the last block, alignment


def _memory(context: Context, pattern: re.Pattern[str]) -> Interval | None:
    """The one figure of memory whose key says so; GB may be GiB."""
    found: list[Number] = []
    for pair in context.card.pairs:
        numbers = numbers_in(pair.value, pair.line)
        if pattern.search(pair.key) and len(numbers) == 1 and numbers[0].unit in BYTES and exact(numbers[0]):
            found.append(numbers[0])
    if len(found) != 1 or found[0].value <= 0:
        return None
    unit = found[0].unit
    return Interval(around(found[0], BYTES[unit]).lo, around(found[0], BINARY.get(unit, BYTES[unit])).hi)


def full_windows(context: Context) -> Iterator[Finding]:
    """ "One card holds 1.10 full windows": memory left / memory of one window, where each is given once."""
    if context.facts.has(r"kv[-_ ]?cache[-_ ]?dtype|\bC8\b|(?:8[- ]bit|int8|fp8)[^.;\n]{0,12}(?:KV\b|keys)"):
        return  # the window may be counted in one format and the sentence in the other
    for prose, parts in sentences(context.card):
        for part in parts:
            match = _HOLDS.fullmatch(bare(part))
            one, left = (_memory(context, p) for p in (_ONE, _LEFT)) if match else (None, None)
            if match is None or one is None or left is None:
                continue
            number, ratio = numbers_in(match["n"], prose.line)[0], left / one
            agrees = around(number).lo <= ratio.hi * (1 + ROOM)
            level = Level.FINE if agrees else Level.CONTRADICTION
            message = f"{number.text} full windows {'fit' if agrees else 'do not fit'} the memory that is left"
            yield context.finding("kv-capacity", level, prose.line, message, f"at most {plain(ratio.hi, 4)}")
