"""What a rule is given, and the rules applied."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.version import Version

from pytest_npuconf.audit.stated_versions import Stated, version_of
from pytest_npuconf.doctor.findings import Finding, Level
from pytest_npuconf.fingerprint.collect import Collected, Host, collect
from pytest_npuconf.fingerprint.readings import UNKNOWN, Fingerprint

if TYPE_CHECKING:
    from pytest_npuconf.doctor.memory import Needed


@dataclass(frozen=True)
class Asked:
    """What the run that is planned would be. ``bit_equal``: equal bits are expected of repeated calls."""

    device: str
    precisions: tuple[str, ...] = ()
    engine: str = "transformers"
    bit_equal: bool = False
    needed: Needed | None = None


@dataclass(frozen=True)
class Case:
    """One host and what is asked of it."""

    host: Host
    asked: Asked
    collected: Collected

    @property
    def fingerprint(self) -> Fingerprint:
        """All readings."""
        return self.collected.fingerprint

    def has(self, package: str) -> bool:
        """Whether a package, CANN or the driver has a version here."""
        return self.fingerprint.find(package) is not None

    def where(self, name: str) -> str:
        """Where a reading was taken."""
        reading = self.fingerprint.find(name)
        return reading.source if reading is not None else "not read"

    def version(self, name: str) -> Version | None:
        """The version of a component, None where it is missing or cannot be read as one."""
        text = self.fingerprint.value(name)
        return None if text == UNKNOWN else version_of(text)

    def stated(self, name: str) -> Stated | None:
        """The same, as the audit's rules want it: exact, and certain."""
        version = self.version(name)
        if version is None:
            return None
        return Stated(name, version, self.fingerprint.value(name), least=False, line=0, weight=2, code=False)


@dataclass(frozen=True)
class Rule:
    """A judgement: ``check`` reads the case and nothing else. ``devices``: where it applies, empty for all."""

    id: str
    title: str
    check: Callable[[Case], Iterator[Finding]]
    devices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Diagnosis:
    """The fingerprint, and the findings, worst first."""

    fingerprint: Fingerprint
    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """No problem; there may be warnings."""
        return all(finding.level is not Level.PROBLEM for finding in self.findings)


def diagnose(host: Host, asked: Asked) -> Diagnosis:
    """Collect, and judge by every rule that applies to the device."""
    from pytest_npuconf.doctor.rules import RULES

    case = Case(host, asked, collect(host, asked.device))
    rules = [rule for rule in RULES if not rule.devices or asked.device in rule.devices]
    found = [finding for rule in rules for finding in rule.check(case)]
    order = list(Level)
    return Diagnosis(case.fingerprint, tuple(sorted(found, key=lambda finding: order.index(finding.level))))
