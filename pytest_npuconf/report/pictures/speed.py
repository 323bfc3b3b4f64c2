"""Pictures of the checks of speed and of a server's memory, each from one record of results.json."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_npuconf.records import Record
from pytest_npuconf.report.pictures.drawing import (
    BAD,
    FIRST,
    INK,
    MUTED,
    SECOND,
    Picture,
    draw_picture,
    for_page,
)
from pytest_npuconf.report.pictures.load import against_concurrency

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def rounds(key: str, record: Record) -> Picture | None:
    """Output throughput of each round, and their median."""
    figures: dict[str, Any] = record["data"].get("figures") or {}
    found = figures.get("output_tokens_per_second")
    if not found:
        return None
    values = found["rounds"]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot(range(1, len(values) + 1), values, "o", color=FIRST, ls="")
        axes.axhline(found["median"], color=INK, lw=1.2, ls="--")
        axes.set(xlabel="round", ylabel="output tokens/s", ylim=(0, 1.15 * max(values)))
        axes.locator_params("x", integer=True)

    others = [(name, each) for name, each in figures.items() if each is not found]
    return draw_picture(
        key,
        f"Throughput of each round, {record['check']}",
        "Dashed: the median. Rounds that lie far apart say that the host had other work, or that the device changed its clock.",
        ("figure", "median", "unit", *(f"round {i}" for i in range(1, len(values) + 1))),
        [(name, each["median"], each["unit"], *each["rounds"]) for name, each in [("output tokens", found), *others]],
        draw,
        height=2.6,
    )


def steady(key: str, record: Record) -> Picture | None:
    """Output throughput over the long run."""
    rates = record["data"].get("rates")
    if not rates:
        return None
    window = record["data"]["window_seconds"]
    times = [(i + 0.5) * window for i in range(len(rates))]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot(times, rates, "o-", color=FIRST, ms=3)
        axes.set(xlabel="time since the beginning (s)", ylabel="output tokens/s", ylim=(0, 1.15 * max(rates)))

    return draw_picture(
        key,
        f"Throughput over the long run, {record['check']}",
        f"Each point is {window:.3g} s. A device that throttles falls and stays down.",
        ("seconds", "output tokens/s"),
        list(zip(times, rates, strict=True)),
        draw,
        height=2.6,
    )


def memory(key: str, record: Record) -> Picture | None:
    """Memory that the server holds against the requests that it has answered."""
    held, requests = record["data"].get("held"), record["data"].get("requests")
    if not held or not requests:
        return None
    mib = [each / 2**20 for each in held]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot(requests, mib, "o-", color=FIRST, ms=4)
        axes.set(xlabel="requests answered", ylabel="held (MiB)")

    return draw_picture(
        key,
        f"Memory of the server, {record['check']}",
        "A leak grows with the requests; the check judges the growth per request over the last two thirds.",
        ("requests", "MiB"),
        list(zip(requests, mib, strict=True)),
        draw,
        height=2.6,
    )


def sweep(key: str, record: Record) -> Picture | None:
    """Throughput, TTFT and TPOT against the requests at once."""
    told = record["data"].get("sweep")
    if not told or not told.get("points"):
        return None
    svg = against_concurrency(told, ", ".join(record["labels"])).decode()
    rows = []
    for point in told["points"]:
        found = point["aggregates"]
        means = [(found.get(name) or {}).get("mean") for name in ("ttft", "tpot", "latency")]
        rows.append([point["concurrency"], found.get("output_tokens_per_second"), *means, point["verdict"]])
    return Picture(
        key,
        f"Load, {record['check']}",
        "More at once gives more throughput until the knee; beyond it requests only wait longer. Hollow: that point is not valid.",
        for_page(svg, key),
        ("at once", "output tokens/s", "TTFT (ms)", "TPOT (ms)", "latency (ms)", "verdict"),
        tuple(
            tuple("–" if cell is None else str(cell) if isinstance(cell, str) else f"{cell:.4g}" for cell in row)
            for row in rows
        ),
    )


def capacity(key: str, record: Record) -> Picture | None:
    """Tokens of the KV cache, as the server says and as the configuration gives."""
    expected, reported = record["data"].get("expected") or {}, record["data"].get("reported") or {}
    rows = [
        (word, reported.get(theirs), expected.get(ours))
        for word, theirs, ours in (
            ("KV tokens", "kv_tokens", "tokens"),
            ("blocks", "kv_blocks", "blocks"),
            ("whole requests at once", "concurrency", "concurrency"),
        )
        if reported.get(theirs) is not None and expected.get(ours) is not None
    ]
    if not rows:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for place, (_, theirs, ours) in enumerate(reversed(rows)):
            share = theirs / ours if ours else 0.0
            axes.barh(place, share, height=0.5, color=FIRST if abs(share - 1) < 0.01 else BAD)
            axes.text(max(share, 1) + 0.03, place, f"{theirs:,.6g} of {ours:,.6g}", va="center")
        axes.axvline(1, color=INK, lw=1.2)
        axes.set(
            xlabel="what the server says / what the configuration gives",
            xlim=(0, max(1.0, *(theirs / ours for _, theirs, ours in rows if ours)) * 1.6),
            yticks=range(len(rows)),
        )
        axes.set_yticklabels([word for word, *_ in reversed(rows)])

    return draw_picture(
        key,
        f"Capacity of the KV cache, {record['check']}",
        "From layers, key-value heads, head_dim and bytes of the dtype; a server that says something else counts another cache.",
        ("what", "the server says", "the configuration gives"),
        rows,
        draw,
        height=2.0,
    )


def physics(key: str, record: Record) -> Picture | None:
    """Measured TPOT beside the least that the memory's bandwidth allows."""
    least, found = record["data"].get("least_tpot_ms") or {}, record["data"].get("tpot_ms") or {}
    rows = [(name, found[name], least[name]) for name in found if found[name] and least.get(name)]
    if not rows:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for place, (_, measured, floor) in enumerate(reversed(rows)):
            axes.plot([floor, measured], [place, place], color=MUTED, lw=1.5)
            axes.plot(floor, place, "|", color=INK, ms=16, mew=2)
            axes.plot(measured, place, "o", color=SECOND)
            axes.text(measured, place + 0.18, f"{floor / measured:.1%}", ha="center")
        axes.set(xscale="log", xlabel="TPOT (ms)", yticks=range(len(rows)), ylim=(-0.5, len(rows) - 0.3))
        axes.xaxis.set_major_formatter("{x:.4g}")
        axes.xaxis.set_minor_formatter("")
        axes.set_yticklabels([name for name, *_ in reversed(rows)])

    return draw_picture(
        key,
        f"TPOT against the memory's floor, {record['check']}",
        "The bar is what a step must read (of one request at a time its KV cache too) over the bandwidth measured here: "
        "only speculative decoding or a cache lies left of it. The share is the "
        "roofline efficiency, which can be compared between devices.",
        ("load", "TPOT (ms)", "floor (ms)"),
        rows,
        draw,
        height=2.0,
    )
