"""What holds of every gate, and how often the intervals that gates judge really cover the truth."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import binom

from pytest_npuconf.errors import MetricError
from pytest_npuconf.gates import Gate, Measurement, Outcome, Sense
from pytest_npuconf.stats import log_ratio_of_sums, ratio_of_sums, share_lower_bound
from tests.realistic import real_documents

ORDER = [Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS]
SENSES = st.sampled_from(list(Sense))
# eighths: bounds are hit exactly, often
NUMBERS = st.one_of(st.integers(-40, 40).map(lambda i: i / 8), st.floats(-1e6, 1e6).map(lambda x: round(x, 6)))


@st.composite
def measurements(draw):
    low, value, high = sorted(draw(st.tuples(NUMBERS, NUMBERS, NUMBERS)))
    interval = draw(st.sampled_from([(low, high), None, (value, value)]))
    return Measurement("m", value, n=draw(st.integers(2, 100)), of="documents", interval=interval)


def gate_at(bound, sense):
    return Gate("g", abs(bound) if sense is Sense.WITHIN else bound, sense)


def ends(m):
    return m.interval if m.interval is not None else (m.value, m.value)


def stated_outcome(sense, bound, low, high):
    """Inside => pass, outside => fail, else inconclusive: written out per sense, without best and worst."""
    inside, outside = {
        Sense.AT_MOST: (high <= bound, low > bound),
        Sense.AT_LEAST: (low >= bound, high < bound),
        Sense.WITHIN: (-bound <= low and high <= bound, high < -bound or low > bound),
    }[sense]
    return Outcome.PASS if inside else Outcome.FAIL if outside else Outcome.INCONCLUSIVE


# ---------------------------------------------------------------- decisions


@given(measurements(), NUMBERS, SENSES)
def test_inside_passes_outside_fails_and_the_rest_is_inconclusive(m, bound, sense):
    gate = gate_at(bound, sense)
    assert gate.judge(m).outcome is stated_outcome(sense, gate.bound, *ends(m))


@given(measurements(), NUMBERS, NUMBERS, SENSES)
def test_widening_the_bound_never_makes_it_worse(m, one, other, sense):
    narrow, wide = sorted((gate_at(one, sense), gate_at(other, sense)), key=lambda g: g.bound)
    if sense is Sense.AT_LEAST:
        narrow, wide = wide, narrow
    assert ORDER.index(narrow.judge(m).outcome) <= ORDER.index(wide.judge(m).outcome)


@given(measurements(), NUMBERS, SENSES)
def test_a_narrower_interval_never_turns_a_decision(m, bound, sense):
    """From pass or fail to anything else: only inconclusive may move."""
    gate, point = gate_at(bound, sense), Measurement("m", m.value, interval=(m.value, m.value))
    before = gate.judge(m).outcome
    assert before is Outcome.INCONCLUSIVE or gate.judge(point).outcome is before


@given(measurements(), NUMBERS, SENSES)
def test_without_an_interval_nothing_is_inconclusive(m, bound, sense):
    assert gate_at(bound, sense).judge(Measurement("m", m.value)).outcome is not Outcome.INCONCLUSIVE


@given(measurements(), NUMBERS, SENSES)
def test_the_bound_that_would_have_passed_does_and_nothing_tighter(m, bound, sense):
    would = gate_at(bound, sense).judge(m).would_pass
    assert Gate("g", would, sense).judge(m).outcome is Outcome.PASS
    tighter = math.nextafter(would, math.inf if sense is Sense.AT_LEAST else -math.inf)
    if sense is Sense.WITHIN and tighter < 0:
        with pytest.raises(MetricError):
            Gate("g", tighter, sense)
    else:
        assert Gate("g", tighter, sense).judge(m).outcome is not Outcome.PASS


@given(measurements(), NUMBERS, SENSES)
def test_margin_is_not_negative_exactly_when_it_passes(m, bound, sense):
    verdict = gate_at(bound, sense).judge(m)
    assert (verdict.margin >= 0) == (verdict.outcome is Outcome.PASS)


@given(measurements(), NUMBERS, SENSES)
def test_mirrored_measurements_get_mirrored_verdicts(m, bound, sense):
    low, high = ends(m)
    mirror = Measurement("m", -m.value, interval=(-high, -low))
    turned = {Sense.AT_MOST: Sense.AT_LEAST, Sense.AT_LEAST: Sense.AT_MOST, Sense.WITHIN: Sense.WITHIN}[sense]
    gate = gate_at(bound, sense)
    reflected = gate if sense is Sense.WITHIN else Gate("g", -bound, turned)
    assert reflected.judge(mirror).outcome is gate.judge(m).outcome


@given(measurements(), NUMBERS, SENSES)
def test_the_role_of_an_interval_of_zero_width_is_that_of_no_interval(m, bound, sense):
    gate, bare = gate_at(bound, sense), Measurement("m", m.value)
    assert gate.judge(Measurement("m", m.value, interval=(m.value, m.value))).outcome is gate.judge(bare).outcome


# ---------------------------------------------------------------- how many would settle it


@st.composite
def straddling(draw):
    """An inconclusive verdict whose estimate is off the bound."""
    m = draw(measurements())
    verdict = gate_at(draw(st.sampled_from([*ends(m), draw(NUMBERS)])), draw(SENSES)).judge(m)
    if verdict.settle_n is None:  # made so, rather than thrown away
        m = Measurement("m", m.value, n=m.n, of="documents", interval=(m.value - 1.0, m.value + 2.0))
        verdict = Gate("g", m.value + draw(st.sampled_from([-1.0, -0.5, 0.5, 1.75]))).judge(m)
    return verdict


@given(measurements(), NUMBERS, SENSES)
def test_settle_n_is_given_exactly_for_inconclusive_verdicts_off_the_bound(m, bound, sense):
    verdict = gate_at(bound, sense).judge(m)
    value = abs(m.value) if sense is Sense.WITHIN else m.value
    expected = verdict.outcome is Outcome.INCONCLUSIVE and value != verdict.gate.bound
    assert (verdict.settle_n is not None) == expected


@given(straddling())
def test_settle_n_asks_for_more_than_there_are(verdict):
    m = verdict.measurement
    assert verdict.settle_n > m.n


@given(straddling())
def test_one_more_than_settle_n_settles_it(verdict):
    """The interval shrinks about the estimate with the root of n; one more, as the bound itself may be hit."""
    m = verdict.measurement
    assume(verdict.settle_n < 10**9)
    shrink = math.sqrt(m.n / (verdict.settle_n + 1))
    low, high = ((end - m.value) * shrink + m.value for end in m.interval)
    again = Measurement("m", m.value, n=verdict.settle_n + 1, interval=(low, high))
    assert verdict.gate.judge(again).outcome is not Outcome.INCONCLUSIVE


@given(measurements(), NUMBERS, SENSES)
def test_every_verdict_has_a_message_that_starts_with_it(m, bound, sense):
    verdict = gate_at(bound, sense).judge(m)
    text = verdict.message(next_command="npuconf doctor")
    assert text.startswith(verdict.outcome.value.upper() + " g: m = ")
    assert text.endswith("next:  npuconf doctor")
    assert ("would have passed" in text) == (verdict.outcome is not Outcome.PASS)


# ---------------------------------------------------------------- intervals: invariances

SUMS = st.integers(2, 12).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(1, 400).map(lambda i: i / 8), min_size=n, max_size=n)] * 2)
)


@given(st.sampled_from([ratio_of_sums, log_ratio_of_sums]), SUMS, st.randoms(use_true_random=False))
def test_the_order_of_documents_does_not_matter(interval, sums, random):
    order = list(range(len(sums[0])))
    random.shuffle(order)
    before, after = interval(*sums), interval(*([s[i] for i in order] for s in sums))
    assert (after.value, after.low, after.high) == pytest.approx((before.value, before.low, before.high), rel=1e-9)


@given(st.sampled_from([ratio_of_sums, log_ratio_of_sums]), SUMS, st.integers(-30, 30), st.integers(-30, 30))
def test_intervals_scale_with_their_sums(interval, sums, up, down):
    before = interval(*sums)
    after = interval(np.array(sums[0]) * 2.0**up, np.array(sums[1]) * 2.0**down)
    factor = 2.0 ** (up - down)
    expected = (before.value * factor, before.low * factor, before.high * factor)
    assert (after.value, after.low, after.high) == pytest.approx(expected, rel=1e-9)


@given(st.sampled_from([ratio_of_sums, log_ratio_of_sums]), SUMS)
def test_intervals_hold_their_value(interval, sums):
    estimate = interval(*sums)
    assert estimate.low <= estimate.value <= estimate.high
    assert estimate.value == pytest.approx(sum(sums[0]) / sum(sums[1]))


@given(SUMS)
def test_both_intervals_have_one_relative_half_width(sums):
    plain, log = ratio_of_sums(*sums), log_ratio_of_sums(*sums)
    assert math.log(log.high / log.value) == pytest.approx((plain.high - plain.value) / plain.value, abs=1e-12)


@given(st.integers(1, 500), st.data())
def test_share_bound_lies_below_the_share_and_grows(n, data):
    successes = data.draw(st.integers(0, n - 1))
    fewer, more = share_lower_bound(successes, n), share_lower_bound(successes + 1, n)
    assert 0 <= fewer < more < (successes + 1) / n
    assert share_lower_bound(successes, n + 1) <= fewer


# ---------------------------------------------------------------- intervals: coverage
#
# TRIALS simulated experiments per cell, each with a fixed seed. The number of intervals that hold the truth is
# binomial(TRIALS, coverage), so a cell is refused when its count lies outside the central 99.9 % of that binomial:
# at 0.95 and 4000 trials that is 0.9383 to 0.9610. A right formula leaves the band with one seed in a thousand, a wrong
# one with most: at 6 documents a normal quantile for Student's covers 0.894, a missing n/(n-1) covers 0.934.

TRIALS = 4000
SURE = 0.999


def covered(interval, draw, documents, truth, seed):
    rng = np.random.default_rng(seed)
    estimates = [interval(*draw(rng, documents)) for _ in range(TRIALS)]
    return sum(e.low <= truth <= e.high for e in estimates)


def central(coverage):
    return binom.interval(SURE, TRIALS, coverage)


def even_documents(rng, n, ratio=1.5):
    """Documents of one size, ratio errors normal: the assumptions of Student's interval hold."""
    return ratio + 0.2 * rng.standard_normal(n), np.ones(n)


@pytest.mark.parametrize("documents", [6, 10, 32])
@pytest.mark.parametrize("interval", [ratio_of_sums, log_ratio_of_sums])
def test_coverage_is_nominal_where_the_assumptions_hold(interval, documents):
    """The log interval is a little wider or narrower than exact, by less than the band at a spread of 13 %."""
    low, high = central(0.95)
    assert low <= covered(interval, even_documents, documents, 1.5, seed=documents) <= high


# The linearised variance is known to be short for few skewed documents. 40,000 trials gave 0.921, 0.922, 0.938 (plain)
# and 0.927, 0.928, 0.939 (log). The floor is what we promise; a percentile bootstrap (0.844 with 6 documents, 0.874
# with 10) is far below it. The ceiling stays nominal: an interval that covers more is wider than it says.
FLOOR = {6: 0.91, 10: 0.91, 32: 0.93}


@pytest.mark.parametrize("documents", [6, 10, 32])
@pytest.mark.parametrize("interval", [ratio_of_sums, log_ratio_of_sums])
def test_coverage_keeps_its_floor_on_realistic_documents(interval, documents):
    count = covered(interval, real_documents, documents, 1.5, seed=100 + documents)
    assert central(FLOOR[documents])[0] <= count <= central(0.95)[1]


@pytest.mark.parametrize("documents", [6, 10, 32])
def test_false_alarms_on_realistic_documents_are_near_their_nominal_share(documents):
    """The truth lies on the bound: a FAIL is a false alarm. Nominal is 2.5 %; half as much again is allowed."""
    rng, gate = np.random.default_rng(200 + documents), Gate("noise", 1.5)
    alarms = 0
    for _ in range(TRIALS):
        e = log_ratio_of_sums(*real_documents(rng, documents))
        alarms += gate.judge(Measurement("g", e.value, interval=(e.low, e.high))).outcome is Outcome.FAIL
    assert alarms <= binom.ppf(SURE, TRIALS, 0.025 * 1.5)


def test_share_bound_holds_the_truth_in_at_least_95_percent():
    """Exact, no simulation: for a grid of true shares, the probability that the bound lies at or below the truth."""
    n = 20
    bounds = np.array([share_lower_bound(k, n) for k in range(n + 1)])
    for share in np.linspace(0.01, 0.99, 99):
        assert binom.pmf(np.arange(n + 1), n, share)[bounds <= share].sum() >= 0.95 - 1e-12
