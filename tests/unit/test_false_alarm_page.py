"""docs/false-alarms.md is made from the kept figures, and these are of the bounds in force and of the whole catalogue."""

import json

import pytest

from pytest_npuconf.calibration.run import benign
from tests.benchmarks import false_alarm_page
from tests.benchmarks.false_alarm_page import bound, page, summary

DATA = json.loads(false_alarm_page.DATA.read_text(encoding="utf-8"))


def run(draw, figure, alarms=(), inconclusive=(), variant="benign-a"):
    return {"draw": draw, "dtype": "bfloat16", "variant": variant, "alarms": list(alarms),
            "inconclusive": list(inconclusive), "figures": {"kl.noise_ratio.bf16_fp32": figure}}  # fmt: skip


def made(*runs):
    facts = {"host": "a host", "torch": "2.13.0", "chip": "not kept"}
    return summary({"model": "tiny-qwen3", "time": "2026-11-23", "facts": facts, "runs": list(runs)})


def test_the_page_is_what_the_figures_say():
    assert false_alarm_page.PAGE.read_text(encoding="utf-8") == page(DATA)


@pytest.mark.parametrize("model", DATA, ids=lambda m: m["model"])
def test_every_benign_variant_was_judged_on_every_draw_by_the_bounds_in_force(model):
    assert model["draws"] >= 5
    assert list(model["dtypes"]) == ["float32", "bfloat16"]
    assert set(model["variants"]) == {fault.name for fault in benign(())}
    for check, found in model["checks"].items():
        assert (found["bound"], found["constant"]) == bound(model["model"], check)


@pytest.mark.parametrize("model", DATA, ids=lambda m: m["model"])
def test_what_is_beyond_its_bound_is_listed(model):
    for check, found in model["checks"].items():
        beyond = found["largest"] is None or found["largest"] > found["bound"]
        open_or_alarm = found["inconclusive"] or any(check in alarm for alarm in model["alarms"])
        assert not beyond or open_or_alarm, check


def test_runs_are_counted_by_dtype_and_the_largest_figure_is_kept_with_its_place():
    found = made(run(1, 0.5), run(1, 1.6, inconclusive=["kl.noise_ratio.bf16_fp32"], variant="benign-b"), run(2, 0.7))
    assert found["dtypes"] == {"bfloat16": {"runs": 3, "alarms": 0, "inconclusive": 1}}
    assert found["variants"]["benign-a"]["runs"] == 2
    assert found["facts"] == {"host": "a host", "torch": "2.13.0"}
    check = found["checks"]["kl.noise_ratio.bf16_fp32"]
    assert (check["largest"], check["variant"], check["draw"]) == (1.6, "benign-b", 1)
    assert (check["bound"], check["constant"]) == (1.5, "NOISE_RATIO")
    text = page([found])
    assert "| tiny-qwen3 | bfloat16 | 3 | 0 | 63.2% | 1 |" in text
    assert "| kl.noise_ratio.bf16_fp32 | 1.6 | 1.5 (`NOISE_RATIO`) | 107% | benign-b, draw 1 | 1 of 3 |" in text


def test_an_alarm_and_a_figure_that_is_no_number_stand_first():
    found = made(run(1, 0.5), run(2, None, alarms=["kl.noise_ratio.bf16_fp32 = NaN"]))
    text = page([found])
    assert "- FALSE ALARM draw 2, bfloat16, benign-a: kl.noise_ratio.bf16_fp32 = NaN" in text
    assert "| kl.noise_ratio.bf16_fp32 | no number | 1.5 (`NOISE_RATIO`) | beyond | benign-a, draw 2 | 0 of 2 |" in text
