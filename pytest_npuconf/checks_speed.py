"""The checks of a served model's speed, at the load that its card states under ``[speed]``."""

from __future__ import annotations

from pytest_npuconf import thresholds
from pytest_npuconf.check import Check
from pytest_npuconf.gates import Sense
from pytest_npuconf.metrics.speed_figures import OF_LOAD, OF_START

FIGURES = (*OF_LOAD, "latency_s", "amortised_ms_per_token")


def _speed(name: str, sense: Sense, constant: thresholds.Constant | None, **more: object) -> Check:
    given = {"needs": "speed", **more}
    return Check(f"speed.{name}", ("server",), sense, mode="generate", constant=constant, **given)  # type: ignore[arg-type]


SPEED = (
    _speed("run", Sense.AT_MOST, thresholds.UNANSWERED, exact=True, statistics=FIGURES),
    _speed("client", Sense.AT_MOST, thresholds.CLIENT_SHARE),
    _speed("physics", Sense.AT_MOST, thresholds.ROOFLINE, statistics=("efficiency",)),
    _speed("repeat", Sense.AT_MOST, thresholds.REPEAT_SPEEDUP),
    _speed("floors", Sense.AT_MOST, thresholds.SHARE_OF_FLOOR, needs="floors"),
    _speed("baseline", Sense.AT_MOST, thresholds.DEPARTURE),
    _speed("goodput", Sense.AT_LEAST, thresholds.GOOD_SHARE, needs="objectives", statistics=("goodput_per_second", "share")),
    _speed("start", Sense.AT_MOST, None, required=False, statistics=(*OF_START, "start_s")),
    _speed("sweep", Sense.AT_MOST, thresholds.UNANSWERED, exact=True, statistics=("output_tokens_per_second", "knee")),
    _speed("steady", Sense.AT_LEAST, thresholds.LAST_OVER_FIRST, statistics=("output_tokens_per_second",)),
    _speed("memory", Sense.AT_MOST, thresholds.GROWTH, statistics=("growth_kib",)),
)  # fmt: skip
