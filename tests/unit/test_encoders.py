"""The reference of a model without a head, on a small random BERT: its files decide, and the yardstick is rounding alone."""

import dataclasses
import json

import numpy as np
import pytest

from pytest_npuconf.cards import find_card
from pytest_npuconf.cards.loading import load_card
from pytest_npuconf.engines.architecture import check_head
from pytest_npuconf.errors import EngineError, WeightsError
from pytest_npuconf.options import Settings
from pytest_npuconf.plan import Extensions, make_plan
from pytest_npuconf.progress import Progress
from pytest_npuconf.serving.bench import ServingBench
from pytest_npuconf.serving.encoders import YARDSTICK, Encoded, Encoder, Recipe, read_recipe, vectors_of
from pytest_npuconf.serving.pooling import Vectors, noisiest
from pytest_npuconf.sharing import Shared
from pytest_npuconf.weights.architecture import headless
from pytest_npuconf.weights.checkpoint import read_checkpoint
from pytest_npuconf.workbench import Workbench
from tests.plugin.conftest import write_random_qwen3, write_tokenizer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TEXTS = ("The boat lies at the weir", "Bread", "In the year 1807 the river rose by seven feet and two boats were lost")
STEPS = ("Transformer", "Pooling", "Normalize")
MEAN = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
CARD = 'name = "small"\n[serving.modes.embed]\narguments = ["--runner", "pooling"]\n'


def write_recipe(folder, pooling=MEAN, steps=STEPS):
    """modules.json and 1_Pooling/config.json as sentence-transformers writes them."""
    modules = [{"idx": i, "name": str(i), "path": "" if kind == "Transformer" else f"{i}_{kind}",
                "type": f"sentence_transformers.models.{kind}"} for i, kind in enumerate(steps)]  # fmt: skip
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A BERT with weights wide enough that places and neighbours matter."""
    folder = tmp_path_factory.mktemp("bert")
    config = transformers.BertConfig(
        vocab_size=256, hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=128,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.BertModel(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "LayerNorm" not in name:
                weight.normal_(0, 0.15)
    model.save_pretrained(folder)
    write_tokenizer(folder)
    write_recipe(folder)
    return folder


@pytest.fixture(scope="module")
def bert(written):
    return read_checkpoint(written, "here", "get it again")


def workbench_of(checkpoint, card_text, tmp_path):
    """Of a run at an endpoint, which needs no serving engine here."""
    path = tmp_path / "card.toml"
    path.write_text(card_text)
    settings = Settings(models=(str(path),), engine="server", endpoints=(("embed", "http://127.0.0.1:9"),))
    plan = dataclasses.replace(make_plan(settings, Extensions()), checkpoints={"small": checkpoint})
    return Workbench(plan, Progress(lambda _: None), Shared())


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_each_vector_is_what_a_padded_batch_gives_over_its_attention_mask(bert, written, pooling):
    model = transformers.AutoModel.from_pretrained(written).eval()
    encoder = Encoder(bert, Recipe(pooling))
    rows = [encoder.tokenizer(text)["input_ids"] for text in TEXTS]
    longest = max(map(len, rows))
    mask = torch.tensor([[1.0] * len(row) + [0.0] * (longest - len(row)) for row in rows])
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    with torch.inference_mode():
        states = model(input_ids=ids, attention_mask=mask).last_hidden_state
    by_hand = {
        "mean": (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True),
        "cls": states[:, 0],
        "last": torch.stack([row[len(ids) - 1] for row, ids in zip(states, rows, strict=True)]),
    }
    expected = torch.nn.functional.normalize(by_hand[pooling], dim=1).numpy()
    assert Encoded(encoder, "float32").reference(TEXTS) == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize(("dtype", "least", "most"), [("float32", 1e-9, 1e-5), ("bfloat16", 1e-4, 5e-2)])
def test_members_are_off_by_rounding_and_by_nothing_else(bert, dtype, least, most):
    vectors = Encoded(Encoder(bert, Recipe("mean")), dtype)
    reference, members = vectors.reference(TEXTS), vectors.members(TEXTS)
    assert len(members) == len(YARDSTICK)
    for name, rows in members.items():
        assert np.linalg.norm(rows, axis=1) == pytest.approx(1, abs=1e-6)
        distance = np.linalg.norm(rows - reference, axis=1).mean()
        assert least < distance < most, name
    # transformers 4.57 cannot change the attention of a loaded BERT: its eager members are the plain ones
    fewest = 2 if transformers.__version__.startswith("4.") else 3
    assert len({rows.tobytes() for rows in members.values()}) >= fewest


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_first_tokens_state_is_no_rounding_of_the_mean(bert, dtype):
    mean, first = (Encoded(Encoder(bert, Recipe(way)), dtype) for way in ("mean", "cls"))
    reference = mean.reference(TEXTS)
    noise = noisiest(reference, mean.members(TEXTS))
    assert np.linalg.norm(first.reference(TEXTS) - reference, axis=1).min() > 10 * noise.max()


def test_a_text_is_computed_once_and_the_order_is_the_caller_s(bert, tmp_path):
    for file in bert.folder.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    vectors = Encoded(Encoder(dataclasses.replace(bert, folder=tmp_path), Recipe("mean")), "bfloat16")
    there = vectors.members(TEXTS)
    (tmp_path / "model.safetensors").unlink()
    again = vectors.members([TEXTS[2], TEXTS[0], TEXTS[2]])
    for name, rows in there.items():
        assert (again[name] == rows[[2, 0, 2]]).all()
    with pytest.raises(EngineError, match="cannot load"):
        vectors.members(["another text"])


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        (MEAN, "mean"),
        ({"pooling_mode_cls_token": True, "include_prompt": True}, "cls"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode": "mean", "embedding_dimension": 64}, "mean"),
    ],
)
def test_the_files_say_how_tokens_become_one_vector(tmp_path, pooling, expected):
    assert read_recipe(tmp_path) is None
    write_recipe(tmp_path, pooling)
    assert read_recipe(tmp_path) == Recipe(expected)
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 8, "do_lower_case": true}')
    assert read_recipe(tmp_path) == Recipe(expected, lower=True)


def test_a_text_is_put_into_lower_case_where_the_files_say_so(bert):
    upper, lower = Encoder(bert, Recipe("mean")), Encoder(bert, Recipe("mean", lower=True))
    assert upper.document("A BOAT").ids != lower.document("A BOAT").ids == upper.document("a boat").ids


@pytest.mark.parametrize(
    ("pooling", "steps", "problem"),
    [
        (MEAN, ("Transformer", "Pooling", "Dense", "Normalize"), "Transformer > Pooling > Dense > Normalize"),
        (MEAN, ("Transformer", "Pooling"), "only Transformer > Pooling > Normalize"),
        ({**MEAN, "pooling_mode_cls_token": True}, STEPS, "mean_tokens and cls_token"),
        ({"pooling_mode_max_tokens": True}, STEPS, "pooling max_tokens"),
        ({}, STEPS, "of no kind"),
    ],
)
def test_steps_that_are_not_known_are_named(tmp_path, pooling, steps, problem):
    write_recipe(tmp_path, pooling, steps)
    with pytest.raises(EngineError, match=problem):
        read_recipe(tmp_path)


@pytest.mark.parametrize("text", ["{", "{}", "[1]", '[{"path": ""}]', "7"])
def test_modules_that_are_no_list_of_modules(tmp_path, text):
    (tmp_path / "modules.json").write_text(text)
    with pytest.raises((WeightsError, EngineError), match=r"modules\.json"):
        read_recipe(tmp_path)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"architectures": ["BertModel"]}, "BertModel"),
        ({"architectures": ["XLMRobertaForMaskedLM"]}, "XLMRobertaForMaskedLM"),
        ({"architectures": ["Qwen3Model"]}, "Qwen3Model"),
        ({"architectures": ["GPT2LMHeadModel"]}, ""),
        ({"architectures": ["Qwen3ForCausalLM"]}, ""),
        ({"architectures": ["ChatGLMModel"], "auto_map": {"AutoModelForCausalLM": "m.M"}}, ""),
        ({"architectures": []}, ""),
        ({}, ""),
    ],
)
def test_which_architectures_have_no_head(config, expected):
    assert headless(config) == expected


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory):
    return write_random_qwen3(tmp_path_factory.mktemp("qwen3"), 256)


def test_the_reference_is_chosen_by_what_the_checkpoint_is(bert, qwen3, tmp_path):
    assert isinstance(vectors_of(workbench_of(bert, CARD, tmp_path), "small", "bfloat16"), Encoded)
    decoder = workbench_of(read_checkpoint(qwen3, "here", ""), CARD, tmp_path)
    assert isinstance(vectors_of(decoder, "small", "bfloat16"), Vectors)
    write_recipe(qwen3, {"pooling_mode_lasttoken": True})
    assert isinstance(vectors_of(decoder, "small", "bfloat16"), Vectors)
    write_recipe(qwen3)
    assert isinstance(vectors_of(decoder, "small", "bfloat16"), Encoded)


def test_a_decoder_s_last_token_is_the_same_by_both_references(qwen3, tmp_path):
    checkpoint = read_checkpoint(qwen3, "here", "")
    for file in ("modules.json", "1_Pooling/config.json"):
        (qwen3 / file).unlink(missing_ok=True)
    usual = vectors_of(workbench_of(checkpoint, CARD, tmp_path), "small", "bfloat16")
    bare = Encoded(Encoder(checkpoint, Recipe("last")), "bfloat16")
    assert bare.reference(TEXTS) == pytest.approx(usual.reference(TEXTS), abs=1e-6)


def test_a_model_without_a_head_whose_files_say_no_pooling(bert, tmp_path):
    folder = tmp_path / "weights"
    folder.mkdir()
    checkpoint = dataclasses.replace(bert, folder=folder)
    with pytest.raises(EngineError, match=r"BertModel has no modules\.json"):
        vectors_of(workbench_of(checkpoint, CARD, tmp_path), "small", "float32")


def test_no_logits_are_asked_of_an_encoder(bert, tmp_path):
    with pytest.raises(EngineError, match=r"is a BertModel, which has no logits.*only served, in mode embed") as error:
        make_plan(Settings(models=("minilm-l6-v2",)), Extensions())
    assert error.value.mend == "--npuconf-engine server"
    path = tmp_path / "card.toml"
    path.write_text('name = "small"\n')
    with pytest.raises(EngineError, match="served in mode generate, and a BertModel generates nothing"):
        check_head(load_card(path), bert.config, serves=True)
    check_head(find_card("minilm-l6-v2"), bert.config, serves=True)
    check_head(find_card("tiny-qwen3"), {"architectures": ["Qwen3ForCausalLM"]}, serves=False)


@dataclasses.dataclass
class Told:
    """What a server says of itself."""

    mode: str
    max_model_len: int


def test_each_text_of_a_ranking_must_fit_and_no_other(bert, tmp_path):
    card = f'{CARD}[[rerank]]\nname = "one"\nquery = "short"\ndocuments = ["{"x" * 100}", "{"x" * 99}"]\nmodes = ["embed"]\n'
    workbench = workbench_of(bert, card, tmp_path)
    workbench.plan.documents["small"] = ()
    bench = ServingBench(workbench, workbench.plan, Progress(lambda _: None))
    for mode in ("embed", "score"):
        bench._check_lengths(Told(mode, 100), "small")
        with pytest.raises(EngineError, match=rf"'x{{40}}' ... has 100 tokens, and the server takes 99 in mode {mode}"):
            bench._check_lengths(Told(mode, 99), "small")
    bench._check_lengths(Told("classify", 2), "small")
