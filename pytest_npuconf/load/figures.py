"""The figures of a run of load by name: what they are called, in which unit, and which way is better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pytest_npuconf.load.result import LoadResult
from pytest_npuconf.metrics.latency import slowest_tenth


@dataclass(frozen=True)
class Figure:
    """``of`` gives None where a run has none: no TPOT of answers of one chunk."""

    unit: str
    higher_is_better: bool
    of: Callable[[LoadResult], float | None]


def _mean_ms(name: str) -> Callable[[LoadResult], float | None]:
    return lambda found: found.spreads[name].mean * 1e3 if name in found.spreads else None


def _tail_ms(found: LoadResult) -> float | None:
    values = [(r.ended - r.sent) / 1e6 for r in found.replies if not r.kind]
    return slowest_tenth(values) if values else None


FIGURES: dict[str, Figure] = {
    "output_tokens_per_second": Figure("tok/s", True, lambda found: found.throughput),
    "requests_per_second": Figure("requests/s", True, lambda found: found.request_rate),
    "ttft_ms": Figure("ms", False, _mean_ms("ttft")),
    "tpot_ms": Figure("ms", False, _mean_ms("tpot")),
    "latency_ms": Figure("ms", False, _mean_ms("latency")),
    "latency_tail_ms": Figure("ms", False, _tail_ms),
}
# requests a second say the same as tokens a second where every answer has the same length
JUDGED = tuple(name for name in FIGURES if name != "requests_per_second")
