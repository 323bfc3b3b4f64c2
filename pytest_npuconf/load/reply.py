"""What an exchange says, read after the run: status, events with the time at which each was there, counts of tokens."""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from pytest_npuconf.engines.sse import DONE, quoted, utf8_trouble
from pytest_npuconf.load.exchange import HEAD_END, SECOND, Exchange
from pytest_npuconf.metrics.latency import time_per_output_token, time_to_first_token

_EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
TEXT = ("content", "reasoning_content", "reasoning", "refusal")


@dataclass(frozen=True)
class Reply:
    """One request, measured. Times are nanoseconds of ``time.perf_counter_ns``.

    ``arrivals``: when each chunk with a token was there. ``first_tokens``: those that were there with the first of them, in the
    same read, as the server counts (a token a chunk where it does not say so by chunk: ``first_told`` is then False). ``tokens``
    and ``prompt_tokens``: from ``usage``. ``coalesced``: chunks that came in the same read as the one before. ``kind``: of its
    failure, empty where there is none; ``trouble``: in words.
    """

    number: int
    intended: int
    sent: int
    ended: int
    arrivals: tuple[int, ...] = ()
    tokens: int = 0
    prompt_tokens: int = 0
    first_tokens: int = 1
    first_told: bool = False
    coalesced: int = 0
    kind: str = ""
    trouble: str = ""

    @property
    def latency(self) -> float:
        """Seconds from the first byte sent to the last received."""
        return (self.ended - self.sent) / SECOND

    @property
    def ttft(self) -> float:
        """Seconds to the first token; of an answered request."""
        return time_to_first_token(self.sent / SECOND, self.arrivals[0] / SECOND)

    @property
    def tpot(self) -> float | None:
        """Seconds per output token; of an answered request, None where all came in one read."""
        first, last = self.arrivals[0] / SECOND, self.arrivals[-1] / SECOND
        return time_per_output_token(first, last, self.tokens, min(self.first_tokens, self.tokens))


@dataclass
class _Found:
    """What the events of one stream add up to."""

    arrivals: list[int] = field(default_factory=list)
    usage: Mapping[str, Any] | None = None
    first: int | None = None
    counted: int = 0  # tokens by the server's count so far


def read(exchange: Exchange, asked: int | None = None) -> Reply:
    """Read one exchange.

    Args:
        asked: tokens that were to come; fewer are a failure of kind ``short``. None: any number.
    """

    def failed(kind: str, trouble: str, **more: Any) -> Reply:
        return Reply(
            exchange.number, exchange.intended, exchange.sent, exchange.ended, kind=kind, trouble=trouble, **more
        )

    if exchange.trouble:
        kind, _, words = exchange.trouble.partition(": ")
        return failed(kind, words)
    if any(b < a for a, b in zip(exchange.stamps, exchange.stamps[1:], strict=False)):
        return failed("clock", "the clock went backwards while the answer came")
    raw = b"".join(exchange.reads)
    head, _, _ = raw.partition(HEAD_END)
    try:
        status = int(head.split(b" ", 2)[1])
        body, places = _body(raw, len(head) + len(HEAD_END))
    except (IndexError, ValueError) as error:
        return failed("malformed", f"no HTTP: {error}: {quoted(raw)}")
    if status != 200:
        return failed("status", f"{status}: {quoted(body)}")
    ends = list(accumulate(map(len, exchange.reads)))
    found, coalesced = _Found(), 0
    try:
        coalesced = _take_all(found, body, lambda offset: exchange.stamps[bisect_left(ends, places(offset) + 1)])
    except ValueError as error:
        return failed("malformed", str(error))
    return _judged(exchange, found, asked, coalesced)


def _judged(exchange: Exchange, found: _Found, asked: int | None, coalesced: int) -> Reply:
    tokens, prompt = (_count(found.usage, name) for name in ("completion_tokens", "prompt_tokens"))
    kind = trouble = ""
    if tokens is None:
        kind, trouble = (
            "no-usage",
            "the stream has no usage, so its tokens cannot be counted (stream_options.include_usage)",
        )
    elif not found.arrivals:
        kind, trouble = "empty", f"no token came, usage says {tokens}"
    elif asked is not None and tokens != asked:
        kind, trouble = "short" if tokens < asked else "long", f"{tokens} tokens where {asked} were asked for"
    return Reply(
        exchange.number, exchange.intended, exchange.sent, exchange.ended, tuple(found.arrivals), tokens or 0, prompt or 0,
        found.first or max(1, found.arrivals.count(found.arrivals[0]) if found.arrivals else 1), found.first is not None,
        coalesced, kind, trouble,
    )  # fmt: skip


def _take_all(found: _Found, body: bytes, at: Any) -> int:
    """Every event of the body; how many chunks with a token came in the same read as the one before.

    Raises:
        ValueError: with what is malformed.
    """
    start, done, reads = 0, False, []
    for blank in _EVENT_END.finditer(body):
        for line in body[start : blank.start()].splitlines():
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if done:
                raise ValueError(f"an event after [DONE]: {quoted(data)}")
            if data == DONE.encode():
                done = True
            else:
                reads += _take(found, data, at(blank.end() - 1))
        start = blank.end()
    if body[start:].strip():
        raise ValueError(f"the stream ends in the middle of an event: {quoted(body[start:])}")
    if not done:
        raise ValueError("the stream ends without [DONE]")
    return len(reads) - len(set(reads))


def _take(found: _Found, data: bytes, stamp: int) -> list[int]:
    """One event; its stamp where it has a token."""
    if trouble := utf8_trouble(data):
        raise ValueError(trouble)
    try:
        event = json.loads(data)
    except json.JSONDecodeError as error:
        raise ValueError(f"an event is no JSON ({error}): {quoted(data)}") from error
    if not isinstance(event, dict):
        raise ValueError(f"an event is no object: {quoted(data)}")
    if event.get("error"):
        raise ValueError(f"an error in the stream: {quoted(data)}")
    usage = event.get("usage") if isinstance(event.get("usage"), dict) else None
    found.usage = usage or found.usage
    choices = event.get("choices") or ()
    count = _count(usage, "completion_tokens")
    # a token that is part of a character has no text yet, and is a token
    if not (_has_token(choices) or (choices and count is not None and count > found.counted)):
        return []
    if count is not None:
        if not found.arrivals or stamp == found.arrivals[0]:
            found.first = max(1, count)
        found.counted = count
    found.arrivals.append(stamp)
    return [stamp]


def _count(usage: Mapping[str, Any] | None, name: str) -> int | None:
    """A count of ``usage``, None where it is not told."""
    told = (usage or {}).get(name)
    return told if isinstance(told, int) and not isinstance(told, bool) else None


def _has_token(choices: Sequence[Any]) -> bool:
    for choice in choices:
        if not isinstance(choice, dict):
            continue
        told = choice.get("delta")
        delta: dict[str, Any] = told if isinstance(told, dict) else {}
        if choice.get("text") or choice.get("token_ids") or delta.get("tool_calls") or any(delta.get(n) for n in TEXT):
            return True
    return False


def _body(raw: bytes, start: int) -> tuple[bytes, Any]:
    """The body without its chunked coding, and a function from an offset of it to the offset in ``raw``."""
    head = raw[:start].lower()
    if b"\r\ntransfer-encoding: chunked" not in head and b"\r\ntransfer-encoding:chunked" not in head:
        return raw[start:], lambda offset: start + offset
    parts, froms, tos = [], [], []
    place, length = start, 0
    while True:
        end = raw.index(b"\r\n", place)
        size = int(raw[place:end].split(b";")[0], 16)
        if size == 0:
            break
        froms.append(length)
        tos.append(end + 2)
        parts.append(raw[end + 2 : end + 2 + size])
        if len(parts[-1]) != size or raw[end + 2 + size : end + 4 + size] != b"\r\n":
            raise ValueError("a chunk is cut")
        length += size
        place = end + 4 + size

    def place_of(offset: int) -> int:
        i = bisect_left(froms, offset + 1) - 1
        return tos[i] + offset - froms[i]

    return b"".join(parts), place_of
