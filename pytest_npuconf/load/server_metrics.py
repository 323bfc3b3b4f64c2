"""What a server says of the same requests in its own ``/metrics``: time to the first token, queue, whether it was ours alone.

Names of vLLM (v1/metrics/loggers.py, 0.18 and 0.32); of the text format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import http.client
import re
import urllib.request
from dataclasses import dataclass
from typing import Any

HISTOGRAMS = {
    "ttft": "vllm:time_to_first_token_seconds",
    "latency": "vllm:e2e_request_latency_seconds",
    "queue": "vllm:request_queue_time_seconds",
}
# What vLLM's own front end takes after it has counted is 1.5 to 2.5 ms on a CPU; a client that waits for a core, tens and hundreds.
OUTSIDE_MS, OUTSIDE_SHARE = 5.0, 0.25
_LINE = re.compile(r"^(vllm:[a-z0-9_]+)_(sum|count)(?:\{[^}]*\})? (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Counters:
    """Sums in seconds and counts of each histogram by the names of :data:`HISTOGRAMS`, over all engines behind the address."""

    sums: dict[str, float]
    counts: dict[str, float]


@dataclass(frozen=True)
class ServerSide:
    """Between two readings: how many requests the server finished, and its mean milliseconds by figure."""

    requests: int
    means: dict[str, float]

    def to_json(self, client: dict[str, float]) -> dict[str, Any]:
        """JSON values only. ``client``: its own means in milliseconds; ``outside`` is what the network and the client add."""
        outside = {name: client[name] - mean for name, mean in self.means.items() if name in client}
        return {"requests": self.requests, "means": self.means, "outside": outside}

    def doubts(self, sent: int, ttft: float | None = None) -> list[str]:
        """Requests that were not ours; time to the first token that no network can have taken.

        Args:
            ttft: mean milliseconds that a client on the server's own host measured; None for one elsewhere.
        """
        found = []
        if self.requests > sent:
            found.append(
                f"the server answered {self.requests} requests meanwhile, {sent} of them ours: somebody else uses it"
            )
        inside = self.means.get("ttft")
        if ttft is not None and inside is not None and ttft - inside > max(OUTSIDE_MS, OUTSIDE_SHARE * ttft):
            found.append(
                f"{ttft - inside:.1f} of {ttft:.1f} ms to a first token are outside of the server, on the same host: something "
                "between takes them, or this client did not get a core"
            )
        return found


def read(url: str, timeout: float = 5.0) -> Counters | None:
    """The counters of the server at ``url``; None where it has no ``/metrics``, or none of vLLM's."""
    try:
        found = fetch(f"{url.rstrip('/').removesuffix('/v1')}/metrics", timeout=timeout)
        return parse(found.decode("utf-8", "replace"))
    except (OSError, http.client.HTTPException):
        return None


def fetch(url: str, timeout: float) -> bytes:
    """The body of a GET, by no proxy. Raises OSError where it is not answered with 200."""
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=timeout) as answer:
        body: bytes = answer.read()
    return body


def parse(text: str) -> Counters | None:
    """The counters in the text of ``/metrics``; None where the first histogram is not there."""
    found = Counters({}, {})
    for name, which, value in _LINE.findall(text):
        for short, histogram in HISTOGRAMS.items():
            if name == histogram:
                into = found.sums if which == "sum" else found.counts
                into[short] = into.get(short, 0.0) + float(value)
    return found if "ttft" in found.counts and "ttft" in found.sums else None


def between(before: Counters | None, after: Counters | None) -> ServerSide | None:
    """What happened between two readings; None where one is missing, nothing was answered, or the server was started anew."""
    if before is None or after is None:
        return None
    counts = {name: after.counts[name] - before.counts.get(name, 0.0) for name in after.counts}
    if any(count < 0 for count in counts.values()) or counts["ttft"] <= 0:
        return None
    means = {
        name: 1e3 * (after.sums[name] - before.sums.get(name, 0.0)) / counts[name]
        for name in after.sums if counts.get(name, 0) > 0
    }  # fmt: skip
    return ServerSide(round(counts["ttft"]), means)
