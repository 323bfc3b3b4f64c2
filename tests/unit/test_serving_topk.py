"""A server's best log-probabilities, filled in with the reference's shape."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_npuconf.engines.topk import FilledForward, PlainForward, ReducedForward, fill, log_softmax
from pytest_npuconf.metrics.logits import compare_logits

VOCABULARY, POSITIONS = 40, 6


class Pass:
    """Logits as an engine's forward pass gives them."""

    def __init__(self, logits):
        self.rows = np.asarray(logits, dtype=np.float32)

    @property
    def positions(self):
        return len(self.rows)

    def logits(self, start, stop):
        return self.rows[start:stop]


def two(seed, scale=0.3):
    draw = np.random.default_rng(seed)
    reference = draw.normal(0, 3, (POSITIONS, VOCABULARY))
    return reference, reference + draw.normal(0, scale, reference.shape)


def best(logits, k, following):
    rows = []
    for row, then in zip(log_softmax(logits), following, strict=True):
        ids = {*map(int, np.argsort(-row)[:k]), then}
        rows.append({i: float(row[i]) for i in ids})
    return rows


def grouped_kl(reference, rows):
    """KL over the known words and the rest as one symbol, straight from its definition."""
    found = []
    for r, row in zip(log_softmax(reference), rows, strict=True):
        ids = list(row)
        p, q = np.exp(r[ids]), np.exp([row[i] for i in ids])
        total = (p * np.log(p / q)).sum() + (1 - p.sum()) * np.log((1 - p.sum()) / (1 - q.sum()))
        found.append(total)
    return np.array(found)


@given(st.integers(0, 10_000), st.integers(1, 30))
def test_kl_of_the_filled_rows_is_the_kl_over_known_words_and_the_rest(seed, k):
    reference, candidate = two(seed)
    rows = best(candidate, k, [seed % VOCABULARY] * POSITIONS)
    filled = compare_logits(fill(rows, log_softmax(reference)), log_softmax(reference).astype(np.float32))
    assert filled.kl == pytest.approx(grouped_kl(reference, rows), rel=1e-3, abs=1e-6)


@given(st.integers(0, 10_000), st.integers(1, 30))
def test_it_is_a_lower_bound_of_the_whole(seed, k):
    reference, candidate = two(seed)
    rows = best(candidate, k, [0] * POSITIONS)
    filled = compare_logits(fill(rows, log_softmax(reference)), log_softmax(reference).astype(np.float32))
    whole = compare_logits(candidate.astype(np.float32), reference.astype(np.float32))
    assert (filled.kl <= whole.kl * (1 + 1e-4) + 1e-6).all()


def test_all_words_known_is_the_whole():
    reference, candidate = two(1)
    rows = best(candidate, VOCABULARY, [0] * POSITIONS)
    assert fill(rows, log_softmax(reference)) == pytest.approx(log_softmax(candidate), abs=1e-5)


def test_the_best_word_and_the_following_one_are_the_servers_own():
    reference, candidate = two(2)
    following = [3, 1, 4, 1, 5, 9]
    filled = FilledForward(best(candidate, 4, following), Pass(reference)).logits(0, POSITIONS)
    own = log_softmax(candidate)
    assert (filled.argmax(axis=1) == own.argmax(axis=1)).all()
    assert filled[np.arange(POSITIONS), following] == pytest.approx(own[np.arange(POSITIONS), following], abs=1e-5)


def test_a_member_is_reduced_as_a_server_would_tell_it():
    reference, candidate = two(3)
    ids = (7, 3, 1, 4, 1, 5)
    reduced = ReducedForward(Pass(candidate), Pass(reference), ids, k=4)
    told = FilledForward(best(candidate, 4, [*ids[1:], int(candidate[-1].argmax())]), Pass(reference))
    assert reduced.positions == told.positions == POSITIONS
    assert reduced.logits(0, POSITIONS) == pytest.approx(told.logits(0, POSITIONS), abs=1e-5)
    assert reduced.logits(2, 4) == pytest.approx(told.logits(2, 4), abs=1e-5)


def test_a_server_with_no_mass_left_has_a_finite_row():
    reference, _ = two(4)
    sure = [{0: 0.0}] * POSITIONS
    assert np.isfinite(fill(sure, log_softmax(reference))).all()


def test_the_plain_reference_differs_from_its_logits_by_a_constant_only():
    reference, _ = two(5)
    shift = PlainForward(Pass(reference)).logits(0, POSITIONS) - reference
    assert np.ptp(shift, axis=1) == pytest.approx(0, abs=1e-4)
