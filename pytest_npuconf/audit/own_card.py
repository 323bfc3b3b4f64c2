"""What the audit says of a card of ours: of the documents that it names, and of its gates."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from pytest_npuconf.audit.command import audit_files
from pytest_npuconf.audit.findings import Finding
from pytest_npuconf.audit.output import safe
from pytest_npuconf.cards.schema import Card, Claim, Waiver
from pytest_npuconf.gates import Role
from pytest_npuconf.measurements.audits import Reading
from pytest_npuconf.weights.checkpoint import Checkpoint


def read_documents(card: Card, checkpoint: Checkpoint) -> list[Reading]:
    """Each document, audited against itself and against the checkpoint's config."""
    return [_read(path, card.path.parent, checkpoint) for path in card.documents]


def read_gates(card: Card) -> Reading:
    """The card's own bounds, waivers and claims."""
    return _read(card.path, card.path.parent, None)


def criteria(card: Card) -> list[dict[str, str]]:
    """Each bound, waiver and claim with a gate: what it is, whether it decides, and the reason that the card gives."""
    listed = []
    for each in card.criteria:
        if isinstance(each, Claim):
            said = {"kind": "claim", "name": each.id, "role": each.role.value, "gate_stated": each.gate_stated}
        else:
            kind = "waiver" if isinstance(each, Waiver) else "bound"
            said = {"kind": kind, "name": each.check, "role": Role.REQUIRED.value}
        listed.append({**said, "reason": each.reason})
    return listed


def _read(path: Path, beside: Path, checkpoint: Checkpoint | None) -> Reading:
    audits, unread = audit_files([str(path)], checkpoint.config if checkpoint is not None else None)
    findings = [_printable(finding) for audit in audits for finding in audit.findings]
    failed = [error.what for error in unread] + [reason for audit in audits for reason in audit.broken]
    return Reading(Path(os.path.relpath(path, beside)).as_posix(), tuple(findings), tuple(map(safe, failed)))


def _printable(finding: Finding) -> Finding:
    """A document must not steer the terminal that quotes it."""
    return dataclasses.replace(
        finding, quote=safe(finding.quote), message=safe(finding.message), recomputed=safe(finding.recomputed)
    )
