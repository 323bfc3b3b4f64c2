"""The wheel carries suites and cards, and gives the same test ids from an empty folder as the checkout."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from pytest_npuconf.cards import find_card
from pytest_npuconf.checks import CHECKS

ROOT = Path(__file__).resolve().parents[2]
MODEL = "smollm2-135m-instruct"
COLLECT = ("--model", MODEL, "--collect-only", "-q", "-p", "no:cacheprovider")


def cases() -> int:
    """How many tests the suites have for the card: one for each check that it gives something to, and each pair."""
    card = find_card(MODEL)
    mine = [check for check in CHECKS.values() if check.given(card) and check.answered_by("transformers")]
    return sum(len(check.ids(card.precisions)) for check in mine)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return next(out.glob("*.whl"))


def test_the_wheel_carries_what_a_run_needs_and_no_caches(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    data = [name for name in names if name.startswith("pytest_npuconf/_data/")]
    for wanted in (
        "suites/precision/test_logits.py",
        "suites/tasks/test_samples.py",
        "suites/audit/test_environment.py",
        "suites/audit/test_documents.py",
        "baselines/mem-agent/card.toml",
        "baselines/tiny-qwen3/README.md",
        "fixtures/tiny-qwen3-reranker/model.safetensors",
        "fixtures/tiny-qwen3-reranker/score_template.jinja",
        "baselines/smollm2-135m-instruct/README.md",
        "fixtures/documents/documents-en.toml",
        "fixtures/documents/documents-zh.toml",
        "fixtures/documents/documents-code.toml",
        "fixtures/prompts/precision.toml",
    ):
        assert f"pytest_npuconf/_data/{wanted}" in data
    assert "pytest_npuconf/report/results.schema.json" in names
    assert "pytest_npuconf/py.typed" in names
    assert not [name for name in names if "__pycache__" in name or name.startswith("tests/")]


def test_the_same_ids_from_the_wheel_and_the_checkout(wheel, pytester, monkeypatch):
    site = pytester.mkdir("site")
    zipfile.ZipFile(wheel).extractall(site)
    ids = {}
    for name, path, folder in (("wheel", site, pytester.mkdir("empty")), ("checkout", ROOT, ROOT)):
        monkeypatch.setenv("PYTHONPATH", str(path))
        where = "import pytest_npuconf; print(pytest_npuconf.__file__)"
        found = subprocess.run([sys.executable, "-c", where], cwd=folder, capture_output=True, text=True, check=True)
        assert Path(found.stdout.strip()).is_relative_to(path)
        done = subprocess.run([sys.executable, "-m", "pytest", *COLLECT], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        ids[name] = [line for line in done.stdout.splitlines() if "::" in line]
    assert ids["wheel"] == ids["checkout"]
    assert len(ids["wheel"]) == cases()


def test_a_suite_inside_a_hidden_environment_is_collected(wheel, pytester, monkeypatch):
    """A ``.venv`` in the current folder: pytest does not look into hidden folders on its own."""
    site = pytester.mkdir(".venv")
    zipfile.ZipFile(wheel).extractall(site)
    monkeypatch.setenv("PYTHONPATH", str(site))
    done = subprocess.run([sys.executable, "-m", "pytest", *COLLECT], cwd=pytester.path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{cases()} tests collected" in done.stdout
