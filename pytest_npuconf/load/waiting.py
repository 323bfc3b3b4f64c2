"""Waiting for sockets until a time that is known to more than a millisecond."""

from __future__ import annotations

import select
import selectors
from typing import Any

_COARSE = getattr(selectors, "EpollSelector", ())  # counts in milliseconds, and rounds up
_LONG = 0.05  # seconds from which a millisecond does not matter


def ready(selector: selectors.BaseSelector, seconds: float) -> list[tuple[selectors.SelectorKey, int]]:
    """What is ready, after ``seconds`` at the latest. A short wait is done by ``select`` on epoll's own file, which waits for as
    long as it is told."""
    if 0 < seconds < _LONG and isinstance(selector, _COARSE):
        file: Any = selector
        select.select([file], [], [], seconds)
        seconds = 0.0
    return selector.select(seconds)
