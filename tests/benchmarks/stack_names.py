"""Proves the names of pytest_npuconf/ascend/names.toml from real wheels: ``python -m tests.benchmarks.stack_names --write``.

Downloads the wheels that are missing (pip, 620 MB in all), reads them without unpacking or importing, and writes what was found to
tests/data/ascend_names.json and docs/ascend-names.md. Exit 1 where a name is not as the list says.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pytest_npuconf.ascend.names import PACKAGES, Name, names
from pytest_npuconf.files import write_atomically
from tests.benchmarks.stack_page import page
from tests.benchmarks.stack_wheels import MENTION, Wheel, find_all

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data" / "ascend_names.json"
PAGE = ROOT / "docs" / "ascend-names.md"
FOLDER = ROOT / "build" / "stack"
# The version that vllm-ascend 0.18.0 pins, the newest on 2026-11-22, one between; the newest vllm-ascend that has a wheel
# (0.23.0.post1 and the release candidates from 0.27 on are sources only); vLLM for the variables that are its own.
WHEELS = (
    ("torch_npu", "2.9.0"),
    ("torch_npu", "2.11.0"),
    ("torch_npu", "2.14.0"),
    ("vllm_ascend", "0.18.0"),
    ("vllm_ascend", "0.23.0"),
    ("vllm", "0.18.0"),
)
_GLIBC = ("2_17", "2_24", "2_28", "2_31", "2_34")


def find_wheels(folder: Path) -> tuple[dict[tuple[str, str], Path], list[str]]:
    """The wheels of :data:`WHEELS` in a folder, and those that are not there, in pip's words."""
    there = {tuple(path.name.split("-")[:2]): path for path in sorted(folder.glob("*.whl"))}
    found = {wanted: there[wanted] for wanted in WHEELS if wanted in there}
    return found, [f"{package}=={version}" for package, version in WHEELS if (package, version) not in there]


def download(folder: Path, wanted: Iterable[str]) -> None:
    """Fetch wheels for Python 3.11 on x86_64 Linux, wherever this runs.

    Raises:
        subprocess.CalledProcessError: pip found none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    platforms = [word for glibc in _GLIBC for word in ("--platform", f"manylinux_{glibc}_x86_64")]
    for requirement in wanted:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:"]
        command += [
            "--python-version",
            "3.11",
            "--implementation",
            "cp",
            *platforms,
            "--dest",
            str(folder),
            requirement,
        ]
        subprocess.run(command, check=True)


def record(path: Path, listed: tuple[Name, ...]) -> dict[str, Any]:
    """What one wheel shows: its file, what it asks for, and for each name where it is, or None."""
    wheel = Wheel(path)
    found = {name: None if each is None else dataclasses.asdict(each) for name, each in find_all(wheel, listed).items()}
    facts = {"package": wheel.package, "version": wheel.version, "file": path.name, "bytes": path.stat().st_size}
    return facts | {"sha256": wheel.sha256(), "requires": wheel.requires(), "found": found}


def problems(listed: tuple[Name, ...], wheels: list[dict[str, Any]]) -> list[str]:
    """What the wheels show otherwise than the list says. A mention proves nothing, and is too much of an absent name."""
    told = []
    for name in listed:
        for wheel in wheels:
            where = f"{wheel['package']} {wheel['version']}"
            if name.absent:
                found = wheel["found"].get(name.name)
                if found is not None:
                    told.append(f"{name.name}: listed as absent, but {where} has it: {found['where']}")
            elif name.package == wheel["package"]:
                told += [f"{name.name}: {text}" for text in _compared(name, wheel, where)]
    return told


def _compared(name: Name, wheel: dict[str, Any], where: str) -> list[str]:
    if name.name not in wheel["found"]:
        return [f"{where} was read before this name was listed; mend: make stack-names"]
    found = wheel["found"][name.name]
    shown = found is not None and found["how"] != MENTION
    if name.expected_in(wheel["version"]) != shown:
        if shown:
            return [f"{where} has it, and the list says that it has not: {found['where']}"]
        return [f"not in {where}" + (f", only mentioned: {found['where']}" if found else "")]
    if shown and name.signatures and found["signature"] not in name.signatures:
        return [f"its parameters in {where} are {found['signature']}, known are {' or '.join(name.signatures)}"]
    return []


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wheels", type=Path, default=FOLDER, help="folder of the wheels (build/stack)")
    parser.add_argument(
        "--write", action="store_true", help="write tests/data/ascend_names.json and docs/ascend-names.md"
    )
    parser.add_argument("--page", action="store_true", help="write the page anew from the kept result; reads no wheel")
    options = parser.parse_args(arguments)
    listed = names()
    if options.page:
        data = json.loads(DATA.read_text(encoding="utf-8"))
    else:
        _, missing = find_wheels(options.wheels)
        download(options.wheels, missing)
        paths, _ = find_wheels(options.wheels)
        data = {"schema": 1, "wheels": [record(paths[wanted], listed) for wanted in WHEELS]}
    told = problems(listed, data["wheels"])
    if options.write:
        write_atomically(DATA, (json.dumps(data, indent=1, sort_keys=True) + "\n").encode())
    if options.write or options.page:
        write_atomically(PAGE, page(listed, data["wheels"]).encode())
    print(page(listed, data["wheels"]))
    for text in told:
        print(f"PROBLEM {text}")
    print(f"{len(listed)} names, {len(data['wheels'])} wheels, packages {', '.join(PACKAGES)}: {len(told)} problems")
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main())
