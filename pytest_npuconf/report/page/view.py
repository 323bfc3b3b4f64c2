"""What the page shows of one model's run: plain values for the template, nothing measured anew."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytest_npuconf.conformance import worst_by_check
from pytest_npuconf.gates import format_number
from pytest_npuconf.report.card import phrases
from pytest_npuconf.report.page.failures import Failure, failures_of
from pytest_npuconf.report.page.lines import MARKS, Line, did_not_run, line_of, urgency
from pytest_npuconf.report.run import Run
from pytest_npuconf.report.samples import SAMPLED, answers_of, messages_of
from pytest_npuconf.report.words import word_of

MOST_FAILURES, MOST_ROWS, MOST_SAMPLES, MOST_CLAIMS = 40, 1_000, 60, 500
LONGEST = 4_000  # characters of one text of a model


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
    waived: tuple[tuple[str, str], ...]
    missing: tuple[str, ...]
    errors: tuple[str, ...]
    claims: tuple[Mapping[str, Any], ...]
    claims_total: int
    samples: tuple[Sample, ...]
    samples_total: int

    @property
    def status(self) -> str:
        """The verdict's word."""
        return str(self.run.summary["status"])


def view_of(run: Run, key: str) -> ModelView:
    """The view of one model; ``key`` is unique on the page."""
    required, missing = run.summary["required"], tuple(run.summary["missing"])
    shown = [record for record in run.checks if record["verdict"] is not None or record["check"] not in missing]
    lines = [line_of(record, decides=record["check"] in required) for record in shown]
    chosen = set(run.summary["selected"])
    for name in missing:
        why = "" if name in chosen else "not selected"
        lines.append(did_not_run(name, why))
    lines.sort(key=urgency)
    failures = failures_of(run, lines)
    worst = worst_by_check(run.checks)
    counts = Counter(word_of(worst[check]) if check in worst else "did not run" for check in required)
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
        failures=tuple(failures[:MOST_FAILURES]),
        failures_total=len(failures),
        waived=tuple((line.check, line.record["waived"]) for line in lines if line.record and line.word == "waived"),
        missing=missing,
        errors=tuple(run.summary["errors"]),
        claims=tuple(claims[:MOST_CLAIMS]),
        claims_total=len(claims),
        samples=tuple(samples[:MOST_SAMPLES]),
        samples_total=len(samples),
    )


def _headline(run: Run, counts: Mapping[str, int], total: int) -> str:
    """The verdict in one sentence for somebody who does not know the tool. It says no more than the checks do."""
    model, labels = run.model, run.summary["labels"]
    where = run.facts.get("device", "?") + (", simulated" if "SIMULATED" in labels else "")
    status, more = run.summary["status"], []
    more += ["the run was interrupted"] if run.summary["interrupted"] else []
    more += [f"{counts['did not run']} did not run"] if counts["did not run"] and status != "SUBSET" else []
    more += [f"{counts['inconclusive']} inconclusive"] if counts["inconclusive"] else []
    more += [f"{len(run.summary['errors'])} failed outside their gates"] if run.summary["errors"] else []
    beside = f"; {', '.join(more)}" if more else ""
    if status == "CONFORMANT":
        waived = f", {counts['waived']} failed and waived" if counts["waived"] else ""
        said = f"on {where}, {model} passed {counts['pass']} of the {total} checks that its card requires{waived}"
    elif status == "NOT CONFORMANT":
        failed = run.summary["failed"]
        named = ", ".join(failed[:2]) + (", ..." if len(failed) > 2 else "")
        said = f"on {where}, {model} failed {counts['fail']} of {total} required checks: {named}{beside}"
    elif status == "SUBSET":
        ran = total - counts["did not run"]
        said = f"this run was narrowed to {ran} of {total} required checks of {model}: it decides nothing{beside}"
    else:
        said = f"nothing is decided about {model} on {where} ({total} required checks){beside}"
    broken = next((label for label in labels if label.startswith(("FAULT ", "VARIANT "))), "")
    return f"With {broken}, injected on purpose: {said}." if broken else f"{said[0].upper()}{said[1:]}."


def shortened(model: ModelView, most: int) -> ModelView:
    """The same with lists of at most ``most`` entries, of failures and samples a quarter of that; their totals stay."""
    few = max(1, most // 4)
    left = len(model.errors) - few
    errors = (*model.errors[:few], f"... and {left} more in results.json") if left > 0 else model.errors
    return dataclasses.replace(
        model,
        lines=model.lines[:most],
        claims=model.claims[:most],
        failures=model.failures[:few],
        samples=model.samples[:few],
        errors=errors,
    )


def _labels(run: Run) -> list[str]:
    return [said for key in phrases.meanings(run.summary["labels"]) for said in phrases.sentences("en", key)]


def _measured_claim(claim: Mapping[str, Any]) -> str:
    found = claim["measured"]
    if found is None:
        return "not measurable"
    return ", ".join(map(format_number, found)) if isinstance(found, list) else format_number(found)


def _samples(run: Run) -> list[Sample]:
    """Texts of the model; a precision that answers the same is not shown twice."""
    found: dict[tuple[str, str], Sample] = {}
    for record in run.of(*SAMPLED):
        for name, answer in answers_of(record).items():
            found.setdefault((name, answer["text"]), _sample(record["check"], name, answer))
    return list(found.values())


def _sample(check: str, name: str, answer: Mapping[str, Any]) -> Sample:
    unmet = answer.get("unmet")
    return Sample(
        check,
        name,
        tuple((str(each.get("role", "")), str(each.get("content", ""))) for each in messages_of(answer)[:20]),
        answer["text"],
        tuple(map(str, unmet)) if isinstance(unmet, list) else (),
    )


def cut(text: str) -> str:
    """At most ``LONGEST`` characters, saying how many were left out."""
    left = len(text) - LONGEST
    return text if left <= 0 else f"{text[:LONGEST]}… ({left:,} more characters are in results.json)"
