"""Perplexity from sums, and its paired two-sided difference, by hand."""

import math

import numpy as np
import pytest

from pytest_npuconf.errors import MetricError, NonFiniteError
from pytest_npuconf.metrics.perplexity import TextScore, compare_perplexity, format_perplexity, score_text
from pytest_npuconf.stats import ratio_of_sums

LOG2 = math.log(2)


def test_perplexity_by_hand():
    score = score_text("a", [LOG2, 3 * LOG2], [LOG2, LOG2])
    assert (score.candidate_ppl, score.reference_ppl) == pytest.approx((4.0, 2.0))
    assert score.delta == pytest.approx(LOG2)


def test_sums_and_count_are_kept():
    assert score_text("a", [1.0, 2.0, 4.0], [1.0, 1.0, 1.0]) == TextScore("a", 7.0, 3.0, 3)


def test_sums_are_kept_as_plain_python_numbers():
    score = score_text("a", np.float32([1, 2]), np.float32([1, 2]))
    assert (type(score.candidate_nll), type(score.reference_nll), type(score.tokens)) == (float, float, int)


def test_exponential_of_delta_is_the_relative_change():
    score = score_text("a", [1.0, 2.5], [1.25, 2.0])
    assert math.exp(score.delta) == pytest.approx(score.candidate_ppl / score.reference_ppl)


@pytest.mark.parametrize(("candidate", "reference"), [([], []), ([1.0], []), ([1.0, 2.0], [1.0]), (1.0, 1.0)])
def test_empty_or_unequal_tokens_are_refused_by_name(candidate, reference):
    with pytest.raises(MetricError, match="wiki-3: needs the same number of tokens, at least 1, got"):
        score_text("wiki-3", candidate, reference)


def test_two_dimensional_nll_is_refused():
    with pytest.raises(MetricError, match="a: needs the same number of tokens"):
        score_text("a", [[1.0, 2.0]], [[1.0, 2.0]])


@pytest.mark.parametrize(("bad", "kind"), [(math.nan, "NaN"), (math.inf, "infinity")])
def test_not_finite_is_refused_with_text_and_position(bad, kind):
    with pytest.raises(NonFiniteError, match=rf"{kind} in the candidate nll of wiki-3 at position 2 \(1 of 4 "):
        score_text("wiki-3", [1, 1, bad, 1], [1, 1, 1, 1])
    with pytest.raises(NonFiniteError, match=f"{kind} in the reference nll of wiki-3 at position 0"):
        score_text("wiki-3", [1, 1], [bad, 1])


def test_delta_weights_by_tokens():
    """One text of 1 token is 1.0 worse, one of 3 tokens is equal: 0.25 nats per token."""
    delta = compare_perplexity([TextScore("a", 2.0, 1.0, 1), TextScore("b", 3.0, 3.0, 3)])
    assert delta.estimate.value == pytest.approx(0.25)
    assert delta.estimate == ratio_of_sums([1.0, 0.0], [1, 3])
    assert delta.estimate.n == 2


def test_aggregates_are_named_and_differ():
    """PPL 4 for 2 and 2 for 4: relative +1 and -1/2, means 3 and 3, paired delta zero."""
    scores = [TextScore("a", 2 * LOG2, LOG2, 1), TextScore("b", LOG2, 2 * LOG2, 1)]
    delta = compare_perplexity(scores)
    assert delta.estimate.value == pytest.approx(0.0, abs=1e-15)
    assert delta.mean_abs_delta == pytest.approx(0.75)
    assert delta.max_abs_delta == pytest.approx(1.0)
    assert delta.ratio_of_means == pytest.approx(0.0, abs=1e-15)


def test_mean_of_absolute_is_not_absolute_of_mean():
    scores = [TextScore("a", 1.1, 1.0, 1), TextScore("b", 0.9, 1.0, 1)]
    delta = compare_perplexity(scores)
    assert delta.mean_abs_delta > 0.09
    assert abs(delta.ratio_of_means) < 0.01


def test_a_leak_is_negative_with_its_whole_interval():
    scores = [TextScore(str(i), 100.0 + i, 120.0 + i, 50) for i in range(6)]
    estimate = compare_perplexity(scores).estimate
    assert estimate.low <= estimate.value < 0
    assert estimate.high < 0


def test_equal_texts_have_no_delta():
    delta = compare_perplexity([score_text(n, [1.5, 2.5], [1.5, 2.5]) for n in "abc"])
    assert (delta.estimate.value, delta.estimate.low, delta.estimate.high) == (0.0, 0.0, 0.0)
    assert (delta.mean_abs_delta, delta.max_abs_delta, delta.ratio_of_means) == (0.0, 0.0, 0.0)


def test_small_relative_change_keeps_its_digits():
    delta = compare_perplexity([TextScore(n, 3.0 + 1e-9, 3.0, 1) for n in "ab"])
    assert delta.mean_abs_delta == pytest.approx(math.expm1((3.0 + 1e-9) - 3.0), rel=1e-5, abs=0)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_texts_are_refused(count):
    with pytest.raises(MetricError, match="at least 2 documents"):
        compare_perplexity([TextScore("a", 1.0, 1.0, 1)] * count)


def test_a_ruined_port_gets_a_number_or_a_refusal_but_no_crash():
    """800 nats a token (fp16 overflow does that): exp(800) is no float64."""
    scores = [score_text(n, [800.0], [3.0]) for n in "ab"]
    try:
        delta = compare_perplexity(scores)
    except MetricError:
        return
    assert delta.estimate.value == pytest.approx(797.0)
    assert delta.max_abs_delta > 1e300


@pytest.mark.parametrize(
    ("value", "said"), [(3.62632, "3.6263"), (999_999.0, "999999.0000"), (1.5e6, "1.500e+06"), (1e304, "1.000e+304")]
)
def test_a_perplexity_has_four_decimals_while_they_mean_something(value, said):
    assert format_perplexity(value) == said
