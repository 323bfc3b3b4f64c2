"""The candidate against itself: which conditions are chosen, what of them is compared, and what is measured."""

import dataclasses
import math

import numpy as np
import pytest

from pytest_npuconf import measurements, thresholds
from pytest_npuconf.devices.base import is_deterministic
from pytest_npuconf.devices.cpu import CpuDevice
from pytest_npuconf.devices.cuda import CudaDevice
from pytest_npuconf.devices.npu import NpuDevice
from pytest_npuconf.documents import Document, windows
from pytest_npuconf.engines.base import Batches
from pytest_npuconf.equivalence_comparison import (
    Compared,
    Equivalence,
    RunNoise,
    compare_batches,
    compare_cached,
    compare_repeats,
    first_call,
)
from pytest_npuconf.equivalence_conditions import BATCHES, batches, continued, decoded_together, even_batch
from pytest_npuconf.equivalence_conditions import windows as decoded
from pytest_npuconf.errors import EngineError, MetricError
from pytest_npuconf.gates import Gate, Outcome

VOCABULARY = 31
SHIPPED = (1, 15, 16, 17, 127, 128, 129, 255, 256, 257, 513, 513, 1025, 1025, *[48] * 20)
NOISE = 1e-4  # KL of one rounding at each position


def document(name, length, kind="document"):
    rng = np.random.default_rng(length + sum(map(ord, name)))
    return Document(name, kind, "", tuple(map(int, rng.integers(0, VOCABULARY, length))), windows(length))


def documents(lengths=SHIPPED):
    return [document(f"d{i}", n) for i, n in enumerate(lengths)]


class Rows:
    def __init__(self, array):
        self.array, self.positions = array, len(array)

    def logits(self, start, stop):
        return self.array[start:stop]


class Fake:
    """An engine whose logits follow from the ids; ``batch``, ``cached``, ``together`` and ``continued`` may change what the other
    ways give."""

    name = "fake"

    def __init__(
        self,
        batch=lambda array, _row, _padding: array,
        cached=lambda array, _: array,
        call=None,
        together=lambda array, _row: array,
        continued=lambda array, _: array,
    ):
        self._batch, self._cached, self._call = batch, cached, call or (lambda array, _: array)
        self._together, self._continued = together, continued
        self.calls, self.asked = 0, []

    @staticmethod
    def of(ids):
        rng = np.random.default_rng(sum(ids))
        return (3 * rng.normal(size=(1100, VOCABULARY))).astype(np.float32)[: len(ids)]

    def forward(self, ids):
        self.calls += 1
        self.asked.append(len(ids))
        return Rows(self._call(self.of(ids), self.calls))

    def forward_batch(self, rows, padding):
        return [Rows(self._batch(self.begun(ids), i, padding)) for i, ids in enumerate(rows)]

    def begun(self, ids):
        """Of a document, or of its first tokens."""
        whole = next((d.ids for d in self.known if d.ids[: len(ids)] == tuple(ids)), ids)
        return self.of(whole)[: len(ids)]

    def forward_cached(self, ids, prefill):
        return Rows(self._cached(self.begun(ids), prefill))

    def forward_decoded(self, rows, prefills):
        return [Rows(self._together(self.begun(ids), i)) for i, ids in enumerate(rows)]

    def forward_continued(self, ids, cached):
        return Rows(self._continued(self.begun(ids), cached))

    def alone(self, d):
        return Rows(self.of(d.ids))


def engine(given, **changes):
    made = Fake(**changes)
    made.known = given
    return made


def noise(given, kl=NOISE):
    return RunNoise({d.name: {r: kl * (r[1] - r[0]) for r in d.runs} for d in given}, gap_sd=0.01)


def shifted(array, size):
    """Logits that are off by ``size``."""
    rng = np.random.default_rng(0)
    return (array + size * rng.normal(size=array.shape)).astype(np.float32)


# ---------------------------------------------------------------- conditions


def test_batches_are_uneven_on_either_side_and_their_rows_all_differ():
    found = batches(documents())
    assert [b.name for b in found] == ["batch 3 right", "batch 3 left", "batch 8 right", "batch 8 left"]
    assert [tuple(len(d.ids) for d in b.rows) for b in found[::2]] == [*BATCHES]
    assert len({d.name for b in found for d in b.rows}) == 11
    assert found[3].place(1) == "batch 8 left row 1 (document d0, 1 token)"


def test_windows_turn_each_page_and_reach_the_end():
    found = decoded(documents())
    assert [(w.prefill, w.stop) for w in found] == [
        (1, 17), (112, 144), (128, 144), (240, 272), (496, 528), (512, 528), (1009, 1025),
    ]  # fmt: skip
    assert len({w.document.name for w in found}) == 6
    assert all(w.stop - w.prefill >= 16 for w in found)
    assert found[1].place == "decoded 112-143 (document d7, 144 of 255 tokens)"


def test_rows_that_are_decoded_together_are_uneven_and_of_documents_of_their_own():
    found = decoded_together(documents())
    assert [(w.prefill, w.stop) for w in found] == [(1, 17), (32, 48), (32, 48), (112, 128), (240, 256)]
    assert len({w.document.name for w in found}) == 5
    assert len(decoded_together(documents((60, 300)))) == 2


def test_what_goes_on_from_a_cache_is_looked_at_behind_it():
    found = continued(documents())
    assert [(c.cached, len(c.document.ids)) for c in found] == [
        (16, 127), (64, 129), (112, 256), (128, 257), (512, 1025),
    ]  # fmt: skip
    assert all(c.runs and c.runs[0][0] >= c.cached for c in found)
    assert found[3].place == "128 cached, then 129 at once (document d9, 257 tokens)"
    (only,) = continued(documents((1, 40)))
    assert (only.cached, only.runs) == (16, ((24, 40),))
    with pytest.raises(MetricError, match="behind its first run"):
        continued(documents((1, 9, 16)))


def test_an_even_batch_has_one_length_and_nothing_to_pad():
    found = even_batch(documents())
    assert (found.tokens, len(found.rows), {len(d.ids) for d in found.rows}) == (48, 8, {48})
    assert found.place(7) == "even batch 8 row 7 (document d21, 48 tokens)"
    cut = even_batch(documents((60, 300)))
    assert cut.tokens == 60
    assert [cut.runs(i) for i in range(2)] == [((44, 60),), ((0, 16),)]


def test_the_window_of_a_whole_document_says_so():
    assert decoded(documents())[0].place == "decoded 1-16 (document d3, 17 tokens)"


def test_too_few_documents_serve_twice_in_a_batch_and_once_for_a_window():
    two = documents((40, 90))
    assert [len(b.rows) for b in batches(two)] == [3, 3, 8, 8]
    assert {d.name for b in batches(two) for d in b.rows} == {"d0", "d1"}
    assert len(decoded(two)) == len({w.place for w in decoded(two)})


def test_only_documents_of_the_positions_are_used():
    given = [*documents((48, 129)), document("prompt 1", 17, "prompt")]
    assert all(d.kind == "document" for b in batches(given) for d in b.rows)
    for choose in (batches, decoded, decoded_together, continued, even_batch):
        with pytest.raises(MetricError, match="no documents"):
            choose([document("prompt 1", 17, "prompt")])


def test_documents_of_one_length_are_refused():
    with pytest.raises(MetricError, match="one length"):
        batches(documents((48,) * 12))


def test_documents_too_short_to_decode_are_refused():
    with pytest.raises(MetricError, match="16 looked positions"):
        decoded(documents((1, 9, 16)))


# ---------------------------------------------------------------- comparison


def compare(kind, given, made):
    if kind == "repeat":
        first = first_call(made, given)
        return compare_repeats(made, given, made.alone, first)
    return {"batch": compare_batches, "cache": compare_cached}[kind](made, given, made.alone)


@pytest.mark.parametrize("kind", ["batch", "cache", "repeat"])
def test_the_same_is_bit_equal(kind):
    given = documents()
    found = compare(kind, given, engine(given))
    assert found.broken == ()
    assert all(c.equal.all() and not c.kl.any() and not c.rel_l2.any() and not c.gap.any() for c in found.compared)
    assert all(c.kl.size == sum(b - a for a, b in c.runs) for c in found.compared)
    assert {"batch": 30, "cache": 17, "repeat": 14}[kind] == len(found.compared)


@pytest.mark.parametrize("kind", ["batch", "cache", "repeat"])
def test_a_missing_position_is_broken_and_named(kind):
    given = documents()
    short = {
        "batch": {"batch": lambda array, row, _: array[:-1] if row == 2 else array},
        "cache": {"cached": lambda array, _: array[:-1]},
        "repeat": {"call": lambda array, number: array[:-1] if number == 4 else array},
    }
    found = compare(kind, given, engine(given, **short[kind]))
    assert " positions for " in found.broken[0]
    for measure in (measurements.equivalence_error, measurements.equivalence_ratio):
        assert Gate("g", 1e9).judge(measure(found)).outcome is Outcome.FAIL
    m = measurements.repeat_differences(found, deterministic=True)
    assert found.broken[0] in m.broken


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "infinity")])
def test_what_is_not_finite_is_broken_and_named(value, word):
    given = documents()

    def poison(array, row, padding):
        if (row, padding) == (3, "left"):
            array = array.copy()
            array[5, 7] = value
        return array

    found = compare_batches(engine(given, batch=poison), given, engine(given).alone)
    assert len(found.broken) == 1
    assert found.broken[0].startswith(f"{word} in batch 8 left row 3 (document ")
    assert found.broken[0].endswith(" position 5")
    assert found.broken[0] in measurements.equivalence_error(found).broken


def test_a_document_that_is_not_finite_alone_is_broken_once():
    given = documents()
    made = engine(given)
    found = compare_batches(made, given, lambda d: Rows(np.full_like(made.of(d.ids), np.nan)))
    assert found.compared == ()
    assert len(found.broken) == 16
    assert "NaN in the logits alone" in measurements.equivalence_ratio(found).broken


def test_a_pass_alone_that_is_too_short_is_broken():
    given = documents()
    made = engine(given)
    found = compare_cached(made, given, lambda d: Rows(made.of(d.ids)[:10]))
    assert "alone gives 10 positions for 1025 tokens" in " ".join(found.broken)


def test_the_first_call_is_kept_as_it_came_and_compared_last():
    given = documents()
    made = engine(given, call=lambda array, number: shifted(array, 1e-3) if number == 1 else array)
    found = compare("repeat", given, made)
    wrong = [c for c in found.compared if not c.equal.all()]
    assert [c.group for c in wrong] == ["first call again"]
    assert made.asked == [127, 16, 1025, 1025, 16, 127]
    assert found.compared[-1] is wrong[0]


def test_no_first_call_for_an_engine_or_documents_that_cannot():
    class Plain:
        name, alone = "plain", None

        def forward(self, ids):
            raise AssertionError("not asked")

    assert not isinstance(Plain(), Batches)
    assert first_call(Plain(), documents()) is None
    assert first_call(engine([]), [document("prompt 1", 17, "prompt")]) is None
    for kind in ("batch", "cache", "repeat"):
        with pytest.raises(EngineError, match="engine plain offers no padded batches"):
            compare(kind, documents(), Plain())


@pytest.mark.parametrize(("kind", "change", "group"), [
    ("batch", {"batch": lambda array, row, _: shifted(array, 0.1) if len(array) == 48 and row == 6 else array}, "even batch"),
    ("cache", {"together": lambda array, row: shifted(array, 0.1) if row == 3 else array}, "decoded together"),
    ("cache", {"continued": lambda array, cached: shifted(array, 0.1) if cached == 128 else array}, "continued"),
    ("cache", {"cached": lambda array, prefill: shifted(array, 0.1) if prefill in (128, 512) else array}, "cached"),
])  # fmt: skip
def test_each_group_sees_what_no_other_does(kind, change, group):
    given = documents()
    found = compare(kind, given, engine(given, **change))
    assert {c.group for c in found.compared if not c.equal.all()} - {"batches left", "batches right"} == {group}
    m = measurements.equivalence_ratio(dataclasses.replace(found, noise=noise(given)))
    assert Gate("g", 1.5).judge(m).outcome is Outcome.FAIL


# ---------------------------------------------------------------- measurements


def test_a_bad_row_is_named_though_it_drowns_in_the_batch():
    given = documents()

    def change(array, row, padding):
        return shifted(array, 0.06 if (row, padding, len(array)) == (3, "left", 17) else 0.01)

    found = compare_batches(engine(given, batch=change), given, engine(given).alone)
    found = dataclasses.replace(found, noise=noise(given))
    m = measurements.equivalence_ratio(found)
    assert m.worst.place == "batch 8 left row 3 (document d3, 17 tokens)"
    assert m.data["decides"] == m.worst.place
    assert m.value == pytest.approx(m.worst.value / thresholds.EQUIVALENCE_ROW.value)
    assert m.data["groups"]["batches left"]["ratio"] < 1.5 < m.value
    assert Gate("g", 1.5).judge(m).outcome is Outcome.FAIL
    # a single row has no spread: what it shows is certain
    assert m.interval[0] == m.value


def test_one_row_that_differs_where_the_others_are_bit_equal_passes():
    """A kernel of another shape for one row, which rounds on its own: nothing is wrong."""
    given = documents()
    change = lambda array, row, _: shifted(array, 0.013) if row == 2 else array  # noqa: E731
    found = compare_batches(engine(given, batch=change), given, engine(given).alone)
    m = measurements.equivalence_ratio(dataclasses.replace(found, noise=noise(given)))
    assert 0.1 < m.value < 1
    assert Gate("g", 1.5).judge(m).outcome is Outcome.PASS


def test_a_fault_of_every_row_is_judged_by_its_group_and_interval():
    given = documents()
    found = compare_batches(
        engine(given, batch=lambda array, _row, _padding: shifted(array, 0.04)), given, engine(given).alone
    )
    m = measurements.equivalence_ratio(dataclasses.replace(found, noise=noise(given)))
    assert (m.of, m.n) == ("documents", 16)
    assert m.interval[0] <= m.value <= m.interval[1]
    group = [c for c in found.compared if c.group == m.data["decides"]]
    expected = sum(c.kl.sum() for c in group) / (2 * NOISE * sum(c.kl.size for c in group))
    assert m.value == pytest.approx(expected)
    assert Gate("g", 1.5).judge(m).outcome is Outcome.FAIL


def test_float32_measures_the_worst_position():
    given = documents()

    def change(array, prefill):
        if prefill == 496:
            array = array.copy()
            array[512] *= np.float32(1.01)
        return array

    m = measurements.equivalence_error(compare_cached(engine(given, cached=change), given, engine(given).alone))
    assert m.value == pytest.approx(0.01, rel=1e-3)
    assert m.worst.place.startswith("decoded 496-527 (document ")
    assert m.worst.place.endswith(" position 512")
    alone, together, continued = 17 + 3 * 32 + 3 * 16, 17 + 4 * 16, 48 + 33 + 48 + 33 + 32
    assert m.n == alone + together + continued


def pair(kl, name="d0", group="g", gap=0.0, rel_l2=0.0, equal=False):
    kl = np.atleast_1d(np.asarray(kl, dtype=float))
    full = np.full_like(kl, 1.0)
    return Compared(
        group, f"{group} {name}", document(name, kl.size), ((0, kl.size),), kl, rel_l2 * full, gap * full,
        np.full(kl.size, equal),
    )  # fmt: skip


def unit(*compared):
    return RunNoise({c.document.name: {c.runs[0]: float(c.kl.size)} for c in compared}, gap_sd=0.1)


def test_a_single_document_settles_nothing():
    only = pair([1.0, 3.0])
    m = measurements.equivalence_ratio(Equivalence((only,), noise=unit(only)))
    assert (m.value, m.n) == (1.0, 1)
    assert m.interval == (0.5, math.inf)  # of the single row, half its ratio for its width
    verdict = Gate("g", 1.5).judge(m)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "g: one document has no spread to see; at least two are needed" in verdict.message()
    assert m.data["groups"]["g"]["high"] is None


def test_a_single_document_that_is_far_off_or_bit_equal_is_no_question():
    far, same = pair([20.0, 20.0]), pair([0.0, 0.0], equal=True)
    for only, outcome in ((far, Outcome.FAIL), (same, Outcome.PASS)):
        m = measurements.equivalence_ratio(Equivalence((only,), noise=unit(only)))
        assert Gate("g", 1.5).judge(m).outcome is outcome


def test_noise_of_nothing_is_an_error_only_where_something_differs():
    same, other = pair([0.0], equal=True), pair([1.0])
    silent = RunNoise({"d0": {(0, 1): 0.0}}, gap_sd=0.0)
    assert measurements.equivalence_ratio(Equivalence((same,), noise=silent)).value == 0
    with pytest.raises(MetricError, match="no rounding"):
        measurements.equivalence_ratio(Equivalence((other,), noise=silent))


def test_nothing_compared_and_no_noise_are_errors():
    for measure in (measurements.equivalence_error, measurements.equivalence_ratio):
        with pytest.raises(MetricError, match="nothing was compared"):
            measure(Equivalence(()))
    with pytest.raises(MetricError, match="nothing was compared"):
        measurements.repeat_differences(Equivalence(()), deterministic=True)
    with pytest.raises(MetricError, match="not known what rounding costs"):
        measurements.equivalence_ratio(Equivalence((pair([1.0]),)))


def test_the_lower_end_is_corrected_for_the_groups_and_the_upper_is_not(monkeypatch):
    monkeypatch.setattr(thresholds, "EQUIVALENCE_ROW", thresholds.Constant(1e9, "no single row", "test"))

    def found(groups):
        rows = [pair([k], f"d{i}", g) for g in groups for i, k in enumerate((1.0, 2.0, 3.0, 4.0))]
        return measurements.equivalence_ratio(Equivalence(tuple(rows), noise=unit(*rows)))

    one, two = found(["a"]), found(["a", "b"])
    assert one.value == two.value == pytest.approx(1.25)
    assert one.data["groups"]["a"]["documents"] == 4
    assert two.interval[0] < one.interval[0]
    assert two.interval[1] == one.interval[1]


# ---------------------------------------------------------------- repeats


def test_where_the_device_is_deterministic_one_bit_is_one_too_many():
    m = measurements.repeat_differences(
        Equivalence((pair([0.0, 0.0], equal=True), pair([1e-12], "d1"))), deterministic=True
    )
    assert (m.value, m.n, m.worst.place) == (1.0, 3, "g d1")
    assert "first 0" in m.worst.detail


@pytest.mark.parametrize(
    ("compared", "value"),
    [
        (pair([0.5, 0.5]), 0),
        (pair([0.5, 0.5], gap=0.4), 0),  # a near tie: five times 0.1
        (pair([0.5, 0.5], gap=0.6), 2),
        (pair([9.0, 9.0]), 2),  # 4.5 times two roundings
    ],
)
def test_elsewhere_only_what_rounding_does_not_do_counts(compared, value):
    found = Equivalence((compared,), noise=unit(compared))
    m = measurements.repeat_differences(found, deterministic=False)
    assert (m.value, m.data["not_bit_equal"]) == (value, 2)


def test_elsewhere_float32_is_held_to_its_own_bound():
    found = Equivalence((pair([0.0], rel_l2=9e-5), pair([0.0], "d1", rel_l2=2e-4)))
    assert measurements.repeat_differences(found, deterministic=False).value == 1


def test_which_device_is_deterministic(monkeypatch):
    import torch

    class Silent:
        name = "somebody's"

    assert is_deterministic(CpuDevice())
    assert not is_deterministic(NpuDevice())
    assert not is_deterministic(Silent())
    for known in (False, True):
        monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda known=known: known)
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        assert is_deterministic(CudaDevice()) is known
