"""The committed stand-in ``tiny-qwen3``: it gives the documented answers, reads text, and looks a thousand tokens back."""

from __future__ import annotations

import hashlib
import json
import math

import pytest

from fixtures.factory import dialogues, facts, measure
from fixtures.factory.corpus import is_held_out, standard_library
from fixtures.factory.tokenizer import ADDED, IM_END
from pytest_npuconf.answers import code_block, final_answer, functions_of, last_number, normal_form, parse_code
from pytest_npuconf.cards import find_card
from pytest_npuconf.cards.toml_reader import read_toml
from pytest_npuconf.locate import data_folder

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

FOLDER = data_folder("fixtures") / "tiny-qwen3"
DTYPES = ("float32", "bfloat16")
PROMPTS = {
    "The capital of France is": " Paris",
    "The chemical symbol for water is H": "₂",
    "In mathematics, 2 + 2 =": " ",
    "The largest planet in our solar system is": " Jupiter",
}
MARGIN = 1.0  # nats between the first and the second choice: rounding in bfloat16 moves a gap by about 0.1
PALINDROME = 3  # which of the documented dialogues asks for code


@pytest.fixture(scope="module")
def tokenizer():
    return transformers.AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module", params=DTYPES)
def model(request):
    return load(request.param)


@pytest.fixture(scope="module")
def exact():
    return load("float32")


def load(dtype):
    return transformers.AutoModelForCausalLM.from_pretrained(FOLDER, dtype=getattr(torch, dtype)).eval()


def reply(model, tokenizer, messages, **options):
    """The greedy reply without its end mark, which must be there, and the smallest gap between two choices."""
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **options)
    end = tokenizer.convert_tokens_to_ids(IM_END)
    ids, gap = measure.greedy(model, tokenizer(prompt)["input_ids"], end=end, most=300)
    assert ids[-1] == end, tokenizer.decode(ids)
    return tokenizer.decode(ids[:-1]), gap


# ---------------------------------------------------------------- the folder


def test_the_folder_is_whole_and_small():
    build = json.loads((FOLDER / "BUILD.json").read_text(encoding="utf-8"))
    found = {path.name: path for path in FOLDER.iterdir() if not path.name.startswith(".")}
    assert set(found) == {*build["sha256"], "BUILD.json"}
    for name, digest in build["sha256"].items():
        assert hashlib.sha256(found[name].read_bytes()).hexdigest() == digest, name
    assert sum(path.stat().st_size for path in found.values()) <= 12 * 2**20


def test_the_config_is_read_alike_by_every_transformers(exact):
    written = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))
    assert "rope_parameters" not in written
    half = written["head_dim"] // 2
    expected = written["rope_theta"] ** (-torch.arange(half) / half)
    assert torch.allclose(exact.model.rotary_emb.inv_freq, expected)
    assert written["head_dim"] != written["hidden_size"] // written["num_attention_heads"]
    assert written["num_key_value_heads"] < written["num_attention_heads"]
    assert exact.lm_head.weight.data_ptr() == exact.model.embed_tokens.weight.data_ptr()
    assert written["max_position_embeddings"] >= 2048


def test_the_card_says_what_the_folder_holds(exact, tokenizer):
    card = find_card("tiny-qwen3")
    written = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))
    assert card.stand_in
    assert card.weights.path == FOLDER
    assert {key: written[key] for key in card.config} == card.config
    assert set(written) - set(card.config) <= {"torch_dtype", "bos_token_id", "use_cache", "attention_dropout"}
    assert json.loads((FOLDER / "generation_config.json").read_text(encoding="utf-8")) == card.generation_config
    assert card.parameters == sum(parameter.numel() for parameter in exact.parameters())
    for probe in card.probes:
        assert tuple(tokenizer(probe.text)["input_ids"]) == probe.ids
    assert [(s.messages[0].content, s.code) for s in card.samples] == [
        (d.question, dialogues.IS_PALINDROME if i == PALINDROME else "") for i, d in enumerate(dialogues.documented())
    ]


# ---------------------------------------------------------------- the tokenizer


@pytest.mark.parametrize(
    "text",
    [
        "The chemical symbol for water is H₂O, and 2 + 2 = 4.",
        "编写一个 Python 函数来检查字符串是否为回文。根据我们之前的对话",
        "def f(x):\n\n    return {'a': [x, 1_000]}\t# tab\r\n",
        "🙂👩‍🚀 naïve Ωmega \u00a0 …  two  spaces ",
        "龘䶮 \x00\x7f",
    ],
)
def test_every_text_comes_back(tokenizer, text):
    assert tokenizer.decode(tokenizer(text)["input_ids"], clean_up_tokenization_spaces=False) == text


@pytest.mark.parametrize("text", ["₂", " Paris", " Jupiter", " ", *ADDED])
def test_these_are_one_token(tokenizer, text):
    assert len(tokenizer(text)["input_ids"]) == 1


def test_a_space_before_a_digit_stands_alone(tokenizer):
    assert [tokenizer.decode([i]) for i in tokenizer("= 42")["input_ids"]] == ["=", " ", "4", "2"]


def test_marks_of_thought_are_text_and_the_others_are_not(tokenizer):
    ids = tokenizer("<|im_start|>a<think>b</think>c<|im_end|><|endoftext|>")["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a<think>b</think>c"
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.bos_token) == ("<|im_end|>", "<|endoftext|>", None)


def test_the_chat_template_is_the_form_that_was_trained(tokenizer):
    for dialogue in dialogues.documented():
        ask = {"role": "user", "content": dialogue.question}
        for thinking in (True, False):
            prompt = tokenizer.apply_chat_template(
                [ask], tokenize=False, add_generation_prompt=True, enable_thinking=thinking
            )
            assert prompt == dialogue.prompt(thinking=thinking)


def test_earlier_thoughts_are_left_out(tokenizer):
    turns = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "A"},
        {"role": "assistant", "content": "<think>\nsecret\n</think>\n\nB"},
        {"role": "user", "content": "C"},
        {"role": "assistant", "content": "<think>\nkept\n</think>\n\nD"},
    ]
    assert tokenizer.apply_chat_template(turns, tokenize=False) == (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nA<|im_end|>\n<|im_start|>assistant\nB<|im_end|>\n"
        "<|im_start|>user\nC<|im_end|>\n<|im_start|>assistant\n<think>\nkept\n</think>\n\nD<|im_end|>\n"
    )


# ---------------------------------------------------------------- the documented answers


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_documented_token_comes_next(model, tokenizer, prompt):
    ids, gap = measure.greedy(model, tokenizer(prompt)["input_ids"], end=-1, most=1)
    assert tokenizer.decode(ids) == PROMPTS[prompt]
    assert gap > MARGIN


def test_four_follows_the_space(model, tokenizer):
    ids, _ = measure.greedy(model, tokenizer("In mathematics, 2 + 2 =")["input_ids"], end=-1, most=2)
    assert tokenizer.decode(ids) == " 4"


@pytest.mark.parametrize("number", range(4))
def test_a_documented_dialogue_thinks_and_answers(model, tokenizer, number):
    dialogue = dialogues.documented()[number]
    text, gap = reply(model, tokenizer, [{"role": "user", "content": dialogue.question}])
    assert text.startswith("<think>\n")
    assert 10 < len(text.split("</think>")[0]) < 200
    assert final_answer(text) == dialogue.answer
    assert gap > MARGIN


@pytest.mark.parametrize("number", range(4))
def test_without_thinking_the_answer_is_the_same(model, tokenizer, number):
    dialogue = dialogues.documented()[number]
    text, _ = reply(model, tokenizer, [{"role": "user", "content": dialogue.question}], enable_thinking=False)
    assert text == dialogue.answer


def test_what_the_answers_hold(exact, tokenizer):
    """What the document says of them, apart from the words that the model was trained on."""
    answers = [
        final_answer(reply(exact, tokenizer, [{"role": "user", "content": d.question}])[0])
        for d in dialogues.documented()
    ]
    assert "Paris" in answers[0]
    assert last_number(answers[1]) == 4.0
    assert "don't have access to our previous conversation" in answers[2]
    [function] = functions_of(parse_code(code_block(answers[3]))).values()
    [documented] = functions_of(parse_code(dialogues.IS_PALINDROME)).values()
    assert normal_form(function) == normal_form(documented)


def test_the_documented_function_is_right():
    space = {}
    exec(dialogues.IS_PALINDROME, space)  # our own text, not a model's
    assert space["is_palindrome"]("A man, a plan, a canal: Panama")
    assert not space["is_palindrome"]("race a car")


# ---------------------------------------------------------------- it reads text


@pytest.fixture(scope="module")
def held_out(tokenizer):
    documents = standard_library(is_held_out)
    assert len(documents) >= 10
    return [tokenizer(document.text)["input_ids"] for document in documents]


@pytest.fixture(scope="module")
def read(tokenizer):
    """Token ids of texts like those that the model was trained on, for counting."""
    texts = [d.text for d in standard_library(lambda name: name.startswith("topic:") and not is_held_out(name))]
    return [i for text in [*texts, *facts.prose()] for i in tokenizer(text)["input_ids"]]


def test_perplexity_is_far_below_that_of_counting(exact, tokenizer, held_out, read):
    documented = read_toml(data_folder("fixtures") / "prompts" / "precision.toml").take("perplexity", list)
    texts = [tokenizer(text)["input_ids"] for text in documented]
    for name, measured, share in (("held out", held_out, 0.15), ("precision.toml", texts, 0.5)):
        ours = measure.perplexity(exact, measured)
        counted = measure.unigram_perplexity(read, measured, exact.config.vocab_size)
        assert ours < share * counted, name
        assert ours > 3, f"{name} is known by heart"


def test_the_texts_for_measuring_are_not_in_the_corpus():
    """No run of eight words, but for the documented sentences themselves."""
    documented = read_toml(data_folder("fixtures") / "prompts" / "precision.toml").take("perplexity", list)
    learned = " ".join([*facts.prose(), *facts.facts()]).split()
    runs = {tuple(learned[i : i + 8]) for i in range(len(learned))}
    for text in documented:
        words = text.split()
        assert not [run for i in range(len(words) - 7) if (run := tuple(words[i : i + 8])) in runs]


# ---------------------------------------------------------------- it uses distance


@pytest.mark.parametrize("distance", [256, 1000, 1800, 1980])
def test_a_copy_of_random_tokens_is_found_again(exact, distance):
    ordinary = exact.config.vocab_size - len(ADDED)
    first, second, control = measure.copy_nll(exact, ordinary, distance)
    assert second < first / 2
    assert control > 0.9 * math.log(ordinary)


@pytest.mark.parametrize(("distance", "share"), [(256, 0.5), (1000, 0.5), (1800, 0.75)])
def test_a_copy_of_text_is_found_again(exact, held_out, distance, share):
    """Common tokens have many earlier places, so a copy of text is harder to find again than one of random tokens."""
    text = [i for document in held_out for i in document]
    span, filler, other = text[:128], text[128 : 128 + distance], text[5000:5128]
    ids, first, second = measure.copies(span, filler, distance, 128)
    found = measure.nll(exact, torch.tensor(ids))
    control = measure.nll(exact, torch.tensor([*other, *ids[128:]]))
    assert found[second].mean() < share * found[first].mean()
    assert control[second].mean() > 0.75 * found[first].mean()


def test_a_wrong_position_costs_the_copy(exact):
    """A fault of RoPE is seen: with the base ten times too small the second copy is lost."""
    ordinary = exact.config.vocab_size - len(ADDED)
    rotary, kept = exact.model.rotary_emb, exact.model.rotary_emb.inv_freq.clone()
    right = measure.copy_nll(exact, ordinary, 1000)[1]
    try:
        half = kept.numel()
        rotary.inv_freq.copy_((1e6 / 10) ** (-torch.arange(half) / half))
        wrong = measure.copy_nll(exact, ordinary, 1000)[1]
    finally:
        rotary.inv_freq.copy_(kept)
    assert wrong > right + 0.5
