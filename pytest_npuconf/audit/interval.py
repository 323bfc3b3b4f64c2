"""Intervals: what a rounded number can stand for, and what follows from several of them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from pytest_npuconf.audit.numbers import Number

SLACK = 1e-9  # of the larger bound: float64 noise, so that a value exactly half a unit away still agrees


@dataclass(frozen=True)
class Interval:
    """All values from ``lo`` to ``hi``."""

    lo: float
    hi: float

    @property
    def middle(self) -> float:
        """The centre."""
        return (self.lo + self.hi) / 2

    def overlaps(self, other: Interval) -> bool:
        """Whether a value lies in both, up to float64 noise."""
        slack = SLACK * max(abs(self.lo), abs(self.hi), abs(other.lo), abs(other.hi))
        return self.lo <= other.hi + slack and other.lo <= self.hi + slack

    def widened(self, by: float) -> Interval:
        """``by`` more on both sides."""
        return Interval(self.lo - by, self.hi + by)

    def __add__(self, other: Interval) -> Interval:
        """Sum."""
        return Interval(self.lo + other.lo, self.hi + other.hi)

    def __sub__(self, other: Interval) -> Interval:
        """Difference of independent values."""
        return Interval(self.lo - other.hi, self.hi - other.lo)

    def __mul__(self, other: Interval | float) -> Interval:
        """Product."""
        if not isinstance(other, Interval):
            other = Interval(other, other)
        products = (self.lo * other.lo, self.lo * other.hi, self.hi * other.lo, self.hi * other.hi)
        return Interval(min(products), max(products))

    def __truediv__(self, other: Interval | float) -> Interval:
        """Quotient; without bounds where the divisor can be 0."""
        if not isinstance(other, Interval):
            other = Interval(other, other)
        if other.lo <= 0.0 <= other.hi:
            return Interval(-math.inf, math.inf)
        return self * Interval(1 / other.hi, 1 / other.lo)

    def __abs__(self) -> Interval:
        """Magnitudes."""
        if self.lo >= 0:
            return self
        if self.hi <= 0:
            return Interval(-self.hi, -self.lo)
        return Interval(0.0, max(-self.lo, self.hi))


def around(number: Number, scale: float = 1.0) -> Interval:
    """What ``number`` can stand for before it was rounded, times ``scale``."""
    half = number.half_ulp
    plain_value = Interval(number.value - half, number.value + half)
    return plain_value if scale == 1.0 else plain_value * scale


def mean(values: Iterable[Interval]) -> Interval:
    """Arithmetic mean: ``sum(x) / n``. Raises ValueError without values."""
    items = list(values)
    if not items:
        raise ValueError("no values")
    return Interval(sum(v.lo for v in items) / len(items), sum(v.hi for v in items) / len(items))


def median(values: Iterable[Interval]) -> Interval:
    """Median; of an even count the mean of the middle two. The median is monotone in each value, so the bounds are exact."""
    items = list(values)
    if not items:
        raise ValueError("no values")
    return Interval(_middle(sorted(v.lo for v in items)), _middle(sorted(v.hi for v in items)))


def _middle(ordered: list[float]) -> float:
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def largest(values: Iterable[Interval]) -> Interval:
    """Maximum."""
    items = list(values)
    return Interval(max(v.lo for v in items), max(v.hi for v in items))


def smallest(values: Iterable[Interval]) -> Interval:
    """Minimum."""
    items = list(values)
    return Interval(min(v.lo for v in items), min(v.hi for v in items))


def total(values: Iterable[Interval]) -> Interval:
    """Sum."""
    items = list(values)
    return Interval(sum(v.lo for v in items), sum(v.hi for v in items))


def geometric_mean(values: Iterable[Interval]) -> Interval:
    """``exp(mean(log x))`` of positive values."""
    items = list(values)
    if any(v.lo <= 0 for v in items):
        raise ValueError("not all positive")
    logs = mean(Interval(math.log(v.lo), math.log(v.hi)) for v in items)
    return Interval(math.exp(logs.lo), math.exp(logs.hi))


def plain(value: float, digits: int = 6) -> str:
    """``value`` for a reader: no exponent where it can be avoided, no more digits than say something."""
    if value != 0 and (abs(value) < 1e-3 or abs(value) >= 1e12):
        return f"{value:.{max(digits - 1, 2)}g}"
    if float(value).is_integer() and abs(value) < 1e12:
        return f"{value:,.0f}"
    return f"{value:,.{digits}g}" if abs(value) < 1e5 else f"{value:,.0f}"
