"""The documented cards that the audit was built on. They are not part of this repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

VARIABLE = "NPUCONF_SEEDS"
BESIDE = Path(__file__).resolve().parents[2] / "shared" / "seeds"


def seed_folder() -> Path | None:
    """The folder that NPUCONF_SEEDS names, else shared/seeds beside the checkout, else None."""
    named = os.environ.get(VARIABLE)
    if named and not Path(named).is_dir():
        raise NotADirectoryError(f"{VARIABLE} names no folder: {named}")
    folder = Path(named) if named else BESIDE
    return folder if folder.is_dir() else None


def seed_or_skip(number: str) -> Path:
    """The file of a documented card, or a skip that says what is missing."""
    folder = seed_folder()
    if folder is None:
        pytest.skip(f"seeds are not here: export {VARIABLE}=FOLDER, or lay them in shared/seeds beside the checkout")
    (path,) = folder.glob(f"{number}_*.txt")
    return path
