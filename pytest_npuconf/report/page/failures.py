"""What failed, in the order of causes, and what to do first."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_npuconf.gates import Sense, format_number, format_passing
from pytest_npuconf.records import Record, settling
from pytest_npuconf.report.page import advice
from pytest_npuconf.report.page.lines import Line
from pytest_npuconf.report.run import Run, name_of

_VALUED = ("--npuconf-results", "--npuconf-report", "--junitxml", "--junit-xml", "--html", "-k", "-m", "--deselect")
_SWITCHES = ("--npuconf-record", "--lf", "--last-failed", "--ff", "-x")


@dataclass(frozen=True)
class Failure:
    """A check that did not pass: what it says, where, and what to do first."""

    line: Line
    guilty: str
    places: tuple[str, ...]
    notes: tuple[str, ...]
    would_pass: str
    then: str
    command: str


def failures_of(run: Run, lines: Sequence[Line]) -> list[Failure]:
    """Those that decide first; of them the one that names a module, then ``logits.finite``, whose failure explains unusable outputs
    elsewhere, then failed before inconclusive."""
    bad = [line for line in lines if line.record is not None and line.word in ("fail", "inconclusive")]

    def cause(line: Line) -> tuple[bool, bool, bool, bool]:
        record = line.record or {}
        finite = name_of(line.check) == "logits.finite"
        return not line.decides, not _guilty(record), not finite, line.word != "fail"

    bad.sort(key=cause)
    infinite = any(name_of(line.check) == "logits.finite" for line in bad)
    return [_failure(run, line, line.record, infinite=infinite) for line in bad if line.record is not None]


def _failure(run: Run, line: Line, record: Record, *, infinite: bool) -> Failure:
    notes = record["data"].get("notes")
    return Failure(
        line,
        _guilty(record),
        tuple(_place(row, record) for row in record["rows"][:5]),
        tuple(map(str, notes[:8])) if isinstance(notes, list) else (),
        _would_pass(record),
        _then(line, record, infinite=infinite),
        command_of(run.facts.get("command", ""), record["nodeid"]),
    )


def _guilty(record: Record) -> str:
    return str(record["data"].get("guilty") or "") if record else ""


def _place(row: Record, record: Record) -> str:
    """The value of a place of an unusable output is no figure: its detail says what is wrong there."""
    value = "not finite" if row["value"] is None else format_number(row["value"])
    detail = f" ({row['detail']})" if row["detail"] else ""
    return f"{row['place']}{detail}" if record["broken"] else f"{row['place']}: {value}{detail}"


def _would_pass(record: Record) -> str:
    stated = record["data"].get("would_have_passed")
    if stated or record["would_pass"] is None or record["sense"] is None:
        return str(stated or "")
    return f"{record['sense']} {format_passing(record['would_pass'], Sense(record['sense']))}"


def _then(line: Line, record: Record, *, infinite: bool) -> str:
    name = name_of(line.check)
    if line.word == "inconclusive":
        return f"The interval straddles the bound: {settling(record)}."
    if record["broken"] and infinite and name != "logits.finite" and not _guilty(record):
        return "Its output was not finite: begin with the checks above that say where."
    return advice.then(name)


def command_of(command: str, nodeid: str) -> str:
    """The run's command for one test alone: without what narrowed it and without the files that it wrote; empty where the run
    does not say its command."""
    try:
        words = shlex.split(command)
    except ValueError:
        return ""
    kept: list[str] = []
    dropped = False
    for word in words:
        flag = word.partition("=")[0]
        if dropped:
            dropped = False
        elif flag in _VALUED:
            dropped = "=" not in word
        elif flag in _SWITCHES or (word[:2] in ("-k", "-m") and not word.startswith("--")) or "::" in word:
            continue
        elif not word.startswith("npuconf/"):
            kept.append(word)
    return shlex.join([*kept, nodeid]) if kept else ""
