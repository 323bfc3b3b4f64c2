"""Gates decide; verdicts say where, how far, and what next."""

import dataclasses
import math
import re

import pytest

from pytest_npuconf.errors import MetricError
from pytest_npuconf.gates import (
    MAX_ROWS,
    Gate,
    Measurement,
    Outcome,
    Role,
    Row,
    Sense,
    format_bound,
    format_measurement,
    format_number,
    format_row,
)

INF, NAN = math.inf, math.nan


def measured(value, interval=None, **more):
    return Measurement("kl", value, n=more.pop("n", 6), of="documents", interval=interval, **more)


def judged(bound, value, interval=None, sense=Sense.AT_MOST, **more):
    return Gate("noise", bound, sense).judge(measured(value, interval, **more))


def rows(count):
    return tuple(Row(f"position {i}", float(count - i)) for i in range(count))


# ---------------------------------------------------------------- Measurement


def test_measurement_refuses_no_samples():
    with pytest.raises(MetricError, match="kl: a measurement needs at least one sample, got n = 0"):
        Measurement("kl", 1.0, n=0)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_measurement_refuses_a_value_that_is_not_finite(value):
    with pytest.raises(MetricError, match=r"kl: the value is .*say why in `broken`"):
        Measurement("kl", value)


@pytest.mark.parametrize("interval", [(2.0, 1.0), (NAN, 1.0), (0.0, NAN)])
def test_measurement_refuses_a_disordered_interval(interval):
    with pytest.raises(MetricError, match=r"kl: interval .* does not hold the value"):
        Measurement("kl", 1.0, interval=interval)


def test_measurement_accepts_a_zero_interval():
    assert Measurement("kl", 0.0, interval=(0.0, 0.0)).interval == (0.0, 0.0)


def test_unusable_needs_no_number_and_no_sample():
    m = Measurement.unusable("kl", "NaN in the logits")
    assert (m.n, m.broken, m.interval, m.worst) == (0, "NaN in the logits", None, None)
    assert math.isnan(m.value)


def test_worst_is_the_first_row():
    assert measured(1.0, rows=rows(3)).worst == Row("position 0", 3.0)
    assert measured(1.0).worst is None


def test_measurement_gate_and_row_are_frozen():
    for item, name in ((measured(1.0), "value"), (Gate("g", 1.0), "bound"), (Row("a", 1.0), "value")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(item, name, 2.0)


# ---------------------------------------------------------------- Gate


@pytest.mark.parametrize("bound", [NAN, INF, -INF])
def test_gate_refuses_a_bound_that_is_not_finite(bound):
    with pytest.raises(MetricError, match="gate noise: the bound must be finite"):
        Gate("noise", bound)


def test_two_sided_gate_refuses_a_negative_bound():
    with pytest.raises(MetricError, match=r"gate noise: a two-sided bound must not be negative, got -0\.1"):
        Gate("noise", -0.1, Sense.WITHIN)


def test_one_sided_gates_accept_a_negative_bound():
    assert judged(-1.0, -2.0).outcome is Outcome.PASS
    assert judged(-1.0, -2.0, sense=Sense.AT_LEAST).outcome is Outcome.FAIL


def test_gate_defaults_to_at_most_and_required():
    gate = Gate("g", 1.0)
    assert (gate.sense, gate.role) == (Sense.AT_MOST, Role.REQUIRED)


@pytest.mark.parametrize(
    ("sense", "value", "outcome"),
    [
        (Sense.AT_MOST, 1.4, Outcome.PASS),
        (Sense.AT_MOST, 1.5, Outcome.PASS),
        (Sense.AT_MOST, math.nextafter(1.5, 2), Outcome.FAIL),
        (Sense.AT_LEAST, 1.6, Outcome.PASS),
        (Sense.AT_LEAST, 1.5, Outcome.PASS),
        (Sense.AT_LEAST, math.nextafter(1.5, 1), Outcome.FAIL),
        (Sense.WITHIN, 1.5, Outcome.PASS),
        (Sense.WITHIN, -1.5, Outcome.PASS),
        (Sense.WITHIN, math.nextafter(1.5, 2), Outcome.FAIL),
        (Sense.WITHIN, -1.6, Outcome.FAIL),
    ],
)
def test_without_interval_the_value_decides(sense, value, outcome):
    assert judged(1.5, value, sense=sense).outcome is outcome


@pytest.mark.parametrize(
    ("sense", "interval", "outcome"),
    [
        (Sense.AT_MOST, (1.0, 1.5), Outcome.PASS),
        (Sense.AT_MOST, (1.0, 1.6), Outcome.INCONCLUSIVE),
        (Sense.AT_MOST, (1.5, 1.6), Outcome.INCONCLUSIVE),
        (Sense.AT_MOST, (1.51, 1.6), Outcome.FAIL),
        (Sense.AT_MOST, (1.5, 1.5), Outcome.PASS),
        (Sense.AT_LEAST, (1.5, 2.0), Outcome.PASS),
        (Sense.AT_LEAST, (1.4, 2.0), Outcome.INCONCLUSIVE),
        (Sense.AT_LEAST, (1.0, 1.5), Outcome.INCONCLUSIVE),
        (Sense.AT_LEAST, (1.0, 1.49), Outcome.FAIL),
        (Sense.WITHIN, (-1.5, 1.5), Outcome.PASS),
        (Sense.WITHIN, (-0.1, 1.6), Outcome.INCONCLUSIVE),
        (Sense.WITHIN, (-1.6, 0.1), Outcome.INCONCLUSIVE),
        (Sense.WITHIN, (-9.0, 9.0), Outcome.INCONCLUSIVE),
        (Sense.WITHIN, (1.0, 1.6), Outcome.INCONCLUSIVE),
        (Sense.WITHIN, (-1.6, -1.0), Outcome.INCONCLUSIVE),
        (Sense.WITHIN, (1.6, 2.0), Outcome.FAIL),
        (Sense.WITHIN, (-2.0, -1.6), Outcome.FAIL),
    ],
)
def test_interval_decides(sense, interval, outcome):
    assert judged(1.5, sum(interval) / 2, interval, sense).outcome is outcome


def test_within_zero_passes_only_exact_equality():
    assert judged(0.0, 0.0, sense=Sense.WITHIN).outcome is Outcome.PASS
    assert judged(0.0, -0.0, sense=Sense.WITHIN).outcome is Outcome.PASS
    assert judged(0.0, 5e-324, sense=Sense.WITHIN).outcome is Outcome.FAIL


def test_future_leak_fails_a_two_sided_gate():
    """A leak lowers perplexity: one-sided it passes, two-sided it does not."""
    assert judged(0.01, -0.2, (-0.25, -0.15)).outcome is Outcome.PASS
    assert judged(0.01, -0.2, (-0.25, -0.15), Sense.WITHIN).outcome is Outcome.FAIL


@pytest.mark.parametrize(
    ("sense", "interval", "margin", "would_pass"),
    [
        (Sense.AT_MOST, (1.0, 1.25), 0.25, 1.25),
        (Sense.AT_MOST, (1.0, 2.0), -0.5, 2.0),
        (Sense.AT_LEAST, (1.0, 1.25), -0.5, 1.0),
        (Sense.AT_LEAST, (2.0, 3.0), 0.5, 2.0),
        (Sense.WITHIN, (-2.0, 1.0), -0.5, 2.0),
        (Sense.WITHIN, (-1.0, 0.5), 0.5, 1.0),
    ],
)
def test_margin_and_the_bound_that_would_have_passed(sense, interval, margin, would_pass):
    verdict = judged(1.5, sum(interval) / 2, interval, sense)
    assert (verdict.margin, verdict.would_pass) == (margin, would_pass)


@pytest.mark.parametrize("sense", list(Sense))
def test_broken_measurement_fails_every_gate(sense):
    verdict = Gate("g", 1e9, sense).judge(Measurement.unusable("kl", "NaN"))
    assert verdict.outcome is Outcome.FAIL
    assert math.isnan(verdict.margin)
    assert math.isnan(verdict.would_pass)


def test_judging_leaves_its_input_alone():
    gate, m = Gate("g", 1.0), measured(2.0, (1.0, 3.0), data={"sum": 12.0})
    assert gate.judge(m) == gate.judge(m)
    assert m == measured(2.0, (1.0, 3.0), data={"sum": 12.0})


# ---------------------------------------------------------------- settle_n


@pytest.mark.parametrize(
    ("sense", "bound", "value", "interval", "n", "expected"),
    [
        (Sense.AT_MOST, 1.5, 1.0, (0.0, 2.0), 6, 24),  # half 1.0, distance 0.5: 6 * 4
        (Sense.AT_MOST, 1.5, 1.25, (0.5, 2.0), 6, 54),  # half 0.75, distance 0.25: 6 * 9
        (Sense.AT_LEAST, 0.5, 1.0, (0.0, 2.0), 10, 40),
        (Sense.WITHIN, 1.0, -0.5, (-1.5, 0.5), 8, 32),
        (Sense.WITHIN, 1.0, 0.0, (-1.5, 1.5), 8, 18),  # straddles both ends
        (Sense.AT_MOST, 1.0, 0.7, (0.0, 1.4), 3, 17),  # 3 * (0.7 / 0.3)^2 = 16.3, rounded up
    ],
)
def test_settle_n_follows_the_square_root_law(sense, bound, value, interval, n, expected):
    assert judged(bound, value, interval, sense, n=n).settle_n == expected


def test_settle_n_is_none_when_settled():
    assert judged(1.5, 1.0, (0.9, 1.1)).settle_n is None
    assert judged(1.5, 2.0, (1.9, 2.1)).settle_n is None
    assert judged(1.5, 2.0).settle_n is None


def test_settle_n_is_none_when_the_estimate_is_on_the_bound():
    verdict = judged(1.5, 1.5, (1.0, 2.0))
    assert verdict.settle_n is None
    assert "no number of documents that can be told from this would settle it" in verdict.message()


def test_settle_n_asks_for_more_than_there_are():
    """The bad end lies on the bound exactly: the same number of documents would stay inconclusive."""
    verdict = judged(1.5, 2.0, (1.5, 2.5), n=6)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.settle_n > 6


def test_unbounded_interval_is_reported_not_raised():
    verdict = judged(1.5, 2.0, (-INF, INF))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "INCONCLUSIVE noise" in verdict.message()


# ---------------------------------------------------------------- message


def test_fail_message_says_everything():
    gate = Gate("noise", 1.5, reason="rounding may cost half as much again", source="section 6")
    m = measured(2.25, (2.0, 2.5), rows=(Row("layers.12", 9.0, "mlp.up_proj"), Row("layers.3", 4.5)))
    assert gate.judge(m).message(next_command="pytest --npu -k noise").splitlines() == [
        "FAIL noise: kl = 2.25 [2, 2.5] (6 documents), gate <= 1.5",
        "  gate: rounding may cost half as much again [section 6]",
        "  worst: layers.12: 9 (mlp.up_proj)",
        "  would have passed: <= 2.5",
        "  also:  layers.3: 4.5",
        "  next:  pytest --npu -k noise",
    ]


def test_inconclusive_message_says_how_many_would_settle_it():
    text = judged(1.5, 1.0, (0.0, 2.0)).message()
    assert text.startswith("INCONCLUSIVE noise: kl = 1 [0, 2] (6 documents), gate <= 1.5")
    assert "would have passed: <= 2" in text
    assert "the interval straddles the bound; about 24 documents would settle it (now 6)" in text


def test_pass_message_offers_no_other_bound():
    text = judged(1.5, 1.0).message()
    assert text == "PASS noise: kl = 1 (6 documents), gate <= 1.5"


def test_broken_message_says_why_and_offers_no_bound():
    text = Gate("noise", 1.5).judge(Measurement.unusable("kl", "NaN at position 7")).message(next_command="npuconf")
    assert text == "FAIL noise: kl = NaN at position 7, gate <= 1.5\n  next:  npuconf"


def test_reason_without_source_has_no_brackets():
    assert "  gate: why\n" in Gate("g", 1.0, reason="why").judge(measured(2.0)).message() + "\n"


def listed(text):
    return [line for line in text.splitlines() if line.startswith(("  worst:", "  also:"))]


@pytest.mark.parametrize(("count", "shown"), [(1, 1), (9, 9), (10, 10), (11, 10), (640, 10)])
def test_at_most_ten_rows_are_listed(count, shown):
    text = judged(1.5, 2.0, rows=rows(count)).message()
    assert len(listed(text)) == shown <= MAX_ROWS
    more = re.findall(r"\.\.\. and (\d+) more", text)
    assert more == ([str(count - shown)] if count > shown else [])


def test_rows_are_listed_worst_first():
    places = [line.split(": ", 1)[1].strip() for line in listed(judged(1.5, 2.0, rows=rows(3)).message())]
    assert places == ["position 0: 3", "position 1: 2", "position 2: 1"]


def test_rows_total_counts_what_was_not_kept():
    text = judged(1.5, 2.0, rows=rows(10), data={"rows_total": 640}).message()
    assert text.endswith("  ... and 630 more")


def test_rows_total_without_rows_is_not_short_by_one():
    text = judged(1.5, 2.0, data={"rows_total": 5}).message()
    assert "and 4 more" not in text


def test_next_command_is_last():
    text = judged(1.5, 2.0, rows=rows(20)).message(next_command="npuconf doctor")
    assert text.splitlines()[-2:] == ["  ... and 10 more", "  next:  npuconf doctor"]


@pytest.mark.parametrize(
    ("sense", "bound", "value"),
    [
        (Sense.AT_MOST, 0.1, 0.123449),
        (Sense.AT_MOST, 1.5, 1.50004),
        (Sense.AT_LEAST, 0.99995, 0.999938),
        (Sense.AT_LEAST, 40.0, 12.3456),
        (Sense.WITHIN, 0.01, -0.0123449),
    ],
)
def test_the_printed_bound_that_would_have_passed_does_pass(sense, bound, value):
    """Rounded to nearest it may lie on the failing side: it must be rounded towards passing."""
    text = judged(bound, value, sense=sense).message()
    printed = float(re.search(r"would have passed: \S+ (\S+)", text).group(1))
    assert judged(printed, value, sense=sense).outcome is Outcome.PASS


# ---------------------------------------------------------------- formats


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (3.0, "3"),
        (-12.0, "-12"),
        (999999.0, "999999"),
        (1234567.0, "1.235e+06"),
        (0.123456, "0.1235"),
        (1e-7, "1e-07"),
        (NAN, "nan"),
        (INF, "inf"),
    ],
)
def test_format_number(value, text):
    assert format_number(value) == text


def test_format_measurement_with_unit_and_interval():
    m = Measurement("ttft", 12.34, "ms", n=100, of="requests", interval=(11.0, 13.5))
    assert format_measurement(m) == "12.34 ms [11, 13.5] (100 requests)"


def test_format_measurement_tells_cosines_apart():
    assert format_measurement(Measurement("cosine", 0.999612)) == "0.999612 (1 value)"


def test_format_measurement_tells_the_ends_of_a_cosine_interval_apart():
    text = format_measurement(Measurement("cosine", 0.99997, interval=(0.99996, 0.99998)))
    assert "1, 1" not in text


def test_format_bound_does_not_round_a_cosine_bound_to_one():
    assert format_bound(Gate("cosine", 0.99999, Sense.AT_LEAST)) != ">= 1"


@pytest.mark.parametrize(("sense", "text"), [(Sense.AT_MOST, "<= 2"), (Sense.AT_LEAST, ">= 2"), (Sense.WITHIN, "+- 2")])
def test_format_bound(sense, text):
    assert format_bound(Gate("g", 2.0, sense)) == text


def test_format_row():
    assert format_row(Row("prompt 2 position 3", 0.125)) == "prompt 2 position 3: 0.125"
    assert format_row(Row("prompt 2", 0.125, "token 7")) == "prompt 2: 0.125 (token 7)"


def test_a_two_sided_bound_is_settled_on_both_sides():
    """Found by hypothesis: an estimate of zero whose interval reaches further down than up."""
    verdict = Gate("g", 1.0, Sense.WITHIN).judge(Measurement("m", 0.0, n=2, interval=(-1.5, 1.0)))
    assert verdict.settle_n == 5
