"""Pictures of the precision checks, each from one record of results.json (None: the record has not what it shows)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pytest_npuconf.metrics.perplexity import TextScore, format_perplexity, relative_change
from pytest_npuconf.records import Record
from pytest_npuconf.report.pictures.drawing import (
    BAD,
    FIRST,
    FOURTH,
    INK,
    MUTED,
    SECOND,
    SERIES,
    THIRD,
    Picture,
    draw_picture,
    log_scale,
    natural,
    shortened,
)
from pytest_npuconf.report.words import word_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_BARS = 22
BROKEN = 1e6  # per cent: beyond it a change of perplexity is drawn by its power of ten
FLOOR, CLIP = 1e-3, 30.0  # shares of a bound, of the picture's axis
_LAYER = re.compile(r"\blayers?\.(\d+)\b|\bh\.(\d+)\b")
_KINDS = (("attn", "attention", FIRST, "o"), ("mlp", "feed-forward", SECOND, "s"), ("norm", "norm", THIRD, "^"))


def bound_used(record: Record) -> tuple[float, float, float] | None:
    """How much of its bound a measurement uses, at its value, its interval's better and its worse end: 1 less the room that is left
    as a share of the bound, so 1 is the bound itself and above is over; 0 where a measurement could not be better. None where the
    bound is zero or there is none, or the output was unusable."""
    bound, value, sense = record["bound"], record["value"], record["sense"]
    if not bound or value is None or record["verdict"] is None:
        return None
    low, high = record["interval"] or (value, value)
    low, high = (-math.inf if low is None else low), (math.inf if high is None else high)

    def used(x: float) -> float:
        room = x - bound if sense == ">=" else bound - (abs(x) if sense == "+-" else x)
        return max(0.0, 1.0 - float(room / abs(bound)))

    if sense == "+-" and low <= 0 <= high:
        return used(value), 0.0, max(used(low), used(high))
    return used(value), min(used(low), used(high)), max(used(low), used(high))


def margins(key: str, records: Sequence[Record]) -> Picture | None:
    """Of every judged check with a tolerance: how much of its bound it uses, the fullest first."""
    unusable = (math.inf, math.inf, math.inf)
    judged = [record for record in records if record["bound"] and record["verdict"] is not None]
    every = [(bound_used(record) or unusable, record) for record in judged]
    every.sort(key=lambda pair: -pair[0][2])
    shown = every[:MOST_BARS]
    if not shown:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for place, (used, record) in enumerate(reversed(shown)):
            colour, marker = _mark(record)
            value, low, high = (min(max(share, FLOOR), CLIP) for share in used)
            axes.plot([low, high], [place, place], color=colour, lw=3, alpha=0.45)
            axes.plot(value, place, marker, color=colour, ms=6)
        axes.axvline(1, color=INK, lw=1.2)
        axes.set(xscale="log", xlim=(0.8 * FLOOR, 1.3 * CLIP), yticks=range(len(shown)), ylim=(-0.7, len(shown) - 0.3))
        axes.set_yticklabels([shortened(record["check"]) for _, record in reversed(shown)])
        axes.set_xticks([0.001, 0.01, 0.1, 1, 10], ["≤0.1 %", "1 %", "10 %", "bound", "10 x"])
        axes.tick_params(axis="x", which="minor", bottom=False)
        axes.set_xlabel("share of the bound that is used")

    hidden = f" The {len(shown)} fullest of {len(every)}." if len(every) > len(shown) else ""
    far = (
        f" What is unusable, or more than {CLIP:g} times its bound, stands at {CLIP:g}."
        if shown[0][0][2] > CLIP
        else ""
    )
    return draw_picture(
        key,
        "How much of its bound each check uses",
        "Left of the line is room, right of it the check fails; the bar is the interval. A cross failed, a diamond is "
        f"inconclusive, a triangle is waived. Gates without a tolerance are not in it.{hidden}{far}",
        ("check", "used", "interval's ends", "verdict"),
        [(r["check"], _share(v), f"{_share(low)} to {_share(high)}", word_of(r)) for (v, low, high), r in shown],
        draw,
        height=0.9 + 0.2 * len(shown),
    )


def _mark(record: Record) -> tuple[str, str]:
    """Colour and sign of a verdict."""
    return {"pass": (FIRST, "o"), "waived": (SECOND, "^"), "inconclusive": (SECOND, "D")}.get(
        word_of(record), (BAD, "X")
    )


def _share(used: float) -> str:
    return f"{used:.1%}" if math.isfinite(used) else "no number"


def kl_by_position(key: str, record: Record) -> Picture | None:
    """KL of the candidate by position, with the band of what rounding alone costs there."""
    places = record["data"].get("by_position") or ()
    if len(places) < 2:
        return None
    x = [math.sqrt((each["first"] + 1) * (each["last"] + 1)) for each in places]
    candidate = [each["candidate"] for each in places]
    band = [(p["typical_rounding"], p["noisiest_rounding"]) for p in places if p["noisiest_rounding"] is not None]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        if len(band) == len(places):
            typical, noisiest = zip(*band, strict=True)
            axes.fill_between(x, 0, noisiest, color=FIRST, alpha=0.18, lw=0, label="rounding alone, noisiest member")
            axes.plot(x, typical, color=FIRST, lw=1.2, ls="--", label="rounding alone, mean member")
        axes.plot(x, candidate, "o-", color=SECOND, label="candidate", ms=4)
        axes.set(xscale="log", xlabel="position in the text (token, from 1)", ylabel="mean KL (nats)")
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.legend()

    said = "" if band else " This pair has no band: its reference is itself rounded."
    return draw_picture(
        key,
        f"KL by position, {record['check']}",
        "Divergence of the candidate's next-token distribution from the reference's. Near the band is rounding; a line that "
        f"leaves it many times over from some position on is a fault that begins there.{said}",
        ("positions", "n", "candidate", "mean rounding", "noisiest rounding"),
        [
            (f"{p['first']}-{p['last']}", p["positions"], p["candidate"], p["typical_rounding"], p["noisiest_rounding"])
            for p in places
        ],
        draw,
    )


def ratio_by_bucket(key: str, record: Record) -> Picture | None:
    """The noise ratio of each bucket of positions, with its interval and the bound."""
    found: Mapping[str, Any] = record["data"].get("buckets") or {}
    if not found:
        return None
    buckets = {name: found[name] for name in sorted(found, key=natural)}

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for place, each in enumerate(buckets.values()):
            axes.plot([place, place], [each["low"], each["high"]], color=FIRST, lw=3, alpha=0.45)
            axes.plot(place, each["ratio"], "o", color=FIRST)
        _bound(axes, record)
        axes.set(xlabel="positions", ylabel="noise ratio", xticks=range(len(buckets)))
        axes.set_xticklabels([shortened(name, 12) for name in buckets])
        log_scale(axes, "y", [end for each in buckets.values() for end in (each["low"], each["high"], record["bound"])])

    return draw_picture(
        key,
        f"Noise ratio by bucket of positions, {record['check']}",
        "1 is as far from the reference as the noisiest healthy rounding. The bar is the interval; it must stay below the line.",
        ("positions", "ratio", "low", "high", "windows"),
        [(name, e["ratio"], e["low"], e["high"], e["windows"]) for name, e in buckets.items()],
        draw,
    )


def modules(key: str, record: Record) -> Picture | None:
    """The noise ratio of every module, by layer; what is off is named."""
    ratios: Mapping[str, float | None] = record["data"].get("ratios") or {}
    found = {name: ratio for name, ratio in ratios.items() if ratio is not None and ratio > 0}
    if not found:
        return None
    layers = [int(match.group(1) or match.group(2)) for name in found if (match := _LAYER.search(name))]
    after = max(layers, default=-1) + 1
    bound = record["bound"] or math.inf
    exact = sum(1 for ratio in ratios.values() if ratio == 0)
    unusable = [name for name, ratio in ratios.items() if ratio is None]
    more = f" {exact} are exact and not drawn." if exact else ""
    more += (
        f" Not drawn, for they have no finite ratio: {', '.join(unusable[:5])}{', ...' if unusable[5:] else ''}."
        if unusable
        else ""
    )
    off = sorted((name for name, ratio in found.items() if ratio > bound), key=lambda name: -found[name])

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for _, word, colour, marker in (*_KINDS, ("", "other", FOURTH, "D")):
            mine = {name: ratio for name, ratio in found.items() if _kind(name) == word}
            axes.plot(
                [_layer(n, after) for n in mine], list(mine.values()), marker, color=colour, ms=4, label=word, ls=""
            )
        for name in off[:4]:
            axes.plot(_layer(name, after), found[name], "X", color=BAD, ms=8)
            axes.annotate(
                shortened(name), (_layer(name, after), found[name]), textcoords="offset points", xytext=(6, 5),
                fontsize=8, ha="right" if _layer(name, after) > after / 2 else "left",
            )  # fmt: skip
        _bound(axes, record)
        axes.margins(y=0.12)
        log_scale(axes, "y", [*found.values(), bound])
        axes.set(xlabel="layer (outside of layers: the ends)", ylabel="noise ratio")
        axes.locator_params("x", integer=True)
        axes.legend(ncols=4, loc="upper center", bbox_to_anchor=(0.5, 1.14))

    listed = sorted(found, key=lambda name: -found[name])
    return draw_picture(
        key,
        f"Each module alone, {record['check']}",
        "Every module is fed with the reference's own input: what is off here is the origin, not what comes behind it. Crosses "
        f"are over the bound.{more}" + (f" The 40 worst of {len(listed)} in the table." if len(listed) > 40 else ""),
        ("module", "worst ratio"),
        [(name, found[name]) for name in listed[:40]],
        draw,
        height=3.3,
    )


def _layer(name: str, after: int) -> int:
    match = _LAYER.search(name)
    if match is not None:
        return int(match.group(1) or match.group(2))
    return -1 if "embed" in name or "rotary" in name or "wte" in name or name.startswith("<") else after


def _kind(name: str) -> str:
    return next((word for part, word, _, _ in _KINDS if part in name), "other")


def top1_gaps(key: str, record: Record) -> Picture | None:
    """Each disagreement of the predicted token: the reference's own gap against what excuses a near tie there."""
    gaps: Sequence[tuple[float, float]] = record["data"].get("gaps") or ()
    if not gaps:
        return None
    counted = [(gap, tau) for gap, tau in gaps if gap > tau]
    excused = [(gap, tau) for gap, tau in gaps if gap <= tau]
    differing, ties = record["data"]["disagreements"], record["data"]["near_ties"]
    drawn = f" The {len(gaps)} farthest beyond a near tie are drawn." if len(gaps) < differing else ""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for pairs, colour, marker, word in (
            (excused, FIRST, "o", f"near tie: excused ({ties})"),
            (counted, BAD, "X", f"counts as an error ({differing - ties})"),
        ):
            if pairs:
                axes.plot(
                    [tau for _, tau in pairs], [gap for gap, _ in pairs], marker, color=colour, ls="", ms=5, label=word
                )
        every = [value for pair in gaps for value in pair if value > 0]
        ends = (min(every, default=1.0), max(every, default=1.0))
        axes.plot(ends, ends, color=INK, lw=1)
        log_scale(axes, "x", every)
        log_scale(axes, "y", every)
        axes.set(xlabel="tau: what rounding does to the gap there (logits)", ylabel="the reference's gap (logits)")
        axes.legend()

    return draw_picture(
        key,
        f"Where the predicted token differs, {record['check']}",
        f"Of {record['n']} {record['of']}, {differing} differ in the best token.{drawn} The gap is by how much the reference "
        "prefers its own; above the line that is more than rounding explains.",
        ("gap", "tau", "counts"),
        [(gap, tau, "error" if gap > tau else "near tie") for gap, tau in gaps[:40]],
        draw,
    )


def perplexity(key: str, record: Record) -> Picture | None:
    """Change of perplexity of each text, and of all with its interval, inside the bound or not."""
    found: Mapping[str, Mapping[str, float]] = record["data"].get("texts") or {}
    texts = {name: found[name] for name in sorted(found, key=natural)}
    if not texts or record["value"] is None:
        return None
    scores = [TextScore(name, t["candidate_nll"], t["reference_nll"], int(t["tokens"])) for name, t in texts.items()]
    change = {s.name: 100 * relative_change(s.delta) for s in scores}
    ends = [100 * (record["value"] if end is None else end) for end in record["interval"] or [record["value"]] * 2]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot(list(change.values()), range(len(change), 0, -1), "o", color=FIRST, ls="")
        axes.plot(ends, [0, 0], color=SECOND, lw=4, alpha=0.6)
        axes.plot(100 * record["value"], 0, "D", color=SECOND)
        axes.axvline(0, color=MUTED, lw=1)
        if record["bound"] is not None:
            for side in (-1, 1) if record["sense"] == "+-" else (1,):
                axes.axvline(100 * side * record["bound"], color=INK, lw=1.2)
        if max(map(abs, change.values())) > BROKEN:
            axes.set_xscale("symlog", linthresh=1)
        axes.set(xlabel="change of perplexity (%)", yticks=range(len(change) + 1), ylim=(-0.6, len(change) + 0.6))
        axes.set_yticklabels(["all, interval", *reversed([shortened(name, 24) for name in change])])

    return draw_picture(
        key,
        f"Perplexity of each text, {record['check']}",
        "Paired: the same tokens, candidate against reference. Left of zero is lower than the reference's, which a leak of "
        "the future would be. The outer lines are the bound on the whole.",
        ("text", "tokens", "candidate", "reference", "change"),
        [
            (
                s.name, s.tokens, format_perplexity(s.candidate_ppl), format_perplexity(s.reference_ppl),
                f"{change[s.name]:+.4f} %" if abs(change[s.name]) < BROKEN else f"{change[s.name]:+.3e} %",
            )
            for s in scores
        ],
        draw,
        height=1.1 + 0.26 * len(change),
    )  # fmt: skip


def hidden_by_layer(key: str, records: Sequence[Record]) -> Picture | None:
    """Relative error of the hidden states, layer by layer, a line for each precision."""
    found = {r["precision"]: r["data"]["layers"] for r in records if r["data"].get("layers")}
    if not found:
        return None
    layers = list(dict.fromkeys(layer for each in found.values() for layer in each))
    layers.sort(key=natural)
    values = {name: [each.get(layer, {}).get("rel_l2") for layer in layers] for name, each in found.items()}

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for (name, line), (colour, style, marker) in zip(values.items(), SERIES, strict=False):
            points = [(i, value) for i, value in enumerate(line) if value is not None]
            axes.plot([i for i, _ in points], [v for _, v in points], color=colour, ls=style, marker=marker, label=name)
        log_scale(axes, "y", [value for line in values.values() for value in line if value])
        axes.set(ylabel="mean rel_l2", xticks=range(len(layers)))
        axes.set_xticklabels([shortened(layer, 18) for layer in layers], rotation=30 if len(layers) > 5 else 0)
        axes.legend()

    return draw_picture(
        key,
        "Error of the hidden states, layer by layer",
        "||candidate - reference|| / ||reference||, mean over positions. Errors add up from layer to layer; look at a jump.",
        ("layer", *values),
        [(layer, *(line[i] for line in values.values())) for i, layer in enumerate(layers)],
        draw,
    )


def _bound(axes: Axes, record: Record) -> None:
    if record["bound"]:
        axes.axhline(record["bound"], color=INK, lw=1.2)
