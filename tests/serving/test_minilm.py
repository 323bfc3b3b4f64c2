"""The card of all-MiniLM-L6-v2 against the files of its package: what they hold, and how the model itself ranks. And a server
that pools otherwise."""

import json

import numpy as np
import pytest
import torch
import transformers

from pytest_npuconf.cards import find_card
from pytest_npuconf.options import Settings
from pytest_npuconf.serving.encoders import Encoded, Encoder, read_recipe
from pytest_npuconf.serving.pooling import noisiest
from pytest_npuconf.weights import find_weights

CARD = find_card("minilm-l6-v2")
NOISES = 20.0  # the least margin in units of what bfloat16 changes; 22.9 is the least that was measured


@pytest.fixture(scope="module")
def checkpoint():
    return find_weights(CARD, Settings(), environ={"HF_HOME": "/nowhere"})


@pytest.fixture(scope="module")
def tokenizer(checkpoint):
    return transformers.AutoTokenizer.from_pretrained(checkpoint.folder)


@pytest.fixture(scope="module")
def models(checkpoint):
    load = transformers.AutoModel.from_pretrained
    return {d: load(checkpoint.folder, dtype=getattr(torch, d)).eval() for d in ("float32", "bfloat16")}


@torch.inference_mode()
def cosines(model, tokenizer, example):
    """``[documents]``: the mean over all tokens, then length one."""
    found = []
    for text in (example.query, *example.documents):
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        assert ids.shape[1] <= 256
        found.append(model(input_ids=ids).last_hidden_state[0].float().mean(0))
    vectors = torch.nn.functional.normalize(torch.stack(found), dim=-1)
    return vectors[1:] @ vectors[0]


def test_the_card_says_what_the_package_holds(checkpoint, tokenizer):
    assert {key: checkpoint.config[key] for key in CARD.config} == CARD.config
    for name in CARD.files:
        assert (checkpoint.folder / name).is_file()
    assert CARD.parameters == checkpoint.parameters - checkpoint.tensors["embeddings.position_ids"].elements
    for probe in CARD.probes:
        assert tuple(tokenizer(probe.text)["input_ids"]) == probe.ids


def test_the_package_pools_by_the_mean_and_divides_by_the_length(checkpoint):
    pooling = json.loads((checkpoint.folder / "1_Pooling" / "config.json").read_text(encoding="utf-8"))
    assert [key for key, value in pooling.items() if value is True] == ["pooling_mode_mean_tokens"]
    modules = json.loads((checkpoint.folder / "modules.json").read_text(encoding="utf-8"))
    assert modules[-1]["type"].endswith("Normalize")


@pytest.mark.parametrize("example", CARD.rerank, ids=lambda example: example.name)
def test_the_order_holds_with_a_margin_far_above_rounding(models, tokenizer, example):
    exact, rounded = (cosines(models[dtype], tokenizer, example) for dtype in ("float32", "bfloat16"))
    margins = exact[:-1] - exact[1:]
    assert margins.min() > NOISES * (exact - rounded).abs().max()
    assert (rounded[:-1] > rounded[1:]).all()


@pytest.fixture(scope="module")
def encoder(checkpoint):
    return Encoder(checkpoint, read_recipe(checkpoint.folder))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_reference_is_the_model_s_own_and_its_noise_far_below_a_defect(models, tokenizer, encoder, dtype):
    vectors = Encoded(encoder, dtype)
    texts = [text for example in CARD.rerank for text in (example.query, *example.documents)]
    rows = vectors.reference(texts)
    for i, example in enumerate(CARD.rerank):
        query, *documents = rows[4 * i : 4 * i + 4]
        assert documents @ query == pytest.approx(cosines(models["float32"], tokenizer, example).numpy(), abs=1e-6)
    noise = noisiest(rows, vectors.members(texts))
    assert {"float32": 1e-7, "bfloat16": 1e-3}[dtype] < noise.mean() < {"float32": 2e-6, "bfloat16": 2e-2}[dtype]
    cut = vectors.reference([text[: len(text) * 9 // 10] for text in texts])
    assert np.linalg.norm(cut - rows, axis=1).mean() > 10 * noise.mean()


@pytest.mark.slow
def test_a_server_that_pools_by_the_first_token_is_not_conformant(run_pytest, tmp_path):
    """Real vLLM, told so by the card."""
    text = CARD.path.read_text(encoding="utf-8")
    usual = 'arguments = ["--runner", "pooling"]'
    assert text.count(usual) == 1
    (tmp_path / "card.toml").write_text(
        text.replace(usual, """arguments = ["--runner", "pooling", "--pooler-config", '{"pooling_type": "CLS"}']""")
    )
    done = run_pytest(
        "--model",
        "card.toml",
        "--npuconf-engine",
        "server",
        "--npuconf-precision",
        "bfloat16",
        "--npuconf-results",
        "r.json",
    )
    assert done.returncode == 1
    results = json.loads((tmp_path / "r.json").read_text())
    assert results["models"]["minilm-l6-v2"]["status"] == "NOT CONFORMANT"
    ratio = next(check for check in results["checks"] if check["check"].startswith("pooling.embeddings"))
    assert ratio["value"] > 10
