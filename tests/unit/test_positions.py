"""``kl.positions``: only the looked positions are compared, and the worst bucket of positions decides."""

import numpy as np
import pytest

from pytest_npuconf import measurements
from pytest_npuconf.comparison import compare
from pytest_npuconf.documents import Document, windows
from pytest_npuconf.errors import MetricError
from pytest_npuconf.gates import Gate, Outcome
from pytest_npuconf.measurements import positions
from pytest_npuconf.metrics.compact import compress, join
from pytest_npuconf.metrics.logits import ReferenceRows
from pytest_npuconf.stats import log_ratio_of_sums

VOCABULARY = 61
LENGTHS = (17, 48, 48, 129, 129, 257, 513, 513, 1025, 1025)


class Rows:
    """A forward pass that is an array, and notes what was asked of it."""

    def __init__(self, array):
        self.array, self.positions, self.asked = array, len(array), []

    def logits(self, start, stop):
        self.asked += range(start, stop)
        return self.array[start:stop]


def documents_of(lengths, rng):
    """One document of each length, looked at as those of a card are."""
    return [
        Document(f"d{i}", "document", "", tuple(map(int, rng.integers(0, VOCABULARY, n))), windows(n))
        for i, n in enumerate(lengths)
    ]


class Sides:
    """Documents of many lengths; the candidate rounds like the yardstick but for ``worse`` times from position ``after`` on."""

    def __init__(self, worse=1.0, after=0, upto=9999):
        rng = np.random.default_rng(7)
        self.documents = documents_of(LENGTHS, rng)
        self.reference, self.candidate, self.yardstick = {}, {}, {}
        for d in self.documents:
            base = 3 * rng.normal(size=(len(d.ids), VOCABULARY))
            at = np.arange(len(d.ids))
            size = np.where((at >= after) & (at < upto), np.sqrt(worse), 1.0)[:, None] * 0.02
            self.reference[d.name] = base.astype(np.float32)
            self.candidate[d.name] = (base + size * rng.normal(size=base.shape)).astype(np.float32)
            self.yardstick[d.name] = (base + 0.02 * rng.normal(size=base.shape)).astype(np.float32)

    def compare(self, reference=None):
        return compare(
            self.documents,
            lambda d: Rows(self.candidate[d.name]),
            reference or (lambda d: Rows(self.reference[d.name])),
            {"one": lambda d: Rows(self.yardstick[d.name])},
        )


def test_rows_are_those_of_the_looked_positions():
    sides = Sides()
    whole = [Document(d.name, d.kind, "", d.ids) for d in sides.documents]
    every = compare(whole, lambda d: Rows(sides.candidate[d.name]), lambda d: Rows(sides.reference[d.name]), {})
    for looked, full in zip(sides.compare().documents, every.documents, strict=True):
        at = list(looked.document.positions)
        assert looked.rows.kl.tolist() == full.rows.kl[at].tolist()
        assert looked.rows.gap.tolist() == full.rows.gap[at].tolist()
        scored = [p for p in at if p + 1 < len(looked.document.ids)]
        assert looked.reference_nll.tolist() == full.reference_nll[scored].tolist()
        assert looked.candidate_nll.tolist() == full.candidate_nll[scored].tolist()


def test_nothing_else_is_asked_for():
    sides = Sides()
    passes = {d.name: Rows(sides.candidate[d.name]) for d in sides.documents}
    compare(sides.documents, lambda d: passes[d.name], lambda d: Rows(sides.reference[d.name]), {})
    assert {d.name: tuple(passes[d.name].asked) for d in sides.documents} == {
        d.name: d.positions for d in sides.documents
    }


def test_stored_rows_are_taken_in_order():
    """A vocabulary this small is stored whole, so compact rows give the same figures."""
    sides = Sides()

    def stored(d):
        parts, at = [], 0
        for a, b in d.runs:
            parts.append(compress(ReferenceRows(sides.reference[d.name][a:b]), d.ids[a + 1 : b + 1], at))
            at += b - a
        return join(parts)

    for a, b in zip(sides.compare().documents, sides.compare(stored).documents, strict=True):
        assert b.rows.kl == pytest.approx(a.rows.kl, rel=1e-9)
        assert b.reference_nll == pytest.approx(a.reference_nll, rel=1e-6)


def test_the_noise_of_a_document_is_that_of_its_runs():
    found = Sides().compare()
    for d, total, runs in zip(found.documents, found.noise.kl, found.noise.runs, strict=True):
        assert len(runs) == len(d.document.runs)
        assert runs.sum() == pytest.approx(total, rel=1e-12)


def test_rounding_alone_is_near_one_in_every_bucket():
    measured = measurements.kl_by_position(Sides().compare())
    assert set(measured.data["buckets"]) == {"0-15", "16-63", "64-127", "128-255", "256-511", "512-"}
    assert all(0.7 < bucket["ratio"] < 1.4 for bucket in measured.data["buckets"].values())
    assert measured.interval[0] < 1 < measured.interval[1] < 2


@pytest.mark.parametrize(("after", "upto", "bucket"), [(512, 9999, "512-"), (256, 512, "256-511"), (0, 16, "0-15")])
def test_a_fault_in_one_bucket_is_named_and_drowns_in_the_mean(after, upto, bucket):
    found = Sides(worse=8.0, after=after, upto=upto).compare()
    measured = measurements.kl_by_position(found)
    assert measured.worst.place == f"positions {bucket}"
    assert measured.interval[0] > 2
    mean = sum(d.rows.kl.sum() for d in found.documents) / found.noise.kl.sum()
    assert measured.value > 2 * mean


def test_the_lower_end_alone_is_corrected_for_the_number_of_buckets():
    rng = np.random.default_rng(1)
    a, b = rng.uniform(1, 2, 10), rng.uniform(1, 2, 10)
    one, six = log_ratio_of_sums(a, b), log_ratio_of_sums(a, b, 6)
    assert (one.value, one.high) == (six.value, six.high)
    assert six.low < one.low


def test_the_correction_keeps_false_alarms_of_the_worst_of_six_rare():
    """Six healthy buckets of ten windows, true ratio 1: the largest lower end lies above 1 in at most 5 % of runs (one-sided
    level 2.5 % over all), where without the correction it would be one run in seven."""
    rng = np.random.default_rng(3)
    alarms = plain = 0
    for _ in range(600):
        pairs = [(np.exp(rng.normal(0, 0.3, 10)), np.exp(rng.normal(0, 0.3, 10))) for _ in range(6)]
        alarms += max(log_ratio_of_sums(a, b, 6).low for a, b in pairs) > 1
        plain += max(log_ratio_of_sums(a, b).low for a, b in pairs) > 1
    assert alarms / 600 < 0.05 < plain / 600


def test_a_bucket_with_one_window_is_said_and_not_judged():
    sides = Sides()
    sides.documents = [d for d in sides.documents if len(d.ids) in (17, 48, 129, 257)]
    measured = measurements.kl_by_position(sides.compare())
    assert measured.data["too_few"] == ["256-511"]
    said = Gate("kl.positions", 0.1).judge(measured).message()
    assert "not judged: positions 256-511: one window has no spread; give another text as long" in said


def in_buckets(monkeypatch, **pairs):
    """The measurement, were these the KL of candidate and rounding in each window."""
    monkeypatch.setattr(positions, "_windows", lambda _: pairs)
    return measurements.kl_by_position(Sides().compare())


STEADY = [(1 + 0.01 * (i % 3), 1.0) for i in range(30)]


@pytest.mark.parametrize(("steady", "unsteady", "outcome"), [
    (2.98, [(0.1, 1.0), (6.9, 1.0)], Outcome.FAIL),  # surely beyond the bound, though another may be more so
    (1.90, [(0.1, 1.0), (3.5, 1.0)], Outcome.INCONCLUSIVE),  # inside, but of another nobody knows
    (1.90, [(1.8, 1.0), (1.8, 1.0)], Outcome.PASS),
])  # fmt: skip
def test_one_bucket_beyond_the_bound_fails_and_all_have_to_be_inside(monkeypatch, steady, unsteady, outcome):
    m = in_buckets(monkeypatch, steady=[(steady * a, b) for a, b in STEADY], unsteady=unsteady)
    verdict = Gate("kl.positions", 2.0).judge(m)
    assert verdict.outcome is outcome
    assert {row.place for row in m.rows} == {"positions steady", "positions unsteady"}


def test_nan_fails_and_no_documents_is_an_error():
    sides = Sides()
    sides.candidate["d3"][128, 2] = np.nan
    assert "NaN in the candidate's logits at d3 position 128" in measurements.kl_by_position(sides.compare()).broken
    with pytest.raises(MetricError, match="longer texts"):
        measurements.kl_by_position(compare([], None, None, {}))
