"""What several runs in one process have in common: made once, handed to each."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from pytest_npuconf.plan import Plan
    from pytest_npuconf.references.live import LiveReference

Made = TypeVar("Made")
NAME = "npuconf-shared"  # of the pytest plugin whose attribute ``shared`` a run takes


class Shared:
    """Keeps what it is asked for under a key. Every run has one; a campaign hands the same one to all of its runs."""

    def __init__(self) -> None:
        self._made: dict[Hashable, Any] = {}

    def once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What was made under this key, else what ``make`` makes now."""
        if key not in self._made:
            self._made[key] = make()
        made: Made = self._made[key]
        return made

    def live(self, _plan: Plan, _model: str) -> LiveReference | None:
        """A live reference that outlives the run; None: the run makes its own and releases it."""
        return None
