"""Every fault of a server, injected by a proxy in front of real vLLM, is caught by the check that should; benign ones by none."""

import json
import subprocess
import sys

import pytest

from pytest_npuconf.cards import find_card
from pytest_npuconf.devices.cpu import CpuDevice
from pytest_npuconf.engines.server_engine import ServerFactory
from pytest_npuconf.faults.catalogue_serving import SERVING
from pytest_npuconf.options import Settings
from pytest_npuconf.progress import Progress
from pytest_npuconf.weights import find_weights

MODEL = "tiny-qwen3-reranker"
MODES = ("generate", "embed")


@pytest.fixture(scope="module")
def matrix(tmp_path_factory):
    """The campaign's JSON: one server for each mode, every fault of the catalogue."""
    folder = tmp_path_factory.mktemp("campaign")
    settings = Settings(models=(MODEL,), engine="server", cache=folder)
    card = find_card(MODEL)
    factory, checkpoint, running = ServerFactory(), find_weights(card, settings), {}
    factory.check(card, settings)
    try:
        for mode in MODES:
            running[mode] = factory.serve(
                checkpoint, card, card.serving.mode(mode), CpuDevice(), "bfloat16", settings, Progress()
            )
        words = [w for fault in SERVING for w in ("--fault", fault.name)]
        endpoints = [w for mode, served in running.items() for w in ("--npuconf-endpoint", f"{mode}={served.url}")]
        command = [
            sys.executable, "-m", "pytest_npuconf.cli", "faults", "--model", MODEL, "--precision", "bfloat16", *words,
            "--folder", folder / "runs", "--json", folder / "matrix.json", "--", "--npuconf-engine", "server", *endpoints,
        ]  # fmt: skip
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=3000, cwd=folder)
        print(done.stdout[-6000:], done.stderr[-2000:])
        assert done.returncode == 0
        return json.loads((folder / "matrix.json").read_text())
    finally:
        for served in running.values():
            served.close()


def test_the_healthy_server_is_quiet(matrix):
    assert matrix["clean_outcome"] == "quiet"


@pytest.mark.parametrize("fault", SERVING, ids=lambda fault: fault.name)
def test_fault(matrix, fault):
    found = next(one for one in matrix["faults"] if one["name"] == fault.name)
    run = found["runs"]["bfloat16"]
    failed = {check.removesuffix(".bf16_fp32") for check in run["failed"]}
    if fault.benign:
        assert (found["outcome"], failed) == ("quiet", set())
    else:
        assert found["outcome"] == "caught", failed
        assert failed & set(fault.checks), f"caught by {failed}, expected {fault.checks}"
