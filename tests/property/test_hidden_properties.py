"""What holds of hidden states for any input, and of every other metric what test_metrics_properties does not ask yet.

Truth comes from plain Python over fractions and from math.fsum, never from the code under test.
"""

from __future__ import annotations

import math
from fractions import Fraction
from statistics import median

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from pytest_npuconf.errors import MetricError, NonFiniteError
from pytest_npuconf.metrics.arrays import as_float32, as_float64, require_finite, require_matching
from pytest_npuconf.metrics.hidden import HiddenRows, compare_hidden
from pytest_npuconf.metrics.logits import (
    ACTIVE,
    REL_EPS,
    LogitRows,
    ReferenceRows,
    RoundingRows,
    best_ids,
    compare_logits,
    compare_rounding,
)
from pytest_npuconf.metrics.perplexity import compare_perplexity, relative_change, score_text
from pytest_npuconf.metrics.ranking import compare_ranking

SHAPES = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6)
BAD = st.sampled_from([(math.nan, "NaN"), (math.inf, "infinity"), (-math.inf, "infinity")])
HIDDEN = tuple(HiddenRows.__dataclass_fields__)
BY_POSITION = tuple(name for name in HIDDEN if name != "channel_rel")
LARGEST, SMALLEST = float(np.finfo(np.float16).max), 2.0**-24  # of float16; the smallest is subnormal
LOWEST = float(np.finfo(np.float32).min)


def awake(limit=30.0):
    """No zeros and nothing near the edge of "active", where float32 and float64 may differ."""
    return st.floats(-limit, limit, width=32, allow_subnormal=False).filter(lambda x: abs(x) > 2e-3)


def any_float():
    """Ordinary values, zeros, values below and above "active"."""
    values = np.array([0.0, 5e-4, -5e-4, 2e-3, -2e-3, 1.0, 1.001, 1.005], dtype=np.float32)  # what float32 can hold
    small = st.sampled_from(values.tolist())
    return st.one_of(small, st.floats(-30, 30, width=32, allow_subnormal=False))


@st.composite
def pairs(draw, elements=None):
    """Candidate and reference of one shape; no reference position is all zero."""
    elements = any_float() if elements is None else elements
    shape = draw(SHAPES)
    candidate, reference = (draw(arrays(np.float32, shape, elements=elements)) for _ in range(2))
    assume(reference.any(axis=1).all())
    # on the very edge of "active" float32 and float64 disagree about 1e-3 itself
    assume((np.abs(np.abs(reference) - 1e-3) > 1e-9).all())
    return candidate, reference


@st.composite
def close_pairs(draw):
    """Relative errors of 1e-4 to 1e-2, on both sides of the two shares."""
    reference = draw(arrays(np.float32, draw(SHAPES), elements=awake()))
    relative = draw(arrays(np.float64, reference.shape, elements=st.floats(-1e-2, 1e-2)))
    return (reference * (1 + relative)).astype(np.float32), reference


def same(a, b, rel=1e-12, at_least=1e-15):
    assert a == pytest.approx(b, rel=rel, abs=at_least)


def root(square: Fraction) -> float:
    """Square root of an exact sum, whatever its size."""
    return math.sqrt(float(square)) if square else 0.0


def by_hand(candidate, reference) -> dict[str, list[float]]:
    """Every figure of :class:`HiddenRows` from its definition, exact until the last square root."""
    c, r = ([[Fraction(float(x)) for x in row] for row in side] for side in (candidate, reference))
    eps, out = Fraction(REL_EPS), {name: [] for name in HIDDEN}
    for cs, rs in zip(c, r, strict=True):
        off = [abs(a - b) for a, b in zip(cs, rs, strict=True)]
        relative = [d / max(abs(b), eps) for d, b in zip(off, rs, strict=True)]
        active = [e for e, b in zip(relative, rs, strict=True) if abs(b) > Fraction(ACTIVE)]
        square, norm = sum(d * d for d in off), sum(b * b for b in rs)
        own, width = sum(a * a for a in cs), len(rs)
        dot = sum(a * b for a, b in zip(cs, rs, strict=True))
        out["rel_l2"].append(root(square / norm))
        out["cosine"].append(float(dot) / math.sqrt(float(own)) / math.sqrt(float(norm)) if own else 0.0)
        out["mae"].append(float(sum(off) / width))
        out["rmse"].append(root(square / width))
        out["mean_rel"].append(float(sum(relative) / width))
        out["max_rel"].append(float(max(relative)))
        out["active_rel"].append(float(sum(active) / len(active)) if active else float(sum(relative) / width))
        out["within_1e3"].append(sum(e <= Fraction(1e-3) for e in relative) / width)
        out["within_5e3"].append(sum(e <= Fraction(5e-3) for e in relative) / width)
    norms = [root(sum(row[j] ** 2 for row in r)) for j in range(len(r[0]))]
    floor = median(n for n in norms if n) * 1e-6
    for j, norm in enumerate(norms):
        distance = root(sum((a[j] - b[j]) ** 2 for a, b in zip(c, r, strict=True)))
        out["channel_rel"].append(distance / max(norm, floor))
    return out


# ---------------------------------------------------------------- hidden states against their definitions


@given(st.one_of(pairs(), close_pairs()))
def test_every_figure_follows_its_definition(pair):
    out, truth = compare_hidden(*pair), by_hand(*pair)
    for name in HIDDEN:
        # an element on the edge of a share may be rounded across it; the definition decides to 1e-12
        relative = np.abs(pair[0].astype(float) - pair[1]) / np.maximum(np.abs(pair[1].astype(float)), REL_EPS)
        if name.startswith("within"):
            assume((np.abs(relative / float(name[-3:].replace("e", "e-")) - 1) > 1e-12).all())
        same(getattr(out, name), truth[name], rel=1e-11, at_least=1e-14)


@given(close_pairs())
def test_the_figures_are_ordered_as_their_definitions_are(pair):
    out = compare_hidden(*pair)
    assert (out.mae <= out.rmse * (1 + 1e-12)).all()
    assert (out.mean_rel <= out.max_rel * (1 + 1e-12)).all()
    assert (out.within_1e3 <= out.within_5e3).all()
    assert ((out.within_5e3 >= 0) & (out.within_5e3 <= 1)).all()
    assert ((out.max_rel <= 1e-3) == (out.within_1e3 == 1)).all()
    assert ((out.max_rel <= 5e-3) == (out.within_5e3 == 1)).all()
    same(out.active_rel, out.mean_rel)  # every element is active here


def test_shares_count_on_both_sides_of_their_edge():
    reference = np.full((1, 8), 2.0)
    candidate = 2.0 * (1 + np.array([[0, 5e-4, 9.9e-4, 1.1e-3, 4.9e-3, -4.9e-3, 5.1e-3, -1.0]]))
    out = compare_hidden(candidate, reference)
    assert (out.within_1e3[0], out.within_5e3[0]) == (3 / 8, 6 / 8)
    assert out.max_rel[0] == pytest.approx(1.0)
    assert out.mean_rel[0] == pytest.approx((5e-4 + 9.9e-4 + 1.1e-3 + 2 * 4.9e-3 + 5.1e-3 + 1) / 8, rel=1e-4)


def test_elements_near_zero_count_for_mean_rel_and_not_for_active_rel():
    out = compare_hidden([[1.01, 1e-4, 2e-4]], [[1.0, 1e-5, 2e-4]])
    assert out.active_rel[0] == pytest.approx(0.01, rel=1e-5)
    assert out.max_rel[0] == pytest.approx(9.0, rel=1e-5)
    assert out.mean_rel[0] == pytest.approx((0.01 + 9.0) / 3, rel=1e-5)


def test_where_nothing_is_active_all_elements_stand_in():
    out = compare_hidden([[2e-4, 1e-4]], [[1e-4, 1e-4]])
    assert out.active_rel[0] == out.mean_rel[0] == pytest.approx(0.5, rel=1e-6)


# ---------------------------------------------------------------- laws


@given(pairs())
def test_equal_states_have_no_error(pair):
    out = compare_hidden(pair[1], pair[1].copy())
    for name in HIDDEN:
        if name == "cosine":
            same(out.cosine, np.ones(len(pair[1])))
        elif name.startswith("within"):
            assert (getattr(out, name) == 1).all()
        else:
            assert not getattr(out, name).any(), name


@given(pairs(awake()))
def test_absolute_figures_and_the_angle_are_symmetric(pair):
    there, back = compare_hidden(*pair), compare_hidden(*reversed(pair))
    for name in ("mae", "rmse", "cosine"):
        same(getattr(there, name), getattr(back, name))
    norms = [np.linalg.norm(x.astype(np.float64), axis=1) for x in pair]
    same(there.rel_l2 * norms[1], back.rel_l2 * norms[0])


@given(pairs(awake()), st.integers(-8, 8))
def test_a_joint_scale_leaves_relative_figures_and_scales_absolute_ones(pair, power):
    """A power of two costs no digit; elements stay active (above 1e-3) or the law would not hold for active_rel."""
    factor = 2.0**power
    before, after = compare_hidden(*pair), compare_hidden(*(x * np.float32(factor) for x in pair))
    for name in ("rel_l2", "cosine", "mean_rel", "max_rel", "within_1e3", "within_5e3", "channel_rel"):
        same(getattr(after, name), getattr(before, name))
    for name in ("mae", "rmse"):
        same(getattr(after, name), getattr(before, name) * factor)
    if (np.abs(pair[1]) * min(factor, 1.0) > ACTIVE * 1.01).all():
        same(after.active_rel, before.active_rel)


@given(pairs(awake()), st.integers(-8, 8))
def test_a_scale_of_the_candidate_alone_leaves_the_angle(pair, power):
    before, after = compare_hidden(*pair), compare_hidden(pair[0] * np.float32(2.0**power), pair[1])
    same(after.cosine, before.cosine)


@given(pairs(awake()))
def test_the_opposite_state_is_twice_as_far_as_none(pair):
    out = compare_hidden(-pair[1], pair[1])
    same(out.cosine, -np.ones(len(pair[1])))
    for name in ("rel_l2", "mean_rel", "max_rel", "active_rel", "channel_rel"):
        same(getattr(out, name), np.full_like(getattr(out, name), 2.0))


@given(pairs(), st.randoms(use_true_random=False))
def test_a_permutation_of_positions_permutes_the_positions(pair, random):
    order = list(range(len(pair[0])))
    random.shuffle(order)
    before, after = compare_hidden(*pair), compare_hidden(*(x[order] for x in pair))
    for name in BY_POSITION:
        same(getattr(after, name), getattr(before, name)[order])
    same(after.channel_rel, before.channel_rel)


@given(pairs(), st.randoms(use_true_random=False))
def test_a_permutation_of_channels_permutes_the_channels(pair, random):
    order = list(range(pair[0].shape[1]))
    random.shuffle(order)
    before, after = compare_hidden(*pair), compare_hidden(*(x[:, order] for x in pair))
    for name in BY_POSITION:
        same(getattr(after, name), getattr(before, name), at_least=1e-14)
    same(after.channel_rel, before.channel_rel[order])


@given(pairs())
def test_every_position_stands_alone(pair):
    whole = compare_hidden(*pair)
    for i in range(len(pair[0])):
        alone = compare_hidden(*(x[i : i + 1] for x in pair))
        for name in BY_POSITION:
            same(getattr(alone, name)[0], getattr(whole, name)[i])


@given(awake(), awake())
def test_one_element(c, r):
    out = compare_hidden([[c]], [[r]])
    relative = abs(c - r) / abs(r)
    for name in ("rel_l2", "mean_rel", "max_rel", "active_rel", "channel_rel"):
        same(getattr(out, name), [relative], rel=1e-12)
    same(out.mae, [abs(c - r)])
    same(out.rmse, [abs(c - r)])
    same(out.cosine, [math.copysign(1, c * r)])


# ---------------------------------------------------------------- hidden states: refusals and extremes


@given(pairs(), BAD, st.booleans(), st.data())
def test_not_finite_is_refused_in_any_float_type(pair, bad, in_reference, data):
    sides = [x.astype(data.draw(st.sampled_from([np.float16, np.float32, np.float64]))) for x in pair]
    row, column = (data.draw(st.integers(0, side - 1)) for side in pair[0].shape)
    sides[in_reference][row, column] = bad[0]
    side = "reference" if in_reference else "candidate"
    with pytest.raises(NonFiniteError, match=f"^{bad[1]} in the {side} hidden .* at position {row}, element {column} "):
        compare_hidden(*sides)


@given(st.lists(st.lists(st.sampled_from([LARGEST, -LARGEST, SMALLEST, -SMALLEST, 1.0, 0.0]), min_size=3, max_size=3),
                min_size=1, max_size=3), st.data())  # fmt: skip
def test_the_extremes_of_float16_are_ordinary(reference, data):
    """65504 and 2**-24 beside each other, in float16 as an engine gives them: no overflow, no warning, exact figures."""
    given_reference = np.array(reference, dtype=np.float16)
    assume(given_reference.any(axis=1).all())
    order = data.draw(st.permutations(range(given_reference.size)))
    candidate = given_reference.ravel()[order].reshape(given_reference.shape)
    out, truth = compare_hidden(candidate, given_reference), by_hand(candidate, given_reference)
    for name in HIDDEN:
        same(getattr(out, name), truth[name], rel=1e-11, at_least=1e-14)


@pytest.mark.parametrize("value", [3.4e38, 1e-45, 1e-38])
def test_the_extremes_of_float32_do_not_overflow(value):
    out = compare_hidden([[value, -value]], [[value, value]])
    for name in HIDDEN:
        assert np.isfinite(getattr(out, name)).all(), name
    assert out.cosine[0] == 0
    assert out.rel_l2[0] == pytest.approx(math.sqrt(2))


# ---------------------------------------------------------------- logits: figures without a formula of their own so far


@given(st.one_of(pairs(), close_pairs()))
def test_relative_errors_of_logits_follow_their_definitions(pair):
    """Element by element in float32: 1e-6."""
    out, truth = compare_logits(*pair), by_hand(*pair)
    for name in ("mean_rel", "active_rel"):
        same(getattr(out, name), truth[name], rel=1e-6, at_least=1e-9)
    relative = np.abs(pair[0].astype(float) - pair[1]) / np.maximum(np.abs(pair[1].astype(float)), REL_EPS)
    for name, bound in (("within_1e3", 1e-3), ("within_5e3", 5e-3)):
        low, high = ((relative <= bound * (1 + e)).mean(axis=1) for e in (-1e-6, 1e-6))
        assert ((low <= getattr(out, name)) & (getattr(out, name) <= high)).all(), name


@given(pairs(st.integers(-3, 3)), st.integers(1, 8))
def test_overlap_and_gap_follow_from_sorted_words(pair, top_k):
    """Ties go to the lower id, in plain Python."""
    out = compare_logits(*pair, top_k=top_k)
    for i, (c, r) in enumerate(zip(*(x.tolist() for x in pair), strict=True)):
        k = min(top_k, len(r))
        best_c, best_r = (sorted(range(len(row)), key=lambda j, row=row: (-row[j], j)) for row in (c, r))
        assert out.top_overlap[i] == len({*best_c[:k]} & {*best_r[:k]}) / k
        assert out.gap[i] == r[best_r[0]] - r[best_c[0]]
        second = best_r[min(1, len(r) - 1)]
        assert out.top2_shift[i] == (c[best_r[0]] - r[best_r[0]]) - (c[second] - r[second])


@given(pairs(), st.integers(1, 8))
def test_overlap_is_symmetric(pair, top_k):
    assume(pair[0].any(axis=1).all())
    there, back = compare_logits(*pair, top_k=top_k), compare_logits(*reversed(pair), top_k=top_k)
    assert np.array_equal(there.top_overlap, back.top_overlap)
    assert np.array_equal(there.reference_top1, back.candidate_top1)
    same(there.lse_shift, -back.lse_shift, at_least=1e-12)


@given(pairs(), st.integers(-8, 3))
def test_differences_of_logits_scale_with_them(pair, power):
    factor = np.float32(2.0**power)
    before, after = compare_logits(*pair), compare_logits(*(x * factor for x in pair))
    assert np.array_equal(after.gap, before.gap * factor)
    assert np.array_equal(after.top2_shift, before.top2_shift * factor)
    for name in ("candidate_top1", "reference_top1", "top_overlap"):
        assert np.array_equal(getattr(after, name), getattr(before, name)), name
    if (np.abs(pair[1]) > 1e-6).all():  # far from the constant that guards the division
        same(after.mean_rel, before.mean_rel, rel=1e-6)


@given(pairs())
def test_a_member_of_the_yardstick_gets_the_figures_of_a_candidate(pair):
    member, candidate = compare_rounding(pair[0], ReferenceRows(pair[1])), compare_logits(*pair)
    for name in RoundingRows.__dataclass_fields__:
        assert np.array_equal(getattr(member, name), getattr(candidate, name)), name


@given(pairs(), st.data())
def test_nll_is_the_log_of_a_share(pair, data):
    reference = pair[1]
    targets = np.array([data.draw(st.integers(0, reference.shape[1] - 1)) for _ in reference])
    nll = ReferenceRows(reference).nll(targets)
    for row, target, found in zip(reference.astype(float), targets, nll, strict=True):
        assert found == pytest.approx(math.log(math.fsum(math.exp(x - row[target]) for x in row)), rel=1e-12, abs=1e-13)
    picked = ReferenceRows(reference).target_logits(targets[:-1]) if len(targets) > 1 else []
    assert list(picked) == [float(row[t]) for row, t in zip(reference, targets, strict=True)][:-1]


@given(pairs(), st.sampled_from([-1, 7, 10**6]))
def test_a_target_outside_the_vocabulary_is_refused(pair, target):
    rows = ReferenceRows(pair[1])
    for method in (rows.nll, rows.target_logits):
        with pytest.raises(MetricError, match=f"id {target} lies outside"):
            method(np.full(len(pair[1]), target))
        with pytest.raises(MetricError, match="integer ids"):
            method(np.zeros(len(pair[1])))


@given(arrays(np.float32, SHAPES, elements=st.integers(-2, 2)), st.integers(1, 9))
def test_best_ids_are_a_stable_sort_in_plain_python(rows, k):
    expected = [sorted(range(len(row)), key=lambda j, row=row: (-row[j], j))[:k] for row in rows.tolist()]
    assert best_ids(rows, k).tolist() == expected


@given(st.sampled_from([-LARGEST, LARGEST, SMALLEST]), st.sampled_from([-LARGEST, LARGEST, -SMALLEST]))
def test_logits_of_the_extremes_of_float16(a, b):
    """No overflow on the way: KL is the difference of logits, 131,008 at most."""
    reference, candidate = np.float16([[a, b]]), np.float16([[b, a]])
    out = compare_logits(candidate, reference)
    d = abs(float(a) - float(b))
    expected = d * math.tanh(d / 2)  # p d - q d with p = 1 / (1 + e^-d)
    assert out.kl[0] == pytest.approx(expected, rel=1e-9, abs=1e-12)
    for name in LogitRows.__dataclass_fields__:
        assert np.isfinite(getattr(out, name)).all(), name


@pytest.mark.parametrize("small", [1.0, 1e-3, 0.0])
def test_words_masked_with_the_lowest_float32_by_the_candidate_alone(small):
    """A wrong mask is a finding, not a warning and not a number that JSON cannot hold; the normaliser keeps its digits."""
    reference = np.float32([[4.0, small, 2.0, -1.0]])
    candidate = reference.copy()
    candidate[0, 1] = LOWEST
    out = compare_logits(candidate, reference)
    for name in LogitRows.__dataclass_fields__:
        assert np.isfinite(getattr(out, name)).all(), name
    e = [math.exp(x) for x in (4.0, small, 2.0, -1.0)]
    shift = math.log((sum(e) - e[1]) / sum(e))
    assert out.lse_shift[0] == pytest.approx(shift, rel=1e-6)


# ---------------------------------------------------------------- perplexity

NLL = st.floats(0, 20, allow_subnormal=False)
TEXTS = st.lists(st.lists(st.tuples(NLL, NLL), min_size=1, max_size=5), min_size=2, max_size=5)


def scored(texts):
    return [score_text(f"text {i}", *zip(*text, strict=True)) for i, text in enumerate(texts)]


@given(TEXTS)
def test_perplexity_follows_its_definition(texts):
    scores = scored(texts)
    deltas = []
    for text, score in zip(texts, scores, strict=True):
        c, r = (math.fsum(side) for side in zip(*text, strict=True))
        assert (score.candidate_nll, score.reference_nll, score.tokens) == pytest.approx((c, r, len(text)))
        assert score.candidate_ppl == pytest.approx(math.exp(c / len(text)))
        assert score.reference_ppl == pytest.approx(math.exp(r / len(text)))
        assert score.delta == pytest.approx((c - r) / len(text), abs=1e-12)
        deltas.append(abs(score.candidate_ppl / score.reference_ppl - 1))
    out = compare_perplexity(scores)
    assert out.mean_abs_delta == pytest.approx(sum(deltas) / len(deltas), rel=1e-9, abs=1e-12)
    assert out.max_abs_delta == pytest.approx(max(deltas), rel=1e-9, abs=1e-12)
    ratio = sum(s.candidate_ppl for s in scores) / sum(s.reference_ppl for s in scores) - 1
    assert out.ratio_of_means == pytest.approx(ratio, abs=1e-12)


@given(TEXTS, st.floats(-3, 3))
def test_a_constant_per_token_moves_the_delta_by_it(texts, shift):
    moved = [[(c + 3 + shift, r + 3) for c, r in text] for text in texts]
    before, after = compare_perplexity(scored(texts)), compare_perplexity(scored(moved))
    assert after.estimate.value == pytest.approx(before.estimate.value + shift, abs=1e-9)
    width = before.estimate.high - before.estimate.low
    assert after.estimate.high - after.estimate.low == pytest.approx(width, rel=1e-6, abs=1e-9)


@given(TEXTS)
def test_the_same_on_both_sides_is_zero(texts):
    out = compare_perplexity(scored([[(c, c) for c, _ in text] for text in texts]))
    assert (out.estimate.value, out.estimate.low, out.estimate.high) == (0, 0, 0)
    assert (out.mean_abs_delta, out.max_abs_delta, out.ratio_of_means) == (0, 0, 0)


@given(st.lists(NLL, min_size=1, max_size=5), BAD, st.booleans(), st.data())
def test_perplexity_refuses_not_finite_with_the_token(nll, bad, in_reference, data):
    sides, at = [list(nll), list(nll)], data.draw(st.integers(0, len(nll) - 1))
    sides[in_reference][at] = bad[0]
    side = "reference" if in_reference else "candidate"
    with pytest.raises(NonFiniteError, match=f"^{bad[1]} in the {side} nll of t at position {at} "):
        score_text("t", *sides)


@pytest.mark.parametrize(("c", "r"), [([], []), ([1.0], []), ([1.0], [1.0, 2.0]), ([[1.0]], [[1.0]]), (1.0, 1.0)])
def test_perplexity_refuses_other_shapes(c, r):
    with pytest.raises(MetricError, match="same number of tokens"):
        score_text("t", c, r)


def test_perplexity_of_less_than_two_texts_is_refused():
    for texts in ([], [[(1.0, 1.0)]]):
        with pytest.raises(MetricError):
            compare_perplexity(scored(texts))


@pytest.mark.parametrize("nll", [LARGEST, 1e300, 0.0, SMALLEST])
def test_perplexity_of_extremes_is_a_number(nll):
    out = compare_perplexity(scored([[(nll, 1.0)], [(nll, 1.0)]]))
    assert all(
        math.isfinite(x) for x in (out.mean_abs_delta, out.max_abs_delta, out.ratio_of_means, out.estimate.value)
    )


@given(st.floats(-5, 5))
def test_relative_change_is_what_an_exponential_does(nats):
    assert relative_change(nats) == pytest.approx(math.exp(nats) - 1, rel=1e-9, abs=1e-12)
    assert (1 + relative_change(nats)) * (1 + relative_change(-nats)) == pytest.approx(1)


# ---------------------------------------------------------------- ranking

ITEMS = st.integers(2, 7).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(-8, 8).map(lambda i: i / 8), min_size=n, max_size=n)] * 2)
)


@given(ITEMS, st.integers(0, 8).map(lambda i: i / 8))
def test_swaps_ties_and_error_follow_from_every_pair(scores, noise):
    candidate, reference = scores
    out = compare_ranking(candidate, reference, noise=noise)
    expected, ties = set(), 0
    for i in range(len(reference)):
        for j in range(len(reference)):
            if reference[i] - reference[j] > noise and candidate[i] <= candidate[j]:
                expected.add((i, j))
            ties += i < j and abs(reference[i] - reference[j]) <= noise
    assert {(s.first, s.second) for s in out.swaps} == expected
    assert len(out.swaps) == len(expected)
    assert out.ties == ties
    assert out.pairs == math.comb(len(reference), 2)
    assert out.max_score_error == max(abs(c - r) for c, r in zip(*scores, strict=True))


@given(ITEMS, st.integers(-6, 6))
def test_a_joint_scale_of_scores_and_noise_changes_no_verdict(scores, power):
    factor = 2.0**power
    before = compare_ranking(*scores, noise=0.25)
    after = compare_ranking(*([x * factor for x in side] for side in scores), noise=0.25 * factor)
    assert [(s.first, s.second, s.margin) for s in after.swaps] == [
        (s.first, s.second, s.margin * factor) for s in before.swaps
    ]
    assert (after.ties, after.pairs) == (before.ties, before.pairs)
    assert after.tau_b == pytest.approx(before.tau_b, abs=1e-12)
    assert after.max_score_error == before.max_score_error * factor


@given(ITEMS)
def test_the_same_order_has_no_swap(scores):
    reference = scores[1]
    out = compare_ranking([2 * x + 1 for x in reference], reference, noise=0.0)
    assert out.swaps == ()
    assert out.tau_b == pytest.approx(1.0)
    assert compare_ranking(reference, reference, noise=0.0).max_score_error == 0


@given(ITEMS)
def test_the_reversed_order_swaps_every_pair_that_differs(scores):
    reference = scores[1]
    out = compare_ranking([-x for x in reference], reference, noise=0.0)
    assert len(out.swaps) == out.pairs - out.ties
    assert out.tau_b == pytest.approx(1.0 if len(set(reference)) == 1 else -1.0)


@given(ITEMS)
def test_errors_and_tau_are_symmetric(scores):
    there, back = (compare_ranking(*s, noise=0.0) for s in (scores, scores[::-1]))
    assert there.max_score_error == back.max_score_error
    assert there.tau_b == pytest.approx(back.tau_b, abs=1e-12)


@pytest.mark.parametrize(("c", "r"), [([], []), ([1.0], [1.0]), ([1.0, 2.0], [1.0]), ([[1.0, 2.0]], [[1.0, 2.0]])])
def test_ranking_refuses_other_shapes(c, r):
    with pytest.raises(MetricError):
        compare_ranking(c, r, noise=0.0)


@pytest.mark.parametrize("noise", [-1e-9, math.nan, math.inf])
def test_ranking_refuses_a_noise_that_is_none(noise):
    with pytest.raises(MetricError, match="noise"):
        compare_ranking([1.0, 2.0], [1.0, 2.0], noise=noise)


def test_ranking_of_the_extremes_of_float16():
    reference = np.float16([LARGEST, SMALLEST, -SMALLEST, -LARGEST])
    out = compare_ranking(reference[::-1], reference, noise=0.0)
    assert len(out.swaps) == out.pairs == 6
    assert out.max_score_error == 2 * LARGEST
    assert out.tau_b == pytest.approx(-1)


# ---------------------------------------------------------------- arrays


@given(arrays(np.float32, SHAPES, elements=st.floats(width=32)))
def test_every_kind_of_array_is_read_to_the_same_bits(values):
    import torch

    for given_values in (values, values.tolist(), values.astype(np.float64), torch.tensor(values)):
        found = as_float32(given_values, "x")
        assert found.dtype == np.float32
        assert np.array_equal(found, values, equal_nan=True)
    wide = as_float64(torch.tensor(values.astype(np.float64), requires_grad=True), "x")
    assert wide.dtype == np.float64
    assert np.array_equal(wide, values.astype(np.float64), equal_nan=True)


@given(arrays(np.float64, SHAPES, elements=st.floats(-1e3, 1e3)))
def test_sums_keep_their_float64(values):
    assert np.array_equal(as_float64(values, "x"), values)
    assert np.array_equal(as_float64(values.tolist(), "x"), values)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sixteen_bit_tensors_are_read_exactly(dtype):
    import torch

    values = torch.tensor([[1.5, -2.0, LARGEST if dtype == "float16" else 3e38]], dtype=getattr(torch, dtype))
    assert as_float32(values, "x").tolist() == values.double().tolist()
    assert as_float64(values, "x").tolist() == values.double().tolist()


def test_beyond_float32_is_infinity_without_a_warning_and_then_refused():
    found = as_float32(np.array([1e300, 1.0]), "x")
    assert found.tolist() == [math.inf, 1.0]
    with pytest.raises(NonFiniteError, match="infinity in the x at position 0 "):
        require_finite(found, "x")


@pytest.mark.parametrize("values", ["text", [["a"]], [[1.0], [1.0, 2.0]], object(), {"a": 1}])
@pytest.mark.parametrize("reader", [as_float32, as_float64])
def test_what_is_no_array_of_numbers_is_refused_by_name(values, reader):
    with pytest.raises(MetricError, match=r"^left side: not an array of numbers"):
        reader(values, "left side")


@given(arrays(np.float32, SHAPES, elements=st.floats(-1, 1, width=32)), BAD, st.data())
def test_the_first_place_and_the_count_of_what_is_not_finite_are_said(values, bad, data):
    places = data.draw(st.sets(st.integers(0, values.size - 1), min_size=1, max_size=3))
    values.ravel()[sorted(places)] = bad[0]
    row, column = divmod(min(places), values.shape[1])
    expected = f"{bad[1]} in the x at position {row}, element {column} ({len(places)} of {values.size} elements are not finite)"
    with pytest.raises(NonFiniteError) as caught:
        require_finite(values, "x")
    assert str(caught.value) == expected


@given(SHAPES, SHAPES)
def test_shapes_must_match_and_both_are_said(a, b):
    left, right = np.ones(a, dtype=np.float32), np.ones(b, dtype=np.float32)
    require_matching(left, left)
    if a == b:
        return
    with pytest.raises(MetricError) as caught:
        require_matching(left, right)
    assert str(a) in str(caught.value)
    assert str(b) in str(caught.value)
    assert str(caught.value).startswith("vocabulary" if a[0] == b[0] else "shape")
