"""Properties of the noise ratio of a module, and of telling origins from containers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_npuconf.errors import NonFiniteError
from pytest_npuconf.measurements.modules import apportion, inside
from pytest_npuconf.metrics.modules import UNIT_ROUNDOFF, noise_ratio, squares, yardstick_squares

SEEDS = st.integers(0, 2**32 - 1)
SHAPES = st.tuples(st.integers(1, 60), st.integers(1, 20))
NAMES = st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(".".join), unique=True, max_size=12)
U = UNIT_ROUNDOFF["bfloat16"]


def three(seed, shape):
    """A reference, a candidate and a member near it."""
    rng = np.random.default_rng(seed)
    reference = rng.normal(size=shape).astype(np.float32)
    near = [reference + rng.normal(size=shape).astype(np.float32) * np.float32(0.01) for _ in range(2)]
    return reference, *near


def ratio(reference, candidate, *members):
    return noise_ratio(squares(candidate, reference), yardstick_squares([squares(m, reference) for m in members]), U)


@given(SEEDS, SHAPES, st.integers(-20, 20))
def test_scale_does_not_matter(seed, shape, exponent):
    """A power of two, so that the inputs round alike."""
    arrays = three(seed, shape)
    scale = np.float32(2.0**exponent)
    assert ratio(*(a * scale for a in arrays)).worst == pytest.approx(ratio(*arrays).worst, rel=1e-9)


@given(SEEDS, SHAPES)
def test_the_order_of_channels_does_not_matter(seed, shape):
    arrays = three(seed, shape)
    order = np.random.default_rng(seed).permutation(shape[1])
    found, moved = ratio(*arrays), ratio(*(a[:, order] for a in arrays))
    assert moved.channel == pytest.approx(found.channel)
    assert moved.block == pytest.approx(found.block)
    assert order[moved.worst_channel] == found.worst_channel


@given(SEEDS, SHAPES)
def test_a_member_itself_is_never_above_one(seed, shape):
    reference, candidate, member = three(seed, shape)
    assert ratio(reference, candidate, candidate, member).worst <= 1.0 + 1e-12


@given(SEEDS, SHAPES)
def test_the_reference_itself_is_zero(seed, shape):
    reference, _, member = three(seed, shape)
    assert ratio(reference, reference, member).worst == 0.0


@given(SEEDS, SHAPES, st.sampled_from([np.nan, np.inf]))
def test_what_is_not_finite_is_refused_wherever_it_is(seed, shape, value):
    reference, candidate, _ = three(seed, shape)
    rng = np.random.default_rng(seed)
    candidate[rng.integers(shape[0]), rng.integers(shape[1])] = value
    with pytest.raises(NonFiniteError):
        squares(candidate, reference)


@given(SEEDS, st.integers(1, 60))
def test_of_equal_channels_the_first_is_named(seed, rows):
    reference, candidate, member = three(seed, (rows, 1))
    found = ratio(*(np.repeat(a, 5, axis=1) for a in (reference, candidate, member)))
    assert found.worst_channel == 0


@given(NAMES, st.randoms(use_true_random=False))
def test_every_module_that_is_off_is_an_origin_or_contains_one(names, random):
    blame = apportion({name: random.random() for name in names})
    assert sorted(blame.origins + blame.containers) == sorted(names)
    assert bool(blame.origins) == bool(names)
    for name in blame.containers:
        assert any(inside(origin, name) for origin in blame.origins)
    for name in blame.origins:
        assert not any(inside(other, name) for other in names)


@given(NAMES.filter(bool))
def test_of_equal_origins_the_earliest_is_guilty(names):
    blame = apportion(dict.fromkeys(names, 2.0))
    assert blame.guilty == next(name for name in names if name in blame.origins)
