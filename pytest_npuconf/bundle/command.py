"""``npuconf bundle``: the arguments, what is printed, the file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_npuconf.option_values import parse_path

if TYPE_CHECKING:
    from pytest_npuconf.bundle.collect import Gathered

_EPILOG = """\
exit status:
  0  written
  1  an error, which says what mends it; nothing is written
  2  a wrong command line
"""


def add_parser(commands: Any) -> None:
    """``bundle`` among the subcommands of npuconf."""
    parser = commands.add_parser(
        "bundle",
        help="put a run's results, logs, card, fingerprint and commands into one file for a reviewer",
        description="The same files always give the same bytes. npuconf verify rechecks the bundle without the model.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", metavar="RESULTS.json", type=parse_path, help="what --npuconf-results wrote")
    parser.add_argument("--junit", metavar="FILE", type=parse_path, help="what --junitxml of the same run wrote")
    parser.add_argument(
        "--log", metavar="FILE", type=parse_path, action="append", default=[],
        help="a log; repeatable. server-*.log beside the results are taken by themselves",
    )  # fmt: skip
    parser.add_argument("--card", metavar="FILE.md", type=parse_path, help="the Markdown card of the run")
    parser.add_argument(
        "--out", metavar="FILE.zip", type=parse_path, help="default: RESULTS-bundle.zip beside the results"
    )
    parser.add_argument("--force", action="store_true", help="replace a file that is there")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """The exit status.

    Raises:
        BundleError: see :func:`pytest_npuconf.bundle.collect.gather`; the output exists or cannot be written.
    """
    from pytest_npuconf.bundle.archive import pack, sha256_of_bytes
    from pytest_npuconf.bundle.collect import Inputs, gather

    out: Path = parsed.out or parsed.results.with_name(f"{parsed.results.stem}-bundle.zip")
    _check_free(out, force=parsed.force)
    gathered = gather(Inputs(parsed.results, parsed.junit, tuple(parsed.log), parsed.card))
    data = pack(gathered.contents)
    _write(out, data, gathered)
    print(f"{out}: {len(gathered.contents)} files")
    for name, content in sorted(gathered.contents.items()):
        print(f"  {name}  {len(content):,} bytes")
    for name, why in gathered.not_found.items():
        print(f"NOT IN IT: {name}: {why}")
    for entry in gathered.results["models"].values():
        print(entry["line"])
    print(f"sha256 {sha256_of_bytes(data)}")
    return 0


def _check_free(out: Path, *, force: bool) -> None:
    from pytest_npuconf.bundle.findings import BundleError

    if out.is_dir():
        raise BundleError(f"{out}: is a folder", mend=f"--out {out / 'bundle.zip'}")
    if out.exists() and not force:
        raise BundleError(f"{out}: is there already", mend="--force replaces it, --out FILE.zip names another")


def _write(out: Path, data: bytes, gathered: Gathered) -> None:
    """By one rename; never over a file that it was made of."""
    from pytest_npuconf.bundle.findings import BundleError
    from pytest_npuconf.files import write_atomically

    if out.resolve() in {path.resolve() for path in gathered.sources}:
        raise BundleError(f"{out}: is one of the files that go into the bundle", mend="--out FILE.zip names another")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, data)
    except OSError as error:
        raise BundleError(
            f"{out}: cannot be written: {error}", mend="--out FILE.zip in a folder you can write to"
        ) from error
