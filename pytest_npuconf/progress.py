"""Progress on the terminal for what takes longer than a few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from pytest_npuconf.option_values import FALSE

QUIET_SECONDS = 5.0


class Progress:
    """``say`` lines are always shown, ``phase`` lines on a terminal always, ``step`` lines there when nothing was shown for
    five seconds. Sparse, only phases are shown, and each after five seconds in which nothing was: one that turns out to
    take long is told at its first step after that."""

    def __init__(self, write: Callable[[str], None] = lambda _: None, *, sparse: bool = False) -> None:
        """``write``: shows one line; the default shows nothing. ``sparse``: for a log."""
        self._write, self._sparse = write, sparse
        self._last = time.monotonic()
        self._untold = ""

    def say(self, text: str) -> None:
        """What a reader must know, however fast the run is."""
        self._write(f"npuconf: {text}")
        self._last = time.monotonic()
        self._untold = ""

    def phase(self, text: str) -> None:
        """A new phase has begun."""
        if self._sparse and not self._silent():
            self._untold = text
        else:
            self.say(text)

    def step(self, text: str) -> None:
        """A step within a phase."""
        if self._silent() and not self._sparse:
            self.say(text)
        elif self._silent() and self._untold:
            self.say(self._untold)

    def _silent(self) -> bool:
        return time.monotonic() - self._last >= QUIET_SECONDS


def is_log(environ: Mapping[str, str], *, terminal: bool) -> bool:
    """Whether the output is read later rather than watched: in CI, or when it goes to no ``terminal``."""
    return not terminal or environ.get("CI", "").strip().lower() not in FALSE
