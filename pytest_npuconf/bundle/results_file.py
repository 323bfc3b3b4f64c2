"""results.json as a bundle holds it: read strictly, so that what follows can rely on its form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_npuconf.bundle.findings import BundleError, Finding, OtherVersionError, contradiction
from pytest_npuconf.fingerprint.readings import Fingerprint
from pytest_npuconf.report.reading import OtherSchemaError, parse_results
from pytest_npuconf.report.strict_json import to_bytes

RESULTS, FINGERPRINT, COMMANDS = "results.json", "fingerprint.json", "commands.txt"
_AGAIN = "run again: pytest ... --npuconf-results FILE writes it whole or not at all"


def read_results(data: bytes, where: str) -> dict[str, Any]:
    """What results.json holds; ``where`` names it in messages.

    Raises:
        OtherVersionError: of another schema version.
        BundleError: not JSON, cut off, with NaN in it, or not of the published form.
    """
    try:
        return parse_results(data)
    except OtherSchemaError as error:
        raise OtherVersionError(
            f"{where}: {error}", mend="use the version of pytest-npuconf that the run had"
        ) from error
    except ValueError as error:
        raise BundleError(f"{where}: {error}", mend=_AGAIN) from error


def derived(results: dict[str, Any]) -> dict[str, bytes]:
    """The members that say a part of results.json again, for readers: fingerprint.json and commands.txt."""
    command = results["facts"].get("command")
    return {
        FINGERPRINT: to_bytes(results["facts"]["fingerprint"]),
        COMMANDS: f"{command}\n".encode() if command is not None else b"# results.json does not say the command\n",
    }


def check_derived(contents: Mapping[str, bytes], results: dict[str, Any]) -> list[Finding]:
    """Those members against results.json, and the fingerprint's digest against the fingerprint."""
    findings = []
    for name, data in derived(results).items():
        if contents.get(name) != data:
            stored = contents[name].decode("utf-8", "replace") if name in contents else None
            findings.append(contradiction(name, "content", stored, data.decode()))
    stated = results["facts"].get("fingerprint_digest")
    digest = Fingerprint.from_json(results["facts"]["fingerprint"]).digest()
    if stated is not None and stated != digest:
        findings.append(contradiction(RESULTS, "facts.fingerprint_digest", stated, digest))
    return findings
