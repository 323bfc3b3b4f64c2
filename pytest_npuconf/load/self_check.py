"""The client measured: the same shape against a server whose latencies are known."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pytest_npuconf.errors import EngineError
from pytest_npuconf.load.result import LoadResult
from pytest_npuconf.load.run import load
from pytest_npuconf.load.server_metrics import fetch
from pytest_npuconf.load.shape import Shape

# What a client may add: the aim of this project, measured with `make load-bias` (docs/load.md).
MOST_TTFT_MS = 2.0
MOST_ITL_P99_MS = 2.0
LEAST_RATE = 0.99
# The truth itself must be better than what is judged with it.
MOST_TRUTH_LATE_MS = 1.0


@dataclass(frozen=True)
class Truth:
    """What the truth server does: milliseconds to the first token, and from token to token."""

    ttft: float = 50.0
    itl: float = 5.0

    def rate(self, tokens: int, places: int) -> float:
        """Output tokens a second of ``places`` streams that never wait, each of answers of ``tokens`` tokens."""
        return tokens * places / ((self.ttft + (tokens - 1) * self.itl) / 1e3)


@dataclass(frozen=True)
class Bias:
    """The client against the truth, in milliseconds. ``ttft``: mean measured less true. ``itl_p99``: the 99th percentile of gaps
    less the true gap. ``rate``: output tokens a second over the ideal. ``truth_late``: how late the truth itself was, on average.
    """

    ttft: float
    itl_p99: float
    rate: float
    truth_late: float
    failures: int

    @property
    def doubts(self) -> list[str]:
        """What is worse than the aim; empty where nothing is."""
        if self.truth_late > MOST_TRUTH_LATE_MS:
            return [
                f"this host is too busy to tell: the server with known latencies was {self.truth_late:.1f} ms late itself"
            ]
        found = []
        if abs(self.ttft) > MOST_TTFT_MS:
            found.append(
                f"at this shape the client adds {self.ttft:.1f} ms to a first token, more than {MOST_TTFT_MS:g} ms"
            )
        if abs(self.itl_p99) > MOST_ITL_P99_MS:
            found.append(
                f"at this shape the client moves p99 of gaps by {self.itl_p99:.1f} ms, more than {MOST_ITL_P99_MS:g} ms"
            )
        if self.rate < LEAST_RATE:
            found.append(f"at this shape the client gets {self.rate:.1%} of a known rate, less than {LEAST_RATE:.0%}")
        if self.failures:
            found.append(f"{self.failures} requests to the server with known latencies failed")
        return found

    def to_json(self) -> dict[str, Any]:
        """JSON values only."""
        return {**dataclasses.asdict(self), "doubts": self.doubts}


@contextlib.contextmanager
def truth_server(truth: Truth) -> Iterator[str]:
    """A truth server in a process of its own; its URL. It ends with the block, and with us."""
    words = ["-m", "pytest_npuconf.load.truth_server", "--ttft", str(truth.ttft), "--itl", str(truth.itl)]
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            raise EngineError("the server with known latencies did not start", mend=f"python {' '.join(words)}")
        yield url
    finally:
        process.kill()
        process.communicate()


def measure(url: str, truth: Truth, shape: Shape) -> tuple[Bias, LoadResult]:
    """Put ``shape`` on a truth server and compare.

    Raises:
        EngineError: not one request was answered.
    """
    lateness(url)
    found = load(url, "truth", shape)
    late = lateness(url)
    if "ttft" not in found.spreads:
        raise EngineError(f"no request to the server with known latencies was answered: {found.failures}")
    gaps = [b - a for r in found.replies for a, b in zip(r.arrivals, r.arrivals[1:], strict=False)]
    gaps.sort()
    p99 = gaps[int(0.99 * len(gaps))] / 1e6 if gaps else truth.itl
    ideal = truth.rate(shape.output_len, min(shape.concurrency, shape.requests))
    rate = (found.throughput or 0.0) / ideal if shape.rate is None else 1.0
    bias = Bias(
        found.spreads["ttft"].mean * 1e3 - truth.ttft, p99 - truth.itl, rate, late, sum(found.failures.values())
    )
    return bias, found


def lateness(url: str) -> float:
    """Milliseconds by which the truth server was late on average since it was asked last."""
    return float(json.loads(fetch(f"{url}/truth", timeout=30))["mean_late_ms"])


def self_check(shape: Shape, rounds: int = 2) -> Bias:
    """What this client adds at ``shape`` on this host, in about a second and a half: ``rounds`` answers for each place, of 128
    tokens at most."""
    places = min(shape.concurrency, shape.requests)
    short = dataclasses.replace(
        shape,
        requests=rounds * places,
        output_len=min(shape.output_len, 128),
        rate=None,
        warmup=places,
        concurrency=places,
    )
    truth = Truth()
    with truth_server(truth) as url:
        return measure(url, truth, short)[0]
