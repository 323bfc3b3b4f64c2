"""From the results of runs to the matrix fault x check: what caught what, what survived, what was a false alarm. Pure."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

Result = Mapping[str, Any]
Matrix = dict[str, Any]
Entry = dict[str, Any]
MODULES = "modules.noise_ratio"
PAIR = re.compile(r"\.[a-z]+\d+_[a-z]+\d+$")
# What a fault comes to, worst first.
OUTCOMES = ("error", "survived", "false alarm", "refuted", "not run", "equivalent", "inapplicable", "caught", "quiet")
BAD = OUTCOMES[:5]


def build(
    faults: Sequence[Mapping[str, Any]], precisions: Sequence[str], results: Mapping[tuple[str, str], Result]
) -> Matrix:
    """The matrix.

    Args:
        faults: as :func:`pytest_npuconf.campaign.worker.told` gives them.
        results: by name (empty: the clean model) and precision; those that are missing were not run.
    """
    entries = [_entry(fault, precisions, results) for fault in faults]
    clean = {p: _run(results.get(("", p)), "") for p in precisions}
    matrix: Matrix = {
        "precisions": list(precisions),
        "checks": {p: required_of(results.get(("", p))) or _of_any(results, p) for p in precisions},
        "left_out": sorted({name for result in results.values() for name in result.get("left_out", [])}),
        "clean": clean,
        "clean_outcome": _benign_outcome(clean),
        "faults": entries,
    }
    matrix["alone"] = {"overall": alone(matrix), **{p: alone(matrix, (p,)) for p in precisions}}
    matrix["summary"] = _summary(matrix)
    return matrix


def required_of(result: Result | None) -> list[str]:
    """Ids of the required checks that a run made."""
    checks = result.get("checks", {}) if result is not None else {}
    return sorted(check for check, found in checks.items() if found["role"] == "required")


def _of_any(results: Mapping[tuple[str, str], Result], precision: str) -> list[str]:
    return sorted({check for (_, p), result in results.items() if p == precision for check in required_of(result)})


def check_of(identity: str) -> str:
    """The check's name without its pair: ``kl.noise_ratio`` of ``kl.noise_ratio.bf16_fp32``."""
    return PAIR.sub("", identity)


def _entry(fault: Mapping[str, Any], precisions: Sequence[str], results: Mapping[tuple[str, str], Result]) -> Entry:
    plain = {key: value for key, value in fault.items() if key != "identity"}
    runs = {p: _run(results.get((fault["name"], p)), fault["module"]) for p in precisions}
    entry: Entry = {**plain, "runs": runs, "located": _located(runs.values()) if fault["module"] else None}
    return {**entry, "outcome": outcome(entry)}


def _run(result: Result | None, module: str) -> Entry:
    """One cell: ``status`` is ``judged``, ``inapplicable``, ``error`` or ``not run``."""
    if result is None:
        return {"status": "not run"}
    if result["status"] != "judged":
        return {key: result[key] for key in ("status", "reason", "kind", "text", "seconds") if key in result}
    required = {
        c: found for c, found in result["checks"].items() if found["role"] == "required" and not found["waived"]
    }
    guilty = sorted({f["guilty"] for c, f in result["checks"].items() if c.startswith(MODULES) and f.get("guilty")})
    run: Entry = {
        "status": "judged",
        "failed": sorted(c for c, f in required.items() if f["verdict"] == "fail"),
        "inconclusive": sorted(c for c, f in required.items() if f["verdict"] == "inconclusive"),
        "checks": {c: dict(f) for c, f in sorted(result["checks"].items())},
        "guilty": guilty,
        "errors": dict(result.get("errors", {})),
        "seconds": result["seconds"],
    }
    if module and run["failed"]:
        run["located"] = "unnamed" if not guilty else "right" if all(_matches(g, module) for g in guilty) else "wrong"
    return run


def _matches(name: str, pattern: str) -> bool:
    """Of several patterns, separated by spaces or commas, one is enough."""
    return any(fnmatch.fnmatchcase(name, one) for one in pattern.replace(",", " ").split())


def _located(runs: Iterable[Mapping[str, Any]]) -> str:
    """Over the precisions: ``wrong`` where any is, else ``right`` where any is, else ``unnamed``."""
    found = {run.get("located") for run in runs}
    return "wrong" if "wrong" in found else "right" if "right" in found else "unnamed"


def outcome(entry: Entry, without: str = "", precisions: Collection[str] | None = None) -> str:
    """What a fault comes to.

    Args:
        without: the name of a check that is switched off.
        precisions: look only at these; None: at all that were run.
    """
    runs = {p: run for p, run in entry["runs"].items() if precisions is None or p in precisions}
    applied = {p: run for p, run in runs.items() if run["status"] != "inapplicable"}
    if not applied:
        return "inapplicable"
    if entry["benign"]:
        return _benign_outcome(applied)
    caught = {p for p, run in applied.items() if _caught(run, without)}
    if caught and entry["equivalent"]:
        return "refuted"
    wanted = [p for p in entry["precisions"] if p in applied]
    enough = caught.issuperset(wanted) if wanted else bool(caught)
    if enough and not any(applied[p]["status"] in ("error", "not run") for p in wanted):
        return "caught"
    if any(run["status"] == "error" or _half(run) for run in applied.values()):
        return "error"
    if any(run["status"] == "not run" for run in applied.values()):
        return "not run"
    return "equivalent" if entry["equivalent"] else "survived"


def _caught(run: Mapping[str, Any], without: str) -> bool:
    return any(check_of(check) != without for check in run.get("failed", []))


def _half(run: Mapping[str, Any]) -> bool:
    """Judged by some checks while others ended in an error, and nothing caught it: that is no survival."""
    return bool(run.get("errors")) and not run.get("failed")


def _benign_outcome(runs: Mapping[str, Mapping[str, Any]]) -> str:
    if any(run.get("failed") or run.get("inconclusive") for run in runs.values()):
        return "false alarm"
    if any(run["status"] == "error" or run.get("errors") for run in runs.values()):
        return "error"
    return "not run" if any(run["status"] == "not run" for run in runs.values()) else "quiet"


def alone(matrix: Matrix, precisions: Collection[str] | None = None) -> dict[str, list[str]]:
    """For each check, the faults that only it catches: switched off, they would survive. A check with none is dead weight
    as far as this catalogue goes.

    Args:
        precisions: as if only these had been run; None: all.
    """
    names = sorted({check_of(check) for checks in matrix["checks"].values() for check in checks})
    entries = [{**e, "precisions": ()} if precisions else e for e in matrix["faults"] if not e["benign"]]
    caught = [e for e in entries if outcome(e, precisions=precisions) == "caught"]
    return {
        name: [e["name"] for e in caught if outcome(e, without=name, precisions=precisions) != "caught"]
        for name in names
    }


def _summary(matrix: Matrix) -> dict[str, Any]:
    """Counts, overall and by precision alone."""
    counted = {"overall": _counts(matrix["faults"], None)}
    return counted | {p: _counts(matrix["faults"], (p,)) for p in matrix["precisions"]}


def _counts(entries: Sequence[Entry], precisions: Collection[str] | None) -> dict[str, int]:
    found = [(e, outcome({**e, "precisions": ()} if precisions else e, precisions=precisions)) for e in entries]
    counts = {name: sum(o == name for _, o in found) for name in OUTCOMES}
    places = [
        e["located"] if precisions is None else _located(e["runs"][p] for p in precisions)
        for e, o in found
        if e["module"] and o == "caught"
    ]
    located = {f"located {word}": places.count(word) for word in ("right", "wrong", "unnamed")}
    return counts | located | {"to be caught": counts["caught"] + counts["survived"]}


def good(matrix: Matrix) -> bool:
    """No survivor, no false alarm, nothing that ended in an error or was not run, and no fault that reached the next run."""
    outcomes = [matrix["clean_outcome"], *(entry["outcome"] for entry in matrix["faults"])]
    return not any(found in BAD for found in outcomes) and not matrix.get("leaks")
