"""A stored calibration: one JSON file with sorted keys beside the model's references. docs/calibration.md has the fields."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pytest_npuconf.calibration.noise import Bound, Judged
from pytest_npuconf.errors import BaselineError
from pytest_npuconf.files import write_atomically
from pytest_npuconf.references.comparability import differences
from pytest_npuconf.references.sealed import DIGEST, Layout, text_of
from pytest_npuconf.references.store import Written, locked, short_digest

CLEAN = "clean"
FEWEST = 5  # variants that differ from the candidate
LAYOUT = Layout(
    noun="a calibration",
    version=1,
    fields={
        "model": str,
        "engine": str,
        "device": str,
        "dtype": str,
        "comparability": dict,
        "candidate": dict,
        "variants": dict,
        "not_counted": dict,
        "figures": dict,
        "findings": list,
        "provenance": dict,
    },
    renew="calibrate anew (--npuconf-calibrate)",
    again="restore the file, or calibrate anew (--npuconf-calibrate)",
)


@dataclass(frozen=True)
class Figure:
    """One check over the counted variants: the ``largest`` figure, ``by`` which variant, ``bound`` and ``constant`` in force
    when it was measured, ``margin`` bound / largest (None: nothing moved, or no room was ever asked for)."""

    largest: float
    by: str
    bound: float
    constant: str
    margin: float | None


@dataclass(frozen=True)
class Calibration:
    """One model x engine x device x dtype.

    ``comparability`` must equal that of a run which uses it. ``candidate`` is the candidate itself and ``variants`` the
    benign ones that count, each with its checks; ``not_counted`` says of the others why not; ``findings`` are what is wrong
    with it (false alarms among them), in words.
    """

    model: str
    engine: str
    device: str
    dtype: str
    comparability: dict[str, Any]
    candidate: dict[str, Judged]
    variants: dict[str, dict[str, Judged]]
    not_counted: dict[str, str]
    figures: dict[str, Figure]
    findings: tuple[str, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)
    digest: str = ""  # once read

    @property
    def file_name(self) -> str:
        """``calibration-cpu-float32.json``."""
        return file_name(self.device, self.dtype)


def file_name(device: str, dtype: str) -> str:
    """Of a device (its name may be somebody else's) and a dtype."""
    return f"calibration-{quote(device, safe='')}-{dtype}.json"


def figures_of(variants: Mapping[str, Mapping[str, Judged]], bounds: Mapping[str, Bound]) -> dict[str, Figure]:
    """The largest figure of each check; a variant without a number is no figure, it is a false alarm."""
    found = {}
    for check, bound in bounds.items():
        known = {name: figure for name, judged in variants.items() if (figure := judged[check].figure) is not None}
        if known:
            by, largest = max(known.items(), key=lambda item: item[1])
            margin = bound.value / largest if largest > 0 and bound.value > 0 else None
            found[check] = Figure(largest, by, bound.value, bound.constant, margin)
    return found


def to_json(calibration: Calibration) -> str:
    """The JSON text, sealed with the digest of everything else in it."""
    values = _plain(asdict(calibration))
    del values[DIGEST]
    return LAYOUT.to_text(values)


def write(folder: Path, calibrations: list[Calibration]) -> list[Written]:
    """Write each atomically, under the lock of the folder's references.

    Raises:
        BaselineError: the folder cannot be written.
    """
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            for calibration in calibrations:
                path = folder / calibration.file_name
                old = short_digest(path)
                write_atomically(path, to_json(calibration).encode())
                written.append(Written(path, old, short_digest(path)))
    except OSError as error:
        raise BaselineError(
            f"{folder}: cannot be written: {error}", mend="--npuconf-baselines DIR, a folder you can write to"
        ) from error
    return written


def read(path: Path) -> Calibration:
    """Read and check one calibration.

    Raises:
        BaselineError: unreadable, of another schema version, or edited, naming file and field.
    """
    values = LAYOUT.values(path, text_of(path))
    try:
        found = _from(values)
    except (TypeError, AttributeError) as error:
        raise LAYOUT.damaged(path, f"a figure or variant is not whole: {error}") from error
    if found.file_name != path.name:
        raise LAYOUT.damaged(path, f"it holds {found.file_name}: it was renamed")
    return found


def unlike(calibration: Calibration, model: str, here: Mapping[str, Any]) -> list[str]:
    """Why it may not be used here: fields that differ, with both values; empty when it may."""
    if calibration.model != model:
        return [f"model (stored {calibration.model}, here {model})"]
    found = differences(calibration.comparability, here)
    if len(calibration.variants) < FEWEST:
        found.append(f"variants (stored {len(calibration.variants)}, at least {FEWEST} are needed)")
    return found


def _from(values: Mapping[str, Any]) -> Calibration:
    def judged(checks: Mapping[str, Any]) -> dict[str, Judged]:
        return {check: Judged(**fields) for check, fields in checks.items()}

    rest = {name: values[name] for name in (*LAYOUT.fields, DIGEST)}
    return Calibration(
        **{
            **rest,
            "candidate": judged(rest["candidate"]),
            "variants": {name: judged(checks) for name, checks in rest["variants"].items()},
            "figures": {check: Figure(**fields) for check, fields in rest["figures"].items()},
            "findings": tuple(rest["findings"]),
        }
    )


def _plain(value: Any) -> Any:
    """JSON has no infinity: what is no number is null."""
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, (list, tuple)) else value
