"""cosine-error: a cosine, a relative error and absolute errors bound each other."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from pytest_npuconf.audit.context import Context, Rule
from pytest_npuconf.audit.findings import Finding, Level
from pytest_npuconf.audit.interval import Interval, plain
from pytest_npuconf.audit.numbers import Number, numbers_in
from pytest_npuconf.audit.quantities import Name, read_name
from pytest_npuconf.audit.rules._grid import Grid, Row, exact, grids, stated
from pytest_npuconf.audit.rules._prose_cosine import mean_errors

FAR = 3.0  # a figure given as an order of magnitude may be this much off


@dataclass(frozen=True)
class Figure:
    """A figure of error with its name."""

    number: Number
    name: Name

    @property
    def value(self) -> Interval:
        """As a fraction where it is a percentage."""
        return stated(self.number) * (0.01 if self.number.unit == "%" else 1.0)

    @property
    def kind(self) -> str:
        """``cosine``, ``rel_l2``, ``rel``, ``mean_rel``, ``max_rel``, ``mae``, ``rmse``, ``mse``, ``max_abs`` or ""."""
        quantity, aggregate = self.name.quantity, self.name.aggregate
        if quantity in ("rel", "abs"):
            if aggregate in ("mean", "max"):
                return {"meanrel": "mean_rel", "maxrel": "max_rel", "meanabs": "mae", "maxabs": "max_abs"}[
                    aggregate + quantity
                ]
            return "rel" if quantity == "rel" and not aggregate else ""
        known = ("cosine", "rel_l2", "mae", "rmse", "mse", "max_abs")
        return quantity if quantity in known and (aggregate in ("", "mean") or quantity == "max_abs") else ""


def _groups(context: Context) -> Iterator[tuple[list[Figure], Grid | None, Row | None]]:
    """Figures of one measurement: of one row of a table, or of the pairs of one section that name one subject."""
    for grid in grids(context.card):
        if len(grid.names) < 3:
            continue
        for row in grid.rows:
            figures = [
                Figure(n, name) for n, name in zip(row.numbers, grid.names, strict=True) if n is not None and exact(n)
            ]
            yield figures, grid, row
    sections: dict[tuple[str, frozenset[str], str], list[Figure]] = {}
    for pair in context.card.pairs:
        name = read_name(pair.key)
        for number in numbers_in(pair.value, pair.line)[:1]:
            if exact(number) and pair.section:
                sections.setdefault((pair.section, name.tags, name.rest), []).append(Figure(number, name))
    for figures in sections.values():
        yield figures, None, None


def least_error(cosine: Interval) -> float:
    """``sqrt(1 - c^2)``: the least ``||x - r|| / ||r||`` of a vector x at that cosine to r, reached where ``||x|| = c ||r||``."""
    highest = min(max(abs(cosine.lo), abs(cosine.hi)) if cosine.lo < 0 else cosine.hi, 1.0)
    return math.sqrt(max(0.0, 1.0 - highest * highest))


def length_ratio(cosine: float, error: float) -> tuple[float, float] | None:
    """Ratios ``k = ||x|| / ||r||`` with ``error^2 = 1 + k^2 - 2 k c``; None where there is none."""
    left = cosine * cosine - 1.0 + error * error
    return None if left < 0 else (cosine - math.sqrt(left), cosine + math.sqrt(left))


def _only(figures: list[Figure], kind: str) -> Figure | None:
    found = [f for f in figures if f.kind == kind]
    return found[0] if len(found) == 1 else None


_L2 = re.compile(r"(相对误差|relative error)[^。;\n]{0,30}(L2|l2|二范数|‖|Frobenius|euclid)", re.IGNORECASE)


def _bound(context: Context, figures: list[Figure], row: Row | None) -> tuple[Finding | None, str]:
    """The finding where the error is below its bound; else what the two figures imply."""
    cosine, error = _only(figures, "cosine"), _only(figures, "rel_l2") or _only(figures, "rel")
    if cosine is None or error is None or (row is not None and row.kind):
        return None, ""
    bound = least_error(cosine.value)
    if error.value.hi < bound * (1 - 1e-9):
        named = error.kind == "rel_l2" or any(_L2.search(line) for line in context.card.lines)
        message = f"relative error {error.number.text} is less than a cosine of {cosine.number.text} allows" + (
            "" if named else ", if it is an L2 norm: the norm is not named"
        )
        level = Level.CONTRADICTION if named else Level.AMBIGUOUS
        how = f"sqrt(1 - {cosine.number.text}^2) is at least {100 * bound:.3g} %"
        return context.finding("cosine-error", level, error.number.line, message, how), ""
    c, e = min(cosine.value.middle, 1.0), error.value.middle
    ratios = length_ratio(c, e)
    if ratios is None or e == 0:
        return None, ""
    nearest = min(ratios, key=lambda k: abs(k - 1))
    part = math.sqrt(max(0.0, 1 - c * c))
    return (
        None,
        f"{error.number.text}: {100 * part:.2f} % from the angle, the rest "
        f"a difference in length of {100 * abs(nearest - 1):.2g} %",
    )


_ORDER = (
    ("mae", "rmse", "a mean of magnitudes is never above the root of the mean of squares"),
    ("rmse", "max_abs", "no mean is above the largest"), ("mae", "max_abs", "no mean is above the largest"),
    ("mean_rel", "max_rel", "no mean is above the largest"),
)  # fmt: skip


def _order(context: Context, figures: list[Figure]) -> Iterator[Finding]:
    for low, high, why in _ORDER:
        a, b = _only(figures, low), _only(figures, high)
        if (
            a
            and b
            and a.name.tags == b.name.tags
            and a.name.rest == b.name.rest
            and a.value.lo > b.value.hi * (1 + 1e-9)
        ):
            message = f"{a.name.text} {a.number.text} is above {b.name.text} {b.number.text}"
            yield context.finding("cosine-error", Level.CONTRADICTION, a.number.line, message, why)
    a, b = _only(figures, "mse"), _only(figures, "rmse")
    if a and b and a.name.tags == b.name.tags and a.name.rest == b.name.rest and a.value.middle > 0:
        near = 0.98 < b.value.middle**2 / a.value.middle < 1.02
        if not near and not a.value.overlaps(b.value * b.value):
            message = f"{b.name.text} {b.number.text} is not the root of {a.name.text} {a.number.text}"
            yield context.finding(
                "cosine-error", Level.IMPLAUSIBLE, b.number.line, message, f"sqrt = {plain(math.sqrt(a.value.middle))}"
            )


_ACTIVE = re.compile(
    r"(?:活跃|有效|active)[^。;\n]{0,24}?(?:>|≥|大于|above|over)\s*([0-9.]+(?:e[-+]?\d+)?)", re.IGNORECASE
)
_ALL_BELOW = re.compile(
    r"相对误差\s*(?:均|都|全部)[^0-9。;]{0,8}([0-9.]+)\s?%|relative error[^0-9.;]{0,30}(?:all|every)[^0-9;]{0,20}([0-9.]+)\s?%",
    re.IGNORECASE,
)
_NEAR_ZERO = re.compile(r"接近零|接近\s*0|near[- ]zero|close to zero", re.IGNORECASE)
_MAGNITUDE = re.compile(
    r"(?:数量级|order of magnitude|magnitude)[^0-9]{0,8}([0-9.]+e[-+]?\d+)(?:\s*(?:~|-|至|到|to|\.\.)\s*([0-9.]+e[-+]?\d+))?",
    re.IGNORECASE,
)
_ABSOLUTE = re.compile(r"(?:绝对误差|absolute error)[^0-9。;]{0,8}([0-9.]+e[-+]?\d+)", re.IGNORECASE)
_RELATIVE = re.compile(r"(?:相对误差|relative error)[^0-9。;]{0,12}([0-9.]+)\s?%", re.IGNORECASE)


def _active(context: Context, errors: list[Figure]) -> Iterator[Finding]:
    """A bound on the relative error of all elements above a threshold, against the mean absolute error."""
    for prose in context.card.proses:
        threshold, bound = _ACTIVE.search(prose.text), _ALL_BELOW.search(prose.text)
        if not threshold or not bound or not errors:
            continue
        least = min(e.value.lo for e in errors)
        t, r = float(threshold.group(1)), float(bound.group(1) or bound.group(2)) / 100
        if t > 0 and r > 0 and least / t > FAR * r:
            message = (
                f"all elements above {t:g} within {100 * r:g} %: the mean absolute "
                f"error alone is {100 * least / t:.2g} % of {t:g}"
            )
            how = f"{least:.3g} / {t:g} = {100 * least / t:.2g} %; {100 * r:g} % needs values above {least / r:.3g}"
            yield context.finding("cosine-error", Level.IMPLAUSIBLE, prose.line, message, how)


def _near_zero(context: Context, errors: list[Figure]) -> Iterator[Finding]:
    """A large relative error explained by values near zero: error over value must give it."""
    for prose in context.card.proses:
        if not _NEAR_ZERO.search(prose.text):
            continue
        magnitude, relative, absolute = (p.search(prose.text) for p in (_MAGNITUDE, _RELATIVE, _ABSOLUTE))
        if not magnitude or not relative:
            continue
        largest = max(float(g) for g in magnitude.groups() if g)
        said = float(relative.group(1)) / 100
        found = [float(absolute.group(1))] if absolute else [e.value.middle for e in errors][:1]
        if found and largest > 0 and found[0] / largest > FAR * said:
            message = (
                f"an error of {found[0]:g} on a value of at most {largest:g} is "
                f"{100 * found[0] / largest:.3g} % or more, not {relative.group(1)} "
                f"%"
            )
            how = f"{found[0]:g} / {largest:g}"
            if errors:
                how += f"; with the mean absolute error {errors[0].number.text}: {100 * errors[0].value.middle / largest:.3g} %"
            yield context.finding("cosine-error", Level.IMPLAUSIBLE, prose.line, message, how)


def check(context: Context) -> Iterator[Finding]:
    """Bounds between the figures of one measurement, and explanations in prose."""
    implied: dict[int, tuple[int, list[str]]] = {}
    errors: list[Figure] = []
    for figures, grid, row in _groups(context):
        errors += [f for f in figures if f.kind == "mae"]
        finding, text = _bound(context, figures, row)
        if finding is not None:
            yield finding
        elif text:
            first = next(f for f in figures if f.kind == "cosine")
            key = grid.table.line if grid is not None else first.number.line
            implied.setdefault(key, (first.number.line, []))[1].append(text)
        yield from _order(context, figures)
    for line, texts in implied.values():
        message = "the relative errors are possible at these cosines; what is left is scale, or the norm is another one"
        yield context.finding("cosine-error", Level.FINE, line, message, "; ".join(texts[:6]))
    yield from _active(context, errors)
    yield from _near_zero(context, errors)
    yield from mean_errors(context)


RULES: tuple[Rule, ...] = (Rule("cosine-error", "Cosine, relative error and absolute errors can hold together", check),)
