"""``npuconf doctor``: the arguments and the exit status."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_npuconf.errors import NpuconfError, SettingsError
from pytest_npuconf.option_values import parse_path, parse_precisions

if TYPE_CHECKING:
    from pytest_npuconf.doctor.case import Asked
    from pytest_npuconf.fingerprint.collect import Host

FINE, PROBLEM, WRONG = 0, 1, 2
DEVICES, ENGINES = ("npu", "cuda", "cpu"), ("transformers", "vllm")
_EPILOG = """\
exit status:
  0  nothing wrong, or warnings and notes only
  1  a problem was found
  2  a wrong command line
No device is started, nothing is changed, and no command that it runs gets more than ten seconds.
"""


def add_parser(commands: Any) -> None:
    """``doctor`` among the subcommands of npuconf."""
    parser = commands.add_parser(
        "doctor",
        help="print what a run here would be measured on and with, and what is wrong with it",
        description="Prints the fingerprint of this host and judges it; each finding has the line that mends it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--device", choices=DEVICES, help="the device of the run; default: npu where its software is, else cpu"
    )
    parser.add_argument("--model", metavar="NAME|CARD", help="judge whether this card fits into memory")
    parser.add_argument("--precision", metavar="NAMES", help="precisions of the run; default: the card's")
    parser.add_argument("--engine", choices=ENGINES, default="transformers", help="how the model is run")
    parser.add_argument("--bit-equal", action="store_true", help="equal bits are expected of repeated calls")
    parser.add_argument("--baselines", metavar="DIR", type=parse_path, help="the folder given to --npuconf-baselines")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """The exit status."""
    from pytest_npuconf.doctor import output
    from pytest_npuconf.doctor.case import diagnose
    from pytest_npuconf.fingerprint.collect import Host

    host = Host()
    try:
        asked = asked_of(parsed, host)
    except NpuconfError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return WRONG
    diagnosis = diagnose(host, asked)
    print(output.as_json(diagnosis) if parsed.json else output.as_text(diagnosis))
    return FINE if diagnosis.healthy else PROBLEM


def asked_of(parsed: argparse.Namespace, host: Host) -> Asked:
    """What the command line asks about.

    Raises:
        NpuconfError: a precision or a card that cannot be used.
    """
    from pytest_npuconf.doctor.case import Asked

    precisions = _precisions(parsed.precision)
    needed, device = None, parsed.device or default_device(host)
    if parsed.model:
        from pytest_npuconf.cards import find_card
        from pytest_npuconf.doctor.memory import needed_of

        card = find_card(parsed.model, parsed.baselines)
        precisions = precisions or card.precisions
        needed = needed_of(card, precisions, dict(host.environ))
    return Asked(device, tuple(precisions), parsed.engine, parsed.bit_equal, needed)


def _precisions(text: str | None) -> Sequence[str]:
    try:
        return parse_precisions(text) if text is not None else ()
    except ValueError as error:
        raise SettingsError(f"--precision: {error}", mend="npuconf doctor --precision float32,bfloat16") from error


def default_device(host: Host) -> str:
    """``npu`` where anything of its software is installed, else ``cpu``."""
    from pytest_npuconf.fingerprint.cann import find_cann

    found = find_cann(Path(host.root), host.environ)
    some = found.installed or found.driver or found.gaps or host.installed("torch-npu") or host.which("npu-smi")
    return "npu" if some else "cpu"
