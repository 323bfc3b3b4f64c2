"""A campaign's matrix, fault against check, from the JSON of ``npuconf faults``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_npuconf.errors import SettingsError
from pytest_npuconf.precisions import SHORT
from pytest_npuconf.report.run import name_of
from pytest_npuconf.report.strict_json import read_json

AGAIN = "npuconf faults --model NAME --json FILE writes one"
MOST_ROWS = 300


@dataclass(frozen=True)
class FaultRow:
    """``cells``: by column the precisions at which the check failed (``caught``) or was inconclusive (``unsure``)."""

    name: str
    description: str
    outcome: str
    benign: bool
    module: str
    cells: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class FaultMatrix:
    """``columns``: the checks that caught something; ``rows``: every fault and benign variant."""

    model: str
    labels: tuple[str, ...]
    command: str
    when: str
    complete: bool
    columns: tuple[str, ...]
    rows: tuple[FaultRow, ...]
    summary: Mapping[str, int]
    total: int


def read_matrix(path: Path) -> FaultMatrix:
    """The matrix of a file.

    Raises:
        SettingsError: it cannot be read, or is not what ``npuconf faults`` writes.
    """
    try:
        told = read_json(path.read_bytes())
        return _matrix(told)
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error}", mend=AGAIN) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        said = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise SettingsError(f"{path} is not the JSON of a campaign: {said}", mend=AGAIN) from error


def _matrix(told: Mapping[str, Any]) -> FaultMatrix:
    faults = told["faults"]
    judged = [run for fault in faults for run in fault["runs"].values() if run.get("status") == "judged"]
    columns = sorted({name_of(check) for run in judged for kind in ("failed", "inconclusive") for check in run[kind]})
    return FaultMatrix(
        str(told["model"]),
        tuple(map(str, told["labels"])),
        str(told["command"]),
        _when(told),
        bool(told.get("complete", False)),
        tuple(columns),
        tuple(_row(fault, columns) for fault in faults[:MOST_ROWS]),
        {name: int(count) for name, count in told["summary"]["overall"].items() if count},
        len(faults),
    )


def _when(told: Mapping[str, Any]) -> str:
    """Time and device of the campaign."""
    facts = told.get("facts", {})
    return ", ".join(
        filter(None, (str(told.get("time", "")), facts.get("device", ""), facts.get("device_description", "")))
    )


def _short(precision: str) -> str:
    """As in the names of checks: ``bf16`` of ``bfloat16``; another word as it is."""
    return SHORT.get(precision, precision)


def _row(fault: Mapping[str, Any], columns: list[str]) -> FaultRow:
    runs = {p: run for p, run in fault["runs"].items() if run.get("status") == "judged"}
    cells = []
    for column in columns:
        caught = [_short(p) for p, run in runs.items() if any(name_of(check) == column for check in run["failed"])]
        unsure = [
            _short(p) for p, run in runs.items() if any(name_of(check) == column for check in run["inconclusive"])
        ]
        cells.append(("caught", ", ".join(caught)) if caught else ("unsure", ", ".join(unsure)) if unsure else ("", ""))
    guilty = next((str(name) for run in runs.values() for name in run.get("guilty", [])), "")
    return FaultRow(
        str(fault["name"]),
        str(fault["description"]),
        str(fault["outcome"]),
        bool(fault["benign"]),
        guilty,
        tuple(cells),
    )
