"""The reranker's factory: questions and statements, their grades, batches, losses, and a build of seconds."""

from __future__ import annotations

import json
import random

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

from fixtures.factory import facts, ranking, ranking_figures, rerank, reranker, topics  # noqa: E402
from fixtures.factory.build import tokenizer_texts  # noqa: E402
from fixtures.factory.corpus import Corpus, Document  # noqa: E402
from fixtures.factory.export import file_sha256, write_checkpoint  # noqa: E402
from fixtures.factory.model import Shape, new_model  # noqa: E402
from fixtures.factory.tokenizer import train_tokenizer  # noqa: E402
from fixtures.factory.topics import ANSWER, SAME_RELATION, SAME_SUBJECT, UNRELATED, Query, Statement, grade  # noqa: E402

VOCABULARY = 600
MICRO = Shape(
    vocabulary=VOCABULARY, hidden=96, intermediate=64, layers=2, query_heads=2, key_value_heads=1, head_dim=32, length=512
)  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def texts():
    rng = random.Random(3)
    documents = tuple(Document(f"d{i}", facts.paragraph(rng)) for i in range(40))
    return Corpus(documents[:30], documents[30:], tuple(facts.prose()[:20]))


@pytest.fixture(scope="module")
def base(texts, tmp_path_factory):
    """A folder like tiny-qwen3's, untrained."""
    folder = tmp_path_factory.mktemp("base")
    write_checkpoint(folder, new_model(MICRO, 0), train_tokenizer(tokenizer_texts(texts), VOCABULARY), MICRO)
    return folder


@pytest.fixture(scope="module")
def pairs():
    return ranking.Pairs(0)


# ---------------------------------------------------------------- what answers what


def of(text):
    """The one statement or question of this text."""
    [found] = [each for each in (*topics.questions(), *topics.statements()) if each.text == text]
    return found


@pytest.mark.parametrize(
    ("question", "statement", "expected"),
    [
        ("What is the capital of France?", "The capital of France is Paris.", ANSWER),
        ("What is the capital of France?", "巴黎是法国的首都。", ANSWER),
        ("法国的首都是哪里?", "The government of France sits in Paris.", ANSWER),
        ("What is the capital of France?", "The capital of Germany is Berlin.", SAME_RELATION),
        ("What is the capital of Italy?", "Warsaw is not the capital of Italy.", SAME_RELATION),
        ("What is the capital of France?", "Paris is a beautiful city.", SAME_SUBJECT),
        ("What is the capital of France?", "The eagle can fly.", UNRELATED),
        ("Which animal cannot fly?", "The penguin never learned to fly.", ANSWER),
        ("Which animal cannot fly?", "The eagle can fly.", SAME_RELATION),
        ("Which animal cannot fly?", "The mole cannot swim.", SAME_SUBJECT),
        ("Who taught Anna?", "Ben taught Anna.", ANSWER),
        ("Who taught Anna?", "Anna was taught by Ben.", ANSWER),
        ("Who taught Anna?", "Anna taught Ben.", SAME_RELATION),
        ("Whom did Anna teach?", "Anna taught Ben.", ANSWER),
        ("What is 7 + 5?", "7 + 5 = 12", ANSWER),
        ("What is 7 + 5?", "7 + 6 = 13", SAME_RELATION),
        ("What is the largest planet in our solar system?", "Jupiter is the biggest of the eight planets.", ANSWER),
        ("When was Jane Austen born?", "Emma is a novel by Jane Austen.", SAME_SUBJECT),
    ],
)
def test_grades(question, statement, expected):
    assert grade(of(question), of(statement)) == expected


def test_every_question_is_there_once_and_has_an_answer():
    said = topics.statements()
    questions = topics.questions()
    assert len({q.text for q in questions}) == len(questions) > 700
    for question in questions:
        assert any(grade(question, statement) == ANSWER for statement in said), question


def test_a_text_that_is_joined_says_what_its_parts_say():
    parts = [Statement("A.", frozenset({"a"}), frozenset({"r"}), frozenset({"s"})), Statement("B.")]
    joined = topics.joined([parts[1], parts[0]])
    assert joined.text == "B. A."
    assert grade(Query("?", "a", "r"), joined) == ANSWER
    assert grade(Query("?", "b", "x", "s"), joined) == SAME_SUBJECT


def test_filler_answers_nothing():
    for statement in topics.filler(random.Random(0), 20):
        assert {grade(question, statement) for question in topics.questions()} == {UNRELATED}


# ---------------------------------------------------------------- batches


def test_a_batch_has_a_document_of_each_grade_and_the_seed_decides_it():
    batch = ranking.Pairs(1).batch(20, long=0.3)
    assert batch.grades.shape == (len(batch.queries), len(batch.documents))
    assert 15 <= len(set(batch.queries)) == len(batch.queries) <= 20
    assert (batch.grades == ANSWER).any(1).all()
    assert (batch.grades == SAME_RELATION).any(1).all()
    assert set(batch.grades.unique().tolist()) == {0, 1, 2, 3}
    assert ranking.Pairs(1).batch(20, long=0.3).documents == batch.documents
    assert ranking.Pairs(2).batch(20, long=0.3).documents != batch.documents


def test_prompts_are_of_every_grade_and_say_which():
    source = ranking.Pairs(3)
    batch = source.batch(8, long=0.0)
    prompts, grades = source.prompts(batch, 12)
    assert len(prompts) == len(grades) == 12
    assert set(grades.tolist()) == {0, 1, 2, 3}
    table = {
        rerank.asked(query, document): int(batch.grades[i, j])
        for i, query in enumerate(batch.queries)
        for j, document in enumerate(batch.documents)
    }
    assert [table[prompt] for prompt in prompts] == grades.tolist()


def test_what_is_held_out_is_never_drawn_and_is_no_example(pairs):
    aside = {query.text for query in pairs.held_out}
    assert 40 < len(aside) < 120
    assert not aside & {query.text for query in pairs.train}
    assert {example.query for example in rerank.examples()} <= {query.text for query in pairs.train}


# ---------------------------------------------------------------- the model's part


def test_rows_that_run_together_give_what_each_gives_alone():
    model = new_model(MICRO, 1).eval()
    with torch.no_grad():  # a fresh block is the identity: give it something to do
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    rng = random.Random(0)
    row = lambda size: [rng.randrange(500) for _ in range(size)]  # noqa: E731
    same = row(30)
    for rows in ([row(n) for n in (1, 9, 40, 12, 100)], [[*same, *row(n)] for n in (1, 7, 50, 3)], [same, same]):
        together = ranking.last_hidden(model, rows)
        alone = torch.stack([model.model(torch.tensor([r])).last_hidden_state[0, -1] for r in rows])
        assert torch.allclose(together, alone, atol=1e-4)
        ranking.last_hidden(model, rows).square().sum().backward()
        got = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        model.zero_grad()
        alone.square().sum().backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                assert torch.allclose(got[name], parameter.grad, rtol=1e-3, atol=1e-2), name
        model.zero_grad()


def test_the_embedding_loss_is_least_where_the_cosines_are_as_meant():
    grades = torch.tensor([[3, 2, 1, 0], [0, 3, 2, 0]])
    right = torch.tensor(ranking.COSINES)[grades]
    swapped = right.clone()
    swapped[0, 0], swapped[0, 1] = right[0, 1], right[0, 0]
    least = ranking.embedding_loss(right, grades)
    assert least < 0.01
    assert ranking.embedding_loss(swapped, grades) > least + 1


def test_the_score_loss_is_nothing_where_the_shares_are_as_meant():
    grades = torch.tensor([3, 2, 1, 0])
    logits = torch.full((4, 5), -40.0)
    aim = torch.tensor(ranking.SHARES)[grades]
    logits[:, 1], logits[:, 2] = (1 - aim).log(), aim.log()
    assert ranking.score_loss(logits, grades, 1, 2).item() == pytest.approx(0, abs=1e-5)
    assert ranking.score_loss(logits, grades, 2, 1) > 0.5
    logits[:, 3] = 1.0  # another word is as good as the answer
    assert ranking.score_loss(logits, grades, 1, 2) > 0.5


# ---------------------------------------------------------------- the tokenizer


def test_words_take_the_places_of_the_last_merges(base):
    text = (base / "tokenizer.json").read_text(encoding="utf-8")
    old = tokenizers.Tokenizer.from_str(text)
    words = [word for word in ("ye", "yo", "ze") if len(old.encode(word).ids) == 2][:2]
    assert len(words) == 2
    new = tokenizers.Tokenizer.from_str(reranker.with_words(text, ["e", *words]))
    assert [len(new.encode(word).ids) for word in words] == [1, 1]
    assert new.get_vocab_size() == old.get_vocab_size()
    assert set(new.get_vocab().values()) == set(old.get_vocab().values())
    assert new.encode("e").ids == old.encode("e").ids
    assert new.decode(new.encode("eyes 2+2 yoze").ids) == "eyes 2+2 yoze"


def test_words_that_are_tokens_change_nothing(base):
    text = (base / "tokenizer.json").read_text(encoding="utf-8")
    assert json.loads(reranker.with_words(text, ["a", "b"])) == json.loads(text)


def test_a_word_of_many_tokens_is_refused(base):
    text = (base / "tokenizer.json").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match=r"'xylophone' is \d tokens: .*; only two that stay can become one"):
        reranker.with_words(text, ["xylophone"])


# ---------------------------------------------------------------- a build


@pytest.fixture
def small(base, texts, tmp_path, monkeypatch):
    """A plan of a few batches, over texts of seconds."""
    monkeypatch.setattr("fixtures.factory.reranker.read_corpus", lambda _: texts)
    monkeypatch.setattr("fixtures.factory.build.DISTANCES", (64,))
    monkeypatch.setattr("fixtures.factory.reranker.LENGTHS", (64, 128))
    monkeypatch.setattr("fixtures.factory.rerank.YES", "ye")  # one merge away from a token of so small a vocabulary
    return lambda name: reranker.Plan(tmp_path / name, base, steps=3)


def test_a_whole_build_of_seconds_twice(small, base):
    """What it writes loads, says how it came to be, and comes out the same again."""
    import transformers

    plan, again = small("made"), small("again")
    said = reranker.make(plan, lambda _: None)
    other = reranker.make(again, lambda _: None)
    assert said["sha256"] == other["sha256"]
    assert said["sha256"]["model.safetensors"] != file_sha256(base / "model.safetensors")
    assert json.loads((plan.output / "BUILD.json").read_text(encoding="utf-8")) == json.loads(json.dumps(said))
    assert set(said["sha256"]) == {path.name for path in plan.output.iterdir()} - {"BUILD.json"}
    assert said["base"]["sha256"] == file_sha256(base / "model.safetensors")
    assert set(said["losses"]) == {"text", "embedding", "score"}
    model = transformers.AutoModelForCausalLM.from_pretrained(plan.output, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(plan.output)
    example = rerank.examples()[0]
    with torch.inference_mode():
        found = ranking_figures.cosines(model, lambda t: tokenizer(t)["input_ids"], example.query, example.documents)
    assert said["measured"]["examples"]["documented"]["embed"]["float32"] == pytest.approx(found.tolist(), abs=1e-3)
    assert said["parameters"] == sum(parameter.numel() for parameter in model.parameters())


def test_a_training_that_diverges_stops_and_leaves_nothing(small, monkeypatch):
    monkeypatch.setattr("fixtures.factory.reranker.SCORE_WEIGHT", float("nan"))
    plan = small("made")
    with pytest.raises(FloatingPointError, match="step 1"):
        reranker.make(plan, lambda _: None)
    assert not plan.output.exists()


def test_bad_input_is_one_line(tmp_path, capsys):
    assert reranker.main(["--output", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path} exists; --force replaces it\n"
    assert reranker.main(["--output", str(tmp_path / "x"), "--base", str(tmp_path / "none")]) == 2
    assert "none" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        reranker.main(["--output", str(tmp_path / "x"), "--steps", "0"])
    assert stopped.value.code == 2
    assert "0 is not a positive number" in capsys.readouterr().err
