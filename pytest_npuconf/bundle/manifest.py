"""MANIFEST.json: which members a bundle has, with sha256 and size of each, and a digest over all of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from pytest_npuconf.bundle.archive import sha256_of_bytes
from pytest_npuconf.bundle.findings import Finding, OtherVersionError, contradiction, wrong
from pytest_npuconf.errors import BaselineError, OldBaselineError
from pytest_npuconf.references.sealed import DIGEST, Layout
from pytest_npuconf.report.strict_json import read_json

MANIFEST = "MANIFEST.json"
VERSION = 1
_AGAIN = "get the bundle again from whoever made it (npuconf bundle RESULTS.json)"
_OTHER = "use the version of pytest-npuconf that made it"
_LAYOUT = Layout(
    "a bundle's manifest",
    VERSION,
    {"npuconf": str, "results": dict, "members": dict, "not_found": dict},
    _OTHER,
    _AGAIN,
)


def installed() -> str:
    """The version of this package."""
    return metadata.version("pytest-npuconf")


def make_manifest(contents: Mapping[str, bytes], results: Mapping[str, Any], not_found: Mapping[str, str]) -> bytes:
    """The manifest of these members.

    Args:
        results: what results.json holds, of which the manifest says version and time.
        not_found: what belongs into the bundle and is not in it, with the reason.
    """
    about = {
        "created": results["created"],
        "npuconf": results["facts"].get("npuconf", ""),
        "schema_version": results["schema_version"],
    }
    members = {name: {"bytes": len(data), "sha256": sha256_of_bytes(data)} for name, data in contents.items()}
    values = {"npuconf": installed(), "results": about, "members": members, "not_found": dict(not_found)}
    return _LAYOUT.to_text(values).encode()


def check_manifest(contents: Mapping[str, bytes]) -> tuple[dict[str, Any], list[Finding]]:
    """What the manifest holds, and every member that was added, removed or edited since it was written.

    Raises:
        OtherVersionError: it is of another schema version.
    """
    if MANIFEST not in contents:
        return {}, [wrong(MANIFEST, "member", "is not there: this is no bundle of npuconf, or it was taken out")]
    data = contents[MANIFEST]
    try:
        read_json(data)
        text = data.decode("utf-8")
        values = _LAYOUT.values(Path(MANIFEST), text)
    except OldBaselineError as error:
        raise OtherVersionError(error.what, mend=error.mend) from error
    except (BaselineError, ValueError) as error:
        return {}, [wrong(MANIFEST, "content", str(getattr(error, "what", error)))]
    findings = _compare(values["members"], {name: data for name, data in contents.items() if name != MANIFEST})
    if _LAYOUT.to_text({k: v for k, v in values.items() if k not in ("schema_version", DIGEST)}) != text:
        findings.append(wrong(MANIFEST, "content", "is not written as npuconf bundle writes it"))
    return values, findings


def _compare(members: Mapping[str, Any], contents: Mapping[str, bytes]) -> list[Finding]:
    findings = []
    for name in sorted({*members, *contents}):
        if name not in members:
            findings.append(wrong(name, "member", f"was added: {MANIFEST} does not list it"))
        elif name not in contents:
            findings.append(wrong(name, "member", f"was removed: {MANIFEST} lists it"))
        else:
            here = {"bytes": len(contents[name]), "sha256": sha256_of_bytes(contents[name])}
            stored = members[name]
            if not isinstance(stored, dict) or stored.keys() != here.keys():
                findings.append(wrong(MANIFEST, "members", f"says {json.dumps(stored)}, not size and sha256", name))
            else:
                findings += [contradiction(name, f, stored[f], here[f]) for f in here if stored[f] != here[f]]
    return findings


def check_about(manifest: Mapping[str, Any], results: Mapping[str, Any]) -> list[Finding]:
    """What the manifest says of the results, against the results."""
    wanted = {
        "created": results["created"],
        "npuconf": results["facts"].get("npuconf", ""),
        "schema_version": results["schema_version"],
    }
    about = manifest["results"]
    names = sorted({*wanted, *about})
    return [
        contradiction(MANIFEST, f"results.{name}", about.get(name), wanted.get(name))
        for name in names
        if about.get(name) != wanted.get(name)
    ]
