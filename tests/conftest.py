"""One hypothesis profile for every test: the same examples on every machine, and no clock in the verdict.

``NPUCONF_EXAMPLES=5000 pytest tests/property`` looks for new ones instead: that many, drawn anew each time.
"""

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

EXAMPLES = int(os.environ.get("NPUCONF_EXAMPLES") or 0)

settings.register_profile(
    "npuconf", derandomize=not EXAMPLES, deadline=None, database=None, max_examples=EXAMPLES or 60
)
settings.load_profile("npuconf")


@pytest.fixture(autouse=True, scope="session")
def _the_same_in_ci() -> Iterator[None]:
    """Records and progress go by ``CI``: no test may depend on who started it (test_references sets it itself)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CI", raising=False)
        yield
