"""Best words of a position against whole rows, over any logits."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pytest_npuconf.documents import BUCKETS, Document, windows
from pytest_npuconf.metrics.best_words import best_words, joined
from pytest_npuconf.metrics.logits import ReferenceRows, compare_logits, compare_rounding

FINITE = st.floats(-60, 60, width=32)


@st.composite
def pairs(draw):
    shape = draw(st.tuples(st.integers(1, 5), st.integers(1, 30)))
    return tuple(draw(arrays.arrays(np.float32, shape, elements=FINITE)) for _ in range(2))


@given(pairs())
def test_tokens_are_those_of_whole_rows_and_the_gap_is_never_overstated(pair):
    candidate, reference = pair
    if not (reference != 0).any(axis=1).all():
        reference = reference + np.float32(1)
    found, whole = best_words(reference).compare(candidate), compare_logits(candidate, reference)
    assert found.reference_top1.tolist() == whole.reference_top1.tolist()
    assert found.candidate_top1.tolist() == whole.candidate_top1.tolist()
    assert (found.gap <= whole.gap).all()
    assert (found.gap >= 0).all()
    assert (found.gap[whole.gap == 0] == 0).all()


@given(pairs())
def test_what_a_member_does_to_the_gap_is_that_of_whole_rows(pair):
    candidate, reference = pair
    if not (reference != 0).any(axis=1).all():
        reference = reference + np.float32(1)
    assert np.allclose(
        best_words(reference).shift(candidate),
        compare_rounding(candidate, ReferenceRows(reference)).top2_shift,
        rtol=1e-12,
        atol=1e-12,
    )


@given(pairs())
def test_the_reference_against_itself_differs_nowhere(pair):
    _, reference = pair
    words = best_words(reference)
    found = words.compare(reference)
    assert found.candidate_top1.tolist() == found.reference_top1.tolist()
    assert not found.gap.any()
    assert not words.shift(reference).any()


@given(pairs(), st.data())
def test_parts_are_rows_of_the_whole(pair, data):
    candidate, reference = pair
    words, cut = best_words(reference), data.draw(st.integers(0, len(reference)))
    again = joined([best_words(r) for r in (reference[:cut], reference[cut:]) if len(r)])
    assert again.ids.tolist() == words.ids.tolist()
    if cut:
        assert words.part(0, cut).compare(candidate[:cut]).gap.tolist() == words.compare(candidate).gap[:cut].tolist()


@given(st.integers(1, 3 * BUCKETS[-1]))
def test_a_document_is_its_windows_and_the_rest(length):
    document = Document("d", "document", "", (0,) * length, windows(length))
    assert sorted((*document.positions, *document.rest_positions)) == list(range(length))
    assert all(start < stop for start, stop in document.rest)
