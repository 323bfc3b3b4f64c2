"""Streamed comparison against a direct one over whole arrays, and the measurements on top of it."""

import json
import math

import numpy as np
import pytest

from pytest_npuconf import comparison, measurements, thresholds
from pytest_npuconf.cards import find_card
from pytest_npuconf.comparison import Comparison, Document, NonFinite, compare, noise_of_two_roundings
from pytest_npuconf.engines.variants import REFERENCE_VARIANT
from pytest_npuconf.errors import MetricError, NonFiniteError
from pytest_npuconf.gates import Row
from pytest_npuconf.precisions import Precision
from pytest_npuconf.references.live import LiveReference
from pytest_npuconf.references.shared import SharedReference
from pytest_npuconf.stats import log_ratio_of_sums, ratio_of_sums

VOCABULARY = 13
LENGTHS = {"prompt 1": 5, "prompt 2": 6, "text 1": 9, "text 2": 12, "text 3": 7}


class Rows:
    """A forward pass that is an array; remembers what was asked of it."""

    def __init__(self, array):
        self.array, self.asked = array, []

    @property
    def positions(self):
        return len(self.array)

    def logits(self, start, stop):
        assert 0 <= start < stop
        self.asked.append((start, stop))
        return self.array[start:stop].copy()


def documents_of(lengths=LENGTHS, vocabulary=VOCABULARY):
    rng = np.random.default_rng(1)
    return [
        Document(name, name.split()[0], f"about {name}", tuple(map(int, rng.integers(0, vocabulary, n))))
        for name, n in lengths.items()
    ]


def logits_of(documents, *, seed=2, vocabulary=VOCABULARY):
    rng = np.random.default_rng(seed)
    return {d.name: (3 * rng.normal(size=(len(d.ids), vocabulary))).astype(np.float32) for d in documents}


def moved(logits, size, seed):
    rng = np.random.default_rng(seed)
    return {name: (rows + size * rng.normal(size=rows.shape)).astype(np.float32) for name, rows in logits.items()}


def forward(logits):
    return lambda document: Rows(logits[document.name])


class Sides:
    """Two prompts and three texts: reference, candidate, and a yardstick of two members."""

    def __init__(self):
        self.documents = documents_of()
        self.reference = logits_of(self.documents)
        self.candidate = moved(self.reference, 0.05, 3)
        self.yardstick = {"one": moved(self.reference, 0.03, 4), "two": moved(self.reference, 0.04, 5)}

    def compare(self, **more):
        members = {name: forward(logits) for name, logits in self.yardstick.items()}
        return compare(self.documents, forward(self.candidate), forward(self.reference), members, **more)

    def direct(self, figure, side, *names):
        """A figure of one side against the reference, position by position, without any of our code."""
        return {n: figure(side[n].astype(float), self.reference[n].astype(float)) for n in names or LENGTHS}


@pytest.fixture
def sides():
    return Sides()


def log_softmax(rows):
    shifted = rows - rows.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def kl(c, r):
    return (np.exp(log_softmax(r)) * (log_softmax(r) - log_softmax(c))).sum(axis=1)


def rel_l2(c, r):
    return np.linalg.norm(c - r, axis=1) / np.linalg.norm(r, axis=1)


def cosine(c, r):
    return (c * r).sum(axis=1) / np.linalg.norm(c, axis=1) / np.linalg.norm(r, axis=1)


def top(rows, k):
    return [set(row) for row in np.argsort(-rows, axis=1, kind="stable")[:, :k]]


def overlap5(c, r):
    return np.array([len(a & b) / 5 for a, b in zip(top(c, 5), top(r, 5), strict=True)])


def nll(rows, ids):
    return -log_softmax(rows.astype(float))[np.arange(len(ids) - 1), ids[1:]]


def by_name(found):
    return {d.document.name: d for d in found.documents}


def near(value, rel=1e-9, at_least=1e-13):
    return pytest.approx(value, rel=rel, abs=at_least)


# ---------------------------------------------------------------- streaming


def test_every_document_is_there_in_order_with_its_kind(sides):
    found = sides.compare()
    assert [d.document for d in found.documents] == sides.documents
    assert [d.document.name for d in found.of("prompt")] == ["prompt 1", "prompt 2"]
    assert [d.document.name for d in found.of("text")] == ["text 1", "text 2", "text 3"]
    assert (found.positions, found.non_finite) == (sum(LENGTHS.values()), ())


CHUNKS = [(1 << 25, 1 << 21), (1, 1), (1 << 25, 1), (4 * VOCABULARY * 3, 2 * VOCABULARY), (4 * VOCABULARY * 5, 1 << 21)]


@pytest.mark.parametrize(("held", "block"), CHUNKS)
def test_streamed_equals_direct_whatever_the_chunks(sides, monkeypatch, held, block):
    monkeypatch.setattr(comparison, "HELD", held)
    monkeypatch.setattr(comparison, "BLOCK", block)
    found = by_name(sides.compare())
    for d in sides.documents:
        ref, cand = sides.reference[d.name], sides.candidate[d.name]
        rows = found[d.name].rows
        wide = cand.astype(float), ref.astype(float)
        assert len(rows) == len(d.ids)
        assert rows.kl == near(kl(*wide))
        assert rows.rel_l2 == near(rel_l2(*wide))
        assert rows.cosine == near(cosine(*wide))
        assert rows.candidate_top1.tolist() == cand.argmax(axis=1).tolist()
        assert rows.reference_top1.tolist() == ref.argmax(axis=1).tolist()
        assert rows.top_overlap == near(overlap5(*wide))
        for name, logits in sides.yardstick.items():
            assert found[d.name].yardstick[name].kl == near(kl(logits[d.name].astype(float), wide[1]))
        assert found[d.name].reference_nll == near(nll(ref, d.ids))
        assert found[d.name].candidate_nll == near(nll(cand, d.ids))


@pytest.mark.parametrize("held", [1, 13 * 4 * 2, 13 * 4 * 3, 1 << 25])
def test_no_more_is_held_than_allowed(sides, monkeypatch, held):
    """Reference, candidate and two members: four sides of thirteen logits a row."""
    monkeypatch.setattr(comparison, "HELD", held)
    passes = []

    def remembered(logits):
        def run(document):
            passes.append((document.name, Rows(logits[document.name])))
            return passes[-1][1]

        return run

    members = {name: remembered(logits) for name, logits in sides.yardstick.items()}
    compare(sides.documents, remembered(sides.candidate), remembered(sides.reference), members)
    assert sorted(name for name, _ in passes) == sorted([*LENGTHS] * 4)
    for name, rows in passes:
        assert [i for a, b in rows.asked for i in range(a, b)] == list(range(LENGTHS[name]))
        assert all(b - a == 1 or (b - a) * VOCABULARY * 4 <= held for a, b in rows.asked)


def test_many_positions_are_asked_for_at_most_128_at_a_time():
    documents = documents_of({"text 1": 300})
    rows = Rows(logits_of(documents)["text 1"])
    compare(documents, lambda _: rows, lambda _: Rows(rows.array), {})
    assert max(b - a for a, b in rows.asked) == comparison.MOST_ROWS == 128


def test_the_nll_of_a_document_has_one_less_than_its_positions(sides):
    for d in sides.compare().documents:
        assert d.reference_nll.shape == d.candidate_nll.shape == (len(d.document.ids) - 1,)


def test_the_paired_difference_keeps_its_digits(sides):
    """A candidate that is one float32 step off in one logit: the difference of two rounded nll would show noise."""
    sides.candidate = {name: rows.copy() for name, rows in sides.reference.items()}
    for rows in sides.candidate.values():
        rows[:, 0] = np.nextafter(rows[:, 0], np.float32(99))
    for d in sides.compare().documents:
        ids, name = np.array(d.document.ids), d.document.name
        wide = sides.reference[name].astype(np.longdouble)
        step = sides.candidate[name].astype(np.longdouble)[:, 0] - wide[:, 0]
        share = np.exp(log_softmax(wide))[:, 0]
        expected = (np.log1p(share * np.expm1(step)) - np.where(np.append(ids[1:], -1) == 0, step, 0))[:-1]
        assert d.candidate_nll - d.reference_nll == pytest.approx(expected.astype(float), rel=0, abs=3e-15)


def test_equal_sides_are_equal_to_the_bit(sides):
    sides.candidate = sides.reference
    for d in sides.compare().documents:
        assert not d.rows.kl.any()
        assert not d.rows.rel_l2.any()
        assert d.candidate_nll.tolist() == d.reference_nll.tolist()


def test_a_document_of_one_token_has_no_nll():
    documents = documents_of({"prompt 1": 1, "prompt 2": 2})
    logits = logits_of(documents)
    one, two = compare(documents, forward(logits), forward(logits), {}).documents
    assert (one.reference_nll.size, one.candidate_nll.size, len(one.rows)) == (0, 0, 1)
    assert two.reference_nll == near(nll(logits["prompt 2"], documents[1].ids))


def test_each_document_is_announced_before_it_runs(sides):
    said = []
    sides.compare(announce=said.append)
    assert said[0] == "prompt 1: 5 tokens (1 of 5)"
    assert said[-1] == "text 3: 7 tokens (5 of 5)"
    assert len(said) == 5


def test_a_place_is_named_by_document_and_position(sides):
    assert sides.documents[1].place(3) == "prompt 2 position 3"


# ---------------------------------------------------------------- output that is not finite


@pytest.mark.parametrize(("held", "block"), CHUNKS)
@pytest.mark.parametrize(("value", "kind"), [(math.nan, "NaN"), (math.inf, "infinity"), (-math.inf, "infinity")])
def test_nan_is_named_where_it_is_and_nowhere_else(sides, monkeypatch, held, block, value, kind):
    monkeypatch.setattr(comparison, "HELD", held)
    monkeypatch.setattr(comparison, "BLOCK", block)
    sides.candidate["prompt 2"][3, 7] = value
    found = sides.compare()
    assert found.non_finite == (NonFinite("prompt 2 position 3", kind),)
    assert [d.document.name for d in found.documents] == ["prompt 1", "text 1", "text 2", "text 3"]
    assert by_name(found)["text 1"].rows.kl == near(sides.direct(kl, sides.candidate, "text 1")["text 1"])
    assert found.positions == sum(LENGTHS.values())


def test_every_bad_position_is_named_in_order(sides):
    sides.candidate["text 2"][[0, 5, 11], [1, 2, 3]] = math.nan
    sides.candidate["prompt 1"][4] = math.inf
    sides.candidate["text 2"][5, 9] = math.inf
    assert sides.compare().non_finite == (
        NonFinite("prompt 1 position 4", "infinity"),
        NonFinite("text 2 position 0", "NaN"),
        NonFinite("text 2 position 5", "NaN"),
        NonFinite("text 2 position 11", "NaN"),
    )


def test_nothing_but_nan_leaves_no_documents(sides):
    for rows in sides.candidate.values():
        rows[:] = math.nan
    found = sides.compare()
    assert found.documents == ()
    assert len(found.non_finite) == found.positions == sum(LENGTHS.values())


@pytest.mark.parametrize(("value", "kind"), [(math.nan, "NaN"), (math.inf, "infinity")])
def test_a_reference_that_is_not_finite_is_an_error_with_its_document(sides, value, kind):
    sides.reference["prompt 2"][3, 7] = value
    with pytest.raises(NonFiniteError, match=f"{kind} in the logits of the reference itself at prompt 2 "):
        sides.compare()


@pytest.mark.parametrize(("held", "block"), CHUNKS)
def test_a_reference_that_is_not_finite_is_named_with_its_position(sides, monkeypatch, held, block):
    monkeypatch.setattr(comparison, "HELD", held)
    monkeypatch.setattr(comparison, "BLOCK", block)
    sides.reference["prompt 2"][3, 7] = math.nan
    with pytest.raises(NonFiniteError, match=r"prompt 2.* position 3\b"):
        sides.compare()


def test_a_reference_that_is_not_finite_where_the_candidate_is_not_either_is_an_error(sides):
    """Both overflow in float16: the model does that, not the port."""
    for side in (sides.reference, sides.candidate):
        side["prompt 2"][3, 7] = math.nan
    with pytest.raises(NonFiniteError, match="reference"):
        sides.compare()


def test_a_yardstick_that_is_not_finite_is_not_called_the_candidate(sides):
    sides.yardstick["two"]["prompt 2"][3, 7] = math.nan
    with pytest.raises(NonFiniteError, match="two") as caught:
        sides.compare()
    assert "candidate" not in str(caught.value)
    assert "prompt 2" in str(caught.value)


def test_a_shared_reference_drops_no_document_where_its_yardstick_is_not_finite(sides, monkeypatch):
    """There a member of the yardstick stands in for the candidate, whose documents with NaN would be left out."""
    broken = {**sides.candidate, "prompt 2": np.full_like(sides.candidate["prompt 2"], math.nan)}
    members = {"one": forward(sides.yardstick["one"]), REFERENCE_VARIANT.name: forward(broken)}
    monkeypatch.setattr(LiveReference, "yardstick", lambda *_: members)
    monkeypatch.setattr(SharedReference, "forward", lambda _self, _pair, document: Rows(sides.reference[document.name]))
    shared = SharedReference.__new__(SharedReference)
    shared._documents, shared._kept = sides.documents, {}
    with pytest.raises(NonFiniteError, match=f"yardstick {REFERENCE_VARIANT.name} itself at prompt 2 position 0"):
        shared.noise(Precision("bfloat16", "float32"))


# ---------------------------------------------------------------- sides that do not fit


@pytest.mark.parametrize("width", [1, VOCABULARY - 1, VOCABULARY + 1])
@pytest.mark.parametrize("side", ["candidate", "yardstick"])
def test_another_vocabulary_is_refused(sides, width, side):
    other = logits_of(sides.documents, vocabulary=width)
    if side == "candidate":
        sides.candidate = other
    else:
        sides.yardstick["one"] = other
    with pytest.raises(MetricError, match=rf"vocabulary differs: candidate \(1, {width}\), reference \(1, 13\)"):
        sides.compare()


@pytest.mark.parametrize("change", [-1, 1])
def test_another_number_of_positions_is_refused(sides, change):
    """A candidate that drops or adds a position answers another question."""
    rows = sides.candidate["text 2"]
    sides.candidate["text 2"] = rows[:-1] if change < 0 else np.concatenate([rows, rows[-1:]])
    with pytest.raises(MetricError):
        sides.compare()


def test_more_positions_than_tokens_are_refused(sides):
    """Nothing says what the logits past the last token are to be scored against."""
    for side in (sides.reference, sides.candidate, *sides.yardstick.values()):
        side["text 2"] = np.concatenate([side["text 2"], side["text 2"][-1:]])
    with pytest.raises(MetricError):
        sides.compare()


# ---------------------------------------------------------------- finite, rel_l2


def test_finite_logits_are_counted_over_all_positions(sides):
    m = measurements.finite(sides.compare())
    assert (m.metric, m.value, m.n, m.of) == ("non_finite_positions", 0.0, sum(LENGTHS.values()), "positions")
    assert (m.rows, m.broken) == ((), "")


def test_places_that_are_not_finite_are_counted_and_ten_listed(sides):
    sides.candidate["text 2"][:, 3] = math.nan
    sides.candidate["prompt 1"][2, 3] = math.inf
    m = measurements.finite(sides.compare())
    assert (m.value, m.data["rows_total"], len(m.rows)) == (13.0, 13, 10)
    assert m.rows[:2] == (Row("prompt 1 position 2", 1.0, "infinity"), Row("text 2 position 0", 1.0, "NaN"))


ALL = [
    measurements.rel_l2,
    measurements.rel_l2_ratio,
    measurements.kl_ratio,
    measurements.cosine,
    measurements.token_match,
    measurements.top5,
    measurements.perplexity,
]


@pytest.mark.parametrize("measure", ALL)
@pytest.mark.parametrize("everywhere", [False, True])
def test_no_figure_is_made_of_unusable_output(sides, measure, everywhere):
    sides.candidate["prompt 2"][[3, 5], 7] = math.nan
    if everywhere:
        for rows in sides.candidate.values():
            rows[:] = math.nan
    m = measure(sides.compare())
    assert math.isnan(m.value)
    first = "prompt 1 position 0" if everywhere else "prompt 2 position 3"
    more = sum(LENGTHS.values()) - 1 if everywhere else 1
    assert m.broken.startswith(f"NaN in the candidate's logits at {first} and {more} more")


@pytest.mark.parametrize("measure", ALL)
def test_measurements_are_plain_json(sides, measure):
    m = measure(sides.compare())
    assert json.loads(json.dumps(m.data, allow_nan=False)) == m.data
    for number in (m.value, *(m.interval or ()), *(row.value for row in m.rows)):
        assert isinstance(number, float)
    assert type(m.n) is int


def test_rel_l2_is_the_largest_of_any_position(sides):
    m = measurements.rel_l2(sides.compare())
    every = sides.direct(rel_l2, sides.candidate)
    name = max(every, key=lambda n: every[n].max())
    assert (m.metric, m.value, m.n) == ("rel_l2.max", near(every[name].max()), sum(LENGTHS.values()))
    assert m.worst == Row(f"{name} position {every[name].argmax()}", m.value)
    ranked = sorted(np.concatenate(list(every.values())), reverse=True)[:10]
    assert [row.value for row in m.rows] == near(ranked)
    assert m.data["mean"] == near(np.concatenate(list(every.values())).mean())


def test_documented_logit_figures_are_of_the_prompts_last_positions(sides):
    data = measurements.rel_l2(sides.compare()).data["statistics"]
    last = [
        (sides.candidate[n][-1].astype(float), sides.reference[n][-1].astype(float)) for n in ("prompt 1", "prompt 2")
    ]
    relative = [abs(c - r) / abs(r) for c, r in last]
    assert data["mean_last_position"] == near(np.mean([np.linalg.norm(c - r) / np.linalg.norm(r) for c, r in last]))
    assert data["mean_rel_last_position"] == near(np.mean([x.mean() for x in relative]), rel=1e-6)
    assert data["within_1e3_last_position"] == near(np.mean([(x <= 1e-3).mean() for x in relative]))
    assert data["within_5e3_last_position"] == near(np.mean([(x <= 5e-3).mean() for x in relative]))
    active = [x[abs(r) > 1e-3].mean() for x, (_, r) in zip(relative, last, strict=True)]
    assert data["active_rel_last_position"] == near(np.mean(active), rel=1e-6)


# ---------------------------------------------------------------- noise ratios


@pytest.mark.parametrize(
    ("measure", "figure", "metric"),
    [(measurements.kl_ratio, kl, "kl.noise_ratio"), (measurements.rel_l2_ratio, rel_l2, "rel_l2.noise_ratio")],
)
def test_noise_ratio(sides, measure, figure, metric):
    m = measure(sides.compare())
    candidate = [x.sum() for x in sides.direct(figure, sides.candidate).values()]
    members = [[x.sum() for x in sides.direct(figure, y).values()] for y in sides.yardstick.values()]
    noise = np.array(max(members, key=sum))  # the noisiest member is healthy too
    estimate = log_ratio_of_sums(candidate, noise)
    assert (m.metric, m.n, m.of) == (metric, len(LENGTHS), "documents")
    assert m.value == near(sum(candidate) / sum(noise))
    assert m.interval == near((estimate.low, estimate.high))
    ratios = dict(zip(LENGTHS, np.array(candidate) / noise, strict=True))
    assert [row.place for row in m.rows] == sorted(ratios, key=lambda n: -ratios[n])
    assert m.worst.value == near(max(ratios.values()))
    assert m.data["candidate_mean"] == near(sum(candidate) / sum(LENGTHS.values()))
    assert m.data["noise_mean"] == near(sum(noise) / sum(LENGTHS.values()))
    assert m.data["positions"] == sum(LENGTHS.values())


def test_a_candidate_like_the_yardstick_has_a_ratio_of_one(sides):
    sides.candidate = sides.yardstick["one"]
    sides.yardstick = {"one": sides.yardstick["one"]}
    for measure in (measurements.kl_ratio, measurements.rel_l2_ratio):
        m = measure(sides.compare())
        assert (m.value, m.interval) == (near(1.0), near((1.0, 1.0)))


def test_a_candidate_equal_to_the_reference_has_a_ratio_of_zero(sides):
    sides.candidate = sides.reference
    assert measurements.kl_ratio(sides.compare()).value == 0.0


def test_the_noise_of_two_roundings_adds_in_the_square(sides):
    """KL is a square and adds; distances and gaps are roots of one."""
    sides.yardstick["three"] = moved(sides.reference, 0.06, 6)
    noise = noise_of_two_roundings(sides.compare(), "two")
    own, others = sides.yardstick["two"], [sides.yardstick["one"], sides.yardstick["three"]]
    loudest = max(others, key=lambda o: sum(x.sum() for x in sides.direct(kl, o).values()))
    assert loudest is sides.yardstick["three"]
    for k, name in enumerate(LENGTHS):
        expected = sides.direct(kl, own)[name].sum() + sides.direct(kl, loudest)[name].sum()
        assert noise.kl[k] == near(expected)
        a, b = (sides.direct(rel_l2, side)[name] for side in (own, loudest))
        assert noise.rel_l2[k] == near(np.hypot(a, b).sum())
    assert noise.gap_sd == near(math.hypot(gap_sd(sides, own), gap_sd(sides, *others)))


def test_the_noise_of_two_roundings_needs_no_document(sides):
    """A candidate that yields NaN everywhere must get its verdict, not a crash."""
    for rows in sides.candidate.values():
        rows[:] = math.nan
    assert noise_of_two_roundings(sides.compare(), "two").kl.shape == (0,)


# ---------------------------------------------------------------- cosine, top 5


@pytest.mark.parametrize(
    ("measure", "figure", "metric"),
    [(measurements.cosine, cosine, "cosine.mean"), (measurements.top5, overlap5, "top5.overlap")],
)
def test_means_over_the_prompts_with_the_last_positions_beside(sides, measure, figure, metric):
    sides.candidate = moved(sides.reference, 0.8, 9)
    m = measure(sides.compare())
    prompts = sides.direct(figure, sides.candidate, "prompt 1", "prompt 2")
    every = np.concatenate(list(prompts.values()))
    assert (m.metric, m.value, m.n, m.of) == (metric, near(every.mean()), 11, "positions")
    assert m.data["last_position"] == near({name: values[-1] for name, values in prompts.items()})
    assert m.data["statistics"] == near({"mean_last_position": np.mean([v[-1] for v in prompts.values()])})
    assert [row.value for row in m.rows] == near(sorted(every)[:10])
    assert every.min() < every.max()


# ---------------------------------------------------------------- tokens


def gap_sd(sides, *members):
    """1.4826 x the median of what the members do to the reference's gap between its two best."""
    shifts = []
    for logits in members:
        for name, ref in sides.reference.items():
            first, second = np.argsort(-ref, axis=1)[:, :2].T
            here = np.arange(len(ref))
            moves = logits[name].astype(float) - ref.astype(float)
            shifts.append(moves[here, first] - moves[here, second])
    return 1.4826 * np.median(np.abs(np.concatenate(shifts)))


def with_gap(sides, name, position, gap):
    """Give the reference this gap between its two best tokens there, and let the candidate prefer the second."""
    ref = sides.reference[name][position]
    first, second = np.argsort(-ref)[:2]
    ref[second] = ref[first] - np.float32(gap)
    for side in (sides.candidate, *sides.yardstick.values()):
        side[name][position] = ref
    cand = sides.candidate[name][position]
    cand[first], cand[second] = cand[second], cand[first]
    return int(first), int(second)


@pytest.fixture
def agreeing(sides):
    """Sides that agree on every token: the reference's gaps are wide."""
    for name, rows in sides.reference.items():
        best = rows.argmax(axis=1)
        for side in (sides.reference, sides.candidate, *sides.yardstick.values()):
            side[name][np.arange(len(best)), best] += 4
    return sides


def test_agreement_is_complete(agreeing):
    m = measurements.token_match(agreeing.compare())
    n = sum(LENGTHS.values())
    assert (m.metric, m.value, m.n, m.of, m.rows) == ("top1.disagreements", 0.0, n, "positions", ())
    assert (m.data["match"], m.data["disagreements"], m.data["near_ties"]) == (1.0, 0, 0)
    assert m.data["match_lower_bound"] == near(0.05 ** (1 / n))
    assert m.data["statistics"] == {"match_last_position": 1.0}
    assert m.data["last_position"] == {"prompt 1": True, "prompt 2": True}


def test_tau_is_z_robust_deviations_of_the_gap(agreeing):
    tau = measurements.token_match(agreeing.compare()).data["tau"]
    assert tau == near(thresholds.TIE_Z.value * gap_sd(agreeing, *agreeing.yardstick.values()))
    assert 0.1 < tau < 0.5  # five times the root of two times about 0.035


def test_near_ties_are_excused_and_errors_are_not(agreeing):
    with_gap(agreeing, "text 1", 2, 0.01)
    first, second = with_gap(agreeing, "text 3", 4, 1.0)
    with_gap(agreeing, "prompt 2", 5, 2.0)
    m = measurements.token_match(agreeing.compare())
    n = sum(LENGTHS.values())
    assert (m.value, m.data["disagreements"], m.data["near_ties"], m.data["rows_total"]) == (2.0, 3, 1, 2)
    assert m.data["match"] == near(1 - 3 / n)
    assert [row.place for row in m.rows] == ["prompt 2 position 5", "text 3 position 4"]
    assert [row.value for row in m.rows] == pytest.approx([2.0, 1.0], rel=1e-6)
    assert m.rows[1].detail.startswith(f"token {second} for {first}, gap in logits, tau 0.")
    assert m.data["last_position"] == {"prompt 1": True, "prompt 2": False}
    assert m.data["statistics"] == {"match_last_position": 0.5}


@pytest.mark.parametrize(("share", "counted"), [(0.98, 0), (1.02, 1)])
def test_tau_is_the_boundary(agreeing, share, counted):
    with_gap(agreeing, "text 1", 2, 1.0)
    tau = measurements.token_match(agreeing.compare()).data["tau"]
    with_gap(agreeing, "text 1", 2, share * tau)
    m = measurements.token_match(agreeing.compare())
    assert (m.data["tau"], m.value) == (tau, counted)


def test_where_rounding_moves_a_position_far_a_disagreement_there_is_a_tie(agreeing):
    """What one member does at one place excuses there what counts everywhere else."""
    first, _ = with_gap(agreeing, "text 1", 2, 1.0)
    assert measurements.token_match(agreeing.compare()).value == 1
    agreeing.yardstick["one"]["text 1"][2, first] += 0.5
    agreeing.yardstick["two"]["text 1"][2, first] -= 0.5
    m = measurements.token_match(agreeing.compare())
    assert (m.value, m.data["near_ties"]) == (0, 1)
    assert m.data["largest_excused"] == near(1.0 / 0.5)
    with_gap(agreeing, "text 3", 4, 1.0)
    assert measurements.token_match(agreeing.compare()).value == 1


def test_more_than_ten_disagreements_are_counted_and_ten_listed(agreeing):
    for i in range(12):
        with_gap(agreeing, "text 2", i, 2.0 + i)
    m = measurements.token_match(agreeing.compare())
    assert (m.value, m.data["rows_total"]) == (12.0, 12)
    assert [row.place for row in m.rows] == [f"text 2 position {i}" for i in range(11, 1, -1)]


# ---------------------------------------------------------------- perplexity


def test_perplexity_of_the_texts_is_paired(sides):
    m = measurements.perplexity(sides.compare())
    texts = [d for d in sides.documents if d.kind == "text"]
    cand = np.array([nll(sides.candidate[d.name], d.ids).sum() for d in texts])
    ref = np.array([nll(sides.reference[d.name], d.ids).sum() for d in texts])
    tokens = np.array([len(d.ids) - 1 for d in texts])
    estimate = ratio_of_sums(cand - ref, tokens)
    assert (m.metric, m.n, m.of) == ("ppl.relative_change", 3, "documents")
    assert m.value == near(math.expm1((cand - ref).sum() / tokens.sum()))
    assert m.interval == near((math.expm1(estimate.low), math.expm1(estimate.high)))
    change = np.exp(cand / tokens) / np.exp(ref / tokens) - 1
    ranked = np.argsort(-abs(change))
    assert [row.place for row in m.rows] == [texts[i].name for i in ranked]
    assert [row.value for row in m.rows] == near(change[ranked])
    ppl = np.exp(cand / tokens)[ranked[0]], np.exp(ref / tokens)[ranked[0]]
    assert m.rows[0].detail == f"PPL {ppl[0]:.4f} against {ppl[1]:.4f}"
    assert m.data["mean_nll_difference"] == near((cand - ref).sum() / tokens.sum())
    assert m.data["texts"]["text 2"] == near({"candidate_nll": cand[1], "reference_nll": ref[1], "tokens": 11})
    assert m.data["statistics"] == near(
        {
            "mean_abs_delta": abs(change).mean(),
            "max_abs_delta": abs(change).max(),
            "ratio_of_means": np.exp(cand / tokens).sum() / np.exp(ref / tokens).sum() - 1,
        }
    )


def test_a_future_leak_lowers_perplexity(sides):
    for d in sides.documents:
        here = np.arange(len(d.ids) - 1)
        sides.candidate[d.name][here, d.ids[1:]] += 1
    m = measurements.perplexity(sides.compare())
    assert m.value < m.interval[1] < 0


def test_perplexity_is_not_of_the_prompts(sides):
    before = measurements.perplexity(sides.compare())
    sides.candidate["prompt 1"] += np.random.default_rng(0).normal(size=(5, VOCABULARY)).astype(np.float32)
    assert measurements.perplexity(sides.compare()) == before


# ---------------------------------------------------------------- what documents quote

SUITES = {
    "logits.rel_l2": {True: measurements.rel_l2, False: measurements.rel_l2_ratio},
    "logits.cosine": measurements.cosine,
    "kl.noise_ratio": measurements.kl_ratio,
    "token.match": measurements.token_match,
    "token.top5": measurements.top5,
    "ppl.delta": measurements.perplexity,
}


@pytest.mark.parametrize("model", ["mem-agent", "smollm2-135m-instruct"])
def test_every_statistic_that_a_shipped_claim_asks_for_is_measured(sides, model):
    found = sides.compare()
    asked = [claim for claim in find_card(model).claims if claim.check.rpartition(".")[0] in SUITES]
    for claim in asked:
        name, _, pair = claim.check.rpartition(".")
        measure = SUITES[name]
        if isinstance(measure, dict):
            measure = measure[pair.startswith("fp32")]
        assert isinstance(measure(found).data["statistics"][claim.statistic], float)
    assert asked


# ---------------------------------------------------------------- config


def test_equal_configs_have_no_difference():
    m = measurements.config_differences({"a": 1, "b": "x"}, {"a": 1, "b": "x", "c": 3})
    assert (m.metric, m.value, m.n, m.of, m.rows) == ("config.differences", 0.0, 2, "values", ())


def test_differences_are_named_with_both_values():
    m = measurements.config_differences({"a": 1, "b": 2.0, "c": True}, {"a": 2, "c": True})
    assert (m.value, m.data["rows_total"]) == (2.0, 2)
    assert m.rows == (
        Row("a", 1.0, "the card says 1, the checkpoint 2"),
        Row("b", 1.0, "the card says 2.0, the checkpoint None"),
    )


def test_a_float_that_went_through_float32_is_the_same():
    assert measurements.config_differences({"eps": 1e-5}, {"eps": float(np.float32(1e-5))}).value == 0.0
    assert measurements.config_differences({"eps": 1e-5}, {"eps": 1.1e-5}).value == 1.0
    assert measurements.config_differences({"theta": 1e6}, {"theta": 1000000}).value == 0.0


def test_many_differences_are_counted_and_ten_listed():
    m = measurements.config_differences({str(i): i for i in range(25)}, {})
    assert (m.value, len(m.rows), m.data["rows_total"]) == (25.0, 10, 25)


def test_a_card_without_config_has_nothing_to_compare():
    with pytest.raises(MetricError, match="at least one sample"):
        measurements.config_differences({}, {"a": 1})


def test_worst_rows_are_ten_and_sorted():
    rows = [Row(str(i), float(i)) for i in range(15)]
    assert [row.value for row in measurements.worst_rows(rows)] == [float(i) for i in range(14, 4, -1)]
    assert [row.value for row in measurements.worst_rows(rows, largest=False)] == [float(i) for i in range(10)]


def test_no_documents_are_an_empty_comparison():
    found = compare([], forward({}), forward({}), {})
    assert isinstance(found, Comparison)
    assert (found.documents, found.positions, found.non_finite) == ((), 0, ())
