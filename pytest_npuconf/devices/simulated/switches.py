"""Defects of the simulated NPU, each switched on for as long as the model that it was injected into lives."""

from __future__ import annotations

import weakref
from typing import Any

HF32 = "hf32"
SATURATION = "saturation"
NARROW = "narrow accumulation"
UNORDERED = "nondeterminism"
FALLBACK = "cpu fallback"
WRONG_SHAPE = "wrong shape"
FIRST_CALL = "first call"


class Switches:
    """Which defects are on. A device has one set for the process; a model that is given back takes its defects with it."""

    def __init__(self) -> None:
        self._on: dict[str, tuple[weakref.ref[Any], Any]] = {}

    def turn_on(self, name: str, model: Any, value: Any = True) -> None:
        """Switch ``name`` on while ``model`` lives; ``value`` is what :meth:`get` gives."""
        self._on[name] = (weakref.ref(model), value)

    def get(self, name: str) -> Any:
        """The value of a defect that is on, else None."""
        if not self._on or (found := self._on.get(name)) is None:
            return None
        owner, value = found
        if owner() is None:
            del self._on[name]
            return None
        return value

    def turn_off(self, name: str) -> None:
        """Switch ``name`` off, whoever switched it on."""
        self._on.pop(name, None)
