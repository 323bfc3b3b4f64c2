"""results.json: what it holds, by its own schema, and that it is written whole or not at all."""

import datetime
import json
import os
import stat
from pathlib import Path

import jsonschema
import pytest

from pytest_npuconf.cards.schema import Card, Claim
from pytest_npuconf.checks import required_ids
from pytest_npuconf.claims import ClaimResult, Standing
from pytest_npuconf.conformance import claims_line, close
from pytest_npuconf.devices.cpu import CpuDevice
from pytest_npuconf.engines.transformers_engine import TransformersFactory
from pytest_npuconf.errors import SettingsError
from pytest_npuconf.gates import Gate, Measurement, Row
from pytest_npuconf.options import Settings
from pytest_npuconf.plan import Plan
from pytest_npuconf.records import make_record
from pytest_npuconf.report import results
from pytest_npuconf.weights import Checkpoint

REQUIRED = ("logits.finite.fp32_fp32", "ppl.delta.fp32_fp32")
EVERY = len(required_ids(Card("m", path=None), "transformers", ("float32",)))


def plan_of(*names, kind="model"):
    cards = {n: Card(n, path=None, kind=kind, claims=(Claim("c", "d", "s"),)) for n in names}
    return Plan(
        Settings(models=names),
        cards,
        dict.fromkeys(names, ("float32",)),
        dict.fromkeys(names, REQUIRED),
        CpuDevice(),
        TransformersFactory(),
        None,
        {n: Checkpoint(Path(f"/w/{n}"), {}, 1, 4, "--npuconf-weights") for n in names},
        facts={"device": "cpu", "engine": "transformers", "torch": "2.9.0"},
    )


def record(check, value=0.0, *, model="m", claims=(), gate=True):
    measurement = Measurement("m", value, n=3, of="positions", interval=(value, value), rows=(Row("p", 1.0),))
    verdict = Gate(check, 1.0).judge(measurement) if gate else None
    made = make_record(
        check,
        measurement,
        verdict,
        list(claims),
        model=model,
        precision="float32",
        reference="cpu float32",
        facts={"device": "cpu", "engine": "transformers"},
        labels=["CPU"],
    )
    return {"nodeid": f"npuconf/precision/{check}[{model}]", **made}


def everything(plan, records):
    closings = [close(m, REQUIRED, REQUIRED, records, where="here") for m in plan.cards]
    return plan, records, closings, claims_line(plan.cards.values(), records)[1]


def written(path, plan=None, records=None, status=0):
    plan = plan_of("m") if plan is None else plan
    records = [record(check) for check in REQUIRED] if records is None else records
    results.write(path, results.build(*everything(plan, records), status))
    return json.loads(path.read_text(encoding="utf-8"))


def valid(data):
    jsonschema.Draft202012Validator(results.schema()).validate(data)
    return data


# ---------------------------------------------------------------- content


def test_the_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(results.schema())


def test_the_whole_file(tmp_path):
    data = valid(written(tmp_path / "r.json"))
    created = datetime.datetime.fromisoformat(data.pop("created"))
    assert created.utcoffset() == datetime.timedelta(0)
    assert [check["check"] for check in data.pop("checks")] == list(REQUIRED)
    assert data == {
        "schema_version": 1,
        "exit_status": 0,
        "facts": {
            "device": "cpu",
            "engine": "transformers",
            "torch": "2.9.0",
            "fingerprint": {"versions": {}, "device": {}, "settings_numeric": {}, "settings_speed": {}},
        },
        "models": {
            "m": {
                "status": "CONFORMANT",
                "line": "CONFORMANT: here: 2 of 2 required checks passed",
                "labels": ["CPU", f"CARD REQUIRES 2 OF {EVERY}"],
                "precisions": ["float32"],
                "weights": "/w/m",
                "weights_origin": "--npuconf-weights",
                "required": list(REQUIRED),
                "missing": [],
                "failed": [],
                "inconclusive": [],
                "waived": [],
                "selected": list(REQUIRED),
                "errors": [],
                "interrupted": False,
                "title": "",
                "card_sha256": "",
            }
        },
        "claims": {"reproduced": 0, "not reproduced": 0, "contradicted": 0, "not measured": 1},
    }


def test_a_check_is_its_record(tmp_path):
    given = record(REQUIRED[0], claims=[ClaimResult(Claim("c", "d", "s"), 1.0, Standing.REPRODUCED)])
    data = valid(written(tmp_path / "r.json", records=[given]))
    assert data["checks"] == [given]
    assert data["claims"]["reproduced"] == 1


@pytest.mark.parametrize(
    ("records", "status", "field", "names"),
    [
        ([record(REQUIRED[0], 2.0), record(REQUIRED[1])], "NOT CONFORMANT", "failed", [REQUIRED[0]]),
        ([record(REQUIRED[0])], "INCOMPLETE", "missing", [REQUIRED[1]]),
        ([], "INCOMPLETE", "missing", list(REQUIRED)),
    ],
)
def test_the_closing_is_in_it(tmp_path, records, status, field, names):
    model = valid(written(tmp_path / "r.json", records=records, status=1))["models"]["m"]
    assert (model["status"], model[field]) == (status, names)


def test_a_check_without_gate_and_an_unusable_one_fit_the_schema(tmp_path):
    broken = record(REQUIRED[0])
    unusable = Measurement.unusable("m", "NaN")
    broken |= make_record(
        REQUIRED[0], unusable, Gate("g", 1.0).judge(unusable), [], model="m", precision="", reference="", facts={}, labels=[]
    )  # fmt: skip
    data = valid(written(tmp_path / "r.json", records=[broken, record("token.top5", gate=False)]))
    assert [check["verdict"] for check in data["checks"]] == ["fail", None]


def test_the_order_of_the_records_does_not_matter(tmp_path):
    records = [record(check, model=model) for model in ("b", "a") for check in reversed(REQUIRED)]
    plan = plan_of("a", "b")
    one = written(tmp_path / "1.json", plan, records)
    two = written(tmp_path / "2.json", plan, records[::-1])
    assert one["checks"] == two["checks"]
    assert [(c["model"], c["check"]) for c in one["checks"]] == [(m, c) for m in ("a", "b") for c in REQUIRED]


def test_a_stand_in_says_so(tmp_path):
    data = written(tmp_path / "r.json", plan_of("m", kind="stand-in"))
    assert data["models"]["m"]["labels"] == ["CPU", "STAND-IN", f"CARD REQUIRES 2 OF {EVERY}"]


def test_text_is_utf8_and_keys_are_sorted(tmp_path):
    plan = plan_of("m")
    plan.facts["host"] = "昇腾"
    written(tmp_path / "r.json", plan)
    text = (tmp_path / "r.json").read_text(encoding="utf-8")
    assert "昇腾" in text
    assert text.endswith("}\n")
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


# ---------------------------------------------------------------- writing


@pytest.fixture
def umask():
    """The umask of the test, put back afterwards."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_mode_follows_the_umask_and_nothing_else_is_left(tmp_path, umask, mask, mode):
    umask(mask)
    written(tmp_path / "r.json")
    assert stat.S_IMODE((tmp_path / "r.json").stat().st_mode) == mode
    assert os.listdir(tmp_path) == ["r.json"]
    assert umask(mask) == mask


def test_an_older_file_is_replaced(tmp_path):
    (tmp_path / "r.json").write_text("older and longer" * 10_000)
    assert written(tmp_path / "r.json")["schema_version"] == 1
    assert os.listdir(tmp_path) == ["r.json"]


@pytest.mark.parametrize("place", ["no/such/r.json", "a-file/r.json", "a-folder"])
def test_a_place_that_cannot_be_written_is_refused(tmp_path, place):
    (tmp_path / "a-file").write_text("kept")
    (tmp_path / "a-folder").mkdir()
    path = tmp_path / place
    with pytest.raises(SettingsError) as caught:
        written(path)
    assert caught.value.what.startswith(f"{path}: ")
    assert caught.value.mend == "--npuconf-results FILE in a folder you can write to"
    assert sorted(os.listdir(tmp_path)) == ["a-file", "a-folder"]
    assert (tmp_path / "a-file").read_text() == "kept"


def test_a_folder_of_the_kernel_is_refused():
    with pytest.raises(SettingsError, match=r"^/proc/r\.json: "):
        written(Path("/proc/r.json"))


def test_a_failing_replacement_leaves_the_older_file_and_no_scratch(tmp_path, monkeypatch):
    (tmp_path / "r.json").write_text("older")

    def refuse(*_):
        raise OSError("no space")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(SettingsError, match="no space"):
        written(tmp_path / "r.json")
    assert (tmp_path / "r.json").read_text() == "older"
    assert os.listdir(tmp_path) == ["r.json"]


def test_a_number_that_json_has_not_leaves_the_older_file(tmp_path):
    (tmp_path / "r.json").write_text("older")
    bad = record(REQUIRED[0])
    bad["data"] = {"x": float("nan")}
    with pytest.raises(ValueError, match="not JSON compliant"):
        written(tmp_path / "r.json", records=[bad])
    assert (tmp_path / "r.json").read_text() == "older"
    assert os.listdir(tmp_path) == ["r.json"]
