"""Checks of the model itself, in whole runs: what is wrong with a checkpoint is a finding with its cause, not a crash."""

from __future__ import annotations

import json

import jsonschema
import pytest

from pytest_npuconf.report.results import schema
from tests.plugin.conftest import PROMPTS, TEXTS, card_text

MODEL = ("--model", "card.toml", "--npuconf-precision", "float32")
FILES_ONLY = (*MODEL, "npuconf/precision/test_model.py", "-k", "not placement")  # loads no model
SHARD = "model-00002-of-00002.safetensors"
MLP = "model.layers.1.mlp.up_proj.weight"


def edit_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_weights(folder, change):
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def shard(folder):
    """The checkpoint in two files with an index, as larger models come."""
    from safetensors.torch import load_file, save_file

    whole = folder / "model.safetensors"
    tensors = load_file(whole)
    names = sorted(tensors)
    halves = {"model-00001-of-00002.safetensors": names[::2], SHARD: names[1::2]}
    for file, chosen in halves.items():
        save_file({name: tensors[name] for name in chosen}, folder / file, metadata={"format": "pt"})
    weight_map = {name: file for file, chosen in halves.items() for name in chosen}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    whole.unlink()


# ---------------------------------------------------------------- config.json against the weights


def test_a_config_that_contradicts_its_own_weights_is_a_finding(run, tiny_copy):
    """The whole run: what needs the engine errs, and the cause is judged and named."""
    edit_json(tiny_copy / "config.json", hidden_size=80)
    result = run(*MODEL, card=card_text(tiny_copy))
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "FAIL model.config: config.differences = 1 (2 values), gate <= 0",
            "  worst: hidden_size: 1 (the card says 64, the checkpoint 80)",
            "FAIL model.weights: weights.differences = *",
            "  worst: *: 1 (*64*in the files, *80*by config.json; hidden_size = 80)",
            "FAIL model.parameters: *",
            "NOT CONFORMANT: tiny *3 required checks failed: model.config, model.weights, model.parameters*",
        ]
    )
    result.stdout.no_fnmatch_line("*INTERNALERROR*")


def test_an_edited_vocabulary_is_a_finding_and_not_the_tokenizers_fault(run, tiny_copy):
    edit_json(tiny_copy / "config.json", vocab_size=100)
    result = run(*FILES_ONLY, card=card_text(tiny_copy))
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["  worst: model.embed_tokens.weight: 1 ((256, 64) in the files, (100, 64) by config.json; vocab_size = 100)"]
    )


def test_a_config_that_builds_no_model_is_a_finding(run, tiny_copy):
    edit_json(tiny_copy / "config.json", hidden_act="nothing")
    result = run(*FILES_ONLY, card=card_text(tiny_copy))
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["FAIL model.weights: * builds no model of config.json: *nothing*", "NOT CONFORMANT: *"]
    )


def test_a_card_that_contradicts_the_config_is_not_conformant(run, tiny_weights):
    card = card_text(tiny_weights).replace("num_hidden_layers = 4", "num_hidden_layers = 36")
    result = run(*FILES_ONLY, card=card)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "FAIL model.config: config.differences = 1 (2 values), gate <= 0",
            "  worst: num_hidden_layers: 1 (the card says 36, the checkpoint 4)",
            "NOT CONFORMANT: *1 required check failed: model.config*",
        ]
    )


# ---------------------------------------------------------------- tensors


@pytest.mark.parametrize(
    ("change", "worst"),
    [
        (lambda tensors: tensors.pop(MLP), f"{MLP}: 1 (missing, (128, 64) by config.json)"),
        (
            lambda tensors: tensors.update({MLP: tensors[MLP][:100].clone()}),
            f"{MLP}: 1 ((100, 64) in the files, (128, 64) by config.json; intermediate_size = 128)",
        ),
        (
            lambda tensors: tensors.update({"model.layers.9.mlp.up_proj.weight": tensors[MLP].clone()}),
            "model.layers.9.mlp.up_proj.weight: 1 ((128, 64) in the files, Qwen3ForCausalLM has no such weight)",
        ),
    ],
    ids=["missing", "another shape", "unexpected"],
)
def test_a_wrong_tensor_is_named(run, tiny_copy, change, worst):
    edit_weights(tiny_copy, change)
    result = run(*FILES_ONLY, card=card_text(tiny_copy))
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "FAIL model.weights: weights.differences = 1 (* tensors), gate <= 0",
            f"  worst: {worst}",
            "FAIL model.parameters: parameters.disagreements = 1 (2 counts), gate <= 0",
            "NOT CONFORMANT: *2 required checks failed: model.weights, model.parameters*",
        ]
    )


def test_shards_are_judged_together_and_a_missing_one_is_named_at_start(run, tiny_copy):
    shard(tiny_copy)
    whole = run(*FILES_ONLY, "-v", card=card_text(tiny_copy))
    whole.stdout.fnmatch_lines(
        ["*pass *model.weights *0 (n = 4? tensors)*", "*reported *model.weight_size *B (n = 2 files)"]
    )
    (tiny_copy / SHARD).unlink()
    result = run(*FILES_ONLY, card=card_text(tiny_copy))
    assert result.ret == 4
    result.stderr.fnmatch_lines(
        [f"ERROR: {tiny_copy}: model.safetensors.index.json names missing files: {SHARD}", "  mend: *"]
    )


# ---------------------------------------------------------------- what the card states


def test_everything_a_card_states_of_its_model(run, pytester, tiny_copy):
    """One run with each of them right or wrong, so that neither answer can come from the check not running."""
    (tiny_copy / "generation_config.json").write_text('{"top_k": 20, "eos_token_id": [3, 1], "temperature": 0.6}')
    more = (
        "[generation_config]\ntop_k = 20\neos_token_id = [3, 1]\ntemperature = 0.7\n[size]\nparameters = 166000\n"
        '[minimum]\npython = "3.99"\nnumpy = "1.0"\ncann = "8.5.1"\nvllm = "0.18.0"\ncpu_count = 1\n'
    )
    card = card_text(tiny_copy, more=more).replace("[weights]", 'files = ["config.json", "merges.txt"]\n[weights]', 1)
    result = run(*FILES_ONLY, "npuconf/audit", "-v", "--npuconf-results", "r.json", card=card)
    assert result.ret == 1
    result.stdout.fnmatch_lines_random(
        [
            "  worst: temperature: 1 (the card says 0.7, the checkpoint 0.6)",
            "  worst: card: 1 (166,000 parameters, config.json gives 164,544 (+1,456))",
            "  worst: merges.txt: 1 (not in the checkpoint's folder)",
            "*pass *model.weights *",
            "*fail *env.minimum *1 (n = 3 minimums)  gate <= 0 *claim",
            "NOT CONFORMANT: *3 required checks failed: model.generation_config, model.parameters, model.files*",
        ]
    )
    checks = {c["check"]: c for c in json.loads((pytester.path / "r.json").read_text())["checks"]}
    minimum = checks["env.minimum"]["data"]
    assert minimum["statistics"] == {"unmet": 1}
    assert checks["env.minimum"]["worst"]["place"] == "python"
    assert {key: found["met"] for key, found in minimum["minimums"].items()} == {
        "python": False,
        "numpy": True,
        "cpu_count": True,
    }
    assert minimum["not_applicable"] == dict.fromkeys(
        ("vllm", "cann"), "not applicable here: engine transformers on cpu"
    )
    size = (tiny_copy / "model.safetensors").stat().st_size
    assert (checks["model.weight_size"]["value"], checks["model.weight_size"]["verdict"]) == (size, None)


def test_a_missing_generation_config_is_a_difference(run, tiny_copy):
    (tiny_copy / "generation_config.json").unlink(missing_ok=True)
    result = run(*FILES_ONLY, card=card_text(tiny_copy, more="[generation_config]\ntop_k = 20\n"))
    assert result.ret == 1
    result.stdout.fnmatch_lines(["  worst: generation_config.json: 1 (the checkpoint has none, the card states top_k)"])


def test_unmet_minimums_do_not_decide_unless_the_card_requires_them(run):
    audit = (*MODEL, "npuconf/audit")
    unmet = '[minimum]\npython = "3.99"\n'
    loose = run(*audit, more=unmet)
    loose.stdout.fnmatch_lines(["*fail *env.minimum *claim", " * python: at least 3.99, found 3.*", "SUBSET: 0 of *"])
    strict = run(*audit, more=unmet + '[required]\ntransformers = ["env.minimum"]\n')
    assert strict.ret == 1
    strict.stdout.fnmatch_lines(
        ["FAIL env.minimum: *", "  worst: python: 1 (at least 3.99, found 3.*)", "NOT CONFORMANT: *failed: env.minimum"]
    )


def test_what_a_card_does_not_state_is_neither_run_nor_skipped(run):
    result = run(*FILES_ONLY, "npuconf/audit", "npuconf/tasks")
    result.assert_outcomes(passed=4, skipped=0)
    for absent in ("model.files", "model.generation_config", "env.minimum", "functional.samples"):
        result.stdout.no_fnmatch_line(f"*{absent}*")


def test_two_cards_of_which_one_states_a_thing(run, pytester, tiny_weights):
    other = card_text(tiny_weights, more="[size]\nparameters = 164544\n").replace('"tiny"', '"other"')
    (pytester.path / "other.toml").write_text(f'files = ["config.json"]\n{other}')
    result = run(*FILES_ONLY, "--model", "other.toml", "-v")
    result.stdout.fnmatch_lines(["*::test_files[[]other[]] PASSED*"])
    result.stdout.no_fnmatch_line("*::test_files[[]tiny[]]*")


def test_a_required_check_that_the_card_gives_nothing_for_is_refused(run):
    result = run(*MODEL, more='[required]\ntransformers = ["model.files", "logits.finite"]\n')
    assert result.ret == 4
    result.stderr.fnmatch_lines(
        ["ERROR: *card.toml: model.files is required, but the card has no files", "  mend: state files in the card, *"]
    )


# ---------------------------------------------------------------- token ids

OTHER_TOKENS = """
from pytest_npuconf.engines.transformers_engine import TransformersEngine, TransformersFactory

class Shifted(TransformersEngine):
    def tokenize(self, text):
        ids = super().tokenize(text)
        return [*ids[:5], 7, *ids[6:]] if text.startswith("Chapter 2") else ids

class Factory(TransformersFactory):
    def load(self, checkpoint, device, dtype, settings):
        return Shifted(checkpoint, device, dtype)

def pytest_npuconf_engines(config):
    return {"transformers": Factory()}
"""


def test_an_engine_with_another_tokenizer_is_a_finding(run, pytester):
    tokens = (*MODEL, "npuconf/precision/test_tokens.py::test_ids")
    run(*tokens, "-v").stdout.fnmatch_lines(["*pass *token.ids *0 (n = 24 texts) *required"])
    pytester.makeconftest(OTHER_TOKENS)
    result = run(*tokens)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "FAIL token.ids: tokenizations.differing = 1 (24 texts), gate <= 0",
            "  worst: text 2: 1 ('Chapter 2. In the year *...' from token 5: expected [[]..., *[]] (* tokens), found *",
            "NOT CONFORMANT: *",
        ]
    )


def test_a_claim_of_a_list_is_compared_element_by_element(run, pytester):
    texts = [f"input number {'x' * n}" for n in range(8)]
    prompts = f"[prompts]\nhidden = {json.dumps(texts)}\n"
    prompts += f"logits = {json.dumps(PROMPTS)}\nperplexity = {json.dumps(TEXTS)}\n"
    claim = (
        '[[claims]]\nid = "{}"\ndocumented = "lengths"\nsource = "nowhere"\nvalue = {}\n'
        'check = "token.ids"\nstatistic = "input_lengths"\n'
    )
    lengths = [len(text) for text in texts]
    more = claim.format("right", lengths) + claim.format("wrong", [*lengths[:-1], 9])
    ids = (*MODEL, "npuconf/precision/test_tokens.py::test_ids")
    result = run(*ids, "-v", "--npuconf-results", "r.json", prompts=prompts, more=more)
    result.stdout.fnmatch_lines(
        ["*claim right: reproduced, measured 13 14 15 16 17 18 19 20", "*claim wrong: not reproduced, *", "CLAIMS: 1 *"]
    )
    jsonschema.validate(
        json.loads((pytester.path / "r.json").read_text()), schema(), cls=jsonschema.Draft202012Validator
    )
