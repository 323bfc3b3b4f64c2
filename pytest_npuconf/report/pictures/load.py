"""Pictures of measured load, as SVG: distributions of latencies, a timeline, figures against concurrency. Needs matplotlib."""

from __future__ import annotations

import io
import math
import textwrap
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pytest_npuconf.errors import MetricError, NonFiniteError, SettingsError
from pytest_npuconf.metrics.latency import time_per_output_token

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Told = Mapping[str, Any]
Floats = NDArray[np.float64]
# Okabe and Ito's colours, with a line style and a marker each: told apart without colour too.
BLUE, VERMILLION, GREEN, ORANGE = "#0072b2", "#d55e00", "#009e73", "#e69f00"
CURVES = {
    "ttft": ("TTFT", BLUE, "-", "o"), "tpot": ("TPOT", VERMILLION, "--", "s"), "latency": ("latency", GREEN, "-.", "^"),
}  # fmt: skip
PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
CROSSES = ("x", "+", "1", "2", "3", "4")  # of kinds of failures, the most frequent first
MOST_BARS, MOST_STEPS, MOST_RATES, BINS = 400, 500, 60, 240
_STYLE = {
    "svg.hashsalt": "npuconf", "svg.fonttype": "none", "text.parse_math": False, "font.size": 9, "axes.grid": True,
    "grid.color": "0.9", "grid.linewidth": 0.6, "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False,
    "legend.frameon": False, "lines.linewidth": 1.4, "axes.formatter.useoffset": False, "axes.formatter.limits": (-9, 12),
}  # fmt: skip


def latency_distributions(told: Told, label: str) -> bytes:
    """SVG: the share of requests whose TTFT, TPOT and latency is at most so many milliseconds; percentiles with intervals.

    Args:
        told: the JSON of ``npuconf load``.
        label: what it was measured on, such as ``CPU, STAND-IN``.

    Raises:
        MetricError: no request was answered, or a time is missing, not finite or before the one that it follows.
        SettingsError: matplotlib is not installed.
    """
    values: dict[str, list[float]] = {name: [] for name in CURVES}
    for request in _answered(told):
        (begin, first, end, _), tokens = _row(request), int(_at(request, "tokens"))
        each = time_per_output_token(first, _at(request, "last"), tokens, min(request["first_tokens"] or 1, tokens))
        values["ttft"].append((first - begin) * 1e3)
        values["tpot"] += [] if each is None else [each * 1e3]
        values["latency"].append((end - begin) * 1e3)
    marks = {name: _percentiles(told, name) for name, ms in values.items() if ms}

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        _scale(axes, "x", np.concatenate(list(values.values())))
        for name, found in marks.items():
            (word, colour, line, marker), ms, n = CURVES[name], np.sort(values[name]), len(values[name])
            ranks = np.unique(np.linspace(1, n, min(n, MOST_STEPS)).round().astype(int))
            x, y = np.r_[ms[0], ms[ranks - 1]], np.r_[0, ranks / n]
            axes.plot(x, y, color=colour, ls=line, drawstyle="steps-post")
            said = "".join(f"; {q} {value:,.4g} ms" for q, (value, *_) in found.items())
            axes.plot([], [], color=colour, ls=line, marker=marker, label=f"{word}, n = {n:,}{said}")
            for q, (value, *interval) in found.items():
                axes.plot(interval, [PERCENTILES[q]] * 2, color=colour, lw=5, alpha=0.35, solid_capstyle="butt")
                axes.plot(value, PERCENTILES[q], marker, color=colour, mec="white", ms=7)
        for q in sorted({q for found in marks.values() for q in found}):
            axes.text(1.01, PERCENTILES[q], q, transform=axes.get_yaxis_transform(), va="center")
        axes.set(xlabel="time (ms)", ylabel="share of requests at or below", ylim=(0, 1.03))

    return _card(_header(told, label), 4.8, 1, draw)


def timeline(told: Told, label: str) -> bytes:
    """SVG: each request from when it was sent to its end (above 400: how many were under way), and output tokens a second, an
    answer's counted at its end. Arguments and errors as of :func:`latency_distributions`."""
    good = _answered(told)
    rows = sorted((_row(request) for request in told["requests"]), key=lambda row: row[0])
    times, kinds = np.array([row[:3] for row in rows]), [row[3] for row in rows]
    ends = (times[:, 0].min(), times[:, 2].max())
    if ends[0] == ends[1]:
        raise MetricError("timeline: no time passed between the first request and the last answer")
    ended, tokens = ([_at(request, key) for request in good] for key in ("ended", "tokens"))
    mean = _bound(told.get("aggregates") or {}, "output_tokens_per_second")

    def draw(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(5, 2))
        _draw_requests(upper, times, kinds)
        found, edges = np.histogram(ended, min(MOST_RATES, max(4, len(good))), ends, weights=tokens)
        each = f"of answers that end in each {edges[1] - edges[0]:.3g} s"
        lower.stairs(found / np.diff(edges), edges, fill=True, color="0.75", label=each)
        if mean is not None:
            lower.axhline(mean, color="0.2", ls="--", label=f"of the whole run: {mean:,.4g} tokens/s")
        lower.set(xlabel="time since the first request was to be sent (s)", ylabel="output tokens/s")

    return _card(_header(told, label), 6.2, 2, draw)


def against_concurrency(sweep: Told, label: str) -> bytes:
    """SVG: output throughput, mean TTFT and mean TPOT against the requests at once; hollow where the verdict is not ``valid``.

    ``sweep``: ``model``, ``shape``, ``knee``, ``slo`` (``ttft_ms``, ``tpot_ms``) and ``points`` (``concurrency``, ``verdict``,
    ``failures``, ``aggregates``, ``goodput``). Errors as of :func:`latency_distributions`, where no point has a throughput too."""
    points = sorted(sweep.get("points") or (), key=lambda point: _number(point["concurrency"], "concurrency", 0))
    if not points:
        raise MetricError("against_concurrency: no points: nothing was measured at any concurrency")
    found = {name: _points(points, name, sweep) for name in ("output_tokens_per_second", "goodput", "ttft", "tpot")}
    if not found["output_tokens_per_second"].size:
        raise MetricError(f"against_concurrency: none of {len(points)} points has a throughput: nothing was answered")
    slo = {name: _bound(sweep.get("slo") or {}, f"{name}_ms") for name in ("ttft", "tpot")}
    knee = _bound(sweep, "knee")

    def draw(figure: Figure) -> None:
        panels = figure.subplots(3, 1, sharex=True, height_ratios=(3, 2, 2))
        _draw_concurrencies(panels, [float(point["concurrency"]) for point in points], knee)
        _draw_points(panels[0], found["output_tokens_per_second"], ("black", "-", "v"), "output throughput")
        _draw_points(panels[0], found["goodput"], (GREEN, "-.", "D"), "goodput: of answers within the SLO")
        panels[0].set(ylabel="output tokens/s", ylim=(0, 1.12 * found["output_tokens_per_second"][:, 1].max()))
        for panel, (name, bound) in zip(panels[1:], slo.items(), strict=True):
            _draw_points(panel, found[name], CURVES[name][1:], f"mean {CURVES[name][0]}, with its 95 % interval")
            if bound is not None:
                panel.axhline(bound, color="0.2", ls=":")
                panel.text(0.01, bound, f"SLO {bound:,g} ms", transform=panel.get_yaxis_transform(), va="bottom")
            _scale(panel, "y", np.r_[found[name][:, 1], found[name][:, 3], bound or []])
            panel.set_ylabel(f"mean {CURVES[name][0]} (ms)")
        for verdict in sorted({str(point["verdict"]) for point in points} - {"valid"}):
            at = ", ".join(f"{point['concurrency']:g}" for point in points if point["verdict"] == verdict)
            panels[-1].plot([], [], "o", color="0.3", fillstyle="none", label=_words(f"{verdict}: {at} at once", 54))

    return _card(_header(sweep, label), 7.4, 2, draw)


def _number(value: Any, where: str, above: float = -math.inf) -> float:
    if isinstance(value, float) and not math.isfinite(value):
        raise NonFiniteError(f"{where}: {value} is not finite")
    if not isinstance(value, (int, float)) or value <= above:
        raise MetricError(f"{where}: {_words(repr(value))} is no number" + (f" above {above:g}" if above == 0 else ""))
    return float(value)


def _bound(told: Told, key: str) -> float | None:
    return None if told.get(key) is None else _number(told[key], key, 0)


def _at(request: Told, key: str) -> float:
    return _number(request[key], f"request {request['number']}: {key}")


def _answered(told: Told) -> list[Told]:
    requests = told.get("requests") or []
    good = [request for request in requests if request["status"] == "ok"]
    if not good:
        kinds = Counter(_words(request["status"]) for request in requests).most_common(6)
        raise MetricError(f"not one of {len(requests)} requests was answered {kinds}: there is nothing to draw")
    return good


def _percentiles(told: Told, name: str) -> dict[str, list[float]]:
    """Those that are there: value and ends of the interval (none: the value again), in milliseconds."""
    found = (told.get("aggregates") or {}).get(name) or {}
    ends = {q: found[q]["interval"] or [found[q]["value"]] * 2 for q in PERCENTILES if q in found}
    return {q: [_number(value, f"{name}: {q}") for value in (found[q]["value"], *ends[q])] for q in ends}


def _row(request: Told) -> tuple[float, float, float, str]:
    """When it was sent, had its first token and ended, in seconds; the kind of its failure, and then no first token."""
    begin, end = _at(request, "intended" if request["sent"] is None else "sent"), _at(request, "ended")
    kind = "" if request["status"] == "ok" else _words(request["status"]) or "no kind"
    first = end if kind else _at(request, "first")
    if not begin <= first <= end:
        raise MetricError(f"request {request['number']}: sent, first and ended are not in this order")
    return begin, first, end, kind


def _points(points: Iterable[Told], name: str, sweep: Told) -> Floats:
    """Rows of concurrency, value, ends of its interval, 1 where valid; shape ``(n, 5)``. Goodput in tokens a second: an answer of
    another length is a failure."""
    rows = []
    for point in points:
        where, told = f"{point['concurrency']} at once: {name}", (point.get("aggregates") or {}).get(name)
        if name == "goodput" and point.get(name):
            told = _number(point[name]["requests_per_second"], where) * _number(sweep["shape"]["output_len"], where)
        if told is not None:
            mean, interval = (told["mean"], told["mean_interval"]) if isinstance(told, Mapping) else (told, None)
            row = (point["concurrency"], mean, *(interval or (mean, mean)), int(point["verdict"] == "valid"))
            rows.append([_number(value, where) for value in row])
    return np.array(rows).reshape(-1, 5)


def _words(value: Any, most: int = 40) -> str:
    """What came from outside, in one line that XML can hold."""
    text = "".join(c if c.isprintable() else "\ufffd" for c in str(value))
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _header(told: Told, label: str) -> list[str]:
    """Lines: the model; what it was measured on, and the shape."""
    shape, parts = told.get("shape") or {}, [label] if label else []
    if "points" not in told:
        loop = f"open loop, {shape['rate']:g} requests/s, at most" if shape.get("rate") else "closed loop,"
        parts.append(f"{shape.get('requests', '?')} requests, {loop} {shape.get('concurrency', '?')} at once")
    parts.append(f"{shape.get('input_len', '?')} tokens in, {shape.get('output_len', '?')} out")
    parts += [str(told["verdict"]).upper()] if told.get("verdict", "valid") != "valid" else []
    return [_words(told.get("model", "no model named"), 70), *textwrap.wrap(_words("; ".join(parts), 300), 105)]


def _card(header: Sequence[str], height: float, columns: int, draw: Callable[[Figure], None]) -> bytes:
    """A white card, ``height`` in inches. matplotlib's settings are the process's meanwhile: not from two threads at once."""
    try:
        import matplotlib.style
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SettingsError(f"no matplotlib: {error}", mend="pip install 'pytest-npuconf[pictures]'") from error
    out = io.BytesIO()
    with warnings.catch_warnings(), matplotlib.style.context(["default", _STYLE]):
        warnings.filterwarnings("ignore", message="Glyph")  # only its width is guessed: the viewer's fonts draw it
        figure = Figure(figsize=(7.6, height), facecolor="white", layout="constrained")
        for row, words in enumerate(header):
            font = {"size": 9} if row else {"size": 11, "weight": "bold"}
            figure.text(0.012, 1 - (0.08 + 0.2 * row) / height, words, va="top", fontdict=font)
        draw(figure)
        figure.legend(loc="outside lower left", ncols=columns)
        figure.get_layout_engine().set(rect=(0, 0, 1, 1 - (0.15 + 0.2 * len(header)) / height))  # type: ignore[call-arg, union-attr]
        figure.savefig(out, format="svg", metadata={"Date": None, "Title": ": ".join(header)})
    return out.getvalue()


def _scale(axes: Axes, which: str, seen: Floats) -> None:
    """A logarithmic x or y axis where what is seen above zero spans more than a decade: zero is then beyond its lower end."""
    axis, low, high = getattr(axes, f"{which}axis"), seen[seen > 0].min(initial=math.inf), seen.max(initial=0)
    if high > 10 * low:
        axes.set(**{f"{which}scale": "log", f"{which}lim": (low / 1.4, high * 1.4)})
        axis.get_major_locator().set_params(subs=(1.0, 2.0, 5.0) if high < 2e3 * low else (1.0,))
        axis.set_major_formatter("{x:.10g}")
        axis.set_minor_formatter("")
    elif which == "y" and high > 0:
        axes.set_ylim(0, 1.12 * high)


def _draw_requests(axes: Axes, times: Floats, kinds: Sequence[str]) -> None:
    """``times`` in seconds, sent, first token and end; shape ``(n, 3)``. ``kinds`` of failures, empty where there is none."""
    named = [kind for kind, _ in Counter(filter(None, kinds)).most_common()]
    kind = np.array([named.index(kind) if kind else -1 for kind in kinds])
    rows, edges = np.arange(len(times)) + 1, np.linspace(times[:, 0].min(), times[:, 2].max(), BINS + 1)
    as_bars, total, thick = len(times) <= MOST_BARS, np.zeros(BINS), min(10, 200 / len(times))
    for label, begin, end, which, colour in (
        ("sent to first token", 0, 1, kind < 0, ORANGE),
        ("first token to end", 1, 2, kind < 0, BLUE),
        ("failed", 0, 2, kind >= 0, "0.75"),
    ):
        begun, over, below = times[which, begin], times[which, end], total
        if as_bars:
            axes.hlines(rows[which], begun, over, color=colour, lw=thick, capstyle="butt")
        else:
            spent = np.array([np.clip(at - begun, 0, over - begun).sum() for at in edges])
            total = below + np.diff(spent) / np.diff(edges)
            axes.stairs(total, edges, baseline=below, fill=True, color=colour, lw=0)
        axes.plot([], [], color=colour, lw=6, label=label if which.any() else None)
    bins = np.clip(np.searchsorted(edges, times[:, 2]) - 1, 0, BINS - 1)
    places = np.c_[times[:, 2], rows] if as_bars else np.c_[edges[bins + 1], total[bins]]
    for i, marker in enumerate(CROSSES[: len(named)]):
        others = i == len(CROSSES) - 1 < len(named) - 1
        which = kind >= i if others else kind == i
        label = f"failed: {'other kinds' if others else named[i]} ({which.sum():,})"
        x, y = np.unique(places[which], axis=0).T
        axes.plot(x, y, marker, color=("black", VERMILLION)[i % 2], ms=7, mew=1.6, label=label, clip_on=False)
    axes.set_ylabel("request, in the order of sending" if as_bars else "requests under way")
    axes.set_ylim((max(3, len(times)) + 0.7, 0.3) if as_bars else (0, 1.03 * total.max()))
    axes.locator_params("y", integer=True)


def _draw_points(axes: Axes, rows: Floats, style: Sequence[str], label: str) -> None:
    """``rows`` as of :func:`_points`; ``style``: colour, line, marker."""
    if rows.size:
        (colour, line, marker), (x, mean, low, high, valid) = style, rows.T
        ends = np.maximum((mean - low, high - mean), 0)
        axes.errorbar(x, mean, ends, color=colour, ls=line, capsize=3, elinewidth=1)
        axes.plot([], [], color=colour, ls=line, marker=marker, label=label)
        axes.scatter(x, mean, c=np.where(valid, colour, "white"), marker=marker, ec=colour, zorder=3, clip_on=False)


def _draw_concurrencies(panels: Sequence[Axes], at: Sequence[float], knee: float | None) -> None:
    """A log2 axis with the concurrencies as ticks, but for those too close to the one before, and the knee."""
    ticks, least = [at[0]], max(1.001, (at[-1] / at[0]) ** 0.03)
    for one in at:
        ticks += [one] if one > least * ticks[-1] else []
    panels[-1].set_xscale("log", base=2)
    panels[-1].set(xlabel="requests at once", xticks=ticks, xticklabels=[f"{one:.10g}" for one in ticks])
    if knee is not None:
        where = panels[0].get_xaxis_transform()
        panels[0].text(knee, 1, f"knee: {knee:g} at once", transform=where, ha="center", va="bottom")
        for panel in panels:
            panel.axvline(knee, color="0.4", ls="--", lw=1)
