"""The sampler's check: healthy draws pass, wrong ones fall far below the bound."""

import numpy as np
import pytest

from pytest_npuconf import thresholds
from pytest_npuconf.documents import Document
from pytest_npuconf.engines.served import Answer
from pytest_npuconf.errors import EngineError
from pytest_npuconf.serving import sampling
from pytest_npuconf.serving.sampling import DRAWS, TEMPERATURES, TOP_K, Place, open_place, p_value, seeds, told_apart

BOUND = thresholds.SAMPLING_P.value
PLACE = Place(Document("p", "prompt", "", (1, 2, 3)), 2, (10, 11, 12, 13, 14), (3.0, 2.0, 1.4, 0.9, 0.4))
TOLD = told_apart(PLACE)


class Sampler:
    """Answers as a server's: draws from the place's words under its own rules."""

    def __init__(self, seed=0, *, temperature=None, top_k=TOP_K, outside=False):
        self.draw = np.random.default_rng(seed)
        self.temperature, self.top_k, self.outside = temperature, top_k, outside

    def samples(self, ask, count):
        probabilities = PLACE.probabilities(self.temperature or ask.temperature)[: self.top_k]
        ids = self.draw.choice(PLACE.ids[: self.top_k], count, p=probabilities / probabilities.sum())
        if self.outside:
            ids[0] = 99
        return [Answer(ids=(int(i),)) for i in ids]


def test_healthy_samplers_are_not_rejected():
    """400 runs: the least p-value is about 1/400, four orders above the bound."""
    found = [sampling.sampling(Sampler(seed), PLACE).value for seed in range(400)]
    assert min(found) > BOUND
    assert np.mean(np.array(found) < 0.05) < 0.10  # times two for the two temperatures, so it is conservative


@pytest.mark.parametrize(
    "wrong", [{"temperature": 1.0}, {"temperature": 0.01}, {"top_k": TOP_K - 1}, {"outside": True}]
)
def test_wrong_samplers_are_far_beyond_the_bound(wrong):
    found = [sampling.sampling(Sampler(seed, **wrong), PLACE).value for seed in range(20)]
    assert max(found) < BOUND / 1000, max(found)


def test_a_word_that_is_lost_is_said():
    measured = sampling.sampling(Sampler(1, top_k=TOP_K - 1), PLACE)
    assert "0.000 for" in measured.rows[0].detail
    assert measured.n == DRAWS * len(TEMPERATURES)


def test_fewer_draws_than_asked_for_are_no_measurement():
    class Short(Sampler):
        def samples(self, ask, count):
            return super().samples(ask, count - 3)

    assert "509 words came back for 512 draws" in sampling.sampling(Short(), PLACE).broken


def test_p_value_is_the_g_test():
    # G = 2 sum(o ln(o/e)) = 2 (30 ln 1.5 + 10 ln .5) = 10.4650 with one degree: scipy.stats.chi2.sf(10.4650, 1)
    assert p_value([30, 10], np.array([0.5, 0.5])) == pytest.approx(0.0012166, rel=1e-3)


class Reference:
    def __init__(self, rows):
        self.rows = np.asarray(rows, dtype=np.float32)

    def plain(self, document):
        return self

    def logits(self, start, stop):
        return self.rows[start:stop]


def test_the_open_place_is_clear_of_the_next_word():
    tied = [5, 4, 3.4, 2.9, 2.4, 2.3, 0, 0]  # the sixth word is as good as the fifth
    steep = [19, 4, 3, 2, 1, 0, 0, 0]  # one word only, at any temperature
    flat = [5, 4.9, 4.8, 4.7, 4.6, 1, 0, 0]  # the same at any temperature
    good = [5, 4, 3.4, 2.9, 2.4, 1, 0, 0]
    rows = [tied, steep, flat, good]
    place = open_place(Reference(rows), [Document("d", "text", "", (1, 2, 3, 4))])
    assert (place.position, place.ids) == (3, (0, 1, 2, 3, 4))
    assert told_apart(place) == pytest.approx(TOLD, rel=1e-5)
    with pytest.raises(EngineError, match="leaves its next word open"):
        open_place(Reference(rows[:3]), [Document("d", "text", "", (1, 2, 3))])


def test_no_open_place_is_an_error():
    with pytest.raises(EngineError, match="no sampler can be judged"):
        open_place(Reference([[1, 1, 1, 1, 1, 1, 1]]), [Document("d", "text", "", (1,))])


class Seeded:
    """``honours``: the text follows from prompt and seed; else it follows from the number of the request."""

    def __init__(self, *, honours=True, constant=False):
        self.honours, self.constant, self.count = honours, constant, 0

    def complete(self, asks, together=1):
        found = []
        for ask in asks:
            self.count += 1
            seed = 0 if self.constant else ask.seed if self.honours else self.count
            draw = np.random.default_rng([seed, *ask.ids])
            found.append(Answer(ids=tuple(map(int, draw.integers(0, 100, ask.max_tokens)))))
        return found


LONG = [Document(f"d{i}", "text", "", tuple(range(i, i + 20))) for i in range(10)]


@pytest.mark.parametrize(("served", "share"), [(Seeded(), 0), (Seeded(honours=False), 1), (Seeded(constant=True), 1)])
def test_seeds(served, share):
    assert seeds(served, LONG).value == share


def test_a_lost_seeded_request_is_an_error():
    class Lost(Seeded):
        def complete(self, asks, together=1):
            return [Answer(error="timeout: nothing came") for _ in asks]

    with pytest.raises(EngineError, match="nothing came"):
        seeds(Lost(), LONG)
