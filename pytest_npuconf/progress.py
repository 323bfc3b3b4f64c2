"""Progress on the terminal for what takes longer than a few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable

QUIET_SECONDS = 5.0


class Progress:
    """``phase`` lines are always shown, ``step`` lines when nothing was shown for five seconds."""

    def __init__(self, write: Callable[[str], None] = lambda _: None) -> None:
        """``write``: shows one line; the default shows nothing."""
        self._write = write
        self._last = time.monotonic()

    def phase(self, text: str) -> None:
        """A new phase has begun."""
        self._write(f"npuconf: {text}")
        self._last = time.monotonic()

    def step(self, text: str) -> None:
        """A step within a phase."""
        if time.monotonic() - self._last >= QUIET_SECONDS:
            self.phase(text)
