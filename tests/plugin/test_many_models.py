"""Several models in one run: memory is given back between them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.plugin.conftest import card_text, write_tokenizer

WATCH = """
import gc, json, os, pathlib
import psutil

SEEN = {}

def pytest_runtest_teardown(item):
    model = getattr(item, "callspec", None) and item.callspec.params.get("npu_card")
    if model:
        gc.collect()  # what is held is asked, not when the collector comes by
        SEEN[model] = max(SEEN.get(model, 0), psutil.Process(os.getpid()).memory_info().rss)

def pytest_sessionfinish():
    pathlib.Path("rss.json").write_text(json.dumps(SEEN))
"""


@pytest.fixture(scope="module")
def heavy_weights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A random Qwen3 of 67 MB, and its bytes."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    folder = tmp_path_factory.mktemp("heavy")
    config = Qwen3Config(
        vocab_size=256, hidden_size=512, intermediate_size=2048, num_hidden_layers=4, num_attention_heads=8,
        num_key_value_heads=4, head_dim=64, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    Qwen3ForCausalLM(config).save_pretrained(folder)
    write_tokenizer(folder)
    return folder, (folder / "model.safetensors").stat().st_size


def test_memory_is_given_back_between_models(run, pytester, heavy_weights, monkeypatch):
    """Each model takes its weights twice (candidate and reference); the third must not need more than the second did."""
    folder, size = heavy_weights
    assert size > 60e6
    monkeypatch.setenv("PYTHONPATH", str(pytester.path))
    text = card_text(folder).replace("hidden_size = 64", "hidden_size = 512")
    for name in "abc":
        (pytester.path / f"{name}.toml").write_text(text.replace('"tiny"', f'"{name}"'))
    (pytester.path / "watch_memory.py").write_text(WATCH)
    models = ",".join(f"{name}.toml" for name in "abc")
    result = run("--model", models, "--npuconf-precision", "float32", "-p", "watch_memory", card=text)
    assert result.ret == 0, result.stdout.str()
    seen = json.loads((pytester.path / "rss.json").read_text())
    assert list(seen) == ["a", "b", "c"]
    assert seen["c"] - seen["b"] < 0.5 * size, seen
