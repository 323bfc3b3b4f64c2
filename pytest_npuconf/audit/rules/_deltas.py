"""Which formula a column of differences follows, and which rows do not."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import permutations

from pytest_npuconf.audit.interval import Interval, around
from pytest_npuconf.audit.quantities import Name
from pytest_npuconf.audit.rules._grid import Grid, Row, column, exact, stated

# Formulas of magnitudes; {a} and {b} are the names of the two columns.
PLAIN = "|{a} - {b}|"
PERCENT = "100 |{a} - {b}| / {b}"
FRACTION = "|{a} - {b}| / {b}"
MIDDLE = "200 |{a} - {b}| / ({a} + {b})"
RATIO = "{a} / {b}"
RATIO_PERCENT = "100 {a} / {b}"
_FORMULAS = (PLAIN, PERCENT, FRACTION, MIDDLE)
_MINUS = re.compile(r"\s+[-–−]\s+")
MANY = 12  # pairs of columns: of more, some two fit most rows by chance
_RATIOS = (RATIO, RATIO_PERCENT, PERCENT)


def difference(formula: str, a: Interval, b: Interval) -> Interval:
    """The formula's value. a and b occur twice in some; their rounding is small, so the bounds are slightly wide."""
    if formula == PLAIN:
        return abs(a - b)
    if formula == PERCENT:
        return abs(a - b) / abs(b) * 100.0
    if formula == FRACTION:
        return abs(a - b) / abs(b)
    if formula == MIDDLE:
        return abs(a - b) / abs(a + b) * 200.0
    return a / b * (100.0 if formula == RATIO_PERCENT else 1.0)


@dataclass(frozen=True)
class Delta:
    """Column ``column`` is ``formula`` of the columns ``a`` and ``b`` in ``fits`` rows; ``misfits``: the others, with
    what the formula gives."""

    column: int
    a: int
    b: int
    formula: str
    fits: int
    misfits: tuple[tuple[Row, Interval], ...]


def _formulas(name: Name, unit: str) -> tuple[str, ...]:
    if name.ratio and not name.delta:
        return _RATIOS
    if unit == "pp":
        return (PLAIN,)
    return (*_FORMULAS, RATIO, RATIO_PERCENT)  # "gain 4.35" is also said of 124 against 29


def _try(rows: list[Row], j: int, a: int, b: int, formula: str, *, strict: bool) -> Delta | None:
    """The formula over the rows. ``strict``: None at the first row that it does not fit."""
    fits, misfits = 0, []
    for row in rows:
        x, y, d = exact(row.numbers[a]), exact(row.numbers[b]), exact(row.numbers[j])
        if x is None or y is None or d is None:
            continue
        value = difference(formula, around(x), around(y))
        if not (value.lo < float("inf") and value.hi < float("inf") and value.lo > -float("inf")):
            return None
        if value.overlaps(abs(stated(d))):
            fits += 1
        elif strict:
            return None
        else:
            misfits.append((row, value))
    return Delta(j, a, b, formula, fits, tuple(misfits))


def _comparable(grid: Grid, rows: list[Row], j: int) -> list[tuple[int, int]]:
    """Pairs of columns of one unit, whose difference column ``j`` may be."""
    usable = []
    for k in range(len(grid.names)):
        if k == j or (column(rows, k) is None and not (len(rows) == 1 and exact(rows[0].numbers[k]))):
            continue
        if k == 0 or grid.names[k].delta or grid.names[k].ratio:
            continue
        usable.append(k)
    pairs = []
    for a, b in permutations(usable, 2):
        units = {row.numbers[k].unit for row in rows for k in (a, b) if row.numbers[k] is not None}  # type: ignore[union-attr]
        if len(units) == 1:
            pairs.append((a, b))
    return pairs


_SETTINGS = {"batch", "concurrency", "input_length", "output_length", "length"}


def _of_one_order(grid: Grid, delta: Delta) -> bool:
    """Whether the two columns could be two measurements of one thing: in no row is one four times the other."""
    pairs = [(row.numbers[delta.a], row.numbers[delta.b]) for row in grid.details]
    sizes = [sorted((abs(x.value), abs(y.value))) for x, y in pairs if x is not None and y is not None]
    return all(high <= 4 * low for low, high in sizes)


def _speaks(grid: Grid, delta: Delta) -> bool:
    """Whether the rows that fit are evidence: not all of one value, and not of a column of settings, two quantities."""
    wrong = {id(row) for row, _ in delta.misfits}
    right = [row.numbers[delta.column] for row in grid.details if id(row) not in wrong]
    names = (grid.names[delta.a], grid.names[delta.b])
    quantities = {name.quantity for name in names if name.quantity}
    if len(quantities) > 1 or quantities & _SETTINGS:
        return False
    if delta.fits == 0:
        return names[0].quantity == names[1].quantity and _of_one_order(grid, delta)
    return len({n.value for n in right if n is not None}) > 1


def best_delta(grid: Grid, j: int) -> Delta | None:
    """What column ``j`` is the difference of, kept with the table: three rules ask for it."""
    if j not in grid.kept:
        grid.kept[j] = _find_delta(grid, j)
    found: Delta | None = grid.kept[j]
    return found


def _find_delta(grid: Grid, j: int) -> Delta | None:
    """What column ``j`` is the difference of; None where it is none, or where no reading is clearly the right one.

    Sure are: every row fits; or at least two rows and two thirds of them do. With two columns only, and a name that says
    "difference", a column none of whose rows fits any formula is returned too (``fits`` 0), but for relative errors,
    which are figures of their own.
    """
    name = grid.names[j]
    subtracted = _MINUS.split(name.text.strip())
    others = {other.text.strip().lower() for k, other in enumerate(grid.names) if k != j}
    minus = len(subtracted) == 2 and all(part.strip().lower() in others for part in subtracted)
    if not (name.delta or name.ratio or name.quantity in ("rel", "abs") or minus):
        return None
    rows = [row for row in grid.details if exact(row.numbers[j]) is not None]
    if not rows:
        return None
    unit = rows[0].numbers[j].unit if rows[0].numbers[j] is not None else ""  # type: ignore[union-attr]
    pairs = _comparable(grid, rows, j)
    many = len(pairs) > MANY
    tried = [
        t for a, b in pairs for f in _formulas(name, unit) if (t := _try(rows, j, a, b, f, strict=many)) is not None
    ]
    tried = [t for t in tried if t.fits + len(t.misfits) == len(rows)]
    if not tried:
        return None
    best = max(tried, key=lambda t: t.fits)
    if not best.misfits:
        return best
    if many or not _speaks(grid, best):
        return None
    if best.fits >= 2 and best.fits * 3 >= len(rows) * 2:
        return best
    if best.fits == 0 and name.delta and not name.quantity.startswith(("rel", "abs")) and len(pairs) == 2:
        want = PERCENT if unit == "%" and any(n.unit != "%" for n in rows[0].numbers if n is not None) else PLAIN
        return next((t for t in tried if t.formula == want and t.a < t.b), None)
    return None
