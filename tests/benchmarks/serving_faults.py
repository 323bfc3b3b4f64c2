"""Every fault of a server, by a proxy in front of real vLLM: ``.venv-serving/bin/python -m tests.benchmarks.serving_faults``.

One server for each mode of tiny-qwen3-reranker, started once; then ``npuconf faults`` over its endpoints. ``--expected-only``
shows each fault only to the checks that should catch it: a third of the time.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from pytest_npuconf.cards import find_card
from pytest_npuconf.devices.cpu import CpuDevice
from pytest_npuconf.engines.server_engine import ServerFactory
from pytest_npuconf.faults.catalogue_serving import SERVING
from pytest_npuconf.options import Settings
from pytest_npuconf.progress import Progress
from pytest_npuconf.weights import find_weights

MODEL = "tiny-qwen3-reranker"
MODES = ("generate", "embed")
PRECISION = "bfloat16"


@contextlib.contextmanager
def servers(folder: Path) -> Iterator[dict[str, str]]:
    """A running server for each mode; mode to URL. ``folder`` gets their logs."""
    settings = Settings(models=(MODEL,), engine="server", cache=folder)
    card = find_card(MODEL)
    factory, checkpoint = ServerFactory(), find_weights(card, settings)
    factory.check(card, settings)
    with contextlib.ExitStack() as stack:
        urls = {}
        for mode in MODES:
            stated = card.serving.mode(mode)
            assert stated is not None
            served = factory.serve(checkpoint, card, stated, CpuDevice(), PRECISION, settings, Progress())
            stack.callback(served.close)
            urls[mode] = served.url
        yield urls


def campaign(folder: Path, faults: Sequence[str], file: Path, *, expected_only: bool) -> int:
    """Run these faults; ``npuconf faults``'s exit status. ``file`` gets the matrix."""
    with servers(folder) as urls:
        words = [w for name in faults for w in ("--fault", name)]
        endpoints = [w for mode, url in urls.items() for w in ("--npuconf-endpoint", f"{mode}={url}")]
        command = [
            sys.executable, "-m", "pytest_npuconf.cli", "faults", "--model", MODEL, "--precision", PRECISION, *words,
            *(["--expected-only"] if expected_only else []), "--folder", folder / "runs", "--json", file, "--",
            "--npuconf-engine", "server", *endpoints,
        ]  # fmt: skip
        return subprocess.run(list(map(str, command)), cwd=folder).returncode


def main() -> int:
    """The exit status of the campaign."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=lambda text: Path(text).absolute(), required=True)
    parser.add_argument("--expected-only", action="store_true")
    parsed = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="npuconf-serving-") as folder:
        names = [fault.name for fault in SERVING]
        return campaign(Path(folder), names, parsed.json, expected_only=parsed.expected_only)


if __name__ == "__main__":
    sys.exit(main())
