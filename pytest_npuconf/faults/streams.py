"""Server-sent events: from the bytes of a stream to events, and back."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from typing import Any

PIECE = 65536  # bytes that are read at most at a time
END = re.compile(rb"\r\n\r\n|\n\n|\r\r")  # https://html.spec.whatwg.org/multipage/server-sent-events.html, 9.2.6
DONE = b"[DONE]"


def pieces(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """The bytes as they come.

    Raises:
        http.client.IncompleteRead: the stream breaks off.
    """
    while piece := response.read1(PIECE):
        yield piece


def blocks(stream: Iterator[bytes]) -> Iterator[bytes]:
    """One event after another, each with the empty line that ends it; what is left at the end without one too."""
    buffer = b""
    for piece in stream:
        buffer += piece
        while (end := END.search(buffer)) is not None:
            yield buffer[: end.end()]
            buffer = buffer[end.end() :]
    if buffer:
        yield buffer


def data_of(block: bytes) -> bytes | None:
    """The data of an event that has nothing else; None for one with other fields, and for a comment."""
    lines = [line for line in re.split(rb"\r\n|\n|\r", block) if line]
    if not lines or not all(line.startswith(b"data:") for line in lines):
        return None
    return b"\n".join(line[5:].removeprefix(b" ") for line in lines)


def event_of(block: bytes) -> dict[str, Any] | None:
    """The JSON object that an event carries, if it carries one and nothing else."""
    data = data_of(block)
    if data is None:
        return None
    try:
        found = json.loads(data)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def is_done(block: bytes) -> bool:
    """Whether it is OpenAI's mark of the end."""
    return data_of(block) == DONE


def block_of(event: dict[str, Any]) -> bytes:
    """An event as bytes."""
    return b"data: " + json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
