"""From the results of a comparison to docs/comparison.md: a section for each model, between its markers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_npuconf.errors import SettingsError

PAGE = Path(__file__).resolve().parents[3] / "docs" / "comparison.md"
OURS = "npuconf"
# key of results: heading
TOOLS = {
    OURS: "this suite",
    "mem-agent": "card 000",
    "reranker": "card 003",
    "models-agree": "pytest-torch, top-1",
    "matches-reference": "pytest-torch, close",
    "vllm": "vLLM's tests",
    "ppl": "PPL 1 %",
    "msprobe-result": "msprobe, Result",
    "msprobe-accuracy": "msprobe, Accuracy",
}
SHORT = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
NOTHING, UNKNOWN = "·", "?"
Data = Mapping[str, Any]


def with_ours(data: dict[str, Any], matrix: Data) -> dict[str, Any]:
    """``data`` with this suite's verdicts, from the JSON of ``npuconf faults``.

    Raises:
        SettingsError: it is of another model, or lacks a fault.
    """
    if matrix["model"] != data["model"]:
        raise SettingsError(f"the matrix is of {matrix['model']}, the comparison of {data['model']}")
    clean = {"name": "", "benign": True, "runs": matrix["clean"]}
    entries = {entry["name"]: entry for entry in [clean, *matrix["faults"]]}
    for fault in data["faults"]:
        if all(run["status"] == "not run" for run in fault["runs"].values()):
            continue
        if fault["name"] not in entries:
            raise SettingsError(
                f"the matrix lacks {fault['name']!r}", mend=f"npuconf faults --model {data['model']} --json FILE"
            )
        for dtype, run in fault["runs"].items():
            if run["status"] == "judged":
                run["verdicts"][OURS] = _ours(entries[fault["name"]]["runs"].get(dtype, {}), fault["benign"])
    data["ours"] = {key: matrix[key] for key in ("time", "wall_seconds", "left_out")}
    return data


def _ours(run: Data, benign: bool) -> dict[str, Any]:
    """As the campaign counts: a fault is caught by a failed required check; a benign variant may not even be inconclusive."""
    if run.get("status") != "judged":
        return {"objects": None, "says": run.get("status", "not run")}
    bad = [*run["failed"], *(run["inconclusive"] if benign else ())]
    return {"objects": bool(bad), "says": ", ".join(bad) or "conformant"}


def kind_of(fault: Data) -> str:
    """``fault``, ``benign`` (the healthy model too) or ``equivalent``."""
    return "benign" if fault["benign"] else "equivalent" if fault["equivalent"] else "fault"


def objections(fault: Data, tool: str) -> dict[str, bool | None]:
    """By dtype at which the fault applies: whether the tool objects, None where it was not run."""
    return {
        dtype: run["verdicts"].get(tool, {}).get("objects")
        for dtype, run in fault["runs"].items()
        if run["status"] == "judged"
    }


def cell(fault: Data, tool: str) -> str:
    """The dtypes at which the tool objects."""
    found = objections(fault, tool)
    said = [SHORT[dtype] for dtype, objects in found.items() if objects]
    said += [f"{SHORT[dtype]}{UNKNOWN}" for dtype, objects in found.items() if objects is None]
    return " ".join(said) or NOTHING


def totals(data: Data) -> dict[str, dict[str, tuple[int, int]]]:
    """By tool: ``caught`` and ``alarms`` at each dtype and over all, each as (objections, runs or faults)."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    for tool in TOOLS:
        counts = found[tool] = {}
        for kind in ("fault", "benign"):
            each = [objections(f, tool) for f in data["faults"] if kind_of(f) == kind]
            each = [known for o in each if (known := {d: x for d, x in o.items() if x is not None})]
            for dtype in data["precisions"]:
                here = [o[dtype] for o in each if dtype in o]
                counts[f"{kind} {dtype}"] = sum(here), len(here)
            counts[f"{kind} all"] = sum(True in o.values() for o in each), len(each)
    return found


def missed(data: Data) -> dict[str, list[str]]:
    """By tool: faults that it catches at a dtype at which this suite does not, as ``name (dtype)``."""
    found: dict[str, list[str]] = {}
    for fault in data["faults"]:
        ours = objections(fault, OURS)
        for tool in TOOLS:
            for dtype, objects in objections(fault, tool).items():
                if kind_of(fault) == "fault" and objects and ours.get(dtype) is False:
                    found.setdefault(tool, []).append(f"`{fault['name']}` ({SHORT[dtype]})")
    return found


def section(data: Data) -> str:
    """The text between a model's markers."""
    lines = [*_provenance(data), "", *_totals_table(data), ""]
    headings = {
        "fault": ("Faults: the dtypes at which the tool objects", "fault"),
        "benign": ("Benign variants: each entry is a false alarm", "variant"),
        "equivalent": ("Faults that change nothing (the proof is in the catalogue): counted in neither", "fault"),
    }
    for kind, (title, first) in headings.items():
        chosen = [fault for fault in data["faults"] if kind_of(fault) == kind]
        if chosen:
            lines += [f"### {title}", "", *_fault_table(chosen, first), ""]
    lines += ["### Caught by another tool and not by this suite", ""]
    others = [f"- {TOOLS[tool]}: {', '.join(names)}" for tool, names in missed(data).items()]
    none = "Nothing in this run." if data.get("ours") else "This suite's verdicts are not in this run."
    return "\n".join([*lines, *(others or [none])])


def _provenance(data: Data) -> list[str]:
    facts, ours = data["facts"], data.get("ours")
    seconds = sum(run.get("seconds", 0.0) for fault in data["faults"] for run in fault["runs"].values())
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    run = [f for f in data["faults"] if any(r["status"] != "not run" for r in f["runs"].values())]
    count, dtypes = f"{len(run)} of {len(data['faults'])}", ", ".join(data["precisions"])
    lines = [
        f"Run of {data['time']}: {versions}; {facts['machine']}, {facts['threads']} thread(s).",
        f"`{data['command']}`: {count} candidates at {dtypes}, {seconds:.0f} s for the other tools.",
    ]
    if ours:
        command = " ".join([f"npuconf faults --model {data['model']}", *(f"--leave-out {c}" for c in ours["left_out"])])
        lines.append(f"This suite's verdicts: `{command}`, {ours['time']}, {ours['wall_seconds']:.0f} s.")
    return lines


def _totals_table(data: Data) -> list[str]:
    columns = [*data["precisions"], "all"]
    heads = [f"faults caught, {SHORT.get(c, 'either')}" for c in columns]
    heads += [f"false alarms, {SHORT.get(c, 'either')}" for c in columns]
    lines = [f"| tool | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]
    for tool, counts in totals(data).items():
        cells = [
            f"{a} of {n}" if n else UNKNOWN
            for kind in ("fault", "benign")
            for a, n in (counts[f"{kind} {c}"] for c in columns)
        ]
        lines.append(f"| {TOOLS[tool]} | {' | '.join(cells)} |")
    return lines


def _fault_table(faults: Sequence[Data], first: str) -> list[str]:
    lines = [f"| {first} | {' | '.join(TOOLS.values())} |", f"|---|{'---|' * len(TOOLS)}"]
    for fault in faults:
        name = f"`{fault['name']}`" if fault["name"] else "the healthy model"
        where = [SHORT[dtype] for dtype, run in fault["runs"].items() if run["status"] == "judged"]
        if not where:
            why = "does not apply" if any(r["status"] == "inapplicable" for r in fault["runs"].values()) else "not run"
            lines.append(f"| {name} ({why}) |{' |' * len(TOOLS)}")
            continue
        only = "" if len(where) == len(fault["runs"]) else f" ({', '.join(where)} only)"
        lines.append(f"| {name}{only} | {' | '.join(cell(fault, tool) for tool in TOOLS)} |")
    return lines


def markers(model: str) -> tuple[str, str]:
    """Lines around a model's section."""
    return f"<!-- {model}: written by tests.benchmarks.gates_compared -->", f"<!-- end of {model} -->"


def section_of(text: str, model: str) -> str:
    """The section of a model as it stands in the page.

    Raises:
        SettingsError: the page has no such markers.
    """
    start, end = markers(model)
    found = re.search(f"{re.escape(start)}\n(.*?)\n{re.escape(end)}", text, re.S)
    if found is None:
        raise SettingsError(f"{PAGE.name} has no section of {model}", mend=f"put these lines in:\n{start}\n\n{end}")
    return found.group(1)


def write(data: Data, read: Callable[[], str] = lambda: PAGE.read_text(encoding="utf-8")) -> str:
    """The page with this model's section replaced."""
    text, (start, end) = read(), markers(data["model"])
    section_of(text, data["model"])
    before, rest = text.split(f"{start}\n", 1)
    return f"{before}{start}\n{section(data)}\n{end}{rest.split(end, 1)[1]}"
