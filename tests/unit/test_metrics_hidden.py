"""Hidden states per position and per channel, by hand."""

import math

import numpy as np
import pytest

from pytest_npuconf.errors import MetricError, NonFiniteError
from pytest_npuconf.metrics.hidden import compare_hidden


def test_equal_states_have_no_error():
    states = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    out = compare_hidden(states, states.copy())
    assert out.cosine == pytest.approx(1.0, abs=1e-14)
    for name in ("rel_l2", "mae", "rmse", "channel_rel"):
        assert not getattr(out, name).any(), name


def test_one_position_by_hand():
    """c - r = (0, 2, 0, -2): norms sqrt 8 and 5."""
    out = compare_hidden([[3, 6, 0, -2]], [[3, 4, 0, 0]])
    assert out.rel_l2 == pytest.approx([math.sqrt(8) / 5])
    assert out.cosine == pytest.approx([33 / (5 * 7)])
    assert out.mae == pytest.approx([1.0])
    assert out.rmse == pytest.approx([math.sqrt(2)])


def test_channel_error_is_over_positions():
    """Channel 0: reference (3, 4), error (0, 1). Channel 1: reference (1, 0), error (0, 0)."""
    out = compare_hidden([[3, 1], [5, 0]], [[3, 1], [4, 0]])
    assert out.channel_rel == pytest.approx([0.2, 0.0])


def test_one_dead_channel_stands_out_of_the_mean():
    reference = np.ones((8, 256), dtype=np.float32)
    candidate = reference.copy()
    candidate[:, 77] = 0.0
    out = compare_hidden(candidate, reference)
    assert out.cosine.min() > 0.99
    assert (int(out.channel_rel.argmax()), out.channel_rel.max()) == (77, pytest.approx(1.0))


def test_shapes_are_per_position_and_per_channel():
    out = compare_hidden(np.ones((3, 5)), np.ones((3, 5)))
    assert [a.shape for a in (out.rel_l2, out.cosine, out.mae, out.rmse, out.channel_rel)] == [(3,)] * 4 + [(5,)]


def test_single_channel_and_single_position():
    out = compare_hidden([[-2.0]], [[1.0]])
    assert (out.cosine[0], out.rel_l2[0], out.channel_rel[0]) == (-1.0, 3.0, 3.0)


def test_all_zero_candidate_position_has_cosine_zero():
    out = compare_hidden([[0, 0], [1, 2]], [[1, 2], [1, 2]])
    assert out.cosine == pytest.approx([0.0, 1.0])
    assert out.rel_l2 == pytest.approx([1.0, 0.0])


def test_all_zero_reference_position_is_refused_by_number():
    with pytest.raises(MetricError, match="reference position 1 is all zero"):
        compare_hidden([[1, 2], [1, 2]], [[1, 2], [0, 0]])


def test_dead_reference_channel_that_stays_dead_has_no_error():
    out = compare_hidden([[1, 0, 3]], [[1, 0, 2]])
    assert out.channel_rel == pytest.approx([0.0, 0.0, 0.5])


def test_dead_reference_channel_that_wakes_is_far_above_one():
    """Floor: a millionth of the median channel norm, 1 here with or without the dead one."""
    out = compare_hidden([[1, 0.5, 1]], [[1, 0, 1]])
    assert out.channel_rel == pytest.approx([0.0, 0.5e6, 0.0])


def test_channel_error_is_finite_where_most_reference_channels_are_dead():
    out = compare_hidden([[1, 10, 10, 10]], [[1, 0, 0, 0]])
    assert np.isfinite(out.channel_rel).all()


@pytest.mark.parametrize("reference", [1.0, [1.0, 2.0], [[[1.0, 2.0]]]])
def test_reference_of_another_rank_is_refused(reference):
    with pytest.raises(MetricError, match=r"reference hidden states: need \(positions, channels\), got shape"):
        compare_hidden(reference, reference)


@pytest.mark.parametrize("shape", [(0, 4), (4, 0)])
def test_empty_is_refused(shape):
    with pytest.raises(MetricError, match="empty input"):
        compare_hidden(np.zeros(shape), np.zeros(shape))


@pytest.mark.parametrize("shape", [(1, 3), (2, 2), (2,), (1, 1, 2)])
def test_another_shape_is_refused_and_never_called_vocabulary(shape):
    with pytest.raises(MetricError, match=r"shape differs: candidate .*, reference \(1, 2\), axes \(positions, ch"):
        compare_hidden(np.ones(shape), np.ones((1, 2)))


@pytest.mark.parametrize("side", ["candidate", "reference"])
def test_not_finite_is_refused_with_its_position(side):
    arrays = {"candidate": np.ones((4, 6)), "reference": np.ones((4, 6))}
    arrays[side][2, 5] = math.nan
    with pytest.raises(NonFiniteError, match=f"NaN in the {side} hidden states at position 2, element 5"):
        compare_hidden(**arrays)
