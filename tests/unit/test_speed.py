"""The interval of a median, against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from pytest_npuconf.stats import quantile_interval


@pytest.mark.parametrize("n", [1, 2, 5])
def test_few_values_have_no_interval(n):
    assert quantile_interval(np.arange(float(n)), 0.5) is None


@pytest.mark.parametrize(("n", "low", "high"), [(6, 0, 5), (7, 0, 6), (8, 0, 7), (9, 1, 7), (20, 5, 14)])
def test_ends_are_the_order_statistics_of_the_tables(n, low, high):
    """The usual table of sign-test intervals: n = 6..8 the extremes, 9 the second, 20 the sixth from each end."""
    shuffled = np.random.default_rng(n).permutation(np.arange(float(n)))
    assert quantile_interval(shuffled, 0.5) == (low, high)


@pytest.mark.parametrize("n", range(6, 60))
def test_it_holds_the_median_often_enough_and_a_narrower_one_does_not(n):
    low, high = quantile_interval(np.arange(float(n)), 0.5)
    k = int(low) + 1
    assert int(high) == n - k
    assert 1 - 2 * binom.cdf(k - 1, n, 0.5) >= 0.95
    assert 1 - 2 * binom.cdf(k, n, 0.5) < 0.95
