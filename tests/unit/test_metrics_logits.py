"""Logits against reference logits, by hand and against scipy."""

import math
from dataclasses import fields

import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp, rel_entr, softmax

from pytest_npuconf.errors import MetricError
from pytest_npuconf.metrics.logits import LogitRows, ReferenceRows, RoundingRows, compare_logits, compare_rounding

NAN, INF = math.nan, math.inf


def some_logits(positions=5, vocabulary=11, seed=0, spread=3.0):
    return (spread * np.random.default_rng(seed).standard_normal((positions, vocabulary))).astype(np.float32)


class FakeTensor:
    """The four verbs that a torch tensor is asked for, without torch."""

    def __init__(self, values):
        self.values, self.asked = values, []

    def __getattr__(self, verb):
        if verb not in {"detach", "float", "cpu"}:
            raise AttributeError(verb)

        def step():
            self.asked.append(verb)
            return self

        return step

    def numpy(self):
        return np.asarray(self.values, dtype=np.float32)


# ---------------------------------------------------------------- equal and hand-computed rows


def test_equal_logits_have_no_error():
    rows = some_logits()
    out = compare_logits(rows, rows.copy())
    assert out.cosine == pytest.approx(1.0, abs=1e-14)
    for name in ("rel_l2", "mean_rel", "active_rel", "kl", "gap", "top2_shift", "lse_shift"):
        assert not getattr(out, name).any(), name
    for name in ("within_1e3", "within_5e3", "top_overlap"):
        assert (getattr(out, name) == 1.0).all(), name
    assert (out.candidate_top1 == rows.argmax(axis=1)).all()
    assert (out.reference_top1 == rows.argmax(axis=1)).all()


@pytest.mark.parametrize(
    ("candidate", "reference", "cosine"),
    [([0, 1], [1, 0], 0.0), ([-3, -4], [3, 4], -1.0), ([30, 40], [3, 4], 1.0), ([4, 3], [3, 4], 24 / 25)],
)
def test_cosine_by_hand(candidate, reference, cosine):
    assert compare_logits([candidate], [reference]).cosine == pytest.approx([cosine], abs=1e-15)


def test_rel_l2_is_relative_to_the_reference():
    assert compare_logits([[3, 4.5]], [[3, 4]]).rel_l2 == pytest.approx([0.1])
    assert compare_logits([[3, 4]], [[6, 8]]).rel_l2 == pytest.approx([0.5])
    assert compare_logits([[6, 8]], [[3, 4]]).rel_l2 == pytest.approx([1.0])


def test_mean_rel_averages_over_elements():
    assert compare_logits([[1.5, 2, 4]], [[1, 2, 8]]).mean_rel == pytest.approx([(0.5 + 0 + 0.5) / 3])


def test_mean_rel_of_a_zero_reference_element_is_bounded_by_eps():
    out = compare_logits([[1, 1]], [[0, 1]])
    assert out.mean_rel == pytest.approx([1e12 / 2])


def test_active_rel_leaves_out_elements_near_zero():
    out = compare_logits([[1.5, 1, 2]], [[1, 0, 0.0005]])
    assert out.active_rel == pytest.approx([0.5])


def test_within_shares_count_elements():
    """Relative errors 0, 2^-10 (0.00098), 2^-8 (0.0039), 2^-7 (0.0078): exact in float32."""
    out = compare_logits([[1, 1 + 2**-10, 1 + 2**-8, 1 + 2**-7]], [[1, 1, 1, 1]])
    assert (out.within_1e3[0], out.within_5e3[0]) == (0.5, 0.75)


def test_rows_are_kept_apart():
    out = compare_logits([[3, 4], [3, 4.5]], [[3, 4], [3, 4]])
    assert out.rel_l2 == pytest.approx([0.0, 0.1])
    assert len(out) == 2


# ---------------------------------------------------------------- KL


def test_kl_by_hand():
    """(1/2, 1/2) against (1/4, 3/4): half of log 2 plus half of log 2/3."""
    out = compare_logits([[1, 1 + math.log(3)]], [[1, 1]])
    assert out.kl == pytest.approx([0.5 * math.log(4 / 3)], rel=1e-6)


@pytest.mark.parametrize("spread", [0.1, 3.0, 30.0])
def test_kl_agrees_with_scipy(spread):
    reference, candidate = some_logits(spread=spread), some_logits(seed=1, spread=spread)
    p, q = softmax(reference.astype(float), axis=1), softmax(candidate.astype(float), axis=1)
    assert compare_logits(candidate, reference).kl == pytest.approx(rel_entr(p, q).sum(axis=1), rel=1e-9)


def test_kl_has_a_direction():
    a, b = [[0.0, 1, 5]], [[2.0, 1, 0]]
    assert compare_logits(a, b).kl[0] != pytest.approx(compare_logits(b, a).kl[0], rel=1e-3)


def test_kl_of_a_tiny_perturbation_is_half_its_variance():
    """To second order KL = var_p(d) / 2; the third order is relative d/3."""
    delta = 2.0**-20
    out = compare_logits([[1 + delta, 1, 1, 1]], [[1, 1, 1, 1]])
    assert out.kl == pytest.approx([delta**2 * (1 / 4 * 3 / 4) / 2], rel=1e-5, abs=0)


def test_kl_of_a_shifted_row_is_zero():
    rows = np.round(some_logits() * 8) / 8
    assert (compare_logits(rows + 64, rows).kl < 1e-25).all()


def test_kl_survives_a_broken_candidate():
    """p = (1, e^-100), q = (e^-1000, 1): KL = 1000."""
    out = compare_logits([[0, 1000]], [[100, 0.0]])
    assert out.kl == pytest.approx([1000.0], rel=1e-9)


def test_kl_where_the_reference_probability_underflows():
    """p = (1, e^-760), q = (1/2, 1/2): KL = log 2. e^-760 is zero in float64, the word's share of q is not."""
    assert compare_logits([[2, 2]], [[2, -758]]).kl == pytest.approx([math.log(2)], rel=1e-9)


def test_kl_with_a_masked_word():
    """The reference masks a word with float32's lowest number, the candidate with -10000: no difference."""
    lowest = float(np.finfo(np.float32).min)
    assert compare_logits([[2, 1, -1e4]], [[2, 1, lowest]]).kl == pytest.approx([0.0], abs=1e-12)


def test_kl_of_a_word_that_both_mask():
    lowest = float(np.finfo(np.float32).min)
    with_mask = compare_logits([[2, 1.5, lowest]], [[2, 1, lowest]]).kl
    assert with_mask == pytest.approx(compare_logits([[2, 1.5]], [[2, 1]]).kl, rel=1e-12)


def test_one_broken_row_leaves_the_others_their_digits():
    reference = [[1, 1, 1, 1], [1, 1, 1, 1]]
    candidate = [[1 + 2.0**-13, 1, 1, 1], [0, 0, 0, 3000]]
    alone = compare_logits(candidate[:1], reference[:1]).kl[0]
    assert compare_logits(candidate, reference).kl[0] == pytest.approx(alone, rel=1e-9, abs=0)


def test_lse_shift_is_the_difference_of_log_normalisers():
    reference, candidate = some_logits(), some_logits(seed=1)
    expected = logsumexp(candidate.astype(float), axis=1) - logsumexp(reference.astype(float), axis=1)
    assert compare_logits(candidate, reference).lse_shift == pytest.approx(expected, rel=1e-12)


# ---------------------------------------------------------------- top-1, gap, overlap


def test_gap_is_the_references_own_gap():
    """Reference prefers 0 (5.0), candidate prefers 2 (reference 4.25 there)."""
    out = compare_logits([[5, 1, 6]], [[5, 4.5, 4.25]])
    assert (out.reference_top1[0], out.candidate_top1[0], out.gap[0]) == (0, 2, 0.75)


def test_gap_is_zero_where_top1_agrees_or_the_reference_ties():
    assert compare_logits([[9, 1, 0]], [[5, 4, 0]]).gap[0] == 0.0
    tie = compare_logits([[1, 2, 0]], [[5, 5, 0]])
    assert (tie.reference_top1[0], tie.candidate_top1[0], tie.gap[0]) == (0, 1, 0.0)


def test_top2_shift_is_what_happens_to_the_references_gap():
    """The gap 5 - 4 becomes 4.5 - 4.75."""
    assert compare_logits([[4.5, 4.75, 0]], [[5, 4, 0]]).top2_shift == pytest.approx([-1.25])


@pytest.mark.parametrize(("top_k", "overlap"), [(1, 0.0), (2, 0.5), (3, 2 / 3), (5, 1.0), (99, 1.0)])
def test_top_overlap_by_hand(top_k, overlap):
    """Orders: reference 0 1 2 3 4, candidate 1 4 0 2 3."""
    out = compare_logits([[3, 5, 2, 1, 4]], [[5, 4, 3, 2, 1]], top_k=top_k)
    assert out.top_overlap == pytest.approx([overlap])


@pytest.mark.parametrize("top_k", [0, -1])
def test_top_k_below_one_is_refused(top_k):
    with pytest.raises(MetricError, match="top_k"):
        compare_logits([[1.0, 2, 3]], [[1.0, 2, 3]], top_k=top_k)


@pytest.mark.parametrize("top_k", [1, 2, 5])
@pytest.mark.parametrize("vocabulary", [2, 7, 300])
def test_ties_go_to_the_lower_id_as_argmax_does(top_k, vocabulary):
    rows = np.ones((1, vocabulary), dtype=np.float32)
    out = compare_logits(rows, rows, top_k=top_k)
    assert (out.reference_top1[0], out.candidate_top1[0]) == (0, 0)


def test_tied_words_at_the_edge_of_the_top_k_go_to_the_lower_id():
    rows = np.ones((1, 300), dtype=np.float32)
    rows[0, 200] = 2.0
    assert ReferenceRows(rows, top_k=3).top.tolist() == [[200, 0, 1]]


def test_single_word_vocabulary():
    out = compare_logits([[2.0], [3.0]], [[3.0], [3.0]])
    assert out.kl.tolist() == [0.0, 0.0]
    assert out.lse_shift.tolist() == [-1.0, 0.0]
    assert out.top_overlap.tolist() == [1.0, 1.0]
    assert out.top2_shift.tolist() == [0.0, 0.0]
    assert out.gap.tolist() == [0.0, 0.0]


def test_two_word_vocabulary_is_smaller_than_top_k():
    out = compare_logits([[0.0, 1]], [[1.0, 0]])
    assert (out.top_overlap[0], out.gap[0]) == (1.0, 1.0)


# ---------------------------------------------------------------- zero rows


def test_all_zero_candidate_row_has_no_cosine_of_one():
    out = compare_logits([[1, 2, 3], [0, 0, 0]], [[1, 2, 3], [1, 2, 3]])
    assert out.cosine[1] < 0.5
    assert out.rel_l2[1] == pytest.approx(1.0)


def test_all_zero_reference_row_is_refused_by_number():
    with pytest.raises(MetricError, match="reference row 1 is all zero"):
        compare_logits([[1, 2], [1, 2]], [[1, 2], [0, 0]])


def test_rows_that_are_zero_on_both_sides_agree():
    out = compare_logits([[0, 0]], [[0, 0]])
    assert (out.cosine[0], out.rel_l2[0], out.kl[0]) == (1.0, 0.0, 0.0)


# ---------------------------------------------------------------- reference rows


def test_nll_agrees_with_scipy():
    rows, ids = some_logits(), np.array([0, 3, 10, 7, 7])
    expected = -log_softmax(rows.astype(float), axis=1)[np.arange(5), ids]
    assert ReferenceRows(rows).nll(ids) == pytest.approx(expected, rel=1e-12)


def test_nll_of_a_certain_word_is_not_negative():
    assert ReferenceRows([[100.0, 0, 0]]).nll([0])[0] >= 0.0


@pytest.mark.parametrize("targets", [[0], [0, 1, 2], [[0, 1]], 0])
def test_nll_refuses_another_number_of_targets(targets):
    with pytest.raises(MetricError, match="targets: need one id per position"):
        ReferenceRows([[1.0, 2], [1.0, 2]]).nll(targets)


@pytest.mark.parametrize("bad", [-1, 3, 151936])
def test_nll_refuses_and_names_an_id_outside_the_vocabulary(bad):
    with pytest.raises(MetricError, match=f"targets: id {bad} lies outside a vocabulary of 3"):
        ReferenceRows([[1.0, 2, 3], [1.0, 2, 3]]).nll([bad, 2])


def test_shared_reference_gives_the_same_rows():
    reference, candidate = some_logits(), some_logits(seed=1)
    shared = ReferenceRows(reference, top_k=3)
    direct = compare_logits(candidate, reference, top_k=3)
    for _ in range(2):
        again = compare_logits(candidate, shared)
        for field in fields(LogitRows):
            assert np.array_equal(getattr(again, field.name), getattr(direct, field.name)), field.name


def test_input_is_left_alone():
    reference, candidate = some_logits(), some_logits(seed=1)
    kept = reference.copy(), candidate.copy()
    compare_logits(candidate, reference)
    assert np.array_equal(reference, kept[0])
    assert np.array_equal(candidate, kept[1])


# ---------------------------------------------------------------- allocate, put


def test_parts_put_one_by_one_equal_the_whole():
    reference, candidate = some_logits(), some_logits(seed=1)
    whole = compare_logits(candidate, reference)
    kept = LogitRows.allocate(5)
    for a, b in ((0, 2), (2, 5)):
        kept.put(a, compare_logits(candidate[a:b], reference[a:b]))
    assert len(kept) == 5
    for field in fields(LogitRows):
        assert getattr(kept, field.name) == pytest.approx(getattr(whole, field.name), rel=1e-12), field.name


def test_allocate_refuses_nothing():
    with pytest.raises(MetricError, match="no positions to compare"):
        LogitRows.allocate(0)


def test_rounding_rows_are_the_same_figures():
    reference, candidate = some_logits(), some_logits(seed=1)
    whole, few = compare_logits(candidate, reference), compare_rounding(candidate, ReferenceRows(reference))
    for field in fields(RoundingRows):
        assert getattr(few, field.name) == pytest.approx(getattr(whole, field.name), rel=1e-12), field.name
