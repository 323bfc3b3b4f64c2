"""What a fault is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Fault:
    """A named defect. ``inject(model)`` changes a loaded transformers model in place and stays.

    ``magnitude`` says how big the defect is, ``expected`` which check should catch it; ``benign`` marks a variant that
    must not be caught. ``inject`` raises :class:`pytest_npuconf.errors.FaultError` when it finds nothing to break.
    """

    name: str
    description: str
    magnitude: str
    expected: str
    inject: Callable[[Any], None]
    benign: bool = False
