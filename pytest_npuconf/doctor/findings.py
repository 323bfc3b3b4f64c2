"""What the doctor says: one thing that is wrong, where it was read, and the line that mends it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Level(str, Enum):
    """Worst first. Only a problem makes the exit status 1."""

    PROBLEM = "problem"  # a run here fails, or measures something else than it says
    WARNING = "warning"  # a run here may be misread
    NOTE = "note"  # could not be judged, and why

    def __str__(self) -> str:
        """The word."""
        return self.value


@dataclass(frozen=True)
class Finding:
    """``rule``: its id in docs/doctor.md. ``mend``: a command or a line of code."""

    rule: str
    level: Level
    what: str
    where: str
    mend: str

    def as_json(self) -> dict[str, str]:
        """Its fields as text."""
        return {"rule": self.rule, "level": self.level.value, "what": self.what, "where": self.where, "mend": self.mend}
