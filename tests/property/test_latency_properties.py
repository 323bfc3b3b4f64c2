"""Latency metrics: scale, shift, order, ties, the empty, and the coverage of quantile intervals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_npuconf.errors import MetricError
from pytest_npuconf.metrics.latency import (
    amortised_ms_per_token,
    concurrency,
    output_throughput,
    spread,
    time_per_output_token,
    time_to_first_token,
)
from pytest_npuconf.stats import quantile_interval, samples_for

TIMES = st.floats(0.0, 1e4)
POSITIVE = st.floats(1e-6, 1e4)
VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60)


@given(TIMES, POSITIVE, st.integers(2, 10_000), st.data())
def test_tpot_is_the_time_between_over_the_tokens_after_the_first_chunk(first, took, tokens, data):
    of_first = data.draw(st.integers(1, tokens))
    found = time_per_output_token(first, first + took, tokens, of_first)
    if of_first == tokens:
        assert found is None
    else:
        assert found == pytest.approx((first + took - first) / (tokens - of_first))


@given(TIMES, TIMES, POSITIVE)
def test_a_shift_of_the_clock_changes_nothing(sent, shift, took):
    assert time_to_first_token(sent + shift, sent + shift + took) == pytest.approx(took, abs=1e-9 * (sent + shift + 1))


@given(POSITIVE)
def test_what_came_before_it_was_asked_for_is_refused(back):
    with pytest.raises(MetricError, match="before its request"):
        time_to_first_token(back, 0.0)
    with pytest.raises(MetricError, match="before the first"):
        time_per_output_token(back, 0.0, 3)


@pytest.mark.parametrize(("tokens", "of_first"), [(0, 1), (3, 0), (3, 4)])
def test_counts_that_cannot_be(tokens, of_first):
    with pytest.raises(MetricError, match="tokens in the first chunk"):
        time_per_output_token(0.0, 1.0, tokens, of_first)


@given(st.lists(st.integers(1, 5000), min_size=1), POSITIVE, st.floats(0.1, 10.0))
def test_throughput_scales_with_time_and_its_inverse_is_the_amortised_time(tokens, seconds, scale):
    found = output_throughput(tokens, 0.0, seconds)
    assert output_throughput(tokens, 0.0, seconds * scale) == pytest.approx(found / scale)
    assert amortised_ms_per_token(found) * found == pytest.approx(1000.0)


@pytest.mark.parametrize(("tokens", "begin", "end"), [([], 0, 1), ([0], 0, 1), ([3], 1, 1), ([3], 2, 1)])
def test_nothing_gives_no_throughput(tokens, begin, end):
    with pytest.raises(MetricError):
        output_throughput(tokens, begin, end)


@pytest.mark.parametrize("throughput", [0.0, -1.0, float("nan")])
def test_no_throughput_gives_no_time(throughput):
    with pytest.raises(MetricError):
        amortised_ms_per_token(throughput)


@given(VALUES, st.floats(0.01, 100.0), st.randoms())
def test_a_spread_scales_and_knows_no_order(values, scale, random):
    found = spread(values)
    other = [v * scale for v in values]
    random.shuffle(other)
    scaled = spread(other)
    assert scaled.mean == pytest.approx(found.mean * scale, rel=1e-6, abs=1e-6)
    assert scaled.least == pytest.approx(found.least * scale)
    assert scaled.quantiles.keys() == found.quantiles.keys()
    for q, (value, interval) in found.quantiles.items():
        assert scaled.quantiles[q][0] == pytest.approx(value * scale, rel=1e-6, abs=1e-6)
        assert (interval is None) == (len(values) < samples_for(q))


@given(st.floats(-1e6, 1e6), st.integers(6, 50))
def test_ties_have_an_interval_of_no_width(value, n):
    assert spread([value] * n).quantiles[0.5] == (value, (value, value))


@given(VALUES, st.integers(0, 59), st.sampled_from([float("nan"), float("inf"), -float("inf")]))
def test_what_is_not_finite_is_refused(values, place, wrong):
    values = [*values]
    values.insert(place % (len(values) + 1), wrong)
    with pytest.raises(MetricError):
        spread(values)
    with pytest.raises(MetricError):
        quantile_interval(values, 0.5)


def test_nothing_has_no_spread():
    with pytest.raises(MetricError):
        spread([])
    assert quantile_interval([], 0.5) is None


@pytest.mark.parametrize("q", [0.0, 1.0, -0.5, float("nan")])
def test_a_quantile_is_between_zero_and_one(q):
    with pytest.raises(MetricError):
        quantile_interval([1.0], q)
    with pytest.raises(MetricError):
        samples_for(q)


@given(st.sampled_from([0.05, 0.25, 0.5, 0.9, 0.95, 0.99]))
def test_as_many_as_are_needed_are_enough_and_one_fewer_is_not(q):
    n = samples_for(q)
    assert quantile_interval(np.arange(n), q) is not None
    assert quantile_interval(np.arange(n - 1), q) is None


def test_a_99th_percentile_needs_368():
    assert (samples_for(0.5), samples_for(0.99)) == (6, 368)


@pytest.mark.parametrize(("q", "n"), [(0.5, 20), (0.9, 60), (0.99, 500)])
def test_the_interval_holds_the_true_quantile_in_at_least_95_of_100(q, n):
    """Exponential times; 2,000 draws have a standard error of half a per cent."""
    draw = np.random.default_rng(3).exponential(1.0, (2000, n))
    true = -np.log(1 - q)
    held = [low <= true <= high for low, high in (quantile_interval(row, q) for row in draw)]
    assert np.mean(held) >= 0.95 - 3 * 0.005


@given(st.lists(st.tuples(TIMES, POSITIVE), min_size=1, max_size=30))
def test_concurrency_is_between_zero_and_the_number_of_requests(requests):
    sent = np.array([a for a, _ in requests])
    ended = sent + np.array([b for _, b in requests])
    if ended.max() > sent.min():
        assert 0 < concurrency(sent, ended) <= len(requests) * (1 + 1e-9)


@pytest.mark.parametrize(("sent", "ended"), [([], []), ([1.0], [1.0]), ([1.0, 2.0], [3.0])])
def test_no_time_no_concurrency(sent, ended):
    with pytest.raises(MetricError):
        concurrency(sent, ended)
