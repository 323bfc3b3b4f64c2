"""Speeds that are told in a sentence, items per second, and the total time of a run."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pytest_npuconf.audit.context import Context
from pytest_npuconf.audit.findings import Finding, Level
from pytest_npuconf.audit.interval import plain
from pytest_npuconf.audit.numbers import numbers_in
from pytest_npuconf.audit.quantities import Name, read_name
from pytest_npuconf.audit.rules._grid import exact, stated
from pytest_npuconf.audit.rules._performance import SHAPES, SPEEDS, Run, Speed, lists, runs_of, speed

ROOM = 0.10  # relative: start and end of a run
APART = 0.15  # relative: what a loop does besides calling the model
_CLOSED = re.compile(
    r"\balways\b|closed[- ]loop|one request (?:each|under way|in flight|at a time)|back to back", re.IGNORECASE
)
_CLAUSES = {
    "concurrency": re.compile(
        r"(?<![\d.,])(\d{1,5}) (?:concurrent |parallel )?(?:clients|users|streams|workers)\b(?! per| each)",
        re.IGNORECASE,
    ),
    "output_length": re.compile(
        r"(?<![\d.,])(\d{1,6}) (?:output|generated|new) tokens (?:a|per|each|for each|in each)(?: request)?\b",
        re.IGNORECASE,
    ),
    "latency": re.compile(
        r"(?:mean|average) (?:request )?latency (?:is |was |of |= ?)?(\d+(?:\.\d+)? ?(?:ms|s))(?![\w/])", re.IGNORECASE
    ),
    "throughput": re.compile(
        r"(?<!per-client )(?<!single )(?:output )?throughput (?:is |was |of |= ?)?(\d[\d,]*(?:\.\d+)? ?tok(?:en)?s?/s)"
        r"(?! ?(?:per|each|a client|for each|/))",
        re.IGNORECASE,
    ),
}
_ALONE = re.compile(
    r"(?<!tokens )\b(?:per|each|every|single|one)[ -](?:client|user|stream|request|worker)\b(?! under| in flight| at a)"
    r"|\beach (?:gets|sees|has)\b",
    re.I,
)


def told_runs(context: Context) -> Iterator[Run]:
    """Clients, tokens a request, mean latency and throughput in one line, each once, of clients that never pause."""
    for prose in context.card.proses:
        if len(prose.text) > 1000 or not _CLOSED.search(prose.text) or _ALONE.search(_CLOSED.sub("", prose.text)):
            continue
        found: dict[str, Speed] = {}
        for quantity, pattern in _CLAUSES.items():
            matches = list(pattern.finditer(prose.text))
            numbers = numbers_in(matches[0].group(1), prose.line) if len(matches) == 1 else []
            name = read_name({"output_length": "output length"}.get(quantity, quantity))
            if len(numbers) == 1:
                value = Speed(numbers[0], name, stated(numbers[0])) if quantity in SHAPES else speed(numbers[0], name)
                if value is not None:
                    found[quantity] = value
        if found.keys() == _CLAUSES.keys():
            speeds, shapes = ({k: v for k, v in found.items() if (k in SPEEDS) == fast} for fast in (True, False))
            yield Run(speeds, shapes, prose.section)


_ELAPSED = re.compile(
    r"总耗时|总时间|总用时|(?:total|elapsed|wall|benchmark)[ _-]?(?:time|duration)(?: ?\(s\))?", re.IGNORECASE
)
_SECONDS = {"s": 1.0, "ms": 1e-3, "min": 60.0, "h": 3600.0}


def _plain(context: Context, run: Run) -> bool:
    """Whether the output length stands alone in its value: "at most 200" is a limit."""
    number = run.shapes["output_length"].number
    return all(number.text == pair.value.strip() for pair in context.card.pairs if pair.line == number.line)


def total_time(context: Context) -> Iterator[Finding]:
    """Tokens per second times the total time are the tokens of the run: no fewer than one answer has."""
    for section, figures in lists(context.facts.pairs):
        times = [n for n, name in figures if _ELAPSED.fullmatch(name.text.strip()) and n.unit in _SECONDS and exact(n)]
        for run in runs_of(figures, section) if len(times) == 1 else ():
            rate, output = run.speeds.get("throughput"), run.output
            if rate is None or output is None or not run.output_fixed or not _plain(context, run):
                continue
            tokens = rate.value * (stated(times[0]) * _SECONDS[times[0].unit])
            if tokens.lo > 0 and tokens.hi < output * (1 - ROOM):
                message = f"{rate.text} for {times[0].text} are {plain(tokens.middle, 4)} tokens"
                message += f", less than one answer of {plain(output)}"
                how = f"one answer in {times[0].text} is {plain(rate.value.middle * output / tokens.middle, 4)} tok/s"
                yield context.finding("throughput", Level.IMPLAUSIBLE, rate.line, message, how)


_ITEMS = re.compile(
    r"(?:avg|mean|average|平均)?[_ ]?(?:throughput|吞吐量?|吞吐率)?[_ (]*(?:ips|fps|img/s"
    r"|images?/s(?:ec)?|samples/s(?:ec)?|图片/秒|张/秒|帧/秒)\)?",
    re.IGNORECASE,
)
_BATCH_ONE = re.compile(
    r"(?:batch[_ ]?size|\bbatch|\bbs|批大小|批次大小)\s*[=:为]?\s*1(?![\d.])|单张|逐张", re.IGNORECASE
)
_OVERLAPPED = re.compile(
    r"并发|多线程|线程|多流|流水|异步|多进程|预处理|后处理|端到端|concurren|thread|stream|pipelin|async|worker|preprocess"
    r"|post-?process|end[- ]to[- ]end|\be2e\b|data ?load|multi|[卡芯]|\bcards|devices|\bNPUs",
    re.IGNORECASE,
)


def items_per_second(context: Context) -> Iterator[Finding]:
    """One item at a time: items per second are 1 / mean latency, in one list."""
    for section, figures in lists(context.facts.pairs):
        rates = [n for n, name in figures if _ITEMS.fullmatch(name.text.strip()) and n.unit == "" and exact(n)]
        means = [(n, name) for n, name in figures if _mean_latency(name) and exact(n)]
        if len(rates) != 1 or len(means) != 1:
            continue
        one = _BATCH_ONE.search(section) or any(name.quantity == "batch" and n.value == 1 for n, name in figures)
        more = any(name.quantity in ("batch", "concurrency") and n.value != 1 for n, name in figures)
        lines = [p.text for p in context.card.proses if p.section == section]
        if (
            not one
            or more
            or any(_OVERLAPPED.search(text) for text in [section, *lines, *(name.text for _, name in figures)])
        ):
            continue
        latency = speed(*means[0])
        flight = stated(rates[0]) * latency.value if latency is not None else None
        if latency is None or flight is None or latency.value.lo <= 0:
            continue
        how = f"1 / {latency.text} = {plain(1 / latency.value.middle, 5)} a second"
        if flight.hi < 1 - APART or flight.lo > 1 + APART:
            message = f"{rates[0].text} a second is not one item at a time in {latency.text}"
            yield context.finding("throughput", Level.IMPLAUSIBLE, rates[0].line, message, how)
        else:
            message = f"{rates[0].text} a second and {latency.text} agree, one item at a time"
            yield context.finding("throughput", Level.FINE, rates[0].line, message, how)


def _mean_latency(name: Name) -> bool:
    return name.quantity == "latency" and name.aggregate == "mean" and not (name.rest or name.delta or name.ratio)
