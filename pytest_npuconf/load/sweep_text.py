"""A sweep as it is printed."""

from __future__ import annotations

from typing import Any


def text(told: dict[str, Any]) -> str:
    """A line for each concurrency, then the knee, failures and doubts."""
    shape = told["shape"]
    lines = [f"{told['model']} at {told['endpoint']}: {shape['input_len']} tokens in, {shape['output_len']} out",
             "  at once    tokens/s   TTFT ms   TPOT ms" + ("   goodput/s   share" if told["slo"] else "")]  # fmt: skip
    lines += [_point(point) for point in told["points"]]
    knee = told["knee"]
    unmeasured = [p for p in told["points"] if "output_tokens_per_second" not in p["aggregates"]]
    beyond = "not reached; throughput still grows at the largest concurrency"
    if unmeasured:
        beyond = "unknown; not every point has a throughput"
    lines.append(f"  knee: {knee} at once gives 95 % of the largest throughput" if knee else f"  knee: {beyond}")
    for point in told["points"]:
        lines += [
            f"  {point['concurrency']} at once: {count} failed: {kind}" for kind, count in point["failures"].items()
        ]
        lines += [f"  {point['concurrency']} at once: doubt: {doubt}" for doubt in point["doubts"]]
    return "\n".join([*lines, *(f"  doubt: {doubt}" for doubt in told["doubts"])])


def _point(point: dict[str, Any]) -> str:
    aggregates = point["aggregates"]
    rate, good = aggregates.get("output_tokens_per_second"), point["goodput"]
    means = [aggregates[name]["mean"] if name in aggregates else None for name in ("ttft", "tpot")]
    cells = [f"  {point['concurrency']:>7}", _cell(rate, 11), *(_cell(mean, 9) for mean in means)]
    if good is not None:
        cells += [_cell(good["requests_per_second"], 11), f"{good['share']:>7.1%}"]
    return " ".join(cells)


def _cell(value: float | None, width: int) -> str:
    return f"{'-' if value is None else format(value, '.2f'):>{width}}"
