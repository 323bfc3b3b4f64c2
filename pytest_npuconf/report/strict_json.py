"""JSON as this package writes it: finite numbers, each key once, text that is Unicode."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

_DEEPEST = 100  # a run writes ten levels or so


def read_json(data: bytes) -> Any:
    """The value.

    Raises:
        ValueError: not UTF-8, not whole, or with something that JSON has not (NaN) or that readers disagree about (a key
            twice).
    """
    text = data.decode("utf-8")
    try:
        value = json.loads(
            text, parse_constant=_constant, parse_float=_float, parse_int=_int, object_pairs_hook=_object
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    _check_depth(value)
    if "\\u" in text:
        json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair is no text
    return value


def to_bytes(value: Any) -> bytes:
    """Canonical: keys sorted, indented by one, with a newline at the end."""
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            inner
            for one in level
            if isinstance(one, (dict, list))
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return
    raise ValueError("it is nested too deeply")


def _constant(name: str) -> Any:
    raise ValueError(f"it holds {name}, which JSON has not")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"it holds {text}, which is no finite number")
    return value


def _int(text: str) -> int:
    _float(text)
    return int(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        name = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"it holds the key {name!r} twice")
    return value
