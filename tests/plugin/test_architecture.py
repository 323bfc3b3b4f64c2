"""What config.json asks for, as transformers builds and saves it: nothing that transformers itself saved is a finding."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from pytest_npuconf import measurements
from pytest_npuconf.engines.architecture import read_architecture
from pytest_npuconf.errors import EngineError
from pytest_npuconf.weights import read_checkpoint
from tests.plugin.conftest import write_tokenizer

SMALL = {"vocab_size": 256, "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}
GROUPED = {**SMALL, "intermediate_size": 128, "num_key_value_heads": 2}
QUIET = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
CONFIGS = {
    "qwen3 tied": ("Qwen3", {**GROUPED, "head_dim": 16, "tie_word_embeddings": True}),
    "qwen3 untied": ("Qwen3", {**GROUPED, "head_dim": 16, "tie_word_embeddings": False}),
    "qwen2 with biases": ("Qwen2", {**GROUPED, "tie_word_embeddings": True}),
    "llama": ("Llama", {**GROUPED, **QUIET, "tie_word_embeddings": False}),
    "gpt2": ("GPT2", {**QUIET, "vocab_size": 256, "n_embd": 64, "n_head": 4, "n_layer": 2}),
    "mixture": ("Qwen3Moe", {**GROUPED, "head_dim": 16, "num_experts": 4, "moe_intermediate_size": 32}),
}


def save(folder, kind):
    """A checkpoint as transformers saves it, and its number of parameters by torch."""
    name, options = CONFIGS[kind]
    config = getattr(transformers, f"{name}Config")(**options)
    model = transformers.AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return sum(p.numel() for p in model.parameters())


def judge(folder):
    """Differences of the weights, and disagreements about their number."""
    checkpoint = read_checkpoint(folder, "here", "get it again")
    architecture = read_architecture(checkpoint)
    return (
        measurements.weight_differences(architecture, checkpoint.tensors, checkpoint.config),
        measurements.parameter_counts(architecture, checkpoint.tensors, None),
    )


def rewrite(folder, change):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize("kind", CONFIGS)
def test_what_transformers_saved_has_no_differences(tmp_path, kind):
    parameters = save(tmp_path, kind)
    weights, counts = judge(tmp_path)
    assert (weights.broken, weights.value, weights.rows) == ("", 0, ())
    assert (counts.value, counts.rows) == (0, ())
    assert counts.data["statistics"]["parameters"] == parameters


@pytest.mark.parametrize(("kind", "outside"), [("qwen3 tied", 1), ("qwen3 untied", 2)])
def test_parameters_without_embedding_leave_out_embedding_and_head(tmp_path, kind, outside):
    parameters = save(tmp_path, kind)
    statistics = judge(tmp_path)[1].data["statistics"]
    assert statistics["parameters_without_embedding"] == parameters - outside * 256 * 64


@pytest.mark.parametrize("kind", ["BertModel", "Qwen3Model", "RobertaForMaskedLM"])
def test_a_model_without_a_head_to_generate_with_is_built_without_one(tmp_path, kind):
    config = getattr(transformers, kind.replace("Model", "Config").replace("ForMaskedLM", "Config"))
    options = {"head_dim": 16, "num_key_value_heads": 2} if kind == "Qwen3Model" else QUIET
    model = getattr(transformers, kind)(config(**SMALL, intermediate_size=128, **options))
    model.save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    weights, counts = judge(tmp_path)
    assert (weights.value, weights.rows, counts.value, counts.rows) == (0, (), 0, ())
    assert weights.data["architecture"] == kind
    assert counts.data["statistics"]["parameters"] == sum(p.numel() for p in model.parameters())
    rewrite(tmp_path, lambda tensors: tensors.pop(next(name for name in tensors if "layer" in name and "1." in name)))
    assert [row.detail.split(",")[0] for row in judge(tmp_path)[0].rows] == ["missing"]


def test_a_tied_head_that_is_stored_too_and_old_buffers_are_no_findings(tmp_path):
    save(tmp_path, "qwen3 tied")

    def age(tensors):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)

    rewrite(tmp_path, age)
    weights, counts = judge(tmp_path)
    assert (weights.value, counts.value) == (0, 0)
    assert weights.data["passed_over"] == ["model.layers.0.self_attn.rotary_emb.inv_freq"]


def test_weights_saved_from_the_decoder_alone_have_no_prefix_and_are_whole(tmp_path):
    save(tmp_path, "qwen3 tied")

    def strip(tensors):
        for name in list(tensors):
            tensors[name.removeprefix("model.")] = tensors.pop(name)

    rewrite(tmp_path, strip)
    assert [m.value for m in judge(tmp_path)] == [0, 0]


def test_missing_reshaped_and_unexpected_tensors_are_each_named(tmp_path):
    save(tmp_path, "mixture")

    def damage(tensors):
        expert = "model.layers.1.mlp.experts.3.up_proj.weight"
        del tensors["model.layers.0.mlp.experts.2.down_proj.weight"]
        tensors[expert] = tensors[expert].T.contiguous()
        tensors["model.layers.0.mlp.shared.weight"] = torch.ones(3)

    rewrite(tmp_path, damage)
    weights, counts = judge(tmp_path)
    assert {row.place: row.detail.split(",")[0] for row in weights.rows} == {
        "model.layers.1.mlp.experts.3.up_proj.weight": "(64",
        "model.layers.0.mlp.experts.2.down_proj.weight": "missing",
        "model.layers.0.mlp.shared.weight": "(3",
    }
    assert counts.value == 1


def test_no_weight_is_read_and_no_memory_used(tmp_path):
    """A config of 10^12 parameters is built at once: on the meta device."""
    save(tmp_path, "qwen3 tied")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "intermediate_size": 10**10}))
    weights, counts = judge(tmp_path)
    assert weights.data["differing"] == 6
    assert counts.data["by_config"] > 10**12


def test_a_config_that_builds_no_model_is_a_finding_with_transformers_own_words(tmp_path):
    save(tmp_path, "llama")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "hidden_act": "nothing"}))
    for measured in judge(tmp_path):
        assert "builds no model of config.json: " in measured.broken


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"model_type": "qwen99"}, "knows no causal language model of model_type 'qwen99'"),
        (
            {"model_type": "own", "auto_map": {"AutoModelForCausalLM": "m.M"}},
            "brings its own model code, which is not run",
        ),
        ({"quantization_config": {"quant_method": "awq"}}, "a quantized checkpoint are not compared yet"),
    ],
)
def test_what_cannot_be_compared_is_an_error_and_no_finding(tmp_path, change, problem):
    save(tmp_path, "qwen3 tied")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(EngineError, match=problem):
        judge(tmp_path)
