"""Intervals over documents against hand computation and against scipy's own intervals."""

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from pytest_npuconf.errors import MetricError
from pytest_npuconf.stats import Estimate, largest_of, log_ratio_of_sums, ratio_of_sums, robust_sd, share_lower_bound

T1, T2 = 12.706204736, 4.302652730  # Student's 97.5 % quantile for 1 and 2 degrees of freedom, from printed tables

# ---------------------------------------------------------------- ratio_of_sums


def test_two_documents_by_hand():
    """R = 2, residuals -1 and 1, se = sqrt(2/1 * 2) / 2 = 1."""
    e = ratio_of_sums([1, 3], [1, 1])
    assert (e.value, e.n) == (2.0, 2)
    assert (e.low, e.high) == pytest.approx((2 - T1, 2 + T1), rel=1e-9)


def test_unequal_documents_by_hand():
    """R = 12/6, residuals 0, -1, 1 over 5/6, 4/6, 3/6 give 0, -3/2, 2; se = sqrt(2/3 * 25/4) / 6."""
    e = ratio_of_sums([2, 3, 7], [1, 2, 3])
    half = T2 * math.sqrt(2 / 3 * 25 / 4) / 6
    assert (e.value, e.low, e.high) == pytest.approx((2, 2 - half, 2 + half), rel=1e-9)


def test_equal_documents_give_the_plain_t_interval():
    values = np.array([0.3, 1.2, 0.7, 2.9, 0.1, 1.1])
    expected = scipy_stats.ttest_1samp(values, 0).confidence_interval(0.95)
    e = ratio_of_sums(values, np.ones(6))
    assert (e.low, e.high) == pytest.approx((expected.low, expected.high), rel=1e-12)


def test_proportional_documents_have_a_zero_interval():
    assert ratio_of_sums([2, 4, 8], [1, 2, 4]) == Estimate(2.0, 2.0, 2.0, 3)


def test_ratio_is_of_sums_and_not_the_mean_of_ratios():
    assert ratio_of_sums([1, 30], [1, 10]).value == pytest.approx(31 / 11)


def test_numerators_may_be_negative():
    e = ratio_of_sums([-1, -3], [1, 1])
    assert (e.value, e.low) == pytest.approx((-2, -2 - T1))


def test_interval_is_ordered_when_the_denominators_are_negative():
    e = ratio_of_sums([1, 3], [-1, -1])
    assert e.low <= e.value <= e.high


@pytest.mark.parametrize("function", [ratio_of_sums, log_ratio_of_sums])
class TestRefusals:
    @pytest.mark.parametrize(("a", "b"), [([], []), ([1], [1]), (1.0, 1.0), ([[1, 2]], [[1, 2]])])
    def test_too_few_documents_or_another_shape(self, function, a, b):
        with pytest.raises(MetricError, match="numerators: needs one value for each of at least 2 documents, got"):
            function(a, b)

    def test_too_few_denominators(self, function):
        with pytest.raises(MetricError, match="denominators: needs one value"):
            function([1, 2], [1])

    def test_unequal_counts(self, function):
        with pytest.raises(MetricError, match="3 numerators against 2 denominators"):
            function([1, 2, 3], [1, 2])

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_not_finite_names_the_document(self, function, bad):
        with pytest.raises(MetricError, match="numerators: document 2 is not finite"):
            function([1, 2, bad], [1, 1, 1])
        with pytest.raises(MetricError, match="denominators: document 1 is not finite"):
            function([1, 2, 3], [1, bad, 1])

    def test_zero_denominator(self, function):
        with pytest.raises(MetricError, match="the denominators sum to zero"):
            function([1, 2], [0, 0])


# ---------------------------------------------------------------- log_ratio_of_sums


def test_log_interval_by_hand():
    """sd(log R) = sd(R) / R: the half width of the plain interval over R, in the exponent."""
    e = log_ratio_of_sums([2, 3, 7], [1, 2, 3])
    half = T2 * math.sqrt(2 / 3 * 25 / 4) / 6 / 2
    assert (e.value, e.low, e.high) == pytest.approx((2, 2 * math.exp(-half), 2 * math.exp(half)), rel=1e-9)


def test_log_interval_is_symmetric_in_the_logarithm():
    e = log_ratio_of_sums([1, 5, 2, 9], [2, 1, 3, 4])
    assert e.value**2 == pytest.approx(e.low * e.high)
    assert e.low > 0


def test_bit_equal_results_give_zero():
    assert log_ratio_of_sums([0, 0, 0], [1, 2, 3]) == Estimate(0.0, 0.0, 0.0, 3)


def test_one_document_with_the_whole_weight_is_refused():
    with pytest.raises(MetricError, match="carries the whole weight"):
        ratio_of_sums([1.0, 2.0], [0.0, 3.0])


@pytest.mark.parametrize(("a", "b"), [([-1, 3], [1, 1]), ([1, 3], [-1, 3])])
def test_log_ratio_refuses_negative_entries(a, b):
    with pytest.raises(MetricError, match="entries must not be negative"):
        log_ratio_of_sums(a, b)


# ---------------------------------------------------------------- share_lower_bound


def test_four_of_four_show_47_percent():
    assert share_lower_bound(4, 4) == pytest.approx(0.4729, abs=5e-5)
    assert share_lower_bound(4, 4) == pytest.approx(0.05**0.25, rel=1e-12)


def test_none_of_any_shows_nothing():
    assert share_lower_bound(0, 1) == share_lower_bound(0, 1000) == 0.0


@pytest.mark.parametrize(("successes", "n"), [(1, 1), (1, 4), (3, 4), (97, 100), (199, 200), (640, 640)])
def test_lower_bound_is_clopper_and_pearson(successes, n):
    exact = scipy_stats.binomtest(successes, n, alternative="greater").proportion_ci(0.95, method="exact").low
    bound = share_lower_bound(successes, n)
    assert bound == pytest.approx(exact, rel=1e-9)
    assert scipy_stats.binom.sf(successes - 1, n, bound) == pytest.approx(0.05, rel=1e-9)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (1, 0), (-1, 4), (5, 4), (0, -1)])
def test_lower_bound_refuses_what_is_not_a_share(successes, n):
    with pytest.raises(MetricError, match=f"share_lower_bound: {successes} of {n} is not a share"):
        share_lower_bound(successes, n)


# ---------------------------------------------------------------- robust_sd


def test_robust_sd_by_hand():
    assert robust_sd([-3, 1, 2]) == pytest.approx(1.4826 * 2)
    assert robust_sd([[-1, 1], [1, -1]]) == pytest.approx(1.4826)
    assert robust_sd([0.0]) == 0.0


def test_robust_sd_counts_a_shift_as_spread():
    assert robust_sd([5, 5, 5]) == pytest.approx(1.4826 * 5)


def test_robust_sd_ignores_one_outlier():
    assert robust_sd([-1, 1, -1, 1, 1e9]) == pytest.approx(1.4826)


def test_robust_sd_agrees_with_the_normal():
    """The asymptotic error of a MAD of 20000 normal values is 1.17 / sqrt(2 * 20000), 0.6 %; 3 % is five of it."""
    assert robust_sd(2.5 * np.random.default_rng(7).standard_normal(20000)) == pytest.approx(2.5, rel=0.03)


@pytest.mark.parametrize("values", [[], [math.nan], [1, math.inf]])
def test_robust_sd_refuses_empty_and_not_finite(values):
    with pytest.raises(MetricError, match="robust_sd: needs at least one value, all finite"):
        robust_sd(values)


@pytest.mark.parametrize(
    ("listed", "largest"),
    [
        ([Estimate(1.0, 0.5, 2.0, 9)], Estimate(1.0, 0.5, 2.0, 9)),
        # the lower end is not that of the largest value, nor is the upper one
        ([Estimate(2.99, 2.95, 3.02, 30), Estimate(3.5, 0.1, 99.0, 2)], Estimate(3.5, 2.95, 99.0, 2)),
        ([Estimate(1.90, 1.85, 1.95, 30), Estimate(1.8, 0.0, 8592.0, 2)], Estimate(1.90, 1.85, 8592.0, 2)),
    ],
)
def test_the_largest_of_several_has_each_end_from_where_it_is_largest(listed, largest):
    assert largest_of(listed) == largest
    assert largest_of(listed[::-1]) == largest


def test_the_largest_of_none_is_refused():
    with pytest.raises(MetricError, match="largest_of: there is no estimate"):
        largest_of([])
