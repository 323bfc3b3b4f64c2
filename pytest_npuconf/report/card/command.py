"""``npuconf card``: a Markdown model card from the results.json of one run, every figure as it was measured."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from pytest_npuconf.errors import SettingsError
from pytest_npuconf.files import write_output
from pytest_npuconf.option_values import parse_path

LANGUAGES = ("zh", "en", "both")


def add_parser(commands: Any) -> None:
    """``card`` among the subcommands of npuconf."""
    parser = commands.add_parser(
        "card",
        help="write a Markdown model card from results.json, in Chinese, English or both",
        description="Writes a model card from the results.json of one run: nothing in it that was not measured.",
    )
    parser.add_argument("results", metavar="RESULTS.json", type=parse_path, help="what --npuconf-results wrote")
    parser.add_argument("--lang", choices=LANGUAGES, default="both", help="default: both")
    parser.add_argument("--out", metavar="FILE.md", type=parse_path, help="the card to write; default: standard output")
    parser.add_argument("--model", metavar="NAME", help="which model, where the run had several")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Write the card."""
    # what reads results.json needs numpy, and ``npuconf audit`` must start without it
    from pytest_npuconf.report.card.parts import compose
    from pytest_npuconf.report.card.run import read_run

    found = read_run(parsed.results, parsed.model)
    if parsed.out is not None and parsed.out.resolve() == parsed.results.resolve():
        raise SettingsError(f"{parsed.out} would be written over: it is the results", mend="--out with another name")
    text = compose(found, parsed.lang)
    if parsed.out is None:
        _print(text)
        return 0
    write_card(parsed.out, text)
    print(f"{parsed.out}: {len(text.splitlines())} lines; npuconf audit {parsed.out} recomputes them")
    return 0


def _print(text: str) -> None:
    """UTF-8, whatever the terminal's encoding: the text is a file's."""
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode())
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough, as in npuconf card results.json | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def write_card(path: Path, text: str) -> None:
    """Write atomically: the file is whole or untouched.

    Raises:
        SettingsError: the file cannot be written.
    """
    write_output(path, text.encode(), "--out FILE.md in a folder you can write to")
