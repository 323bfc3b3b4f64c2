"""docs/detection.md and its picture, from tests/data/detection.json. ``python -m tests.benchmarks.detection_page``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data" / "detection.json"
PAGE = ROOT / "docs" / "detection.md"
PICTURE = ROOT / "docs" / "detection.svg"
UNITS = {
    "attention-scale-2%": "scale x (1 + m)",
    "rope-base": "base x (1 + m)",
    "dead-weight-row": "zero rows of 512 of one up_proj; below 1, a part of one row",
    "accumulate-bf16": "relative rounding of each partial sum",
    "int8-scale": "scale of one tensor x (1 + m)",
}
COLOURS = {
    "bfloat16": "#0072b2",
    "float16": "#d55e00",
    "float32": "#009e73",
}  # Okabe and Ito's, told apart without colour too
MARKERS = {"bfloat16": "o", "float16": "s", "float32": "^"}


def smallest(points: list[dict[str, Any]]) -> str:
    """The smallest magnitude from which on every one is caught."""
    judged = [p for p in points if p["status"] == "judged"]
    if not judged:
        return "does not apply"
    caught = None
    for point in reversed(judged):
        if not point["caught"]:
            break
        caught = point
    if caught is None:
        return f"none up to {judged[-1]['magnitude']:g}"
    return f"{'all tried, from ' if caught is judged[0] else ''}{caught['magnitude']:g}"


def first_by(points: list[dict[str, Any]]) -> str:
    """The checks that catch the smallest one."""
    judged = [p for p in points if p["status"] == "judged" and p["caught"]]
    return ", ".join(sorted({check.rpartition(".")[0] for check in judged[0]["caught"]})) if judged else "-"


def table(data: dict[str, Any]) -> str:
    """Markdown: a row for each fault."""
    precisions = [p for p in COLOURS if any(p in found for found in data["faults"].values())]
    lines = [
        "| fault | magnitude m | "
        + " | ".join(f"caught from, {p}" for p in precisions)
        + " | first caught by, bfloat16 |",
        "|---|---|" + "---|" * (len(precisions) + 1),
    ]
    for name in (name for name in UNITS if name in data["faults"]):
        by_precision = data["faults"][name]
        cells = [smallest(by_precision.get(p, [])) for p in precisions]
        lines.append(f"| {name} | {UNITS[name]} | {' | '.join(cells)} | {first_by(by_precision.get('bfloat16', []))} |")
    return "\n".join(lines)


def page(data: dict[str, Any]) -> str:
    """The whole page."""
    facts = ", ".join(f"{key} {value}" for key, value in sorted(data["facts"].items()))
    return f"""# Detection against magnitude

How small a defect is still caught? Each of these faults was injected at growing magnitude into {data["model"]}
({", ".join(data["labels"])}) and judged by the shipped gates, without those that need a batch or a cache.
Run of {data["time"]} by `make detection` ({facts}).

{table(data)}

*Caught from* m: this magnitude and every larger one that was tried fails a required check. The next smaller one that was tried does
not; the magnitudes that were tried are those of the catalogue ([faults.md](faults.md)).

![Largest figure over its bound against magnitude, for each fault and dtype](detection.svg)

The picture has, for each run, the largest figure of a required check over that check's bound: above 1 a gate fails or, where an
interval straddles the bound, is inconclusive. Filled markers were caught, hollow ones were not.

What this shows and what it does not: a defect below these sizes is within what rounding alone does on this model, or hides where
no text looks. Another model has other sizes; `make detection` is about this one.
"""


def draw(data: dict[str, Any], path: Path) -> None:
    """One panel for each fault."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "npuconf", "svg.fonttype": "none", "font.size": 8})
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(data["faults"]), figsize=(3 * len(data["faults"]), 3), sharey=True)
    for axis, name in zip(axes, UNITS, strict=True):
        for precision in COLOURS:
            points = data["faults"][name][precision]
            judged = [p for p in points if p["status"] == "judged"]
            xs = [p["magnitude"] for p in judged]
            ys = [max((v for v in p["over"].values() if v is not None), default=1e6) for p in judged]
            colour, marker = COLOURS[precision], MARKERS[precision]
            axis.plot(xs, ys, color=colour, linewidth=1, label=precision)
            for x, y, point in zip(xs, ys, judged, strict=True):
                axis.plot(x, y, marker, color=colour, markersize=5, fillstyle="full" if point["caught"] else "none")
        axis.axhline(1, color="0.4", linestyle="--", linewidth=1)
        axis.set(title=name, xscale="log", yscale="log", xlabel=UNITS[name])
        axis.xaxis.label.set_size(6)
    axes[0].set_ylabel("largest figure / bound")
    axes[0].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def write(data: dict[str, Any]) -> None:
    """Page and picture."""
    PAGE.write_text(page(data), encoding="utf-8")
    draw(data, PICTURE)


if __name__ == "__main__":
    write(json.loads(DATA.read_text(encoding="utf-8")))
