"""results.json: every record, the closing, the facts. The schema is results.schema.json beside this file."""

from __future__ import annotations

import datetime
import json
from importlib import resources
from pathlib import Path
from typing import Any

from pytest_npuconf.conformance import Closing
from pytest_npuconf.errors import SettingsError
from pytest_npuconf.files import write_output
from pytest_npuconf.plan import Plan
from pytest_npuconf.records import Record

SCHEMA_VERSION = 1


def schema() -> dict[str, Any]:
    """The published JSON Schema of results.json."""
    text = resources.files("pytest_npuconf.report").joinpath("results.schema.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def build(
    plan: Plan, records: list[Record], closings: list[Closing], claims: dict[str, int], exit_status: int
) -> dict[str, Any]:
    """The whole of results.json as plain values; records are ordered by model and check, whatever ran first."""
    return {
        "schema_version": SCHEMA_VERSION,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "exit_status": exit_status,
        "facts": plan.provenance,
        "models": {
            closing.model: {
                "status": closing.status.value,
                "line": closing.line,
                "labels": plan.labels(closing.model),
                "precisions": list(plan.precisions[closing.model]),
                "weights": str(plan.checkpoints[closing.model].folder),
                "weights_origin": plan.checkpoints[closing.model].origin,
                "required": list(plan.required[closing.model]),
                "missing": list(closing.missing),
                "failed": list(closing.failed),
                "inconclusive": list(closing.inconclusive),
                "waived": list(closing.waived),
                "selected": list(closing.selected),
                "errors": list(closing.errors),
                "interrupted": closing.interrupted,
                "title": plan.cards[closing.model].title,
                "card_sha256": plan.cards[closing.model].sha256,
            }
            for closing in closings
        },
        "claims": claims,
        "checks": sorted(records, key=lambda record: (record["model"], record["check"], record["nodeid"])),
    }


def write(path: Path, results: dict[str, Any]) -> None:
    """Write what :func:`build` gives, atomically: the file is whole or untouched.

    Raises:
        SettingsError: the file cannot be written.
    """
    text = json.dumps(results, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    data = f"{text}\n".encode(errors="replace")  # half of a surrogate pair is no text
    write_output(path, data, "--npuconf-results FILE in a folder you can write to")


def put_aside(path: Path) -> None:
    """Rename a file of an earlier run to ``FILE.previous``: a run that ends early must not leave its verdict behind.

    Raises:
        SettingsError: the folder cannot be written.
    """
    if path.is_file():
        try:
            path.replace(path.with_name(f"{path.name}.previous"))
        except OSError as error:
            raise SettingsError(f"{path}: {error}", mend="name a FILE in a folder you can write to") from error
