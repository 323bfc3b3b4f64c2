"""The files that a run leaves where it was asked to: results.json and the HTML report."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_npuconf.conformance import Closing
from pytest_npuconf.errors import NpuconfError, SettingsError
from pytest_npuconf.options import Settings
from pytest_npuconf.records import Record
from pytest_npuconf.report import results

if TYPE_CHECKING:
    from pytest_npuconf.plan import Plan


def prepare(settings: Settings) -> None:
    """Before the run: what it will write can be written, and no earlier run's verdict is left in its place.

    Raises:
        SettingsError: a library of the report is missing, or a folder cannot be written.
    """
    if settings.report is not None:
        from pytest_npuconf.report.page.compose import require

        require()
        if settings.results is not None and settings.report.resolve() == settings.results.resolve():
            raise SettingsError(
                f"--npuconf-report and --npuconf-results name one file: {settings.report}", mend="give each its own"
            )
    for flag, path in (("--npuconf-results", settings.results), ("--npuconf-report", settings.report)):
        if path is not None:
            _expect_writable(flag, path)
            results.put_aside(path)


def _expect_writable(flag: str, path: Path) -> None:
    """Refuse a file that could not be written at the end, before hours of work."""
    if path.is_dir():
        raise SettingsError(f"{flag} {path} is a folder", mend=f"{flag} {path / 'FILE'}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise SettingsError(
            f"{flag} {path}: its folder cannot be written: {error}", mend="name a file in a folder you can write to"
        ) from error


def write(
    plan: Plan,
    records: list[Record],
    closings: list[Closing],
    claims: dict[str, int],
    exit_status: int,
    announce: Callable[[str], None],
) -> None:
    """results.json first: a page that cannot be written loses nothing that was measured.

    Raises:
        SettingsError: a file cannot be written.
    """
    settings = plan.settings
    if settings.results is None and settings.report is None:
        return
    document = results.build(plan, records, closings, claims, exit_status)
    if settings.results is not None:
        results.write(settings.results, document)
    if settings.report is not None:
        from pytest_npuconf.report.page.compose import compose, write_page

        try:
            text = compose((str(settings.results or "this run"), document), announce=announce)
        except NpuconfError:
            raise
        except Exception as error:  # whatever it is, the verdict must still be printed
            raise SettingsError(
                f"the report: {type(error).__name__}: {error}",
                mend="keep --npuconf-results FILE; npuconf report FILE tells more. Please report this",
            ) from error
        write_page(settings.report, text, "--npuconf-report")
