"""Bundles: what goes in, that every edit is found, and that verdicts are judged again."""

import argparse
import copy
import dataclasses
import io
import json
import os
import re
import struct
import time
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_npuconf.bundle import command, manifest, verify_command
from pytest_npuconf.bundle.archive import LARGEST, name_problem, pack, read_archive, sha256_of_bytes
from pytest_npuconf.bundle.card_again import read_rules
from pytest_npuconf.bundle.claims_again import recheck_claims
from pytest_npuconf.bundle.closing import recheck_closings, where
from pytest_npuconf.bundle.findings import BundleError, OtherVersionError, contradictions, printable
from pytest_npuconf.bundle.manifest import MANIFEST, check_manifest, installed, make_manifest
from pytest_npuconf.bundle.rejudge import rejudge
from pytest_npuconf.bundle.results_file import derived
from pytest_npuconf.bundle.verify import judge, verify
from pytest_npuconf.checks import gate_for
from pytest_npuconf.claims import evaluate
from pytest_npuconf.conformance import claims_line, close
from pytest_npuconf.devices.cpu import CpuDevice
from pytest_npuconf.engines.transformers_engine import TransformersFactory
from pytest_npuconf.errors import NpuconfError
from pytest_npuconf.fingerprint.readings import Fingerprint, Reading
from pytest_npuconf.gates import Gate, Measurement, Role, Row, Sense
from pytest_npuconf.options import Settings
from pytest_npuconf.plan import Plan
from pytest_npuconf.precisions import Precision
from pytest_npuconf.records import make_record, properties
from pytest_npuconf.report import results as results_writer
from pytest_npuconf.report.shape import misfits
from pytest_npuconf.report.strict_json import read_json
from pytest_npuconf.report.terminal import where as printed_where
from pytest_npuconf.weights import Checkpoint

DATA = Path(__file__).parents[1] / "data" / "bundle"
REQUIRED = ("logits.finite.fp32_fp32", "logits.rel_l2.fp32_fp32", "ppl.delta.fp32_fp32")
CARD = """\
name = "{name}"
[required]
transformers = ["logits.finite", "logits.rel_l2", "ppl.delta.fp32_fp32"]
[gates."ppl.delta.fp32_fp32"]
bound = 0.02
reason = "ours"
[[claims]]
id = "cosine"
documented = "cosine > 0.9999"
source = "README"
gate_stated = "> 0.9999"
gate = {{ op = ">", bound = 0.9999 }}
check = "logits.cosine.fp32_fp32"
statistic = "mean_last_position"
conditions = {{ device = "cpu" }}
[[claims]]
id = "speed"
documented = "fast"
source = "README"
[[waivers]]
check = "logits.rel_l2"
reason = "known"
link = "https://example.org/1"
expires = 2999-01-01
"""


# ---------------------------------------------------------------- results as a run writes them


def card_of(name="m"):
    data = CARD.format(name=name).encode()
    return dataclasses.replace(read_rules(data, "card.toml"), sha256=sha256_of_bytes(data))


def plan_of(*names, command_line="pytest --model m/card.toml", fault=None):
    cards = {name: card_of(name) for name in names}
    fingerprint = Fingerprint(versions=(Reading("torch", "2.9.0", "torch.__version__"),))
    return Plan(
        Settings(models=names),
        cards,
        dict.fromkeys(names, ("float32",)),
        dict.fromkeys(names, REQUIRED),
        CpuDevice(),
        TransformersFactory(),
        fault,
        {name: Checkpoint(Path(f"/w/{name}"), {}, 1, 4, "--npuconf-weights") for name in names},
        facts={
            "device": "cpu", "engine": "transformers", "npuconf": installed(), "fault": "", "command": command_line,
            "host": "昇腾", "reference": "cpu float32 (live)", "fingerprint_digest": fingerprint.digest(),
        },
        fingerprint=fingerprint,
    )  # fmt: skip


MEASURED = {
    REQUIRED[0]: Measurement.counted("logits.nonfinite", [], n=640, of="positions"),
    REQUIRED[1]: Measurement("logits.rel_l2.max", 3.1e-7, n=640, of="positions", rows=(Row("prompt 1", 3.1e-7),)),
    REQUIRED[2]: Measurement("ppl.delta", -0.001, n=6, of="texts", interval=(-0.003, 0.0007)),
    "logits.cosine.fp32_fp32": Measurement(
        "logits.cosine", 0.99999, n=29, of="positions", data={"statistics": {"mean_last_position": 0.99999}}
    ),
}


def record_of(plan, model, check, measurement, *, waived=""):
    name, _, pair = check.rpartition(".")
    pair = Precision.named(pair)
    gate = gate_for(check, pair, plan.cards[model], required=check in plan.required[model])
    facts = plan.facts | {"precision": "float32", "reference": "cpu float32"}
    claims = [
        evaluate(claim, measurement, facts | {"model": model})
        for claim in plan.cards[model].claims
        if claim.check == check
    ]
    verdict = gate.judge(measurement) if gate is not None and name != "logits.cosine" else None
    made = make_record(
        check, measurement, verdict, claims, model=model, precision="float32", reference="cpu float32",
        reference_source="live", facts=facts, labels=plan.labels(model), waived=waived,
    )  # fmt: skip
    return {"nodeid": f"npuconf/precision/test.py::test[{model}-{check}]", **made}


def own_record(plan, number=0, value=1.0):
    measurement = Measurement("own", value, interval=(value - 1, value + 1))
    verdict = Gate("mine", 3.0).judge(measurement)
    made = make_record(
        "own: mine", measurement, verdict, [], model="", precision="", reference="", facts=plan.facts, labels=[]
    )
    return {"nodeid": f"test_mine.py::test[{number}]", **made}


def results_of(
    *models, measured=None, selected=REQUIRED, errors=(), interrupted=False, status=None, waived="", plan=None, more=()
):
    plan = plan or plan_of(*(models or ("m",)))
    measured = {**MEASURED, **(measured or {})}
    records = [
        record_of(plan, model, check, one, waived=waived if check == REQUIRED[1] else "")
        for model in plan.cards
        for check, one in measured.items()
        if one is not None
    ] + list(more)
    closings = [
        close(
            model, plan.required[model], selected, records, where=printed_where(plan, model), interrupted=interrupted,
            errors=errors,
        )
        for model in plan.cards
    ]  # fmt: skip
    if status is None:
        status = 2 if interrupted else int(any(closing.status.value != "CONFORMANT" for closing in closings))
    return results_writer.build(plan, records, closings, claims_line(plan.cards.values(), records)[1], status)


def text_of(results):
    return (json.dumps(results, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def junit_of(results):
    facts = {name: value for name, value in results["facts"].items() if isinstance(value, str)}
    suite = ElementTree.Element("testsuite")
    for record in results["checks"]:
        case = ElementTree.SubElement(suite, "testcase", name=record["nodeid"])
        listed = ElementTree.SubElement(case, "properties")
        for name, value in properties(record, facts):
            ElementTree.SubElement(listed, "property", name=name, value=value)
    return ElementTree.tostring(suite)


def contents_of(results, *, junit=False, card=True):
    """The members of a bundle of these results, and a manifest that fits, whatever they say."""
    contents = {"results.json": text_of(results), **derived(results), "README.txt": b"read\n"}
    if junit:
        contents["junit.xml"] = junit if isinstance(junit, bytes) else junit_of(results)
    for model in results["models"] if card else ():
        contents[f"cards/{model}/card.toml"] = CARD.format(name=model).encode()
    contents[MANIFEST] = make_manifest(contents, results, {})
    return contents


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A run's folder: results, JUnit, a server's log, the card."""
    monkeypatch.chdir(tmp_path)
    results = results_of()
    (tmp_path / "r.json").write_bytes(text_of(results))
    (tmp_path / "j.xml").write_bytes(junit_of(results))
    (tmp_path / "server-m-bfloat16-generate.log").write_text("started\n")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "card.toml").write_text(CARD.format(name="m"), encoding="utf-8")
    return tmp_path


def npuconf(*arguments):
    """As the command does it."""
    parser = argparse.ArgumentParser(prog="npuconf")
    commands = parser.add_subparsers(required=True)
    command.add_parser(commands)
    verify_command.add_parser(commands)
    parsed = parser.parse_args([str(argument) for argument in arguments])
    return parsed.run(parsed)


def bundled(folder, *more):
    assert npuconf("bundle", folder / "r.json", "--out", folder / "b.zip", *more) == 0
    return folder / "b.zip"


def verdict_of(tmp_path, contents):
    path = tmp_path / "edited.zip"
    path.write_bytes(pack(contents))
    return verify(path)


def bad(findings):
    return [(finding.record, finding.field) for finding in contradictions(list(findings))]


# ---------------------------------------------------------------- there and back


def test_there_and_back(folder, capsys):
    (folder / "card.md").write_text("# m\n")
    path = bundled(folder, "--junit", folder / "j.xml", "--card", folder / "card.md")
    said = capsys.readouterr().out
    report = verify(path)
    assert (report.verified, report.findings) == (True, [])
    assert sorted(report.archive.contents) == [
        MANIFEST, "README.txt", "card.md", "cards/m/card.toml", "commands.txt", "fingerprint.json", "junit.xml",
        "logs/server-m-bfloat16-generate.log", "results.json",
    ]  # fmt: skip
    assert report.archive.contents["results.json"] == (folder / "r.json").read_bytes()
    assert report.archive.contents["commands.txt"] == b"pytest --model m/card.toml\n"
    assert said.splitlines()[-1] == f"sha256 {sha256_of_bytes(path.read_bytes())}"
    assert npuconf("verify", path) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[1] == said.splitlines()[-1]
    assert told[-1] == "VERIFIED: no contradictions, no notes"
    assert "cannot show" in told[-2]
    assert report.results["models"]["m"]["line"] in told


def test_json(folder, capsys):
    path = bundled(folder)
    capsys.readouterr()
    assert npuconf("verify", path, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["verified"] is True
    assert told["sha256"] == sha256_of_bytes(path.read_bytes())
    assert (told["records"], told["judged"], told["contradictions"]) == (4, 3, [])
    assert told["models"]["m"]["status"] == "CONFORMANT"


def test_the_readme_is_in_both_languages(folder):
    text = verify(bundled(folder)).archive.contents["README.txt"].decode()
    assert "npuconf verify" in text
    assert "验证" in text
    assert "CONFORMANT: m on cpu" in text


def test_the_manifest(folder):
    manifest = json.loads(verify(bundled(folder)).archive.contents[MANIFEST])
    assert (manifest["schema_version"], manifest["npuconf"]) == (1, installed())
    data = (folder / "r.json").read_bytes()
    assert manifest["members"]["results.json"] == {"bytes": len(data), "sha256": sha256_of_bytes(data)}
    assert MANIFEST not in manifest["members"]


def test_two_models(folder):
    (folder / "r.json").write_bytes(text_of(results_of("m", "n")))
    report = verify(bundled(folder))
    assert report.verified
    assert list(report.results["models"]) == ["m", "n"]
    assert list(report.manifest["not_found"]) == ["cards/n/card.toml"]  # the command names m's


# ---------------------------------------------------------------- making one


def test_the_same_files_give_the_same_bytes(folder):
    first = bundled(folder, "--junit", folder / "j.xml").read_bytes()
    os.utime(folder / "r.json", (0, 0))
    assert bundled(folder, "--junit", folder / "j.xml", "--force").read_bytes() == first


def test_no_python_lays_it_out_otherwise():
    """The layout is checked byte by byte, so it must not depend on the version of zipfile."""
    assert (
        sha256_of_bytes(pack({"b": b"two", "a/昇": b""}))
        == "9d1356ee451fc628113d4f29fe9d4f1b206a96b8c652ca3d3884964cbbcd14c3"
    )


@pytest.mark.parametrize("out", ["r.json", "j.xml", "server-m-bfloat16-generate.log"])
def test_it_is_not_written_over_what_it_is_made_of(folder, out):
    before = (folder / out).read_bytes()
    with pytest.raises(BundleError, match="one of the files that go into"):
        npuconf("bundle", folder / "r.json", "--junit", folder / "j.xml", "--out", folder / out, "--force")
    assert (folder / out).read_bytes() == before


def test_a_file_that_is_there_stays(folder):
    (folder / "b.zip").write_text("kept")
    with pytest.raises(BundleError, match="is there already") as caught:
        bundled(folder)
    assert caught.value.mend.startswith("--force")
    assert (folder / "b.zip").read_text() == "kept"
    assert verify(bundled(folder, "--force")).verified


def test_the_default_name_and_a_folder_that_is_not_there(folder):
    assert npuconf("bundle", folder / "r.json") == 0
    assert verify(folder / "r-bundle.zip").verified
    assert npuconf("bundle", folder / "r.json", "--out", folder / "new" / "deep" / "b.zip") == 0
    assert verify(folder / "new" / "deep" / "b.zip").verified


@pytest.mark.parametrize("out", [".", "j.xml/b.zip"])
def test_a_place_that_cannot_be_written(folder, out):
    with pytest.raises(BundleError) as caught:
        npuconf("bundle", folder / "r.json", "--out", folder / out)
    assert caught.value.mend.startswith("--out")


def test_a_failing_write_leaves_nothing(folder, monkeypatch):
    before = sorted(os.listdir(folder))

    def refuse(*_):
        raise OSError("no space")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(BundleError, match="no space"):
        bundled(folder)
    assert sorted(os.listdir(folder)) == before


@pytest.mark.parametrize(
    "words", [("--junit", "none.xml"), ("--log", "none.log"), ("--card", "none.md"), ("--log", "m")]
)
def test_missing_files(folder, words):
    with pytest.raises(BundleError, match="is no file"):
        bundled(folder, words[0], folder / words[1])
    with pytest.raises(BundleError, match="is no file"):
        npuconf("bundle", folder / "none.json")


def test_two_logs_of_one_name(folder):
    (folder / "deep").mkdir()
    for place in (folder / "deep", folder):
        (place / "a.log").write_text("a")
    assert bundled(folder, "--log", folder / "a.log", "--log", folder / "deep" / ".." / "a.log")  # one file
    with pytest.raises(BundleError, match=r"the bundle has a logs/a\.log already"):
        bundled(folder, "--log", folder / "a.log", "--log", folder / "deep" / "a.log", "--force")
    (folder / "deep" / "A.log").write_text("a")
    with pytest.raises(BundleError, match=r"logs/a\.log already"):
        bundled(folder, "--log", folder / "a.log", "--log", folder / "deep" / "A.log", "--force")


def test_a_log_with_a_name_that_no_other_system_could_have(folder):
    (folder / "a\\b.log").write_text("a")
    with pytest.raises(BundleError, match="backslash"):
        bundled(folder, "--log", folder / "a\\b.log")


def test_too_large(folder, monkeypatch):
    monkeypatch.setattr("pytest_npuconf.bundle.collect.LARGEST", 9_000)
    (folder / "a.log").write_text("a" * 8_000)
    with pytest.raises(BundleError, match="at most 9,000 are allowed"):
        bundled(folder, "--log", folder / "a.log")
    (folder / "a.log").write_text("a" * 9_001)
    with pytest.raises(BundleError, match="is larger than 9,000"):
        bundled(folder, "--log", folder / "a.log")


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda text: text[:-20], "is not the JSON that a run writes"),
        (lambda _: b"", "is not the JSON that a run writes"),
        (lambda text: text.replace(b"640", b"NaN", 1), "holds NaN"),
        (lambda text: text.replace(b"640", b"1e999", 1), "no finite number"),
        (lambda text: text.replace(b"640", b"1" + b"0" * 400, 1), "no finite number"),
        (lambda text: text.replace(b'"n":', b'"n": 3, "n":', 1), "the key 'n' twice"),
        (lambda text: text.replace("昇腾".encode(), b"\\ud800"), "surrogates not allowed"),
        (lambda text: text.replace("昇腾".encode(), b"\xff"), "can't decode byte"),
        (lambda _: b"[" * 100_000, "nested too deeply"),
        (
            lambda text: text.replace(b'"data": {}', b'"data": {"x": ' + b"[" * 200 + b"]" * 200 + b"}"),
            "nested too deeply",
        ),
        (lambda _: b"[]", "is list, not object"),
        (lambda _: b"{}", "schema_version is missing"),
        (lambda text: text.replace(b'"exit_status": 0', b'"exit_status": "0"'), "exit_status is str, not integer"),
        (lambda text: text.replace(b'"schema_version": 1', b'"schema_version": 2'), "schema_version is 2, this"),
        (lambda text: text.replace(b'"schema_version": 1', b'"schema_version": true'), "schema_version is true, this"),
    ],
)
def test_results_that_cannot_be_used(folder, edit, said):
    (folder / "r.json").write_bytes(edit(text_of(results_of())))
    with pytest.raises(BundleError, match=said):
        bundled(folder)
    assert not (folder / "b.zip").exists()


def test_results_that_contradict_themselves_are_not_bundled(folder):
    results = results_of()
    results["checks"][0]["verdict"] = "fail"
    (folder / "r.json").write_bytes(text_of(results))
    with pytest.raises(BundleError, match="contradicts itself"):
        bundled(folder)


def test_the_junit_of_another_run_is_not_bundled(folder):
    other = results_of(measured={REQUIRED[1]: Measurement("logits.rel_l2.max", 3.2e-7, n=640, of="positions")})
    (folder / "j.xml").write_bytes(junit_of(other))
    with pytest.raises(
        BundleError, match=r"junit\.xml: .*npuconf\.value: stored \"3\.2e-07\", recomputed \"3\.1e-07\""
    ):
        bundled(folder, "--junit", folder / "j.xml")


# ---------------------------------------------------------------- the card


def not_in_it(folder, capsys):
    path = bundled(folder)
    report = verify(path)
    assert report.verified
    assert "cards/m/card.toml" not in report.archive.contents
    said = capsys.readouterr().out
    assert report.manifest["not_found"]["cards/m/card.toml"] in said
    return said


def test_a_card_that_is_gone_is_said(folder, capsys):
    (folder / "m" / "card.toml").unlink()
    assert "NOT IN IT: cards/m/card.toml: not found: " in not_in_it(folder, capsys)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("bound = 0.02", "bound = 0.03", "stored 0.02, the bundled card has 0.03"),
        ('> 0.9999"\ngate', '> 0.99"\ngate', "gate_stated"),
        ('"cosine"', '"cos"', "claim"),
        ("bound = 0.9999 }", "bound = 0.999999 }", "standing"),
        ('"logits.rel_l2", "ppl', '"ppl', "which the card does not list"),
        ('id = "speed"\n', 'id = "speed"\ndocumented = "x"\nsource = "x"\n[[claims]]\nid = "more"\n', "not measured"),
        ("[required]", "[required", "not valid TOML"),
    ],
)
def test_a_card_that_was_changed_since_is_not_taken(folder, capsys, old, new, said):
    path = folder / "m" / "card.toml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    not_in_it(folder, capsys)
    results = json.loads((folder / "r.json").read_text(encoding="utf-8"))
    results["models"]["m"]["card_sha256"] = sha256_of_bytes(path.read_bytes())  # by who edits both
    (folder / "r.json").write_bytes(text_of(results))
    (folder / "b.zip").unlink()
    assert said in not_in_it(folder, capsys)


def test_a_card_that_is_not_of_the_hash_that_the_results_have(folder, capsys):
    results = results_of()
    assert results["models"]["m"]["card_sha256"] == sha256_of_bytes(CARD.format(name="m").encode())
    (folder / "r.json").write_bytes(text_of(results))
    assert "cards/m/card.toml" in verify(bundled(folder)).archive.contents
    with (folder / "m" / "card.toml").open("a") as file:
        file.write("# later\n")
    (folder / "b.zip").unlink()
    assert "is not the file that the run had" in not_in_it(folder, capsys)
    contents = contents_of(results, card=False) | {"cards/m/card.toml": (folder / "m" / "card.toml").read_bytes()}
    assert ("", "sha256") in bad(judge(contents).findings)


@pytest.mark.parametrize(
    "line",
    [
        "pytest --npuconf-model=m/card.toml",
        "pytest --model other.toml,m/card.toml",
        "pytest --model m --npuconf-baselines .",
    ],
)
def test_where_the_card_is_looked_for(folder, monkeypatch, line):
    (folder / "r.json").write_bytes(text_of(results_of(plan=plan_of("m", command_line=line))))
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")  # beside the results, too
    assert "cards/m/card.toml" in verify(bundled(folder)).archive.contents


# ---------------------------------------------------------------- every byte


def small():
    """One record, so that every byte of it can be edited."""
    plan = plan_of("m")
    results = results_of(measured=dict.fromkeys([*REQUIRED[1:], "logits.cosine.fp32_fp32"]), plan=plan)
    assert results["models"]["m"]["status"] == "INCOMPLETE"
    return contents_of(results, card=False)


def test_every_byte_of_the_file(tmp_path):
    """A bit of every byte of the zip: members, their headers, the directory."""
    contents = small()
    whole = pack(contents)
    path = tmp_path / "edited.zip"
    path.write_bytes(whole)
    assert not read_archive(path).findings
    for position in range(len(whole)):
        edited = bytearray(whole)
        edited[position] ^= 1 << position % 8
        path.write_bytes(edited)
        archive = read_archive(path)
        assert archive.findings or archive.contents != contents, position
        if not archive.findings:
            assert check_manifest(archive.contents)[1], position


def test_every_byte_of_every_member_in_a_zip_that_was_made_anew():
    contents = small()
    assert not check_manifest(contents)[1]
    for name, data in contents.items():
        for position in range(len(data)):
            edited = bytearray(data)
            edited[position] ^= 1 << position % 8
            try:
                findings = check_manifest(contents | {name: bytes(edited)})[1]
            except OtherVersionError:
                continue
            assert findings, (name, position)


@given(st.data())
def test_any_edit_of_the_file_is_not_verified(tmp_path_factory, data):
    tmp_path = tmp_path_factory.mktemp("any")
    whole = pack(contents_of(results_of(), junit=True))
    start = data.draw(st.integers(0, len(whole) - 1))
    stop = data.draw(st.integers(start, min(len(whole), start + 200)))
    edited = whole[:start] + data.draw(st.binary(max_size=100)) + whole[stop:]
    path = tmp_path / "edited.zip"
    path.write_bytes(edited)
    try:
        assert verify(path).verified == (edited == whole)
    except OtherVersionError:
        assert edited != whole


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99, 0.9999])
def test_a_truncated_zip(tmp_path, capsys, share):
    whole = pack(contents_of(results_of()))
    path = tmp_path / "t.zip"
    path.write_bytes(whole[: int(len(whole) * share)])
    assert npuconf("verify", path) == 1
    said = capsys.readouterr().out
    assert "CONTRADICTION: t.zip: zip: is damaged, or no zip file" in said
    assert said.endswith("NOT VERIFIED: 1 contradiction, no notes\n")


@pytest.mark.parametrize("data", [b"", b"PK", b"no zip at all" * 100, pack({}), b"\0" * 5000])
def test_not_a_bundle(tmp_path, data):
    path = tmp_path / "n.zip"
    path.write_bytes(data)
    assert not verify(path).verified
    assert npuconf("verify", path) == 1
    assert npuconf("verify", path, "--json") == 1


@pytest.mark.parametrize("place", ["none.zip", "."])
def test_no_file(tmp_path, capsys, place):
    assert npuconf("verify", tmp_path / place) == 2
    assert "is no file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda whole: whole + b"\n", "layout"),
        (lambda whole: b"#!/bin/sh\n" + whole, "layout"),
        (lambda whole: whole[:-2] + struct.pack("<H", 4) + b"more", "layout"),
    ],
)
def test_something_beside_the_members(tmp_path, edit, said):
    path = tmp_path / "b.zip"
    path.write_bytes(edit(pack(contents_of(results_of()))))
    assert said in [finding.field for finding in verify(path).findings] or not verify(path).results


# ---------------------------------------------------------------- members


def test_a_member_added_removed_edited(tmp_path):
    contents = contents_of(results_of())
    added = verdict_of(tmp_path, contents | {"extra.txt": b"x"})
    assert [str(f) for f in added.findings] == ["extra.txt: member: was added: MANIFEST.json does not list it"]
    removed = verdict_of(tmp_path, {name: data for name, data in contents.items() if name != "README.txt"})
    assert [str(f) for f in removed.findings] == ["README.txt: member: was removed: MANIFEST.json lists it"]
    edited = verdict_of(tmp_path, contents | {"README.txt": b"Read\n"})
    assert [(f.member, f.field) for f in edited.findings] == [("README.txt", "sha256")]
    longer = verdict_of(tmp_path, contents | {"README.txt": b"read.\n"})
    assert [(f.member, f.field) for f in longer.findings] == [("README.txt", "bytes"), ("README.txt", "sha256")]
    for report in (added, removed, edited, longer):
        assert not report.verified


@pytest.mark.parametrize("name", [MANIFEST, "results.json"])
def test_no_manifest_or_no_results(tmp_path, name):
    contents = contents_of(results_of())
    del contents[name]
    report = verdict_of(tmp_path, contents)
    assert not report.verified
    assert (name, "member") in [(finding.member, finding.field) for finding in report.findings]


def test_another_bundles_manifest(tmp_path):
    contents = contents_of(results_of())
    report = verdict_of(tmp_path, contents | {MANIFEST: contents_of(results_of("n"))[MANIFEST]})
    assert not report.verified
    assert {finding.member for finding in report.findings} >= {"results.json", "cards/m/card.toml"}


def test_a_manifest_that_was_laid_out_anew(tmp_path):
    contents = contents_of(results_of())
    report = verdict_of(tmp_path, contents | {MANIFEST: json.dumps(json.loads(contents[MANIFEST])).encode()})
    assert [finding.member for finding in report.findings] == [MANIFEST]


def test_a_manifest_that_speaks_of_another_run(tmp_path):
    results = results_of()
    contents = contents_of(results)
    members = {name: data for name, data in contents.items() if name != MANIFEST}
    contents[MANIFEST] = make_manifest(members, results | {"created": "2020-01-01T00:00:00+00:00"}, {})
    assert ("", "results.created") in bad(verdict_of(tmp_path, contents).findings)


@pytest.mark.parametrize(
    "entry", [{"bytes": 1}, {"bytes": "5", "sha256": 5}, {"bytes": 5, "sha256": "", "more": 1}, [], None, "x"]
)
def test_a_manifest_with_odd_entries(tmp_path, entry):
    contents = contents_of(results_of())
    values = json.loads(contents[MANIFEST])
    values["members"]["README.txt"] = entry
    whole = {key: value for key, value in values.items() if key not in ("digest", "schema_version")}
    contents[MANIFEST] = manifest._LAYOUT.to_text(whole).encode()
    assert not verdict_of(tmp_path, contents).verified


def test_another_version_of_the_manifest_or_the_results(tmp_path, capsys):
    contents = contents_of(results_of())
    path = tmp_path / "b.zip"
    later_manifest = contents[MANIFEST].replace(b'\n "schema_version": 1\n}', b'\n "schema_version": 2\n}')
    path.write_bytes(pack(contents | {MANIFEST: later_manifest}))
    later = results_of() | {"schema_version": 2}
    for data in (path.read_bytes(), pack(contents_of(later))):
        path.write_bytes(data)
        assert npuconf("verify", path) == 2
        said = capsys.readouterr().err
        assert "schema_version is 2, this pytest-npuconf reads 1" in said
        assert "mend: use the version of pytest-npuconf" in said


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("/etc/passwd", "absolute"), ("C:/x", "absolute"), ("c:x", "absolute"), ("../x", "'..'"), ("a/../../x", "'..'"),
        ("..", "'..'"), ("a\\b", "backslash"), ("a\0b", "backslash"), ("a\nb", "backslash"), ("a//b", "plain"), ("a/", "plain"),
        ("./a", "plain"), ("", "plain"), ("logs/a.log", ""), ("a..b", ""), ("日志.log", ""),
    ],
)  # fmt: skip
def test_names(name, problem):
    found = name_problem(name)
    assert (problem in found) if problem else not found


def raw_zip(path, entries):
    """Entries as anybody could write them: name, data, attributes, compression."""
    with zipfile.ZipFile(path, "w") as archive, pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *_, **__: None)  # of a name that is there twice
        for name, data, attributes, compression in entries:
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.external_attr, info.compress_type = attributes << 16, compression
            archive.writestr(info, data)


@pytest.mark.parametrize(
    ("name", "attributes", "compression", "field"),
    [
        ("../evil", 0o100644, zipfile.ZIP_STORED, "name"),
        ("/evil", 0o100644, zipfile.ZIP_STORED, "name"),
        ("logs\\evil", 0o100644, zipfile.ZIP_STORED, "name"),
        ("evil", 0o120777, zipfile.ZIP_STORED, "type"),
        ("evil", 0o060644, zipfile.ZIP_STORED, "type"),
        ("evil", 0o100644, zipfile.ZIP_DEFLATED, "size"),
        ("README.txt", 0o100644, zipfile.ZIP_STORED, "name"),
        ("ReadMe.TXT", 0o100644, zipfile.ZIP_STORED, "name"),
    ],
)
def test_members_that_no_bundle_has(tmp_path, name, attributes, compression, field):
    path = tmp_path / "b.zip"
    good = [(n, d, 0o100644, zipfile.ZIP_STORED) for n, d in contents_of(results_of()).items()]
    raw_zip(path, [*good, (name, b"evil " * 100, attributes, compression)])
    before = set(tmp_path.iterdir())
    report = verify(path)
    assert (report.verified, report.archive.contents) == (False, {})
    assert [finding.field for finding in report.findings] == [field]
    assert set(tmp_path.iterdir()) == before


def test_a_bomb_is_not_unpacked(tmp_path):
    """Ten megabytes of zeros in ten kilobytes."""
    path = tmp_path / "b.zip"
    raw_zip(path, [("results.json", b"\0" * 10_000_000, 0o100644, zipfile.ZIP_DEFLATED)])
    assert path.stat().st_size < 20_000
    report = verify(path)
    assert {finding.field for finding in report.findings} == {"size"}
    assert "is compressed or encrypted" in report.findings[0].said


def test_entries_that_share_their_bytes_are_not_read(tmp_path):
    """Many names for one stored member: more bytes than the file has."""
    path = tmp_path / "b.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo("a"), b"x" * 10_000)
        first = archive.infolist()[0]
        for number in range(50):
            again = copy.copy(first)
            again.filename = again.orig_filename = f"a{number}"
            archive.filelist.append(again)
    report = verify(path)
    assert [finding.field for finding in report.findings] == ["size"]
    assert "declare 510,000 bytes" in report.findings[0].said


def test_a_declared_size_beyond_the_limit(tmp_path):
    whole = bytearray(pack(contents_of(results_of())))
    at = whole.find(b"PK\1\2")
    whole[at + 20 : at + 28] = struct.pack("<II", LARGEST + 1, LARGEST + 1)
    path = tmp_path / "b.zip"
    path.write_bytes(whole)
    assert [finding.field for finding in verify(path).findings] == ["size"]


def test_a_file_beyond_the_limit_is_not_read(tmp_path):
    path = tmp_path / "b.zip"
    with path.open("wb") as file:
        file.truncate(LARGEST * 2)  # takes no room
    report = verify(path)
    assert (report.archive.sha256, [finding.field for finding in report.findings]) == ("", ["size"])


def test_what_a_stranger_wrote_moves_no_cursor(tmp_path, capsys):
    path = tmp_path / "b.zip"
    results = results_of()
    results["models"]["m"]["line"] = "CONFORMANT\x1b[2K\rVERIFIED"
    path.write_bytes(pack(contents_of(results)))
    assert npuconf("verify", path) == 1
    assert "\x1b" not in capsys.readouterr().out
    assert printable("a\x1b\u202e中") == "a\\x1b\\u202e中"


# ---------------------------------------------------------------- judged again


def change(**fields):
    def edit(results):
        results["checks"][0].update(fields)

    return edit


def at(check, **fields):
    def edit(results):
        next(record for record in results["checks"] if record["check"] == check).update(fields)

    return edit


def model(**fields):
    return lambda results: results["models"]["m"].update(fields)


def facts(**fields):
    return lambda results: results["facts"].update(fields)


def drop_required(results):
    entry = results["models"]["m"]
    entry["required"] = entry["required"][:-1]
    entry["line"] = entry["line"].replace("3 of 3", "2 of 2")


COSINE = "logits.cosine.fp32_fp32"
EDITS = {
    "verdict": (at(REQUIRED[0], verdict="fail"), "verdict"),
    "value without interval": (at(REQUIRED[1], value=2e-7), "margin"),
    "value over the bound": (at(REQUIRED[1], value=2e-3), "verdict"),
    "value outside its interval": (at(REQUIRED[2], value=0.5), "value"),
    "interval": (at(REQUIRED[2], interval=[-0.002, 0.0007]), "margin"),
    "interval without a bound": (at(REQUIRED[2], interval=[None, 0.0007]), "verdict"),
    "bound": (at(REQUIRED[1], bound=1.0), "margin"),
    "bound below zero": (at(REQUIRED[2], bound=-1.0), "value"),
    "sense": (at(REQUIRED[2], sense="<="), "margin"),
    "no sense": (at(REQUIRED[2], sense=None), "sense"),
    "margin": (at(REQUIRED[1], margin=0.5), "margin"),
    "would_pass": (at(REQUIRED[1], would_pass=1e-9), "would_pass"),
    "n": (at(REQUIRED[1], n=0), "value"),
    "no value": (at(REQUIRED[1], value=None), "value"),
    "broken": (at(REQUIRED[1], broken="NaN"), "verdict"),
    "worst": (at(REQUIRED[1], worst=None), "worst"),
    "role": (at(REQUIRED[1], role="claim"), "role"),
    "waived though it passes": (at(REQUIRED[1], waived="known"), "waived"),
    "model": (at(REQUIRED[1], model="other"), "model"),
    "device": (at(REQUIRED[1], device="npu"), "device"),
    "engine": (at(REQUIRED[1], engine="vllm"), "engine"),
    "labels of a record": (at(REQUIRED[1], labels=[]), "labels"),
    "precision": (at(REQUIRED[1], precision="int4"), "precision"),
    "no verdict": (at(REQUIRED[1], verdict=None), "role"),
    "a margin without a verdict": (at(COSINE, margin=1.0), "margin"),
    "a required one without a verdict": (at(COSINE, role="required"), "role"),
    "status": (model(status="INCOMPLETE"), "status"),
    "line": (model(line="CONFORMANT: all is well"), "line"),
    "missing": (model(missing=[REQUIRED[0]]), "missing"),
    "failed": (model(failed=[REQUIRED[0]]), "failed"),
    "inconclusive": (model(inconclusive=[REQUIRED[0]]), "inconclusive"),
    "waived": (model(waived=[REQUIRED[0]]), "waived"),
    "nothing required": (model(required=[]), "required"),
    "a check twice": (model(required=[*REQUIRED, REQUIRED[0]]), "required"),
    "a check less": (drop_required, "role"),
    "a check more": (model(required=[*REQUIRED, "token.ids"]), "status"),
    "labels of the model": (model(labels=[]), "labels"),
    "precisions": (model(precisions=["float32", "bfloat16"]), "line"),
    "the run's device": (facts(device="npu"), "device"),
    "the fault": (facts(fault="dead-weight-row"), "labels"),
    "the fingerprint's digest": (facts(fingerprint_digest="0" * 12), "facts.fingerprint_digest"),
    "exit status": (lambda results: results.update(exit_status=2), "interrupted"),
    "claims": (lambda results: results["claims"].update(reproduced=2), "claims.reproduced"),
    "claims not measured": (lambda results: results["claims"].update({"not measured": 0}), "claims.not measured"),
    "a claim's figure": (lambda results: results["checks"][0]["claims"][0].update(measured=1.0), "measured"),
    "a claim's standing": (lambda results: results["checks"][0]["claims"][0].update(standing="contradicted"), "standing"),
    "a claim's statistic": (lambda results: results["checks"][0]["claims"][0].update(statistic="x"), "measured"),
    "a claim's words": (lambda results: results["checks"][0]["claims"][0].update(documented="cosine > 0.9"), "documented"),
    "a claim's name": (lambda results: results["checks"][0]["claims"][0].update(id="other"), "claims"),
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_with_a_manifest_to_match_is_found(tmp_path, name):
    results = results_of()
    assert results["checks"][0]["check"] == COSINE
    before = copy.deepcopy(results)
    edit, field = EDITS[name]
    edit(results)
    assert results != before
    report = verdict_of(tmp_path, contents_of(results))
    assert not report.verified
    assert field in [finding.field for finding in contradictions(report.findings)]
    assert {finding.member for finding in contradictions(report.findings)} == {"results.json"}


def failing():
    return results_of(measured={REQUIRED[1]: Measurement("logits.rel_l2.max", 0.2, n=640, of="positions")})


def test_a_failure_whose_verdict_and_closing_were_edited(tmp_path):
    results, passing = failing(), results_of()
    assert results["models"]["m"]["status"] == "NOT CONFORMANT"
    results["models"], results["exit_status"] = passing["models"], 0
    at(REQUIRED[1], verdict="pass")(results)
    report = verdict_of(tmp_path, contents_of(results))
    found = {(f.record, f.field): (f.stored, f.recomputed) for f in contradictions(report.findings)}
    assert found[f"checks[2] {REQUIRED[1]} of m", "verdict"] == ("pass", "fail")
    assert found["models.m", "status"] == ("CONFORMANT", "NOT CONFORMANT")
    assert found["models.m", "failed"] == ([], [REQUIRED[1]])
    assert {field for _, field in found} == {"verdict", "status", "line", "failed"}


def test_a_failure_that_was_taken_out(tmp_path):
    results = failing()
    results["checks"] = [record for record in results["checks"] if record["check"] != REQUIRED[1]]
    found = bad(verdict_of(tmp_path, contents_of(results)).findings)
    assert ("models.m", "missing") in found
    assert ("models.m", "failed") in found


def test_exit_status_zero_needs_a_conformant_model(tmp_path):
    results = failing() | {"exit_status": 0}
    assert bad(verdict_of(tmp_path, contents_of(results)).findings) == [("models.m", "exit_status")]


def test_a_conformant_model_in_a_run_that_failed_elsewhere(tmp_path):
    report = verdict_of(tmp_path, contents_of(results_of(status=1)))
    assert report.verified
    assert [finding.field for finding in report.findings] == ["exit_status"]


def test_a_hidden_fault_or_device(tmp_path):
    results = results_of()
    for entry in (results["models"]["m"], *results["checks"]):
        entry["labels"] = [label for label in entry["labels"] if label != "CPU"]
    results["models"]["m"]["line"] = results["models"]["m"]["line"].replace("CPU, ", "")
    assert bad(verdict_of(tmp_path, contents_of(results)).findings) == [("models.m", "labels")]


def test_the_derived_members_are_the_results(tmp_path):
    results = results_of()
    contents = contents_of(results)
    members = contents | {"commands.txt": b"pytest\n", "fingerprint.json": b"{}\n"}
    del members[MANIFEST]
    members[MANIFEST] = make_manifest(members, results, {})
    report = verdict_of(tmp_path, members)
    assert {finding.member for finding in contradictions(report.findings)} == {"commands.txt", "fingerprint.json"}


def test_junit_finds_an_edit_that_nothing_else_does(tmp_path):
    results = results_of()
    junit = junit_of(results)
    at(REQUIRED[2], value=-0.0005)(results)
    assert verdict_of(tmp_path, contents_of(results)).verified  # within its interval
    report = verdict_of(tmp_path, contents_of(results, junit=junit))
    (finding,) = contradictions(report.findings)
    assert (finding.member, finding.field, finding.stored, finding.recomputed) == (
        "junit.xml", "npuconf.value", "-0.001", "-0.0005",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("edit", "field"),
    [
        (lambda text: text.replace(b"npuconf.session.host", b"npuconf.session.home"), "npuconf.session.home"),
        (lambda text: text[:-30], "content"),
        (lambda text: b"<!DOCTYPE x [<!ENTITY a 'b'>]>" + text, "content"),
        (lambda _: b"<testsuite/>", "testcase"),
        (lambda text: text.replace(b"<testcase", b"<other").replace(b"</testcase", b"</other"), "testcase"),
        (lambda text: text.replace(b"</testsuite>", text[text.find(b"<testcase") :]), "checks"),
        (lambda text: "\ufeff".encode("utf-16") + text, "content"),
    ],
)
def test_junit_of_something_else(tmp_path, edit, field):
    results = results_of()
    report = verdict_of(tmp_path, contents_of(results, junit=edit(junit_of(results))))
    assert field in [finding.field for finding in contradictions(report.findings)]


def test_a_check_that_ran_again_is_in_both(tmp_path):
    plan = plan_of("m")
    again = record_of(plan, "m", REQUIRED[1], dataclasses.replace(MEASURED[REQUIRED[1]], value=4e-7))
    results = results_of(plan=plan, more=[again])
    assert verdict_of(tmp_path, contents_of(results, junit=True)).verified


# ---------------------------------------------------------------- notes


def test_a_statistic_that_could_not_be_taken_is_no_contradiction():
    """A server that died has no throughput: its claim was not reproduced, and the bundle of that run is a bundle."""
    results = results_of()
    record = results["checks"][0]
    record["data"]["statistics"] = {}
    record["claims"][0].update(measured=None, standing="not reproduced")
    results["claims"] = claims_line([], results["checks"])[1] | {"not measured": results["claims"]["not measured"]}
    assert not contradictions(recheck_claims(results, {}))
    record["claims"][0]["measured"] = 1.0
    assert [finding.field for finding in contradictions(recheck_claims(results, {}))] == ["measured"]


@pytest.mark.parametrize(
    ("check", "bound", "verified", "said"),
    [
        (REQUIRED[1], 1e-3, True, "stored 0.001, the installed version has 0.0001"),
        (REQUIRED[2], 0.5, False, "stored 0.5, the bundled card has 0.02"),
    ],
)
def test_another_versions_bound_is_a_note_and_another_than_the_cards_is_not(tmp_path, check, bound, verified, said):
    results = results_of()
    record = next(one for one in results["checks"] if one["check"] == check)
    record.update(bound=bound, margin=Gate(check, bound, Sense(record["sense"])).judge(MEASURED[check]).margin)
    report = verdict_of(tmp_path, contents_of(results))
    assert report.verified is verified
    assert [finding.said for finding in report.findings] == [said]


def test_a_required_check_that_was_hidden_everywhere_is_a_note(tmp_path):
    """Out of the list, out of the count, its role and label changed: only the card, or this version's own list, knows it."""
    results = results_of()
    drop_required(results)
    label, less = "CARD REQUIRES 3 OF", "CARD REQUIRES 2 OF"
    for entry in (results["models"]["m"], *results["checks"]):
        entry["labels"] = [text.replace(label, less) for text in entry["labels"]]
    results["models"]["m"]["line"] = results["models"]["m"]["line"].replace(label, less)
    at(REQUIRED[2], role="claim")(results)
    report = verdict_of(tmp_path, contents_of(results))
    assert [str(finding) for finding in report.findings] == [
        "results.json: models.m: required: lacks ppl.delta.fp32_fp32, which the bundled card lists"
    ]
    with_junit = verdict_of(tmp_path, contents_of(results, junit=junit_of(results_of())))
    assert "npuconf.role" in [finding.field for finding in contradictions(with_junit.findings)]
    for entry in (results["models"]["m"], *results["checks"]):
        entry["labels"] = [text for text in entry["labels"] if not text.startswith("CARD REQUIRES")]
    results["models"]["m"]["line"] = re.sub(", CARD REQUIRES[^]]*", "", results["models"]["m"]["line"])
    alone = verdict_of(tmp_path, contents_of(results, card=False))
    assert "this version asks of every model" in next(f.said for f in alone.findings if f.field == "required")


def test_a_check_that_this_version_does_not_know(tmp_path):
    results = results_of()
    for check in (REQUIRED[1], COSINE):
        next(one for one in results["checks"] if one["check"] == check)["check"] = f"new.{check}"
    entry = results["models"]["m"]
    for name in ("required", "selected"):
        entry[name] = [f"new.{check}" if check == REQUIRED[1] else check for check in entry[name]]
    report = verdict_of(tmp_path, contents_of(results, card=False))
    assert report.verified
    assert "is no check of this version" in [finding.said for finding in report.findings]


def test_another_version_is_a_note(tmp_path):
    results = results_of()
    results["facts"]["npuconf"] = "0.0.1"
    report = verdict_of(tmp_path, contents_of(results))
    assert report.verified
    assert [finding.field for finding in report.findings] == ["facts.npuconf"]


def test_without_the_card_the_standings_are_not_decided(tmp_path):
    report = verdict_of(tmp_path, contents_of(results_of(), card=False))
    assert report.verified
    assert {finding.field for finding in report.findings} == {"member", "claims"}


# ---------------------------------------------------------------- runs


def waived_results():
    return results_of(
        measured={REQUIRED[1]: Measurement("logits.rel_l2.max", 0.2, n=640, of="positions")}, waived="known"
    )


RUNS = {
    "passed": lambda: results_of(),
    "failed": failing,
    "waived": waived_results,
    "inconclusive": lambda: results_of(
        measured={REQUIRED[2]: Measurement("ppl.delta", 0.01, n=6, interval=(-0.01, 0.04))}
    ),
    "unbounded": lambda: results_of(
        measured={REQUIRED[2]: Measurement("ppl.delta", 0.01, n=6, interval=(-0.01, float("inf")))}
    ),
    "unusable": lambda: results_of(
        measured={REQUIRED[1]: Measurement.unusable("x", "NaN"), COSINE: Measurement.unusable("x", "NaN")}
    ),
    "interrupted": lambda: results_of(measured={REQUIRED[2]: None}, interrupted=True),
    "interrupted, narrowed": lambda: results_of(measured={REQUIRED[2]: None}, selected=REQUIRED[:2], interrupted=True),
    "subset": lambda: results_of(measured={REQUIRED[2]: None}, selected=REQUIRED[:2]),
    "subset with an error": lambda: results_of(measured=dict.fromkeys(REQUIRED[1:]), selected=REQUIRED[:2]),
    "errors": lambda: results_of(errors=["npuconf/a.py::test[m, x]", "b", "c", "d"]),
    "nothing ran": lambda: results_of(measured=dict.fromkeys(MEASURED), selected=REQUIRED),
    "two models": lambda: results_of("m", "n", measured={REQUIRED[2]: None}, selected=REQUIRED[:2]),
    "own tests": lambda: results_of(more=[own_record(plan_of("m"), 1), own_record(plan_of("m"), 2)]),
    "no model": lambda: results_of(plan=plan_of(), more=[own_record(plan_of())]),
}


@pytest.mark.parametrize("name", RUNS)
def test_what_runs_write_is_verified(tmp_path, name):
    results = RUNS[name]()
    jsonschema.Draft202012Validator(results_writer.schema()).validate(results)
    report = verdict_of(tmp_path, contents_of(results, junit=True))
    assert bad(report.findings) == []
    assert report.verified


def test_an_interrupted_run_is_bundled_and_says_so(folder):
    (folder / "r.json").write_bytes(text_of(RUNS["interrupted"]()))
    report = verify(bundled(folder))
    assert report.verified
    line = report.results["models"]["m"]["line"]
    assert line.startswith("INCOMPLETE: m on cpu")
    assert "interrupted" in line


CHECKS = [f"c{number}" for number in range(7)]


@given(
    verdicts=st.dictionaries(st.sampled_from(CHECKS), st.sampled_from(["pass", "fail", "inconclusive", "waived"])),
    more=st.sets(st.sampled_from(CHECKS)),
    errors=st.lists(st.text("ab, .;[]", min_size=1, max_size=9), max_size=6),
    interrupted=st.booleans(),
)
def test_the_line_of_any_run_comes_out_again(verdicts, more, errors, interrupted):
    records = [
        {"check": check, "model": "m", "verdict": "fail" if v == "waived" else v, "waived": "w" if v == "waived" else "",
         "claims": []}
        for check, v in verdicts.items()
    ]  # fmt: skip
    selected = {*verdicts, *more}
    entry = {"precisions": ["float32"], "labels": ["CPU"], "required": CHECKS}
    run = {"device": "cpu", "engine": "transformers", "fault": ""}
    closing = close(
        "m", CHECKS, selected, records, where=where("m", entry, run), interrupted=interrupted, errors=errors
    )
    entry |= {"status": closing.status.value, "line": closing.line, "interrupted": interrupted}
    entry |= {"selected": list(closing.selected), "errors": list(errors)}
    entry |= {name: list(getattr(closing, name)) for name in ("missing", "failed", "inconclusive", "waived")}
    status = 0 if closing.status.value == "CONFORMANT" else 2 if interrupted else 1
    results = {"facts": run, "models": {"m": entry}, "checks": records, "exit_status": status}
    assert recheck_closings(results) == []
    for name, wrong in (("line", f"!{closing.line}"), ("failed", ["x"]), ("missing", ["x"])):
        assert bad(recheck_closings(results | {"models": {"m": entry | {name: wrong}}}))


def test_where_is_what_the_terminal_prints():
    plan = plan_of("m")
    entry = {"precisions": ["float32"], "labels": plan.labels("m")}
    assert where("m", entry, plan.facts) == printed_where(plan, "m")


finite = st.floats(allow_nan=False, allow_infinity=False, width=64)


@given(
    ends=st.lists(st.floats(allow_nan=False), min_size=3, max_size=3).map(sorted),
    whole=st.booleans(),
    bound=finite,
    sense=st.sampled_from(list(Sense)),
)
def test_any_verdict_comes_out_again(ends, whole, bound, sense):
    low, value, high = ends
    if abs(value) == float("inf"):
        value = low = high = 0.0
    measurement = Measurement("m", value, n=3, interval=(low, high) if whole else None)
    gate = Gate("own: g", abs(bound) if sense is Sense.WITHIN else bound, sense, Role.CLAIM)
    made = make_record("own: g", measurement, gate.judge(measurement), [], model="", precision="", reference="", facts={},
                       labels=[])  # fmt: skip
    run = {"facts": {}, "models": {}, "checks": [read_json(json.dumps(made).encode())]}
    assert rejudge(run) == ([], [made])
    other = {"pass": "fail", "fail": "pass", "inconclusive": "pass"}[made["verdict"]]
    findings, records = rejudge(run | {"checks": [made | {"verdict": other}]})
    assert bad(findings) == [("checks[0] own: g of no model", "verdict")]
    assert records == [made]


def test_ten_thousand_checks(tmp_path):
    plan = plan_of("m")
    results = results_of(plan=plan, more=[own_record(plan, number) for number in range(10_000)])
    contents = contents_of(results, junit=True)
    started = time.process_time()
    report = verdict_of(tmp_path, contents)
    assert report.verified
    assert time.process_time() - started < 10


def test_ten_thousand_wrong_ones(tmp_path, capsys):
    plan = plan_of("m")
    results = results_of(plan=plan, more=[own_record(plan, number) for number in range(10_000)])
    for record in results["checks"]:
        record["verdict"] = "fail" if record["verdict"] else None
    path = tmp_path / "b.zip"
    path.write_bytes(pack(contents_of(results)))
    started = time.process_time()
    assert npuconf("verify", path) == 1
    assert time.process_time() - started < 10
    assert len(capsys.readouterr().out.splitlines()) < 60


# ---------------------------------------------------------------- a real run


def test_a_real_run(tmp_path, capsys):
    """``tests/data/bundle`` is what this wrote, without the text of the failure, with one place and little data for each check:
    ``pytest --model tiny-qwen3 --npuconf-precision float32 --npuconf-fault attention-scale-2%
    -k "ppl or finite or token or cosine or config" --junitxml junit.xml --npuconf-results results.json``."""
    files = (DATA / "results.json", "--junit", DATA / "junit.xml", "--out", tmp_path / "b.zip")
    assert npuconf("bundle", *files) == 0
    report = verify(tmp_path / "b.zip")
    assert report.verified
    line = report.results["models"]["tiny-qwen3"]["line"]
    assert line.startswith("NOT CONFORMANT: tiny-qwen3 on cpu")
    assert line.endswith("1 required check failed: token.match.fp32_fp32 (SUBSET: 5 of 20 required checks)")
    assert line in capsys.readouterr().out


# ---------------------------------------------------------------- the form of results.json


def test_the_form_is_judged_as_jsonschema_does():
    schema = results_writer.schema()
    judge_of = jsonschema.Draft202012Validator(schema)
    results = RUNS["unbounded"]()
    assert list(misfits(results, schema)) == []
    odd = (None, True, 0, 1.5, -1, "x", [], {}, [1, 2], ["x"] * 11, {"x": 1}, "pass")
    count = 0
    for holder, key in places(results):
        kept = holder[key]
        for value in odd:
            holder[key] = value
            assert (not list(misfits(results, schema))) == judge_of.is_valid(results), (key, value)
            count += 1
        holder[key] = kept
        if isinstance(holder, dict):
            del holder[key]
            assert (not list(misfits(results, schema))) == judge_of.is_valid(results), key
            holder[key] = kept
    assert count > 1000


ODD = (
    None,
    True,
    0,
    1.5,
    -1,
    1e308,
    -1e308,
    10**300,
    "x",
    "",
    [],
    {},
    [1, 2],
    [None, None],
    [1e308, -1e308],
    "pass",
    "own: x",
)


def test_nothing_that_results_could_say_breaks_it():
    """Every value replaced by odd ones, with the derived members to match: judged or refused, never a crash."""
    results = RUNS["failed"]()
    junit, card = junit_of(results), CARD.format(name="m").encode()
    odd = verdicts = 0
    for holder, key in places(results):
        kept = holder[key]
        for value in ODD:
            holder[key] = value
            members = {"results.json": text_of(results), "junit.xml": junit, "cards/m/card.toml": card}
            try:
                judged = judge(members)
            except OtherVersionError:
                continue
            odd += 1
            verdicts += judged.results is not None
            assert [str(finding) for finding in judged.findings]
            json.dumps([finding.to_json() for finding in judged.findings], allow_nan=False)
        holder[key] = kept
    assert odd > 1000
    assert verdicts > 300


def places(value):
    if isinstance(value, dict):
        for key in list(value):
            yield value, key
            yield from places(value[key])
    elif isinstance(value, list):
        for number, one in enumerate(value[:2]):
            yield value, number
            yield from places(one)


def test_a_word_that_is_not_checked_is_refused():
    with pytest.raises(NotImplementedError, match="pattern"):
        list(misfits("x", {"pattern": "y"}))


def test_errors_name_what_mends_them():
    assert issubclass(BundleError, NpuconfError)
    with pytest.raises(BundleError) as caught:
        npuconf("bundle", "none.json")
    assert caught.value.mend


def test_the_zip_is_one_that_others_read():
    contents = contents_of(results_of())
    with zipfile.ZipFile(io.BytesIO(pack(contents))) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == contents
