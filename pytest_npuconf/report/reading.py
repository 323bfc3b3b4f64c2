"""Reading a results.json strictly, so that what follows can rely on its form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pytest_npuconf.errors import SettingsError
from pytest_npuconf.report.results import SCHEMA_VERSION, schema
from pytest_npuconf.report.shape import misfits
from pytest_npuconf.report.strict_json import read_json

Results = dict[str, Any]
AGAIN = "run again: pytest --model NAME --npuconf-results FILE writes one"


class OtherSchemaError(ValueError):
    """Whole, but of a schema version that this pytest-npuconf does not read."""


def parse_results(data: bytes) -> Results:
    """What a results.json holds.

    Raises:
        OtherSchemaError: of another schema version.
        ValueError: not JSON, cut off, with NaN in it, or not of the published form; the message says where.
    """
    try:
        results = read_json(data)
    except ValueError as error:
        raise ValueError(f"is not the JSON that a run writes: {error}") from error
    version = results.get("schema_version") if isinstance(results, dict) else None
    if version is not None and (type(version) is not int or version != SCHEMA_VERSION):
        said = json.dumps(version)[:40]
        raise OtherSchemaError(f"schema_version is {said}, this pytest-npuconf reads {SCHEMA_VERSION}")
    bad = next(misfits(results, schema()), None)
    if bad is not None:
        raise ValueError(f"{bad[0] or 'the whole'} {bad[1]}")
    loaded: Results = results
    return loaded


def read_results(path: Path) -> Results:
    """The same of a file.

    Raises:
        SettingsError: it cannot be read, or is no results.json of this version.
    """
    try:
        return parse_results(path.read_bytes())
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error}", mend=AGAIN) from error
    except OtherSchemaError as error:
        raise SettingsError(f"{path}: {error}", mend="use the pytest-npuconf of that run, or run again") from error
    except ValueError as error:
        raise SettingsError(f"{path}: {error}", mend=AGAIN) from error
