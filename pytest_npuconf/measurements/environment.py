"""What a card asks of the host, against what is here."""

from __future__ import annotations

from collections.abc import Mapping

from packaging.version import InvalidVersion, Version

from pytest_npuconf.gates import MAX_ROWS, Measurement, Row

Found = str | float | None


def unmet_minimums(minimum: Mapping[str, str | float], found: Mapping[str, Found], here: str) -> Measurement:
    """Minimums of the card that this host does not meet.

    Args:
        minimum: versions as strings, amounts as numbers.
        found: the same for this host; None: not installed. A key that is left out does not apply here: it is listed, and
            neither met nor unmet.
        here: engine and device in words, for what does not apply.
    """
    unused = {key: f"not applicable here: {here}" for key in minimum if key not in found}
    judged = {key: _met(wanted, found[key]) for key, wanted in minimum.items() if key in found}
    if not judged:
        return Measurement.unusable("minimum.unmet", f"none of {', '.join(minimum)} applies to {here}")
    rows = [
        Row(key, 1.0, f"at least {_spoken(minimum[key])}, found {_spoken(found[key])}")
        for key, met in judged.items()
        if not met
    ]
    data = {
        "minimums": {key: {"minimum": minimum[key], "found": found[key], "met": met} for key, met in judged.items()},
        "not_applicable": unused,
        "rows_total": len(rows),
        "statistics": {"unmet": len(rows)},
    }
    return Measurement(
        "minimum.unmet", float(len(rows)), n=len(judged), of="minimums", rows=tuple(rows[:MAX_ROWS]), data=data
    )


def _met(wanted: str | float, found: Found) -> bool:
    """A pre-release is older than its release: 0.18.0rc1 does not meet 0.18.0, and 0.18.0 meets 0.18.0rc1. A version that
    cannot be read meets nothing."""
    if isinstance(wanted, str):
        try:
            return found is not None and Version(str(found)) >= Version(wanted)
        except InvalidVersion:
            return False
    return isinstance(found, (int, float)) and found >= wanted


def _spoken(value: Found) -> str:
    if value is None:
        return "none installed"
    return f"{value:.4g}" if isinstance(value, (int, float)) else value + _unreadable(value)


def _unreadable(version: str) -> str:
    try:
        Version(version)
    except InvalidVersion:
        return ", which cannot be compared"
    return ""
