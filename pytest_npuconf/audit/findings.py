"""What an audit says: a finding and its level."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Level(str, Enum):
    """How sure the audit is, worst first."""

    CONTRADICTION = "contradiction"  # two statements of the card, or a statement and arithmetic, cannot both hold
    IMPLAUSIBLE = "implausible"  # it could hold, but only under conditions that the card does not state
    UNSUPPORTED = "unsupported"  # nothing in the card shows it
    AMBIGUOUS = "ambiguous"  # it can be read in several ways, and at least one is harmless
    FINE = "fine"  # recomputed, and agrees

    @property
    def rank(self) -> int:
        """0 for fine, 4 for a contradiction."""
        return len(Level) - 1 - list(Level).index(self)

    def __str__(self) -> str:
        """The word."""
        return self.value


@dataclass(frozen=True)
class Finding:
    """One thing that a rule has to say about one line."""

    rule: str
    level: Level
    line: int
    quote: str
    message: str
    recomputed: str = ""
    """What was recomputed and how; empty where there was nothing to compute."""
