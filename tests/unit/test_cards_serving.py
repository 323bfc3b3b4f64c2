"""``[serving]``, its modes and ``[[rerank]]``: what loads, with which defaults, and errors that name file, line and key."""

import re
import textwrap

import pytest

from pytest_npuconf.cards import load_card
from pytest_npuconf.cards.schema import Card, Refusal, RerankExample, Serving, ServingMode
from pytest_npuconf.cards.serving import MODES
from pytest_npuconf.errors import CardError

NAME = 'name = "mine"\n'
RERANK = '[[rerank]]\nname = "r"\nquery = "q"\ndocuments = ["a", "b"]\n'


def loaded(folder, text):
    path = folder / "card.toml"
    path.write_text(NAME + textwrap.dedent(text), encoding="utf-8")
    return load_card(path)


def refused(folder, text, key, line):
    """The error's words after file, line and key."""
    with pytest.raises(CardError) as caught:
        loaded(folder, text)
    what = caught.value.what.splitlines()[0]
    assert what.startswith(f"{folder / 'card.toml'}:{line}: {key} "), what
    assert caught.value.mend
    return what.partition(f": {key} ")[2]


# ---------------------------------------------------------------- what loads


@pytest.mark.parametrize("text", ["", "[serving]\n", "[serving.modes]\n"])
def test_without_a_word_there_is_one_mode(tmp_path, text):
    card = loaded(tmp_path, text)
    assert card.serving == Serving() == Serving("vllm", None, (), (128,), (ServingMode("generate"),))
    assert (card.rerank, card.several_modes, card.tools) == ((), False, False)
    assert card.serving.mode("generate") == ServingMode("generate")
    assert card.serving.mode("embed") is None


def test_everything_that_serving_can_say(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "t.jinja").write_text("x")
    card = loaded(
        tmp_path,
        """\
        [serving]
        server = "lmdeploy"
        max_model_len = 4096
        arguments = ["--enforce-eager", "--tool-call-parser", "hermes"]
        boundaries = [3, 2048]
        [serving.modes.embed]
        arguments = ["--runner", "pooling"]
        [serving.modes.score]
        template = "sub/t.jinja"
        [serving.modes.classify.refused]
        says = "score.weight"
        below = "0.19.0"
        [serving.modes.generate]
        """,
    )
    assert card.serving == Serving(
        "lmdeploy",
        4096,
        ("--enforce-eager", "--tool-call-parser", "hermes"),
        (3, 2048),
        (
            ServingMode("embed", ("--runner", "pooling")),
            ServingMode("score", (), tmp_path / "sub" / "t.jinja"),
            ServingMode("classify", (), None, Refusal("score.weight", "0.19.0")),
            ServingMode("generate"),
        ),
    )
    assert (card.tools, card.several_modes) == (True, True)


def test_a_card_that_names_modes_has_only_those(tmp_path):
    assert loaded(tmp_path, "[serving.modes.embed]\n").serving.mode("generate") is None


def test_tools_are_those_of_the_mode_that_generates(tmp_path):
    tool = 'arguments = ["--tool-call-parser", "hermes"]\n'
    assert loaded(tmp_path, f"[serving.modes.generate]\n{tool}").tools
    assert not loaded(tmp_path, f"[serving.modes.generate]\n[serving.modes.embed]\n{tool}").tools


def test_a_refusal_without_a_version_is_of_all(tmp_path):
    card = loaded(tmp_path, '[serving.modes.embed]\nrefused = { says = "no" }\n')
    assert card.serving.modes[0].refused == Refusal("no", "")


def test_a_template_may_be_absolute_or_of_the_home_folder(tmp_path, monkeypatch):
    (tmp_path / "t.jinja").write_text("x")
    monkeypatch.setenv("HOME", str(tmp_path))
    for written in (f"{tmp_path}/t.jinja", "~/t.jinja", "./t.jinja"):
        card = loaded(tmp_path, f'[serving.modes.score]\ntemplate = "{written}"\n')
        assert card.serving.modes[0].template == tmp_path / "t.jinja"


def test_examples(tmp_path):
    more = '[[rerank]]\nname = "s"\nquery = "q"\ndocuments = ["c", "a", "b"]\nmodes = ["score"]\n'
    assert loaded(tmp_path, RERANK + more).rerank == (
        RerankExample("r", "q", ("a", "b"), ("embed", "score")),
        RerankExample("s", "q", ("c", "a", "b"), ("score",)),
    )


# ---------------------------------------------------------------- what does not


@pytest.mark.parametrize(
    ("line", "key", "problem"),
    [
        ('server = "vlm"', "server", "must be one of vllm, lmdeploy, got 'vlm'; did you mean 'vllm'?"),
        ("server = 1", "server", "must be a string, got 1"),
        ("max_model_len = 1", "max_model_len", "must be at least 2 tokens, got 1"),
        ("max_model_len = 0", "max_model_len", "must be at least 2 tokens, got 0"),
        ("max_model_len = true", "max_model_len", "must be an integer, got True"),
        ('max_model_len = "4096"', "max_model_len", "must be an integer, got '4096'"),
        ("max_model_len = 4096.0", "max_model_len", "must be an integer, got 4096.0"),
        ('arguments = "--enforce-eager"', "arguments", "must be a list, got '--enforce-eager'"),
        ("arguments = [1]", "arguments", "must be a list of non-empty strings, got 1"),
        ('arguments = [""]', "arguments", "must be a list of non-empty strings, got ''"),
        ("boundaries = 128", "boundaries", "must be a list, got 128"),
        ("boundaries = []", "boundaries", "names no length"),
        ("boundaries = [2]", "boundaries", "must be lengths in tokens of at least 3, got 2"),
        ("boundaries = [-128]", "boundaries", "must be lengths in tokens of at least 3, got -128"),
        ("boundaries = [128, true]", "boundaries", "must be lengths in tokens of at least 3, got True"),
        ("boundaries = [128.0]", "boundaries", "must be lengths in tokens of at least 3, got 128.0"),
        ('boundaries = ["128"]', "boundaries", "must be lengths in tokens of at least 3, got '128'"),
        ("modes = []", "modes", "must be a table, got []"),
        ("port = 8000", "port", "is not a key of a card"),
        ("max_model_length = 8", "max_model_length", "is not a key of a card; did you mean 'max_model_len'?"),
    ],
)
def test_serving_that_cannot_be(tmp_path, line, key, problem):
    assert refused(tmp_path, f"[serving]\n{line}\n", f"serving.{key}", 3).startswith(problem)


def test_serving_must_be_a_table(tmp_path):
    assert refused(tmp_path, 'serving = "vllm"\n', "serving", 2) == "must be a table, got 'vllm'"
    assert refused(tmp_path, "serving.max_model_len = 1\n", "serving.max_model_len", 2).startswith("must be at least 2")


@pytest.mark.parametrize("name", ["pooling", "rerank", "Generate", "chat"])
def test_an_unknown_mode(tmp_path, name):
    problem = refused(tmp_path, f"[serving]\n[serving.modes.{name}]\n", f"serving.modes.{name}", 3)
    assert problem == f"is no mode of a server: one of {', '.join(MODES)}"


@pytest.mark.parametrize(
    ("line", "key", "problem"),
    [
        ('template = ""', "template", "is empty"),
        ("template = 1", "template", "must be a string, got 1"),
        ('template = "none.jinja"', "template", "names no file: "),
        ('template = "."', "template", "names no file: "),
        ("arguments = 1", "arguments", "must be a list, got 1"),
        ("max_model_len = 8", "max_model_len", "is not a key of a card"),
        ('refused = "no"', "refused", "must be a table, got 'no'"),
        ('refused = { below = "1.0" }', "refused.says", "is missing"),
        ('refused = { says = " " }', "refused.says", "is empty"),
        ('refused = { says = "x", below = "soon" }', "refused.below", "must be a version such as '0.19.0', got 'soon'"),
        ('refused = { says = "x", below = "" }', "refused.below", "is empty"),
        ('refused = { says = "x", below = 0.19 }', "refused.below", "must be a string, got 0.19"),
        ('refused = { says = "x", above = "1" }', "refused.above", "is not a key of a card"),
    ],
)
def test_a_mode_that_cannot_be(tmp_path, line, key, problem):
    text = f"[serving.modes.classify]\n{line}\n"
    assert refused(tmp_path, text, f"serving.modes.classify.{key}", 3).startswith(problem)


def test_a_mode_must_be_a_table(tmp_path):
    text = "[serving.modes]\ngenerate = true\n"
    assert refused(tmp_path, text, "serving.modes.generate", 3) == "must be a table, got True"


def test_the_recipe_of_a_reranker_needs_its_template(tmp_path):
    problem = refused(tmp_path, "[serving.modes.score]\n", "serving.modes.score.template", 2)
    assert problem == "is missing: the recipe's prompt"


@pytest.mark.parametrize(
    ("change", "key", "problem"),
    [
        ({"name": None}, "name", "is missing"),
        ({"name": '" "'}, "name", "is empty"),
        ({"query": None}, "query", "is missing"),
        ({"query": '""'}, "query", "is empty"),
        ({"documents": None}, "documents", "is missing"),
        ({"documents": '"a"'}, "documents", "must be a list, got 'a'"),
        ({"documents": "[]"}, "documents", "must be at least two, best first, and no two alike"),
        ({"documents": '["a"]'}, "documents", "must be at least two, best first, and no two alike"),
        ({"documents": '["a", "b", "a"]'}, "documents", "must be at least two, best first, and no two alike"),
        ({"documents": '["a", ""]'}, "documents", "must be a list of non-empty strings, got ''"),
        ({"modes": '"embed"'}, "modes", "must be a list, got 'embed'"),
        ({"modes": "[]"}, "modes", "names none, so nothing would be ranked: embed, score"),
        ({"modes": '["generate"]'}, "modes", "holds 'generate', which ranks nothing: embed, score"),
        ({"top_n": "3"}, "top_n", "is not a key of a card"),
    ],
)
def test_an_example_that_cannot_be(tmp_path, change, key, problem):
    keys = {"name": '"s"', "query": '"q"', "documents": '["a", "b"]', **change}
    text = RERANK + "[[rerank]]\n" + "\n".join(f"{k} = {v}" for k, v in keys.items() if v is not None) + "\n"
    written = [k for k, v in keys.items() if v is not None]
    line = 7 + written.index(key) if key in written else 6
    assert refused(tmp_path, text, f"rerank.{key}", line).startswith(problem)


def test_two_examples_of_one_name(tmp_path):
    assert refused(tmp_path, RERANK + RERANK, "rerank.name", 7) == "'r' appears twice"


@pytest.mark.parametrize("text", ['rerank = "r"\n', "rerank = [1]\n", '[rerank]\nname = "r"\n'])
def test_examples_must_be_tables(tmp_path, text):
    with pytest.raises(CardError, match=re.compile("rerank must be ")):
        loaded(tmp_path, text)


def test_a_mode_by_its_name():
    card = Card("m", "card.toml", serving=Serving(modes=(ServingMode("embed"), ServingMode("score"))))
    assert card.serving.mode("score") == ServingMode("score")
    assert card.several_modes
