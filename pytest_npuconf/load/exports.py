"""A run of load for other tools: OpenMetrics text and Bencher's metric format."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

LATENCIES = ("ttft", "ttft_intended", "tpot", "itl", "latency", "latency_intended")
RATES = ("output_tokens_per_second", "requests_per_second")


def as_openmetrics(told: Mapping[str, Any]) -> str:
    """Gauges in base units (seconds), one family for each figure, with the shape as labels; ends with ``# EOF``.

    https://prometheus.io/docs/specs/om/open_metrics_spec/ (names, escapes, the end). A figure that was not measured is not there.
    """
    labels = {"model": told["model"], **{k: told["shape"][k] for k in ("concurrency", "input_len", "output_len")}}
    labels |= {"loop": "open" if told["shape"]["rate"] else "closed", "verdict": told["verdict"]}
    lines: list[str] = []
    for name in LATENCIES:
        found = told["aggregates"].get(name)
        if found is not None:
            lines += [f"# TYPE npuconf_{name}_seconds gauge", f"# UNIT npuconf_{name}_seconds seconds"]
            lines += [_sample(f"npuconf_{name}_seconds", {**labels, "stat": s}, ms / 1e3) for s, ms in _stats(found)]
    for name in RATES:
        if name in told["aggregates"]:
            lines += [f"# TYPE npuconf_{name} gauge", _sample(f"npuconf_{name}", labels, told["aggregates"][name])]
    lines.append("# TYPE npuconf_failed_requests gauge")
    failures = told["failures"] or {"none": 0}
    lines += [_sample("npuconf_failed_requests", {**labels, "kind": kind}, count) for kind, count in failures.items()]
    return "\n".join([*lines, "# EOF", ""])


def as_bencher(told: Mapping[str, Any]) -> str:
    """Bencher Metric Format: benchmark, measure, value with its ends; milliseconds and rates.

    https://bencher.dev/docs/reference/bencher-metric-format/
    """
    shape = told["shape"]
    loop = f"{shape['rate']:g} req/s" if shape["rate"] else f"{shape['concurrency']} at once"
    benchmark = f"{told['model']}, {loop}, {shape['input_len']} in, {shape['output_len']} out"
    measures: dict[str, Any] = {}
    for name in LATENCIES:
        found = told["aggregates"].get(name)
        if found is not None:
            measures[f"{name}_ms"] = _measure(found["mean"], found["mean_interval"])
    measures |= {name: _measure(told["aggregates"][name], None) for name in RATES if name in told["aggregates"]}
    measures["failed_requests"] = _measure(sum(told["failures"].values()), None)
    return json.dumps({benchmark: measures}, indent=1, sort_keys=True)


def _measure(value: float, interval: list[float] | None) -> dict[str, float]:
    return {"value": value} | ({} if interval is None else {"lower_value": interval[0], "upper_value": interval[1]})


def _stats(found: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    yield "mean", found["mean"]
    for name, value in found.items():
        if re.fullmatch(r"p\d+", name):
            yield name, value["value"]


def _sample(name: str, labels: Mapping[str, Any], value: float) -> str:
    def escaped(text: Any) -> str:
        return str(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    written = ",".join(f'{key}="{escaped(text)}"' for key, text in labels.items())
    return f"{name}{{{written}}} {float(value)!r}"
