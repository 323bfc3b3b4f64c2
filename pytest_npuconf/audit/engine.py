"""Rules over cards: one list of findings for each card, worst first."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pytest_npuconf.audit.document import CardText
from pytest_npuconf.audit.findings import Finding, Level
from pytest_npuconf.audit.rules import RULES, Context


@dataclass(frozen=True)
class Audit:
    """What was found in one card. ``broken``: rules that failed themselves, with the reason; their silence says nothing."""

    card: CardText
    findings: tuple[Finding, ...]
    broken: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    """The rules that looked at it, where these are not all."""

    def counts(self) -> dict[Level, int]:
        """Findings by level, worst first, zeros included."""
        counted = Counter(finding.level for finding in self.findings)
        return {level: counted[level] for level in Level}


def check(context: Context, rules: Iterable[str] = RULES) -> list[Finding]:
    """The findings of the rules, worst first, then by line. A rule that fails raises."""
    found = {finding: None for name in rules for finding in RULES[name].check(context)}
    return sorted(found, key=lambda finding: (-finding.level.rank, finding.line, finding.rule, finding.message))


def audit_card(card: CardText, config: Mapping[str, Any] | None, today: datetime.date) -> Audit:
    """All rules over one card. A rule that fails is reported beside the findings of the others."""
    context = Context(card, config, today)
    findings: list[Finding] = []
    broken: list[str] = []
    for name in RULES:
        try:
            findings.extend(check(context, [name]))
        except Exception as error:  # an unforeseen card must not hide what the other rules say
            broken.append(f"the rule {name} failed: {type(error).__name__}: {error}"[:300])
    findings.sort(key=lambda finding: (-finding.level.rank, finding.line, finding.rule, finding.message))
    return Audit(card, tuple(findings), tuple(broken))
