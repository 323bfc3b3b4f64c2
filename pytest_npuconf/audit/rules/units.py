"""units: figures whose unit cannot be right, and values that the quantity cannot have."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pytest_npuconf.audit.context import Context, Rule
from pytest_npuconf.audit.facts import BYTES
from pytest_npuconf.audit.findings import Finding, Level
from pytest_npuconf.audit.interval import Interval, around, plain
from pytest_npuconf.audit.numbers import Number, numbers_in
from pytest_npuconf.audit.quantities import Name, read_name
from pytest_npuconf.audit.rules._deltas import PLAIN, best_delta
from pytest_npuconf.audit.rules._grid import exact, grids
from pytest_npuconf.audit.rules._performance import is_one_stream, runs

_RATES = {"tok/s", "req/s"}
_TIMES = {"ms", "s", "us", "ns", "min", "h", "ms/tok", "s/tok", "ms/req", "s/req"}
_SIZES = set(BYTES)
# quantity -> units that it cannot have
_WRONG = {
    "throughput": {"ms", "s", "us", "ms/tok", "s/tok", "ms/req", "s/req", "%"},
    "request_throughput": {"ms", "s", "tok/s", "ms/tok", "s/tok"},
    "latency": _RATES | _SIZES, "ttft": _RATES | _SIZES, "tpot": _RATES | _SIZES, "itl": _RATES | _SIZES,
    "cosine": _TIMES | _RATES | _SIZES, "ppl": _TIMES | _RATES | _SIZES,
    "weight_size": _TIMES | _RATES,  # a % is a share, or the 权重 of a criterion
}  # fmt: skip
_TIME_NAMED = re.compile(r"时间|耗时|time|latency|延迟|时延", re.IGNORECASE)


def _figures(context: Context) -> Iterator[tuple[Number, Name, bool]]:
    """Every figure whose name says what it is. The last item: whether the number has its cell to itself."""
    for pair in context.card.pairs:
        numbers = numbers_in(pair.value, pair.line)
        if numbers and numbers[0].start <= 2:
            yield numbers[0], read_name(pair.key), len(numbers) == 1
    for grid in grids(context.card):
        if len(grid.names) < 3:
            continue
        labelled = [read_name(row.label) for row in grid.rows]
        rows_named = sum(bool(name.quantity) for name in labelled) * 2 > len(grid.rows)
        for row, label in zip(grid.rows, labelled, strict=True):
            for number, name in zip(row.numbers[1:], grid.names[1:], strict=True):
                if number is not None:
                    yield number, label if rows_named and not name.quantity else name, True


def _wrong_unit(context: Context, number: Number, name: Name) -> Finding | None:
    if name.delta or name.ratio or name.aggregate == "std" or number.unit not in _WRONG.get(name.quantity, set()):
        return None
    if name.quantity.endswith("throughput") and _TIME_NAMED.search(name.text):
        return None
    if name.quantity == "throughput" and number.unit == "%":
        return None
    if re.search(rf"[(\[]\s*{re.escape(number.unit)}(?![A-Za-z])", name.text, re.IGNORECASE):
        return None  # the name itself gives the unit, as in "inference speed (ms/img)"
    message = f"{number.text}: {number.unit} is no unit of {name.text!r}"
    return context.finding(
        "units", Level.CONTRADICTION, number.line, message, f"a {name.quantity.replace('_', ' ')} has another unit"
    )


def _impossible(context: Context, number: Number, name: Name) -> Finding | None:
    """Values that no measurement gives, whatever the model."""
    if (
        name.delta
        or name.ratio
        or exact(number) is None
        or name.aggregate == "std"
        or re.search(r"阈值|threshold|标准|gate", name.text, re.IGNORECASE)
    ):
        return None
    if (
        len(name.rest) > 24
        or any(c.isdigit() for c in name.rest)
        or re.search(r"学习率|\blr\b|sched|anneal", name.text, re.IGNORECASE)
    ):
        return None
    value, why = around(number), ""
    if (
        name.quantity == "cosine"
        and number.unit == ""
        and (value.lo > 1.0 or value.hi < -1.0)
        and abs(number.value) < 10
    ):
        why = "a cosine lies between -1 and 1"
    elif (
        name.quantity == "ppl"
        and number.unit == ""
        and value.hi < 1.0
        and not name.tags & {"logits"}
        and not re.search(r"log", name.text, re.IGNORECASE)
    ):
        why = "exp of a mean negative log-probability is never below 1"
    elif name.quantity in ("accuracy", "match", "overlap") and number.unit == "%" and value.lo > 100.0:
        why = "a share is never above 100 %"
    elif name.quantity in ("mae", "rmse", "mse", "max_abs", "kl") and value.hi < 0.0:
        why = "never negative"
    if not why:
        return None
    return context.finding("units", Level.CONTRADICTION, number.line, f"{name.text!r} cannot be {number.text}", why)


def _points(context: Context) -> Iterator[Finding]:
    """Differences of percentages that are percentage points but carry %."""
    for grid in grids(context.card):
        for j, name in enumerate(grid.names):
            delta = best_delta(grid, j) if j and name.delta else None
            if delta is None or delta.formula != PLAIN or delta.misfits or delta.fits < 1:
                continue
            numbers = [row.numbers[j] for row in grid.details if row.numbers[j] is not None]
            sides = [row.numbers[k] for row in grid.details for k in (delta.a, delta.b) if row.numbers[k] is not None]
            if all(n is not None and n.unit == "%" for n in (*numbers, *sides)) and any(
                n is not None and n.value for n in numbers
            ):
                first = next(n for n in numbers if n is not None and n.value)
                message = f"{first.text} is a difference in percentage points, written as %"
                yield context.finding(
                    "units",
                    Level.AMBIGUOUS,
                    first.line,
                    message,
                    "a - b of two percentages; relative to b it is another figure",
                )


def _thousand(context: Context) -> Iterator[Finding]:
    """A time per token that is a thousand times what the throughput gives: ms written as s, or s as ms."""
    for run in runs(context):
        throughput, tpot = run.speeds.get("throughput"), run.speeds.get("tpot")
        if throughput is None or tpot is None or is_one_stream(throughput) or throughput.value.lo <= 0:
            continue
        streams = throughput.value * tpot.value
        for factor, wrong in ((1000.0, "s for ms"), (0.001, "ms for s")):
            near = [factor * n for n in ((1.0,) if run.streams is None else (1.0, run.streams))]
            if any(streams.overlaps(Interval(0.9 * n, 1.1 * n)) for n in near):
                message = f"{tpot.text} and {throughput.text} differ by a factor of a thousand: {wrong}?"
                how = f"1 / {plain(throughput.value.middle)} = {plain(1000 / throughput.value.middle, 4)} ms"
                yield context.finding("units", Level.CONTRADICTION, tpot.line, message, how)


_BOTH = re.compile(
    r"(?<![\d.,])(\d+(?:\.\d+)?)\s?(GB|MB|TB|GiB|MiB|TiB)\s?(?:[(=≈,/]|"
    r",?\s?即|,?\s?which is|,?\s?or|也就是)\s?(?:=|≈|约|about)?\s?(\d+(?:\.\d+)?)\s?(GiB|"
    r"MiB|TiB|GB|MB|TB)(?![A-Za-z/])"
)


def _both(context: Context) -> Iterator[Finding]:
    """The same size in decimal and in binary units side by side: "6.17 GB (5.75 GiB)"."""
    for line, text in enumerate(context.card.lines, 1):
        for match in _BOTH.finditer(text[:4000]):
            (a, b), (first, second) = (match.group(1), match.group(3)), (match.group(2), match.group(4))
            if ("i" in first) == ("i" in second) or first[0] != second[0]:
                continue
            numbers = [numbers_in(f"{x} {unit}", line)[0] for x, unit in ((a, first), (b, second))]
            left, right = (around(n, BYTES[n.unit]) for n in numbers)
            how = f"{a} {first} = {plain(left.middle / BYTES[second], 4)} {second}"
            if left.overlaps(right):
                yield context.finding("units", Level.FINE, line, f"{a} {first} is {b} {second}", how)
            elif 0.7 < left.middle / right.middle < 1.43:
                message = f"{a} {first} is not {b} {second}"
                yield context.finding("units", Level.CONTRADICTION, line, message, how)


_HBM = re.compile(r"\bHBM\w*\b|显存带宽|memory bandwidth|内存带宽", re.IGNORECASE)
SLOWEST = 20.0  # GB/s: no memory of an accelerator is slower; PCIe and networks are


def _bandwidth(context: Context) -> Iterator[Finding]:
    """A memory bandwidth a thousand times too small: GB/s written for TB/s."""
    for line, text in enumerate(context.card.lines, 1):
        if _HBM.search(text):
            for number in numbers_in(text[:4000], line):
                if (
                    number.unit == "GB/s"
                    and 0 < number.value < SLOWEST
                    and not re.search(r"PCIe|网|RoCE|HCCS|disk|磁盘|load|加载", text, re.IGNORECASE)
                ):
                    message = f"{number.text} is no bandwidth of such a memory: TB/s is meant?"
                    yield context.finding(
                        "units", Level.IMPLAUSIBLE, line, message, "HBM moves hundreds to thousands of GB/s"
                    )


_OF = re.compile(
    r"(?<![\d.])(\d+(?:\.\d+)?)\s?(TB|GB|MB|TiB|GiB|MiB)\s+of\s+(?:the\s+|its\s+)?(\d+(?:\.\d+)?)\s?(TB|GB|MB|TiB|GiB|MiB)(?![A-Za-z/])"
)


def _part(context: Context) -> Iterator[Finding]:
    """ "11.2 TB of the 32 GB": the part is larger than the whole, whatever the units mean."""
    for line, text in enumerate(context.card.lines, 1):
        for match in _OF.finditer(text[:4000]):
            part, whole = (numbers_in(f"{match.group(i)} {match.group(i + 1)}", line)[0] for i in (1, 3))
            if around(part, BYTES[part.unit]).lo > around(whole, BYTES[whole.unit]).hi * 1.1:
                message = f"{part.text} is more than the {whole.text} that it is a part of"
                yield context.finding("units", Level.CONTRADICTION, line, message, f"{part.text} / {whole.text}")


def check(context: Context) -> Iterator[Finding]:
    """Units that cannot be, values that cannot be, points and percent, milliseconds and seconds."""
    told: set[tuple[int, str]] = set()
    for number, name, alone in _figures(context):
        for finding in (_wrong_unit(context, number, name) if alone else None, _impossible(context, number, name)):
            if finding is not None and (finding.line, finding.message) not in told:
                told.add((finding.line, finding.message))
                yield finding
    yield from _both(context)
    yield from _part(context)
    yield from _bandwidth(context)
    yield from _points(context)
    yield from _thousand(context)


RULES: tuple[Rule, ...] = (Rule("units", "Units and values that the quantity can have", check),)
