"""The diagnosis as text and as JSON."""

from __future__ import annotations

import json
import textwrap
from collections import Counter

from pytest_npuconf.doctor.case import Diagnosis
from pytest_npuconf.doctor.findings import Level
from pytest_npuconf.fingerprint.readings import GROUPS

SCHEMA_VERSION = 1
WIDTH = 118


def as_json(diagnosis: Diagnosis) -> str:
    """Sorted keys; ``healthy`` is what the exit status says."""
    data = {
        "schema_version": SCHEMA_VERSION,
        "healthy": diagnosis.healthy,
        "fingerprint": diagnosis.fingerprint.to_json(),
        "digest": diagnosis.fingerprint.digest(),
        "findings": [finding.as_json() for finding in diagnosis.findings],
    }
    return json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False)


def as_text(diagnosis: Diagnosis) -> str:
    """The readings by group, then the findings, then one line."""
    lines: list[str] = []
    width = max(len(reading.name) for _, reading in diagnosis.fingerprint.every())
    for group in GROUPS:
        lines.append(group.replace("_", ", "))
        lines += [f"  {r.name:<{width}}  {r.value}  ({r.source})" for r in diagnosis.fingerprint.group(group)]
    lines.append("")
    for finding in diagnosis.findings:
        said = f"{finding.level.value.upper()} {finding.rule}: {finding.what}"
        lines += textwrap.wrap(said, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
        lines += [f"  read: {finding.where}", f"  mend: {finding.mend}"]
    return "\n".join([*lines, closing(diagnosis)])


def closing(diagnosis: Diagnosis) -> str:
    """``1 problem, 2 warnings`` or ``nothing wrong``, with the digest of the fingerprint."""
    counts = Counter(finding.level for finding in diagnosis.findings)
    parts = [f"{counts[level]} {level.value}{'s' if counts[level] > 1 else ''}" for level in Level if counts[level]]
    return f"{', '.join(parts) or 'nothing wrong'}; fingerprint {diagnosis.fingerprint.digest()}"
