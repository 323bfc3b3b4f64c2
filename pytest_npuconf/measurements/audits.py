"""What an audit found in the card's documents and in its gates, as figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytest_npuconf.audit.findings import Finding, Level
from pytest_npuconf.gates import MAX_ROWS, Measurement, Row

_KEPT = 100  # findings of a record: a hostile document has thousands


@dataclass(frozen=True)
class Reading:
    """One file that was audited. ``failed``: why it, or a rule over it, says nothing."""

    name: str
    findings: tuple[Finding, ...]
    failed: tuple[str, ...] = ()


def contradictions(documents: Sequence[Reading]) -> Measurement:
    """Statements of the documents that cannot hold beside another one, or beside the checkpoint's config. What is less
    certain is listed in ``data`` and does not count."""
    return _counted("document.contradictions", documents, Level.CONTRADICTION, n=len(documents), of="documents")


def unsound_gates(card: Reading, criteria: Sequence[Mapping[str, str]]) -> Measurement:
    """Gates of the card that cannot fail, and waivers past their date. A documented gate in the role of a claim, with the
    reason why it decides nothing, is a quotation.

    Args:
        criteria: what was looked at, for the record: each bound, waiver and claim with its role and reason.
    """
    measured = _counted("gates.unsound", [card], Level.IMPLAUSIBLE, n=len(criteria), of="criteria")
    return dataclasses.replace(measured, data={**measured.data, "criteria": [dict(each) for each in criteria]})


def _counted(metric: str, readings: Sequence[Reading], least: Level, *, n: int, of: str) -> Measurement:
    placed = [(reading.name, finding) for reading in readings for finding in reading.findings]
    placed.sort(key=lambda each: -each[1].level.rank)
    counting = [each for each in placed if each[1].level.rank >= least.rank]
    failed = [f"{reading.name}: {reason}" for reading in readings for reason in reading.failed]
    if failed and not counting:  # silence of what was not read is no pass
        return Measurement.unusable(metric, "; ".join(failed[:MAX_ROWS]))
    data = {
        "files": [reading.name for reading in readings],
        "findings": [{"file": name, **_plain(finding)} for name, finding in placed[:_KEPT]],
        "findings_total": len(placed),
        "not_read": failed,
        "rows_total": len(counting),
        "statistics": {level.value: sum(f.level is level for _, f in placed) for level in Level},
    }
    rows = [Row(f"{name}:{f.line}", 1.0, _told(f)) for name, f in counting[:MAX_ROWS]]
    return Measurement(metric, float(len(counting)), n=n, of=of, rows=tuple(rows), data=data)


def _plain(finding: Finding) -> dict[str, str | int]:
    return {**dataclasses.asdict(finding), "level": finding.level.value}


def _told(finding: Finding) -> str:
    return f"{finding.rule}: {finding.message}; the line: {finding.quote}"
