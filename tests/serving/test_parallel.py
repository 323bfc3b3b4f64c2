"""A model split over two processes; and one whose other half of a sum is lost: what tensor parallelism gets wrong, and no error
says."""

import shutil

import pytest
from safetensors.torch import load_file, save_file

from pytest_npuconf.cards import find_card
from pytest_npuconf.devices.cpu import CpuDevice
from pytest_npuconf.engines.server_engine import ServerFactory
from pytest_npuconf.options import Settings
from pytest_npuconf.progress import Progress
from pytest_npuconf.weights import find_weights
from pytest_npuconf.weights.checkpoint import read_checkpoint

MODEL = "tiny-qwen3"


@pytest.fixture
def half_a_sum(tmp_path):
    """URL of a server whose layer 3 adds up one half of the attention heads only, as rank 0 does when nothing is reduced."""
    settings = Settings(models=(MODEL,), engine="server", cache=tmp_path)
    card = find_card(MODEL)
    broken = shutil.copytree(find_weights(card, settings).folder, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    weight = weights["model.layers.3.self_attn.o_proj.weight"]
    weight[:, weight.shape[1] // 2 :] = 0
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    served = ServerFactory().serve(
        read_checkpoint(broken, "a test", ""),
        card,
        card.serving.mode("generate"),
        CpuDevice(),
        "bfloat16",
        settings,
        Progress(),
    )
    yield served.url
    served.close()


def test_two_processes_give_the_references_answers(run_pytest):
    done = run_pytest(
        "--model", MODEL, "--npuconf-engine", "server", "--npuconf-precision", "bfloat16", "-v", "-k", "parallel"
    )
    assert done.returncode == 1  # a SUBSET decides nothing
    assert "SUBSET: 2 of" in done.stdout
    for check in ("parallel.tokens.bf16_fp32", "parallel.noise_ratio.bf16_fp32"):
        assert f"pass         {check}" in done.stdout


def test_a_lost_partial_sum_is_caught(half_a_sum, run_pytest):
    done = run_pytest("--model", MODEL, "--npuconf-engine", "server", "--npuconf-precision", "bfloat16",
                      "--npuconf-endpoint", f"tensor_parallel={half_a_sum}")  # fmt: skip
    assert done.returncode == 1
    for check in ("parallel.tokens.bf16_fp32", "parallel.noise_ratio.bf16_fp32"):
        assert f"fail         {check}" in done.stdout
    assert "NOT CONFORMANT" in done.stdout
