"""Under pytest-xdist: all checks of a model go to one worker, so that its weights are loaded once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pytest_npuconf.collection import SUITE_PREFIX


def model_of(nodeid: str, models: Iterable[str]) -> str | None:
    """The model that a shipped check's node id was parametrized with; None for any other test."""
    _, bracket, parameters = nodeid.removesuffix("]").partition("[")
    if not bracket or not nodeid.startswith(f"{SUITE_PREFIX}/"):
        return None
    found = [m for m in models if parameters == m or parameters.startswith(f"{m}-")]
    return max(found, key=len, default=None)


def scheduler(config: Any, log: Any, models: Iterable[str]) -> Any:
    """xdist's scheduling by scope with the model as the scope; every other test is a scope of its own."""
    from xdist.scheduler import LoadScopeScheduling

    names = tuple(models)

    class ModelScheduling(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return model_of(nodeid, names) or nodeid

    return ModelScheduling(config, log)
