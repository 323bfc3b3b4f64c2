"""What the servers' command lines take, from real wheels: ``python -m tests.benchmarks.serve_arguments --write``.

Downloads the wheels that are missing (pip; 310 MB of LMDeploy, 430 MB of vLLM), reads them without unpacking or importing,
and writes tests/data/serve_arguments.json. With ``--python`` (one with torch, transformers and fastapi, such as that of ``make
test-serving``) LMDeploy's own parser is built there and asked too. Exit 1 where it and the reading differ.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from pytest_npuconf.engines.command_lines import Known, Option, Source, lmdeploy_options, vllm_options
from pytest_npuconf.files import write_atomically
from tests.benchmarks.stack_names import FOLDER, ROOT, download
from tests.benchmarks.stack_wheels import Wheel

DATA = ROOT / "tests" / "data" / "serve_arguments.json"
# vLLM of the NPU stack; LMDeploy: of the time of the documents (mid 2025, it still has `serve gradio`), one between, the
# newest on 2026-11-22.
WHEELS = (("vllm", "0.18.0"), ("lmdeploy", "0.9.2"), ("lmdeploy", "0.12.3"), ("lmdeploy", "0.18.0"))
READERS = {"vllm": vllm_options, "lmdeploy": lmdeploy_options}


def wheel_folder() -> Path:
    """NPUCONF_WHEELS, else build/stack."""
    return Path(os.environ.get("NPUCONF_WHEELS", FOLDER))


def find_wheel(folder: Path, package: str, version: str) -> Path | None:
    """The wheel of a release in a folder, None where it is not there."""
    return next(iter(sorted(folder.glob(f"{package}-{version}-*.whl"))), None)


def source_of(wheel: Wheel) -> Source:
    """Reads the files of a wheel."""

    def read(member: str) -> str | None:
        try:
            return wheel.read(member).decode()
        except KeyError:
            return None

    return read


def known_of(options: dict[str, Any]) -> Known:
    """The options of the kept result, by flag."""
    return {
        flag: Option((flag,), None if each["choices"] is None else tuple(each["choices"]), each["switch"])
        for flag, each in options.items()
    }


def record(path: Path) -> dict[str, Any]:
    """What the reading of one wheel finds."""
    wheel = Wheel(path)
    known = READERS[wheel.package](source_of(wheel))
    if known is None:
        raise ValueError(f"{path.name}: its command line is not where it was")
    options = {
        flag: {"choices": option.choices and list(option.choices), "switch": option.switch}
        for flag, option in known.items()
    }
    facts = {"package": wheel.package, "version": wheel.version, "file": path.name, "sha256": wheel.sha256()}
    return facts | {"read": options}


def ask_parser(path: Path, python: Path) -> dict[str, Any]:
    """What LMDeploy's own parser says, built in another Python.

    Raises:
        subprocess.CalledProcessError: it cannot be built there; its words are on the standard error.
    """
    wheel = Wheel(path)
    with tempfile.TemporaryDirectory() as folder:
        for member in wheel.sources():
            target = Path(folder) / member
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(wheel.read(member))
        words = [str(python), "-W", "ignore", "-m", "tests.benchmarks.lmdeploy_parser", folder]
        found = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    return json.loads(found.stdout)  # type: ignore[no-any-return]


def differences(read: dict[str, Any], parser: dict[str, Any]) -> list[str]:
    """Where the reading is not what the parser says. Choices that are computed are not read, and no difference."""
    told = [f"{flag}: read, but not the parser's" for flag in sorted(read.keys() - parser.keys())]
    told += [f"{flag}: the parser's, but not read" for flag in sorted(parser.keys() - read.keys())]
    for flag in sorted(read.keys() & parser.keys()):
        if read[flag]["switch"] != parser[flag]["switch"]:
            told.append(f"{flag}: switch {read[flag]['switch']}, the parser says {parser[flag]['switch']}")
        if read[flag]["choices"] is not None and read[flag]["choices"] != parser[flag]["choices"]:
            told.append(f"{flag}: read {read[flag]['choices']}, the parser takes {parser[flag]['choices']}")
    return told


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wheels", type=Path, default=wheel_folder(), help="folder of the wheels (build/stack)")
    parser.add_argument("--python", type=Path, help="a Python in which LMDeploy's own parser can be built")
    parser.add_argument("--write", action="store_true", help="write tests/data/serve_arguments.json; needs --python")
    options = parser.parse_args(arguments)
    if options.write and options.python is None:
        parser.error("--write needs --python: what is kept has the parser's own words")
    missing = [f"{p}=={v}" for p, v in WHEELS if find_wheel(options.wheels, p, v) is None]
    download(options.wheels, missing)
    kept, told = [], []
    for package, version in WHEELS:
        path = find_wheel(options.wheels, package, version)
        assert path is not None
        entry = record(path)
        if package == "lmdeploy" and options.python is not None:
            entry["parser"] = ask_parser(path, options.python)
            told += [f"lmdeploy {version} {text}" for text in differences(entry["read"], entry["parser"]["options"])]
        kept.append(entry)
        print(f"{path.name}: {len(entry['read'])} flags, sha256 {entry['sha256']}")
    if options.write:
        write_atomically(DATA, (json.dumps({"schema": 1, "wheels": kept}, indent=1, sort_keys=True) + "\n").encode())
    for text in told:
        print(f"PROBLEM {text}")
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main())
