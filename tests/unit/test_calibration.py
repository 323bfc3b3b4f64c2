"""Calibrations: the largest figure of each check, the file and its seal, what may be used, what a run says of it."""

import dataclasses
import json

import pytest

from pytest_npuconf import thresholds
from pytest_npuconf.calibration import evidence, output
from pytest_npuconf.calibration.noise import NOISE, Bound, Judged, bound_of, constant_name, pairs
from pytest_npuconf.calibration.stored import (
    FEWEST,
    Calibration,
    figures_of,
    file_name,
    read,
    to_json,
    unlike,
    write,
)
from pytest_npuconf.cards.schema import Card, GateOverride
from pytest_npuconf.checks import CHECKS
from pytest_npuconf.documents import Document
from pytest_npuconf.errors import BaselineError, OldBaselineError, SettingsError
from pytest_npuconf.gates import Gate, Measurement, Outcome, Row
from pytest_npuconf.precisions import Precision, pairs_of
from pytest_npuconf.references.sealed import digest
from pytest_npuconf.references.store import orphans, stored_files
from pytest_npuconf.stats import share_upper_bound
from tests.benchmarks.false_alarms import LENGTHS, disjoint

KL = "kl.noise_ratio.bf16_fp32"
BF16 = Precision("bfloat16", "float32")
HERE = {"device": "A CPU", "versions": {"torch": "2.13.0"}, "weights": {"model.safetensors": "77ab"}, "documents": {}}
# Checks below that no order of summation moves: what is, is exact, or is asked of whole answers.
NOT_NOISE = {"logits.finite", "model.placement", "functional.samples", "device.execution", "device.special_values"}


def judged(figure, outcome="pass", **parts):
    return Judged(figure, outcome, f"{figure} (52 documents), gate <= 1.5", parts)


def calibration(*figures, **changed):
    variants = {f"benign-{n}": {KL: judged(figure)} for n, figure in enumerate(figures or (1.0, 1.1, 1.2, 0.9, 1.05))}
    made = Calibration(
        "tiny", "transformers", "cpu", "bfloat16", HERE, {KL: judged(1.0)}, variants, {"benign-x": "does not apply"},
        figures_of(variants, {KL: Bound(1.5, "NOISE_RATIO")}), (), {"time": "now"},
    )  # fmt: skip
    return dataclasses.replace(made, **changed)


# ---------------------------------------------------------------- what is measured


def test_every_check_that_rounding_moves_is_measured():
    """A new check of a precision pair is a line in the table too, or is named above with a reason."""
    decide = {
        name for name, check in CHECKS.items() if check.per_pair and check.required and "transformers" in check.engines
    }
    assert decide - NOT_NOISE == set(NOISE)


def test_every_measured_check_has_a_constant_of_the_table():
    card = Card("tiny", None)
    for dtype in ("float32", "float16", "bfloat16"):
        for pair in pairs_of(dtype):
            for name in (n for n in NOISE if CHECKS[n].runs_at(pair)):
                bound = bound_of(name, pair, card)
                assert getattr(thresholds, bound.constant).value == bound.value


def test_only_what_the_card_requires_is_measured():
    assert list(pairs("bfloat16", (KL, "ppl.delta.bf16_bf16", "model.config"))) == [KL, "ppl.delta.bf16_bf16"]


def test_a_cards_own_bound_is_the_one_in_force_and_is_named():
    card = Card("tiny", None, gates={"kl.noise_ratio": GateOverride("kl.noise_ratio", 1.3, "why")})
    assert bound_of("kl.noise_ratio", BF16, card) == Bound(1.3, "[gates] of the card tiny")
    assert bound_of("token.match", BF16, card) == Bound(5.0, "TIE_Z")
    assert constant_name(thresholds.NOISE_RATIO) == "NOISE_RATIO"


def test_token_match_is_held_in_standard_deviations():
    take = NOISE["token.match"].figure
    data = {"tau": 2.5, "largest_excused": 1.5}
    assert take(Measurement("top1", 0.0, data=data)) == 1.5
    assert take(Measurement("top1", 1.0, rows=(Row("p", 5.0),), data=data)) == 10.0
    assert take(Measurement("top1", 1.0, rows=(Row("p", 5.0),), data={"tau": 0.0, "largest_excused": 0.0})) == 0.0


def test_a_two_sided_figure_counts_on_both_sides():
    assert NOISE["ppl.delta"].figure(Measurement("ppl", -0.02)) == 0.02


# ---------------------------------------------------------------- figures


def test_the_largest_figure_is_named_with_its_margin():
    figure = calibration().figures[KL]
    assert (figure.largest, figure.by, figure.bound, figure.constant) == (1.2, "benign-2", 1.5, "NOISE_RATIO")
    assert figure.margin == pytest.approx(1.25)


def test_a_variant_without_a_number_is_no_figure():
    variants = {"a": {KL: judged(None, "fail")}, "b": {KL: judged(0.0)}}
    assert figures_of(variants, {KL: Bound(1.5, "X")})[KL].by == "b"
    assert figures_of(variants, {KL: Bound(1.5, "X")})[KL].margin is None
    assert figures_of({"a": variants["a"]}, {KL: Bound(1.5, "X")}) == {}


# ---------------------------------------------------------------- the file


def test_a_file_comes_back_as_it_was_written(tmp_path):
    (written,) = write(tmp_path / "new", [calibration()])
    assert written.path.name == "calibration-cpu-bfloat16.json"
    assert str(written) == f"{written.path}: none -> {written.new}"
    found = read(written.path)
    assert dataclasses.replace(found, digest="") == calibration()
    assert found.digest.startswith(written.new)
    values = json.loads(written.path.read_text())
    assert list(values) == sorted(values)
    assert str(write(tmp_path / "new", [calibration()])[0]).endswith(": unchanged")
    assert [p.name for p in (tmp_path / "new").iterdir() if p.suffix == ".json"] == [written.path.name]


def test_what_is_not_finite_is_null(tmp_path):
    made = calibration(candidate={KL: judged(None, "fail", channel=float("inf"))})
    (written,) = write(tmp_path, [made])
    assert read(written.path).candidate[KL].parts == {"channel": None}


def test_a_calibration_is_no_reference(tmp_path):
    write(tmp_path, [calibration()])
    assert stored_files(tmp_path) == []
    assert orphans(tmp_path) == []


def test_a_devices_name_may_be_anything():
    assert file_name("a/b -1", "float32") == "calibration-a%2Fb%20-1-float32.json"


def change(path, **fields):
    values = json.loads(path.read_text())
    values.update(fields)
    values["digest"] = digest(values)
    path.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"figures": []}, "figures is not of its type"),
        ({"more": 1}, "more is no field of a calibration"),
        ({"device": "npu"}, "it holds calibration-npu-bfloat16.json: it was renamed"),
        ({"figures": {KL: {"largest": 1.0}}}, "a figure or variant is not whole"),
        ({"variants": {"a": {KL: 3}}}, "a figure or variant is not whole"),
    ],
)
def test_a_damaged_file_names_what_is_wrong(tmp_path, fields, problem):
    (written,) = write(tmp_path, [calibration()])
    change(written.path, **fields)
    with pytest.raises(BaselineError, match=str(written.path)) as caught:
        read(written.path)
    assert problem in caught.value.what
    assert "--npuconf-calibrate" in caught.value.mend


def test_an_edited_figure_breaks_the_seal(tmp_path):
    (written,) = write(tmp_path, [calibration()])
    written.path.write_text(written.path.read_text().replace("1.05", "1.04"))
    with pytest.raises(BaselineError, match="digest does not fit the rest: it was edited"):
        read(written.path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": true}', '{"schema_version": 1}'])
def test_what_is_no_calibration_is_refused(tmp_path, text):
    path = tmp_path / "calibration-cpu-bfloat16.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BaselineError):
        read(path)


def test_a_file_of_another_version_is_told_apart(tmp_path):
    (written,) = write(tmp_path, [calibration()])
    change(written.path, schema_version=99)
    with pytest.raises(OldBaselineError, match="schema_version is 99, this pytest-npuconf reads 1"):
        read(written.path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BaselineError, match="cannot be written"):
        write(tmp_path / "file" / "below", [calibration()])


# ---------------------------------------------------------------- comparable


def test_the_same_place_may_use_it():
    assert unlike(calibration(), "tiny", HERE) == []


@pytest.mark.parametrize(
    ("here", "said"),
    [
        ({"device": "An NPU"}, "device (stored A CPU, here An NPU)"),
        ({"versions": {"torch": "2.9.0"}}, "versions.torch (stored 2.13.0, here 2.9.0)"),
        ({"versions": {"torch": "2.13.0", "driver": "24.1"}}, "versions.driver (stored nothing, here 24.1)"),
        ({"weights": {"model.safetensors": "1f0c"}}, "weights.model.safetensors (stored 77ab, here 1f0c)"),
    ],
)
def test_another_place_is_named_by_its_field(here, said):
    assert unlike(calibration(), "tiny", {**HERE, **here}) == [said]


def test_another_model_is_named():
    assert unlike(calibration(), "other", HERE) == ["model (stored tiny, here other)"]


def test_too_few_variants_are_named():
    few = calibration(*(1.0,) * (FEWEST - 1))
    assert unlike(few, "tiny", HERE) == ["variants (stored 4, at least 5 are needed)"]


# ---------------------------------------------------------------- what a run says


def test_a_failure_says_how_far_benign_variants_go():
    measured = Measurement("kl", 3.6, n=52, interval=(3.5, 3.7), data={"notes": ["before"]})
    found = evidence.beside(measured, dataclasses.replace(calibration(), digest="1f0c" * 16), "kl.noise_ratio", BF16)
    assert found.data["calibration"] == {"largest": 1.2, "by": "benign-2", "variants": 5, "digest": "1f0c1f0c1f0c"}
    message = Gate("kl.noise_ratio", 1.5).judge(found).message()
    assert "before" in message
    assert "on this device 5 benign variants reach 1.2 at most (benign-2); this is 3 times that" in message
    assert Gate("x", 1.5).judge(found).outcome == Gate("x", 1.5).judge(measured).outcome is Outcome.FAIL


def test_a_measurement_without_a_number_has_no_multiple():
    found = evidence.beside(Measurement.unusable("kl", "NaN"), calibration(), "kl.noise_ratio", BF16)
    assert found.data["notes"] == ["calibrated: on this device 5 benign variants reach 1.2 at most (benign-2)"]


def test_a_check_that_was_not_calibrated_is_left_alone():
    measured = Measurement("top5", 0.9)
    assert evidence.beside(measured, calibration(), "token.top5", BF16) is measured


@pytest.mark.parametrize(
    ("check", "largest", "said"),
    [(KL, 0.2, True), (KL, 0.3, False), ("kl.noise_ratio.fp32_fp32", 0.0, False),
     ("kl.noise_ratio.bf16_bf16", 0.4, False), ("hidden.states.bf16_fp32", 0.4, False)],
)  # fmt: skip
def test_a_yardstick_that_rounds_more_than_the_candidate_is_a_finding(check, largest, said):
    record = {"check": check, "broken": "", "interval": [0.0, largest]}
    assert bool(evidence.findings([record, record])) is said
    assert len(evidence.findings([record, record])) == said


def test_false_alarms_and_open_verdicts_are_told_apart():
    variants = {"benign-a": {KL: judged(1.4, "inconclusive")}, "benign-b": {KL: judged(1.9, "fail")}}
    made = calibration(variants=variants, findings=("FALSE ALARM benign-b: ...", "FINDING ..."))
    assert output.false_alarms(made) == ["FALSE ALARM benign-b: ..."]
    assert [name for name, *_ in output.undecided(made)] == ["benign-a"]
    assert output.closing(made, "tiny on cpu").startswith("FALSE ALARM: tiny on cpu: 2 benign variants, 1 of them")
    assert output.closing(calibration(), "x") == "CALIBRATED: x: 5 benign variants, no false alarm"
    lines = "\n".join(output.table(made, "tiny on cpu"))
    assert "INCONCLUSIVE benign-a: kl.noise_ratio.bf16_fp32" in lines
    assert "not counted: benign-x: does not apply" in lines
    assert "FINDING" in lines


def test_json_is_the_same_for_the_same_calibration():
    assert to_json(calibration()) == to_json(calibration())


# ---------------------------------------------------------------- too few documents


@pytest.mark.parametrize(
    ("measured", "needed"),
    [
        (Measurement("kl.noise_ratio.worst_bucket", 1.6, n=6, of="windows", interval=(1.2, 2.4)), 24),
        (Measurement("kl.equivalence_ratio", 1.2, n=5, of="documents", interval=(1.2, 2.4)), 12),
    ],
)
def test_inconclusive_new_checks_name_the_number_that_would_settle_them(measured, needed):
    """``n * (half / distance)^2`` towards the bound of 2."""
    verdict = Gate("x", 2.0).judge(measured)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.settle_n == needed
    assert f"about {needed} {measured.of} would settle it" in verdict.message()


# ---------------------------------------------------------------- false alarms on other texts


def test_draws_share_no_token_and_have_every_length():
    texts = {f"text {n}": list(range(1000 * n, 1000 * n + 900)) for n in range(6)}
    drawn = disjoint([Document(name, "document", "", (0,)) for name in texts], texts, 2)
    ids = [i for documents in drawn for d in documents for i in d.ids]
    assert len(ids) == len(set(ids)) == 2 * sum(n for lengths in LENGTHS.values() for n in lengths)
    for documents in drawn:
        assert {k: sorted(len(d.ids) for d in documents if d.kind == k) for k in LENGTHS} == {
            k: sorted(lengths) for k, lengths in LENGTHS.items()
        }
        assert len({d.name for d in documents}) == len(documents)


def test_too_few_texts_for_the_draws_are_said():
    with pytest.raises(SettingsError, match=r"9 draws need .* tokens in long enough texts; the card's have 900"):
        disjoint([Document("a", "document", "", (0,))], {"a": range(900)}, 9)


def test_none_of_many_has_an_upper_bound():
    assert share_upper_bound(0, 100) == pytest.approx(1 - 0.05 ** (1 / 100))
    assert share_upper_bound(100, 100) == 1.0
