"""One locator for the shipped folders, in a wheel, an editable install and a checkout."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
FOLDERS = ("suites", "fixtures", "baselines", "docs")


def data_folder(name: str) -> Path:
    """The shipped folder ``suites``, ``fixtures``, ``baselines`` or ``docs`` (a wheel has its audit pages only).

    Raises:
        FileNotFoundError: the installation is broken.
    """
    if name not in FOLDERS:
        raise ValueError(f"{name!r} is not a shipped folder: {FOLDERS}")
    for candidate in (_PACKAGE / "_data" / name, _PACKAGE.parent / name):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(
        f"{name}/ is neither in {_PACKAGE / '_data'} nor in {_PACKAGE.parent}: reinstall pytest-npuconf"
    )
