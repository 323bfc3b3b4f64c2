"""What a rule is given, and what a rule is."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pytest_npuconf.audit.document import CardText
from pytest_npuconf.audit.findings import Finding, Level

if TYPE_CHECKING:
    from pytest_npuconf.audit.facts import Facts


@dataclass(frozen=True)
class Context:
    """A card, the config.json beside it (or None), and the date that waivers are compared with."""

    card: CardText
    config: Mapping[str, Any] | None = None
    today: datetime.date = datetime.date(1970, 1, 1)

    @cached_property
    def facts(self) -> Facts:
        """What several rules need, gathered once."""
        from pytest_npuconf.audit.facts import read_facts

        return read_facts(self.card, self.config)

    def finding(self, rule: str, level: Level, line: int, message: str, recomputed: str = "") -> Finding:
        """A finding with the quotation of its line."""
        return Finding(rule, level, line, self.card.quote(line), message, recomputed)


@dataclass(frozen=True)
class Rule:
    """A rule: ``check`` is a pure function of the context."""

    id: str
    title: str
    check: Callable[[Context], Iterable[Finding]]
