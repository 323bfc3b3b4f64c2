"""Embeddings, rankings and scores against the real reference of tiny-qwen3: rounding passes, each defect is named."""

import contextlib
import math

import numpy as np
import pytest

from pytest_npuconf import thresholds
from pytest_npuconf.cards.schema import RerankExample
from pytest_npuconf.engines.server_engine import HttpServed
from pytest_npuconf.errors import EngineError, ServerError
from pytest_npuconf.gates import Gate, Outcome
from pytest_npuconf.locate import data_folder
from pytest_npuconf.options import Settings
from pytest_npuconf.progress import Progress
from pytest_npuconf.references.live import LiveReference
from pytest_npuconf.serving import pooling
from pytest_npuconf.serving.bench import First
from pytest_npuconf.serving.pooling import Vectors, noisiest
from pytest_npuconf.weights.checkpoint import read_checkpoint
from tests.told_server import ToldServer

pytest.importorskip("torch")

TEXTS = (
    "The capital of France is Paris.",
    "The capital of Germany is Berlin.",
    "Water boils at one hundred degrees.",
    "The largest planet is Jupiter.",
    "A function returns a value.",
    "I like bread.",
)
QUERY = "What is the capital of France?"
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}answer:"
WORDS = {"no": 280, "yes": 542}  # any two words of tiny-qwen3, which was taught neither


@pytest.fixture(scope="module")
def vectors():
    checkpoint = read_checkpoint(data_folder("fixtures") / "tiny-qwen3", "test", "")
    reference = LiveReference(checkpoint, Settings(models=("tiny-qwen3",)), Progress(lambda _: None))
    yield Vectors(reference, "bfloat16")
    reference.close()


@pytest.fixture(scope="module")
def rounded(vectors):
    """Embeddings by text as a healthy server at bfloat16 gives them: a member of the yardstick."""
    every = [QUERY, *TEXTS]
    return dict(zip(every, next(iter(vectors.members(every).values())), strict=True))


@pytest.fixture(scope="module")
def example(vectors):
    """An example in the model's own order; the last document is the farthest."""
    query, *rows = vectors.reference([QUERY, *TEXTS])
    cosines = np.array(rows) @ query
    ordered = [TEXTS[i] for i in np.argsort(-cosines)]
    return RerankExample("france", QUERY, (ordered[0], ordered[-1]), ("embed", "score"))


def judged(measurement, bound=thresholds.NOISE_RATIO):
    return Gate("g", bound.value).judge(measurement).outcome


@pytest.fixture
def serve(rounded):
    """A real server in mode embed. ``change(text, vector)`` may change an embedding, ``rerank`` and ``score`` the rows."""
    with contextlib.ExitStack() as stack:

        def start(change=lambda _, vector: vector, rows=lambda rows: rows, rerank=lambda rows: rows, score=lambda rows: rows,
                  relevance=None):  # fmt: skip
            def relevant(query, documents):
                if relevance is not None:
                    return [relevance(document) for document in documents]
                return [float(rounded[query] @ rounded[document]) for document in documents]

            def embeddings(body):
                found = [
                    {"index": i, "embedding": list(map(float, change(t, rounded[t])))}
                    for i, t in enumerate(body["input"])
                ]
                return {"data": rows(found)}

            def ranked(body):
                found = relevant(body["query"], body["documents"])
                order = sorted(range(len(found)), key=lambda i: -found[i])
                return {"results": rerank([{"index": i, "relevance_score": found[i]} for i in order])}

            def scored(body):
                found = relevant(body["text_1"], body["text_2"])
                return {"data": score([{"index": i, "score": s} for i, s in enumerate(found)])}

            routes = {"/v1/embeddings": embeddings, "/rerank": ranked, "/score": scored}
            server = stack.enter_context(ToldServer(routes))
            served = HttpServed(server.url, "m", "embed", "bfloat16", None, None, 0.0, 10.0)
            stack.callback(served.close)
            return served

        yield start


# ---------------------------------------------------------------- embeddings


def test_the_reference_is_the_last_state_with_length_one(vectors):
    rows = vectors.reference(TEXTS[:2])
    assert rows.shape == (2, 192)
    assert np.linalg.norm(rows, axis=1) == pytest.approx(1)
    ids = vectors.document(TEXTS[0]).ids
    with vectors_model(vectors) as (torch, model):
        last = model.model(torch.tensor([ids])).last_hidden_state[0, -1].numpy()
    assert rows[0] == pytest.approx(last / np.linalg.norm(last), abs=1e-5)


@contextlib.contextmanager
def vectors_model(vectors):
    import torch

    with torch.no_grad():
        yield torch, vectors._engine.model


def test_a_healthy_server_is_within_rounding(serve, vectors):
    measured = pooling.embeddings(serve(), TEXTS, vectors)
    assert 0 < measured.value <= 1  # the noisiest member is at least as far
    assert judged(measured) is Outcome.PASS
    assert measured.n == len(TEXTS)
    assert measured.data["statistics"]["least_cosine"] > 0.999
    assert [row.value for row in measured.rows] == sorted((row.value for row in measured.rows), reverse=True)


def test_a_server_that_embeds_something_else_is_far_off(serve, vectors, rounded):
    measured = pooling.embeddings(serve(lambda t, _: rounded[QUERY] if t == TEXTS[2] else rounded[t]), TEXTS, vectors)
    assert measured.value > 3
    assert measured.worst.place == repr(TEXTS[2])
    assert judged(pooling.embeddings(serve(lambda *_: rounded[QUERY]), TEXTS, vectors)) is Outcome.FAIL


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: v[:-1], "191 numbers, the model has 192"),
        (lambda v: np.concatenate([v, [0.0]]), "193 numbers, the model has 192"),
        (lambda _: [], "0 numbers, the model has 192"),
        (lambda v: 2 * v, "has the length 2, not 1"),
        (lambda v: 0 * v, "has the length 0, not 1"),
        (lambda v: np.where(np.arange(192) == 5, math.nan, v), "has the length nan, not 1"),
        (lambda v: np.where(np.arange(192) == 5, math.inf, v), "has the length inf, not 1"),
    ],
)
def test_vectors_that_leave_nothing_to_compare(serve, vectors, change, said):
    measured = pooling.embeddings(serve(lambda _, v: change(v)), TEXTS, vectors)
    assert said in measured.broken
    assert judged(measured) is Outcome.FAIL


def test_one_not_a_number_of_all_is_found(serve, vectors):
    odd = serve(lambda t, v: [math.nan, *v[1:]] if t == TEXTS[4] else v)
    assert repr(TEXTS[4][:40]) in pooling.embeddings(odd, TEXTS, vectors).broken


def test_one_embedding_of_another_width_is_an_error(serve, vectors):
    with pytest.raises(ServerError, match="not as OpenAI's interface says"):
        pooling.embeddings(serve(lambda t, v: v[:-1] if t == TEXTS[4] else v), TEXTS, vectors)


def test_the_noisiest_member_is_taken_whole():
    reference = np.zeros((2, 3))
    members = {"a": np.array([[1.0, 0, 0], [1.0, 0, 0]]), "b": np.array([[0, 3.0, 0], [0, 0.5, 0]])}
    assert noisiest(reference, members).tolist() == [3.0, 0.5]


# ---------------------------------------------------------------- twice, together


def first_of(rounded, change=lambda v: v):
    return First(text=QUERY, embedding=np.asarray([change(rounded[QUERY])], dtype=np.float32))


def test_the_same_again_is_zero(serve, vectors, rounded):
    measured = pooling.repeated(serve(), TEXTS, first_of(rounded), vectors)
    assert (measured.value, measured.interval, measured.n) == (0, (0, 0), len(TEXTS) + 1)
    assert pooling.repeated(serve(), TEXTS, First(), vectors).n == len(TEXTS)


def test_the_first_embedding_was_another(serve, vectors, rounded):
    measured = pooling.repeated(serve(), TEXTS, first_of(rounded, lambda v: -v), vectors)
    assert measured.worst.place == repr(QUERY)
    assert measured.data["least_cosine"] == pytest.approx(-1)
    assert measured.value > 10


def test_embeddings_that_change_from_one_request_to_the_next(serve, vectors):
    count = iter(range(100))
    odd = serve(lambda t, v: -v if t == TEXTS[1] and next(count) else v)
    assert pooling.repeated(odd, TEXTS, First(), vectors).worst.place == repr(TEXTS[1])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: 0 * v, "an embedding of 192 numbers and length 0 and"),
        (lambda v: [math.nan, *v[1:]], "length nan"),
    ],
)
@pytest.mark.parametrize("ask", ["repeated", "together"])
def test_what_is_always_nothing_is_no_agreement(serve, vectors, change, said, ask):
    """A server that says the same zeros twice agrees with itself."""
    odd = serve(lambda t, v: change(v) if t == TEXTS[3] else v)
    asked = {"repeated": (odd, TEXTS, First(), vectors), "together": (odd, TEXTS, vectors)}
    measured = getattr(pooling, ask)(*asked[ask])
    assert said in measured.broken
    assert TEXTS[3] in measured.broken


def test_the_first_embedding_had_another_width(serve, vectors, rounded):
    measured = pooling.repeated(serve(), TEXTS, first_of(rounded, lambda v: v[:-1]), vectors)
    assert measured.broken.startswith(f"{QUERY!r}: an embedding of 191 numbers")


def test_all_in_one_request_and_beside_others(serve, vectors):
    measured = pooling.together(serve(), TEXTS, vectors)
    assert (measured.value, measured.n) == (0, 2 * len(TEXTS))


def in_one(change):
    """Changes the rows of the one request that has all texts."""
    return lambda rows: change(rows) if len(rows) > 1 else rows


def test_rows_that_are_swapped_behind_right_indices(serve, vectors):
    def swap(rows):
        rows[0]["embedding"], rows[4]["embedding"] = rows[4]["embedding"], rows[0]["embedding"]
        return rows

    measured = pooling.together(serve(rows=in_one(swap)), TEXTS, vectors)
    assert {row.place for row in measured.rows[:2]} == {repr(TEXTS[0]), repr(TEXTS[4])}
    assert judged(measured, thresholds.EQUIVALENCE_RATIO) is not Outcome.PASS


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows[::-1], "indices [5, 4, 3, 2, 1, 0] ..."),
        (lambda rows: rows[:-1], "indices [0, 1, 2, 3, 4] ..."),
        (lambda rows: [*rows, rows[-1]], "indices [0, 1, 2, 3, 4, 5, 5] ..."),
        (lambda rows: [{**row, "index": 0} for row in rows], "indices [0, 0, 0, 0, 0, 0] ..."),
        (lambda rows: [{"embedding": row["embedding"]} for row in rows], "not-openai: KeyError: 'index'"),
        (lambda rows: [{"index": row["index"]} for row in rows], "not-openai: KeyError: 'embedding'"),
        (lambda _: [None] * 6, "not-openai: TypeError"),
        (lambda rows: [*rows[:-1], {"index": 5, "embedding": [1.0]}], "an embedding of 1 numbers"),
    ],
)
def test_one_request_with_wrong_rows(serve, vectors, change, said):
    assert said in pooling.together(serve(rows=in_one(change)), TEXTS, vectors).broken


# ---------------------------------------------------------------- rankings


ASKED = {"rerank": pooling.ranked, "score": pooling.scored}


@pytest.mark.parametrize("route", ASKED)
def test_a_healthy_ranking(serve, vectors, example, route):
    measured = ASKED[route](serve(), [example], vectors)
    assert (measured.value, measured.n) == (0, 1)
    assert measured.data["statistics"]["least_margin"] > measured.data["noise"] > 0


@pytest.mark.parametrize("route", ASKED)
def test_a_ranking_the_other_way_round(serve, vectors, example, route):
    first = example.documents[0]
    measured = ASKED[route](serve(relevance=lambda d: 0.1 if d == first else 0.9), [example], vectors)
    assert "document 2 (0.9000) before 1 (0.1000), margin" in measured.worst.detail


@pytest.mark.parametrize("route", ASKED)
def test_right_order_and_wrong_scores(serve, vectors, example, route):
    first = example.documents[0]
    measured = ASKED[route](serve(relevance=lambda d: 0.99 if d == first else 0.01), [example], vectors)
    assert measured.worst.detail.startswith("scores [0.99, 0.01], reference [")


@pytest.mark.parametrize("route", ASKED)
def test_a_score_that_is_no_number(serve, vectors, example, route):
    measured = ASKED[route](serve(relevance=lambda _: math.nan), [example], vectors)
    assert "NaN" in measured.worst.detail or "finite" in measured.worst.detail


@pytest.mark.parametrize("route", ASKED)
def test_a_card_whose_order_is_not_the_models(serve, vectors, example, route):
    backwards = RerankExample("b", QUERY, example.documents[::-1], ("embed",))
    measured = ASKED[route](serve(), [example, backwards], vectors)
    assert (measured.value, measured.worst.place) == (1, "b")
    assert "the card's order is not this model's" in measured.worst.detail


def dropped(key):
    return lambda rows: [{k: v for k, v in row.items() if k != key} for row in rows]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows[::-1], "not sorted by score"),
        (lambda rows: rows[:1], "documents [1] came back, of 2"),  # they are asked worst first
        (lambda _: [], "documents [] came back, of 2"),
        (lambda rows: [rows[0], rows[0]], "documents [1, 1] came back, of 2"),
        (lambda rows: [{**row, "index": row["index"] + 1} for row in rows], "documents [2, 1] came back"),
        (dropped("index"), "not-openai: KeyError: 'index'"),
        (dropped("relevance_score"), "not-openai: KeyError: 'relevance_score'"),
        (lambda rows: [{**row, "relevance_score": None} for row in rows], "not-openai: TypeError"),
        (lambda _: None, "not-openai: TypeError"),
    ],
)
def test_results_of_another_shape(serve, vectors, example, change, said):
    measured = pooling.ranked(serve(rerank=change), [example], vectors)
    assert (measured.value, measured.worst.place) == (1, "france")
    assert said in measured.worst.detail


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows[:1], "scores of [0] came back, of 2"),
        (lambda _: [], "scores of [] came back, of 2"),
        (lambda rows: [rows[0], {**rows[1], "index": 0}], "scores of [0, 0] came back, of 2"),
        (lambda rows: [{**row, "index": row["index"] + 1} for row in rows], "scores of [1, 2] came back, of 2"),
        (lambda rows: [*rows, rows[0]], "scores of [0, 1, 0] came back, of 2"),
        (dropped("index"), "not-openai: KeyError: 'index'"),
        (dropped("score"), "not-openai: KeyError: 'score'"),
        (lambda _: {"index": 0}, "not-openai: TypeError"),
    ],
)
def test_scores_of_another_shape(serve, vectors, example, change, said):
    measured = pooling.scored(serve(score=change), [example], vectors)
    assert (measured.value, measured.worst.place) == (1, "france")
    assert said in measured.worst.detail


def test_scores_may_come_in_any_order_when_they_say_whose_they_are(serve, vectors, example):
    assert pooling.scored(serve(score=lambda rows: rows[::-1]), [example], vectors).value == 0


def test_a_route_that_breaks_is_wrong_for_each_example(vectors, example):
    with ToldServer({"/rerank": (500, {"error": {"message": "boom"}})}) as server:
        served = HttpServed(server.url, "m", "embed", "bfloat16", None, None, 0.0, 10.0)
        with contextlib.closing(served):
            measured = pooling.ranked(served, [example], vectors)
    assert "boom" in measured.worst.detail


# ---------------------------------------------------------------- the recipe of a reranker


class Words:
    """tiny-qwen3's tokenizer with ``no`` and ``yes`` as one token each."""

    def __init__(self, tokenizer, words):
        self._tokenizer, self._words = tokenizer, words

    def __call__(self, text, **more):
        return {"input_ids": self._words[text]} if text in self._words else self._tokenizer(text, **more)

    def apply_chat_template(self, *args, **more):
        return self._tokenizer.apply_chat_template(*args, **more)


@pytest.fixture
def recipe(vectors):
    """The recipe over two words that tiny-qwen3 has."""
    own = Vectors(vectors._reference, "bfloat16")
    own.__dict__["tokenizer"] = Words(vectors.tokenizer, {word: [i] for word, i in WORDS.items()})
    return own


def shares(recipe, example):
    prompts = [f"query: {QUERY}\ndocument: {d}\nanswer:" for d in example.documents]
    return recipe.yes(prompts, WORDS["no"], WORDS["yes"])


def test_the_classifier_is_the_softmax_over_two_words(serve, recipe, example):
    reference, members = shares(recipe, example)
    with vectors_model(recipe) as (torch, model):
        ids = recipe.tokenizer(f"query: {QUERY}\ndocument: {example.documents[0]}\nanswer:")["input_ids"]
        row = model(torch.tensor([ids])).logits[0, -1].double().numpy()
    assert reference[0] == pytest.approx(1 / (1 + math.exp(row[WORDS["no"]] - row[WORDS["yes"]])), abs=1e-5)

    best = int(np.argmax(reference))  # in the order of this model, whatever it is
    mine = RerankExample("e", QUERY, (example.documents[best], example.documents[1 - best]), ("score",))
    rounded = dict(zip(example.documents, next(iter(members.values())), strict=True))
    assert pooling.classified(serve(relevance=rounded.__getitem__), [mine], recipe, TEMPLATE).value == 0
    wrong = pooling.classified(serve(relevance=lambda d: 1 - rounded[d]), [mine], recipe, TEMPLATE)
    assert wrong.value == 1
    swapped = pooling.classified(
        serve(relevance=rounded.__getitem__, score=lambda rows: rows[:1]), [mine], recipe, TEMPLATE
    )
    assert "scores of [0] came back, of 2" in swapped.worst.detail


def test_a_tokenizer_that_splits_yes_has_no_recipe(serve, vectors, example):
    split = Vectors(vectors._reference, "bfloat16")
    split.__dict__["tokenizer"] = Words(vectors.tokenizer, {"no": [1], "yes": [2, 3]})
    with pytest.raises(EngineError, match="no single tokens 'no' and 'yes'"):
        pooling.classified(serve(), [example], split, TEMPLATE)
