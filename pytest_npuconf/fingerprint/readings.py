"""One reading, and the fingerprint that is made of them. Plain values: nothing is looked up here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

VERSIONS, DEVICE, NUMERIC, SPEED = "versions", "device", "settings_numeric", "settings_speed"
GROUPS = (VERSIONS, DEVICE, NUMERIC, SPEED)
UNKNOWN, UNSET = "unknown", "unset"
# changes from one second to the next on the same machine: told, but not part of what makes two runs alike
VOLATILE = ("hbm_used_mib",)


@dataclass(frozen=True)
class Reading:
    """``value`` as text; ``source``: where it was read (``environment``, a path, a name of torch, a command, a default)."""

    name: str
    value: str
    source: str


@dataclass(frozen=True)
class Fingerprint:
    """The readings by group. ``settings_numeric`` change numbers, ``settings_speed`` only how fast they come."""

    versions: tuple[Reading, ...] = ()
    device: tuple[Reading, ...] = ()
    settings_numeric: tuple[Reading, ...] = ()
    settings_speed: tuple[Reading, ...] = ()

    @classmethod
    def of(cls, groups: Mapping[str, list[Reading]]) -> Fingerprint:
        """From lists by group, each sorted by name.

        Raises:
            ValueError: a group is unknown, or has a name twice.
        """
        for group, readings in groups.items():
            names = [reading.name for reading in readings]
            if group not in GROUPS or len(set(names)) != len(names):
                raise ValueError(f"{group}: no group of a fingerprint, or a name twice: {sorted(names)}")
        return cls(**{group: tuple(sorted(readings, key=lambda r: r.name)) for group, readings in groups.items()})

    def group(self, name: str) -> tuple[Reading, ...]:
        """The readings of one of :data:`GROUPS`."""
        found: tuple[Reading, ...] = getattr(self, name)
        return found

    def find(self, name: str) -> Reading | None:
        """The reading of this name in whichever group has it."""
        return next((reading for _, reading in self.every() if reading.name == name), None)

    def value(self, name: str) -> str:
        """Its value, :data:`UNKNOWN` where it was not read."""
        reading = self.find(name)
        return UNKNOWN if reading is None else reading.value

    def every(self) -> Iterator[tuple[str, Reading]]:
        """Group and reading, in order."""
        for group in GROUPS:
            for reading in self.group(group):
                yield group, reading

    def to_json(self) -> dict[str, dict[str, dict[str, str]]]:
        """``{group: {name: {value, source}}}``, sorted."""
        return {
            group: {r.name: {"value": r.value, "source": r.source} for r in sorted(self.group(group), key=_name)}
            for group in sorted(GROUPS)
        }

    @classmethod
    def from_json(cls, data: Any) -> Fingerprint:
        """The inverse of :meth:`to_json`.

        Raises:
            ValueError: not of that form; the message names the group and the name.
        """
        if not isinstance(data, dict) or set(data) != set(GROUPS):
            raise ValueError(f"a fingerprint has the groups {', '.join(GROUPS)}")
        groups: dict[str, list[Reading]] = {}
        for group, entries in data.items():
            if not isinstance(entries, dict):
                raise ValueError(f"{group}: holds {type(entries).__name__}, not an object")
            groups[group] = [_reading(group, name, entry) for name, entry in entries.items()]
        return cls.of(groups)

    def digest(self) -> str:
        """First twelve digits of the sha256 of everything but what changes by the second; equal: measured alike."""
        kept = {
            group: {name: entry for name, entry in entries.items() if not name.endswith(VOLATILE)}
            for group, entries in self.to_json().items()
        }
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]


def _name(reading: Reading) -> str:
    return reading.name


def _reading(group: str, name: str, entry: Any) -> Reading:
    if not isinstance(entry, dict) or set(entry) != {"value", "source"}:
        raise ValueError(f"{group}.{name}: is not {{value, source}}")
    if not all(isinstance(part, str) for part in entry.values()):
        raise ValueError(f"{group}.{name}: value and source are text")
    return Reading(name, entry["value"], entry["source"])
