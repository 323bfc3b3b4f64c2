"""Thresholds as cards write them, and the verdicts over them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pytest_npuconf.audit.lines import CONDITION, NOT_PASSED, PENDING, Line
from pytest_npuconf.audit.numbers import Number, numbers_in

_AT_LEAST = (
    r"≥|>=|>|不低于|不小于|不少于|高于|大于|至少|at least|no less than|"
    r"(?:not|no) (?:below|less than|lower than|under|worse than)|above"
    r"|greater than|over"
)
_AT_MOST = (
    r"≤|<=|<|不高于|不超过|不大于|低于|小于|至多|最多|at most|no more than|"
    r"(?:not|no) (?:above|more than|greater than|higher than|over)"
    r"|not exceed(?:ing)?|below|less than|under|within"
)
_BOUND = re.compile(rf"(?P<two>±|\+/-|\+-)|(?P<least>{_AT_LEAST})|(?P<most>{_AT_MOST})", re.IGNORECASE)
_SECONDS = {"ms": 1e-3, "s": 1.0, "us": 1e-6, "min": 60.0}
_VERDICT = re.compile(
    r"(?:判定|结论|结果|评定|verdict|conclusion|decision|overall(?: result)?|final result|status)[^。.;;|\n]{0,16}?[:=|]*\s*"
    r"(?:✅|✔|☑)?\s*(?:[A-Za-z]+ ){0,3}"
    r"(?:全部|均|整体|总体|all\s+)?(?:通过|合格|达标|passed|pass\b|conformant|accepted)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Bound:
    """``sense``: ">" at least, "<" at most, "+-" within."""

    sense: str
    number: Number

    @property
    def text(self) -> str:
        """As a person writes it."""
        return {">": ">= ", "<": "<= ", "+-": "+-"}[self.sense] + self.number.text

    def misses(self, value: Number) -> bool | None:
        """Whether the value misses the bound whatever its rounding hid; None where the two cannot be compared."""
        pair = _same_unit(value, self.number)
        if pair is None:
            return None
        mine, half, bound = pair
        if self.sense == ">":
            return mine + half < bound
        if self.sense == "<":
            return mine - half > bound
        return abs(mine) - half > bound


def bound_in(text: str, line: int = 0) -> Bound | None:
    """The one bound that the text states, or None where there is none or there are several."""
    found = bounds_in(text, line)
    return found[0] if len(found) == 1 else None


def bounds_in(text: str, line: int = 0) -> list[Bound]:
    """Every comparison sign or word with a number right behind it."""
    found: list[Bound] = []
    signs = list(_BOUND.finditer(text))
    numbers = numbers_in(text, line) if signs else []
    for match in signs:
        number = next((n for n in numbers if -1 <= n.start - match.end() <= 2), None)
        if number is None or (found and found[-1].number.start == number.start):
            if number is not None and match["two"]:
                found[-1] = Bound("+-", number)  # "<= ±2pp"
            continue
        ending = re.match(r"\s*(?:GPU|NPU|卡|条|个样本)", text[number.end : number.end + 8])
        if ending is None:
            found.append(Bound("+-" if match["two"] else ">" if match["least"] else "<", number))
    return found


def _same_unit(value: Number, bound: Number) -> tuple[float, float, float] | None:
    if value.unit == bound.unit or {value.unit, bound.unit} <= {"%", "pp"}:
        return value.value, value.half_ulp, bound.value
    if value.unit in _SECONDS and bound.unit in _SECONDS:
        scale = _SECONDS[value.unit] / _SECONDS[bound.unit]
        return value.value * scale, value.half_ulp * scale, bound.value
    if (
        {value.unit, bound.unit} == {"", "%"}
        and value.unit == ""
        and 0 <= value.value <= 1
        and bound.value > 1
        and value.decimals >= 2
    ):
        return 100 * value.value, 100 * value.half_ulp, bound.value
    return None


def overall_verdict(lines: tuple[Line, ...]) -> Line | None:
    """The first line that says of the whole that it passed, without a condition and with nothing pending."""
    for line in lines:
        if line.code or NOT_PASSED.search(line.text) or PENDING.search(line.text):
            continue
        found = _VERDICT.search(line.text)
        if (
            found
            and not CONDITION.search(line.text[: found.end()].replace("阈值", ""))
            and not re.search(r"即|则|→|->", line.text[: found.end()])
        ):
            return line
    return None
