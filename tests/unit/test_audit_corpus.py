"""The corpus of cards in tests/data/audit: planted errors are found, correct cards are left alone.

``expected.toml`` names the planted errors of each ``<name>.bad.md``; ``<name>.good.md`` is the same card corrected, and
``hard-good`` holds correct cards that invite false alarms. An error with ``missed`` is found by no rule yet, for the reason given;
the mark goes as soon as a rule finds it. The cards are written by ``generate.py``. As a program
(``python -m tests.unit.test_audit_corpus``) this module prints the table of misses and false alarms by rule.
"""

from __future__ import annotations

import datetime
import importlib.util
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path

import pytest

from pytest_npuconf.audit.findings import Level
from pytest_npuconf.audit.rules import RULES, Context
from pytest_npuconf.audit.text import read_card

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

FOLDER = Path(__file__).parent.parent / "data" / "audit"
TODAY = datetime.date(2026, 11, 22)
ERRORS = tomllib.loads((FOLDER / "expected.toml").read_text(encoding="utf-8"))["error"]
NAMES = sorted(path.name.removesuffix(".bad.md") for path in FOLDER.glob("*.bad.md"))
CORRECT = sorted([*FOLDER.glob("*.good.md"), *(FOLDER / "hard-good").glob("*.md")])
DESIGNED = {
    *("aggregate", "aggregate-switch", "overview", "repeated-quantity", "verdict-threshold", "verdict-pending"),
    *("cosine-error", "parameters", "weight-size", "kv-bytes", "kv-capacity", "head-dim", "throughput", "roofline"),
    *("sample-size", "borrowed-score", "versions", "chip-product", "cann-driver", "environment-variable"),
    *("feature-sample", "repeatability", "placeholder", "shell", "undefined-metric", "units", "gate"),
}


@cache
def audit(path):
    """Every finding about the file."""
    return [
        finding
        for card in read_card(path)
        for rule in RULES.values()
        for finding in rule.check(Context(card=card, config=None, today=TODAY))
    ]


@cache
def lines(path):
    return path.read_text(encoding="utf-8").splitlines()


def bad(name):
    return FOLDER / f"{name}.bad.md"


def quoted(error):
    """Numbers of the lines that the error may be reported on."""
    return {n for n, line in enumerate(lines(bad(error["card"])), 1) if any(q in line for q in error["quote"])}


def found(error):
    """The findings that report the error, whatever their level."""
    places = quoted(error)
    return [f for f in audit(bad(error["card"])) if f.rule in error["rule"] and f.line in places]


def is_reported(error):
    least = min(Level(error["level"]).rank, Level.UNSUPPORTED.rank)
    return any(finding.level.rank >= least for finding in found(error))


def alarms(path):
    return [finding for finding in audit(path) if finding.level.rank > Level.AMBIGUOUS.rank]


def show(path, finding):
    return f"{path.relative_to(FOLDER)}:{finding.line}: [{finding.level} {finding.rule}] {finding.quote}\n      {finding.message}"


def show_error(error):
    seen = "; ".join(f"{f.level} {f.rule}" for f in audit(bad(error["card"])) if f.line in quoted(error)) or "nothing"
    return f"{error['card']}.bad.md: {'|'.join(error['rule'])}: {error['quote'][0]}\n      {error['why']}\n      said there: {seen}"


def generator():
    spec = importlib.util.spec_from_file_location("corpus_generator", FOLDER / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_cards_are_what_the_generator_writes():
    written = generator().corpus()
    stale = [str(path) for path, text in written.items() if path.read_text(encoding="utf-8") != text]
    assert not stale, f"run tests/data/audit/generate.py: {stale}"
    unknown = {*FOLDER.glob("*.md"), *(FOLDER / "hard-good").glob("*.md")} - set(written)
    assert not unknown


def test_the_list_of_planted_errors_is_sound():
    assert {error["card"] for error in ERRORS} == set(NAMES)
    assert {rule for error in ERRORS for rule in error["rule"]} == DESIGNED
    for error in ERRORS:
        good = "\n".join(lines(FOLDER / f"{error['card']}.good.md"))
        present = ["\n".join(lines(bad(error["card"]))).count(quote) for quote in error["quote"]]
        assert all(present), error
        assert not all(quote in good for quote in error["quote"]) or error["rule"] == ["head-dim"], error
        assert error["why"], error
        assert Level(error["level"]).rank > Level.AMBIGUOUS.rank, error
        assert error.get("missed", "why"), error
        assert set(error) <= {"card", "rule", "level", "quote", "why", "missed"}, error


@pytest.mark.parametrize("name", NAMES)
def test_every_planted_error_is_found_but_those_marked_as_missed(name):
    errors = [error for error in ERRORS if error["card"] == name]
    missed = [error for error in errors if "missed" not in error and not is_reported(error)]
    assert not missed, f"{len(missed)} missed\n" + "\n".join(map(show_error, missed))
    learnt = [error for error in errors if "missed" in error and is_reported(error)]
    assert not learnt, "found now: take `missed` out of expected.toml\n" + "\n".join(map(show_error, learnt))


def test_the_docs_say_how_many_are_missed():
    page = (FOLDER.parents[2] / "docs" / "audit" / "index.md").read_text(encoding="utf-8")
    marked = sum("missed" in error for error in ERRORS)
    assert f"{len(ERRORS) - marked} of {len(ERRORS)} planted errors" in page


@pytest.mark.parametrize("path", CORRECT, ids=lambda path: path.stem)
def test_a_correct_card_raises_no_alarm(path):
    wrong = alarms(path)
    assert not wrong, f"{len(wrong)} false alarms\n" + "\n".join(show(path, finding) for finding in wrong)


def strays(name):
    """Contradictions in a bad card about lines that are the same in the good one and are no side of a planted error."""
    good = set(lines(FOLDER / f"{name}.good.md"))
    places = set().union(*(quoted(error) for error in ERRORS if error["card"] == name))
    return [
        f
        for f in audit(bad(name))
        if f.level is Level.CONTRADICTION and f.line not in places and lines(bad(name))[f.line - 1] in good
    ]


def report():
    """The table of misses and false alarms, as text."""
    table = defaultdict(Counter)
    out = []
    for error in ERRORS:
        kind = "found" if is_reported(error) else "missed"
        table[error["rule"][0]][kind] += 1
        if kind == "missed":
            out.append("MISS  " + show_error(error) + f"\n      missed: {error.get('missed', 'unexpected')}")
    for path in CORRECT:
        for finding in alarms(path):
            table[finding.rule]["false"] += 1
            out.append("FALSE " + show(path, finding))
    for name in NAMES:
        for finding in strays(name):
            table[finding.rule]["stray"] += 1
            out.append("STRAY " + show(bad(name), finding))
    out.append(f"{'rule':22}{'planted':>8}{'found':>8}{'missed':>8}{'false':>8}{'stray':>8}")
    total = Counter()
    for rule, counts in sorted(table.items()):
        total.update(counts)
        planted = counts["found"] + counts["missed"]
        out.append(f"{rule:22}{planted:8}{counts['found']:8}{counts['missed']:8}{counts['false']:8}{counts['stray']:8}")
    out.append(
        f"{'all':22}{total['found'] + total['missed']:8}{total['found']:8}{total['missed']:8}"
        f"{total['false']:8}{total['stray']:8}"
    )
    return "\n".join(out)


if __name__ == "__main__":
    print(report())
