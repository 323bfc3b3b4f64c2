"""Runs: the figures of speed that belong together, from key-value lists, rows of tables and columns of tables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from pytest_npuconf.audit.context import Context
from pytest_npuconf.audit.document import Pair
from pytest_npuconf.audit.interval import Interval
from pytest_npuconf.audit.numbers import Number, numbers_in
from pytest_npuconf.audit.quantities import Name, read_name
from pytest_npuconf.audit.rules._grid import Grid, exact, grids, stated

SPEEDS = ("throughput", "request_throughput", "latency", "ttft", "tpot", "itl")
SHAPES = ("concurrency", "batch", "input_length", "output_length")
_ONE_STREAM = re.compile(
    r"单(路|用户|请求|流|条|并发)|每(路|用户|个?请求)|per[- ]?(user|request|stream|seq|sequence)|人均|single",
    re.IGNORECASE,
)
_WITH_INPUT = re.compile(r"总吞吐|总(token)?\s*吞吐|total|input\s*\+|输入\s*\+|含输入", re.IGNORECASE)
_OTHER = re.compile(
    r"prefill|预填充|prompt|输入吞吐|峰值|peak|max|最大|每卡|单卡吞吐|per[- ]?(gpu|npu|"
    r"card|device)|加载|load|编译|compile|首(次|轮)|图片|image|视频|音频|样本|samples?|"
    r"docs?|文档|训练|train", re.IGNORECASE)  # fmt: skip
_OPEN_LOOP = re.compile(r"泊松|poisson|到达率|开环|open[- ]loop|request[- _]rate|arrival rate", re.IGNORECASE)
_MOST = re.compile(r"最大|max|上限|<=|≤", re.IGNORECASE)
_TIMES = {"ms": 1e-3, "s": 1.0, "us": 1e-6, "min": 60.0, "ms/tok": 1e-3, "s/tok": 1.0, "ms/req": 1e-3, "s/req": 1.0}
_UNIT_IN_NAME = re.compile(
    r"(?<![A-Za-z])(ms|s|us|tok(?:en)?s?/s(?:ec)?|req(?:uest)?s?/s|tps|qps|rps|毫秒|秒)(?:/(tok\w*|req\w*))?(?![A-Za-z/])",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Speed:
    """One figure of speed in seconds or per second, as an interval."""

    number: Number
    name: Name
    value: Interval

    @property
    def text(self) -> str:
        """As written."""
        return self.number.text

    @property
    def line(self) -> int:
        """Its line."""
        return self.number.line


@dataclass(frozen=True)
class Run:
    """Figures of one run. A quantity that is given twice is in none."""

    speeds: dict[str, Speed]
    shapes: dict[str, Speed]
    section: str
    tags: frozenset[str] = field(default_factory=frozenset)
    open_loop: bool = False

    @property
    def streams(self) -> float | None:
        """Requests at a time: concurrency, else batch size."""
        shape = self.shapes.get("concurrency") or self.shapes.get("batch")
        return shape.number.value if shape and shape.number.value >= 1 else None

    @property
    def limited(self) -> bool:
        """Whether the requests at a time are only a limit: "at most", or requests that arrive by themselves."""
        shape = self.shapes.get("concurrency") or self.shapes.get("batch")
        return shape is not None and (
            bool(_MOST.search(shape.name.text)) or shape.number.before in ("≤", "<=", "<") or self.open_loop
        )

    @property
    def output(self) -> float | None:
        """Tokens put out by a request, or at most put out."""
        shape = self.shapes.get("output_length")
        return shape.number.value if shape and shape.number.value >= 2 else None

    @property
    def output_fixed(self) -> bool:
        """Whether the output length is a length, not a limit."""
        shape = self.shapes.get("output_length")
        return (
            shape is not None
            and not _MOST.search(shape.name.text)
            and "tokens" not in shape.name.text.lower().replace("output tokens", "")
        )


def speed(number: Number, name: Name) -> Speed | None:
    """The figure in seconds (times) or per second (rates), where the unit is clear."""
    value, unit = stated(number), number.unit
    if not unit:
        found = _UNIT_IN_NAME.search(name.text)
        if found is None:
            return None
        unit = next((n.unit for n in numbers_in("1 " + found.group(0))), "")
    if name.quantity in ("throughput", "request_throughput"):
        kind = {"tok/s": "throughput", "req/s": "request_throughput"}.get(unit)
        return Speed(number, name, value) if kind == name.quantity else None
    scale = _TIMES.get(unit)
    return None if scale is None else Speed(number, name, value * scale)


def _usable(name: Name) -> bool:
    if name.quantity in SHAPES:
        return name.aggregate in ("", "mean", "max")
    if name.quantity not in SPEEDS or name.aggregate not in ("", "mean") or name.delta or name.ratio:
        return False
    return not _OTHER.search(name.text)


def runs_of(figures: Sequence[tuple[Number, Name]], section: str) -> list[Run]:
    """A run for each set of tags (devices, formats) that the figures name; figures without tags belong to all."""
    usable = [(n, name) for n, name in figures if _usable(name) and exact(n) is not None]
    tag_sets = {name.tags for _, name in usable if name.quantity in SPEEDS and name.tags} or {frozenset()}
    runs = []
    for tags in tag_sets:
        speeds: dict[str, list[Speed]] = {}
        shapes: dict[str, list[Speed]] = {}
        for number, name in usable:
            if name.tags and name.tags != tags:
                continue
            if name.quantity in SHAPES:
                shapes.setdefault(name.quantity, []).append(Speed(number, name, stated(number)))
            elif (figure := speed(number, name)) is not None:
                speeds.setdefault(name.quantity, []).append(figure)
        single = {k: v[0] for k, v in speeds.items() if len(v) == 1}
        runs.append(Run(single, {k: v[0] for k, v in shapes.items() if len(v) == 1}, section, tags))
    return [run for run in runs if run.speeds]


def lists(pairs: Sequence[Pair]) -> Iterator[tuple[str, list[tuple[Number, Name]]]]:
    """Neighbouring pairs of one section."""
    block: list[tuple[Number, Name]] = []
    last: Pair | None = None
    for pair in pairs:
        if last is not None and (pair.section != last.section or pair.line - last.line > 2):
            yield last.section, block
            block = []
        numbers = numbers_in(pair.value, pair.line)
        if len(numbers) == 1 or (
            numbers
            and read_name(pair.key).quantity in (*SPEEDS, *SHAPES)
            and numbers[0].start <= 2
            and len({n.unit for n in numbers}) == len(numbers)
        ):
            block.append((numbers[0], read_name(pair.key)))
        last = pair
    if last is not None:
        yield last.section, block


_PROSE_SHAPE = re.compile(
    r"(?:输入|输出|input|output)(?:长度)?\s*(?:of\s*|为\s*|:\s*)?\d[\d,]*\s*(?:个\s*)?tokens?", re.IGNORECASE
)
_SHAPE_NAMES = {"input_length": "输入长度", "output_length": "输出长度"}


def _defaults(context: Context, section: str, line: int) -> list[tuple[Number, Name]]:
    """Shapes that the section states once, for the tables in it."""
    found: dict[str, list[tuple[Number, Name]]] = {}
    if not section:
        return []
    for prose in context.card.proses:
        if prose.section == section and prose.line < line:
            for match in _PROSE_SHAPE.finditer(prose.text):
                for number in numbers_in(match.group(0), prose.line)[:1]:
                    name = read_name(
                        _SHAPE_NAMES[
                            "input_length"
                            if re.match(r"输入|input", match.group(0), re.IGNORECASE)
                            else "output_length"
                        ]
                    )
                    found.setdefault(name.quantity, []).append((number, name))
    for pair in context.card.pairs:
        name = read_name(pair.key)
        if pair.section == section and name.quantity in SHAPES and pair.line < line:
            for number in numbers_in(pair.value, pair.line):
                found.setdefault(name.quantity, []).append((number, name))
    return [v[0] for v in found.values() if len(v) == 1]


def _rows(context: Context, grid: Grid) -> Iterator[Run]:
    names = grid.names
    if sum(name.quantity in SPEEDS for name in names) < 1 or len(names) < 3:
        return
    defaults = _defaults(context, grid.table.section, grid.table.line)
    for row in grid.rows:
        if row.kind:
            continue
        own = [(n, name) for n, name in zip(row.numbers, names, strict=True) if n is not None]
        held = {name.quantity for _, name in own}
        yield from runs_of([*own, *(d for d in defaults if d[1].quantity not in held)], grid.table.section)


def _columns(context: Context, grid: Grid) -> Iterator[Run]:
    """Tables whose rows are quantities and whose columns are settings or devices."""
    names = [read_name(row.cells[0].text) for row in grid.rows]
    if len(grid.names) < 3 or sum(name.quantity in SPEEDS for name in names) < 2:
        return
    defaults = _defaults(context, grid.table.section, grid.table.line)
    for j in range(1, len(grid.names)):
        header = grid.names[j]
        if header.delta or header.ratio:
            continue
        own = [
            (number, name) for row, name in zip(grid.rows, names, strict=True) if (number := row.numbers[j]) is not None
        ]
        if header.quantity in SHAPES:
            own += [(n, header) for n in numbers_in(header.text, grid.table.line)[:1]]
        held = {name.quantity for _, name in own}
        for run in runs_of([*own, *(d for d in defaults if d[1].quantity not in held)], grid.table.section):
            yield Run(run.speeds, run.shapes, run.section, run.tags | header.tags)


def runs(context: Context) -> Iterator[Run]:
    """All runs of the card."""
    open_loop = any(_OPEN_LOOP.search(line) for line in context.card.lines)
    for run in _all_runs(context):
        yield replace(run, open_loop=open_loop) if open_loop else run


def _all_runs(context: Context) -> Iterator[Run]:
    for section, figures in lists(context.facts.pairs):
        yield from runs_of(figures, section)
    for grid in grids(context.card):
        yield from _rows(context, grid)
        yield from _columns(context, grid)


def is_one_stream(figure: Speed) -> bool:
    """Whether a throughput is that of one request."""
    return bool(_ONE_STREAM.search(figure.name.text))


def has_input(figure: Speed) -> bool:
    """Whether a throughput may count the input too."""
    return bool(_WITH_INPUT.search(figure.name.text))
