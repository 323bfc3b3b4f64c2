"""The part of a card about speed: the load, what each figure is, and the figures as the records of ``speed.*`` keep them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_npuconf.records import Record
from pytest_npuconf.report.card.precision import gate_rows, write_places
from pytest_npuconf.report.card.text import escaped, plain
from pytest_npuconf.report.card.writer import Writer
from pytest_npuconf.report.run import name_of

_DEFINED = ("ttft", "tpot", "rate", "amortised", "tail", "failed")


def write_speed(page: Writer) -> None:
    """Checks of speed with their gates, then the figures behind them; one sentence where nothing was measured."""
    page.heading(2, page.word("speed"))
    records = [record for record in page.run.checks if record["check"].startswith("speed.")]
    if not records:
        page.say("speed.none")
        return
    page.points(page.sentences(*(f"speed.{name}" for name in _DEFINED)))
    page.table(page.word("speed"), *gate_rows(page, records))
    for record in records:
        name = name_of(record["check"])
        if name == "speed.run":
            _rounds(page, record)
        elif name == "speed.sweep":
            _sweep(page, record)
        write_places(page, record)


def _rounds(page: Writer, record: Record) -> None:
    """Load and figures of the rounds."""
    shape = _table(record["data"], "shape")
    settings = [[escaped(name), escaped(str(value))] for name, value in shape.items() if value is not None]
    if settings:
        page.table(f"{page.word('load')}, {escaped(record['check'])}", ["setting", "value"], settings)
    figures = {name: found for name, found in _table(record["data"], "figures").items() if _is_figure(found)}
    if not figures:
        return
    most = max(len(found["rounds"]) for found in figures.values())
    header = ["figure", "unit", "median", *(page.word("round", k=k) for k in range(1, most + 1))]
    rows = []
    for name, found in figures.items():
        values = [_text(value) for value in found["rounds"]]
        rows.append(
            [
                escaped(name),
                escaped(str(found.get("unit", ""))),
                _text(found["median"]),
                *values,
                *[""] * (most - len(values)),
            ]
        )
    rate = figures.get("output_tokens_per_second")
    amortised = _table(record["data"], "statistics").get("amortised_ms_per_token")
    if rate is not None and _is_number(amortised):
        each = [_text(1e3 / value) if _is_number(value) and value > 0 else "" for value in rate["rounds"]]
        rows.append(["amortised_ms_per_token", "ms", _text(amortised), *each, *[""] * (most - len(each))])
    page.table(f"{page.word('rounds')}, {escaped(record['check'])}", header, rows)


def _sweep(page: Writer, record: Record) -> None:
    """One row for each concurrency."""
    sweep = _table(record["data"], "sweep")
    listed = sweep.get("points")
    points = [p for p in listed if isinstance(p, Mapping) and "concurrency" in p] if isinstance(listed, list) else []
    if not points:
        return
    rows = []
    for point in points:
        found = _table(point, "aggregates")
        spread = [_text(_table(found, name).get("mean")) for name in ("ttft", "tpot", "latency")]
        failed = sum(n for n in _table(point, "failures").values() if _is_number(n))
        requests = _text(point.get("requests"))
        rows.append(
            [_text(point["concurrency"]), requests, str(failed), _text(found.get("output_tokens_per_second")), *spread]
        )
    names = ["concurrency", "requests", "fail", "throughput", "TTFT ms", "TPOT ms", "latency ms"]
    page.table(f"{page.word('sweep')}, {escaped(record['check'])}", names, rows)
    knee = sweep.get("knee")
    page.say("speed.no_knee" if knee is None else "speed.knee", knee=knee)


def _text(value: Any) -> str:
    return plain(value) if _is_number(value) else ""


def _is_figure(found: Any) -> bool:
    return isinstance(found, Mapping) and isinstance(found.get("rounds"), list) and _is_number(found.get("median"))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _table(found: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    inner = found.get(key)
    return inner if isinstance(inner, Mapping) else {}
