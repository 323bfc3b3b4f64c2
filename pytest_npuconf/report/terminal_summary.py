"""The run's last section on the terminal: pure functions make its lines, :func:`summary` prints them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_npuconf.claims import Standing
from pytest_npuconf.conformance import Closing, Status
from pytest_npuconf.plan import Plan
from pytest_npuconf.records import Record
from pytest_npuconf.report.next_steps import next_steps
from pytest_npuconf.report.terminal import (
    UNUSABLE,
    check_line,
    claim_line,
    undecided,
    urgency,
    where,
)
from pytest_npuconf.report.words import gate_words, measured_words

MOST_LINES = 10  # of one model: checks, their places, claims
MOST_GROUPS = 16  # more than the suites of one engine have
_COLOURS = {"pass": "green", "fail": "red", "inconclusive": "yellow", None: ""}
_OUTCOMES = {"failed": "red", "inconclusive": "yellow", "waived": "red"}
_SPOKEN = {"pass": "passed", "fail": "failed", "inconclusive": "inconclusive", None: "reported"}
_BESIDE = " " * 15

Line = tuple[tuple[str, str], ...]  # texts with the words of their markup: (("  fail", "red"), (" kl.noise_ratio", ""))


def summary(
    reporter: Any,
    plan: Plan,
    records: Sequence[Record],
    closings: Sequence[Closing],
    claims: str,
    *,
    verbosity: int = 0,
    notes: Sequence[str] = (),
    files: Sequence[str] = (),
) -> None:
    """Print the section, if there is anything to say. Arguments as of :func:`section_lines`."""
    asked = {"results": plan.settings.results, "report": plan.settings.report}
    files = [*files, *(f"{word}: {path}" for word, path in asked.items() if path is not None and path.is_file())]
    models = dict.fromkeys(record["model"] for record in records)
    heads = {model: f"{where(plan, model)}; reference {plan.source(model)}" for model in models if model}
    steps = next_steps(closings, records, plan.settings)
    told = section_lines(
        records, closings, claims, heads=heads, verbosity=verbosity, notes=notes, files=files, steps=steps
    )
    if not told:
        return
    reporter.ensure_newline()
    reporter.section("npuconf", "=")
    for line in told:
        for text, markup in line:
            reporter.write(text, **dict.fromkeys(markup.split(), True))
        reporter.write_line("")


def section_lines(
    records: Sequence[Record],
    closings: Sequence[Closing],
    claims: str,
    *,
    heads: Mapping[str, str],
    verbosity: int = 0,
    notes: Sequence[str] = (),
    files: Sequence[str] = (),
    steps: Sequence[str] = (),
) -> list[Line]:
    """Everything below the section's title.

    Args:
        claims: the line that counts them.
        heads: on what each model was judged, in words.
        verbosity: pytest's own. Below 0: what is wrong, files, closing lines; above 0: a line for every check.
        notes: lines that a reader should know; files: lines about files that were written, or not, or not used.
        steps: what to do next.
    """
    of: dict[str, list[Record]] = {}
    for record in records:
        of.setdefault(record["model"], []).append(record)
    lines: list[Line] = []
    for model, mine in of.items():
        body = _model_lines(mine, verbosity)
        if model and body and (verbosity >= 0 or len(of) > 1):  # of one model, the closing line says where
            lines.append(_line((heads.get(model, model), "")))
        lines += body
    plain = files if verbosity < 0 else (*notes, *files, *steps)
    lines += [_line((text, "")) for text in plain]
    for closing in closings:
        colour = "green" if closing.status is Status.CONFORMANT else "red"
        lines.append(_line((closing.line, f"bold {colour}")))
    return [*lines, _line((claims, ""))] if closings else lines


def _model_lines(records: list[Record], verbosity: int) -> list[Line]:
    ordered = sorted(records, key=urgency)
    if verbosity > 0:
        return _check_lines(ordered, claims=True)
    wrong = [record for record in ordered if record["verdict"] in ("fail", "inconclusive")]
    lines = _check_lines(wrong[:MOST_LINES], most_places=MOST_LINES)
    lines += _more(len(wrong) - MOST_LINES, "")
    return lines if verbosity < 0 else [*lines, *group_lines(ordered), *_claim_lines(ordered)]


def _check_lines(records: Sequence[Record], *, claims: bool = False, most_places: int | None = None) -> list[Line]:
    """A line for each check, below it the places that no failing test tells, and the claims about it."""
    width = max((len(record["check"]) for record in records), default=0)
    lines, places = [], 0
    for record in records:
        word, text = check_line(record, width)
        lines.append(_line((f"  {word:<12}", _COLOURS[record["verdict"]]), (f" {text}", "")))
        beside = undecided(record)
        beside = beside[: max(0, most_places - places)] if most_places is not None else beside
        places += len(beside)
        beside += [claim_line(claim) for claim in record["claims"]] if claims else []
        lines += [_line((f"{_BESIDE}{'':<{width}}  {text}", "")) for text in beside]
    return lines


def group_lines(ordered: Sequence[Record]) -> list[Line]:
    """One line for each group (``kl``, ``logits``, ...): how many passed of how many, and the check with the least room.

    Args:
        ordered: one model's records, by :func:`urgency`.
    """
    groups: dict[str, list[Record]] = {}
    for record in ordered:
        groups.setdefault(record["check"].partition(".")[0].partition(":")[0], []).append(record)
    shown = list(groups.items())[:MOST_GROUPS]
    counts = {name: _counts(mine) for name, mine in shown}
    wide = max((len(name) for name, _ in shown), default=0)
    far = max((len(text) for text, _ in counts.values()), default=0)
    lines = []
    for name, mine in shown:
        text, colour = counts[name]
        closest = _closest(mine[0])
        padded = f"{text:<{far}}" if closest else text
        lines.append(_line((f"  {name:<{wide}}  ", ""), (padded, colour), (f"  {closest}" if closest else "", "")))
    return lines + _more(len(groups) - len(shown), "groups")


def _counts(records: Sequence[Record]) -> tuple[str, str]:
    """``7 of 8 passed, 1 failed, 2 reported``, and its colour. What has no verdict did not pass."""
    found = Counter("waived" if r["waived"] else _SPOKEN[r["verdict"]] for r in records)
    judged = len(records) - found["reported"]
    parts = [f"{found['passed']} of {judged} passed"] if judged else []
    parts += [f"{found[word]} {word}" for word in (*_OUTCOMES, "reported") if found[word]]
    colour = next((colour for word, colour in _OUTCOMES.items() if found[word]), "green" if judged else "")
    return ", ".join(parts), colour


def _closest(record: Record) -> str:
    """``closest kl.noise_ratio.bf16_fp32  1.02 [0.95, 1.09]  gate <= 1.5  27% left``, ``exact`` where there is no share."""
    if record["verdict"] is None:
        return ""
    if record["verdict"] == "pass" and not record["bound"] and not record["margin"]:
        return "exact"
    word = "closest" if record["verdict"] == "pass" else "worst"
    measured = UNUSABLE if record["broken"] else measured_words(record)
    return "  ".join([f"{word} {record['check']}", measured, *gate_words(record)])


def _claim_lines(records: Sequence[Record]) -> list[Line]:
    """Claims that do not stand, contradicted ones first; the closing line counts the others."""
    missed = [c for record in records for c in record["claims"] if c["standing"] != Standing.REPRODUCED.value]
    missed.sort(key=lambda claim: claim["standing"] != Standing.CONTRADICTED.value)
    lines = [_line((f"  {claim_line(claim)}", "")) for claim in missed[:MOST_LINES]]
    return lines + _more(len(missed) - MOST_LINES, "claims")


def _more(left: int, what: str) -> list[Line]:
    words = f"{left} more {what}".rstrip()
    return [_line((f"  ... and {words}: -v lists all", ""))] if left > 0 else []


def _line(*pieces: tuple[str, str]) -> Line:
    """A control character of a name or of a model's output is told, not obeyed."""
    return tuple((text if text.isprintable() else _escaped(text), markup) for text, markup in pieces if text)


def _escaped(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
