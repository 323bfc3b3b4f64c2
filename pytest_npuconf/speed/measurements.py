"""What the checks of speed measure. Each function is given the runs; nothing here knows a bound."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from pytest_npuconf.cards.schema import Floor
from pytest_npuconf.engines.capacity import read_capacity
from pytest_npuconf.gates import MAX_ROWS, Measurement, Row
from pytest_npuconf.load.figures import FIGURES
from pytest_npuconf.load.result import LoadResult, lateness
from pytest_npuconf.load.self_check import MOST_TRUTH_LATE_MS
from pytest_npuconf.load.sweep import goodput_of
from pytest_npuconf.metrics.roofline import efficiency, least_tpot, step_bytes
from pytest_npuconf.metrics.speed_figures import EVERY, OF_START
from pytest_npuconf.metrics.steady import drift, growth, rates, steady_window
from pytest_npuconf.speed.baseline import Recorded, departures
from pytest_npuconf.speed.bench import SpeedRuns, medians
from pytest_npuconf.speed.roof import Roof
from pytest_npuconf.stats import ratio_of_sums, share_lower_bound, share_upper_bound, t_quantile

WINDOWS = 30  # of the long run, at most
BLOCKS = 9  # readings of memory: eight increments


def run(runs: SpeedRuns) -> Measurement:
    """Requests of the rounds that were not answered in full; its statistics are the medians of all figures over rounds."""
    found = runs.measured()
    rows = _failures((f"round {i + 1}", one) for i, one in enumerate(found))
    middle = medians(found)
    figures = {name: {"unit": FIGURES[name].unit, "median": value, "rounds": [FIGURES[name].of(one) for one in found]}
               for name, value in middle.items()}  # fmt: skip
    notes = [
        f"{name}: {value:.4g} {FIGURES[name].unit}, median of {len(found)} rounds" for name, value in middle.items()
    ]
    return Measurement.counted(
        "speed.failed_requests", rows, n=sum(len(one.replies) for one in found), of="requests",
        statistics={**middle, **_documented(middle)}, figures=figures,
        salt=runs.salt, shape=dataclasses.asdict(runs.shape()), notes=notes,
    )  # fmt: skip


def _documented(middle: Mapping[str, float]) -> dict[str, float]:
    """What documents give in other units, or call by another name."""
    rate, latency = middle.get("output_tokens_per_second"), middle.get("latency_ms")
    found = {} if rate is None else {"amortised_ms_per_token": 1e3 / rate}
    return found if latency is None else {**found, "latency_s": latency / 1e3}


def _failures(named: Any) -> list[Row]:
    return [
        Row(f"{name}, request {reply.number}", 1.0, f"{reply.kind}: {reply.trouble}")
        for name, one in named
        for reply in one.replies
        if reply.kind
    ]


def client(runs: SpeedRuns) -> Measurement:
    """The share of the measured figures that this client may have added itself, by what it adds to known latencies at this load.

    Between nothing and that: too much of it settles nothing about the server.
    """
    bias, middle = runs.client(), medians(runs.measured())
    if bias.failures:
        return Measurement.unusable(
            "speed.client_share", f"{bias.failures} requests to known latencies failed: {bias.doubts}"
        )
    if "ttft_ms" not in middle:
        return Measurement.unusable("speed.client_share", "no request of the rounds was answered")
    shares = {"time to first token": abs(bias.ttft) / middle["ttft_ms"], "throughput": max(0.0, 1 - bias.rate)}
    gaps = [(b - a) / 1e6 for one in runs.measured() for r in one.answered for a, b in pairwise(r.arrivals)]
    if gaps:
        shares["p99 of gaps between chunks"] = abs(bias.itl_p99) / max(float(np.quantile(gaps, 0.99)), 1e-6)
    rows = [Row(name, share) for name, share in sorted(shares.items(), key=lambda one: -one[1])]
    # that single stamps may be late is in the share of the means already; any other doubt is of the whole
    grave = [doubt for one in runs.measured() for doubt in one.doubts if doubt != lateness(one.watch)]
    if bias.truth_late > MOST_TRUTH_LATE_MS:
        grave += bias.doubts
    most = max(rows[0].value, 1.0) if grave else rows[0].value
    doubts = list(dict.fromkeys([*grave, *(doubt for one in runs.measured() for doubt in one.doubts)]))
    return Measurement(
        "speed.client_share", rows[0].value, n=len(runs.rounds), of="rounds", interval=(0.0, most), rows=tuple(rows),
        data={"bias": bias.to_json(), "doubts": doubts, "notes": doubts[:3]},
    )  # fmt: skip


def _decoding(found: Iterable[LoadResult]) -> tuple[list[float], list[float]]:
    """Seconds from the first token to the last and the tokens that came in them, of each answer in more than one read."""
    good = [r for one in found for r in one.answered if r.tokens > r.first_tokens]
    return [(r.arrivals[-1] - r.arrivals[0]) / 1e9 for r in good], [float(r.tokens - r.first_tokens) for r in good]


def physics(runs: SpeedRuns, roof: Roof) -> Measurement:
    """Roofline efficiency of one request at a time and of the rounds, the larger: what the memory allows over what was measured.

    Of the rounds the weights alone are the roof: not every step has every request. Of a mixture of experts only a TPOT of nothing
    can be too fast.
    """
    name = "speed.roofline_efficiency"
    shape = runs.alone().shape
    alone = step_bytes(roof.weight_bytes, roof.kv_bytes_per_token, shape.input_len + shape.output_len / 2) / roof.ranks
    seen = runs.bandwidth(alone)
    rows, least_ms, measured = [], {}, {}
    for place, results, step in (("one request at a time", [runs.alone()], alone),
                                 ("the rounds", runs.measured(), roof.weight_bytes / roof.ranks)):  # fmt: skip
        seconds, tokens = _decoding(results)
        if len(seconds) < 2:
            return Measurement.unusable(name, f"{place}: answers come in one piece, so there is no TPOT: nothing streams, or a "
                                        "cache answers")  # fmt: skip
        found = ratio_of_sums(seconds, tokens)
        if found.value <= 0:
            return Measurement.unusable(name, f"{place}: a TPOT of {found.value * 1e3:g} ms is faster than physics")
        least = least_tpot(step if roof.dense else 0.0, seen.bytes_per_second)
        least_ms[place], measured[place] = least * 1e3, found.value * 1e3
        # an interval that reaches down to no time at all says nothing: as wide as a millionth of the mean makes it
        low = max(found.low, found.value * 1e-6)
        rows.append((Row(place, efficiency(least, found.value),
                         f"TPOT {found.value * 1e3:.4g} ms, at least {least * 1e3:.4g} ms"),
                     (efficiency(least, found.high), efficiency(least, low))))  # fmt: skip
    worst = max(rows, key=lambda one: one[0].value)
    return Measurement(
        name, worst[0].value, n=len(runs.rounds) + 1, of="runs", interval=worst[1],
        rows=tuple(row for row, _ in sorted(rows, key=lambda one: -one[0].value)),
        data={
            "statistics": {"efficiency": rows[0][0].value}, "least_tpot_ms": least_ms, "tpot_ms": measured,
            "bandwidth": dataclasses.asdict(seen), "roof": dataclasses.asdict(roof),
        },
    )  # fmt: skip


def floors(runs: SpeedRuns, stated: Sequence[Floor], start: Mapping[str, float]) -> Measurement:
    """The card's floors on this hardware: the largest share of a bound that is used up, above 1 where one is missed.

    Args:
        stated: those of this hardware, at least one.
        start: seconds of the server's start, by figure.
    """
    name, found = "speed.share_of_floor", []
    for floor in stated:
        values = _values(runs, floor.figure, start)
        if not values:
            return Measurement.unusable(name, f"{floor.figure} was not measured")
        _, higher = EVERY[floor.figure]
        shares = [floor.bound / value if higher else value / floor.bound for value in values]
        middle, ends = statistics.median(shares), _around(shares)
        row = Row(
            floor.figure,
            middle,
            f"{statistics.median(values):.4g}, {'at least' if higher else 'at most'} {floor.bound:g}",
        )
        found.append((row, ends))
    # one that is missed for sure speaks before one that may be
    found.sort(key=lambda one: (-((one[1] or (one[0].value,))[0] > 1), -(one[1][1] if one[1] else one[0].value)))
    return Measurement(name, found[0][0].value, n=len(runs.measured()), of="rounds", interval=found[0][1],
                       rows=tuple(row for row, _ in found[:MAX_ROWS]))  # fmt: skip


def _values(runs: SpeedRuns, figure: str, start: Mapping[str, float]) -> list[float]:
    if figure in OF_START:
        return [start[figure]] if figure in start else []
    values = [FIGURES[figure].of(one) for one in runs.measured()]
    return [value for value in values if value is not None]


def _around(values: Sequence[float]) -> tuple[float, float] | None:
    """95 % t interval of the logarithms' mean, widened to hold the median; None of fewer than three."""
    if len(values) < 3:
        return None
    logs = np.log(values)
    half = t_quantile(len(values) - 1) * float(logs.std(ddof=1)) / math.sqrt(len(values))
    middle = statistics.median(values)
    return min(middle, math.exp(float(logs.mean()) - half)), max(middle, math.exp(float(logs.mean()) + half))


def baseline(runs: SpeedRuns, recorded: Recorded) -> Measurement:
    """How far this session is from those recorded, over how far one more healthy session is expected to be; the worst figure."""
    found = departures(medians(runs.measured()), [session["figures"] for session in recorded.sessions])
    rows = [
        Row(one.figure, one.share, f"{one.measured:.4g}, {one.slowdown - 1:+.1%} against {one.recorded:.4g}; "
            f"up to {one.allowed - 1:+.1%} is expected") for one in found
    ]  # fmt: skip
    return Measurement(
        "speed.departure", found[0].share, n=len(recorded.sessions), of="sessions", rows=tuple(rows),
        data={"figures": [dataclasses.asdict(one) for one in found], "file": str(recorded.path)},
    )  # fmt: skip


def start(log: str, seconds: float) -> Measurement:
    """Seconds until the server answered; its statistics: reading the weights and starting the engine, as its log says."""
    said = read_capacity(log)
    found = {"load_s": said.load_seconds, "init_s": said.init_seconds}
    statistics_ = {name: value for name, value in found.items() if value is not None}
    return Measurement("speed.start", seconds, unit="s", of="starts", data={"statistics": {**statistics_, "start_s": seconds}},
                       rows=tuple(Row(name, value, "s, by the server's log") for name, value in statistics_.items()))  # fmt: skip


def repeat(runs: SpeedRuns) -> Measurement:
    """How much faster the same requests, with short prompts, are answered when they come again: a prefix cache saves some of the
    prefill, and never a step."""
    name, first, again = "speed.repeat_speedup", _latencies(runs.alone()), _latencies(runs.again())
    both = sorted(first.keys() & again.keys())
    if len(both) < 3:
        return Measurement.unusable(
            name, f"{len(both)} of {len(runs.alone().replies)} requests were answered both times"
        )
    slow, fast = (statistics.median(found[n] for n in both) for found in (first, again))
    ends = _around([first[n] / again[n] for n in both])
    ratio = statistics.median(first[n] / again[n] for n in both)
    return Measurement(
        name, ratio, n=len(both), of="requests", interval=ends,
        rows=(Row("asked first", slow * 1e3, "ms a request, median"), Row("asked again", fast * 1e3, "ms a request, median")),
    )  # fmt: skip


def _latencies(found: LoadResult) -> dict[int, float]:
    """Seconds of each answered request by its number."""
    return {reply.number: reply.latency for reply in found.answered}


def swept(runs: SpeedRuns) -> Measurement:
    """Requests of the sweep that were not answered; its statistics: the knee and the largest throughput."""
    found = runs.swept()
    rows = _failures((f"{point.shape.concurrency} at once", point) for point in found.points)
    best = max((point.throughput or 0.0) for point in found.points)
    notes = [f"{p.shape.concurrency} at once: {p.throughput or 0:.4g} tok/s" for p in found.points]
    told = found.to_json()
    return Measurement.counted(
        "speed.sweep_failed", rows, n=sum(len(point.replies) for point in found.points), of="requests",
        statistics={"output_tokens_per_second": best, **({} if found.knee is None else {"knee": found.knee})},
        sweep=told, notes=[*notes, f"knee: {found.knee or 'none within these'}"],
    )  # fmt: skip


def good_share(runs: SpeedRuns) -> Measurement:
    """Share of the rounds' requests that met every objective of the card; failed ones did not."""
    objectives = runs.speed.objectives
    assert objectives is not None
    found = [goodput_of(one, objectives) for one in runs.measured()]
    good = [one for one in found if one is not None]
    n = sum(len(one.replies) for one in runs.measured())
    met = sum(one.good for one in good)
    share, rate = met / n, statistics.median([one.rate for one in good]) if good else 0.0
    return Measurement(
        "speed.good_share", share, n=n, of="requests", interval=(share_lower_bound(met, n), share_upper_bound(met, n)),
        rows=(Row("goodput, requests a second", rate), Row("met", float(met)), Row("not met", float(n - met))),
        data={"statistics": {"goodput_per_second": rate, "share": share}},
    )  # fmt: skip


def steady(runs: SpeedRuns) -> Measurement:
    """Tokens a second in the last third of the long run over those in the first."""
    name, found = "speed.last_over_first", runs.long_run().found
    if found.failures:
        return Measurement.unusable(name, _in_the_long_run(found))
    sent, ended = ([getattr(r, at) / 1e9 for r in found.replies] for at in ("sent", "ended"))
    window = steady_window(sent, ended)
    times = [at / 1e9 for r in found.replies for at in r.arrivals]
    weights = [r.tokens / len(r.arrivals) for r in found.replies for _ in r.arrivals]
    latency = statistics.median(b - a for a, b in zip(sent, ended, strict=True))
    count = min(WINDOWS, int((window[1] - window[0]) / latency))
    if count < 6:
        return Measurement.unusable(
            name, f"the long run has {window[1] - window[0]:.1f} s between its ramps, and a request takes {latency:.1f} s: raise "
            "long_run_seconds under [speed]",
        )  # fmt: skip
    rate = rates(times, weights, window, count)
    if not (rate > 0).all():
        return Measurement.unusable(name, f"no token came for {(window[1] - window[0]) / count:.1f} s")
    trend = drift(rate)
    slowest = int(np.argmin(rate))
    width = (window[1] - window[0]) / count
    return Measurement(
        name, trend.value, n=trend.n, of="windows", interval=trend.interval,
        rows=(Row(f"window {slowest + 1}, {slowest * width:.0f} s in", float(rate[slowest]), "tok/s, the slowest"),),
        data={"rates": rate.tolist(), "window_seconds": width, "statistics": {"output_tokens_per_second": float(rate.mean())}},
    )  # fmt: skip


def _in_the_long_run(found: LoadResult) -> str:
    return f"{found.failures} in the long run, {found.first_failure}"


def memory(runs: SpeedRuns) -> Measurement:
    """Bytes that the server's processes hold more after each request, over the long run's last two thirds: caches fill before."""
    name, long = "speed.growth_per_request", runs.long_run()
    if long.held is None:
        return Measurement.unusable(name, "the server's processes are not known")
    if long.found.failures:
        return Measurement.unusable(name, _in_the_long_run(long.found))
    times, held = np.array(long.held.times, dtype=np.float64), np.array(long.held.held, dtype=np.float64)
    ended = np.sort([reply.ended for reply in long.found.replies])
    done = np.searchsorted(ended, times)
    keep = (done > len(ended) / 3) & (done < len(ended))
    places = np.unique(np.linspace(0, keep.sum() - 1, BLOCKS).astype(int)) if keep.sum() >= BLOCKS else np.array([])
    steps, values = (
        done[keep][places] if places.size else np.array([]),
        held[keep][places] if places.size else np.array([]),
    )
    if len(np.unique(steps)) < BLOCKS:
        return Measurement.unusable(
            name,
            f"{int(keep.sum())} readings of memory in the long run's last two thirds: raise long_run_seconds under [speed]",
        )
    found = growth(values, steps)
    return Measurement(
        name, found.value / 1024, unit="KiB", n=found.n, of="increments",
        interval=(found.interval[0] / 1024, found.interval[1] / 1024),
        rows=(Row("held at the end, MiB", float(values[-1]) / 2**20), Row("held at a third, MiB", float(values[0]) / 2**20)),
        data={"held": values.tolist(), "requests": steps.tolist(), "statistics": {"growth_kib": found.value / 1024}},
    )  # fmt: skip
