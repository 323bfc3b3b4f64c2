"""Stored references in whole runs: recorded once on a real small model, used, refused, packed, and shared by workers.

The model has 600 words, more than the compact form keeps, so that a stored reference is an estimate here as in life.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_npuconf.cli import main
from pytest_npuconf.comparison import compare
from pytest_npuconf.documents import Document, windows
from pytest_npuconf.engines.variants import REFERENCE_VARIANT
from pytest_npuconf.errors import BaselineError
from pytest_npuconf.fingerprint.readings import Fingerprint
from pytest_npuconf.options import Settings
from pytest_npuconf.plan import Extensions, Plan, equip, make_plan
from pytest_npuconf.precisions import Precision
from pytest_npuconf.progress import Progress
from pytest_npuconf.references.baseline import read_baseline
from pytest_npuconf.references.live import LiveReference
from pytest_npuconf.references.sealed import digest
from pytest_npuconf.references.shared import SharedReference
from pytest_npuconf.references.store import write_baselines
from pytest_npuconf.weights import read_checkpoint
from tests.plugin.conftest import EVERY_PHASE, PROMPTS, TEXTS, write_random_qwen3

MODEL = ("--model", "card.toml")
FLOAT32 = (*MODEL, "--npuconf-precision", "float32")
STORED = ("--npuconf-reference", "stored")
FILES = ("transformers-cpu-float32.json", "transformers-cpu-bfloat16.json")
QUICK = ("-k", "test_config")  # one check that needs no model: enough to see what the run decided at its start
INPUTS = [
    f"Line {n}: the {word} door opens at {n + 3} in the morning." for n, word in enumerate(("red", "blue", "grey"))
]


def card_of(weights: Path, name: str = "tiny", *, prompts: list[str] = PROMPTS, more: str = "") -> str:
    texts = {"logits": prompts, "hidden": INPUTS, "perplexity": TEXTS}
    return (
        f'name = "{name}"\nkind = "stand-in"\n[weights]\npath = "{weights}"\n[config]\nhidden_size = 64\n[prompts]\n'
        + "".join(f"{key} = {json.dumps(value)}\n" for key, value in texts.items())
        + more
    )


@pytest.fixture(scope="module")
def wide(tmp_path_factory) -> Path:
    """Qwen3 with 600 words of which the tokenizer knows 256."""
    return write_random_qwen3(tmp_path_factory.mktemp("wide"), 600)


@dataclasses.dataclass(frozen=True)
class Recording:
    """A live run that recorded: its exit status, what it printed, its results, and the folder for --npuconf-baselines."""

    ret: int
    out: str
    results: dict[str, Any]
    baselines: Path


@pytest.fixture(scope="module")
def recorded(wide, tmp_path_factory) -> Recording:
    """One recording for all tests of this file; a test that changes it takes ``mine``."""
    folder: Path = tmp_path_factory.mktemp("recording")
    (folder / "card.toml").write_text(card_of(wide))
    (folder / "conftest.py").write_text(EVERY_PHASE)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("NPUCONF", "PYTEST"))}
    environment |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "NPUCONF_CACHE": str(folder / "cache")}
    words = [
        "-p",
        "no:cacheprovider",
        *MODEL,
        "--npuconf-record",
        "--npuconf-baselines",
        "B",
        "--npuconf-results",
        "r.json",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        cwd=folder,
        env=environment,
        text=True,
        capture_output=True,
        timeout=600,
    )
    assert (folder / "r.json").is_file(), done.stdout + done.stderr
    return Recording(done.returncode, done.stdout, json.loads((folder / "r.json").read_text()), folder / "B")


@pytest.fixture
def mine(recorded, tmp_path) -> Path:
    """A copy of the recording that a test may change."""
    return Path(shutil.copytree(recorded.baselines, tmp_path / "baselines"))


@pytest.fixture
def wide_copy(wide, tmp_path) -> Path:
    """A copy of the checkpoint that a test may change."""
    return Path(shutil.copytree(wide, tmp_path / "weights"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".json", ".safetensors")}


def short(path: Path) -> str:
    return str(json.loads(path.read_text())["digest"])[:12]


def results(pytester) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((pytester.path / "r.json").read_text())
    return loaded


def reseal(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps({**values, "digest": digest(values)}))


def refused(result: pytest.RunResult, *words: str) -> None:
    """Exit 4 before any test, one error with a mend."""
    err = result.stderr.str()
    assert result.ret == 4, result.stdout.str() + err
    assert err.startswith("ERROR: ")
    assert "mend: " in err
    assert "Traceback" not in err
    assert "passed" not in result.stdout.str()
    for word in words:
        assert word in err


# ---------------------------------------------------------------- recording


def test_a_recording_says_what_it_wrote_and_is_a_live_run(recorded):
    folder = recorded.baselines / "tiny"
    assert recorded.ret == 0, recorded.out
    for name in FILES:
        assert f"recorded {folder / name}: none -> {short(folder / name)}" in recorded.out
    assert "CONFORMANT: tiny on cpu" in recorded.out
    assert recorded.results["facts"]["reference"] == "cpu float32 (live)"
    assert {c["reference_source"] for c in recorded.results["checks"]} == {"live"}
    assert sorted(contents(folder)) == sorted(
        [*FILES, *(json.loads((folder / n).read_text())["arrays"]["file"] for n in FILES)]
    )


def test_a_recording_holds_statistics_provenance_and_its_own_error(recorded):
    for name in FILES:
        baseline = read_baseline(recorded.baselines / "tiny" / name)
        assert baseline.statistics["vocabulary"] == 600
        texts = baseline.statistics["texts"]
        assert len(texts) == len(TEXTS)
        assert all(text["tokens"] > 0 and text["nll"] > 0 for text in texts.values())
        for key in ("device_description", "torch", "transformers", "python", "command", "time", "npuconf"):
            assert baseline.provenance[key], key
        assert "--npuconf-record" in baseline.provenance["command"]
        fingerprint = Fingerprint.from_json(baseline.provenance["fingerprint"])
        assert fingerprint.digest() == baseline.provenance["fingerprint_digest"]
        error = baseline.statistics["compact_error"]
        assert 0.5 < error["kl_share_kept"] < 1  # a lower bound, and 600 words do not fit
        assert error["rel_l2_sum_ratio"] == pytest.approx(1, abs=0.05)
        assert error["nll_largest"] < 1e-5
        positions = sum(len(d["ids"]) for d in baseline.comparability["documents"].values())
        size = sum(a.nbytes for n, a in baseline.arrays.items() if n.startswith("logits."))
        assert size / positions <= 2500


def test_recorded_nll_is_that_of_the_live_run(recorded):
    checks = {c["check"]: c for c in recorded.results["checks"]}
    live = checks["ppl.delta.bf16_fp32"]["data"]["texts"]
    stored = read_baseline(recorded.baselines / "tiny" / FILES[0]).statistics["texts"]
    assert live.keys() == stored.keys()
    for name, text in stored.items():
        assert text["tokens"] == live[name]["tokens"]
        # float32 logits of another block of rows: 1e-6 a token
        assert text["nll"] == pytest.approx(live[name]["reference_nll"], rel=1e-6)


def test_the_same_recording_again_has_the_same_arrays_and_says_old_to_new(run, wide, mine):
    folder = mine / "tiny"
    before, old = contents(folder), short(folder / FILES[0])
    lost = folder / "transformers-cpu-float32.0123456789ab.safetensors"
    lost.write_bytes(b"an orphan")
    result = run(*FLOAT32, "--npuconf-record", "--npuconf-baselines", mine, card=card_of(wide))
    assert result.ret == 0
    new = short(folder / FILES[0])
    assert new != old  # its time and command differ
    result.stdout.fnmatch_lines([f"recorded {folder / FILES[0]}: {old} -> {new}"])
    after = contents(folder)
    assert {n: b for n, b in after.items() if n != FILES[0]} == {n: b for n, b in before.items() if n != FILES[0]}
    assert not lost.exists()
    again, first = (json.loads(side[FILES[0]]) for side in (after, before))
    for field in ("comparability", "arrays", "noise", "statistics"):
        assert again[field] == first[field], field


@pytest.mark.parametrize("kind", ["failed", "subset"])
def test_a_run_that_is_not_conformant_records_nothing_and_says_so(run, wide, mine, kind):
    """A failed check: the card states another hidden size than the checkpoint has."""
    before = contents(mine / "tiny")
    card = card_of(wide).replace("hidden_size = 64", "hidden_size = 65") if kind == "failed" else card_of(wide)
    narrowed = ("-k", "finite") if kind == "subset" else ()
    result = run(*FLOAT32, "--npuconf-record", "--npuconf-baselines", mine, *narrowed, card=card)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "tiny: not recorded: only a CONFORMANT run records a reference",
            "SUBSET: *" if narrowed else "NOT CONFORMANT: *",
        ]
    )
    result.stdout.no_fnmatch_line("recorded *")
    assert contents(mine / "tiny") == before


def test_a_run_of_ones_own_tests_records_nothing_and_says_so(run, wide, mine, pytester):
    pytester.makepyfile(test_mine="def test_mine(npu_card):\n    assert npu_card.name == 'tiny'\n")
    before = contents(mine / "tiny")
    result = run(*FLOAT32, "--npuconf-record", "--npuconf-baselines", mine, "test_mine.py", card=card_of(wide))
    assert contents(mine / "tiny") == before
    result.stdout.fnmatch_lines(["*not recorded*"])


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--npuconf-fault", "dead-weight-row"), ["--npuconf-fault dead-weight-row"]),
        (("--npuconf-fault", "benign-split-k"), ["--npuconf-fault benign-split-k"]),
        (("-n", "2"), ["-n"]),
        (STORED, ["live"]),
    ],
)
def test_recording_is_refused_where_it_would_be_no_reference(run, wide, mine, more, words):
    before = contents(mine / "tiny")
    result = run(*MODEL, "--npuconf-record", "--npuconf-baselines", mine, *more, card=card_of(wide))
    refused(result, "--npuconf-record", *words)
    assert contents(mine / "tiny") == before


def test_recording_is_refused_in_ci(run, wide, mine, monkeypatch):
    monkeypatch.setenv("CI", "1")
    before = contents(mine / "tiny")
    refused(
        run(*MODEL, "--npuconf-record", "--npuconf-baselines", mine, card=card_of(wide)), "CI=1", "--npuconf-record"
    )
    assert contents(mine / "tiny") == before


# ---------------------------------------------------------------- handed from run to run


def test_a_shared_reference_has_the_noise_and_the_words_of_a_live_one(wide):
    checkpoint, pair = read_checkpoint(wide, "here", "get it again"), Precision("bfloat16", "float32")
    rng = np.random.default_rng(5)
    documents = [
        Document(f"d{n}", "document", "", tuple(map(int, rng.integers(0, 256, n))), windows(n)) for n in (48, 257)
    ]
    live = LiveReference(checkpoint, Settings(), Progress())
    shared = SharedReference(checkpoint, Settings(), (), documents)
    first = live.yardstick(pair)[REFERENCE_VARIANT.name]
    found = compare(
        documents, first, lambda d: live.forward(pair, d), live.yardstick(pair), words=lambda d: live.words(pair, d)
    ).noise
    kept = shared.noise(pair)
    assert [gaps.size for gaps in kept.rest_gap] == [len(d.rest_positions) for d in documents]
    for mine, theirs in zip(kept.rest_gap, found.rest_gap, strict=True):
        assert mine.min() > 0
        assert mine.tolist() == theirs.tolist()
    for d in documents:
        assert shared.words(pair, d) is shared.words(pair, d)
        assert shared.words(pair, d).ids.tolist() == live.words(pair, d).ids.tolist()
    live.close(), shared.close()


# ---------------------------------------------------------------- using


def test_stored_gives_the_verdicts_of_live_without_loading_the_reference(run, wide, recorded, pytester):
    pytester.makeconftest(EVERY_PHASE)
    result = run(
        *MODEL, *STORED, "--npuconf-baselines", recorded.baselines, "--npuconf-results", "r.json", "--junitxml", "j.xml",
        card=card_of(wide),
    )  # fmt: skip
    assert result.ret == 0
    out = result.stdout.str()
    assert "loading the reference" not in out
    assert "loading the reference" in recorded.out  # so that its absence says something
    for precision in ("float32", "bfloat16"):
        assert len(re.findall(rf"loading tiny, {precision} on cpu", out)) == 1
    digests = [short(recorded.baselines / "tiny" / name) for name in FILES]
    source = f"stored float32 {digests[0]}, bfloat16 {digests[1]}"
    result.stdout.fnmatch_lines(
        ["*reference: cpu float32 (stored)", "*stored reference*", f"*; reference {source}", "CONFORMANT: tiny on cpu*"]
    )
    found = results(pytester)
    assert found["facts"]["reference"] == "cpu float32 (stored)"
    assert {c["reference_source"] for c in found["checks"]} == {source}
    assert source in (pytester.path / "j.xml").read_text()
    live = {c["check"]: c for c in recorded.results["checks"]}
    stored = {c["check"]: c for c in found["checks"]}
    asked_live = {f"modules.noise_ratio.{pair}" for pair in ("fp32_fp32", "bf16_fp32")}
    assert stored.keys() == live.keys() - asked_live
    for name, check in stored.items():
        assert check["verdict"] == live[name]["verdict"], name
        close(name, check, live[name])
    tokens = [side["token.match.bf16_fp32"] for side in (stored, live)]
    assert tokens[0]["n"] == tokens[1]["n"] > 2 * stored["kl.noise_ratio.bf16_fp32"]["data"]["positions"]
    for here, there in zip(*(token["data"]["gaps"] for token in tokens), strict=True):
        assert here == pytest.approx(there, abs=1e-4)


def close(name: str, stored: dict[str, Any], live: dict[str, Any]) -> None:
    """Why these tolerances: KL of both the candidate and the noise lose the same tail, so their ratio moves by a few
    percent; distances are estimated from a sample of 192 of 408 words, 5 % at a position and less over hundreds; the
    gate is at 1.5. Recorded float32 logits come from other blocks of rows than a live run's: 1e-6, a hundredth of the
    gate. What is exact (token match, nll, hidden states, counts) may only move by that."""
    a, b = stored["value"], live["value"]
    if name.startswith(("kl.noise_ratio", "logits.rel_l2.bf16")):
        assert a == pytest.approx(b, rel=0.05), name
        for mine, theirs in zip(stored["interval"], live["interval"], strict=True):
            assert mine == pytest.approx(theirs, rel=0.1), name
    elif name.startswith(("kl.positions", "equivalence.")) and name.endswith("bf16_fp32"):
        assert a == pytest.approx(b, rel=0.4, abs=1e-9), name  # over few windows the tail that is lost weighs more
    elif name.startswith("logits.cosine"):
        assert a == pytest.approx(b, abs=2e-5), name
    else:
        assert a == pytest.approx(b, rel=1e-4, abs=2e-6), name


def test_auto_uses_what_was_installed_and_live_does_not(run, wide, recorded, tmp_path, pytester, capsys):
    """Recorded on one host, packed, installed into the cache of another, found by a plain run."""
    (tmp_path / "tiny.toml").write_text(card_of(wide))
    target = str(tmp_path / "tiny.npuconf")
    assert main(["pack", str(tmp_path / "tiny.toml"), target, "--baselines", str(recorded.baselines)]) == 0
    assert run(*FLOAT32, *QUICK, *STORED, card=card_of(wide)).ret == 4  # nothing is there yet
    assert main(["install", target]) == 0  # the fixture `run` sets NPUCONF_CACHE for this process too
    assert (tmp_path / "cache" / "references" / "tiny" / FILES[0]).is_file()
    capsys.readouterr()
    auto = run(*FLOAT32, "--npuconf-results", "r.json", card=card_of(wide))
    assert auto.ret == 0
    source = f"stored float32 {short(recorded.baselines / 'tiny' / FILES[0])}"
    auto.stdout.fnmatch_lines(["*reference: cpu float32 (stored)", f"*; reference {source}", "CONFORMANT: tiny *"])
    sources = {c["check"]: c["reference_source"] for c in results(pytester)["checks"]}
    assert sources.pop("modules.noise_ratio.fp32_fp32") == "live"
    assert set(sources.values()) == {source}
    live = run(*FLOAT32, *QUICK, "--npuconf-reference", "live", "--npuconf-results", "r.json", card=card_of(wide))
    live.stdout.fnmatch_lines(["*reference: cpu float32 (live)"])
    assert {c["reference_source"] for c in results(pytester)["checks"]} == {"live"}


@pytest.mark.parametrize(("precision", "fault"), [("float32", "dead-weight-row"), ("bfloat16", "skipped-layer")])
def test_a_fault_is_caught_against_a_stored_reference(run, wide, recorded, precision, fault):
    result = run(
        *MODEL, "--npuconf-precision", precision, *STORED, "--npuconf-fault", fault, "--npuconf-baselines",
        recorded.baselines, card=card_of(wide),
    )  # fmt: skip
    assert result.ret == 1
    result.stdout.fnmatch_lines([f"NOT CONFORMANT: tiny *FAULT {fault}*required checks failed*"])
    result.stdout.fnmatch_lines(["*FAIL logits.rel_l2.*", "*worst: *", "*next: *--npuconf-reference stored*"])


def test_a_hole_between_the_windows_is_caught_against_a_stored_reference(run, wide, recorded, pytester):
    result = run(
        *FLOAT32, *STORED, "--npuconf-fault", "hole-past-700", "-k", "test_match", "--npuconf-baselines",
        recorded.baselines, "--npuconf-results", "r.json", card=card_of(wide),
    )  # fmt: skip
    assert result.ret == 1
    (found,) = [check for check in results(pytester)["checks"] if check["check"].startswith("token.match")]
    assert found["verdict"] == "fail"
    assert 700 <= int(found["worst"]["place"].rpartition(" ")[2]) < 1009  # the last window begins there


def test_nan_weights_are_named_against_a_stored_reference(run, wide, recorded):
    result = run(
        *MODEL, *STORED, "--npuconf-fault", "nan-weight", "--npuconf-baselines", recorded.baselines, card=card_of(wide)
    )
    assert result.ret == 1
    out = result.stdout.str()
    for pair in ("fp32_fp32", "bf16_fp32", "bf16_bf16"):
        assert f"logits.finite.{pair}" in out
    result.stdout.fnmatch_lines(["*NaN in the candidate's logits at prompt 1 position 0*", "NOT CONFORMANT: tiny *"])
    result.stdout.fnmatch_lines(["*NaN in the candidate's hidden states at input 1 position 0*"])
    for word in ("Traceback", "INTERNALERROR", "RuntimeWarning", "failed outside"):
        assert word not in out


def test_one_document_that_is_not_finite_does_not_shift_the_noise_of_the_others(run, wide, recorded, pytester):
    """Noise is stored for every document: with one of them gone, no check may pair another's noise or crash."""
    pytester.makeconftest(
        """
        import torch
        from pytest_npuconf.faults.base import Fault

        def poison(model):
            seen, cached = [], [False]  # documents are passed without a cache, the ops that are watched with one
            def asked(module, args, kwargs):
                cached[0] = bool(kwargs.get("use_cache"))
            def hook(module, args, output):
                if cached[0]:
                    return output
                seen.append(None)
                return output * float("nan") if len(seen) == 2 else output
            model.base_model.register_forward_pre_hook(asked, with_kwargs=True)
            model.get_input_embeddings().register_forward_hook(hook)

        def pytest_npuconf_faults(config):
            return [Fault("second-document", "NaN in one pass", "once", "logits.finite", poison)]
        """
    )
    result = run(
        *MODEL, "--npuconf-precision", "bfloat16", *STORED, "--npuconf-fault", "second-document", "--npuconf-baselines",
        recorded.baselines, card=card_of(wide),
    )  # fmt: skip
    assert result.ret == 1
    result.stdout.fnmatch_lines(["NOT CONFORMANT: tiny *"])
    for word in ("Traceback", "INTERNALERROR", "strict", "failed outside"):
        assert word not in result.stdout.str()


def test_an_unused_baseline_is_reported(run, wide, mine):
    lost = mine / "tiny" / "transformers-cpu-float16.0123456789ab.safetensors"
    lost.write_bytes(b"an orphan")
    result = run(*FLOAT32, *QUICK, *STORED, "--npuconf-baselines", mine, card=card_of(wide))
    result.stdout.fnmatch_lines([f"unused baseline: {lost}"])
    assert lost.exists()


# ---------------------------------------------------------------- what may not be compared


def decide(card: Path, baselines: Path, reference: str, tmp_path: Path) -> tuple[Plan, list[str]]:
    """The start of a run, in this process: the plan, and what was announced."""
    settings = Settings(
        models=(str(card),), reference=reference, baselines=baselines, cache=tmp_path / "cache",
        precisions=("float32", "bfloat16"),
    )  # fmt: skip
    said: list[str] = []
    return equip(make_plan(settings, Extensions()), said.append), said


def flip_weight(weights: Path, _baselines: Path) -> None:
    path = weights / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)


def swap_letters(weights: Path, _baselines: Path) -> None:
    path = weights / "tokenizer.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    words = values["model"]["vocab"]
    words["e"], words["o"] = words["o"], words["e"]
    path.write_text(json.dumps(values))


def add_template(weights: Path, _baselines: Path) -> None:
    (weights / "chat_template.jinja").write_text("{{ messages }}")


def change_config(weights: Path, _baselines: Path) -> None:
    path = weights / "config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "rms_norm_eps": 1e-5}))


def add_generation_config(weights: Path, _baselines: Path) -> None:
    path = weights / "generation_config.json"
    values = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**values, "top_k": 7}))


def lose_bfloat16(_weights: Path, baselines: Path) -> None:
    (baselines / "tiny" / FILES[1]).unlink()


def record_for_another_model(_weights: Path, baselines: Path) -> None:
    folder = baselines / "tiny"
    write_baselines(folder, [dataclasses.replace(read_baseline(folder / name), model="giant") for name in FILES])


def another_schema(_weights: Path, baselines: Path) -> None:
    reseal(baselines / "tiny" / FILES[0], lambda values: values.update(schema_version=99))


def another_yardstick(_weights: Path, baselines: Path) -> None:
    for name in FILES:
        reseal(baselines / "tiny" / name, lambda values: values["comparability"]["yardstick"]["members"].pop())


def another_width(_weights: Path, baselines: Path) -> None:
    reseal(baselines / "tiny" / FILES[1], lambda values: values["comparability"]["compact"].update(best=64))


INCOMPARABLE = {
    flip_weight: ["weights.model.safetensors"],
    swap_letters: ["tokenizer.tokenizer.json", "documents.", ".ids"],
    add_template: ["chat_template"],
    change_config: ["config"],
    add_generation_config: ["generation_config"],
    lose_bfloat16: [FILES[1]],
    record_for_another_model: ["model (stored giant, here tiny)"],
    another_schema: ["schema_version"],
    another_yardstick: ["yardstick.members"],
    another_width: [FILES[1], "compact.best (stored 64"],
}


@pytest.mark.parametrize("change", INCOMPARABLE, ids=lambda f: f.__name__)
def test_what_is_not_comparable_is_named_and_not_used(change, wide_copy, mine, tmp_path):
    card = tmp_path / "card.toml"
    card.write_text(card_of(wide_copy))
    plan, said = decide(card, mine, "stored", tmp_path)
    assert "tiny" in plan.stored  # comparable before the change
    assert said == []
    change(wide_copy, mine)
    with pytest.raises(BaselineError) as caught:
        decide(card, mine, "stored", tmp_path)
    for word in INCOMPARABLE[change]:
        assert word in str(caught.value)
    assert caught.value.mend
    plan, said = decide(card, mine, "auto", tmp_path)
    assert plan.stored == {}
    assert plan.source("tiny") == "live"
    assert len(said) == 1
    for word in ("tiny", "live", *INCOMPARABLE[change]):
        assert word in said[0]
    plan, said = decide(card, mine, "live", tmp_path)
    assert (plan.stored, said) == ({}, [])


def test_other_prompts_of_the_card_are_named(wide, mine, tmp_path):
    card = tmp_path / "card.toml"
    card.write_text(card_of(wide, prompts=[*PROMPTS[:-1], "Another last prompt of the same card"]))
    with pytest.raises(BaselineError, match=r"documents\.prompt 4\.ids"):
        decide(card, mine, "stored", tmp_path)
    plan, said = decide(card, mine, "auto", tmp_path)
    assert plan.stored == {}
    assert "documents.prompt 4.ids" in said[0]


def test_nothing_stored_is_no_news_for_auto_and_an_error_for_stored(wide, tmp_path):
    card = tmp_path / "card.toml"
    card.write_text(card_of(wide))
    (tmp_path / "empty").mkdir()
    plan, said = decide(card, tmp_path / "empty", "auto", tmp_path)
    assert (plan.stored, said) == ({}, [])
    with pytest.raises(BaselineError, match="no stored reference that may be compared") as caught:
        decide(card, tmp_path / "empty", "stored", tmp_path)
    for place in (tmp_path / "empty" / "tiny", tmp_path / "cache" / "references" / "tiny"):
        assert str(place) in str(caught.value)


def test_what_is_not_comparable_is_a_usage_error_or_an_announced_live_run(run, wide_copy, mine):
    flip_weight(wide_copy, mine)
    card, baselines = card_of(wide_copy), ("--npuconf-baselines", mine)
    refused(
        run(*FLOAT32, *QUICK, *STORED, *baselines, card=card), "tiny: no stored reference", "weights.model.safetensors"
    )
    auto = run(*FLOAT32, *QUICK, *baselines, card=card)
    assert auto.ret == 1  # a subset
    auto.stdout.fnmatch_lines(
        ["npuconf: tiny: the reference is computed live; no stored one will do: *weights.model.safetensors (stored *"]
    )
    auto.stdout.fnmatch_lines(["*reference: cpu float32 (live)"])


def edit_a_number(folder: Path) -> None:
    path = folder / FILES[0]
    values = json.loads(path.read_text())
    values["noise"]["fp32_fp32"]["gap_sd"] *= 10
    path.write_text(json.dumps(values))


def cut_the_json(folder: Path) -> None:
    path = folder / FILES[0]
    path.write_bytes(path.read_bytes()[:1000])


def lose_the_arrays(folder: Path) -> None:
    next(folder.glob("transformers-cpu-float32.*.safetensors")).unlink()


def flip_an_array(folder: Path) -> None:
    path = next(folder.glob("transformers-cpu-float32.*.safetensors"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


DAMAGE = {edit_a_number: "digest", cut_the_json: "not JSON", lose_the_arrays: "missing", flip_an_array: "arrays.sha256"}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda f: f.__name__)
@pytest.mark.parametrize("kind", ["stored", "auto"])
def test_a_damaged_reference_is_an_error_whatever_was_asked(damage, kind, wide, mine, tmp_path):
    (tmp_path / "card.toml").write_text(card_of(wide))
    damage(mine / "tiny")
    with pytest.raises(BaselineError, match=DAMAGE[damage]) as caught:
        decide(tmp_path / "card.toml", mine, kind, tmp_path)
    assert FILES[0] in str(caught.value)


@pytest.mark.parametrize("kind", ["stored", "auto"])
def test_a_damaged_reference_is_a_usage_error(run, wide, mine, kind):
    edit_a_number(mine / "tiny")
    result = run(*FLOAT32, "--npuconf-reference", kind, "--npuconf-baselines", mine, card=card_of(wide))
    refused(result, str(mine / "tiny" / FILES[0]), "digest", "edited")


# ---------------------------------------------------------------- several models, several workers


@pytest.fixture
def two(pytester, wide, mine) -> tuple[str, ...]:
    """Arguments of a run of two models of the same weights, both with stored references, names one a prefix of the other."""
    write_baselines(
        mine / "tiny-b", [dataclasses.replace(read_baseline(mine / "tiny" / n), model="tiny-b") for n in FILES]
    )
    (pytester.path / "other.toml").write_text(card_of(wide, "tiny-b"))
    return (*STORED, "--npuconf-baselines", str(mine), "--npuconf-results", "r.json")


def outcome(data: dict[str, Any]) -> dict[str, Any]:
    """What two runs of the same thing share: everything but time and command."""
    return {"models": data["models"], "checks": data["checks"], "claims": data["claims"], "exit": data["exit_status"]}


BOTH = ("--model", "card.toml", "--model", "other.toml")


def test_each_models_weights_are_loaded_once_for_each_precision(run, wide, two, pytester):
    """Loading is minutes for a real model, and one at a time is held: the checks of a model must stand together."""
    pytester.makeconftest(EVERY_PHASE)
    result = run(*BOTH, *two, card=card_of(wide))
    assert result.ret == 0
    loads = re.findall(r"loading (\S+, \w+) on cpu", result.stdout.str())
    assert sorted(loads) == ["tiny, bfloat16", "tiny, float32", "tiny-b, bfloat16", "tiny-b, float32"]


def test_each_models_reference_is_loaded_and_recorded_once(run, wide, pytester, tmp_path):
    """The same of live references, whose passes are the most expensive part of a run."""
    pytester.makeconftest(EVERY_PHASE)
    (pytester.path / "other.toml").write_text(card_of(wide, "tiny-b"))
    result = run(*BOTH, "--npuconf-record", "--npuconf-baselines", tmp_path / "B", card=card_of(wide))
    assert result.ret == 0
    out = result.stdout.str()
    for model in ("tiny", "tiny-b"):
        for name in FILES:
            assert f"recorded {tmp_path / 'B' / model / name}: none -> {short(tmp_path / 'B' / model / name)}" in out
            assert read_baseline(tmp_path / "B" / model / name).model == model
    assert len(re.findall(r"loading the reference, float32", out)) == 2
    assert len(re.findall(r"loading the reference, bfloat16", out)) == 2
    assert len(re.findall(r"recording the reference of ", out)) == 2


def test_two_workers_share_two_models_and_change_nothing(run, wide, two, pytester):
    assert run(*BOTH, *two, card=card_of(wide)).ret == 0
    expected = outcome(results(pytester))
    shared = run(*BOTH, *two, "-n", "2", "-v", card=card_of(wide))
    assert shared.ret == 0
    assert outcome(results(pytester)) == expected
    workers: dict[str, set[str]] = {"tiny": set(), "tiny-b": set()}
    lines = re.findall(r"^\[(gw\d)\].* PASSED \S*npuconf/\S+\[(tiny-b|tiny)(?:-\w+)?\]", shared.stdout.str(), re.M)
    for worker, model in lines:
        workers[model].add(worker)
    assert len(lines) == len(expected["checks"])
    assert [len(found) for found in workers.values()] == [1, 1]
    assert workers["tiny"] != workers["tiny-b"]
    shared.stdout.fnmatch_lines(["CONFORMANT: tiny on cpu*", "CONFORMANT: tiny-b on cpu*"])


def test_the_order_of_models_changes_no_verdict(run, wide, two, pytester):
    there = run(*FLOAT32, "--model", "other.toml", *two, card=card_of(wide))
    first = results(pytester)
    back = run("--model", "other.toml", *FLOAT32, *two, card=card_of(wide))
    second = results(pytester)
    assert (there.ret, back.ret) == (0, 0)
    assert [list(x["models"]) for x in (first, second)] == [["tiny", "tiny-b"]] * 2
    assert outcome(first) == outcome(second)
