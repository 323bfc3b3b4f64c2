"""The command ``npuconf``: what is done outside a test run."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pytest_npuconf.audit.command import add_parser as add_audit
from pytest_npuconf.bundle.command import add_parser as add_bundle
from pytest_npuconf.bundle.verify_command import add_parser as add_verify
from pytest_npuconf.campaign.command import add_parser as add_faults
from pytest_npuconf.doctor.command import add_parser as add_doctor
from pytest_npuconf.errors import AuditError, NpuconfError
from pytest_npuconf.load.command import add_parser as add_load
from pytest_npuconf.option_values import parse_path
from pytest_npuconf.options import CACHE_VARIABLE, Settings, environment_path
from pytest_npuconf.report.card.command import add_parser as add_card
from pytest_npuconf.report.page.command import add_parser as add_report


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 an error that is said on stderr, 2 a wrong command line; ``audit``, ``faults``,
    ``doctor``, ``load`` and ``verify`` have their own."""
    parsed = _parser().parse_args(arguments)
    try:
        return int(parsed.run(parsed) or 0)
    except NpuconfError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 2 if isinstance(error, AuditError) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="npuconf",
        description="outside a test run: cards audited and written, faults injected, load measured, this host judged, evidence "
        "bundled and verified",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    pack = commands.add_parser("pack", help="put the stored references of a model into one file")
    pack.add_argument("model", metavar="MODEL|CARD", help="a card's name or path/to/card.toml")
    pack.add_argument("file", metavar="FILE", type=parse_path, help="the pack to write, for example MODEL.npuconf")
    pack.add_argument("--baselines", metavar="DIR", type=parse_path, help="the folder given to --npuconf-baselines")
    pack.set_defaults(run=_pack)
    install = commands.add_parser("install", help="install a pack, hash-checked; every later run finds it")
    install.add_argument("file", metavar="FILE", type=parse_path, help="the pack")
    install.add_argument(
        "--into", metavar="DIR", type=parse_path, help="a folder for --npuconf-baselines, not the default"
    )
    install.set_defaults(run=_install)
    add_audit(commands)
    add_faults(commands)
    add_doctor(commands)
    add_load(commands)
    add_card(commands)
    add_report(commands)
    add_bundle(commands)
    add_verify(commands)
    return parser


def _cache() -> Path:
    return environment_path(os.environ, CACHE_VARIABLE) or Settings().cache


def _pack(parsed: argparse.Namespace) -> None:
    from pytest_npuconf.cards import find_card
    from pytest_npuconf.references.choose import folders
    from pytest_npuconf.references.packs import write_pack
    from pytest_npuconf.references.store import stored_files

    card = find_card(parsed.model, parsed.baselines)
    settings = Settings(baselines=parsed.baselines, cache=_cache())
    places = folders(card, settings)
    folder = next((place for place in places if stored_files(place)), places[0])
    pack = write_pack(folder, card.name, parsed.file)
    print(f"{pack.path}: {len(pack.files)} files of {pack.model}, sha256 {pack.sha256}")


def _install(parsed: argparse.Namespace) -> None:
    from pytest_npuconf.references.packs import install_pack

    pack, paths = install_pack(parsed.file, parsed.into or _cache() / "references")
    print(f"{pack.path}: sha256 {pack.sha256}")
    for path in paths:
        print(f"installed {path}")


if __name__ == "__main__":
    sys.exit(main())
