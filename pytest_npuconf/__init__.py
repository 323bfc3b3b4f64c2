"""Conformance of language models ported to an Ascend NPU: measured, judged, evidenced.

Importing this package imports neither torch nor numpy; the names below are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_npuconf.assertions import (
        ConformanceError,
        InconclusiveError,
        assert_at_least,
        assert_hidden_states_close,
        assert_logits_close,
        assert_perplexity_close,
        assert_same_order,
        assert_token_match,
    )
    from pytest_npuconf.gates import Gate, Measurement, Outcome, Role, Row, Sense, Verdict

__version__ = "0.1.0"

_HOME = {
    **dict.fromkeys(
        (
            "ConformanceError",
            "InconclusiveError",
            "assert_at_least",
            "assert_hidden_states_close",
            "assert_logits_close",
            "assert_perplexity_close",
            "assert_same_order",
            "assert_token_match",
        ),
        "pytest_npuconf.assertions",
    ),
    **dict.fromkeys(("Gate", "Measurement", "Outcome", "Role", "Row", "Sense", "Verdict"), "pytest_npuconf.gates"),
}

__all__ = [
    "ConformanceError",
    "Gate",
    "InconclusiveError",
    "Measurement",
    "Outcome",
    "Role",
    "Row",
    "Sense",
    "Verdict",
    "assert_at_least",
    "assert_hidden_states_close",
    "assert_logits_close",
    "assert_perplexity_close",
    "assert_same_order",
    "assert_token_match",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
