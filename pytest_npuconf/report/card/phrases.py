"""What a card says of its own accord, in Chinese and in English: phrases.toml beside this file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pytest_npuconf.cards.toml_reader import read_toml

_FILE = Path(__file__).with_suffix(".toml")


def _table(name: str) -> dict[str, tuple[str, str]]:
    return {key: (chinese, english) for key, (chinese, english) in _DATA[name].items()}


_DATA = read_toml(_FILE).data
WORDS, METRICS, OVERVIEW, SENTENCES = map(_table, ("words", "metrics", "overview", "sentences"))


def words(language: str, key: str, **values: object) -> str:
    """A heading, caption or cell; in both languages as ``中文 (English)``."""
    chinese, english = (text.format(**values) for text in WORDS[key])
    return _joined(language, chinese, english)


def metric(language: str, name: str) -> str:
    """What a metric is; the name itself where no words are known for it."""
    return _joined(language, *METRICS.get(name, (name, name)))


def overview(language: str, key: str) -> str:
    """The name of a row of the overview."""
    return _joined(language, *OVERVIEW[key])


def sentences(language: str, key: str, **values: object) -> list[str]:
    """A sentence, or two: first Chinese, then English."""
    chinese, english = (text.format(**values) for text in SENTENCES[key])
    return {"zh": [chinese], "en": [english]}.get(language, [chinese, english])


def meanings(labels: Sequence[str]) -> list[str]:
    """Keys of the sentences that say what these labels mean."""
    told = [f"label.{label} " for label in labels]
    return [key for key in SENTENCES if any(label.startswith(f"{key} ") for label in told)]


def _joined(language: str, chinese: str, english: str) -> str:
    if language == "zh" or chinese == english:
        return chinese
    return english if language == "en" else f"{chinese} ({english})"
