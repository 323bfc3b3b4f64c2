"""Rechecking a bundle: its members against the manifest, its verdicts against its measurements. Nothing is extracted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_npuconf.bundle.archive import Archive, read_archive
from pytest_npuconf.bundle.card_again import compare_card, compare_constants, compare_required, read_cards
from pytest_npuconf.bundle.claims_again import recheck_claims
from pytest_npuconf.bundle.closing import recheck_closings
from pytest_npuconf.bundle.findings import (
    BundleError,
    Finding,
    OtherVersionError,
    contradictions,
    note,
    notes,
    wrong,
)
from pytest_npuconf.bundle.junit_again import JUNIT, check_junit
from pytest_npuconf.bundle.manifest import check_about, check_manifest, installed
from pytest_npuconf.bundle.rejudge import rejudge
from pytest_npuconf.bundle.results_file import RESULTS, check_derived, read_results

CANNOT_SHOW = (
    "this cannot show that the measurements were taken, on this device or at all: who can write a bundle can write one that "
    "agrees with itself. Compare the sha256 with the one that its maker gave by another way, or run the commands again"
)


@dataclass(frozen=True)
class Judged:
    """``results``: what results.json holds, None where it cannot be read."""

    results: dict[str, Any] | None
    findings: list[Finding] = field(default_factory=list)


@dataclass(frozen=True)
class Report:
    """What ``npuconf verify`` says of one bundle."""

    archive: Archive
    manifest: dict[str, Any]
    results: dict[str, Any] | None
    findings: list[Finding]

    @property
    def verified(self) -> bool:
        """Nothing was edited since it was made, and nothing in it contradicts itself."""
        return self.results is not None and not contradictions(self.findings)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        results = self.results or {"models": {}, "checks": [], "facts": {}, "created": ""}
        return {
            "bundle": str(self.archive.path),
            "sha256": self.archive.sha256,
            "verified": self.verified,
            "members": sorted(self.archive.contents),
            "not_found": self.manifest.get("not_found", {}),
            "models": {m: {"status": e["status"], "line": e["line"]} for m, e in results["models"].items()},
            "created": results["created"],
            "records": len(results["checks"]),
            "judged": sum(1 for record in results["checks"] if record["verdict"] is not None),
            "npuconf": {"run": results["facts"].get("npuconf", ""), "here": installed()},
            "contradictions": [finding.to_json() for finding in contradictions(self.findings)],
            "notes": [finding.to_json() for finding in notes(self.findings)],
            "cannot_show": CANNOT_SHOW,
        }


def verify(path: Path) -> Report:
    """Recheck a bundle.

    Raises:
        OtherVersionError: the manifest or the results are of another schema version.
        BundleError: there is no such file.
    """
    archive = read_archive(path)
    if not archive.contents:
        findings = list(archive.findings) or [wrong(path.name, "zip", "has no members")]
        return Report(archive, {}, None, findings)
    manifest, findings = check_manifest(archive.contents)
    judged = judge(archive.contents)
    findings = [*archive.findings, *findings, *judged.findings]
    if manifest and judged.results is not None:
        findings += check_about(manifest, judged.results)
    return Report(archive, manifest, judged.results, findings)


def judge(contents: Mapping[str, bytes]) -> Judged:
    """Everything that the members say of each other, without the manifest.

    Raises:
        OtherVersionError: the results are of another schema version.
    """
    if RESULTS not in contents:
        return Judged(None, [wrong(RESULTS, "member", "is not there: there is nothing to judge")])
    try:
        results = read_results(contents[RESULTS], RESULTS)
    except OtherVersionError:
        raise
    except BundleError as error:
        return Judged(None, [wrong(RESULTS, "content", error.what)])
    cards, unread = read_cards(contents, results)
    findings, records = rejudge(results)
    findings = [*check_derived(contents, results), *findings, *recheck_closings({**results, "checks": records})]
    findings += recheck_claims(results, cards)
    if JUNIT in contents:
        findings += check_junit(contents[JUNIT], results)
    for model, card in cards.items():
        findings += compare_card(card, model, results)
    findings += [*unread, *compare_constants(results), *compare_required(results, cards), *_versions(results)]
    return Judged(results, findings)


def _versions(results: Mapping[str, Any]) -> list[Finding]:
    """Checks, bounds and rules of another version may differ."""
    made = results["facts"].get("npuconf", "")
    if made == installed():
        return []
    return [note(RESULTS, "facts.npuconf", f"the run had npuconf {made or 'of no version'}, this is {installed()}")]
