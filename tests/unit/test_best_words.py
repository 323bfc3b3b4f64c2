"""Of the positions between the looked windows only the best token is compared: the rows, and what a run makes of them."""

import dataclasses

import numpy as np
import pytest

from pytest_npuconf import measurements, thresholds
from pytest_npuconf.comparison import NonFinite, blocks_of, compare
from pytest_npuconf.documents import Document, windows
from pytest_npuconf.errors import MetricError, NonFiniteError
from pytest_npuconf.metrics.best_words import FEW, best_words, gap_to, joined
from pytest_npuconf.metrics.compact import compress
from pytest_npuconf.metrics.logits import ReferenceRows, compare_logits, compare_rounding
from tests.unit.test_positions import VOCABULARY, Rows, documents_of

LENGTHS = (17, 48, 129, 257, 513, 1025)


def rows(positions=40, vocabulary=VOCABULARY, seed=1, size=3.0):
    return (size * np.random.default_rng(seed).normal(size=(positions, vocabulary))).astype(np.float32)


class Sides:
    """One candidate that rounds as two members of the yardstick do."""

    def __init__(self):
        rng = np.random.default_rng(3)
        self.documents = [dataclasses.replace(d, name=f"d{len(d.ids)}") for d in documents_of(LENGTHS, rng)]
        self.documents += [Document(f"prompt {i}", "prompt", "", (1, 2, 3)) for i in (1, 2)]
        base = {d.name: 3 * rng.normal(size=(len(d.ids), VOCABULARY)) for d in self.documents}
        self.reference = {name: array.astype(np.float32) for name, array in base.items()}
        self.candidate, self.one, self.two = (
            {name: (array + 0.02 * rng.normal(size=array.shape)).astype(np.float32) for name, array in base.items()}
            for _ in range(3)
        )
        self.passes = {}

    def words(self, document):
        return joined([best_words(self.reference[document.name][a:b]) for a, b in document.rest])

    def compare(self, words=True):
        self.passes = {d.name: Rows(self.candidate[d.name]) for d in self.documents}
        return compare(
            self.documents,
            lambda d: self.passes[d.name],
            lambda d: Rows(self.reference[d.name]),
            {"one": lambda d: Rows(self.one[d.name]), "two": lambda d: Rows(self.two[d.name])},
            words=self.words if words else None,
        )

    def of(self, found, tokens):
        return next(d for d in found.documents if len(d.document.ids) == tokens)


def turn_over(logits, position):
    """Makes the best word the worst."""
    logits[position, logits[position].argmax()] = logits[position].min() - 1


@pytest.mark.parametrize("vocabulary", [1, 2, FEW - 1, FEW, FEW + 1, 500])
def test_the_same_as_whole_rows_say(vocabulary):
    reference = rows(vocabulary=vocabulary)
    candidate = reference + rows(vocabulary=vocabulary, seed=2, size=0.5)
    words, whole = best_words(reference), compare_logits(candidate, reference)
    found = words.compare(candidate)
    assert found.reference_top1.tolist() == whole.reference_top1.tolist()
    assert found.candidate_top1.tolist() == whole.candidate_top1.tolist()
    known = (words.ids == found.candidate_top1[:, None]).any(axis=1)
    assert found.gap[known] == pytest.approx(whole.gap[known], rel=1e-12)
    shift = compare_rounding(candidate, ReferenceRows(reference)).top2_shift
    assert words.shift(candidate) == pytest.approx(shift, rel=1e-12)


def test_a_word_that_is_not_known_is_at_least_as_far_as_the_last_that_is():
    reference = rows(1)
    candidate = -reference
    order = np.sort(reference[0])[::-1].astype(float)
    found = best_words(reference).compare(candidate)
    assert found.gap[0] == order[0] - order[FEW - 1]
    assert found.gap[0] < compare_logits(candidate, reference).gap[0]


def test_compact_rows_and_best_words_have_one_rule_for_the_gap():
    reference = rows(30, 700)
    candidate = rows(30, 700, seed=5)
    compact = compress(ReferenceRows(reference), np.zeros(30, dtype=int), 0)
    found = compact.compare(candidate)
    assert found.gap.tolist() == gap_to(found.candidate_top1, compact.ids, compact.logits).tolist()


def test_equal_logits_go_to_the_lower_id():
    assert best_words([[1.0, 7.0, 7.0]]).ids.tolist() == [[1, 2, 0]]


def test_windows_and_rest_are_every_position_once():
    for document in Sides().documents:
        every = sorted((*document.positions, *document.rest_positions))
        assert every == list(range(len(document.ids)))
    assert Document("d", "document", "", (1,) * 257, windows(257)).rest == (
        (16, 48),
        (80, 112),
        (144, 240),
    )


def test_blocks_keep_the_runs_apart():
    assert blocks_of(((0, 5), (9, 10)), 3) == [(0, 3), (3, 5), (9, 10)]


def test_every_position_is_asked_for_once():
    sides = Sides()
    found = sides.compare()
    assert found.positions == sum(LENGTHS) + 6
    for d in sides.documents:
        assert sorted(sides.passes[d.name].asked) == list(range(len(d.ids)))


def test_without_words_only_the_looked_positions_count():
    sides = Sides()
    found = sides.compare(words=False)
    assert found.positions == sum(len(d.positions) for d in sides.documents) < sum(LENGTHS)
    assert all(len(d.rest) == 0 for d in found.documents)
    assert measurements.token_match(found).n == found.positions


def test_figures_of_whole_rows_do_not_change():
    sides = Sides()
    for a, b in zip(sides.compare().documents, sides.compare(words=False).documents, strict=True):
        assert a.rows.kl.tolist() == b.rows.kl.tolist()
    assert measurements.kl_ratio(sides.compare()) == measurements.kl_ratio(sides.compare(words=False))


def test_what_rounding_does_there_is_the_root_mean_square_of_the_members():
    sides = Sides()
    found = sides.compare()
    at = [len(d.document.ids) for d in found.documents].index(257)
    d = found.documents[at].document
    expected = []
    for p in d.rest_positions:
        reference = sides.reference[d.name][p].astype(float)
        best, second = np.argsort(-reference, kind="stable")[:2]
        moved = [side[d.name][p].astype(float) - reference for side in (sides.one, sides.two)]
        expected.append(np.sqrt(np.mean([(m[best] - m[second]) ** 2 for m in moved])))
    assert found.noise.rest_gap[at] == pytest.approx(expected, rel=1e-9)
    assert found.noise.rest_gap[-1].size == 0  # a prompt is looked at whole


def test_a_wrong_token_between_the_windows_is_named():
    sides = Sides()
    clean = measurements.token_match(sides.compare())
    assert (clean.value, clean.n) == (0.0, sum(LENGTHS) + 6)
    assert 700 not in next(d for d in sides.documents if d.name == "d1025").positions
    turn_over(sides.candidate["d1025"], 700)
    assert measurements.token_match(sides.compare(words=False)).value == 0
    found = measurements.token_match(sides.compare())
    assert (found.value, found.rows[0].place) == (1.0, "d1025 position 700")
    assert found.data["disagreements"] == clean.data["disagreements"] + 1


def test_a_near_tie_between_the_windows_is_excused():
    """Five standard deviations of what the members do there; a gap just above is counted."""
    sides = Sides()
    row = sides.reference["d1025"][700]
    best, second = np.argsort(-row)[:2]
    for factor, counted in ((0.99, 0), (1.01, 1)):
        gap = factor * thresholds.TIE_Z.value * 1.0
        for side in (sides.reference, sides.candidate, sides.one, sides.two):
            side["d1025"][700] = row
            side["d1025"][700, best] = row[second] + gap
        for side in (sides.one, sides.two):
            side["d1025"][700, best] += 1.0  # the yardstick moves the gap by one
        sides.candidate["d1025"][700, best] = row[second] - 1
        assert measurements.token_match(sides.compare()).value == counted, factor


@pytest.mark.parametrize(("value", "kind"), [(np.nan, "NaN"), (np.inf, "infinity")])
def test_what_is_not_finite_between_the_windows_is_named(value, kind):
    sides = Sides()
    sides.candidate["d1025"][700, 3] = value
    assert sides.compare(words=False).non_finite == ()
    found = sides.compare()
    assert found.non_finite == (NonFinite("d1025 position 700", kind),)
    assert found.non_finite[0].position == 700
    assert "d1025" not in {d.document.name for d in found.documents}
    assert f"{kind} in the candidate's logits at d1025 position 700" in measurements.kl_ratio(found).broken
    finite = measurements.finite(found)
    assert (finite.value, finite.n) == (1.0, sum(LENGTHS) + 6)


def test_places_are_named_in_the_order_of_positions():
    """The first is where it began: 700 lies outside the windows, 1,009 in one."""
    sides = Sides()
    sides.candidate["d1025"][700:, 3] = np.nan
    sides.candidate["d513"][[0, 300, 512], 3] = np.nan
    found = [bad.place for bad in sides.compare().non_finite]
    assert found == [*(f"d513 position {p}" for p in (0, 300, 512)), *(f"d1025 position {p}" for p in range(700, 1025))]


def test_a_broken_candidate_is_not_taken_for_a_broken_yardstick():
    sides = Sides()
    sides.candidate["d1025"][0, 3] = np.nan
    sides.two["d1025"][700, 3] = np.nan
    assert [bad.place for bad in sides.compare().non_finite] == ["d1025 position 0"]


def test_a_yardstick_that_is_not_finite_there_is_nothing_to_compare_with():
    sides = Sides()
    sides.two["d1025"][700, 3] = np.nan
    with pytest.raises(NonFiniteError, match="yardstick two itself at d1025 position 700"):
        sides.compare()


def test_words_of_other_positions_are_refused():
    sides = Sides()
    with pytest.raises(MetricError, match="d129: the reference gives 3 positions for"):
        compare(
            sides.documents[2:3],
            lambda d: Rows(sides.candidate[d.name]),
            lambda d: Rows(sides.reference[d.name]),
            {},
            words=lambda d: best_words(sides.reference[d.name][:3]),
        )
