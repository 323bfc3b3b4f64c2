"""A check's record: plain JSON values with everything that a report needs."""

import json
import math

import numpy as np
import pytest

from pytest_npuconf.cards.schema import Claim
from pytest_npuconf.claims import ClaimResult, Standing
from pytest_npuconf.gates import Gate, Measurement, Role, Row, Sense
from pytest_npuconf.records import make_record, properties

FACTS = {"device": "npu", "engine": "transformers", "torch": "2.9.0", "fault": ""}


def measured(**fields):
    base = {
        "metric": "kl.noise_ratio",
        "value": 2.0,
        "unit": "x",
        "n": 6,
        "of": "documents",
        "interval": (1.75, 2.25),
        "rows": (Row("text 2", 3.0, "worst"), Row("text 1", 1.0)),
        "data": {"sum": 12.0},
    }
    return Measurement(**{**base, **fields})


def recorded(measurement=None, gate=Gate("g", 1.5, reason="why", source="where"), claims=(), **more):  # noqa: B008
    measurement = measured() if measurement is None else measurement
    verdict = gate.judge(measurement) if gate is not None else None
    place = {"model": "m", "precision": "bfloat16", "reference": "cpu float32", "reference_source": "live"}
    place |= {"facts": FACTS, "labels": ["CPU"]}
    return make_record("kl.noise_ratio.bf16_fp32", measurement, verdict, list(claims), **{**place, **more})


def as_json(record):
    return json.loads(json.dumps(record, allow_nan=False))


CLAIM = Claim("c", "PPL 3 %", "page 2", gate_stated="< 3 %", statistic="mean", reason="because")


def test_everything_is_recorded():
    result = ClaimResult(CLAIM, 0.5, Standing.CONTRADICTED)
    assert recorded(claims=[result], waived="known") == {
        "check": "kl.noise_ratio.bf16_fp32",
        "model": "m",
        "device": "npu",
        "engine": "transformers",
        "precision": "bfloat16",
        "reference": "cpu float32",
        "reference_source": "live",
        "labels": ["CPU"],
        "metric": "kl.noise_ratio",
        "value": 2.0,
        "unit": "x",
        "n": 6,
        "of": "documents",
        "interval": [1.75, 2.25],
        "broken": "",
        "worst": {"place": "text 2", "value": 3.0, "detail": "worst"},
        "rows": [
            {"place": "text 2", "value": 3.0, "detail": "worst"},
            {"place": "text 1", "value": 1.0, "detail": ""},
        ],
        "data": {"sum": 12.0},
        "verdict": "fail",
        "role": "required",
        "sense": "<=",
        "bound": 1.5,
        "margin": -0.75,
        "would_pass": 2.25,
        "reason": "why",
        "source": "where",
        "waived": "known",
        "claims": [
            {
                "id": "c",
                "documented": "PPL 3 %",
                "gate_stated": "< 3 %",
                "source": "page 2",
                "statistic": "mean",
                "measured": 0.5,
                "standing": "contradicted",
                "reason": "because",
            }
        ],
    }


def test_a_record_survives_json_unchanged():
    record = recorded(claims=[ClaimResult(CLAIM, 0.5, Standing.REPRODUCED)])
    assert as_json(record) == record


def test_without_a_gate_there_is_no_verdict():
    record = recorded(gate=None)
    assert record["role"] == "claim"
    for name in ("verdict", "sense", "bound", "margin", "would_pass", "reason", "source"):
        assert record[name] is None
    assert as_json(record) == record


def test_with_and_without_a_gate_the_keys_are_the_same():
    assert set(recorded()) == set(recorded(gate=None))


@pytest.mark.parametrize("sense", list(Sense))
def test_an_unusable_measurement_has_null_for_its_numbers(sense):
    gate = Gate("g", 1.5, sense)
    record = recorded(Measurement.unusable("kl", "NaN at position 7"), gate)
    assert (record["value"], record["margin"], record["would_pass"]) == (None, None, None)
    assert (record["verdict"], record["broken"], record["n"]) == ("fail", "NaN at position 7", 0)
    assert as_json(record) == record


def test_an_unusable_claim_is_null():
    record = recorded(claims=[ClaimResult(CLAIM, None, Standing.NOT_REPRODUCED)])
    assert record["claims"][0]["measured"] is None
    assert as_json(record) == record


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_row_that_is_not_finite_is_null(value):
    record = recorded(measured(rows=(Row("text 1", value),)))
    assert record["worst"]["value"] is None
    assert as_json(record) == record


@pytest.mark.parametrize("interval", [(-math.inf, math.inf), (0.0, math.inf), (-math.inf, 2.0)])
def test_an_unbounded_interval_is_json_too(interval):
    """gates.py judges such an interval; the report at the end of hours must not fall over it."""
    record = as_json(recorded(measured(interval=interval)))
    assert (record["value"], record["verdict"]) == (2.0, "inconclusive")


@pytest.mark.parametrize("number", [np.float32(2.0), np.float64(2.0)])
def test_a_numpy_number_becomes_a_plain_one(number):
    """``measurement = Measurement("ppl", losses.mean())`` is what people write in their own tests."""
    record = recorded(measured(value=number, interval=None, rows=(Row("a", number),)), Gate("g", number))
    assert as_json(record) == record
    for name in ("value", "bound", "margin", "would_pass"):
        assert type(record[name]) is float


def test_without_places_there_is_no_worst():
    record = recorded(measured(rows=()))
    assert (record["worst"], record["rows"]) == (None, [])


def test_facts_that_are_missing_are_empty():
    record = recorded(facts={})
    assert (record["device"], record["engine"]) == ("", "")


@pytest.mark.parametrize(("gate", "role"), [(Gate("g", 1.0), "required"), (Gate("g", 1.0, role=Role.CLAIM), "claim")])
def test_the_role_is_the_gates(gate, role):
    assert recorded(gate=gate)["role"] == role


# ---------------------------------------------------------------- JUnit properties


def props(**more):
    return dict(properties(recorded(**more), FACTS))


def test_properties_say_everything_as_text():
    claims = [ClaimResult(CLAIM, 0.5, Standing.REPRODUCED), ClaimResult(CLAIM, 0.5, Standing.CONTRADICTED)]
    found = props(claims=claims, labels=["CPU", "STAND-IN"])
    assert found == {
        "npuconf.check": "kl.noise_ratio.bf16_fp32",
        "npuconf.metric": "kl.noise_ratio",
        "npuconf.value": "2.0",
        "npuconf.broken": "",
        "npuconf.unit": "x",
        "npuconf.n": "6 documents",
        "npuconf.interval": "1.75 2.25",
        "npuconf.bound": "<= 1.5",
        "npuconf.margin": "-0.75",
        "npuconf.would_pass": "2.25",
        "npuconf.verdict": "fail",
        "npuconf.role": "required",
        "npuconf.model": "m",
        "npuconf.device": "npu",
        "npuconf.precision": "bfloat16",
        "npuconf.reference": "cpu float32",
        "npuconf.reference_source": "live",
        "npuconf.labels": "CPU,STAND-IN",
        "npuconf.worst": "text 2: 3.0",
        "npuconf.guilty": "",
        "npuconf.claims": "c: reproduced; c: contradicted",
        "npuconf.session.device": "npu",
        "npuconf.session.engine": "transformers",
        "npuconf.session.torch": "2.9.0",
    }


def test_each_property_appears_once_and_is_text():
    found = properties(recorded(), FACTS)
    assert len(dict(found)) == len(found)
    assert all(isinstance(name, str) and isinstance(value, str) for name, value in found)


def test_a_check_without_a_gate_has_the_verdict_none():
    found = props(gate=None)
    assert (found["npuconf.verdict"], found["npuconf.bound"]) == ("none", "")
    assert (found["npuconf.margin"], found["npuconf.would_pass"], found["npuconf.role"]) == ("", "", "claim")


def test_an_unusable_measurement_has_empty_numbers():
    found = props(measurement=Measurement.unusable("kl", "NaN"))
    assert [found[f"npuconf.{name}"] for name in ("value", "margin", "would_pass", "interval", "worst")] == [""] * 5
    assert found["npuconf.verdict"] == "fail"


def test_an_unusable_measurement_says_why_in_the_properties():
    found = props(measurement=Measurement.unusable("kl", "NaN at position 7"))
    assert "NaN at position 7" in found.values()


def test_all_digits_are_kept():
    assert props(measurement=measured(value=0.1 + 0.2, interval=None))["npuconf.value"] == "0.30000000000000004"


def test_numpy_numbers_read_as_numbers():
    found = props(measurement=measured(value=np.float64(2.0), interval=(np.float64(1.5), np.float64(2.5))))
    assert (float(found["npuconf.value"]), float(found["npuconf.margin"])) == (2.0, -1.0)
    assert [float(x) for x in found["npuconf.interval"].split()] == [1.5, 2.5]
