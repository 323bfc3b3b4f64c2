"""What the page shows of one model's run: plain values for the template, nothing measured anew."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_npuconf.gates import Sense, format_number, format_passing
from pytest_npuconf.records import Record
from pytest_npuconf.report.card import phrases
from pytest_npuconf.report.page import advice
from pytest_npuconf.report.pictures.precision import bound_used
from pytest_npuconf.report.run import Run, name_of

MOST_FAILURES, MOST_ROWS, MOST_SAMPLES, MOST_CLAIMS = 40, 1_000, 60, 500
LONGEST = 4_000  # characters of one text of a model
MARKS = {"pass": "✓", "fail": "✗", "inconclusive": "?", "waived": "~", "reported": "·", "did not run": "–"}
_ORDER = {"fail": 0, "did not run": 1, "inconclusive": 2, "waived": 3, "pass": 4, "reported": 5}
_OWN_FILES = ("--npuconf-results", "--npuconf-report", "--junitxml", "--junit-xml", "-k", "-m")


@dataclass(frozen=True)
class Line:
    """One check: ``word`` of ``MARKS``; ``used``, the share of the bound that is used, None where there is no such share."""

    check: str
    word: str
    group: str
    measured: str
    gate: str
    used: float | None
    role: str
    record: Record | None
    asks: str = ""

    @property
    def mark(self) -> str:
        """The word as one sign."""
        return MARKS[self.word]


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


@dataclass(frozen=True)
class Sample:
    """A conversation and the model's own answer, cut where it is very long."""

    check: str
    name: str
    messages: tuple[tuple[str, str], ...]
    text: str
    unmet: tuple[str, ...]


@dataclass(frozen=True)
class ModelView:
    """Everything that the page says of one model, but its pictures."""

    run: Run
    key: str
    headline: str
    counts: tuple[tuple[str, str, int], ...]
    labels: tuple[str, ...]
    lines: tuple[Line, ...]
    lines_total: int
    failures: tuple[Failure, ...]
    failures_total: int
    missing: tuple[str, ...]
    errors: tuple[str, ...]
    claims: tuple[Mapping[str, Any], ...]
    claims_total: int
    standings: Mapping[str, int]
    samples: tuple[Sample, ...]
    samples_total: int

    @property
    def status(self) -> str:
        """The verdict's word."""
        return str(self.run.summary["status"])


def view_of(run: Run, key: str) -> ModelView:
    """The view of one model; ``key`` is unique on the page."""
    required = run.summary["required"]
    lines = sorted((line_of(record) for record in run.checks), key=_urgency)
    missing = tuple(run.summary["missing"])
    chosen = set(run.summary["selected"])
    lines += [
        Line(
            name,
            "did not run",
            _group(name),
            "not selected" if name not in chosen else "",
            "",
            None,
            "required",
            None,
            _asks(name),
        )
        for name in missing
    ]
    lines.sort(key=lambda line: _ORDER[line.word])
    bad = [line for line in lines if line.record is not None and line.word in ("fail", "inconclusive")]
    bad.sort(key=lambda line: (line.role != "required", _ORDER[line.word], not _guilty(line.record)))
    counts = Counter(_required_words(lines, required).values())
    claims = [
        {**claim, "check": record["check"], "n": record["n"], "of": record["of"], "shown": _measured_claim(claim)}
        for record in run.checks
        for claim in record["claims"]
    ]
    claims.sort(key=lambda claim: ("contradicted", "not reproduced", "reproduced").index(claim["standing"]))
    samples = _samples(run)
    return ModelView(
        run=run,
        key=key,
        headline=_headline(run, counts, len(required)),
        counts=tuple((word, MARKS[word], counts[word]) for word in MARKS if counts[word]),
        labels=tuple(_labels(run)),
        lines=tuple(lines[:MOST_ROWS]),
        lines_total=len(lines),
        failures=tuple(_failure(run, line) for line in bad[:MOST_FAILURES]),
        failures_total=len(bad),
        missing=missing,
        errors=tuple(run.summary["errors"]),
        claims=tuple(claims[:MOST_CLAIMS]),
        claims_total=len(claims),
        standings=Counter(claim["standing"] for claim in claims),
        samples=tuple(samples[:MOST_SAMPLES]),
        samples_total=len(samples),
    )


def line_of(record: Record) -> Line:
    """The line of one check's record."""
    used = bound_used(record)
    return Line(
        record["check"],
        word_of(record),
        _group(record["check"]),
        measured(record),
        "" if record["bound"] is None else f"{record['sense']} {format_number(record['bound'])}",
        used[2] if used is not None else None,
        record["role"] if record["verdict"] else "",
        record,
        _asks(record["check"]),
    )


def word_of(record: Record) -> str:
    """Its verdict, ``waived``, or ``reported`` where it has no gate."""
    if record["waived"]:
        return "waived"
    return record["verdict"] or "reported"


def measured(record: Record) -> str:
    """``1.02 [0.95, 1.09] (52 documents)``, or why there is no number."""
    if record["broken"] or record["value"] is None:
        return record["broken"] or "no finite number"
    text = f"{format_number(record['value'])} {record['unit']}".rstrip()
    if record["interval"] is not None:
        low, high = ("unbounded" if end is None else format_number(end) for end in record["interval"])
        text += f" [{low}, {high}]"
    return f"{text} ({record['n']} {record['of']})"


def _asks(check: str) -> str:
    return advice.asks(name_of(check))


def _group(check: str) -> str:
    return "your own" if check.startswith("own: ") else check.partition(".")[0]


def _urgency(line: Line) -> tuple[int, float]:
    return _ORDER[line.word], -(line.used if line.used is not None else -1.0)


def _required_words(lines: Sequence[Line], required: Sequence[str]) -> dict[str, str]:
    """The worst word of each required check."""
    found: dict[str, str] = {}
    for line in lines:
        if line.check in required and (line.check not in found or _ORDER[line.word] < _ORDER[found[line.check]]):
            found[line.check] = line.word
    return found


def _headline(run: Run, counts: Mapping[str, int], total: int) -> str:
    """The verdict in one sentence for somebody who does not know the tool."""
    model, device = run.model, run.facts.get("device", "?")
    status = run.summary["status"]
    if status == "CONFORMANT":
        waived = f", {counts['waived']} waived" if counts["waived"] else ""
        passed = f"{counts['pass']} of {total} required checks passed{waived}"
        return f"{model} computes on {device} what its reference computes, within rounding: {passed}."
    if status == "NOT CONFORMANT":
        failed = f"{counts['fail']} of {total} required checks failed"
        return f"{model} on {device} does not compute what its reference computes: {failed}."
    if status == "SUBSET":
        ran = total - counts["did not run"]
        return f"This run was narrowed to {ran} of {total} required checks of {model}: it decides nothing."
    parts = [
        f"{counts[word]} {said}"
        for word, said in (("did not run", "did not run"), ("inconclusive", "inconclusive"))
        if counts[word]
    ]
    parts += ["the run was interrupted"] if run.summary["interrupted"] else []
    parts += [f"{len(run.summary['errors'])} ended in an error"] if run.summary["errors"] else []
    return f"Nothing is decided about {model} on {device}: {', '.join(parts) or 'the run did not end'} ({total} required checks)."


def _labels(run: Run) -> list[str]:
    known = [
        key
        for key in phrases.SENTENCES
        if any(f"label.{label} ".startswith(f"{key} ") for label in run.summary["labels"])
    ]
    return [said for key in known for said in phrases.sentences("en", key)]


def _guilty(record: Record | None) -> str:
    return str(record["data"].get("guilty") or "") if record is not None else ""


def _failure(run: Run, line: Line) -> Failure:
    record = line.record or {}
    places = tuple(
        f"{row['place']}: {'not finite' if row['value'] is None else format_number(row['value'])}"
        + (f" ({row['detail']})" if row["detail"] else "")
        for row in record["rows"][:5]
    )
    notes = record["data"].get("notes")
    passing = record["data"].get("would_have_passed") or (
        f"{record['sense']} {format_passing(record['would_pass'], Sense(record['sense']))}"
        if record["would_pass"] is not None
        else ""
    )
    return Failure(
        line,
        _guilty(record),
        places,
        tuple(map(str, notes[:8])) if isinstance(notes, list) else (),
        str(passing),
        advice.then(name_of(line.check)),
        command_of(run.facts.get("command", ""), record["nodeid"]),
    )


def command_of(command: str, nodeid: str) -> str:
    """The run's command for one test alone, without the files that it wrote; empty where the run does not say its command."""
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
        elif flag in _OWN_FILES:
            dropped = "=" not in word
        else:
            kept.append(word)
    return shlex.join([*kept, nodeid]) if kept else ""


def _measured_claim(claim: Mapping[str, Any]) -> str:
    found = claim["measured"]
    if found is None:
        return "not measurable"
    return ", ".join(map(format_number, found)) if isinstance(found, list) else format_number(found)


def _samples(run: Run) -> list[Sample]:
    """Texts of the model; a precision that answers the same is not shown twice."""
    found: dict[tuple[str, str], Sample] = {}
    for record in run.of("functional.samples", "serving.chat"):
        answers = record["data"].get("answers")
        for name, answer in answers.items() if isinstance(answers, Mapping) else ():
            if isinstance(answer, Mapping) and isinstance(answer.get("text"), str):
                found.setdefault((name, answer["text"]), _sample(record["check"], name, answer))
    return list(found.values())


def _sample(check: str, name: str, answer: Mapping[str, Any]) -> Sample:
    messages, unmet = answer.get("messages"), answer.get("unmet")
    listed = [each for each in messages if isinstance(each, Mapping)] if isinstance(messages, list) else []
    return Sample(
        check,
        name,
        tuple((str(each.get("role", "")), cut(str(each.get("content", "")))) for each in listed[:20]),
        cut(answer["text"]),
        tuple(map(str, unmet)) if isinstance(unmet, list) else (),
    )


def cut(text: str) -> str:
    """At most ``LONGEST`` characters, saying how many were left out."""
    left = len(text) - LONGEST
    return text if left <= 0 else f"{text[:LONGEST]}… ({left:,} more characters are in results.json)"
