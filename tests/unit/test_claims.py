"""Documented numbers: reproduced, not reproduced, contradicted."""

import pytest

from pytest_npuconf.cards.schema import Claim, ClaimGate
from pytest_npuconf.claims import ClaimResult, Standing, evaluate
from pytest_npuconf.gates import Measurement, Sense
from pytest_npuconf.report.terminal import claim_line

REPRODUCED, NOT, CONTRADICTED = Standing.REPRODUCED, Standing.NOT_REPRODUCED, Standing.CONTRADICTED
NPU = {"device": "npu", "precision": "bfloat16"}


def claim(**fields):
    return Claim("c", "documented", "source", **{"check": "ppl.delta", "statistic": "mean", **fields})


def measured(value):
    return Measurement("m", 123.0, data={"statistics": {"mean": value, "other": 99.0}})


def standing(measured_value, facts=None, **fields):
    return evaluate(claim(**fields), measured(measured_value), facts or {}).standing


@pytest.mark.parametrize(
    ("sense", "bound", "value", "expected"),
    [
        (Sense.AT_LEAST, 0.5, 0.5, REPRODUCED),
        (Sense.AT_LEAST, 0.5, 0.49, NOT),
        (Sense.AT_LEAST, 0.5, 9.0, REPRODUCED),
        (Sense.AT_MOST, 0.5, 0.5, REPRODUCED),
        (Sense.AT_MOST, 0.5, 0.51, NOT),
        (Sense.AT_MOST, 0.5, -9.0, REPRODUCED),
        (Sense.WITHIN, 0.5, -0.5, REPRODUCED),
        (Sense.WITHIN, 0.5, 0.5, REPRODUCED),
        (Sense.WITHIN, 0.5, -0.51, NOT),
        (Sense.WITHIN, 0.5, 0.51, NOT),
    ],
)
def test_the_documented_gate_decides(sense, bound, value, expected):
    assert standing(value, gate=ClaimGate(sense, bound)) is expected


def test_the_gate_decides_and_not_the_value():
    """What the document wrote beside its gate is no second gate."""
    assert standing(0.1, gate=ClaimGate(Sense.AT_MOST, 0.5), value=0.0, better="equal") is REPRODUCED


@pytest.mark.parametrize(
    ("better", "tolerance", "value", "expected"),
    [
        ("higher", None, 2.0, REPRODUCED),
        ("higher", None, 3.0, REPRODUCED),
        ("higher", None, 1.99, NOT),
        ("higher", 0.25, 1.75, REPRODUCED),
        ("higher", 0.25, 1.74, NOT),
        ("lower", None, 2.0, REPRODUCED),
        ("lower", None, 1.0, REPRODUCED),
        ("lower", None, 2.01, NOT),
        ("lower", 0.25, 2.25, REPRODUCED),
        ("lower", 0.25, 2.26, NOT),
        ("equal", None, 2.0, REPRODUCED),
        ("equal", None, 2.01, NOT),
        ("equal", None, 1.99, NOT),
        ("equal", 0.25, 1.75, REPRODUCED),
        ("equal", 0.25, 2.25, REPRODUCED),
        ("equal", 0.25, 2.26, NOT),
        ("equal", 0.25, 1.74, NOT),
    ],
)
def test_without_a_gate_the_figure_must_be_as_good_as_the_documented_one(better, tolerance, value, expected):
    assert standing(value, value=2.0, better=better, tolerance=tolerance) is expected


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({}, NOT),
        ({"device": "npu"}, CONTRADICTED),
        (NPU, CONTRADICTED),
        ({"device": "npu", "precision": "float32"}, NOT),
        ({"device": "cpu"}, NOT),
        ({"device": "npu", "chip": "Ascend910"}, NOT),
    ],
)
def test_a_miss_contradicts_only_under_the_claims_own_conditions(conditions, expected):
    assert standing(3.0, NPU, value=2.0, conditions=conditions) is expected
    assert standing(2.0, NPU, value=2.0, conditions=conditions) is REPRODUCED


def test_the_result_holds_the_statistic_and_not_the_measurements_value():
    result = evaluate(claim(value=2.0), measured(2), {})
    assert (result, type(result.measured)) == (ClaimResult(claim(value=2.0), 2.0, REPRODUCED), float)


def test_an_unusable_measurement_reproduces_nothing_and_contradicts_nothing():
    broken = Measurement.unusable("m", "NaN in the logits")
    assert evaluate(claim(value=2.0, conditions=NPU), broken, NPU) == ClaimResult(
        claim(value=2.0, conditions=NPU), None, NOT
    )


@pytest.mark.parametrize("statistics", [{}, {"other": 1.0}])
def test_a_statistic_that_could_not_be_taken_reproduces_nothing(statistics):
    """A server that dies has no throughput: its lost requests are what must be said, not that."""
    found = evaluate(claim(value=2.0, conditions=NPU), Measurement("m", 1.0, data={"statistics": statistics}), NPU)
    assert (found.measured, found.standing) == (None, NOT)


def test_a_check_without_statistics_is_an_error():
    with pytest.raises(KeyError):
        evaluate(claim(value=2.0), Measurement("m", 1.0, data={}), {})


# ---------------------------------------------------------------- one number for each text

LENGTHS = [7, 7, 6, 6, 9, 7, 10, 9]


@pytest.mark.parametrize(
    ("measured_value", "fields", "expected"),
    [
        (LENGTHS, {"value": LENGTHS}, REPRODUCED),
        (tuple(LENGTHS), {"value": LENGTHS}, REPRODUCED),
        ([7, 7, 6, 6, 9, 7, 10, 8], {"value": LENGTHS}, NOT),
        ([7, 7, 6, 6, 9, 7, 10, 8], {"value": LENGTHS, "tolerance": 1}, REPRODUCED),
        (LENGTHS[:-1], {"value": LENGTHS}, NOT),
        ([*LENGTHS, 9], {"value": LENGTHS}, NOT),
        (LENGTHS[::-1], {"value": LENGTHS}, NOT),
        ([2.0, 3.0], {"value": [2.0, 2.0], "better": "higher"}, REPRODUCED),
        ([2.0, 1.9], {"value": [2.0, 2.0], "better": "higher"}, NOT),
        ([2.0, 1.9], {"value": [2.0, 2.0], "better": "lower"}, REPRODUCED),
        (7.0, {"value": LENGTHS}, NOT),
        (LENGTHS, {"value": 7}, NOT),
        ([0.1, 0.2], {"gate": ClaimGate(Sense.AT_MOST, 0.2), "value": [0.0]}, REPRODUCED),
        ([0.1, 0.3], {"gate": ClaimGate(Sense.AT_MOST, 0.2), "value": [0.0]}, NOT),
    ],
)
def test_lists_are_compared_element_by_element(measured_value, fields, expected):
    assert standing(measured_value, **fields) is expected


def test_a_missed_list_contradicts_under_the_claims_own_conditions():
    assert standing([7], NPU, value=[8], conditions=NPU) is CONTRADICTED


def test_the_result_holds_the_whole_list():
    assert evaluate(claim(value=LENGTHS), measured(tuple(LENGTHS)), {}).measured == [float(n) for n in LENGTHS]


def test_a_missed_list_is_shown_in_full():
    assert claim_line(
        {"id": "c", "standing": "not reproduced", "measured": [7.0, 8.5], "gate_stated": ""}
    ) == "claim c: not reproduced, measured 7 8.5"  # fmt: skip
