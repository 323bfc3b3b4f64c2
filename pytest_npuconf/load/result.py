"""What a run of load found, as it is written: per request, in aggregate, and whether the client can be believed."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from pytest_npuconf.load.exchange import SECOND
from pytest_npuconf.load.generator import Watch
from pytest_npuconf.load.reply import Reply
from pytest_npuconf.load.server_metrics import ServerSide
from pytest_npuconf.load.shape import Shape
from pytest_npuconf.metrics.latency import (
    Spread,
    amortised_ms_per_token,
    concurrency,
    output_throughput,
    spread,
)

SCHEMA_VERSION = 1
# The client decides what is measured when its loop is late by as much as the aim of its bias, or takes the whole of a core.
LATE_MS = 2.0
BUSY_SHARE = 0.85
DELIVERED = 0.9  # of the concurrency that was asked for


@dataclass(frozen=True)
class LoadResult:
    """One run. ``spreads``: seconds by name: ``ttft``, ``ttft_intended`` (open loop: from when the request was to be sent),
    ``tpot``, ``latency``, ``latency_intended``, ``itl`` (gaps between chunks; those of one request are not independent, so it has
    no intervals). ``server``: what its own metrics say of the same time.
    ``failures``: how many of each kind. ``doubts``: why the client, and not the server, may be what was measured."""

    shape: Shape
    replies: tuple[Reply, ...]
    watch: Watch
    spreads: dict[str, Spread] = field(default_factory=dict)
    throughput: float | None = None
    request_rate: float | None = None
    delivered: float | None = None
    failures: dict[str, int] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()
    server: ServerSide | None = None

    @property
    def answered(self) -> list[Reply]:
        """The replies that came in full."""
        return [reply for reply in self.replies if not reply.kind]

    @property
    def first_failure(self) -> str:
        """The first request that failed, in words; empty where none did."""
        first = next((reply for reply in self.replies if reply.kind), None)
        return "" if first is None else f"the first: {first.kind}: {first.trouble}"

    @property
    def verdict(self) -> str:
        """``failed``: a request did. ``inconclusive``: the client is what may have been measured. Else ``valid``."""
        return "failed" if self.failures else "inconclusive" if self.doubts else "valid"

    def to_json(self) -> dict[str, Any]:
        """JSON values only; schema in docs/load.md. Times of requests are seconds after the first was to be sent."""
        begin = min((r.intended for r in self.replies), default=0)
        aggregates: dict[str, Any] = {name: _spread_json(found) for name, found in self.spreads.items()}
        if self.throughput is not None:
            aggregates["output_tokens_per_second"] = self.throughput
            aggregates["requests_per_second"] = self.request_rate
            aggregates["amortised_ms_per_token"] = amortised_ms_per_token(self.throughput)
        return {
            "schema_version": SCHEMA_VERSION, "verdict": self.verdict, "doubts": list(self.doubts), "failures": self.failures,
            "shape": dataclasses.asdict(self.shape), "aggregates": aggregates, "client": {
                **dataclasses.asdict(self.watch), "delivered_concurrency": self.delivered,
                "coalesced_chunks": sum(r.coalesced for r in self.replies),
            },
            "server": None if self.server is None else self.server.to_json({n: s.mean * 1e3 for n, s in self.spreads.items()}),
            "requests": [_reply_json(reply, begin) for reply in self.replies],
        }  # fmt: skip


def result_of(
    shape: Shape, replies: Sequence[Reply], watch: Watch, server: ServerSide | None = None, *, same_host: bool = False
) -> LoadResult:
    """Aggregate what was answered; a failed request is counted and in no latency. ``same_host``: no network lies between."""
    failures = dict(Counter(reply.kind for reply in replies if reply.kind))
    good = [reply for reply in replies if not reply.kind]
    ttft = 1e3 * sum(reply.ttft for reply in good) / len(good) if good and same_host else None
    others = [] if server is None else server.doubts(len(replies), ttft)
    if not good:
        doubts = (*_doubts(shape, watch, None), *others)
        return LoadResult(shape, tuple(replies), watch, failures=failures, doubts=doubts, server=server)
    sent, ended = min(r.sent for r in replies), max(r.ended for r in replies)
    delivered = concurrency([r.sent / SECOND for r in replies], [r.ended / SECOND for r in replies])
    seconds = (ended - sent) / SECOND
    return LoadResult(
        shape, tuple(replies), watch, _spreads(good, shape), output_throughput([r.tokens for r in good], 0.0, seconds),
        len(good) / seconds, delivered, failures, (*_doubts(shape, watch, delivered), *others), server,
    )  # fmt: skip


def _spreads(good: Sequence[Reply], shape: Shape) -> dict[str, Spread]:
    values: dict[str, list[float]] = {"ttft": [], "tpot": [], "latency": [], "itl": []}
    if shape.rate is not None:
        values |= {"ttft_intended": [], "latency_intended": []}
    for reply in good:
        values["ttft"].append(reply.ttft)
        values["latency"].append(reply.latency)
        values["itl"] += [(b - a) / SECOND for a, b in pairwise(reply.arrivals)]
        values["tpot"] += [] if reply.tpot is None else [reply.tpot]
        if shape.rate is not None:
            values["ttft_intended"].append((reply.arrivals[0] - reply.intended) / SECOND)
            values["latency_intended"].append((reply.ended - reply.intended) / SECOND)
    return {name: spread(found, independent=name != "itl") for name, found in values.items() if found}


def lateness(watch: Watch) -> str:
    """The doubt that single time stamps may be late; empty where they are not."""
    if watch.busy_ns / 1e6 <= LATE_MS:
        return ""
    return (
        f"the client's loop was busy for {watch.busy_ns / 1e6:.1f} ms at once ({watch.late} loops of 1 ms and more): a time "
        f"stamp may be as late; the aim is {LATE_MS:g} ms"
    )


def _doubts(shape: Shape, watch: Watch, delivered: float | None) -> list[str]:
    found = [said] if (said := lateness(watch)) else []
    if watch.wall_seconds > 0 and watch.cpu_seconds / watch.wall_seconds > BUSY_SHARE:
        found.append(
            f"the client took {watch.cpu_seconds / watch.wall_seconds:.0%} of a core, more than {BUSY_SHARE:.0%}: it may be what "
            "limits the rate"
        )
    closed = shape.rate is None and shape.requests >= 4 * shape.concurrency  # long enough for its ends not to count
    if closed and delivered is not None and delivered < DELIVERED * shape.concurrency:
        found.append(f"{delivered:.1f} requests were under way on average, {shape.concurrency} were asked for")
    return found


def _spread_json(found: Spread) -> dict[str, Any]:
    def ms(value: float) -> float:
        return value * 1e3

    def both(interval: tuple[float, float] | None) -> list[float] | None:
        return None if interval is None else [ms(interval[0]), ms(interval[1])]

    return {
        "unit": "ms", "n": found.n, "mean": ms(found.mean), "mean_interval": both(found.mean_interval), "min": ms(found.least),
        "max": ms(found.largest),
        **{f"p{q * 100:g}": {"value": ms(value), "interval": both(interval)} for q, (value, interval) in found.quantiles.items()},
        "missing": {f"p{q * 100:g}": f"{needed} requests, {found.n} were measured" for q, needed in found.needed.items()},
    }  # fmt: skip


def _reply_json(reply: Reply, begin: int) -> dict[str, Any]:
    def at(stamp: int) -> float | None:
        return (stamp - begin) / SECOND if stamp else None

    return {
        "number": reply.number, "intended": at(reply.intended), "sent": at(reply.sent),
        "first": at(reply.arrivals[0]) if reply.arrivals else None, "last": at(reply.arrivals[-1]) if reply.arrivals else None,
        "ended": at(reply.ended), "tokens": reply.tokens, "prompt_tokens": reply.prompt_tokens,
        "first_tokens": reply.first_tokens if reply.first_told else None, "chunks": len(reply.arrivals),
        "status": reply.kind or "ok", "trouble": reply.trouble,
    }  # fmt: skip
