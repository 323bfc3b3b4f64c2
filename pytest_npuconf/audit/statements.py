"""Statements of a card that take some reading: counts of parameters, configurations in JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pytest_npuconf.audit import configuration as keys
from pytest_npuconf.audit.document import Pair
from pytest_npuconf.audit.interval import Interval, around
from pytest_npuconf.audit.numbers import numbers_in


@dataclass(frozen=True)
class Parameters:
    """A parameter count as stated, in parameters. ``loose``: a round size such as 4B or 7B, the name of a class."""

    value: Interval
    text: str
    line: int
    kind: str
    loose: bool


def parameters_of(pair: Pair) -> Iterator[Parameters]:
    key = pair.key.lower()
    kind = "total"
    if re.search(r"激活|active|activated", key):
        kind = "active"
    elif re.search(r"非嵌入|non[-_ ]?embedding|不含(词)?嵌入", key):
        kind = "body"
    elif re.search(r"lora|adapter|可训练|trainable|视觉|vision|draft", key):
        return
    for number in numbers_in(pair.value, pair.line)[:1]:
        scale = {"params": 1e9, "亿": 1e8, "万": 1e4, "M": 1e6, "K": 1e3, "T": 1e12}.get(number.unit)
        if scale is None and number.unit == "" and number.value >= 1e6:
            scale = 1.0
        if scale is None or number.before in ("<", ">", "≤", "≥", "<=", ">="):
            continue
        value = around(number, scale)
        if number.before:
            value = value.widened(2 * (value.hi - value.lo))
        rest = pair.value[: number.end] + pair.value[number.end :][:20]
        found = "active" if re.search(r"激活|activ", rest) and kind == "total" and "总" not in rest else kind
        yield Parameters(value, number.text, pair.line, found, number.unit == "params" and number.decimals == 0)


_IN_PROSE = re.compile(
    r"(?<![\w.,-])(\d{1,4}(?:\.\d+)?)\s?(B|M|billion|million|亿)\s?(?:个)?(?:模型)?(?:total\s)?(?:parameters?|"
    r"params?|参数)(?!\s?(?:are\s)?(?:active|激活|高效))",
    re.IGNORECASE,
)
_NOT_TOTAL = re.compile(
    r"激活|activ|lora|adapter|train|可训练|vision|视觉|encoder|draft|non-?embedding|"
    r"非嵌入|expert|专家|每|per\s|than|more|加|adds?|embedding",
    re.IGNORECASE,
)


def parameters_in(text: str, line: int) -> Iterator[Parameters]:
    """ "32.8B parameters" in prose, unless the words around it make it another count."""
    for match in _IN_PROSE.finditer(text):
        if _NOT_TOTAL.search(text[max(0, match.start() - 24) : match.end() + 12]) or match.group(2) in ("b", "m"):
            continue
        scale = {"b": 1e9, "billion": 1e9, "m": 1e6, "million": 1e6, "亿": 1e8}[match.group(2).lower()]
        half = 0.5 * 10.0 ** -len(match.group(1).partition(".")[2])
        value = float(match.group(1))
        yield Parameters(
            Interval((value - half) * scale, (value + half) * scale), match.group(0), line, "total", half == 0.5
        )


def json_values(text: str, first: int) -> Iterator[tuple[str, Any, int]]:
    """Keys of a configuration in a JSON block that is a whole object (not the body of a request)."""
    stripped = text.strip()
    if not stripped.startswith("{"):
        return
    try:
        data = json.loads(stripped)
    except ValueError:
        return
    if not isinstance(data, dict) or not (
        {"hidden_size", "num_hidden_layers", "architectures", "model_type"} & set(data)
    ):
        return
    lines = text.splitlines()
    for key, value in data.items():
        name = keys.ALIASES.get(str(key).lower())
        if name and isinstance(value, (int, float, str, bool)):
            line = next((i for i, row in enumerate(lines) if f'"{key}"' in row), 0)
            yield name, value, first + line
