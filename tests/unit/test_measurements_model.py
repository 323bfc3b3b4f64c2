"""The model against its card and its files, on plain data: which tensors, how many parameters, which files."""

import pytest

from pytest_npuconf.gates import Gate, Outcome
from pytest_npuconf.measurements import (
    config_differences,
    generation_differences,
    missing_files,
    parameter_counts,
    weight_differences,
    weight_size,
)
from pytest_npuconf.weights.architecture import Architecture
from pytest_npuconf.weights.checkpoint import Checkpoint, StoredTensor

HEAD, EMBED = "lm_head.weight", "model.embed_tokens.weight"
SHAPES = {EMBED: (10, 4), "model.layers.0.up.weight": (8, 4), "model.norm.weight": (4,), HEAD: (10, 4)}
TIED = Architecture(
    "Tiny", SHAPES, tied=(frozenset({HEAD, EMBED}),), prefix="model", embedding=frozenset({HEAD, EMBED}),
    buffers=frozenset({"model.rotary.inv_freq"}), ignored=(r"rotary_emb\.inv_freq$",),
)  # fmt: skip
UNTIED = Architecture("Tiny", SHAPES, prefix="model", embedding=frozenset({HEAD, EMBED}))
UNBUILDABLE = Architecture("", {}, unbuildable="builds no model: hidden_size is no multiple")
CONFIG = {"hidden_size": 4, "vocab_size": 10, "intermediate_size": 8, "name": "x", "tied": True}


def stored(shapes=None, *, without=(), **more):
    """Stored tensors: the whole model with its tied head left out, as files have it."""
    chosen = {name: shape for name, shape in (shapes or SHAPES).items() if name not in (*without, HEAD)}
    return {name: StoredTensor(tuple(shape), "BF16", "m.safetensors") for name, shape in {**chosen, **more}.items()}


def weights(tensors, architecture=TIED, config=CONFIG):
    return weight_differences(architecture, tensors, config)


def places(measurement):
    return [row.place for row in measurement.rows]


# ---------------------------------------------------------------- weights


def test_a_whole_checkpoint_has_no_differences():
    measured = weights(stored())
    assert (measured.value, measured.n, measured.of, measured.rows) == (0, 4, "tensors", ())


def test_a_stored_tied_head_is_no_difference():
    assert weights(stored(**{HEAD: (10, 4)})).value == 0


def test_the_head_alone_will_do_for_the_tied_pair():
    assert weights(stored(without=(EMBED,), **{HEAD: (10, 4)})).value == 0


def test_without_ties_the_head_is_missing():
    measured = weights(stored(), UNTIED)
    assert places(measured) == [HEAD]
    assert measured.rows[0].detail == "missing, (10, 4) by config.json"


def test_both_of_a_tied_pair_missing_are_missing():
    assert weights(stored(without=(EMBED,))).value == 2


def test_a_missing_weight_is_named():
    measured = weights(stored(without=("model.norm.weight",)))
    assert (measured.value, places(measured), measured.data["missing"]) == (1, ["model.norm.weight"], 1)


def test_an_optional_weight_is_not_missed():
    architecture = Architecture("Tiny", {"a": (1,), "b": (1,)}, optional=(r"^b$",))
    assert weights(stored({"a": (1,)}), architecture).value == 0
    assert places(weights(stored({"b": (1,)}), architecture)) == ["a"]


def test_another_shape_names_the_key_of_the_config_that_asks_for_it():
    measured = weights(stored(**{"model.layers.0.up.weight": (6, 4)}))
    assert places(measured) == ["model.layers.0.up.weight"]
    assert measured.rows[0].detail == "(6, 4) in the files, (8, 4) by config.json; intermediate_size = 8"
    assert measured.data["differing"] == 1


def test_a_transposed_weight_is_another_shape():
    assert weights(stored(**{"model.layers.0.up.weight": (4, 8)})).value == 1


def test_an_unexpected_weight_is_listed():
    measured = weights(stored(**{"model.layers.1.up.weight": (8, 4)}))
    assert (measured.value, places(measured), measured.data["unexpected"]) == (1, ["model.layers.1.up.weight"], 1)
    assert measured.rows[0].detail == "(8, 4) in the files, Tiny has no such weight"


@pytest.mark.parametrize("name", ["model.layers.0.rotary_emb.inv_freq", "model.rotary.inv_freq"])
def test_what_transformers_passes_over_is_listed_and_no_difference(name):
    measured = weights(stored(**{name: (2,)}))
    assert (measured.value, measured.data["passed_over"], measured.data["passed_over_total"]) == (0, [name], 1)


def test_differing_come_before_missing_before_unexpected():
    measured = weights(stored(without=("model.norm.weight",), **{"model.x": (1,), EMBED: (9, 4)}))
    assert places(measured) == [EMBED, "model.norm.weight", "model.x"]
    assert measured.value == measured.data["rows_total"] == 3


def test_many_differences_are_counted_and_ten_shown():
    measured = weights(stored(**{f"x.{i}": (1,) for i in range(25)}))
    assert (measured.value, len(measured.rows), measured.data["rows_total"]) == (25, 10, 25)


def test_the_decoders_prefix_may_be_left_out_or_be_one_more():
    bare = {name.removeprefix("model."): shape for name, shape in SHAPES.items() if name != HEAD}
    assert weights(stored(bare)).value == 0
    assert weights(stored({f"model.{name}": shape for name, shape in SHAPES.items()})).value == 0


def test_a_weight_under_both_names_is_there_once_and_unexpected_once():
    measured = weights(stored(**{"norm.weight": (4,)}))
    assert (measured.value, places(measured)) == (1, ["norm.weight"])


def test_a_config_that_builds_nothing_fails_with_its_cause():
    measured = weights(stored(), UNBUILDABLE)
    assert measured.broken == "builds no model: hidden_size is no multiple"
    assert Gate("g", 0).judge(measured).outcome is Outcome.FAIL


# ---------------------------------------------------------------- parameters


def counts(tensors, stated=None, architecture=TIED):
    return parameter_counts(architecture, tensors, stated)


def test_a_tied_weight_counts_once_however_often_it_is_stored():
    for tensors in (stored(), stored(**{HEAD: (10, 4)}), stored(without=(EMBED,), **{HEAD: (10, 4)})):
        measured = counts(tensors)
        assert (measured.value, measured.n) == (0, 2)
        assert measured.data["statistics"] == {"parameters": 40 + 32 + 4, "parameters_without_embedding": 36}


def test_without_ties_embedding_and_head_both_count_and_both_are_left_out():
    measured = counts(stored(**{HEAD: (10, 4)}), architecture=UNTIED)
    assert measured.data["statistics"] == {"parameters": 116, "parameters_without_embedding": 36}


def test_buffers_are_no_parameters():
    assert counts(stored(**{"model.rotary.inv_freq": (99,), "a.rotary_emb.inv_freq": (99,)})).value == 0


def test_the_files_against_the_config():
    measured = counts(stored(**{"model.layers.1.up.weight": (8, 4)}), 76)
    assert (measured.value, places(measured)) == (1, ["files"])
    assert measured.rows[0].detail == "108 parameters, config.json gives 76 (+32)"
    assert (measured.data["by_config"], measured.data["in_files"], measured.data["card"]) == (76, 108, 76)


def test_the_card_against_the_config():
    measured = counts(stored(), 77)
    assert (measured.value, measured.n, places(measured)) == (1, 3, ["card"])
    assert measured.rows[0].detail == "77 parameters, config.json gives 76 (+1)"


def test_card_and_files_agree_against_the_config():
    assert places(counts(stored(**{"model.layers.1.up.weight": (8, 4)}), 108)) == ["files", "card"]


def test_parameters_of_a_config_that_builds_nothing():
    assert counts(stored(), 76, UNBUILDABLE).broken


# ---------------------------------------------------------------- config, generation config, files, size


def test_config_differences_name_the_key_and_both_values():
    measured = config_differences(
        {"hidden_size": 64, "layers": 4, "eps": 1e-5}, {"hidden_size": 65, "eps": 9.999999747378752e-06}
    )
    assert (measured.value, measured.n) == (2, 3)
    assert [(r.place, r.detail) for r in measured.rows] == [
        ("hidden_size", "the card says 64, the checkpoint 65"),
        ("layers", "the card says 4, the checkpoint None"),
    ]


@pytest.mark.parametrize(
    ("found", "differing"),
    [
        ({"temperature": 0.6, "eos_token_id": [3, 1], "more": 1}, []),
        ({"temperature": 0.7, "eos_token_id": [3, 1]}, ["temperature"]),
        ({"temperature": 0.6, "eos_token_id": [1, 3]}, ["eos_token_id"]),
        ({"temperature": 0.6, "eos_token_id": 3}, ["eos_token_id"]),
        ({}, ["temperature", "eos_token_id"]),
        (None, ["generation_config.json"]),
    ],
)
def test_generation_differences(found, differing):
    measured = generation_differences({"temperature": 0.6, "eos_token_id": [3, 1]}, found)
    assert (measured.value, places(measured), measured.n) == (len(differing), differing, 2)


def test_a_missing_generation_config_says_what_the_card_states():
    [row] = generation_differences({"temperature": 0.6, "top_k": 20}, None).rows
    assert row.detail == "the checkpoint has none, the card states temperature, top_k"


def test_missing_files_are_named():
    measured = missing_files(("a", "b", "c"), ["b", "z"])
    assert (measured.value, measured.n, places(measured)) == (2, 3, ["a", "c"])


def test_the_size_is_that_of_the_files_in_both_units():
    measured = weight_size({"a": 3 * 2**30, "b": 5 * 2**30}, stored().values(), "here")
    assert (measured.value, measured.unit, measured.n) == (8 * 2**30, "B", 2)
    assert measured.data["statistics"] == {"gb": 8.589934592, "gib": 8.0}
    assert (places(measured), measured.data["dtypes"], measured.data["origin"]) == (["b", "a"], ["BF16"], "here")


# ---------------------------------------------------------------- what the checkpoint tells


@pytest.mark.parametrize(
    ("config", "tensors", "vocabulary"),
    [
        ({"vocab_size": 10}, {}, 10),
        ({"vocab_size": 5}, stored(), 10),
        ({"vocab_size": 99}, stored(), 99),
        ({}, stored(), 10),
        ({}, {}, None),
        ({"vocab_size": "many"}, {}, None),
    ],
)
def test_the_vocabulary_is_the_greater_of_config_and_embedding(tmp_path, config, tensors, vocabulary):
    assert Checkpoint(tmp_path, config, 1, 1, "here", tensors).vocabulary() == vocabulary
