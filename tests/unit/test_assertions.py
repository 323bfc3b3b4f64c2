"""The public assertions: what they return, and what a person reads when they fail."""

import math
import re
import subprocess
import sys

import numpy as np
import pytest

import pytest_npuconf as npuconf
from pytest_npuconf import thresholds
from pytest_npuconf.errors import MetricError, NonFiniteError
from pytest_npuconf.metrics.logits import compare_logits

POSITIONS, VOCABULARY = 6, 16


def reference(seed=0, positions=POSITIONS):
    return np.random.default_rng(seed).normal(size=(positions, VOCABULARY)).astype(np.float32)


def scaled(rows, errors):
    """A candidate whose relative L2 error at each position is the given one (exact but for float32 rounding)."""
    return (rows.astype(np.float64) * (1 + np.asarray(errors, dtype=np.float64)[:, None])).astype(np.float32)


def flipped(rows, *positions):
    """A candidate that swaps the logits of the two best tokens at these positions."""
    changed = rows.copy()
    for i in positions:
        first, second = np.argsort(-rows[i])[:2]
        changed[i, [first, second]] = rows[i, [second, first]]
    return changed


def gap(rows, i):
    top = np.sort(rows[i].astype(np.float64))[::-1]
    return top[0] - top[1]


def broken(rows, position, value=math.nan):
    changed = rows.copy()
    changed[position, 3] = value
    return changed


def failed(call, *args, kind=npuconf.ConformanceError, **more):
    with pytest.raises(kind) as caught:
        call(*args, **more)
    assert type(caught.value) is kind
    return caught.value


def listed(error):
    return [line for line in str(error).splitlines() if line.startswith(("  worst:", "  also:"))]


def printed_bound(error):
    return float(re.search(r"would have passed: \S+ (\S+)", str(error)).group(1))


# ---------------------------------------------------------------- the package


def test_every_public_name_is_there():
    for name in npuconf.__all__:
        assert getattr(npuconf, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'pytest_npuconf' has no attribute 'assert_logit_close'"):
        _ = npuconf.assert_logit_close


def test_importing_the_package_imports_neither_torch_nor_numpy():
    code = "import sys, pytest_npuconf; print({'torch', 'numpy', 'scipy', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_errors_are_assertion_errors():
    assert issubclass(npuconf.InconclusiveError, npuconf.ConformanceError)
    assert issubclass(npuconf.ConformanceError, AssertionError)


# ---------------------------------------------------------------- logits


def test_close_logits_return_their_measurement():
    rows = reference()
    candidate = scaled(rows, [0, 1e-5, 3e-5, 2e-5, 0, 0])
    m = npuconf.assert_logits_close(candidate, rows)
    expected = compare_logits(candidate, rows)
    assert (m.metric, m.n, m.of) == ("rel_l2.max", POSITIONS, "positions")
    assert m.value == expected.rel_l2.max() == pytest.approx(3e-5, rel=1e-2)
    assert m.worst == npuconf.Row("position 2", m.value)
    assert m.data["mean"] == pytest.approx(expected.rel_l2.mean())
    assert m.data["worst_cosine"] == expected.cosine.min()
    assert m.data["max_kl"] == expected.kl.max() > 0


def test_the_default_bound_is_the_float32_gate():
    rows, bound = reference(), thresholds.REL_L2_FLOAT32.value
    npuconf.assert_logits_close(scaled(rows, [0.9 * bound] * POSITIONS), rows)
    failed(npuconf.assert_logits_close, scaled(rows, [1.1 * bound] * POSITIONS), rows)


def test_the_bound_itself_passes():
    rows = np.ones((1, 4), np.float32)
    assert npuconf.assert_logits_close(rows * 1.5, rows, rel_l2=0.5).value == 0.5


def test_failing_logits_say_everything(monkeypatch):
    monkeypatch.setenv("PYTEST_CURRENT_TEST", "tests/test_port.py::test_it[a b] (call)")
    rows = np.ones((4, 4), np.float32)
    error = failed(npuconf.assert_logits_close, scaled(rows, [0, 0.5, 0, 0.25]), rows, rel_l2=0.125, name="port")
    assert str(error).splitlines() == [
        "FAIL port: rel_l2.max = 0.5 (4 positions), gate <= 0.125",
        "  gate: relative L2 error of the logits at every position",
        "  worst: position 1: 0.5",
        "  would have passed: <= 0.5",
        "  also:  position 3: 0.25",
        "  next:  pytest 'tests/test_port.py::test_it[a b]'",
    ]
    assert error.verdict.outcome is npuconf.Outcome.FAIL
    assert error.verdict.measurement.value == 0.5
    assert error.verdict.gate == npuconf.Gate("port", 0.125, reason="relative L2 error of the logits at every position")


def test_outside_pytest_there_is_no_next_command(monkeypatch):
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    rows = reference()
    assert "next:" not in str(failed(npuconf.assert_logits_close, rows * 2, rows))


def test_the_next_command_is_this_test(request):
    rows = reference()
    error = failed(npuconf.assert_logits_close, rows * 2, rows)
    assert str(error).splitlines()[-1] == f"  next:  pytest {request.node.nodeid}"


@pytest.mark.parametrize(("count", "more"), [(1, 0), (10, 0), (11, 1), (25, 15)])
def test_ten_failing_positions_are_listed_and_the_rest_is_counted(count, more):
    rows = reference(positions=40)
    errors = np.zeros(40)
    errors[:count] = np.linspace(0.5, 0.1, count)
    error = failed(npuconf.assert_logits_close, scaled(rows, errors), rows, rel_l2=0.05)
    assert [line.split(":")[1].strip() for line in listed(error)] == [f"position {i}" for i in range(min(count, 10))]
    assert re.findall(r"\.\.\. and (\d+) more", str(error)) == ([str(more)] if more else [])


def test_prompts_are_named():
    rows = {"p": reference(1), "q": reference(2, 4)}
    candidate = {"q": scaled(rows["q"], [0, 0, 0.5, 0.1]), "p": scaled(rows["p"], [0.25, 0, 0, 0, 0, 0])}
    error = failed(npuconf.assert_logits_close, candidate, rows, rel_l2=0.2)
    assert error.verdict.measurement.n == 10
    assert [line.split(":")[1].strip() for line in listed(error)] == ["q position 2", "p position 0"]


@pytest.mark.parametrize(
    ("candidate", "named"),
    [({"p": 1}, "q"), ({"p": 1, "q": 1, "r": 1}, "r"), ({"p": 1, "r": 1}, "q, r"), ({}, "p, q")],
)
def test_prompts_that_differ_are_named(candidate, named):
    rows = reference()
    with pytest.raises(MetricError, match=f"candidate and reference name different items: {named}$"):
        npuconf.assert_logits_close(dict.fromkeys(candidate, rows), {"p": rows, "q": rows})


def test_no_prompts_at_all_are_refused():
    with pytest.raises(MetricError, match="name different items: none at all"):
        npuconf.assert_logits_close({}, {})


@pytest.mark.parametrize("turned", [False, True])
def test_a_mapping_against_an_array_is_refused(turned):
    pair = [{"p": reference()}, reference()]
    with pytest.raises(MetricError, match="must both be mappings of names, or both be arrays"):
        npuconf.assert_logits_close(*(pair[::-1] if turned else pair))


def test_shapes_that_differ_are_refused_and_not_failed():
    rows = reference()
    with pytest.raises(MetricError, match="vocabulary differs"):
        npuconf.assert_logits_close(rows[:, :-1], rows)
    with pytest.raises(MetricError, match="shape differs"):
        npuconf.assert_logits_close(rows[:-1], rows)


LOGITS = [npuconf.assert_logits_close, npuconf.assert_token_match]


@pytest.mark.parametrize("call", LOGITS)
@pytest.mark.parametrize(("value", "word"), [(math.nan, "NaN"), (math.inf, "infinity"), (-math.inf, "infinity")])
def test_an_unusable_candidate_fails_with_prompt_and_position(call, value, word):
    rows = {"p": reference(1), "q": reference(2)}
    error = failed(call, {"p": rows["p"], "q": broken(rows["q"], 4, value)}, rows)
    assert f"q: {word} in the candidate logits at position 4" in str(error).splitlines()[0]
    assert "would have passed" not in str(error)
    assert error.verdict.measurement.broken
    assert math.isnan(error.verdict.measurement.value)


@pytest.mark.parametrize("call", LOGITS)
def test_an_unusable_candidate_without_names_gives_the_position(call):
    rows = reference()
    error = failed(call, broken(rows, 4), rows)
    assert ": NaN in the candidate logits at position 4" not in str(error)
    assert "= NaN in the candidate logits at position 4" in str(error)


@pytest.mark.parametrize("call", LOGITS)
@pytest.mark.parametrize("candidate_too", [False, True])
def test_an_unusable_reference_is_refused_and_not_failed(call, candidate_too):
    rows = reference()
    candidate = broken(rows, 2) if candidate_too else rows
    with pytest.raises(NonFiniteError, match="NaN in the reference logits at position 2"):
        call({"p": candidate}, {"p": broken(rows, 2)})


def test_a_prompt_called_reference_is_still_judged():
    rows = reference()
    error = failed(npuconf.assert_logits_close, {"reference": broken(rows, 2)}, {"reference": rows})
    assert "reference: NaN in the candidate logits at position 2" in str(error)


# ---------------------------------------------------------------- tokens


def test_matching_tokens_return_their_measurement():
    rows = reference()
    m = npuconf.assert_token_match(scaled(rows, [0.1] * POSITIONS), rows)
    assert (m.metric, m.value, m.n, m.rows) == ("top1.disagreements", 0.0, POSITIONS, ())
    assert (m.data["match"], m.data["near_ties"]) == (1.0, 0)
    assert m.data["match_lower_bound"] == pytest.approx(0.05 ** (1 / POSITIONS))


def test_a_disagreement_fails_and_says_which_token():
    rows = reference()
    error = failed(npuconf.assert_token_match, flipped(rows, 1, 4), rows)
    first, second = sorted((1, 4), key=lambda i: -gap(rows, i))
    m = error.verdict.measurement
    assert (m.value, m.data["match"]) == (2.0, pytest.approx(1 - 2 / POSITIONS))
    assert [row.place for row in m.rows] == [f"position {first}", f"position {second}"]
    assert m.rows[0].value == pytest.approx(gap(rows, first))
    ref, cand = np.argsort(-rows[first])[:2]
    assert f"(gap in logits, token {cand} for {ref})" in str(error)


def test_near_ties_are_excused_up_to_tau():
    rows = reference()
    candidate, tau = flipped(rows, 1), gap(rows, 1)
    m = npuconf.assert_token_match(candidate, rows, tau=tau)
    assert (m.value, m.data["near_ties"], m.data["match"]) == (0.0, 1, pytest.approx(1 - 1 / POSITIONS))
    error = failed(npuconf.assert_token_match, candidate, rows, tau=tau * 0.999)
    assert error.verdict.measurement.data["near_ties"] == 0


def test_exact_ties_are_excused_without_tau():
    rows = np.float32([[1, 1, 0]])
    assert npuconf.assert_token_match(np.float32([[1, 2, 0]]), rows).data["near_ties"] == 1


def test_disagreements_of_prompts_are_named_and_counted():
    rows = {f"p{i}": reference(i) for i in range(3)}
    candidate = {name: flipped(array, *range(POSITIONS)) for name, array in rows.items()}
    error = failed(npuconf.assert_token_match, candidate, rows)
    assert len(listed(error)) == 10
    assert "... and 8 more" in str(error)
    places = {f"{name} position {i}" for name in rows for i in range(POSITIONS)}
    assert {row.place for row in error.verdict.measurement.rows} <= places


# ---------------------------------------------------------------- perplexity


def nll(change=0.0, texts=6, tokens=40, spread=0.0):
    """Candidate and reference nll by text; the candidate's mean difference is ``change`` in every text, +- ``spread``."""
    rng = np.random.default_rng(7)
    ref = {f"text {i}": rng.uniform(1, 3, tokens) for i in range(texts)}
    return {name: r + change + spread * (-1) ** i for i, (name, r) in enumerate(ref.items())}, ref


def test_close_perplexity_returns_its_measurement():
    candidate, ref = nll(0.005)
    m = npuconf.assert_perplexity_close(candidate, ref)
    assert (m.metric, m.n, m.of) == ("ppl.relative_change", 6, "documents")
    assert m.value == pytest.approx(math.expm1(0.005))
    assert m.interval == pytest.approx((m.value, m.value))
    assert m.data["texts"]["text 3"]["tokens"] == 40
    assert m.data["texts"]["text 3"]["reference_nll"] == pytest.approx(ref["text 3"].sum())


@pytest.mark.parametrize("change", [0.02, -0.02])
def test_perplexity_is_judged_on_both_sides(change):
    error = failed(npuconf.assert_perplexity_close, *nll(change))
    assert str(error).startswith("FAIL perplexity: ppl.relative_change = ")
    assert "gate +- 0.01" in str(error)
    assert "(PPL " in listed(error)[0]


def test_texts_are_listed_by_the_size_of_their_change():
    candidate, ref = nll()
    candidate["text 2"] = candidate["text 2"] - 0.5
    candidate["text 4"] = candidate["text 4"] + 0.25
    error = failed(npuconf.assert_perplexity_close, candidate, ref, kind=npuconf.InconclusiveError)
    places = [row.place for row in error.verdict.measurement.rows]
    assert places[:2] == ["text 2", "text 4"]
    assert len(places) == 6


def test_scattered_texts_are_inconclusive_and_say_how_many_would_settle_it():
    error = failed(npuconf.assert_perplexity_close, *nll(0.005, spread=0.05), kind=npuconf.InconclusiveError)
    assert error.verdict.outcome is npuconf.Outcome.INCONCLUSIVE
    assert re.search(r"about \d+ documents would settle it \(now 6\)", str(error))


def test_one_text_is_refused():
    with pytest.raises(MetricError, match="at least 2 documents"):
        npuconf.assert_perplexity_close(*nll(texts=1))


def test_token_counts_that_differ_are_refused_by_text():
    candidate, ref = nll()
    candidate["text 1"] = candidate["text 1"][:-1]
    with pytest.raises(MetricError, match="text 1: needs the same number of tokens"):
        npuconf.assert_perplexity_close(candidate, ref)


@pytest.mark.parametrize(
    ("side", "word", "error"), [(0, "candidate", npuconf.ConformanceError), (1, "reference", MetricError)]
)
def test_nll_that_is_not_finite_is_named_by_text_and_token(side, word, error):
    both = nll()
    both[side]["text 1"][5] = math.nan
    with pytest.raises(error, match=f"NaN in the {word} nll of text 1 at position 5"):
        npuconf.assert_perplexity_close(*both)


# ---------------------------------------------------------------- hidden states


def test_close_hidden_states_return_their_measurement():
    rows = reference()
    candidate = rows.copy()
    candidate[:, 5] *= 1 + 1e-5
    m = npuconf.assert_hidden_states_close(candidate, rows, which="final norm")
    assert (m.metric, m.n) == ("hidden.rel_l2.max", POSITIONS)
    assert (m.data["worst_channel"], m.data["worst_channel_in"]) == (5, "")
    assert m.data["worst_channel_rel"] == pytest.approx(1e-5, rel=0.1)
    assert m.data["mean_cosine"] == pytest.approx(1.0)


def test_failing_hidden_states_say_which_and_where():
    rows = {"p": reference(1), "q": reference(2)}
    candidate = {"p": rows["p"], "q": scaled(rows["q"], [0, 0, 0, 0.5, 0, 0])}
    error = failed(npuconf.assert_hidden_states_close, candidate, rows, which="layer 3 output")
    assert str(error).startswith("FAIL hidden states, layer 3 output: hidden.rel_l2.max = 0.5 (12 positions)")
    assert listed(error) == ["  worst: q position 3: 0.5"]
    assert error.verdict.measurement.data["worst_channel_in"] == "q"


def test_unusable_hidden_states_fail_and_an_unusable_reference_is_refused():
    rows = reference()
    error = failed(npuconf.assert_hidden_states_close, {"p": broken(rows, 4)}, {"p": rows}, which="x")
    assert "p: NaN in the candidate hidden states at position 4" in str(error)
    with pytest.raises(NonFiniteError, match="NaN in the reference hidden states at position 4"):
        npuconf.assert_hidden_states_close({"p": rows}, {"p": broken(rows, 4)}, which="x")


# ---------------------------------------------------------------- order

SCORES = [4.0, 3.0, 2.5, 1.0]


def test_the_same_order_returns_its_measurement():
    m = npuconf.assert_same_order([8, 6, 5, 2], SCORES, noise=0.1)
    assert (m.metric, m.value, m.n, m.of) == ("swaps", 0.0, 6, "pairs")
    assert (m.data["tau_b"], m.data["ties"], m.data["max_score_error"]) == (1.0, 0, 4.0)


def test_swaps_are_named_worst_first():
    labels = ["Paris", "Rome", "Oslo", "Bern"]
    error = failed(npuconf.assert_same_order, [1, 3, 2.5, 4], SCORES, noise=0.1, labels=labels)
    assert error.verdict.measurement.value == 5.0
    assert listed(error)[0].startswith("  worst: Paris before Bern: 3 (reference margin, reversed or tied")
    assert listed(error)[1].startswith("  also:  Rome before Bern: 2 ")


def test_items_without_labels_are_numbered():
    error = failed(npuconf.assert_same_order, [3, 4], [2, 1], noise=0)
    assert "item 0 before item 1: 1" in str(error)


def test_swaps_within_the_noise_are_excused():
    m = npuconf.assert_same_order([4, 2, 3, 1], SCORES, noise=0.5)
    assert (m.value, m.data["ties"]) == (0.0, 1)
    failed(npuconf.assert_same_order, [4, 2, 3, 1], SCORES, noise=0.49)


def test_more_than_ten_swaps_are_counted():
    error = failed(npuconf.assert_same_order, range(8), range(8, 0, -1), noise=0)
    assert len(listed(error)) == 10
    assert "... and 18 more" in str(error)


def test_labels_of_another_length_are_refused():
    with pytest.raises(MetricError, match="labels: 3 names for 4 items"):
        npuconf.assert_same_order(SCORES, SCORES, noise=0, labels="abc")


@pytest.mark.parametrize("bad", [([1.0], [1.0]), ([1, 2], [1, 2, 3]), ([1, math.nan], [1, 2]), ([1, 2], [1, math.inf])])
def test_scores_that_cannot_be_compared_are_refused(bad):
    with pytest.raises(MetricError):
        npuconf.assert_same_order(*bad, noise=0)


# ---------------------------------------------------------------- floors


def test_a_number_on_its_floor_passes():
    m = npuconf.assert_at_least(40.0, 40.0, name="throughput", unit="tokens/s")
    assert (m.metric, m.value, m.unit, m.n, m.interval, m.rows) == ("throughput", 40.0, "tokens/s", 1, None, ())


def test_a_number_below_its_floor_fails():
    error = failed(npuconf.assert_at_least, 39.5, 40.0, name="throughput", unit="tokens/s")
    assert str(error).splitlines()[0] == "FAIL throughput: throughput = 39.5 tokens/s (1 repeat), gate >= 40"


def test_repeats_get_students_interval_by_hand():
    """Mean 4, standard deviation 1, n = 3: t(2, 0.975) = 4.302653, half width 2.484138."""
    m = npuconf.assert_at_least([3, 4, 5], 1.5, name="x")
    assert m.interval == pytest.approx((4 - 2.484138, 4 + 2.484138), abs=1e-6)
    assert [row.place for row in m.rows] == ["repeat 1", "repeat 2", "repeat 3"]


def test_scattered_repeats_are_inconclusive():
    error = failed(npuconf.assert_at_least, [3, 5, 4], 3.5, name="x", kind=npuconf.InconclusiveError)
    assert re.search(r"about \d+ repeats would settle it \(now 3\)", str(error))
    assert listed(error)[0] == "  worst: repeat 1: 3"


def test_repeats_that_all_miss_fail():
    failed(npuconf.assert_at_least, [3.0, 3.1, 3.2], 5.0, name="x")


@pytest.mark.parametrize("bad", [[], math.nan, [1, math.inf], [[1, 2], [3, 4]]])
def test_figures_that_are_none_are_refused(bad):
    with pytest.raises(MetricError, match="x: needs one finite number or a list of them, got"):
        npuconf.assert_at_least(bad, 1.0, name="x")


# ---------------------------------------------------------------- what would have passed does pass

ROWS = reference(3, 30)
NOISY = (ROWS + np.random.default_rng(4).normal(size=ROWS.shape) * 1e-3).astype(np.float32)


@pytest.mark.parametrize(
    ("call", "args", "argument", "more"),
    [
        (npuconf.assert_logits_close, (NOISY, ROWS), "rel_l2", {}),
        (npuconf.assert_hidden_states_close, (NOISY, ROWS), "rel_l2", {"which": "x"}),
        (npuconf.assert_perplexity_close, nll(0.0213), "bound", {}),
        (npuconf.assert_perplexity_close, nll(-0.0213), "bound", {}),
        (npuconf.assert_perplexity_close, nll(0.005, spread=0.05), "bound", {}),
        (npuconf.assert_at_least, ([31.23456, 30.98765, 33.3333],), "floor", {"name": "x"}),
        (npuconf.assert_at_least, (0.99876543,), "floor", {"name": "x"}),
    ],
)
def test_the_bound_that_would_have_passed_passes_when_it_is_used(call, args, argument, more):
    tight = {"floor": 1e6}.get(argument, 1e-6)
    with pytest.raises(npuconf.ConformanceError) as caught:
        call(*args, **more, **{argument: tight})
    call(*args, **more, **{argument: printed_bound(caught.value)})


# ---------------------------------------------------------------- torch tensors


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_torch_tensors_of_any_dtype_will_do(dtype):
    torch = pytest.importorskip("torch")
    rows = torch.from_numpy(reference()).to(getattr(torch, dtype)).requires_grad_()
    assert npuconf.assert_logits_close(rows, rows).value == 0.0
    assert npuconf.assert_token_match({"p": rows}, {"p": rows}).value == 0.0
    assert npuconf.assert_hidden_states_close(rows, rows, which="x").value == 0.0
    assert npuconf.assert_same_order(rows[0], rows[0], noise=0.0).value == 0.0


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("grad", [False, True])
def test_nll_may_be_torch_tensors_too(dtype, grad):
    """``F.cross_entropy(..., reduction="none")`` under autograd, or of a bfloat16 model, is what people have at hand."""
    torch = pytest.importorskip("torch")
    kept = {name: torch.tensor(v, dtype=getattr(torch, dtype), requires_grad=grad) for name, v in nll()[1].items()}
    assert npuconf.assert_perplexity_close(kept, kept).value == 0.0


def test_a_torch_figure_reaches_its_floor():
    torch = pytest.importorskip("torch")
    assert npuconf.assert_at_least(torch.tensor([2.0, 2.0]), 1.0, name="x").value == 2.0
