"""What rechecking a bundle says: errors that end it, and findings. Plain values."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from pytest_npuconf.errors import NpuconfError

_LONGEST = 160


class BundleError(NpuconfError):
    """A bundle, or a file for one, that cannot be used: missing, damaged, not what it says it is."""


class OtherVersionError(BundleError):
    """Whole, but of a schema version that this pytest-npuconf does not read."""


class Level(str, Enum):
    """A ``contradiction`` keeps a bundle from being verified; a ``note`` does not."""

    CONTRADICTION = "contradiction"
    NOTE = "note"


@dataclass(frozen=True)
class Finding:
    """``member`` of the bundle, ``record`` in it, ``field`` of that; ``stored`` there and ``recomputed`` here, JSON values.
    ``said``: what no pair of values can say."""

    level: Level
    member: str
    field: str
    stored: Any = None
    recomputed: Any = None
    record: str = ""
    said: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "level": self.level.value}

    def __str__(self) -> str:
        where = ": ".join(part for part in (self.member, self.record, self.field) if part)
        if self.said:
            return printable(f"{where}: {self.said}")
        return printable(f"{where}: stored {_shown(self.stored)}, recomputed {_shown(self.recomputed)}")


def contradiction(member: str, field: str, stored: Any, recomputed: Any, record: str = "") -> Finding:
    """Two values that should be one."""
    return Finding(Level.CONTRADICTION, member, field, stored, recomputed, record)


def wrong(member: str, field: str, said: str, record: str = "") -> Finding:
    """A contradiction in words."""
    return Finding(Level.CONTRADICTION, member, field, record=record, said=said)


def note(member: str, field: str, said: str, record: str = "") -> Finding:
    """What a reviewer should know, and that contradicts nothing."""
    return Finding(Level.NOTE, member, field, record=record, said=said)


def contradictions(findings: list[Finding]) -> list[Finding]:
    """Those that keep a bundle from being verified."""
    return [finding for finding in findings if finding.level is Level.CONTRADICTION]


def notes(findings: list[Finding]) -> list[Finding]:
    """The others."""
    return [finding for finding in findings if finding.level is Level.NOTE]


def printable(text: str) -> str:
    """Text of a stranger's file for a terminal: nothing in it can move the cursor or hide a line."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text)} characters)"
