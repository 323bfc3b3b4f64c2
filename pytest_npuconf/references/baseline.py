"""A stored reference: one JSON file with sorted keys, its arrays beside it in safetensors. docs/baselines.md has the fields."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_npuconf.errors import BaselineError, OldBaselineError

SCHEMA_VERSION = 2  # 2: noise by run of looked positions
DIGEST = "digest"
STEM = r"[A-Za-z0-9_.]+-[A-Za-z0-9_.]+-(?:float32|float16|bfloat16)"
JSON_NAME = re.compile(rf"(?!\.|calibration-){STEM}\.json")  # a calibration lies beside it
ARRAYS_NAME = re.compile(rf"(?!\.)(?P<stem>{STEM})\.[0-9a-f]{{12}}\.safetensors")
Arrays = Mapping[str, NDArray[Any]]
# every field with its type: nothing is optional, so that nothing can be lost without notice
FIELDS: dict[str, type] = {
    "schema_version": int,
    "model": str,
    "engine": str,
    "device": str,
    "dtype": str,
    "comparability": dict,
    "noise": dict,
    "statistics": dict,
    "provenance": dict,
    "arrays": dict,
    DIGEST: str,
}


@dataclass(frozen=True)
class Baseline:
    """The reference of one model x engine x device x dtype.

    ``comparability`` must equal that of a run which uses it; ``noise``, by precision pair, says what rounding alone costs;
    ``statistics`` are sums and counts; ``provenance`` says where it comes from. ``arrays``: see :mod:`.stored`.
    """

    model: str
    engine: str
    device: str
    dtype: str
    comparability: dict[str, Any]
    noise: dict[str, Any]
    statistics: dict[str, Any]
    provenance: dict[str, Any]
    arrays: Arrays
    sha256: str = ""  # of the arrays' file, once read
    digest: str = ""  # of the JSON, once read

    @property
    def stem(self) -> str:
        """``transformers-cpu-float32``: the file's name without its suffix."""
        return f"{self.engine}-{self.device}-{self.dtype}"


def to_json(baseline: Baseline, arrays_file: str, arrays_sha256: str) -> str:
    """The JSON text, sealed with the digest of everything else in it."""
    values = {
        "schema_version": SCHEMA_VERSION,
        "model": baseline.model,
        "engine": baseline.engine,
        "device": baseline.device,
        "dtype": baseline.dtype,
        "comparability": baseline.comparability,
        "noise": baseline.noise,
        "statistics": baseline.statistics,
        "provenance": baseline.provenance,
        "arrays": {"file": arrays_file, "sha256": arrays_sha256},
    }
    return json.dumps({**values, DIGEST: digest(values)}, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def digest(values: Mapping[str, Any]) -> str:
    """sha256 of the canonical JSON of ``values`` without its own digest."""
    rest = {key: value for key, value in values.items() if key != DIGEST}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def read_baseline(path: Path) -> Baseline:
    """Read and check one stored reference; a reader never sees half of a write.

    Raises:
        BaselineError: unreadable, of another schema version, half-written or edited, naming file and field.
    """
    while True:
        text = _text(path)
        values = _values(path, text)
        try:
            return _with_arrays(path, values)
        except FileNotFoundError as error:  # a recorder may have replaced both between the two reads
            if _text(path) == text:
                raise _damaged(
                    path, f"arrays.file {values['arrays']['file']} is missing: half of it was written"
                ) from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BaselineError(f"{path}: cannot be read: {error}", mend=f"ls -l {path}") from error


def _values(path: Path, text: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"not JSON: {error}") from error
    if not isinstance(values, dict):
        raise _damaged(path, f"holds {type(values).__name__}, not an object")
    version = values.get("schema_version")
    if type(version) is not int or version != SCHEMA_VERSION:
        raise OldBaselineError(
            f"{path}: schema_version is {version!r}, this pytest-npuconf reads {SCHEMA_VERSION}",
            mend="record it anew (--npuconf-record), or use the version of pytest-npuconf that recorded it",
        )
    for name, kind in FIELDS.items():
        if not isinstance(values.get(name), kind):
            raise _damaged(path, f"{name} is {'missing' if name not in values else 'not of its type'}")
    if more := sorted(values.keys() - FIELDS):
        raise _damaged(path, f"{more[0]} is no field of a baseline")
    if values[DIGEST] != _digest(path, values):
        raise _damaged(path, f"{DIGEST} does not fit the rest: it was edited")
    return values


def _with_arrays(path: Path, values: dict[str, Any]) -> Baseline:
    name, wanted = values["arrays"].get("file"), values["arrays"].get("sha256")
    if not isinstance(name, str) or not ARRAYS_NAME.fullmatch(name):
        raise _damaged(path, f"arrays.file {name!r} is not the name of a file beside it")
    data = (path.parent / name).read_bytes()
    if hashlib.sha256(data).hexdigest() != wanted:
        raise _damaged(path, f"arrays.sha256 does not fit {name}: it was edited, or only half of it was written")
    from safetensors import SafetensorError
    from safetensors import numpy as safetensors

    try:
        arrays: dict[str, NDArray[Any]] = safetensors.load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise _damaged(path, f"{name} is not safetensors: {error}") from error
    names = ("model", "engine", "device", "dtype", "comparability", "noise", "statistics", "provenance")
    baseline = Baseline(
        **{field: values[field] for field in names}, arrays=arrays, sha256=wanted, digest=values[DIGEST]
    )
    if baseline.stem != path.stem:
        raise _damaged(path, f"it holds {baseline.stem}: it was renamed")
    return baseline


def _digest(path: Path, values: dict[str, Any]) -> str:
    try:
        return digest(values)
    except UnicodeEncodeError as error:
        raise _damaged(path, f"holds text that is not Unicode: {error}") from error


def arrays_bytes(arrays: Arrays) -> bytes:
    """The arrays' file; the same arrays always give the same bytes."""
    from safetensors import numpy as safetensors

    data: bytes = safetensors.save(dict(sorted(arrays.items())))
    return data


def _damaged(path: Path, what: str) -> BaselineError:
    return BaselineError(f"{path}: {what}", mend="restore the file, or record it anew with --npuconf-record")


def as_arrays(values: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """C-contiguous copies, as safetensors wants them."""
    return {name: np.ascontiguousarray(value) for name, value in values.items()}
