"""The committed stand-in ``tiny-qwen3-reranker``: it orders the card's examples both ways, and speaks as tiny-qwen3 does."""

from __future__ import annotations

import itertools
import json

import pytest

from fixtures.factory import dialogues, facts, measure, ranking, ranking_figures, rerank, reranker
from fixtures.factory.corpus import is_held_out, standard_library
from fixtures.factory.export import file_sha256
from fixtures.factory.tokenizer import ADDED, IM_END
from pytest_npuconf.answers import final_answer
from pytest_npuconf.cards import find_card
from pytest_npuconf.locate import data_folder

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

FOLDER = data_folder("fixtures") / "tiny-qwen3-reranker"
BASE = data_folder("fixtures") / "tiny-qwen3"
DTYPES = ("float32", "bfloat16")
NOISES = {"embed": 50.0, "score": 10.0}  # the least margin of two neighbours, in units of what bfloat16 changes in them
EXAMPLES = rerank.examples()
NAMES = [example.name for example in EXAMPLES]


@pytest.fixture(scope="module")
def tokenizer():
    return transformers.AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def models():
    load = transformers.AutoModelForCausalLM.from_pretrained
    return {dtype: load(FOLDER, dtype=getattr(torch, dtype)).eval() for dtype in DTYPES}


@pytest.fixture(scope="module")
def encode(tokenizer):
    return lambda text: tokenizer(text)["input_ids"]


@pytest.fixture(scope="module")
def build():
    return json.loads((FOLDER / "BUILD.json").read_text(encoding="utf-8"))


# ---------------------------------------------------------------- the folder


def test_the_folder_is_whole_and_small(build):
    found = {path.name: path for path in FOLDER.iterdir() if not path.name.startswith(".")}
    assert set(found) == {*build["sha256"], "BUILD.json"}
    for name, digest in build["sha256"].items():
        assert file_sha256(found[name]) == digest, name
    assert sum(path.stat().st_size for path in found.values()) <= 12 * 2**20


def test_it_was_made_from_the_tiny_qwen3_that_is_here(build):
    assert build["base"] == {"name": "tiny-qwen3", "sha256": file_sha256(BASE / "model.safetensors")}
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        assert (FOLDER / name).read_bytes() == (BASE / name).read_bytes()


def test_the_card_says_what_the_folder_holds(models, tokenizer):
    card = find_card("tiny-qwen3-reranker")
    written = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))
    assert card.stand_in
    assert card.weights.path == FOLDER
    assert set(card.files) == {path.name for path in FOLDER.iterdir() if not path.name.startswith(".")}
    assert {key: written[key] for key in card.config} == card.config
    assert json.loads((FOLDER / "generation_config.json").read_text(encoding="utf-8")) == card.generation_config
    assert card.parameters == sum(parameter.numel() for parameter in models["float32"].parameters())
    for probe in card.probes:
        assert tuple(tokenizer(probe.text)["input_ids"]) == probe.ids


def test_the_card_has_the_factorys_examples():
    """All but one for both modes: its yes and no leave the last two of "end of a long document" .005 apart, the wrong way."""
    stated = [(e.name, e.query, e.documents) for e in find_card("tiny-qwen3-reranker").rerank]
    assert stated == [(e.name, e.query, e.documents) for e in EXAMPLES]
    other = {e.name: e.modes for e in find_card("tiny-qwen3-reranker").rerank if e.modes != ("embed", "score")}
    assert other == {"end of a long document": ("embed",)}


# ---------------------------------------------------------------- the tokenizer


def test_the_tokenizer_differs_from_tiny_qwen3s_by_one_token(tokenizer):
    own, other = tokenizer.get_vocab(), transformers.AutoTokenizer.from_pretrained(BASE).get_vocab()
    assert len(own) == len(other)
    assert set(own) - set(other) == {rerank.YES}
    [lost] = set(other) - set(own)
    assert own[rerank.YES] == other[lost]
    assert all(own[token] == other[token] for token in set(own) & set(other))


@pytest.mark.parametrize("word", [rerank.NO, rerank.YES])
def test_each_answer_is_one_token_also_as_vllm_looks_it_up(tokenizer, word):
    [own] = tokenizer(word)["input_ids"]
    assert tokenizer.convert_tokens_to_ids(word) == own


@pytest.mark.parametrize(
    "text", ["eyes of yesterday, yes", "编写一个 Python 函数来检查字符串是否为回文。", "🙂 H₂O\t\x00"]
)
def test_every_text_comes_back_and_nothing_is_added(tokenizer, text):
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
    assert not set(ids) & set(tokenizer.convert_tokens_to_ids(list(ADDED)))


def test_the_template_gives_the_prompt_that_was_trained(tokenizer):
    template = (FOLDER / "score_template.jinja").read_text(encoding="utf-8")
    messages = [{"role": "query", "content": "A 'q'?"}, {"role": "document", "content": 'B\n"d"'}]
    said = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False)
    assert said == rerank.asked("A 'q'?", 'B\n"d"')
    own = tokenizer.apply_chat_template(
        [{"role": "system", "content": "Find it"}, *messages], chat_template=template, tokenize=False
    )
    assert own == said.replace(rerank.INSTRUCTION, "Find it")


# ---------------------------------------------------------------- the orders

RANKED = [(example.name, mode) for example in find_card("tiny-qwen3-reranker").rerank for mode in example.modes]


@pytest.fixture(scope="module")
def ranked(models, encode):
    """``[mode][example][dtype]``: one value for each document."""
    with torch.inference_mode():
        return {
            mode: {e.name: {d: of(models[d], encode, e.query, e.documents) for d in DTYPES} for e in EXAMPLES}
            for mode, of in ranking_figures.MODES.items()
        }


@pytest.mark.parametrize(("name", "mode"), RANKED)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_best_document_is_first_and_so_on(ranked, mode, name, dtype):
    values = ranked[mode][name][dtype]
    assert (values[:-1] > values[1:]).all(), values


@pytest.mark.parametrize(("name", "mode"), RANKED)
def test_every_margin_is_far_above_what_rounding_changes(ranked, mode, name):
    exact, rounded = (ranked[mode][name][dtype] for dtype in DTYPES)
    assert ranking_figures.noises(exact, rounded) > NOISES[mode]


@pytest.mark.parametrize("mode", ["embed", "score"])
def test_the_build_says_what_is_measured_here(build, ranked, mode):
    for name in NAMES:
        said = build["measured"]["examples"][name][mode]
        assert said["float32"] == pytest.approx(ranked[mode][name]["float32"].tolist(), abs=2e-3)


def test_the_score_is_a_softmax_over_the_two_answers(models, encode):
    example, model = EXAMPLES[0], models["float32"]
    with torch.inference_mode():
        found = ranking.scores(model, encode, example.query, example.documents)
        for document, score in zip(example.documents, found, strict=True):
            logits = model(torch.tensor([encode(rerank.asked(example.query, document))])).logits[0, -1]
            both = torch.stack([logits[encode(rerank.NO)[0]], logits[encode(rerank.YES)[0]]])
            assert score.item() == pytest.approx(both.softmax(0)[1].item(), abs=1e-5)
            assert logits.argmax().item() in (encode(rerank.NO)[0], encode(rerank.YES)[0])


def test_an_embedding_is_the_last_hidden_state_divided_by_its_length(models, encode):
    model, texts = models["float32"], ["A", EXAMPLES[-1].documents[0], "法国"]
    with torch.inference_mode():
        found = ranking.embed(model, encode, texts)
        for text, vector in zip(texts, found, strict=True):
            state = model.model(torch.tensor([encode(text)])).last_hidden_state[0, -1]
            assert torch.allclose(vector, state / state.norm(), atol=1e-5)


WRONG_POOLING = {"first token": lambda h: h[0], "mean": lambda h: h.mean(0), "last but one": lambda h: h[-2]}


@pytest.mark.parametrize("name", WRONG_POOLING)
def test_a_wrong_pooling_upsets_several_orders(models, encode, name):
    """What the examples are for: a fault of the pooling is seen in the order."""
    upset = 0
    with torch.inference_mode():
        for example in EXAMPLES:
            states = [
                WRONG_POOLING[name](models["float32"].model(torch.tensor([encode(text)])).last_hidden_state[0])
                for text in (example.query, *example.documents)
            ]
            vectors = torch.nn.functional.normalize(torch.stack(states), dim=-1)
            values = vectors[1:] @ vectors[0]
            upset += not (values[:-1] > values[1:]).all()
    assert upset >= 3


def test_words_in_common_give_most_orders_wrong():
    """A bag of words cannot do it: the share of the query's words that a document has."""
    wrong = 0
    for example in EXAMPLES:
        asked = set(_words(example.query))
        shares = [len(asked & set(_words(document))) for document in example.documents]
        wrong += not all(a > b for a, b in itertools.pairwise(shares))
    assert wrong > len(EXAMPLES) / 2


def _words(text):
    plain = "".join(c if c.isalnum() else " " for c in text.lower())
    return plain.split() if plain.isascii() else list(plain.replace(" ", ""))


def test_a_question_never_trained_on_finds_its_answer(models, encode):
    found = ranking_figures.held_out(models["float32"], encode, ranking.Pairs(0))
    assert found["questions"] >= 50
    assert found["first"] > 0.6
    assert min(found["ordered"].values()) > 0.9


# ---------------------------------------------------------------- it speaks as before


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("number", range(4))
def test_a_documented_dialogue_thinks_and_answers(models, tokenizer, dtype, number):
    dialogue = dialogues.documented()[number]
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": dialogue.question}], tokenize=False, add_generation_prompt=True
    )
    end = tokenizer.convert_tokens_to_ids(IM_END)
    ids, gap = measure.greedy(models[dtype], tokenizer(prompt)["input_ids"], end=end, most=300)
    assert ids[-1] == end
    assert final_answer(tokenizer.decode(ids[:-1])) == dialogue.answer
    assert gap > 0.5


def test_it_still_reads_text(models, encode):
    held_out = [encode(document.text) for document in standard_library(is_held_out)]
    read = [i for text in facts.prose() for i in encode(text)]
    ours = measure.perplexity(models["float32"], held_out)
    assert 3 < ours < 0.25 * measure.unigram_perplexity(read, held_out, models["float32"].config.vocab_size)


@pytest.mark.parametrize("distance", [256, 1000])
def test_a_copy_of_random_tokens_is_found_again(models, distance):
    first, second, _ = measure.copy_nll(models["float32"], models["float32"].config.vocab_size - len(ADDED), distance)
    assert second < first / 2


def test_the_default_build_is_the_one_that_is_here(build):
    plan = reranker.Plan()
    assert (build["seed"], build["steps"], build["threads"]) == (plan.seed, plan.steps, plan.threads)
    assert build["targets"] == {"cosine": list(ranking.COSINES), "score": list(ranking.SHARES)}
