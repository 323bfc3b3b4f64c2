"""Greedy answers against the reference: what counts as a deviation, and which conditions are asked."""

import dataclasses

import numpy as np
import pytest

from pytest_npuconf.documents import Document
from pytest_npuconf.engines.served import Answer
from pytest_npuconf.errors import EngineError
from pytest_npuconf.serving import greedy
from pytest_npuconf.serving.bench import First, windows
from pytest_npuconf.serving.near_ties import Judge

VOCABULARY = 50
DOCUMENTS = [
    Document(f"d{i}", "document", "", tuple((i * 7 + j * j) % VOCABULARY for j in range(300))) for i in range(6)
]


class Pass:
    """Logits that follow from the ids so far: the sum of the last three decides."""

    def __init__(self, ids, noise=0.0):
        self.rows = np.zeros((len(ids), VOCABULARY), dtype=np.float32)
        for i in range(len(ids)):
            draw = np.random.default_rng(sum(ids[max(0, i - 2) : i + 1]))
            self.rows[i] = draw.normal(0, 2, VOCABULARY)
        self.rows += np.random.default_rng(len(ids)).normal(0, noise, self.rows.shape) if noise else 0
        self.positions = len(ids)

    def logits(self, start, stop):
        return self.rows[start:stop]


class Reference:
    def plain(self, document):
        return Pass(document.ids)

    def members(self, _pair):
        return {"a": lambda d: Pass(d.ids, 0.001), "b": lambda d: Pass(d.ids, 0.001)}


class Served:
    """Answers as the reference would; ``wrong`` may change an answer."""

    max_model_len = 200
    mode = "generate"

    def __init__(self, wrong=lambda _number, _ask, answer: answer):
        self.wrong, self.asked = wrong, []

    def complete(self, asks, together=1):
        return [self._one(ask, together) for ask in asks]

    def _one(self, ask, together):
        self.asked.append((ask, together))
        if len(ask.ids) >= self.max_model_len:
            answer = Answer(error="status: too long")
        else:
            ids, logprobs = list(ask.ids), []
            for _ in range(ask.max_tokens):
                row = Pass(ids).rows[-1].astype(np.float64)
                ids.append(int(row.argmax()))
                logprobs.append(float(row.max() - np.log(np.exp(row).sum())))
            answer = Answer("", tuple(ids[len(ask.ids) :]), tuple(logprobs), "length", len(ask.ids), ask.max_tokens)
        return self.wrong(len(self.asked), ask, answer)


@pytest.fixture
def judge():
    return Judge(Reference(), "bfloat16", DOCUMENTS[:2])


def swap_last(answer):
    return Answer(answer.text, (*answer.ids[:-1], (answer.ids[-1] + 1) % VOCABULARY), answer.logprobs, answer.finish,
                  answer.prompt_tokens, answer.completion_tokens)  # fmt: skip


CONDITIONS = {
    "repeat": lambda s, j: greedy.repeats(s, DOCUMENTS, j),
    "concurrency": lambda s, j: greedy.concurrency(s, DOCUMENTS, j),
    "batch": lambda s, j: greedy.batch(s, DOCUMENTS, j),
    "short_then_long": lambda s, j: greedy.short_then_long(s, DOCUMENTS, j),
    "context": lambda s, j: greedy.context(s, DOCUMENTS, j),
    "parallel": lambda s, j: greedy.parallel(s, DOCUMENTS, j),
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_a_right_server_deviates_nowhere(name, judge):
    assert CONDITIONS[name](Served(), judge).value == 0


@pytest.mark.parametrize("name", CONDITIONS)
def test_one_wrong_token_is_found(name, judge):
    """Of the first answer: every condition asks something."""
    measured = CONDITIONS[name](Served(lambda n, _, a: swap_last(a) if n == 1 and a.ids else a), judge)
    assert measured.value == 1
    assert "tau" in measured.worst.detail


def test_one_lost_request_of_all_is_found(judge):
    lost = Served(lambda n, _, a: Answer(error="closed: nothing came") if n == 250 else a)
    measured = greedy.concurrency(lost, DOCUMENTS, judge)
    assert (measured.value, measured.worst.detail) == (1, "closed: nothing came")
    assert measured.worst.place == "32 at once, request 218"


def test_an_answer_that_is_cut_short_is_found(judge):
    short = Served(lambda n, _, a: Answer("", a.ids[:-2], a.logprobs[:-2]) if n == 3 else a)
    assert "6 tokens where 8 were asked for" in greedy.repeats(short, DOCUMENTS, judge).worst.detail


def test_a_server_without_token_ids_is_an_error(judge):
    with pytest.raises(EngineError, match="does not tell the token ids"):
        greedy.repeats(Served(lambda *_: Answer("text")), DOCUMENTS, judge)


def test_a_near_tie_is_excused(judge):
    class Tied(Reference):
        def plain(self, document):
            found = Pass(document.ids)
            second = np.argsort(-found.rows, axis=1)[:, 1]
            here = np.arange(len(second))
            found.rows[here, second] = found.rows.max(axis=1) - 1e-5
            return found

    tied = Judge(Tied(), "bfloat16", DOCUMENTS[:2])
    ids = DOCUMENTS[0].ids[:20]
    rows = Tied().plain(DOCUMENTS[0]).logits(19, 20)
    second = int(np.argsort(-rows[0])[1])
    assert tied.deviations(ids, [second]) == []
    [found] = judge.deviations(ids, [int(np.argsort(-rows[0])[7])])
    assert found.gap > found.tau > 0


def test_context_says_what_was_cut(judge):
    class Cuts(Served):
        def _one(self, ask, together):
            return super()._one(dataclasses.replace(ask, ids=ask.ids[-199:]), together)

    measured = greedy.context(Cuts(), DOCUMENTS, judge)
    assert [row.place for row in measured.rows] == ["200 tokens", "201 tokens"]
    assert "cut without a word" in measured.rows[0].detail


def test_the_reference_answers_no_prompt_that_takes_hours(judge, monkeypatch):
    """A long context is only counted: a wrong token is not seen, a lost or miscounted prompt is."""
    assert greedy.context(Served(), DOCUMENTS, judge).data["judged"] is True
    monkeypatch.setattr(greedy, "JUDGED", 199)
    wrong = greedy.context(Served(lambda n, _, a: swap_last(a) if n == 1 else a), DOCUMENTS, judge)
    assert (wrong.value, wrong.data["judged"]) == (0, False)
    lost = greedy.context(Served(lambda n, _, a: Answer(error="timeout: silence") if n == 1 else a), DOCUMENTS, judge)
    assert [row.place for row in lost.rows] == ["199 tokens"]
    short = greedy.context(
        Served(lambda n, _, a: dataclasses.replace(a, prompt_tokens=7) if n == 1 else a), DOCUMENTS, judge
    )
    assert [row.detail for row in short.rows] == ["usage says 7 tokens of the prompt"]


def test_context_tells_a_lost_request_from_a_refused_one(judge):
    lost = Served(lambda _, __, a: Answer(error="timeout: silence") if a.error else a)
    assert "not refused, but lost" in greedy.context(lost, DOCUMENTS, judge).rows[0].detail


def test_boundaries_are_a_ratio_by_length(judge):
    measured = greedy.boundaries(Served(), DOCUMENTS, [128], judge)
    assert measured.value < 0.01
    assert {row.place for row in measured.rows} == {f"prompts of {n} tokens" for n in (126, 127, 128, 129)}

    def shifted(_, ask, answer):
        moved = tuple(p - 0.5 for p in answer.logprobs) if len(ask.ids) == 128 else answer.logprobs
        return Answer("", answer.ids, moved)

    worst = greedy.boundaries(Served(shifted), DOCUMENTS, [128], judge)
    assert worst.value > 10
    assert worst.worst.place == "prompts of 128 tokens"


def test_a_split_model_is_asked_alone_and_at_once(judge):
    served = Served()
    assert greedy.parallel(served, DOCUMENTS, judge).n == 24
    assert [together for _, together in served.asked] == [1] * 8 + [16] * 16
    assert greedy.parallel_errors(Served(), DOCUMENTS, judge).value < 0.01


def test_a_split_model_whose_sums_are_off_is_found_where_every_token_is_right(judge):
    off = Served(lambda _, __, a: Answer("", a.ids, tuple(p - 0.05 for p in a.logprobs)))
    assert greedy.parallel(off, DOCUMENTS, judge).value == 0
    assert greedy.parallel_errors(off, DOCUMENTS, judge).value > 10


def test_no_text_reaches_the_boundary(judge):
    with pytest.raises(EngineError, match="no text of the card reaches 190"):
        greedy.boundaries(Served(), [Document("d", "text", "", (1, 2, 3))], [190], judge)


def test_the_first_request_is_compared_with_itself(judge):
    served = Served()
    ask = greedy.Ask(DOCUMENTS[0].ids[:40], 8, ignore_eos=True)
    [right] = served.complete([ask])
    assert greedy.first_request(served, First(ask, right), judge).value == 0
    assert greedy.first_request(served, First(ask, swap_last(right)), judge).value == 1


def test_windows_are_distinct_and_enough():
    found = windows(DOCUMENTS, 24, 300)
    assert len(set(found)) == 300
    assert {len(ids) for ids in found} == {24}
    with pytest.raises(EngineError, match="300 are needed"):
        windows(DOCUMENTS[:1], 24, 300)
