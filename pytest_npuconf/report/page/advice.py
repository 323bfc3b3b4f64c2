"""Of each check: the question that it answers, and what to do first when it fails: advice.toml beside this file."""

from __future__ import annotations

from pathlib import Path

from pytest_npuconf.cards.toml_reader import read_toml

_ADVICE: dict[str, dict[str, str]] = read_toml(Path(__file__).with_suffix(".toml")).data


def asks(name: str) -> str:
    """The question of the check of this name; empty for somebody's own."""
    return _ADVICE.get(name, {}).get("asks", "")


def then(name: str) -> str:
    """What to do first when it fails; empty for somebody's own."""
    return _ADVICE.get(name, {}).get("then", "")


def advised() -> list[str]:
    """The checks that are known here."""
    return list(_ADVICE)
