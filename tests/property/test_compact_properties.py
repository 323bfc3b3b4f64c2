"""What holds of the compact form for any reference and candidate. Truth is the full comparison, or 50-digit decimals."""

from __future__ import annotations

import itertools
import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pytest_npuconf.errors import MetricError, NonFiniteError
from pytest_npuconf.metrics.compact import (
    BEST,
    SAMPLE,
    CompactRows,
    compact_widths,
    compress,
    join,
    sample_ids,
)
from pytest_npuconf.metrics.logits import LogitRows, ReferenceRows, RoundingRows, compare_logits

WHOLE = BEST + SAMPLE  # up to this vocabulary nothing is left out
FIELDS = tuple(LogitRows.__dataclass_fields__)
ARRAYS = tuple(name for name in CompactRows.__dataclass_fields__ if name not in ("vocabulary", "start"))
LOWEST = float(np.finfo(np.float32).min)


def compressed(reference, targets=None, start=0) -> CompactRows:
    rows = np.asarray(reference, dtype=np.float32)
    targets = np.zeros(len(rows), dtype=np.int64) if targets is None else targets
    return compress(ReferenceRows(rows), targets, start)


@st.composite
def small(draw, elements=None, most=9):
    """Candidate and reference that hypothesis chooses element by element; no row is all zero."""
    elements = st.floats(-30, 30, width=32, allow_subnormal=False) if elements is None else elements
    shape = (draw(st.integers(1, 4)), draw(st.integers(1, most)))
    candidate, reference = (draw(arrays(np.float32, shape, elements=elements)) for _ in range(2))
    assume(reference.any(axis=1).all())
    assume(candidate.any(axis=1).all())
    # on the very edge of "active" float32 and float64 disagree about 1e-3 itself
    assume((np.abs(np.abs(reference) - 1e-3) > 1e-9).all())
    return candidate, reference


@st.composite
def seeded(draw, least=1, most=WHOLE, noises=(1e-6, 1e-3, 0.1, 3.0)):
    """A wide vocabulary from a seed: a model's logits, and the same plus noise; rounded to halves where ties are wanted."""
    vocabulary = draw(st.integers(least, most))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    positions, scale = draw(st.integers(1, 5)), draw(st.sampled_from([0.5, 3.0, 12.0]))
    reference = rng.normal(0, scale, (positions, vocabulary))
    candidate = reference + draw(st.sampled_from(noises)) * rng.normal(size=reference.shape)
    if draw(st.booleans()):
        reference, candidate = np.round(2 * reference) / 2, np.round(2 * candidate) / 2
    reference, candidate = reference.astype(np.float32), candidate.astype(np.float32)
    assume(reference.any(axis=1).all())
    assume(candidate.any(axis=1).all())
    return candidate, reference


def wide(**options):
    """More words than are kept."""
    return seeded(least=WHOLE + 1, most=3 * WHOLE, **options)


def same(a, b, rel=1e-9, at_least=1e-12):
    assert a == pytest.approx(b, rel=rel, abs=at_least)


def same_figures(found: LogitRows, full: LogitRows, candidate, reference) -> None:
    """Equal but for rounding: the compact form takes KL from normalised float64 (1e-15 of a logit), the cosine from three
    norms (1e-15 of their ratio), and relative errors in float64 where the full form has float32 (1e-7)."""
    c, r = (np.linalg.norm(x.astype(np.float64), axis=1) for x in (candidate, reference))
    for name in ("reference_top1", "candidate_top1", "gap", "top2_shift", "top_overlap"):
        assert np.array_equal(getattr(found, name), getattr(full, name)), name
    largest = float(max(np.abs(candidate).max(), np.abs(reference).max(), 1.0))
    same(found.rel_l2, full.rel_l2, rel=1e-12, at_least=1e-15)
    same(found.cosine, full.cosine, at_least=1e-14 * float((c / r + r / c).max()))
    same(found.kl, full.kl, rel=1e-6, at_least=1e-14 * largest)
    same(found.lse_shift, full.lse_shift, rel=1e-12, at_least=1e-14 * largest)
    for name in ("mean_rel", "active_rel"):
        same(getattr(found, name), getattr(full, name), rel=1e-5, at_least=1e-12)


def shares_agree(found: LogitRows, candidate, reference) -> None:
    """The shares count elements; one on the very edge may fall on either side of a rounding."""
    relative = np.abs(candidate.astype(np.float64) - reference) / np.maximum(
        np.abs(reference.astype(np.float64)), 1e-12
    )
    for name, bound in (("within_1e3", 1e-3), ("within_5e3", 5e-3)):
        low, high = ((relative <= bound * (1 + e)).mean(axis=1) for e in (-1e-6, 1e-6))
        value = getattr(found, name)
        assert (low - 1e-12 <= value).all(), name
        assert (value <= high + 1e-12).all(), name


def exact_kl(candidate, reference):
    """KL(ref || cand) of each row with 50 digits."""
    out = []
    with localcontext() as context:
        context.prec = 50
        for c, r in zip(candidate, reference, strict=True):
            logs = []
            for row in (c, r):
                values = [Decimal(float(x)) for x in row]
                normaliser = sum(v.exp() for v in values).ln()
                logs.append([v - normaliser for v in values])
            out.append(float(sum(p.exp() * (p - q) for q, p in zip(*logs, strict=True))))
    return np.array(out)


# ---------------------------------------------------------------- nothing is left out of a small vocabulary


@given(small())
def test_a_small_vocabulary_gives_every_figure_of_the_full_comparison(pair):
    found = compressed(pair[1]).compare(pair[0])
    same_figures(found, compare_logits(*pair), *pair)
    shares_agree(found, *pair)


@given(seeded())
def test_every_vocabulary_up_to_the_widths_gives_every_figure(pair):
    found = compressed(pair[1]).compare(pair[0])
    same_figures(found, compare_logits(*pair), *pair)
    shares_agree(found, *pair)


@pytest.mark.parametrize("vocabulary", [1, 2, 5, BEST, BEST + 1, WHOLE - 1, WHOLE])
def test_the_edges_of_the_small_vocabulary(vocabulary):
    rng = np.random.default_rng(vocabulary)
    reference = rng.normal(0, 4, (3, vocabulary)).astype(np.float32)
    candidate = (reference + 0.1 * rng.normal(size=reference.shape)).astype(np.float32)
    assert compact_widths(vocabulary) == (vocabulary, 0)
    rows = compressed(reference)
    assert rows.sampled.shape == (3, 0)
    assert not rows.tail.any()
    same_figures(rows.compare(candidate), compare_logits(candidate, reference), candidate, reference)


def test_one_word_more_than_the_widths_is_sampled():
    assert compact_widths(WHOLE + 1) == (BEST, SAMPLE)
    rows = compressed(np.arange(WHOLE + 1, dtype=np.float32)[None])
    assert rows.ids.shape == (1, BEST)
    assert rows.sampled.shape == (1, SAMPLE)


@given(small(st.floats(-1e4, 1e4, width=32, allow_subnormal=False)))
@example((np.float32([[0, 5]]), np.float32([[0, -1000]])))
@example((np.float32([[0, 5, 1]]), np.float32([[0, -1000, 3]])))
@example((np.float32([[-1e4, 1e4]]), np.float32([[1e4, -1e4]])))
def test_logits_of_ten_thousand_give_the_kl_of_the_full_comparison(pair):
    """Probabilities of the reference underflow to zero where the candidate puts its mass: that mass counts."""
    found, exact = compressed(pair[1]).compare(pair[0]).kl, exact_kl(*pair)
    same(compare_logits(*pair).kl, exact, rel=1e-9, at_least=1e-9)
    same(found, exact, rel=1e-9, at_least=1e-9)


@pytest.mark.parametrize("vocabulary", [7, 3 * WHOLE])
@pytest.mark.parametrize("masked", ["both", "candidate", "reference"])
def test_words_masked_with_the_lowest_float32_are_compared_without_a_warning(vocabulary, masked):
    """How many ports mask words that must not be said. Where both sides mask the same words nothing is wrong."""
    rng = np.random.default_rng(3)
    reference = rng.normal(0, 4, (2, vocabulary)).astype(np.float32)
    candidate = (reference + 0.01 * rng.normal(size=reference.shape)).astype(np.float32)
    for name, side in (("candidate", candidate), ("reference", reference)):
        if masked in ("both", name):
            side[:, 1::3] = LOWEST
    found = compressed(reference).compare(candidate)
    for name in FIELDS:
        assert np.isfinite(getattr(found, name)).all(), name
    assert (np.abs(found.cosine) <= 1).all()
    assert (found.kl >= 0).all()
    wide_rows = [x.astype(np.float64) for x in (candidate, reference)]
    c, r = (np.log(np.exp(x - x.max(axis=1, keepdims=True)).sum(axis=1)) + x.max(axis=1) for x in wide_rows)
    same(found.lse_shift, c - r, rel=1e-9)
    if masked == "both":
        same(found.cosine, np.ones(2), at_least=1e-9)
        assert (found.kl < 1e-2).all()
    if masked == "reference":  # nearly all of the candidate's third is where the reference has nothing
        assert (found.kl < 10).all()


@given(
    st.integers(1, 3), st.sampled_from([1, 2, 9, WHOLE, WHOLE + 1, 2 * WHOLE]), st.integers(1, 9), st.integers(-9, 9)
)
def test_constant_rows_are_all_ties(positions, vocabulary, r, c):
    """A uniform distribution on both sides, whatever the constants."""
    reference, candidate = (np.full((positions, vocabulary), x, dtype=np.float32) for x in (r, c))
    assume(c != 0)
    found, full = compressed(reference).compare(candidate), compare_logits(candidate, reference)
    assert not found.reference_top1.any()
    assert not found.candidate_top1.any()
    assert (found.top_overlap == 1).all()
    same(found.kl, np.zeros(positions), at_least=1e-13)
    same(found.cosine, full.cosine)
    same(found.rel_l2, full.rel_l2)
    same(found.mean_rel, full.mean_rel, rel=1e-5)
    same(found.lse_shift, np.full(positions, float(c - r)), at_least=1e-12)


@pytest.mark.parametrize("vocabulary", [1, 3, WHOLE, WHOLE + 1])
def test_rows_of_zeros_give_what_the_full_comparison_gives(vocabulary):
    """Zeros against zeros are equal; anything else against zeros has no relative error, and both say so."""
    zeros, ones = np.zeros((2, vocabulary), dtype=np.float32), np.ones((2, vocabulary), dtype=np.float32)
    for metric in (lambda c, r: compare_logits(c, r), lambda c, r: compressed(r).compare(c)):
        with pytest.raises(MetricError, match="reference row 0 is all zero"):
            metric(ones, zeros)
    against = compressed(ones).compare(zeros)
    assert (against.cosine == 0).all()
    same(against.rel_l2, np.ones(2))
    found, full = compressed(zeros).compare(zeros), compare_logits(zeros, zeros)
    for name in FIELDS:
        same(getattr(found, name), getattr(full, name))


# ---------------------------------------------------------------- what stays exact of a large vocabulary


@given(wide())
def test_what_is_said_to_be_exact_is_exact(pair):
    candidate, reference = pair
    rows = compressed(reference)
    found, full = rows.compare(candidate), compare_logits(candidate, reference)
    for name in ("reference_top1", "candidate_top1", "top2_shift", "top_overlap"):
        assert np.array_equal(getattr(found, name), getattr(full, name)), name
    largest = float(max(np.abs(candidate).max(), np.abs(reference).max(), 1.0))
    same(found.lse_shift, full.lse_shift, at_least=1e-14 * largest)
    whole = ReferenceRows(reference)
    same(rows.norm, whole.norm, rel=1e-15)
    same(rows.logsumexp, whole.logsumexp, rel=1e-15)
    inside = (rows.ids == found.candidate_top1[:, None]).any(axis=1)
    assert np.array_equal(found.gap[inside], full.gap[inside])
    # outside, the truth is at least as large: what decides is never made worse than it is
    assert (found.gap <= full.gap).all()
    assert (found.gap >= 0).all()


def test_the_gap_to_a_word_outside_the_best_is_that_to_the_last_of_them():
    reference = -np.arange(3 * WHOLE, dtype=np.float32)[None]
    candidate = reference.copy()
    candidate[0, -1] = 5
    found = compressed(reference).compare(candidate)
    assert found.candidate_top1[0] == 3 * WHOLE - 1
    assert found.gap[0] == BEST - 1


@given(wide(), st.data())
def test_target_logits_and_nll_are_those_of_the_full_rows(pair, data):
    reference = pair[1]
    targets = np.array(data.draw(st.lists(
        st.integers(0, reference.shape[1] - 1), min_size=len(reference), max_size=len(reference)
    )))  # fmt: skip
    full = ReferenceRows(reference)
    for given_targets in (targets, targets[:-1]):  # the last position of a document has none
        rows = compress(full, given_targets, 0)
        assert np.array_equal(rows.target_logits(given_targets), full.target_logits(given_targets))
    nll = rows.logsumexp[: targets.size - 1] - rows.target_logits(targets[:-1])
    same(nll, (full.nll(targets))[:-1], rel=1e-15)
    assert rows.target[-1] == 0


@given(wide())
def test_kl_is_a_lower_bound_and_never_negative(pair):
    """Merging the others into one symbol can only lose. The floor is the rounding of two normalisers."""
    found, full = compressed(pair[1]).compare(pair[0]).kl, compare_logits(*pair).kl
    largest = float(max(np.abs(x).max() for x in pair))
    assert (found >= 0).all()
    assert (found <= full * (1 + 1e-9) + 1e-15 * max(largest, 1.0) ** 2).all()


@given(wide(noises=(0.1, 1.0, 3.0)), st.booleans())
def test_kl_is_that_of_the_best_words_and_the_others_as_one(pair, moved):
    """From its definition; with ``moved`` the candidate's mass goes to the others, which no best word sees."""
    candidate, reference = pair
    best = np.argsort(-reference, axis=1, kind="stable")[:, :BEST]
    if moved:
        outside = np.ones(reference.shape, dtype=bool)
        outside[np.arange(len(reference))[:, None], best] = False
        candidate = candidate + np.float32(4) * outside.astype(np.float32)
    expected = []
    for c, r, ids in zip(candidate.astype(float), reference.astype(float), best, strict=True):
        q, p = (np.exp(x - x.max()) / math.fsum(np.exp(x - x.max())) for x in (c, r))
        others = np.setdiff1d(np.arange(len(r)), ids)
        p, q = ([*x[ids], math.fsum(x[others])] for x in (p, q))
        expected.append(math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
    found = compressed(reference).compare(candidate)
    same(found.kl, np.array(expected), rel=1e-8, at_least=1e-13)


@given(seeded(most=3 * WHOLE, noises=(1e-7, 1e-6, 1e-5)))
def test_kl_of_a_tiny_difference_is_not_negative_and_has_its_digits(pair):
    """The order of 1e-12: rounding of the normalisers is 1e-15 of a logit, the square root of KL is 1e-6."""
    candidate, reference = pair
    found, full = compressed(reference).compare(candidate).kl, compare_logits(*pair).kl
    assert (found >= 0).all()
    if reference.shape[1] <= WHOLE:
        same(found, full, rel=1e-5, at_least=1e-17)
    else:
        assert (found <= full * (1 + 1e-5) + 1e-17).all()


@given(seeded(most=3 * WHOLE))
def test_equal_rows_have_no_error_at_all(pair):
    """Of KL, the mass of the others is summed in two orders where there are others: the square of 1e-15 is left."""
    reference = pair[1]
    found = compressed(reference).compare(reference.copy())
    assert (found.kl <= (1e-28 if reference.shape[1] > WHOLE else 0.0)).all()
    assert (found.kl >= 0).all()
    assert not found.rel_l2.any()
    assert not found.gap.any()
    assert not found.top2_shift.any()
    assert not found.lse_shift.any()
    assert not found.mean_rel.any()
    assert not found.active_rel.any()
    same(found.cosine, np.ones(len(reference)), at_least=1e-15)
    same(found.within_1e3, np.ones(len(reference)))
    assert (found.top_overlap == 1).all()


@given(wide(), st.integers(-300, 300))
def test_kl_does_not_see_a_constant_added_to_the_candidate(pair, shift):
    """On a grid of 1/64, where the shift itself costs no digit of a float32."""
    candidate, reference = (np.round(x * 64) / 64 for x in pair)
    assume(reference.any(axis=1).all())
    moved = candidate + np.float32(shift)
    assume(np.array_equal(moved - np.float32(shift), candidate))
    before, after = (compressed(reference).compare(x) for x in (candidate, moved))
    same(after.kl, before.kl, rel=1e-7, at_least=1e-13)
    same(after.lse_shift - before.lse_shift, np.full(len(moved), float(shift)), at_least=1e-11)
    assert np.array_equal(after.candidate_top1, before.candidate_top1)


@given(wide(noises=(1e-3, 1.0, 30.0)))
def test_cosine_and_shares_stay_in_their_range(pair):
    found = compressed(pair[1]).compare(pair[0])
    assert (np.abs(found.cosine) <= 1).all()
    assert (found.within_1e3 >= 0).all()
    assert (found.within_1e3 <= found.within_5e3).all()
    assert (found.within_5e3 <= 1 + 1e-12).all()
    assert (found.rel_l2 >= 0).all()
    assert (found.mean_rel >= 0).all()


@given(wide())
def test_a_member_of_the_yardstick_gets_the_figures_of_a_candidate(pair):
    rows = compressed(pair[1])
    member, candidate = rows.compare_rounding(pair[0]), rows.compare(pair[0])
    for name in RoundingRows.__dataclass_fields__:
        assert np.array_equal(getattr(member, name), getattr(candidate, name)), name


# ---------------------------------------------------------------- estimates


@pytest.mark.parametrize("vocabulary", [2 * WHOLE, 8_000, 50_000])
def test_the_estimates_of_independent_noise_are_right_to_what_a_sample_gives(vocabulary):
    """SAMPLE squares of a normal: a relative error of sqrt(2 / SAMPLE) = 10 % of the square and half of that, 5.1 %, of
    the norm; over 40 positions the mean is off by 0.8 %. Six sigma of each; sampling without replacement is better."""
    rng = np.random.default_rng(vocabulary)
    positions = 40
    reference = rng.normal(-2, 3, (positions, vocabulary)).astype(np.float32)
    candidate = (reference + 0.05 * rng.normal(size=reference.shape)).astype(np.float32)
    found, full = compressed(reference).compare(candidate), compare_logits(candidate, reference)
    sigma = math.sqrt(2 / SAMPLE) / 2
    ratio = found.rel_l2 / full.rel_l2
    assert np.abs(ratio - 1).max() < 6 * sigma
    assert abs(ratio.mean() - 1) < 6 * sigma / math.sqrt(positions)
    assert np.abs(ratio - 1).max() > 1e-6  # it is an estimate: were it exact, the reference were not compact
    same(1 - found.cosine, 1 - full.cosine, rel=12 * sigma)
    share = 6 * math.sqrt(0.25 / SAMPLE)  # of a share, at most a half
    assert np.abs(found.within_5e3 - full.within_5e3).max() < share
    assert np.abs(found.within_1e3 - full.within_1e3).max() < share
    assert abs(found.within_5e3.mean() - full.within_5e3.mean()) < share / math.sqrt(positions)


def test_an_error_of_one_kind_of_word_is_not_missed_by_the_estimate():
    """Ids follow frequency. An error of the last tenth of the vocabulary only: the even sample has its tenth of it."""
    rng = np.random.default_rng(5)
    reference = rng.normal(0, 1, (30, 20_000)).astype(np.float32)
    reference[:, :500] += 20  # all of the best are elsewhere
    candidate = reference.copy()
    candidate[:, 18_000:] += 1
    found, full = compressed(reference).compare(candidate).rel_l2, compare_logits(candidate, reference).rel_l2
    assert found.mean() == pytest.approx(full.mean(), rel=0.05)
    assert (found > 0).all()


# ---------------------------------------------------------------- sample ids


@given(st.integers(0, 2**31), st.integers(1, 40), st.integers(WHOLE + 1, 300_000))
def test_sampled_ids_are_words_and_distinct_at_a_position(start, positions, vocabulary):
    ids = sample_ids(start, positions, vocabulary, SAMPLE)
    assert ids.shape == (positions, SAMPLE)
    assert ids.min() >= 0
    assert ids.max() < vocabulary
    steps = np.diff(ids, axis=1)
    assert (steps > 0).all()
    assert steps.max() <= math.ceil(vocabulary / SAMPLE)  # evenly: no part of the vocabulary is left out
    assert (ids[:, 0] < math.ceil(vocabulary / SAMPLE)).all()


@given(st.integers(0, 100_000), st.integers(3 * SAMPLE, 300_000))
def test_successive_positions_sample_other_words(start, vocabulary):
    """The golden ratio moves the offset by 0.38 or 0.62 of a step: with steps of three words or more, none is shared."""
    a, b = sample_ids(start, 2, vocabulary, SAMPLE)
    assert not np.intersect1d(a, b).size


@given(
    st.integers(0, 5000),
    st.integers(1, 30),
    st.integers(1, 30),
    st.integers(1, 300_000),
    st.sampled_from([0, 1, SAMPLE]),
)
def test_sampled_ids_depend_on_the_position_alone(start, first, second, vocabulary, count):
    whole = sample_ids(start, first + second, vocabulary, count)
    parts = sample_ids(start, first, vocabulary, count), sample_ids(start + first, second, vocabulary, count)
    assert np.array_equal(whole, np.concatenate(parts))


def test_every_word_is_sampled_somewhere_in_a_long_document():
    seen = np.unique(sample_ids(0, 4000, 20_000, SAMPLE))
    assert seen.size == 20_000


# ---------------------------------------------------------------- parts


def cuts(draw, positions):
    inner = draw(st.sets(st.integers(1, positions - 1), max_size=3)) if positions > 1 else set()
    edges = [0, *sorted(inner), positions]
    return list(itertools.pairwise(edges))


@given(seeded(most=3 * WHOLE), st.integers(0, 1000), st.data())
def test_however_a_document_is_cut_the_rows_are_the_same(pair, start, data):
    """Compressed in blocks and joined, cut and joined again, and compared block by block: bit for bit."""
    candidate, reference = pair
    targets = np.arange(1, len(reference)) % reference.shape[1]
    whole = compress(ReferenceRows(reference), targets, start)
    pieces = cuts(data.draw, len(reference))
    parts = [compress(ReferenceRows(reference[a:b]), targets[a:b], start + a) for a, b in pieces]
    for rows in (join(parts), join([whole.part(a, b) for a, b in pieces])):
        assert (rows.vocabulary, rows.start, len(rows)) == (whole.vocabulary, start, len(reference))
        for name in ARRAYS:
            assert getattr(rows, name).dtype == getattr(whole, name).dtype
            assert np.array_equal(getattr(rows, name), getattr(whole, name)), name
    full = whole.compare(candidate)
    for a, b in cuts(data.draw, len(reference)):
        part = whole.part(a, b)
        assert part.start == start + a
        found = part.compare(candidate[a:b])
        for name in FIELDS:
            same(getattr(found, name), getattr(full, name)[a:b], rel=1e-12, at_least=1e-16)


@given(wide())
def test_a_part_of_a_part_is_a_part(pair):
    rows = compressed(pair[1], start=10)
    n = len(rows)
    inner = rows.part(n // 3, n).part(0, n - n // 3)
    assert inner.start == 10 + n // 3
    for name in ARRAYS:
        assert np.array_equal(getattr(inner, name), getattr(rows, name)[n // 3 :])


@given(seeded(most=3 * WHOLE), st.randoms(use_true_random=False))
def test_positions_stand_alone(pair, random):
    """Row by row, in any order, with the position that each one has."""
    candidate, reference = pair
    whole = compressed(reference, start=7).compare(candidate)
    order = list(range(len(reference)))
    random.shuffle(order)
    for i in order:
        row = compressed(reference[i : i + 1], start=7 + i).compare(candidate[i : i + 1])
        for name in FIELDS:
            same(getattr(row, name)[0], getattr(whole, name)[i], rel=1e-12, at_least=1e-16)


@given(seeded(most=WHOLE), st.randoms(use_true_random=False))
def test_a_permutation_of_a_small_vocabulary_changes_nothing(pair, random):
    order = list(range(pair[0].shape[1]))
    random.shuffle(order)
    before = compressed(pair[1]).compare(pair[0])
    after = compressed(pair[1][:, order]).compare(pair[0][:, order])
    for name in ("cosine", "rel_l2", "mean_rel", "active_rel", "within_1e3", "within_5e3", "kl", "lse_shift"):
        same(getattr(after, name), getattr(before, name), rel=1e-8, at_least=1e-11)


@given(wide(), st.integers(-10, 3))
def test_relative_figures_do_not_see_a_joint_scale(pair, power):
    """A power of two costs no digit."""
    factor = np.float32(2.0**power)
    before = compressed(pair[1]).compare(pair[0])
    after = compressed(pair[1] * factor).compare(pair[0] * factor)
    for name in ("rel_l2", "cosine", "within_1e3", "within_5e3"):
        same(getattr(after, name), getattr(before, name), rel=1e-12)
    if pair[1].all():  # a zero is divided by a constant, which has a scale
        same(after.mean_rel, before.mean_rel, rel=1e-12)
    assert np.array_equal(after.top2_shift, before.top2_shift * factor)
    assert np.array_equal(after.gap, before.gap * factor)


# ---------------------------------------------------------------- sizes and refusals


@pytest.mark.parametrize("vocabulary", [1, WHOLE, WHOLE + 1, 20_000])
def test_a_position_costs_at_most_two_and_a_half_kilobytes(vocabulary):
    rows = compressed(np.random.default_rng(0).normal(size=(4, vocabulary)))
    size = sum(getattr(rows, name).nbytes for name in ARRAYS)
    assert size / len(rows) <= max(2500, 8 * min(vocabulary, WHOLE) + 32)


def test_one_position_and_one_word():
    rows = compressed([[3.0]], np.array([0]))
    found = rows.compare([[5.0]])
    assert len(rows) == rows.positions == len(found) == 1
    assert (found.kl[0], found.gap[0], found.top_overlap[0], found.cosine[0]) == (0.0, 0.0, 1.0, 1.0)
    assert found.rel_l2[0] == pytest.approx(2 / 3)
    assert found.lse_shift[0] == pytest.approx(2.0)
    assert found.top2_shift[0] == 0.0


@given(
    seeded(most=2 * WHOLE),
    st.sampled_from([(math.nan, "NaN"), (math.inf, "infinity"), (-math.inf, "infinity")]),
    st.data(),
)
def test_a_candidate_that_is_not_finite_is_refused_with_the_position(pair, bad, data):
    candidate, reference = pair
    row, column = (data.draw(st.integers(0, side - 1)) for side in candidate.shape)
    candidate[row, column] = bad[0]
    rows = compressed(reference)
    for metric in (rows.compare, rows.compare_rounding):
        with pytest.raises(NonFiniteError, match=f"^{bad[1]} in the candidate .* at position {row}, element {column} "):
            metric(candidate)


@pytest.mark.parametrize("shape", [(2, 9), (3, 8), (3, 10), (4, 9), (27,), (3, 9, 1), (0, 9), (3, 0), ()])
def test_another_shape_is_refused_with_both(shape):
    rows = compressed(np.random.default_rng(0).normal(size=(3, 9)))
    for metric in (rows.compare, rows.compare_rounding):
        with pytest.raises(MetricError) as caught:
            metric(np.ones(shape))
        assert "(3, 9)" in str(caught.value)
        assert str(shape) in str(caught.value)


def test_what_is_no_number_is_refused():
    with pytest.raises(MetricError, match="numbers"):
        compressed([[1.0, 2.0]]).compare([["a", "b"]])


@given(seeded(most=2 * WHOLE))
def test_float16_and_lists_and_float64_are_what_their_float32_is(pair):
    candidate, reference = (x.astype(np.float16) for x in pair)
    assume(reference.any(axis=1).all())
    rows = compressed(reference)
    one = rows.compare(candidate)
    for other in (candidate.astype(np.float32), candidate.astype(np.float64), candidate.tolist()):
        found = rows.compare(other)
        for name in FIELDS:
            assert np.array_equal(getattr(found, name), getattr(one, name)), name


@pytest.mark.parametrize("vocabulary", [6, 2 * WHOLE])
def test_the_extremes_of_float16(vocabulary):
    """65504 and the smallest subnormal: no overflow, no warning, the figures of the full comparison."""
    tiny, large = np.float16(6e-8), np.float16(65504)
    reference = np.full((2, vocabulary), tiny, dtype=np.float16)
    reference[:, 0], reference[1, 1] = large, -large
    candidate = reference.copy()
    candidate[0, 2] = -large
    found, full = compressed(reference).compare(candidate), compare_logits(candidate, reference)
    same(found.kl, full.kl, at_least=1e-9)
    same(found.lse_shift, full.lse_shift, at_least=1e-9)
    if vocabulary <= WHOLE:
        for name in ("cosine", "rel_l2", "mean_rel", "active_rel"):
            same(getattr(found, name), getattr(full, name), rel=1e-5)
    assert np.isfinite(found.cosine).all()
    assert found.rel_l2[1] == 0
