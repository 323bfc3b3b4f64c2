"""Edits a bundle byte by byte, and asks an installed ``npuconf verify`` about each: ``make evidence``.

Every member is edited once, in its middle, and so is the zip's own directory: each must be refused. The untouched bundle must be
verified again afterwards, so that what was refused was refused for the edit.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path


def edited(data: bytes, place: int) -> bytes:
    """The same with one bit of one byte turned."""
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def places(path: Path) -> dict[str, int]:
    """A place in the middle of each member's stored bytes, and one in the zip's directory."""
    with zipfile.ZipFile(path) as archive:
        found = {
            info.filename: info.header_offset
            + 30
            + len(info.filename.encode())
            + len(info.extra)
            + info.compress_size // 2
            for info in archive.infolist()
        }
        found["the zip's directory"] = archive.start_dir + 20
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--verify", default="npuconf", help="the npuconf to ask")
    parsed = parser.parse_args()
    data, accepted = parsed.bundle.read_bytes(), []

    def verify(path: Path) -> int:
        return subprocess.run([parsed.verify, "verify", path], capture_output=True, check=False).returncode

    with tempfile.TemporaryDirectory() as folder:
        for name, place in places(parsed.bundle).items():
            copy = Path(folder) / "edited.zip"
            copy.write_bytes(edited(data, place))
            status = verify(copy)
            print(f"{name}: byte {place:,} edited: {'refused' if status else 'ACCEPTED'} (exit {status})")
            accepted += [] if status else [name]
    untouched = verify(parsed.bundle)
    print(f"untouched: {'verified' if untouched == 0 else f'REFUSED (exit {untouched})'}")
    return 1 if accepted or untouched else 0


if __name__ == "__main__":
    sys.exit(main())
