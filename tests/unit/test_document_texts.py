"""The shipped texts: long enough for the tokenizers at hand and for leaner ones, each of a stated length, and all different."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from pytest_npuconf.cards import find_card
from pytest_npuconf.cards.toml_reader import read_toml
from pytest_npuconf.locate import data_folder
from pytest_npuconf.weights import gguf_package

# characters that the leanest tokenizer known puts into one token, by kind of text
LEANEST = {"en": 5.5, "zh": 2.2, "code": 3.5}
KINDS = tuple(LEANEST)
LONG = (1, 15, 16, 17, 127, 128, 129, 255, 256, 257, 513, 513, 1025, 1025)
PASSAGE = 12  # words
ECHO = "Whoever crosses after the second bell"  # begins the passage that a text repeats, word for word
ECHO_WORDS = 60


def texts_of(kind):
    content = read_toml(data_folder("fixtures") / "documents" / f"documents-{kind}.toml").data
    assert list(content) == ["documents"]
    return content["documents"]


TEXTS = {entry["name"]: entry for kind in KINDS for entry in texts_of(kind)}


def words_of(text):
    """Words and numbers; of Chinese every character, since nothing there divides words."""
    return re.findall(r"[\u4e00-\u9fff]|[^\W\u4e00-\u9fff]+", text)


def passages_of(text):
    words = words_of(text)
    return [tuple(words[start : start + PASSAGE]) for start in range(len(words) - PASSAGE + 1)]


@pytest.fixture(scope="module", params=["tiny-qwen3", "smollm2-135m-instruct"])
def tokenizer(request, tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    folder = data_folder("fixtures") / "tiny-qwen3"
    if request.param != "tiny-qwen3":
        pytest.importorskip("gguf")
        weights = gguf_package.package_file(find_card(request.param).weights)
        if weights is None:
            pytest.skip(f"the package with {request.param} is not installed")
        folder = tmp_path_factory.mktemp(request.param)  # the tokenizer alone, not 500 MB of weights
        gguf_package._write_tokenizer(folder, gguf_package._metadata(weights))
    # not Auto: without the weights the folder has no config.json
    return transformers.PreTrainedTokenizerFast.from_pretrained(folder)


def test_names_are_unique_and_say_the_kind():
    for kind in KINDS:
        entries = texts_of(kind)
        assert [entry["name"] for entry in entries] == [f"{kind}-{i}" for i in range(1, len(entries) + 1)]
        assert all(set(entry) == {"name", "tokens", "text"} for entry in entries)


def test_lengths_are_those_promised():
    assert sorted(entry["tokens"] for entry in TEXTS.values()) == sorted([*LONG, *[48] * 20])
    kinds = Counter((entry["tokens"], name.split("-")[0]) for name, entry in TEXTS.items())
    assert {kind: kinds[48, kind] for kind in KINDS} == {"en": 8, "zh": 7, "code": 5}
    assert kinds[513, "en"] == kinds[513, "zh"] == kinds[1025, "en"] == kinds[1025, "code"] == 1


@pytest.mark.parametrize("name", TEXTS)
def test_a_lean_tokenizer_gives_enough_tokens_too(name):
    entry = TEXTS[name]
    assert len(entry["text"]) >= 1.2 * LEANEST[name.split("-")[0]] * entry["tokens"]


def test_the_tokenizers_at_hand_give_a_reserve_of_15_percent(tokenizer):
    counts = {name: len(tokenizer(entry["text"]).input_ids) for name, entry in TEXTS.items()}
    assert not {name: count for name, count in counts.items() if count < 1.15 * TEXTS[name]["tokens"]}


def test_the_texts_begin_differently(tokenizer):
    """The logits after the first token depend on it alone: where it is the same, so is the measurement."""
    first = Counter(tokenizer(entry["text"]).input_ids[0] for entry in TEXTS.values())
    assert first.most_common(1)[0][1] <= 3


def test_the_deliberate_repeat_reaches_far_back_and_lies_within_the_cut(tokenizer):
    text, tokens = TEXTS["en-6"]["text"], TEXTS["en-6"]["tokens"]
    assert text.count(ECHO) == 2
    starts = [found.start() for found in re.finditer(ECHO, text)]
    copies = [text[start : text.index(' opens."', start)] + " opens" for start in starts]
    assert copies[0] == copies[1]
    assert len(words_of(copies[0])) == ECHO_WORDS
    first, second = (len(tokenizer(text[:start]).input_ids) for start in starts)
    assert 400 <= second - first <= 900
    assert len(tokenizer(text[: starts[1] + len(copies[1])]).input_ids) <= tokens


def test_no_passage_of_twelve_words_occurs_twice_but_the_deliberate_one():
    seen = Counter(passage for entry in TEXTS.values() for passage in passages_of(entry["text"]))
    echo = TEXTS["en-6"]["text"]
    echo = echo[echo.index(ECHO) : echo.index(' opens."') + len(' opens."')]
    assert {passage for passage, count in seen.items() if count > 1} == set(passages_of(echo))
