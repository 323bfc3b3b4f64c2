"""What holds of every streamed comparison, whatever the documents and however they are cut into chunks."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pytest_npuconf import comparison, measurements
from pytest_npuconf.comparison import Document, NonFinite, compare
from pytest_npuconf.metrics.logits import compare_logits

LOGITS = st.integers(-640, 640).map(lambda i: i / 64)
MOVES = st.integers(-64, 64).map(lambda i: i / 256)


class Rows:
    """A forward pass that is an array."""

    def __init__(self, array):
        self.array = array

    @property
    def positions(self):
        return len(self.array)

    def logits(self, start, stop):
        return self.array[start:stop]


@dataclasses.dataclass
class Run:
    """Documents with the logits of all sides, by document name."""

    documents: list
    reference: dict
    candidate: dict
    member: dict

    def compare(self, *, held=1 << 25, block=1 << 21, order=None, **changed):
        sides = {"reference": self.reference, "candidate": self.candidate, "member": self.member, **changed}
        reference, candidate, member = (
            lambda document, logits=sides[name]: Rows(logits[document.name])
            for name in ("reference", "candidate", "member")
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(comparison, "HELD", held)
            patch.setattr(comparison, "BLOCK", block)
            return compare(order or self.documents, candidate, reference, {"member": member})


@st.composite
def runs(draw, *, moves=MOVES, at_least=1):
    vocabulary = draw(st.integers(2, 9))
    lengths = draw(st.lists(st.integers(1, 11), min_size=at_least, max_size=4))
    documents, sides = [], ({}, {}, {})
    for i, length in enumerate(lengths):
        kind = "prompt" if i % 2 else "text"
        ids = draw(st.lists(st.integers(0, vocabulary - 1), min_size=length, max_size=length))
        documents.append(Document(f"{kind} {i}", kind, "", tuple(ids)))
        reference = draw(arrays(np.float32, (length, vocabulary), elements=LOGITS))
        assume(reference.any(axis=1).all())
        for side, shift in zip(sides, (st.just(0.0), moves, moves), strict=True):
            side[f"{kind} {i}"] = reference + draw(arrays(np.float32, reference.shape, elements=shift))
    return Run(documents, *sides)


CHUNKS = st.integers(1, 400)


def same_rows(a, b):
    """Every figure of ``a`` is the same in ``b``, which may hold more."""
    for field in dataclasses.fields(a):
        assert getattr(a, field.name) == pytest.approx(getattr(b, field.name), rel=1e-9, abs=1e-15), field.name


def log_softmax(rows):
    wide = rows.astype(np.longdouble)
    wide = wide - wide.max(axis=1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))


def nll(rows, ids):
    return -log_softmax(rows)[np.arange(len(ids) - 1), list(ids[1:])]


@given(runs(), CHUNKS, CHUNKS)
def test_chunks_do_not_matter(run, held, block):
    whole, cut = run.compare(), run.compare(held=held, block=block)
    assert [d.document for d in whole.documents] == [d.document for d in cut.documents]
    for a, b in zip(whole.documents, cut.documents, strict=True):
        same_rows(a.rows, b.rows)
        same_rows(a.yardstick["member"], b.yardstick["member"])
        assert a.reference_nll == pytest.approx(b.reference_nll, rel=1e-12, abs=1e-15)
        assert a.candidate_nll == pytest.approx(b.candidate_nll, rel=1e-12, abs=1e-14)


@given(runs(), CHUNKS, CHUNKS)
def test_streamed_equals_the_metric_over_the_whole_document(run, held, block):
    for d in run.compare(held=held, block=block).documents:
        name = d.document.name
        same_rows(compare_logits(run.candidate[name], run.reference[name]), d.rows)
        same_rows(d.yardstick["member"], compare_logits(run.member[name], run.reference[name]))


@given(runs(), CHUNKS)
def test_nll_is_the_textbook_nll_of_the_next_token(run, held):
    for d in run.compare(held=held).documents:
        for logits, found in ((run.reference, d.reference_nll), (run.candidate, d.candidate_nll)):
            expected = nll(logits[d.document.name], d.document.ids).astype(float)
            assert found == pytest.approx(expected, rel=1e-12, abs=1e-13)


@given(runs(moves=st.sampled_from([0.0, 2.0**-20, -(2.0**-21)])))
def test_the_paired_difference_of_nll_keeps_its_digits(run):
    for d in run.compare().documents:
        ids, name = d.document.ids, d.document.name
        expected = (nll(run.candidate[name], ids) - nll(run.reference[name], ids)).astype(float)
        assert d.candidate_nll - d.reference_nll == pytest.approx(expected, rel=0, abs=1e-14)


@given(runs(at_least=2))
def test_equal_sides_have_no_difference_at_all(run):
    found = run.compare(candidate=run.reference)
    for d in found.documents:
        assert not d.rows.kl.any()
        assert not d.rows.rel_l2.any()
        assert (d.candidate_nll == d.reference_nll).all()
    assert measurements.rel_l2(found).value == 0.0
    assert measurements.token_match(found).value == 0.0


@given(runs(), st.integers(-8, 8))
def test_a_constant_on_every_logit_of_a_side_changes_no_probability(run, constant):
    shifted = {name: rows + np.float32(constant) for name, rows in run.candidate.items()}
    for a, b in zip(run.compare().documents, run.compare(candidate=shifted).documents, strict=True):
        assert a.rows.kl == pytest.approx(b.rows.kl, rel=1e-9, abs=1e-14)
        assert a.candidate_nll == pytest.approx(b.candidate_nll, rel=1e-12, abs=1e-12)


@given(runs())
def test_the_order_of_the_documents_is_the_order_of_the_result(run):
    turned = run.compare(order=run.documents[::-1])
    assert [d.document for d in turned.documents] == run.documents[::-1]
    for a, b in zip(run.compare().documents, turned.documents[::-1], strict=True):
        same_rows(a.rows, b.rows)


@st.composite
def poisoned(draw):
    """A run whose candidate has bad elements, and the places where they are, in order."""
    run = draw(runs())
    places = {}
    for d in run.documents:
        for position in draw(st.sets(st.integers(0, len(d.ids) - 1), max_size=3)):
            value = draw(st.sampled_from([math.nan, math.inf, -math.inf]))
            run.candidate[d.name][position, draw(st.integers(0, run.candidate[d.name].shape[1] - 1))] = value
            places[d.name, position] = "NaN" if math.isnan(value) else "infinity"
    order = [(d.name, i) for d in run.documents for i in range(len(d.ids))]
    return run, [NonFinite(f"{n} position {i}", places[n, i]) for n, i in order if (n, i) in places]


@given(poisoned(), CHUNKS, CHUNKS)
def test_exactly_the_bad_positions_are_named_and_their_documents_left_out(given_run, held, block):
    run, places = given_run
    found = run.compare(held=held, block=block)
    assert list(found.non_finite) == places
    bad = {place.place.rpartition(" position ")[0] for place in places}
    assert [d.document.name for d in found.documents] == [d.name for d in run.documents if d.name not in bad]
    assert measurements.finite(found).value == len(places)
    assert measurements.finite(found).n == sum(len(d.ids) for d in run.documents)


@given(runs(at_least=2))
def test_token_match_counts_every_disagreement_once(run):
    found = run.compare()
    m = measurements.token_match(found)
    differing = sum(int((run.candidate[n].argmax(axis=1) != r.argmax(axis=1)).sum()) for n, r in run.reference.items())
    total = sum(map(len, run.reference.values()))
    assert m.data["disagreements"] == differing == m.value + m.data["near_ties"]
    assert m.data["match"] == pytest.approx(1 - differing / total)
    assert all(row.value > m.data["tau"] for row in m.rows)
    assert len(m.rows) == min(10, m.value)


@given(runs(at_least=2))
def test_a_candidate_that_is_the_yardstick_has_the_noise_ratio_one(run):
    found = run.compare(candidate=run.member)
    sums = [(d.rows.kl.sum(), d.rows.rel_l2.sum()) for d in found.documents]
    assume(all(kl > 1e-9 and distance > 1e-9 for kl, distance in sums))
    for measure in (measurements.kl_ratio, measurements.rel_l2_ratio):
        m = measure(found)
        assert (m.value, *m.interval) == pytest.approx((1.0, 1.0, 1.0))
