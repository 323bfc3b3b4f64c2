"""The parts of a card, in their order."""

from __future__ import annotations

from pytest_npuconf.report.card.precision import write_precision
from pytest_npuconf.report.card.sections import (
    write_checks,
    write_claims,
    write_command,
    write_environment,
    write_limits,
    write_method,
    write_model,
    write_samples,
    write_title,
    write_verdict,
)
from pytest_npuconf.report.card.speed import write_speed
from pytest_npuconf.report.card.writer import Writer
from pytest_npuconf.report.run import Run

_PARTS = (
    write_title,
    write_verdict,
    write_environment,
    write_model,
    write_method,
    write_precision,
    write_checks,
    write_samples,
    write_speed,
    write_claims,
    write_limits,
    write_command,
)


def compose(found: Run, language: str) -> str:
    """The card as Markdown."""
    page = Writer(found, language)
    for write in _PARTS:
        write(page)
    return page.text
