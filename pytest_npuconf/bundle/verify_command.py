"""``npuconf verify``: the arguments, what is printed, the exit status."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from pytest_npuconf.option_values import parse_path

if TYPE_CHECKING:
    from pytest_npuconf.bundle.findings import Finding
    from pytest_npuconf.bundle.verify import Report

VERIFIED, EDITED, WRONG = 0, 1, 2
_SHOWN = 30
_EPILOG = """\
exit status:
  0  verified: nothing was edited, and every verdict comes out again
  1  edited, damaged, or it contradicts itself
  2  a wrong command line, no such file, or a bundle of another schema version
Nothing is extracted, no model is run.
"""


def add_parser(commands: Any) -> None:
    """``verify`` among the subcommands of npuconf."""
    parser = commands.add_parser(
        "verify",
        help="recheck a bundle: every hash, every verdict, every closing line; no model and no device needed",
        description="Rechecks the hashes of a bundle and judges its stored measurements again by its stored bounds.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", metavar="BUNDLE.zip", type=parse_path, help="what npuconf bundle wrote")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """The exit status."""
    from pytest_npuconf.bundle.findings import BundleError
    from pytest_npuconf.bundle.verify import verify

    try:
        report = verify(parsed.bundle)
    except BundleError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return WRONG
    print(json.dumps(report.to_json(), indent=1, sort_keys=True) if parsed.json else as_text(report))
    return VERIFIED if report.verified else EDITED


def as_text(report: Report) -> str:
    """Findings, notes, what was rechecked, what cannot be, the verdict."""
    from pytest_npuconf.bundle.findings import contradictions, notes, printable

    told = report.to_json()
    bad, noted = contradictions(report.findings), notes(report.findings)
    lines = [f"{report.archive.path}: {len(told['members'])} files", f"sha256 {told['sha256'] or 'not computed'}"]
    lines += [f"not in it: {name}: {why}" for name, why in told["not_found"].items()]
    lines += [model["line"] for model in told["models"].values()]
    lines.append(f"judged again: {told['judged']} of {told['records']} records (the others report on claims only)")
    lines += _listed("CONTRADICTION", bad) + _listed("note", noted)
    lines.append(told["cannot_show"])
    word = "VERIFIED" if report.verified else "NOT VERIFIED"
    lines.append(f"{word}: {_count(len(bad), 'contradiction')}, {_count(len(noted), 'note')}")
    return "\n".join(printable(line) for line in lines)


def _listed(word: str, findings: list[Finding]) -> list[str]:
    more = [f"{word}: {len(findings) - _SHOWN} more: --json has all"] if len(findings) > _SHOWN else []
    return [f"{word}: {finding}" for finding in findings[:_SHOWN]] + more


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"
