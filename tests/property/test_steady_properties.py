"""What changes while load goes on, the knee, goodput, the roofline: scale, order, ties, the empty, how often intervals hold."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pytest_npuconf.errors import MetricError
from pytest_npuconf.metrics.latency import slowest_tenth
from pytest_npuconf.metrics.objectives import Slo
from pytest_npuconf.metrics.roofline import efficiency, least_tpot, step_bytes
from pytest_npuconf.metrics.saturation import goodput, knee
from pytest_npuconf.metrics.steady import drift, growth, rates, steady_window

POSITIVE = st.floats(1e-3, 1e6)
SERIES = st.lists(POSITIVE, min_size=6, max_size=40)


# the window


@given(st.integers(1, 8), st.integers(3, 30), st.floats(0.1, 10.0))
def test_between_the_ramps_of_a_closed_loop_every_place_is_taken(places, waves, seconds):
    sent = np.repeat(np.arange(waves) * seconds, places)
    begin, end = steady_window(sent, sent + seconds)
    assert begin == pytest.approx(seconds)
    assert end == pytest.approx((waves - 1) * seconds)


@pytest.mark.parametrize(("sent", "ended"), [([], []), ([0, 0], [1]), ([0, 0.5], [1, 2])])
def test_no_window_without_two_waves(sent, ended):
    with pytest.raises(MetricError):
        steady_window(sent, ended)


@given(st.lists(st.floats(0, 10), min_size=1, max_size=50), st.integers(1, 20))
def test_rates_count_each_token_once(times, windows):
    found = rates(times, np.ones(len(times)), (0.0, 10.0), windows)
    assert found.shape == (windows,)
    assert found.sum() * 10.0 / windows == pytest.approx(len(times))


@pytest.mark.parametrize(("window", "windows"), [((0.0, 1.0), 0), ((1.0, 1.0), 3), ((2.0, 1.0), 3)])
def test_rates_need_a_window_with_time(window, windows):
    with pytest.raises(MetricError):
        rates([0.5], [1.0], window, windows)


# drift


@given(SERIES, st.floats(1e-3, 1e3))
def test_drift_has_no_unit(values, scale):
    assert drift(np.array(values) * scale).value == pytest.approx(drift(values).value, rel=1e-6)


@given(SERIES)
def test_drift_backwards_is_its_inverse(values):
    found, back = drift(values), drift(values[::-1])
    assert found.value * back.value == pytest.approx(1.0, rel=1e-6)
    assert found.interval[0] <= found.value <= found.interval[1]


@given(POSITIVE, st.integers(6, 40))
def test_nothing_changes_where_nothing_changes(value, n):
    found = drift([value] * n)
    assert found.value == pytest.approx(1.0)
    assert found.interval == pytest.approx((1.0, 1.0))


@given(st.floats(0.2, 0.95), st.integers(0, 2**32 - 1))
def test_a_rate_that_falls_is_seen(share, seed):
    noise = np.exp(np.random.default_rng(seed).normal(0, 0.01, 30))
    values = np.where(np.arange(30) < 15, 1.0, share) * noise
    assert drift(values).value == pytest.approx(share, rel=0.03)


@pytest.mark.parametrize("values", [[], [1.0] * 5, [1.0] * 5 + [0.0], [1.0] * 5 + [math.nan], [1.0] * 6 + [-1.0]])
def test_drift_refuses(values):
    with pytest.raises(MetricError):
        drift(values)


def test_the_interval_of_a_drift_covers():
    """30 independent windows with 5 % of noise: at least 95 of 100 intervals hold 1; 2,000 simulated, two standard errors."""
    draw = np.random.default_rng(0)
    held = [low <= 1 <= high for low, high in (drift(np.exp(draw.normal(0, 0.05, 30))).interval for _ in range(2000))]
    assert np.mean(held) >= 0.95 - 2 * math.sqrt(0.05 * 0.95 / 2000)


# growth


@given(st.lists(st.floats(0, 1e9), min_size=4, max_size=20), st.floats(-1e6, 1e6))
def test_growth_is_the_line_between_the_ends_and_a_constant_adds_nothing(values, constant):
    steps = np.arange(len(values)) + 1.0
    found = growth(values, steps)
    assert found.value == pytest.approx((values[-1] - values[0]) / (len(values) - 1), abs=1e-3)
    assert growth(np.array(values) + constant, steps).value == pytest.approx(found.value, abs=1.0)


def test_the_interval_of_a_growth_covers_what_wanders():
    """Nine readings of a walk whose true growth is 10: 2,000 simulated, two standard errors."""
    draw, held = np.random.default_rng(0), []
    for _ in range(2000):
        values = np.cumsum(10.0 + draw.normal(0, 30, 9))
        low, high = growth(values, np.arange(9.0)).interval
        held.append(low <= 10.0 <= high)
    assert np.mean(held) >= 0.95 - 2 * math.sqrt(0.05 * 0.95 / 2000)


@pytest.mark.parametrize(
    ("values", "steps"),
    [
        ([], []),
        ([1.0] * 3, [1, 2, 3]),
        ([1.0] * 4, [1, 2, 3]),
        ([1.0] * 4, [1, 2, 2, 3]),
        ([1.0, 2, 3, math.inf], [1, 2, 3, 4]),
    ],
)
def test_growth_refuses(values, steps):
    with pytest.raises(MetricError):
        growth(values, steps)


# knee


@given(st.lists(POSITIVE, min_size=2, max_size=8), st.floats(1e-3, 1e3))
def test_the_knee_has_no_unit(throughput, scale):
    places = [2**i for i in range(len(throughput))]
    assert knee(places, np.array(throughput) * scale) == knee(places, throughput)


def test_where_the_knee_is():
    assert knee([1, 2, 4, 8, 16], [10, 19, 35, 36, 36]) == 4
    assert knee([1, 2, 4], [10, 20, 40]) is None, "it may lie beyond"
    assert knee([1, 2, 4], [10, 9, 8]) == 1
    assert knee([1, 2], [5, 5]) == 1


@pytest.mark.parametrize(
    ("places", "rates_"), [([1], [1.0]), ([], []), ([1, 2], [1.0]), ([2, 1], [1.0, 1.0]), ([1, 2], [1.0, 0.0])]
)
def test_the_knee_refuses(places, rates_):
    with pytest.raises(MetricError):
        knee(places, rates_)


# goodput


@given(st.lists(st.tuples(POSITIVE, POSITIVE), min_size=1, max_size=20), POSITIVE, POSITIVE, st.integers(0, 5))
def test_goodput_grows_with_what_is_allowed(answers, ttft, tpot, failed):
    first, each = zip(*answers, strict=True)
    n = len(answers) + failed
    found = goodput(first, each, n, 2.0, Slo(ttft, tpot))
    assert found.good == sum(a <= ttft and b <= tpot for a, b in answers)
    assert found.share == found.good / n
    assert found.rate == found.good / 2.0
    assert goodput(first, each, n, 2.0, Slo(2 * ttft, 2 * tpot)).good >= found.good
    assert goodput(first, each, n, 2.0, Slo(ttft, None)).good >= found.good


def test_an_answer_of_one_chunk_misses_no_tpot():
    assert goodput([0.1, 0.1], [math.nan, 9.0], 2, 1.0, Slo(None, 1.0)).good == 1


@pytest.mark.parametrize(
    "arguments",
    [([1.0], [1.0], 1, 1.0, Slo()), ([1.0], [], 1, 1.0, Slo(1.0)), ([1.0, 1.0], [1.0, 1.0], 1, 1.0, Slo(1.0)),
     ([], [], 0, 1.0, Slo(1.0)), ([1.0], [1.0], 1, 0.0, Slo(1.0))],
)  # fmt: skip
def test_goodput_refuses(arguments):
    with pytest.raises(MetricError):
        goodput(*arguments)


# roofline


def test_the_documented_model():
    """CLAIMS.md, perf: 8.045 GB of weights at 1.6 TB/s is 5.03 ms, so 4.3 ms is faster than physics."""
    least = least_tpot(step_bytes(8.045e9), 1.6e12)
    assert least * 1e3 == pytest.approx(5.03, abs=0.005)
    assert efficiency(least, 4.3e-3) > 1.1


@given(POSITIVE, POSITIVE, POSITIVE, POSITIVE)
def test_more_to_read_takes_longer(weights, token, tokens, bandwidth):
    assume(token * tokens > 1e-6 * weights)
    assert least_tpot(step_bytes(weights, token, tokens), bandwidth) > least_tpot(step_bytes(weights), bandwidth)


@given(POSITIVE, st.floats(-10, 0))
def test_no_time_is_faster_than_anything(least, measured):
    assert efficiency(least, measured) == math.inf


@pytest.mark.parametrize("arguments", [(0.0,), (-1.0,), (math.nan,), (1.0, -1.0, 1.0), (1.0, 1.0, math.inf)])
def test_a_step_reads_something(arguments):
    with pytest.raises(MetricError):
        step_bytes(*arguments)


@pytest.mark.parametrize("bandwidth", [0.0, -1.0, math.nan, math.inf])
def test_a_bandwidth_is_one(bandwidth):
    with pytest.raises(MetricError):
        least_tpot(1.0, bandwidth)


@pytest.mark.parametrize("pair", [(math.nan, 1.0), (1.0, math.nan), (-1.0, 1.0), (1.0, math.inf)])
def test_an_efficiency_is_of_numbers(pair):
    with pytest.raises(MetricError):
        efficiency(*pair)


# the tail


@given(SERIES, st.floats(1e-3, 1e3))
def test_the_slowest_tenth_lies_between_mean_and_largest(values, scale):
    found = slowest_tenth(values)
    assert np.mean(values) * (1 - 1e-9) <= found <= max(values) * (1 + 1e-9)
    assert slowest_tenth(np.array(values)[::-1] * scale) == pytest.approx(found * scale, rel=1e-9)


def test_one_slow_request_in_twenty_moves_it():
    assert slowest_tenth([1.0] * 19 + [5.0]) == pytest.approx(3.0)


@pytest.mark.parametrize("values", [[], [math.nan], [math.inf, 1.0]])
def test_a_tail_of_numbers(values):
    with pytest.raises(MetricError):
        slowest_tenth(values)
