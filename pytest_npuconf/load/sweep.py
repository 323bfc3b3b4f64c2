"""The same load at growing concurrency: where more of it gives no more throughput, and what of it is good enough."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_npuconf.load.figures import FIGURES
from pytest_npuconf.load.result import SCHEMA_VERSION, LoadResult
from pytest_npuconf.load.run import load
from pytest_npuconf.load.shape import Shape
from pytest_npuconf.metrics.objectives import Slo
from pytest_npuconf.metrics.saturation import Goodput, goodput, knee

WAVES = 4  # requests for each place: the ramps at both ends are half of less than that would leave


@dataclass(frozen=True)
class Sweep:
    """``points``: a run at each concurrency, growing. ``knee``: see :func:`pytest_npuconf.metrics.saturation.knee`; None also
    where a point has no throughput."""

    model: str
    shape: Shape
    points: tuple[LoadResult, ...]
    knee: int | None
    objectives: Slo | None = None

    @property
    def failed(self) -> bool:
        """Whether any request was not answered."""
        return any(point.failures for point in self.points)

    def to_json(self) -> dict[str, Any]:
        """JSON values only; schema in docs/load.md."""
        slo = self.objectives
        stated = None if slo is None else {"ttft_ms": _ms(slo.ttft), "tpot_ms": _ms(slo.tpot)}
        points = []
        for point in self.points:
            told = point.to_json()
            kept = {name: told[name] for name in ("verdict", "doubts", "failures", "aggregates", "client", "server")}
            good = None if slo is None else goodput_of(point, slo)
            found = None if good is None else {"requests_per_second": good.rate, "share": good.share}
            points.append(
                {"concurrency": point.shape.concurrency, "requests": point.shape.requests, **kept, "goodput": found}
            )
        return {
            "schema_version": SCHEMA_VERSION, "model": self.model, "shape": dataclasses.asdict(self.shape), "points": points,
            "knee": self.knee, "slo": stated,
        }  # fmt: skip


def sweep(
    url: str, model: str, shape: Shape, at: Sequence[int], *, objectives: Slo | None = None, timeout: float = 600.0,
    announce: Callable[[str], None] = lambda _: None,
) -> Sweep:  # fmt: skip
    """Put ``shape`` on the server with each concurrency of ``at``: ``shape.requests`` requests, or four for each place.

    Raises:
        SettingsError, EngineError: as :func:`pytest_npuconf.load.run.load`.
    """
    points = []
    for i, places in enumerate(at):
        announce(f"{places} at once")
        requests = max(shape.requests, WAVES * places)
        one = dataclasses.replace(shape, concurrency=places, requests=requests, seed=shape.seed + i, warmup=places)
        points.append(load(url, model, one, timeout=timeout, announce=announce))
    rates = [FIGURES["output_tokens_per_second"].of(point) for point in points]
    known = [rate for rate in rates if rate is not None]
    bend = knee(list(at), known) if len(known) == len(at) > 1 else None
    return Sweep(model, shape, tuple(points), bend, objectives)


def goodput_of(found: LoadResult, objectives: Slo) -> Goodput | None:
    """Of one run, failed requests counted; None where nothing was answered."""
    good = found.answered
    if not good:
        return None
    seconds = (max(r.ended for r in found.replies) - min(r.sent for r in found.replies)) / 1e9
    tpot = [float("nan") if reply.tpot is None else reply.tpot for reply in good]
    return goodput([reply.ttft for reply in good], tpot, len(found.replies), seconds, objectives)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e3
