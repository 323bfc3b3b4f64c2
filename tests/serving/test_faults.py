"""Faults of a server, by a proxy in front of real vLLM: caught by the check that should. All of them
and the benign variants: ``make serving-faults``."""

import json

import pytest

from pytest_npuconf.faults.catalogue_serving import SERVING
from tests.benchmarks.serving_faults import campaign

SHORT = ("stale-prefix-cache", "top-k-off-by-one", "cross-talk", "broken-utf8", "wrong-pooling-token")
FAULTS = {fault.name: fault for fault in SERVING}


@pytest.fixture(scope="module")
def matrix(tmp_path_factory):
    """The campaign's JSON: one server for each mode."""
    folder = tmp_path_factory.mktemp("campaign")
    assert campaign(folder, SHORT, folder / "matrix.json", expected_only=True) == 0
    return json.loads((folder / "matrix.json").read_text())


def test_the_healthy_server_is_quiet(matrix):
    assert matrix["clean_outcome"] == "quiet"


@pytest.mark.parametrize("name", SHORT)
def test_fault(matrix, name):
    fault = FAULTS[name]
    found = next(one for one in matrix["faults"] if one["name"] == name)
    failed = {check.removesuffix(".bf16_fp32") for check in found["runs"]["bfloat16"]["failed"]}
    assert found["outcome"] == "caught", failed
    assert failed & set(fault.checks), f"caught by {failed}, expected {fault.checks}"
