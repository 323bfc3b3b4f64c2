"""One request over HTTP/1.1 and everything that came back, each read with its time. Nothing is parsed here but where it ends."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_LENGTH = re.compile(rb"^content-length:[ \t]*(\d+)[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_CHUNKED = re.compile(rb"^transfer-encoding:[ \t]*chunked[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_CLOSE = re.compile(rb"^connection:[ \t]*close[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
LAST_CHUNK = b"0\r\n\r\n"
SECOND = 1_000_000_000  # nanoseconds
HEAD_END = b"\r\n\r\n"


@dataclass
class Exchange:
    """Times are nanoseconds of ``time.perf_counter_ns``.

    ``intended``: when it was to be sent. ``sent``: when its first byte went out, 0 before. ``stamps`` and ``reads``: one time for
    each read, taken before the bytes were copied from the kernel. ``ended``: when the last byte of the answer had come.
    ``trouble``: why there is no whole answer: ``kind: words``, empty where there is one.
    """

    number: int
    intended: int
    sent: int = 0
    ended: int = 0
    stamps: list[int] = field(default_factory=list)
    reads: list[bytes] = field(default_factory=list)
    trouble: str = ""


class Framing:
    """Knows when an answer is whole, from its header and the last bytes that came."""

    __slots__ = ("_head", "_left", "_tail", "chunked", "closes")

    def __init__(self) -> None:
        self._head: bytes | None = b""  # bytes of an unfinished header
        self._tail = b""
        self._left = -1  # bytes of the body that are missing; -1 where only the end of the connection ends it
        self.chunked = False
        self.closes = False

    def is_whole(self, data: bytes) -> bool:
        """Take the next read; whether the answer ends with it."""
        if self._head is not None:
            head = self._head + data
            end = head.find(HEAD_END)
            if end < 0:
                self._head = head
                return False
            self._open(head[: end + 2])
            self._head, data = None, head[end + 4 :]
        if self.chunked:
            self._tail = (data if len(data) >= len(LAST_CHUNK) else self._tail + data)[-len(LAST_CHUNK) :]
            return self._tail == LAST_CHUNK
        if self._left >= 0:
            self._left -= len(data)
            return self._left <= 0
        return False

    @property
    def ends_with_connection(self) -> bool:
        """Whether only the end of the connection ends the answer."""
        return self._head is None and not self.chunked and self._left < 0

    def _open(self, head: bytes) -> None:
        length = _LENGTH.search(head)
        self.chunked = bool(_CHUNKED.search(head))
        self._left = int(length[1]) if length and not self.chunked else -1
        self.closes = bool(_CLOSE.search(head)) or head.startswith(b"HTTP/1.0")
