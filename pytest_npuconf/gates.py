"""Measurement, Gate and Verdict: data and pure decisions. Finding a difference is separate from raising it."""

from __future__ import annotations

import decimal
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from pytest_npuconf.errors import MetricError

MAX_ROWS = 10


class Outcome(str, Enum):
    """What a gate says of a measurement."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class Role(str, Enum):
    """``required`` decides conformance; ``claim`` reports on a documented number and does not decide."""

    REQUIRED = "required"
    CLAIM = "claim"


class Sense(str, Enum):
    """Which side of the bound is good. ``WITHIN`` is two-sided: ``|value| <= bound``."""

    AT_MOST = "<="
    AT_LEAST = ">="
    WITHIN = "+-"


@dataclass(frozen=True)
class Row:
    """One place that was measured: where, how much, and what is worth knowing there."""

    place: str
    value: float
    detail: str = ""


@dataclass(frozen=True)
class Measurement:
    """A number with what is needed to believe it. Nothing here knows a bound.

    ``value`` and ``interval`` are in ``unit``; ``n`` counts ``of`` (documents, positions, ...); ``rows`` come worst
    first; ``data`` keeps sufficient statistics (sums and counts), JSON values only. ``broken`` says why there is no
    number (NaN in the logits): every gate then fails with it. ``data["would_have_passed"]`` names the setting to move
    where that is not the gate's bound, ``data["notes"]`` has lines for whoever reads a failure.
    """

    metric: str
    value: float
    unit: str = ""
    n: int = 1
    of: str = "values"
    interval: tuple[float, float] | None = None
    rows: tuple[Row, ...] = ()
    data: dict[str, Any] = field(default_factory=dict)
    broken: str = ""

    def __post_init__(self) -> None:
        if self.n < 1 and not self.broken:
            raise MetricError(f"{self.metric}: a measurement needs at least one sample, got n = {self.n}")
        if not self.broken and not math.isfinite(self.value):
            raise MetricError(f"{self.metric}: the value is {self.value}; say why in `broken`")
        if self.interval is not None and not self.interval[0] <= self.value <= self.interval[1]:
            raise MetricError(f"{self.metric}: interval {self.interval} does not hold the value {self.value}")

    @classmethod
    def unusable(cls, metric: str, reason: str) -> Measurement:
        """A measurement that could not be taken because the candidate's output is unusable; it fails every gate."""
        return cls(metric, math.nan, n=0, broken=reason)

    @classmethod
    def counted(cls, metric: str, rows: Sequence[Row], *, n: int, of: str, **data: Any) -> Measurement:
        """How many of ``n`` are wrong: a row for each, the first of which are kept. ``data`` goes beside their number."""
        return cls(
            metric, float(len(rows)), n=n, of=of, rows=tuple(rows[:MAX_ROWS]), data={"rows_total": len(rows), **data}
        )

    @property
    def worst(self) -> Row | None:
        """The worst place, or None when the measurement has no places."""
        return self.rows[0] if self.rows else None


@dataclass(frozen=True)
class Gate:
    """A rule that turns a measurement into a verdict: a bound with a sense, a reason and a role."""

    name: str
    bound: float
    sense: Sense = Sense.AT_MOST
    role: Role = Role.REQUIRED
    reason: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        if not math.isfinite(self.bound):
            raise MetricError(f"gate {self.name}: the bound must be finite, got {self.bound}")
        if self.sense is Sense.WITHIN and self.bound < 0:
            raise MetricError(f"gate {self.name}: a two-sided bound must not be negative, got {self.bound}")

    def judge(self, measurement: Measurement) -> Verdict:
        """Decide: ``pass`` when the whole interval is inside the bound, ``fail`` when none of it is, else
        ``inconclusive``. Without an interval the value decides. Pure."""
        if measurement.broken:
            return Verdict(self, measurement, Outcome.FAIL, math.nan, math.nan)
        best, worst = self._ends(measurement)
        if self._inside(worst):
            outcome = Outcome.PASS
        elif self._inside(best):
            outcome = Outcome.INCONCLUSIVE
        else:
            outcome = Outcome.FAIL
        margin = worst - self.bound if self.sense is Sense.AT_LEAST else self.bound - worst
        return Verdict(self, measurement, outcome, margin, worst)

    def _ends(self, m: Measurement) -> tuple[float, float]:
        """The interval's best and worst end, as this gate sees them."""
        low, high = m.interval if m.interval is not None else (m.value, m.value)
        if self.sense is Sense.AT_MOST:
            return low, high
        if self.sense is Sense.AT_LEAST:
            return high, low
        nearest = 0.0 if low <= 0.0 <= high else min(abs(low), abs(high))
        return nearest, max(abs(low), abs(high))

    def _inside(self, value: float) -> bool:
        return value >= self.bound if self.sense is Sense.AT_LEAST else value <= self.bound


@dataclass(frozen=True)
class Verdict:
    """A gate's answer. ``margin`` is the room left in the measurement's unit (negative: overshoot);
    ``would_pass`` is the bound that would have passed."""

    gate: Gate
    measurement: Measurement
    outcome: Outcome
    margin: float
    would_pass: float

    @property
    def settle_n(self) -> int | None:
        """How many samples would settle an inconclusive verdict, if the estimate stays where it is.

        The half width towards the bound shrinks with the square root of n, so ``n * (half / distance)^2``. None when
        not inconclusive, when the estimate lies on the bound, or when no finite number would do.
        """
        m = self.measurement
        if self.outcome is not Outcome.INCONCLUSIVE or m.interval is None:
            return None
        bounds = (self.gate.bound, -self.gate.bound) if self.gate.sense is Sense.WITHIN else (self.gate.bound,)
        needed = 0.0
        for bound in bounds:
            distance = abs(m.value - bound)
            half = m.interval[1] - m.value if bound > m.value else m.value - m.interval[0]
            if distance == 0.0 or not math.isfinite(half):
                return None
            needed = max(needed, m.n * (half / distance) * (half / distance))
        return max(m.n + 1, math.ceil(needed)) if math.isfinite(needed) else None

    def message(self, *, next_command: str = "") -> str:
        """What a person reads when the check fails: verdict, worst place, bound, bound that would have passed, next."""
        m, g = self.measurement, self.gate
        head = {Outcome.FAIL: "FAIL", Outcome.INCONCLUSIVE: "INCONCLUSIVE", Outcome.PASS: "PASS"}[self.outcome]
        lines = [f"{head} {g.name}: {m.metric} = {m.broken or format_measurement(m)}, gate {format_bound(g)}"]
        if g.reason:
            lines.append(f"  gate: {g.reason}" + (f" [{g.source}]" if g.source else ""))
        if m.worst is not None:
            lines.append(f"  worst: {format_row(m.worst)}")
        if not m.broken and self.outcome is not Outcome.PASS:
            bound = m.data.get("would_have_passed") or f"{g.sense.value} {format_passing(self.would_pass, g.sense)}"
            lines.append(f"  would have passed: {bound}")
        if self.outcome is Outcome.INCONCLUSIVE:
            n = self.settle_n
            enough = f"about {n} {m.of}" if n is not None else f"no number of {m.of} that can be told from this"
            lines.append(f"  the interval straddles the bound; {enough} would settle it (now {m.n})")
        rest = m.rows[1:MAX_ROWS]
        lines += [f"  also:  {format_row(row)}" for row in rest]
        lines += [f"  {note}" for note in m.data.get("notes", ())]
        hidden = int(m.data.get("rows_total", len(m.rows))) - 1 - len(rest)
        if m.rows and hidden > 0:
            lines.append(f"  ... and {hidden} more")
        if next_command:
            lines.append(f"  next:  {next_command}")
        return "\n".join(lines)


def format_number(value: float) -> str:
    """Four significant digits or the integer; close to one, six digits of the distance to it tell cosines apart."""
    if not math.isfinite(value):
        return str(value)
    if value == int(value) and abs(value) < 1e6:
        return str(int(value))
    if 0.99 < abs(value) < 1:
        return f"{value:.{min(15, 5 - math.floor(math.log10(1 - abs(value))) if abs(value) > 0.999999 else 6)}f}"
    return f"{value:.4g}"


def format_passing(bound: float, sense: Sense) -> str:
    """A bound that passes as it is printed: four significant digits, rounded towards passing."""
    if bound == 0 or not math.isfinite(bound):
        return format_number(bound)
    digits = 3 - math.floor(math.log10(abs(bound)))
    if 0.99 < abs(bound) < 1:
        digits = 6
    up = decimal.ROUND_FLOOR if sense is Sense.AT_LEAST else decimal.ROUND_CEILING
    rounded = decimal.Decimal(bound).quantize(decimal.Decimal(1).scaleb(-digits), rounding=up)
    return f"{float(rounded):.12g}"


def format_measurement(m: Measurement) -> str:
    """``1.02 [0.95, 1.09] (6 documents)``; the unit follows the value."""
    text = f"{format_number(m.value)} {m.unit}".rstrip()
    if m.interval is not None:
        text += f" {format_interval(*m.interval)}"
    return f"{text} ({m.n} {m.of.removesuffix('s') if m.n == 1 else m.of})"


def format_interval(low: float, high: float) -> str:
    """``[0.95, 1.09]``."""
    return f"[{format_number(low)}, {format_number(high)}]"


def format_bound(gate: Gate) -> str:
    """``<= 1.5``."""
    return f"{gate.sense.value} {format_number(gate.bound)}"


def format_row(row: Row) -> str:
    """``prompt 2 position 3: 0.12 (detail)``."""
    return f"{row.place}: {format_number(row.value)}" + (f" ({row.detail})" if row.detail else "")
