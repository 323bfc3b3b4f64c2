"""The matrix as text and as JSON."""

from __future__ import annotations

import json
import string
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_npuconf.campaign.matrix import Entry, Matrix, check_of, outcome
from pytest_npuconf.errors import SettingsError
from pytest_npuconf.files import write_atomically

SCHEMA_VERSION = 1
# failed, inconclusive, passed, did not run to a verdict
MARKS = {"fail": "X", "inconclusive": "?", "pass": "."}
NOTHING = " "
LETTERS = string.ascii_lowercase + string.ascii_uppercase


def write(path: Path, matrix: Matrix) -> None:
    """Write the matrix as JSON, sorted keys, whole or not at all. docs/faults.md documents it.

    Raises:
        SettingsError: the file cannot be written.
    """
    text = json.dumps(
        {"schema_version": SCHEMA_VERSION, **matrix}, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False
    )
    try:
        write_atomically(path, f"{text}\n".encode())
    except OSError as error:
        raise SettingsError(f"--json {path}: {error}", mend="--json FILE in a folder you can write to") from error


def text(matrix: Matrix) -> str:
    """The whole report."""
    parts = [_head(matrix), *_legend(matrix), *_table(matrix)]
    for title, lines in (
        ("survivors: not caught, or not wherever they must be", _survivors(matrix)),
        ("equivalent: nothing caught them, and why nothing can", _named(matrix, "equivalent", "equivalent")),
        (
            "refuted: caught, although the catalogue proves that nothing can; the proof is wrong, or the gate",
            _named(matrix, "refuted", "equivalent"),
        ),
        ("false alarms: benign variants that a required check objects to", _false_alarms(matrix)),
        ("do not apply to this model", _inapplicable(matrix)),
        ("ended in an error, which catches nothing", _errors(matrix)),
        ("not run", _named(matrix, "not run")),
        ("caught, but by none of the checks that were expected to", _unexpected(matrix)),
        ("another module was named than the guilty one", _wrong_modules(matrix)),
        ("reached the next run", list(matrix.get("leaks", []))),
        (
            "not looked for whether these reached the next run: their processes ended before",
            _names(matrix.get("not_looked_after", [])),
        ),
        ("caught by this gate alone", _alone(matrix)),
    ):
        parts += ["", f"{title}:", *(f"  {line}" for line in lines)] if lines else []
    return "\n".join([*parts, "", *_summary(matrix)])


def _head(matrix: Matrix) -> str:
    labels = f" [{', '.join(matrix['labels'])}]" if matrix.get("labels") else ""
    return f"faults of {matrix.get('model', '')}{labels}: {len(matrix['faults'])} x {', '.join(matrix['precisions'])}"


def _legend(matrix: Matrix) -> list[str]:
    """A letter for each required check; columns of one precision are together."""
    lines = ["", "checks (X failed, ? inconclusive, . passed, blank: no verdict)"]
    for precision, letters in _letters(matrix).items():
        lines += [f"  {letter}  {check}" for check, letter in letters.items()] or [f"  {precision}: none ran"]
    left = matrix.get("left_out")
    return [*lines, f"  left out: {', '.join(left)}"] if left else lines


def _letters(matrix: Matrix) -> dict[str, dict[str, str]]:
    pool = iter(LETTERS * 4)
    return {p: {check: next(pool) for check in matrix["checks"][p]} for p in matrix["precisions"]}


def _table(matrix: Matrix) -> list[str]:
    letters = _letters(matrix)
    width = max([len("(clean)"), *(len(entry["name"]) for entry in matrix["faults"])])
    columns = {p: max(len(letters[p]), len(p)) for p in letters}
    head = "  ".join(f"{p:<{columns[p]}}" for p in letters)
    named = "  ".join(f"{''.join(letters[p].values()):<{columns[p]}}" for p in letters)
    lines = ["", f"{'':<{width}}  {head}", f"{'fault':<{width}}  {named}  outcome"]
    rows = [("(clean)", matrix["clean"], matrix["clean_outcome"], ""), *map(_row, matrix["faults"])]
    for name, runs, found, module in rows:
        cells = "  ".join(f"{_cell(runs[p], letters[p]):<{columns[p]}}" for p in letters)
        lines.append(f"{name:<{width}}  {cells}  {found}{module}".rstrip())
    return lines


def _row(entry: Entry) -> tuple[str, Mapping[str, Any], str, str]:
    names = list(dict.fromkeys(name for run in entry["runs"].values() for name in run.get("guilty", [])))
    where = f", in {' and '.join(names)}" if names else ""
    right = f" ({entry['located']})" if entry["located"] and entry["outcome"] == "caught" else ""
    return entry["name"], entry["runs"], entry["outcome"], where + right


def _cell(run: Mapping[str, Any], letters: Mapping[str, str]) -> str:
    if run["status"] != "judged":
        short: str = {"inapplicable": "n/a", "not run": "-"}.get(run["status"], run["status"])
        return short[: max(3, len(letters))]
    checks = run["checks"]
    return "".join(MARKS.get(checks[check]["verdict"], NOTHING) if check in checks else NOTHING for check in letters)


def _survivors(matrix: Matrix) -> list[str]:
    """With the precisions at which they were caught all the same."""
    lines = []
    for e in matrix["faults"]:
        if e["outcome"] == "survived":
            at = [p for p, run in e["runs"].items() if run.get("failed")]
            lines.append(f"{e['name']}: {e['description']}" + (f" (caught at {', '.join(at)} alone)" if at else ""))
    return lines


def _names(names: Sequence[str]) -> list[str]:
    return textwrap.wrap(", ".join(names), 120)


def _named(matrix: Matrix, wanted: str, why: str = "description") -> list[str]:
    return [f"{e['name']}: {e[why]}" for e in matrix["faults"] if e["outcome"] == wanted]


def _false_alarms(matrix: Matrix) -> list[str]:
    rows = [("(clean)", matrix["clean"], matrix["clean_outcome"])]
    rows += [(e["name"], e["runs"], e["outcome"]) for e in matrix["faults"]]
    lines = []
    for name, runs, found in rows:
        if found == "false alarm":
            told = [f"{c} {_figure(r['checks'][c])}" for r in runs.values() for c in _objections(r)]
            lines.append(f"{name}: {'; '.join(told)}")
    return lines


def _objections(run: Mapping[str, Any]) -> list[str]:
    return [*run.get("failed", []), *run.get("inconclusive", [])]


def _figure(found: Mapping[str, Any]) -> str:
    if found["broken"]:
        return f"{found['verdict']}: {found['broken']}"
    return f"{found['verdict']}: {found['value']:.4g}, gate {found['sense']} {found['bound']:g}"


def _inapplicable(matrix: Matrix) -> list[str]:
    """A line for each reason: a whole catalogue may be another engine's."""
    names: dict[str, dict[str, None]] = {}
    for e in matrix["faults"]:
        for p, run in e["runs"].items():
            if run["status"] == "inapplicable":
                name = e["name"] if e["outcome"] == "inapplicable" else f"{e['name']} at {p}"
                names.setdefault(run["reason"], {})[name] = None
    return [f"{', '.join(found)}: {reason}" for reason, found in names.items()]


def _errors(matrix: Matrix) -> list[str]:
    lines = []
    for name, runs in [("(clean)", matrix["clean"]), *((e["name"], e["runs"]) for e in matrix["faults"])]:
        for precision, run in runs.items():
            if run["status"] == "error":
                said = run.get("text", "").strip().splitlines()
                lines += [f"{name} at {precision}: {run.get('kind', '')}", *(f"    {line}" for line in said[-12:])]
            elif run.get("errors"):
                (test, why), *more = run["errors"].items()
                others = f" and {len(more)} more" if more else ""
                lines.append(f"{name} at {precision}: {test}{others}: {why}")
    return lines


def _unexpected(matrix: Matrix) -> list[str]:
    lines = []
    for e in matrix["faults"]:
        caught = sorted({check_of(check) for run in e["runs"].values() for check in run.get("failed", [])})
        if e["outcome"] == "caught" and not any(name in e["expected"] for name in caught):
            lines.append(f"{e['name']}: by {', '.join(caught)}; expected {e['expected']}")
    return lines


def _wrong_modules(matrix: Matrix) -> list[str]:
    return [
        f"{e['name']}: {p} named {', '.join(run['guilty'])}, the guilty one is {e['module']}"
        for e in matrix["faults"]
        for p, run in e["runs"].items()
        if run.get("located") == "wrong"
    ]


def _alone(matrix: Matrix) -> list[str]:
    """Over all precisions, then as if only one had been run."""
    width = max([0, *map(len, matrix["alone"]["overall"])])
    lines = [f"{name:<{width}}  {', '.join(faults) or '-'}" for name, faults in matrix["alone"]["overall"].items()]
    for precision in matrix["precisions"] if len(matrix["precisions"]) > 1 else ():
        found = [(name, faults) for name, faults in matrix["alone"][precision].items() if faults]
        lines += [f"at {precision} alone:"] if found else []
        lines += [f"  {name:<{width}}  {', '.join(faults)}" for name, faults in found]
    return lines


def _summary(matrix: Matrix) -> list[str]:
    lines = []
    for where, counts in matrix["summary"].items():
        wanted, caught = counts["to be caught"], counts["caught"]
        share = f" ({caught / wanted:.0%})" if wanted else ""
        rest = [f"{counts[name]} {_plural(name, counts[name])}" for name in _TOLD if counts[name]]
        named = sum(counts[f"located {word}"] for word in ("right", "wrong", "unnamed"))
        rest += [f"module right in {counts['located right']} of {named}"] if named else []
        lines.append(f"{where}: {caught} of {wanted} caught{share}" + "".join(f", {part}" for part in rest))
    clean = matrix["clean_outcome"]
    return [
        *lines,
        *([f"the clean model itself: {clean}; until it is quiet, no line above counts"] if clean != "quiet" else []),
    ]


_TOLD = ("survived", "false alarm", "refuted", "quiet", "equivalent", "inapplicable", "error", "not run")


def _plural(name: str, count: int) -> str:
    return {
        "survived": "survived",
        "false alarm": "false alarm" if count == 1 else "false alarms",
        "quiet": "benign and quiet",
        "equivalent": "equivalent",
        "inapplicable": "not of this model",
        "error": "in error",
    }.get(name, name)


def told(result: Mapping[str, Any], entry: Entry) -> str:
    """What one run came to, for the progress line."""
    run = entry["runs"][result["precision"]]
    if run["status"] == "inapplicable":
        return f"does not apply: {run['reason']}"
    if run["status"] == "error":
        lines = run.get("text", "").strip().splitlines() or [""]
        return f"ERROR ({run['kind']}): {lines[-1][:160]}"
    found: str = outcome(entry, precisions=(result["precision"],))
    checks = run["failed"] if not entry["benign"] else _objections(run)
    return found + (f" by {', '.join(checks[:3])}{' ...' if len(checks) > 3 else ''}" if checks else "")
