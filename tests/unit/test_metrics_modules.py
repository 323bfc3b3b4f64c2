"""The noise ratio of one module's output."""

import numpy as np
import pytest

from pytest_npuconf.errors import MetricError, NonFiniteError
from pytest_npuconf.metrics.modules import (
    BLOCK,
    QUIET,
    UNIT_ROUNDOFF,
    block_starts,
    noise_ratio,
    squares,
    yardstick_squares,
)

BF16 = UNIT_ROUNDOFF["bfloat16"]
RNG = np.random.default_rng(0)


def output(rows=256, channels=8):
    return RNG.normal(size=(rows, channels)).astype(np.float32)


def off(reference, size, seed=1):
    """The reference with errors of a standard deviation of ``size``."""
    return reference + np.random.default_rng(seed).normal(size=reference.shape).astype(np.float32) * np.float32(size)


def ratio(candidate, reference, *members, roundoff=0.0):
    return noise_ratio(
        squares(candidate, reference), yardstick_squares([squares(m, reference) for m in members]), roundoff
    )


def test_unit_roundoff_is_half_the_spacing_above_one():
    assert UNIT_ROUNDOFF["float32"] == np.finfo(np.float32).eps / 2
    assert UNIT_ROUNDOFF["float16"] == np.finfo(np.float16).eps / 2
    assert UNIT_ROUNDOFF["bfloat16"] == 2.0**-7 / 2


def test_squares_by_formula():
    reference = np.array([[1, 2], [3, 4]], np.float32)
    found = squares(reference + np.array([[1, 0], [2, 3]], np.float32), reference)
    assert found.channel_error.tolist() == [5, 9]
    assert found.channel_reference.tolist() == [10, 20]
    assert found.channel_fourth.tolist() == [82, 272]
    assert found.block_fourth.tolist() == [354]
    assert found.block_error.tolist() == [14]
    assert found.block_reference.tolist() == [30]


@pytest.mark.parametrize(
    ("rows", "starts"),
    [(1, [0]), (16, [0]), (17, [0]), (23, [0]), (24, [0, 16]), (48, [0, 16, 32]), (49, [0, 16, 32])],
)
def test_a_short_last_block_belongs_to_the_one_before(rows, starts):
    assert block_starts(rows) == starts
    assert squares(output(rows), output(rows)).block_error.size == len(starts)


def test_joined_is_the_same_as_at_once():
    reference, candidate = output(4 * BLOCK), output(4 * BLOCK)
    parts = [squares(candidate[a : a + 2 * BLOCK], reference[a : a + 2 * BLOCK]) for a in (0, 2 * BLOCK)]
    whole, joined = squares(candidate, reference), parts[0].joined(parts[1])
    assert np.allclose(joined.channel_error, whole.channel_error)
    assert np.array_equal(joined.block_error, whole.block_error)


def test_joined_refuses_other_channels():
    with pytest.raises(MetricError, match="channels differ: 8 and 7"):
        squares(output(), output()).joined(squares(output(channels=7), output(channels=7)))


def test_the_noisiest_member_counts():
    reference = output()
    candidate = off(reference, 0.02)
    assert ratio(candidate, reference, off(reference, 0.001), candidate).worst == 1.0


def test_twice_the_error_is_twice_the_ratio():
    reference = np.ones((64, 8), np.float32)
    found = ratio(reference + np.float32(0.5), reference, reference - np.float32(0.25))
    assert (found.channel, found.block, found.mean) == (2.0, 2.0, 2.0)


def test_one_dead_channel_is_found_and_named():
    reference = output(256, 512)
    candidate = off(reference, 0.001)
    candidate[:, 77] = 0
    found = ratio(candidate, reference, off(reference, 0.001, seed=2))
    assert found.worst_channel == 77
    assert found.channel > 500
    assert found.mean < 50


def test_an_error_of_late_rows_is_found_and_named():
    reference = output(512, 64)
    candidate = off(reference, 0.001)
    candidate[256:272] = off(reference[256:272], 0.01, seed=3)
    found = ratio(candidate, reference, off(reference, 0.001, seed=2))
    assert found.worst_block == 256 // BLOCK
    assert found.block > 8 > 3 > found.mean


def test_a_quiet_channel_is_judged_as_a_share_of_the_median():
    reference = np.ones((64, 5), np.float32)
    member = reference + np.float32(0.5)
    member[:, 0] = 1
    found = ratio(reference + np.float32(0.25), reference, member)
    assert found.worst_channel == 0
    assert found.channel == pytest.approx(0.5 / QUIET)


def test_never_below_one_rounding_of_the_output():
    reference = np.full((256, 4), 3, np.float32)
    candidate = reference * np.float32(1 + BF16)
    assert ratio(candidate, reference, reference, roundoff=BF16).worst == pytest.approx(np.sqrt(3))


def test_bit_equal_is_zero_also_where_rounding_costs_nothing():
    zeros = np.zeros((16, 4), np.float32)
    assert ratio(zeros, zeros, zeros, roundoff=BF16).worst == 0.0
    assert ratio(output(), (r := output()), r).worst > 0


def test_not_zero_where_all_is_zero_is_infinite():
    zeros = np.zeros((16, 4), np.float32)
    assert ratio(zeros + np.float32(1e-30), zeros, zeros, roundoff=BF16).worst == np.inf


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_what_is_not_finite_is_refused(value, side):
    sides = [output(), output()]
    sides[side][5, 2] = value
    with pytest.raises(NonFiniteError, match="position 5"):
        squares(*sides)


@pytest.mark.parametrize(
    ("candidate", "reference", "words"),
    [
        (np.zeros((0, 4), np.float32), np.zeros((0, 4), np.float32), "empty"),
        (np.zeros((4, 0), np.float32), np.zeros((4, 0), np.float32), "empty"),
        (np.zeros((4, 5), np.float32), np.zeros((4, 4), np.float32), "shape differs"),
        (np.zeros(4, np.float32), np.zeros(4, np.float32), "rows, channels"),
    ],
)
def test_shapes_that_are_refused(candidate, reference, words):
    with pytest.raises(MetricError, match=words):
        squares(candidate, reference)


def test_a_yardstick_needs_members_of_the_same_rows_and_channels():
    with pytest.raises(MetricError, match="without members"):
        yardstick_squares([])
    with pytest.raises(MetricError, match="rows"):
        yardstick_squares([squares(output(64), output(64)), squares(output(16), output(16))])
    with pytest.raises(MetricError, match="channels"):
        yardstick_squares([squares(output(), output()), squares(output(channels=3), output(channels=3))])


def test_candidate_and_yardstick_must_agree_in_shape():
    with pytest.raises(MetricError, match="channels differ"):
        noise_ratio(squares(output(), output()), squares(output(channels=3), output(channels=3)), BF16)
    with pytest.raises(MetricError, match="blocks differ"):
        noise_ratio(squares(output(), output()), squares(output(16), output(16)), BF16)


def test_a_few_massive_activations_may_be_off_by_eight_roundings():
    """Found on smollm2: norms that round once less move one massive activation by four."""
    reference = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
    reference[0, 5] = 1e4
    member, candidate = off(reference, BF16, seed=1), off(reference, BF16, seed=2)
    candidate[0, 5] = 1e4 * (1 + 4 * BF16)
    assert ratio(candidate, reference, member, roundoff=BF16).worst < 1.25
    candidate[0, 5] = 1e4 * (1 + 16 * BF16)
    found = ratio(candidate, reference, member, roundoff=BF16)
    assert (found.worst_channel, found.worst_block) == (5, 0)
    assert found.worst == pytest.approx(2, rel=0.05)
