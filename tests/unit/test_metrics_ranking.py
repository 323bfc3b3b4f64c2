"""Orders of scored items, by hand."""

import math

import pytest

from pytest_npuconf.errors import MetricError, NonFiniteError
from pytest_npuconf.metrics.ranking import Swap, compare_ranking


def test_equal_scores_agree():
    out = compare_ranking([3, 2, 1], [3, 2, 1], noise=0.0)
    assert (out.swaps, out.ties, out.pairs, out.tau_b, out.max_score_error) == ((), 0, 3, pytest.approx(1.0), 0.0)


def test_reversed_scores_swap_every_pair_worst_first():
    out = compare_ranking([1, 2, 4], [4, 2, 1], noise=0.0)
    assert out.swaps == (Swap(0, 2, 3.0), Swap(0, 1, 2.0), Swap(1, 2, 1.0))
    assert out.tau_b == pytest.approx(-1.0)
    assert out.max_score_error == 3.0


def test_first_is_the_one_the_reference_puts_ahead():
    assert compare_ranking([5, 1], [1, 2], noise=0.0).swaps == (Swap(1, 0, 1.0),)


@pytest.mark.parametrize(("noise", "swaps", "ties"), [(0.0, 1, 0), (0.49, 1, 0), (0.5, 0, 1), (9.0, 0, 1)])
def test_a_swap_counts_only_beyond_the_noise(noise, swaps, ties):
    out = compare_ranking([1.0, 1.25], [1.5, 1.0], noise=noise)
    assert (len(out.swaps), out.ties) == (swaps, ties)


def test_equal_reference_scores_are_never_a_swap():
    out = compare_ranking([1, 2], [3, 3], noise=0.0)
    assert (out.swaps, out.ties) == ((), 1)


def test_a_candidate_tie_beyond_the_noise_is_a_swap():
    assert compare_ranking([1, 1], [3, 2], noise=0.5).swaps == (Swap(0, 1, 1.0),)


def test_noise_does_not_change_tau():
    args = [1, 3, 2, 4], [1, 2, 3, 4]
    assert compare_ranking(*args, noise=0.0).tau_b == compare_ranking(*args, noise=9.0).tau_b


def test_tau_b_without_ties_by_hand():
    """One of six pairs is discordant: (5 - 1) / 6."""
    assert compare_ranking([1, 3, 2, 4], [1, 2, 3, 4], noise=0.0).tau_b == pytest.approx(4 / 6)


def test_tau_b_with_ties_by_hand():
    """r = 1 2 2 3, c = 1 1 2 3: 4 concordant, none discordant, one tied pair on each side: 4 / sqrt(5 * 5)."""
    assert compare_ranking([1, 1, 2, 3], [1, 2, 2, 3], noise=0.0).tau_b == pytest.approx(4 / 5)


def test_tau_b_where_both_are_constant():
    out = compare_ranking([2, 2, 2], [7, 7, 7], noise=0.0)
    assert (out.tau_b, out.swaps, out.ties, out.max_score_error) == (1.0, (), 3, 5.0)


@pytest.mark.parametrize(("candidate", "reference"), [([2, 2, 2], [1, 2, 3]), ([1, 2, 3], [2, 2, 2])])
def test_tau_b_where_one_is_constant(candidate, reference):
    assert compare_ranking(candidate, reference, noise=0.0).tau_b == 0.0


def test_a_constant_candidate_loses_every_order():
    assert len(compare_ranking([2, 2, 2], [1, 2, 3], noise=0.0).swaps) == 3


@pytest.mark.parametrize("reference", [[], [1.0], 1.0, [[1.0, 2.0]]])
def test_fewer_than_two_items_or_another_rank_is_refused(reference):
    with pytest.raises(MetricError, match=r"reference scores: need \(items,\) with at least two, got shape"):
        compare_ranking(reference, reference, noise=0.0)


def test_negative_noise_is_refused():
    with pytest.raises(MetricError, match=r"noise must be finite and not negative, got -0\.1"):
        compare_ranking([1, 2], [1, 2], noise=-0.1)


def test_noise_that_is_no_number_is_refused():
    with pytest.raises(MetricError, match="noise"):
        compare_ranking([1, 2], [1, 2], noise=math.nan)


@pytest.mark.parametrize("candidate", [[1, 2, 3], [[1, 2]], 1.0])
def test_another_shape_is_refused_and_never_called_vocabulary(candidate):
    with pytest.raises(MetricError, match=r"shape differs: candidate .*, reference \(2,\), axes \(items,\)"):
        compare_ranking(candidate, [1, 2], noise=0.0)


def test_empty_candidate_is_refused():
    with pytest.raises(MetricError, match="empty input"):
        compare_ranking([], [1, 2], noise=0.0)


@pytest.mark.parametrize(("bad", "kind"), [(math.nan, "NaN"), (-math.inf, "infinity")])
def test_not_finite_is_refused_with_its_item(bad, kind):
    with pytest.raises(NonFiniteError, match=f"{kind} in the candidate scores at position 1"):
        compare_ranking([1, bad, 3], [1, 2, 3], noise=0.0)
    with pytest.raises(NonFiniteError, match=f"{kind} in the reference scores at position 2"):
        compare_ranking([1, 2, 3], [1, 2, bad], noise=0.0)
