"""The run that a card is written of: of one model, with at least one record, and none that says CONFORMANT and shows otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_npuconf.audit.output import safe
from pytest_npuconf.conformance import Status
from pytest_npuconf.errors import SettingsError, nearest
from pytest_npuconf.records import Record
from pytest_npuconf.report.reading import AGAIN, read_results
from pytest_npuconf.report.run import Run, run_of


def read_run(path: Path, model: str | None) -> Run:
    """The run of ``model`` in a results.json; without a name, of the only one.

    Raises:
        SettingsError: not a results.json of this schema, or nothing in it to write a card of.
    """
    document = read_results(path)
    chosen = _choose(path, document, model)
    run = run_of(document, chosen)
    if not run.checks:
        raise SettingsError(
            f"{path} has no record of a check of {safe(chosen)}: the run ended before the first", mend=AGAIN
        )
    if run.summary["status"] == Status.CONFORMANT.value:
        _expect_passed(path, run.summary["required"], run.checks)
    return run


def _expect_passed(path: Path, required: Sequence[str], checks: Sequence[Record]) -> None:
    """A file that says CONFORMANT over a record that says otherwise is no run's: nobody is to publish it."""
    passed = {record["check"] for record in checks if record["verdict"] == "pass" or record["waived"]}
    objecting = {
        record["check"] for record in checks if record["verdict"] in ("fail", "inconclusive") and not record["waived"]
    }
    wrong = next((check for check in required if check not in passed or check in objecting), None)
    if wrong is not None:
        raise SettingsError(
            f"{path} says CONFORMANT, and its records do not show that {safe(wrong)} passed", mend=AGAIN
        )


def _choose(path: Path, document: Mapping[str, Any], model: str | None) -> str:
    names = list(document["models"])
    if not names:
        raise SettingsError(f"{path} names no model: the run ended before it had one", mend=AGAIN)
    listed = ", ".join(safe(name) for name in names)
    if model is not None and model not in names:
        raise SettingsError(
            f"{path} has no model {model!r}{nearest(model, names)}", mend=f"--model with one of {listed}"
        )
    if model is None and len(names) > 1:
        raise SettingsError(f"{path} holds {len(names)} models: {listed}", mend="one card for each: --model NAME")
    return model or names[0]
