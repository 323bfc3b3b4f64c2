"""The noise of modules: what a member of the yardstick cannot give is an error of its own kind."""

from types import SimpleNamespace

import pytest

from pytest_npuconf import module_comparison
from pytest_npuconf.documents import Document
from pytest_npuconf.errors import EngineError, NonFiniteError


@pytest.mark.parametrize(("found", "error"), [
    ({"non_finite": {"model.norm": "NaN at d position 0"}, "unmatched": {}}, NonFiniteError),
    ({"non_finite": {}, "unmatched": {"model.norm": "another number of calls"}}, EngineError),
])  # fmt: skip
def test_a_member_that_cannot_be_compared_with_is_an_error_of_its_kind(monkeypatch, found, error):
    monkeypatch.setattr(module_comparison, "collect", lambda *_: {"split-k-2": SimpleNamespace(**found)})
    documents = [Document("d", "document", "", (1, 2, 3))]
    with pytest.raises(error, match=r"^model\.norm, yardstick split-k-2 at bfloat16: .*: nothing to compare with"):
        module_comparison.measure_noise(documents, None, {}, "bfloat16")
