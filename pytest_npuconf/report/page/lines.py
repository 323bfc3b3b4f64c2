"""One line of the page for each check: its word, figure, gate and room."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_npuconf.records import Record
from pytest_npuconf.report.page import advice
from pytest_npuconf.report.pictures.precision import bound_used
from pytest_npuconf.report.run import name_of
from pytest_npuconf.report.words import gate_of, measured_words, word_of

MARKS = {"pass": "✓", "fail": "✗", "inconclusive": "?", "waived": "~", "reported": "·", "did not run": "–"}
ORDER = {"fail": 0, "did not run": 1, "inconclusive": 2, "waived": 3, "pass": 4, "reported": 5}


@dataclass(frozen=True)
class Line:
    """One check: ``word`` of ``MARKS``; ``used``, the share of the bound that is used, None where there is no such share;
    ``decides``: whether the model's verdict rests on it."""

    check: str
    word: str
    measured: str
    gate: str
    used: float | None
    role: str
    decides: bool
    record: Record | None
    asks: str = ""

    @property
    def room(self) -> str:
        """What is left of the bound, as the terminal says it."""
        if self.used is not None:
            far = f"{self.used:.3g} × the bound" if self.used >= 10 else f"{100 * (self.used - 1):.0f} % over"
            return f"{100 * (1 - self.used):.0f} % left" if self.used <= 1 else far
        if self.record is not None and self.gate:
            return "no number" if self.record["value"] is None else "exact"
        return ""


def line_of(record: Record, *, decides: bool) -> Line:
    """The line of one check's record."""
    used = bound_used(record)
    return Line(
        record["check"],
        word_of(record),
        measured(record),
        gate_of(record),
        used[2] if used is not None else None,
        record["role"] if record["verdict"] else "",
        decides,
        record,
        advice.asks(name_of(record["check"])),
    )


def did_not_run(check: str, why: str) -> Line:
    """The line of a required check without a verdict."""
    return Line(check, "did not run", why, "", None, "required", True, None, advice.asks(name_of(check)))


def measured(record: Record) -> str:
    """``1.02 [0.95, 1.09] (52 documents)``, or why there is no number."""
    words, n, of = measured_words(record), record["n"], record["of"]
    usable = not record["broken"] and record["value"] is not None
    return f"{words} ({n} {of.removesuffix('s') if n == 1 else of})" if usable else words


def urgency(line: Line) -> tuple[int, float]:
    """To sort lines by: what is wrong first, then what uses most of its bound."""
    return ORDER[line.word], -(line.used if line.used is not None else -1.0)
