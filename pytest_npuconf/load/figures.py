"""The figures of a run of load by name: what they are called, in which unit, and which way is better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pytest_npuconf.load.result import LoadResult
from pytest_npuconf.metrics.latency import slowest_tenth
from pytest_npuconf.metrics.speed_figures import OF_LOAD


@dataclass(frozen=True)
class Figure:
    """``of`` gives None where a run has none: no TPOT of answers of one chunk."""

    unit: str
    higher_is_better: bool
    of: Callable[[LoadResult], float | None]


def _mean_ms(name: str) -> Callable[[LoadResult], float | None]:
    return lambda found: found.spreads[name].mean * 1e3 if name in found.spreads else None


def _tail_ms(found: LoadResult) -> float | None:
    values = [reply.latency * 1e3 for reply in found.answered]
    return slowest_tenth(values) if values else None


_OF: dict[str, Callable[[LoadResult], float | None]] = {
    "output_tokens_per_second": lambda found: found.throughput,
    "requests_per_second": lambda found: found.request_rate,
    "ttft_ms": _mean_ms("ttft"),
    "tpot_ms": _mean_ms("tpot"),
    "latency_ms": _mean_ms("latency"),
    "latency_tail_ms": _tail_ms,
}
FIGURES = {name: Figure(*kind, _OF[name]) for name, kind in OF_LOAD.items()}
# requests a second say the same as tokens a second where every answer has the same length
JUDGED = tuple(name for name in FIGURES if name != "requests_per_second")
