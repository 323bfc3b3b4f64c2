"""Two servers in turn: scale, swapping, drift, ties, the empty, false alarms and what is caught."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_npuconf.errors import MetricError
from pytest_npuconf.metrics.interleaved import (
    FEWEST_BLOCKS,
    Standing,
    block_ratios,
    cliffs_delta,
    floor_of,
    judge,
    order_of,
    signed_rank,
)

VALUES = st.lists(st.floats(1e-3, 1e3), min_size=24, max_size=24)
ORDER = order_of(6)


def ratios(values, *, higher=False):
    return block_ratios(values, ORDER, higher_is_better=higher)


def test_every_other_block_is_turned_round():
    assert order_of(3) == "ABBABAABABBA"


@given(VALUES, st.floats(1e-3, 1e3))
def test_a_common_scale_changes_nothing(values, scale):
    assert np.allclose(ratios([v * scale for v in values]), ratios(values), atol=1e-9)


@given(VALUES)
def test_swapping_the_two_turns_the_sign_and_so_does_what_is_better(values):
    swapped = block_ratios(values, ORDER.translate(str.maketrans("AB", "BA")), higher_is_better=False)
    assert np.allclose(swapped, -ratios(values))
    assert np.allclose(ratios(values, higher=True), -ratios(values))


@given(st.floats(-0.05, 0.05), st.floats(0.1, 10.0))
def test_a_steady_drift_meets_both_alike(drift, start):
    values = start * np.exp(drift * np.arange(24))
    assert np.allclose(ratios(values), 0, atol=1e-9)


@given(VALUES, st.floats(0.5, 2.0))
def test_a_slowdown_adds_to_every_block(values, factor):
    slowed = [v * factor if letter == "B" else v for v, letter in zip(values, ORDER, strict=True)]
    assert np.allclose(ratios(slowed), ratios(values) + math.log(factor), atol=1e-9)


@pytest.mark.parametrize(
    ("values", "order"),
    [([], ""), ([1.0] * 3, "ABB"), ([1.0] * 4, "ABAA"), ([1.0] * 8, ORDER[:4]), ([1.0, 0.0, 1.0, 1.0], "ABBA"),
     ([1.0, -1.0, 1.0, 1.0], "ABBA"), ([1.0, math.nan, 1.0, 1.0], "ABBA"), ([1.0, math.inf, 1.0, 1.0], "ABBA")],
)  # fmt: skip
def test_what_is_no_block_is_refused(values, order):
    with pytest.raises(MetricError):
        block_ratios(values, order, higher_is_better=False)


def test_ties_are_not_worse_and_have_no_p_value():
    found = judge([2.0] * 24, ORDER, higher_is_better=False, floor=0.0, margin=0.1)
    assert (found.standing, found.slowdown, found.interval, found.p_value, found.effect) == (
        Standing.NOT_WORSE, 1.0, (1.0, 1.0), 1.0, 0.0)  # fmt: skip


def test_too_few_blocks_are_refused():
    order = order_of(FEWEST_BLOCKS - 1)
    with pytest.raises(MetricError, match="at least 6"):
        judge([1.0] * len(order), order, higher_is_better=False, floor=0.0, margin=0.1)
    with pytest.raises(MetricError, match="A against A; at least 6"):
        floor_of([[0.01] * 5], 6)
    with pytest.raises(MetricError, match="0 blocks"):
        floor_of([], 6)


def test_a_margin_below_the_floor_is_refused():
    with pytest.raises(MetricError, match="more blocks are needed"):
        judge([1.0] * 24, ORDER, higher_is_better=False, floor=0.2, margin=0.1)


def rounds(draw, blocks, factor, noise):
    order = order_of(blocks)
    own = np.array([factor if letter == "B" else 1.0 for letter in order])
    return own * np.exp(draw.normal(0, noise, len(order))), order


def learnt(draw, noise, blocks=8, runs=3):
    same = [block_ratios(*rounds(draw, blocks, 1.0, noise), higher_is_better=False) for _ in range(runs)]
    return floor_of(same, blocks)


def test_the_same_twice_is_seldom_worse_and_a_tenth_slower_nearly_always():
    """500 simulated comparisons with 3 % of noise a round; one-sided, so at most one in 40 by the interval alone."""
    draw = np.random.default_rng(5)
    standings = {1.0: [], 1.1: []}
    for _ in range(500):
        floor = learnt(draw, 0.03)
        for factor, found in standings.items():
            values, order = rounds(draw, 8, factor, 0.03)
            found.append(judge(values, order, higher_is_better=False, floor=floor, margin=0.095).standing)
    assert standings[1.0].count(Standing.WORSE) <= 0.03 * 500
    assert standings[1.1].count(Standing.WORSE) >= 0.97 * 500
    assert standings[1.1].count(Standing.NOT_WORSE) == 0


def test_noise_that_hides_a_difference_is_inconclusive_and_says_how_many_blocks_would_do():
    values, order = rounds(np.random.default_rng(1), 6, 1.05, 0.2)
    found = judge(values, order, higher_is_better=False, floor=0.05, margin=0.1)
    assert found.standing is Standing.INCONCLUSIVE
    assert found.blocks_needed > 6


@given(VALUES)
def test_an_effect_is_between_minus_one_and_one_and_turns_with_the_two(values):
    one, other = values[:12], values[12:]
    assert -1 <= cliffs_delta(one, other) == -cliffs_delta(other, one) <= 1
    assert cliffs_delta(one, one) == 0


@pytest.mark.parametrize(
    "call", [lambda: cliffs_delta([], [1.0]), lambda: signed_rank([]), lambda: signed_rank([math.nan])]
)
def test_nothing_is_no_sample(call):
    with pytest.raises(MetricError):
        call()


@given(st.lists(st.floats(0.01, 1.0), min_size=6, max_size=12, unique=True))
def test_one_sided_blocks_have_the_smallest_p_value_there_is(values):
    assert signed_rank(values) == pytest.approx(2 / 2 ** len(values))
