"""What holds of the metrics for any input. Truth comes from 50-digit decimal arithmetic or from longdouble."""

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from pytest_npuconf.errors import MetricError, NonFiniteError
from pytest_npuconf.metrics.hidden import compare_hidden
from pytest_npuconf.metrics.logits import LogitRows, ReferenceRows, compare_logits
from pytest_npuconf.metrics.perplexity import compare_perplexity, score_text
from pytest_npuconf.metrics.ranking import compare_ranking

SHAPES = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=7)
BAD = st.sampled_from([(math.nan, "NaN"), (math.inf, "infinity"), (-math.inf, "infinity")])


def grid(limit=30, steps=64):
    """Multiples of 1/64: sums of a few of them are exact in float32, and ties are frequent."""
    return st.integers(-limit * steps, limit * steps).map(lambda i: i / steps)


def awake():
    """No zeros: channels that are dead in the reference have unit tests of their own."""
    return grid().filter(bool)


def floats(limit=30.0):
    return st.floats(-limit, limit, width=32, allow_subnormal=False)


@st.composite
def pairs(draw, elements=None, shapes=SHAPES):
    """Candidate and reference of one shape; no reference row is all zero."""
    elements = floats() if elements is None else elements
    shape = draw(shapes)
    candidate = draw(arrays(np.float32, shape, elements=elements))
    reference = draw(arrays(np.float32, shape, elements=elements))
    assume(reference.any(axis=1).all())
    assume(candidate.any(axis=1).all())
    return candidate, reference


@st.composite
def tiny_pairs(draw, size=1e-6):
    """A reference and the same with every element moved by at most ``size`` before rounding to float32."""
    reference = draw(arrays(np.float32, draw(SHAPES), elements=floats(20.0)))
    assume(reference.any(axis=1).all())
    moves = draw(arrays(np.float64, reference.shape, elements=st.floats(-size, size)))
    return (reference + moves).astype(np.float32), reference


def log_softmax_decimal(row):
    values = [Decimal(float(x)) for x in row]
    normaliser = sum(v.exp() for v in values).ln()
    return [v - normaliser for v in values], normaliser


def exact_kl(candidate, reference):
    """Textbook KL(ref || cand) of each row with 50 digits and room for 250 more of cancellation and underflow."""
    with localcontext() as context:
        context.prec = 50
        out = []
        for c, r in zip(candidate, reference, strict=True):
            (log_q, _), (log_p, _) = log_softmax_decimal(c), log_softmax_decimal(r)
            out.append(float(sum(p.exp() * (p - q) for p, q in zip(log_p, log_q, strict=True))))
        return np.array(out)


def longdouble_kl(candidate, reference):
    c, r = candidate.astype(np.longdouble), reference.astype(np.longdouble)
    p = np.exp(r - r.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    d = c - r
    d -= (p * d).sum(axis=1, keepdims=True)
    return np.log1p((p * np.expm1(d)).sum(axis=1)).astype(np.float64)


def same(a, b, rel=1e-9, at_least=1e-12):
    assert a == pytest.approx(b, rel=rel, abs=at_least)


# ---------------------------------------------------------------- KL


@given(pairs())
def test_kl_is_the_textbook_kl(pair):
    """Differences of order 1 to 60: 1e-9 relative. What is below 1e-22 is zero for every purpose."""
    same(compare_logits(*pair).kl, exact_kl(*pair), rel=1e-9, at_least=1e-22)


@given(pairs())
def test_kl_is_the_textbook_kl_in_float64_where_that_is_accurate(pair):
    c, r = (x.astype(np.float64) for x in pair)
    log_p, log_q = (x - np.log(np.exp(x).sum(axis=1, keepdims=True)) for x in (r, c))
    textbook = (np.exp(log_p) * (log_p - log_q)).sum(axis=1)
    same(compare_logits(*pair).kl, textbook, rel=1e-9, at_least=1e-11)


@given(pairs(floats(2000.0)))
@example((np.float32([[2, 2]]), np.float32([[2, -758]])))
def test_kl_is_the_textbook_kl_for_wild_logits(pair):
    """A broken port yields such logits, and exp underflows for them; KL itself is an ordinary number."""
    same(compare_logits(*pair).kl, exact_kl(*pair), rel=1e-9, at_least=1e-9)


@given(pairs(floats(300.0)))
def test_kl_is_never_negative(pair):
    assert (compare_logits(*pair).kl >= 0).all()


@given(pairs())
def test_kl_is_zero_only_for_equal_distributions(pair):
    out = compare_logits(*pair)
    exact = exact_kl(*pair)
    assert ((out.kl > 0) == (exact > 0))[exact > 1e-25].all()


@given(tiny_pairs())
def test_tiny_perturbations_keep_their_digits_against_decimal(pair):
    """KL is near 1e-13 here, where the textbook formula in float64 has three digits or none."""
    same(compare_logits(*pair).kl, exact_kl(*pair), rel=1e-9, at_least=1e-30)


@given(tiny_pairs())
def test_tiny_perturbations_keep_their_digits_against_longdouble(pair):
    """An 80-bit longdouble leaves an error near 1e-19 times the 1e-6 of the perturbation."""
    if np.finfo(np.longdouble).eps > 1e-18:
        pytest.skip("longdouble is float64 on this machine")
    same(compare_logits(*pair).kl, longdouble_kl(*pair), rel=1e-6, at_least=1e-23)


@given(tiny_pairs(), pairs())
def test_tiny_perturbations_keep_their_digits_beside_large_ones(tiny, large):
    """The row with a large difference decides which formula its batch takes; six digits must stay."""
    width = min(tiny[0].shape[1], large[0].shape[1])
    both = [np.concatenate([t[:, :width], x[:, :width]]) for t, x in zip(tiny, large, strict=True)]
    assume(all(x.any(axis=1).all() for x in both))
    same(compare_logits(*both).kl, exact_kl(*both), rel=1e-6, at_least=1e-22)


@given(tiny_pairs(size=1e-2))
def test_kl_is_accurate_across_the_switch_between_its_formulas(pair):
    same(compare_logits(*pair).kl, exact_kl(*pair), rel=1e-9, at_least=1e-22)


@given(pairs(grid()), st.integers(-500, 500))
def test_kl_does_not_see_a_constant_added_to_the_candidate(pair, shift):
    candidate, reference = pair
    moved = candidate + np.float32(shift)
    assume(moved.any(axis=1).all())
    same(compare_logits(moved, reference).kl, compare_logits(candidate, reference).kl, at_least=1e-22)


@given(pairs(grid()), st.integers(-500, 500))
def test_a_constant_added_to_a_row_moves_the_normaliser_by_it(pair, shift):
    candidate, reference = pair
    moved = candidate + np.float32(shift)
    assume(moved.any(axis=1).all())
    before, after = compare_logits(candidate, reference).lse_shift, compare_logits(moved, reference).lse_shift
    same(after - before, np.full(len(before), float(shift)), at_least=1e-10)


@given(pairs())
def test_lse_shift_is_the_difference_of_log_normalisers(pair):
    with localcontext() as context:
        context.prec = 50
        shift = [float(log_softmax_decimal(c)[1] - log_softmax_decimal(r)[1]) for c, r in zip(*pair, strict=True)]
    same(compare_logits(*pair).lse_shift, np.array(shift), rel=1e-10)


# ---------------------------------------------------------------- norms and angles


@given(pairs())
def test_cosine_is_symmetric_and_bounded(pair):
    candidate, reference = pair
    there, back = compare_logits(candidate, reference).cosine, compare_logits(reference, candidate).cosine
    same(there, back, rel=1e-14, at_least=1e-15)
    assert (np.abs(there) <= 1 + 1e-14).all()


@given(pairs(grid()), st.integers(-20, 20))
def test_cosine_does_not_see_a_scale(pair, power):
    candidate, reference = pair
    scaled = candidate * np.float32(2.0**power)
    same(compare_logits(scaled, reference).cosine, compare_logits(candidate, reference).cosine, at_least=1e-14)


@given(pairs(grid()), st.integers(-20, 3))
def test_rel_l2_does_not_see_a_joint_scale(pair, power):
    factor = np.float32(2.0**power)
    scaled = compare_logits(*(x * factor for x in pair)).rel_l2
    same(scaled, compare_logits(*pair).rel_l2, rel=1e-14)


@given(pairs())
def test_cosine_follows_from_the_norms(pair):
    """The law of cosines: |c - r|^2 = |c|^2 + |r|^2 - 2 |c||r| cos."""
    out = compare_logits(*pair)
    c2, r2 = ((x.astype(np.longdouble) ** 2).sum(axis=1) for x in pair)
    expected = (c2 + r2 - (out.rel_l2**2) * r2) / (2 * np.sqrt(c2 * r2))
    scale = float(((c2 + r2) / np.sqrt(c2 * r2)).max())
    same(out.cosine, expected.astype(np.float64), at_least=1e-14 * scale)


@given(pairs())
def test_shares_are_nested_and_between_0_and_1(pair):
    out = compare_logits(*pair)
    assert (out.within_1e3 >= 0).all()
    assert (out.within_1e3 <= out.within_5e3).all()
    assert (out.within_5e3 <= 1).all()


# ---------------------------------------------------------------- top-1 and top-k


@given(pairs(st.integers(-2, 2)), st.integers(1, 9))
def test_top1_is_argmax_also_in_ties(pair, top_k):
    out = compare_logits(*pair, top_k=top_k)
    assert np.array_equal(out.candidate_top1, pair[0].argmax(axis=1))
    assert np.array_equal(out.reference_top1, pair[1].argmax(axis=1))


@given(arrays(np.int8, st.integers(20, 400), elements=st.integers(0, 1)), st.integers(1, 5))
def test_top1_is_argmax_in_a_large_vocabulary_full_of_ties(row, top_k):
    """16-bit logits of a 150,000 word vocabulary are full of ties."""
    rows = 1 + row[None].astype(np.float32)
    assert compare_logits(rows, rows, top_k=top_k).candidate_top1[0] == rows[0].argmax()


@given(arrays(np.int8, st.integers(20, 400), elements=st.integers(0, 3)), st.integers(1, 5))
def test_top_k_is_a_stable_sort(row, top_k):
    rows = 1 + row[None].astype(np.float32)
    expected = np.argsort(-rows[0], kind="stable")[:top_k]
    assert ReferenceRows(rows, top_k=top_k).top[0, :top_k].tolist() == expected.tolist()


@given(pairs(st.integers(-3, 3)))
def test_gap_is_never_negative_and_zero_where_top1_agrees(pair):
    out = compare_logits(*pair)
    assert (out.gap >= 0).all()
    assert not out.gap[out.candidate_top1 == out.reference_top1].any()


@given(pairs(), st.integers(1, 9))
def test_overlap_is_a_share_of_k_and_one_for_the_whole_vocabulary(pair, top_k):
    width = pair[0].shape[1]
    out = compare_logits(*pair, top_k=top_k).top_overlap
    k = min(top_k, width)
    counted = out * k
    same(counted, np.round(counted))
    assert ((out >= 0) & (out <= 1)).all()
    assert k < width or (out == 1).all()


# ---------------------------------------------------------------- permutations


@given(pairs(), st.randoms(use_true_random=False))
def test_a_permutation_of_the_vocabulary_changes_nothing(pair, random):
    order = list(range(pair[0].shape[1]))
    random.shuffle(order)
    before, after = compare_logits(*pair), compare_logits(*(x[:, order] for x in pair))
    for name in ("cosine", "rel_l2", "mean_rel", "active_rel", "within_1e3", "within_5e3", "kl", "lse_shift"):
        same(getattr(after, name), getattr(before, name), rel=1e-9)


@given(pairs(), st.randoms(use_true_random=False))
def test_a_permutation_of_the_positions_permutes_the_rows(pair, random):
    order = list(range(pair[0].shape[0]))
    random.shuffle(order)
    before, after = compare_logits(*pair), compare_logits(*(x[order] for x in pair))
    for name in LogitRows.__dataclass_fields__:
        same(getattr(after, name), getattr(before, name)[order], rel=1e-9)


@given(pairs())
def test_every_row_stands_alone(pair):
    whole = compare_logits(*pair)
    alone = LogitRows.allocate(len(pair[0]))
    for i in range(len(pair[0])):
        alone.put(i, compare_logits(*(x[i : i + 1] for x in pair)))
    for name in LogitRows.__dataclass_fields__:
        same(getattr(alone, name), getattr(whole, name), rel=1e-9)


# ---------------------------------------------------------------- refusals


@given(st.sampled_from([compare_logits, compare_hidden]), pairs(), BAD, st.booleans(), st.data())
def test_not_finite_is_refused_with_the_right_position(metric, pair, bad, in_reference, data):
    target = pair[1] if in_reference else pair[0]
    row, column = (data.draw(st.integers(0, side - 1)) for side in target.shape)
    target[row, column] = bad[0]
    side = "reference" if in_reference else "candidate"
    with pytest.raises(NonFiniteError, match=f"^{bad[1]} in the {side} .* at position {row}, element {column} "):
        metric(*pair)


@given(st.sampled_from([compare_logits, compare_hidden]), SHAPES, SHAPES)
def test_another_shape_is_refused(metric, a, b):
    assume(a != b)
    with pytest.raises(MetricError, match="differs"):
        metric(np.ones(a), np.ones(b))


@given(st.sampled_from([compare_logits, compare_hidden]), st.integers(0, 3), st.booleans())
def test_empty_is_refused(metric, side, positions):
    shape = (0, side) if positions else (side, 0)
    with pytest.raises(MetricError, match="empty"):
        metric(np.ones(shape), np.ones(shape))


# ---------------------------------------------------------------- hidden states


@given(pairs(awake()))
def test_hidden_errors_follow_their_definitions(pair):
    out = compare_hidden(*pair)
    c, r = (x.astype(np.longdouble) for x in pair)
    same(out.rel_l2, np.sqrt(((c - r) ** 2).sum(axis=1) / (r**2).sum(axis=1)).astype(float))
    same(out.mae, np.abs(c - r).mean(axis=1).astype(float))
    same(out.rmse, np.sqrt(((c - r) ** 2).mean(axis=1)).astype(float))
    assert (out.mae <= out.rmse * (1 + 1e-12)).all()


@given(pairs(awake()))
def test_hidden_distances_are_symmetric(pair):
    there, back = compare_hidden(*pair), compare_hidden(*reversed(pair))
    for name in ("mae", "rmse", "cosine"):
        same(getattr(there, name), getattr(back, name), rel=1e-14, at_least=1e-15)


@given(pairs(awake()), st.integers(-20, 20))
def test_hidden_relative_errors_do_not_see_a_joint_scale(pair, power):
    before, after = compare_hidden(*pair), compare_hidden(*(x * np.float32(2.0**power) for x in pair))
    for name in ("rel_l2", "cosine", "channel_rel"):
        same(getattr(after, name), getattr(before, name))


@given(pairs(awake()), st.randoms(use_true_random=False))
def test_hidden_channels_are_permuted_with_the_input(pair, random):
    order = list(range(pair[0].shape[1]))
    random.shuffle(order)
    before, after = compare_hidden(*pair), compare_hidden(*(x[:, order] for x in pair))
    same(after.channel_rel, before.channel_rel[order])
    same(after.rel_l2, before.rel_l2)


@given(pairs(awake()))
def test_hidden_and_logits_agree_on_shared_metrics(pair):
    hidden, logits = compare_hidden(*pair), compare_logits(*pair)
    same(hidden.rel_l2, logits.rel_l2)
    same(hidden.cosine, logits.cosine)


# ---------------------------------------------------------------- ranking

SCORES = st.integers(2, 9).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(-4, 4).map(lambda i: i / 4), min_size=n, max_size=n)] * 2)
)
NOISE = st.integers(0, 8).map(lambda i: i / 8)


def tau_b_by_counting(a, b):
    """Kendall 1945 from its definition; 0/0 is agreement only if both are constant."""
    index = [(i, j) for i in range(len(a)) for j in range(i)]
    signs = [(np.sign(a[i] - a[j]), np.sign(b[i] - b[j])) for i, j in index]
    over = sum(abs(s) for s, _ in signs) * sum(abs(t) for _, t in signs)
    if over == 0:
        return 1.0 if not any(s or t for s, t in signs) else 0.0
    return sum(s * t for s, t in signs) / math.sqrt(over)


@given(SCORES, NOISE)
def test_tau_b_is_its_definition_and_symmetric(scores, noise):
    there, back = compare_ranking(*scores, noise=noise).tau_b, compare_ranking(*scores[::-1], noise=noise).tau_b
    assert there == pytest.approx(tau_b_by_counting(*scores), abs=1e-12)
    assert there == pytest.approx(back, abs=1e-12)


@given(SCORES, NOISE)
def test_every_swap_is_beyond_the_noise_and_worst_first(scores, noise):
    candidate, reference = scores
    swaps = compare_ranking(candidate, reference, noise=noise).swaps
    for swap in swaps:
        assert swap.margin == reference[swap.first] - reference[swap.second] > noise
        assert candidate[swap.first] <= candidate[swap.second]
    assert [s.margin for s in swaps] == sorted((s.margin for s in swaps), reverse=True)


@given(SCORES, NOISE, NOISE)
def test_more_noise_excuses_more(scores, less, more):
    less, more = sorted((less, more))
    strict, lenient = (compare_ranking(*scores, noise=n) for n in (less, more))
    assert set(lenient.swaps) <= set(strict.swaps)
    assert lenient.ties >= strict.ties
    assert strict.ties + len(strict.swaps) <= strict.pairs


@given(SCORES, NOISE, st.randoms(use_true_random=False))
def test_a_permutation_of_the_items_changes_no_figure(scores, noise, random):
    order = list(range(len(scores[0])))
    random.shuffle(order)
    before = compare_ranking(*scores, noise=noise)
    after = compare_ranking(*([s[i] for i in order] for s in scores), noise=noise)
    assert [s.margin for s in after.swaps] == [s.margin for s in before.swaps]
    assert (after.ties, after.max_score_error) == (before.ties, before.max_score_error)
    assert after.tau_b == pytest.approx(before.tau_b, abs=1e-12)


@given(SCORES, st.integers(-3, 3))
def test_a_constant_added_to_the_candidate_changes_no_order(scores, shift):
    candidate, reference = scores
    before = compare_ranking(candidate, reference, noise=0.0)
    after = compare_ranking([c + shift for c in candidate], reference, noise=0.0)
    assert (after.swaps, after.tau_b) == (before.swaps, before.tau_b)


@given(SCORES, BAD, st.booleans(), st.data())
def test_ranking_refuses_not_finite_with_the_item(scores, bad, in_reference, data):
    item = data.draw(st.integers(0, len(scores[0]) - 1))
    scores[in_reference][item] = bad[0]
    side = "reference" if in_reference else "candidate"
    with pytest.raises(NonFiniteError, match=f"^{bad[1]} in the {side} scores at position {item} "):
        compare_ranking(*scores, noise=0.0)


# ---------------------------------------------------------------- perplexity

NLL = st.integers(0, 640).map(lambda i: i / 64)
TEXTS = st.lists(st.lists(st.tuples(NLL, NLL), min_size=1, max_size=6), min_size=2, max_size=6)


def compared(texts):
    return compare_perplexity([score_text(str(i), *zip(*text, strict=True)) for i, text in enumerate(texts)])


@given(TEXTS)
def test_delta_is_the_mean_over_all_tokens(texts):
    tokens = [c - r for text in texts for c, r in text]
    estimate = compared(texts).estimate
    assert estimate.value == pytest.approx(sum(tokens) / len(tokens), abs=1e-12)
    assert estimate.low <= estimate.value <= estimate.high


@given(TEXTS)
def test_exchanging_the_sides_mirrors_the_delta(texts):
    there, back = compared(texts).estimate, compared([[(r, c) for c, r in text] for text in texts]).estimate
    assert (back.value, back.low, back.high) == pytest.approx((-there.value, -there.high, -there.low), abs=1e-12)


@given(TEXTS, st.randoms(use_true_random=False))
def test_the_order_of_texts_does_not_matter(texts, random):
    shuffled = list(texts)
    random.shuffle(shuffled)
    before, after = compared(texts), compared(shuffled)
    for name in ("mean_abs_delta", "max_abs_delta", "ratio_of_means"):
        assert getattr(after, name) == pytest.approx(getattr(before, name), rel=1e-9, abs=1e-12)
    assert after.estimate.high == pytest.approx(before.estimate.high, rel=1e-9, abs=1e-12)


@given(TEXTS)
def test_aggregates_are_bounded_by_the_worst_text(texts):
    delta = compared(texts)
    assert 0 <= delta.mean_abs_delta <= delta.max_abs_delta * (1 + 1e-12)
    assert abs(delta.ratio_of_means) <= delta.max_abs_delta + 1e-12
