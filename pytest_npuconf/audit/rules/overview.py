"""overview: a figure of an overview against the rows that stand behind it, and against the card's own gate."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pytest_npuconf.audit.clauses import clauses
from pytest_npuconf.audit.context import Context, Rule
from pytest_npuconf.audit.findings import Finding, Level
from pytest_npuconf.audit.interval import Interval, largest, mean, median, plain, smallest
from pytest_npuconf.audit.numbers import Number, numbers_in
from pytest_npuconf.audit.quantities import SUBJECTS, Name, cell_number, read_name
from pytest_npuconf.audit.rules._grid import Grid, column, exact, grids, stated
from pytest_npuconf.audit.rules.verdicts import check_threshold

OVERVIEW = re.compile(
    r"总览|概览|概述|概要|摘要|亮点|汇总|总结|结论|overview|summary|highlights?|at a glance|tl;?dr|conclusion|key results",
    re.IGNORECASE,
)
_VERSUS = re.compile(
    r"([A-Za-z0-9 .\-_]{2,40}?)\s*(?:vs\.?|versus|对比|相对于?)\s*([A-Za-z0-9 .\-_]{2,40})", re.IGNORECASE
)
_SUBJECTS = frozenset(name for name, _ in SUBJECTS)
_GATED = {"cosine", "rel", "rel_l2", "mae", "rmse", "max_abs", "ppl", "match", "overlap", "accuracy", "kl"}


def condition(text: str) -> str:
    """``npubf16/cpufp32`` of "(NPU BF16 vs CPU FP32)", or an empty text."""
    match = _VERSUS.search(text)
    if match is None:
        return ""
    return "/".join(re.sub(r"[\s.\-_]", "", part).lower() for part in match.groups())


@dataclass(frozen=True)
class Detail:
    """A column of detail rows: what it holds, under which condition, and the summary rows that its table has."""

    grid: Grid
    j: int
    name: Name
    quantity: str
    delta: bool
    condition: str
    values: tuple[Interval, ...]
    summaries: tuple[Number, ...]

    @property
    def unit(self) -> str:
        """Unit of its figures."""
        return next((n.unit for n in (r.numbers[self.j] for r in self.grid.details) if n is not None), "")


@dataclass(frozen=True)
class Claim:
    """A figure that speaks for many rows."""

    number: Number
    name: Name
    condition: str
    section: str


def details(context: Context) -> list[Detail]:
    """The columns of figures of tables with at least two detail rows."""
    found = []
    for grid in grids(context.card):
        if _is_overview(grid) or _by_condition(grid) or grid.incomplete:
            continue
        quantities = {n.quantity for n in grid.names if n.quantity and not n.delta}
        for j, name in enumerate(grid.names[1:], 1):
            numbers = column(grid.details, j)
            if numbers is None or len(numbers) < 2:
                continue
            quantity = name.quantity or (next(iter(quantities)) if name.delta and len(quantities) == 1 else "")
            if not quantity and name.delta:
                quantity = read_name(grid.table.section).quantity
            if not quantity:
                continue
            where = condition(name.text) or condition(grid.table.section)
            summaries = tuple(n for row in grid.summaries if (n := row.numbers[j]) is not None)
            found.append(
                Detail(grid, j, name, quantity, name.delta, where, tuple(stated(n) for n in numbers), summaries)
            )
    return found


def _is_overview(grid: Grid) -> bool:
    """Tables whose rows are quantities: their columns are no detail rows."""
    named = sum(bool(read_name(row.label).quantity) for row in grid.rows)
    return named * 2 > len(grid.rows)


def _by_condition(grid: Grid) -> bool:
    """Tables whose rows are comparisons ("NPU FP32 vs CPU FP32"): each row speaks for a table of its own."""
    return sum(bool(condition(row.label)) for row in grid.rows) * 2 > len(grid.rows)


def claims(context: Context) -> Iterator[Claim]:
    """Figures of tables whose rows are quantities, of pairs in overviews, and of prose that names an aggregate."""
    seen: set[tuple[int, float]] = set()
    for grid in grids(context.card):
        if _by_condition(grid):
            for row in grid.rows:
                for number, name in zip(row.numbers, grid.names, strict=True):
                    if number is not None and exact(number) and name.quantity and condition(row.label):
                        seen.add((number.line, number.value))
                        yield Claim(number, name, condition(row.label), grid.table.section)
            continue
        if not _is_overview(grid) or (len(grid.names) < 3 and not any(condition(name.text) for name in grid.names[1:])):
            continue
        for row in grid.rows:
            name = read_name(row.label)
            for j in range(1, len(grid.names)):
                number = cell_number(row.cells[j])
                measured = condition(grid.names[j].text) or re.search(
                    r"实测|测量值|measured|result|^值$|^value$", grid.names[j].text, re.IGNORECASE
                )
                if number is not None and exact(number) and name.quantity and measured:
                    seen.add((number.line, number.value))
                    yield Claim(
                        number, name, condition(grid.names[j].text) or condition(grid.table.section), grid.table.section
                    )
    for pair in context.card.pairs:
        name = read_name(pair.key)
        numbers = numbers_in(pair.value, pair.line)
        usable = name.quantity and numbers and exact(numbers[0]) and numbers[0].start <= 2
        if (
            usable
            and (numbers[0].line, numbers[0].value) not in seen
            and (name.aggregate or OVERVIEW.search(pair.section))
        ):
            seen.add((numbers[0].line, numbers[0].value))
            yield Claim(numbers[0], name, condition(pair.key) or condition(pair.section), pair.section)
    for clause in clauses(context.card):
        plain_figure = exact(clause.number) and (clause.number.line, clause.number.value) not in seen
        if clause.name.quantity and clause.name.aggregate and plain_figure:
            yield Claim(clause.number, clause.name, condition(clause.text), clause.section)


def _matches(claim: Claim, detail: Detail) -> bool:
    """Whether a column may stand behind a figure: same quantity and unit, nothing that speaks against it."""
    if (
        claim.name.quantity != detail.quantity
        or claim.name.delta != detail.delta
        or claim.name.ratio != detail.name.ratio
    ):
        return False
    if claim.number.unit != detail.unit and claim.number.unit and detail.unit:
        return False
    if claim.condition and detail.condition and claim.condition != detail.condition:
        return False
    ours, theirs = claim.name.tags, detail.name.tags | read_name(detail.grid.table.section).tags
    for group in (
        _SUBJECTS,
        frozenset({"npu", "gpu", "cpu"}),
        theirs - _SUBJECTS - {"npu", "gpu", "cpu"} | ours - _SUBJECTS - {"npu", "gpu", "cpu"},
    ):
        if not claim.condition and ours & group and theirs & group and not ours & theirs & group:
            return False
    aggregate = detail.name.aggregate
    return (
        not aggregate
        or (aggregate in ("percentile",) and aggregate == claim.name.aggregate)
        or aggregate == claim.name.aggregate
        or not claim.name.aggregate
    )


def _sure(claim: Claim, matches: list[Detail], subjects: dict[str, set[str]]) -> bool:
    """Whether one column only can be meant: the same condition is named on both sides, or nothing else is measured."""
    if len(matches) != 1:
        return False
    if claim.condition and claim.condition == matches[0].condition:
        return True
    if claim.name.rest or len(subjects.get(claim.name.quantity, set())) > 1 or claim.condition != matches[0].condition:
        return False
    devices = {"npu", "gpu", "cpu"}
    if (claim.name.tags ^ matches[0].name.tags) & devices:
        return False
    return bool(OVERVIEW.search(claim.section)) or bool(claim.name.aggregate and claim.name.tags & _SUBJECTS)


def _judge(context: Context, claim: Claim, detail: Detail, sure: bool) -> Finding | None:
    values, number = list(detail.values), claim.number
    said = stated(number)
    average, low, high = mean(values), smallest(values), largest(values)
    header = detail.grid.table.header[detail.j].text
    how = f"rows of {header!r} (line {detail.grid.table.line}): {plain(low.lo)} to {plain(high.hi)}, mean {plain(average.middle)}"
    summary = any(stated(s).overlaps(said) for s in detail.summaries)
    kind = claim.name.aggregate
    wanted = {"max": [high], "min": [low], "median": [median(values)], "mean": [average]}.get(kind, [])
    if detail.name.aggregate == kind and kind in ("max", "min"):
        wanted = [*wanted, average]
    magnitudes = [abs(v) for v in values]
    if kind in ("max", "mean") and detail.delta:
        wanted += [largest(magnitudes) if kind == "max" else mean(magnitudes)]
    if summary or any(said.overlaps(w) for w in wanted):
        return context.finding("overview", Level.FINE, number.line, f"{number.text} agrees with its rows", how)
    if not sure:
        return None
    outside = not said.overlaps(Interval(min(low.lo, smallest(magnitudes).lo), max(high.hi, largest(magnitudes).hi)))
    if outside:
        side = "below" if said.middle < low.middle else "above"
        message = f"{number.text} is {side} every row that stands behind it"
        return context.finding("overview", Level.CONTRADICTION, number.line, message, how)
    if kind in ("max", "min"):
        message = (
            f"{number.text} is not the {'largest' if kind == 'max' else 'smallest'} of the rows that stand behind it"
        )
        return context.finding("overview", Level.CONTRADICTION, number.line, message, how)
    if kind == "mean" and detail.summaries:
        message = f"{number.text} is neither the mean of the rows that stand behind it nor a figure of their table"
        return context.finding("overview", Level.IMPLAUSIBLE, number.line, message, how)
    return None


@dataclass(frozen=True)
class _Gate:
    name: Name
    number: Number

    def fails(self, value: Interval) -> bool:
        """Whether every value of the interval is on the wrong side."""
        if self.number.before in (">", "≥", ">="):
            return value.hi < self.number.value * (1 - 1e-12) if self.number.value > 0 else value.hi < self.number.value
        return value.lo > self.number.value


def _gates(context: Context) -> list[_Gate]:
    """Bounds that the card sets: a row of a table that names the quantity first, or prose such as "Cosine > 0.999"."""
    found = []
    for grid in grids(context.card):
        for row in grid.rows:
            name = read_name(row.label)
            for cell in row.cells[1:]:
                for number in numbers_in(cell.text, cell.line)[:1]:
                    if name.quantity and number.before in (">", "≥", ">=", "<", "≤", "<=") and number.start <= 2:
                        found.append(_Gate(name, number))
    for clause in clauses(context.card):
        if (
            clause.name.quantity
            and clause.number.before in (">", "≥", ">=")
            and clause.name.quantity in ("cosine", "match")
        ):
            found.append(_Gate(clause.name, clause.number))
    return found


def _same_quantity(gate: Name, claim: Name) -> bool:
    """Whether a bound is one for this figure: no bound on a mean for a maximum."""
    same = gate.quantity == claim.quantity and gate.delta == claim.delta and gate.ratio == claim.ratio
    return same and (
        gate.aggregate == claim.aggregate
        or (not gate.aggregate and claim.aggregate == "mean")
        or (gate.aggregate == "mean" and not claim.aggregate)
    )


def _gate(context: Context, claim: Claim, gates: list[_Gate]) -> Finding | None:
    """The bound that a figure of an overview misses; a bound counts where the card sets only one for the quantity."""
    own = [g for g in gates if _same_quantity(g.name, claim.name) and g.number.unit == claim.number.unit]
    if claim.name.quantity not in _GATED or len({(g.number.value, g.number.before[:1]) for g in own}) != 1:
        return None
    gate = own[0]
    if gate.number.line == claim.number.line or not gate.fails(stated(claim.number)):
        return None
    said = (f for f in check_threshold(context) if f.line == claim.number.line and f.level is Level.CONTRADICTION)
    if any(claim.number.text in finding.message for finding in said):
        return None  # verdict-threshold says the same, and that the card passes all the same
    message = (
        f"{claim.number.text} does not meet the card's own {claim.name.quantity} "
        f"{gate.number.before} {gate.number.text} (line {gate.number.line})"
    )
    return context.finding(
        "overview", Level.CONTRADICTION, claim.number.line, message, f"{claim.number.text} against {gate.number.text}"
    )


def check(context: Context) -> Iterator[Finding]:
    """Every figure that speaks for rows."""
    columns, gates = details(context), _gates(context)
    found = list(claims(context))
    subjects: dict[str, set[str]] = {}
    for claim in found:
        subjects.setdefault(claim.name.quantity, set()).update(claim.name.tags & _SUBJECTS)
    told: set[tuple[int, str]] = set()
    for claim in found:
        matches = [d for d in columns if _matches(claim, d) and d.grid.table.line != claim.number.line]
        if claim.name.aggregate and len(matches) > 1:
            named = [d for d in matches if d.name.aggregate == claim.name.aggregate]
            matches = named or [d for d in matches if not d.name.aggregate]
        sure = _sure(claim, matches, subjects)
        for finding in (
            _judge(context, claim, matches[0], sure) if len(matches) == 1 else None,
            _gate(context, claim, gates),
        ):
            if finding is not None and (finding.line, finding.message) not in told:
                told.add((finding.line, finding.message))
                yield finding
        if claim.condition and not matches and any(d.quantity == claim.name.quantity and d.condition for d in columns):
            message = f"{claim.number.text}: no table shows what stands behind it"
            if (claim.number.line, message) not in told and claim.condition not in {d.condition for d in columns}:
                told.add((claim.number.line, message))
                yield context.finding("overview", Level.AMBIGUOUS, claim.number.line, message)


RULES: tuple[Rule, ...] = (Rule("overview", "Figures of an overview follow from their rows", check),)
