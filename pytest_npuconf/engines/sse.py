"""Server-sent events of an OpenAI-compatible stream, decoded from the whole answer's bytes.

The rules are those of https://html.spec.whatwg.org/multipage/server-sent-events.html; the closing ``[DONE]`` is
OpenAI's. Decoding starts from bytes that are complete lines, so a character split between two packets cannot be harmed.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

DONE = "[DONE]"
_LINE_END = re.compile(rb"\r\n|\n|\r")


@dataclass
class Events:
    """``events``: the JSON objects in order. ``trouble``: what is malformed, empty where nothing is."""

    events: list[dict[str, Any]] = field(default_factory=list)
    done: bool = False
    trouble: str = ""


def decode(body: bytes) -> Events:
    """All events up to the end, or up to the first malformed one, which ``trouble`` quotes with its position."""
    found = Events()
    for number, data in enumerate(_data(body), start=1):
        found.trouble = _take(found, data, number)
        if found.trouble:
            return found
    if not found.done:
        rest = _LINE_END.split(body)[-1]
        cut = f", and its last line is cut: {quoted(rest)}" if rest else ""
        found.trouble = f"the stream ends after {_count(found)} without [DONE]{cut}"
    return found


def quoted(data: bytes, limit: int = 300) -> str:
    """The first ``limit`` characters for a message; a byte that is no UTF-8 stays visible as ``\\xff``."""
    text = data.decode("utf-8", "backslashreplace")
    return f"'{text[:limit]}'{f' ... ({len(data)} bytes)' if len(text) > limit else ''}"


def utf8_trouble(data: bytes) -> str:
    """Where ``data`` stops being UTF-8, with the bytes around it; empty where it is UTF-8."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        around = data[max(0, error.start - 20) : error.end + 20]
        return f"byte {error.start} (0x{data[error.start]:02x}) is no UTF-8, in {around!r}"
    return ""


def _data(body: bytes) -> list[bytes]:
    """The data of each complete event; comments, other fields and an event without its closing blank line are left out."""
    found: list[bytes] = []
    lines: list[bytes] = []
    for line in _LINE_END.split(body.removeprefix(b"\xef\xbb\xbf"))[:-1]:
        if not line:
            if lines:
                found.append(b"\n".join(lines))
            lines = []
        elif line == b"data" or line.startswith(b"data:"):
            lines.append(line[5:].removeprefix(b" "))
    return found


def _take(found: Events, data: bytes, number: int) -> str:
    if found.done:
        return f"event {number} comes after [DONE]: {quoted(data)}"
    trouble = utf8_trouble(data)
    if trouble:
        return f"event {number}: {trouble}"
    if data.strip() == DONE.encode():
        found.done = True
        return ""
    try:
        event = json.loads(data)
    except (ValueError, RecursionError) as error:
        return f"event {number} is no JSON ({error}): {quoted(data)}"
    if not isinstance(event, dict):
        return f"event {number} is JSON but no object: {quoted(data)}"
    found.events.append(event)
    return ""


def _count(found: Events) -> str:
    return f"{len(found.events)} event{'' if len(found.events) == 1 else 's'}"
