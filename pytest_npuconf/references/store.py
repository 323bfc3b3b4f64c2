"""Writing stored references: atomic, under a lock, old ones removed only when the new ones stand."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from pytest_npuconf.errors import BaselineError
from pytest_npuconf.references.baseline import ARRAYS_NAME, JSON_NAME, Baseline, arrays_bytes, to_json
from pytest_npuconf.references.sealed import DIGEST

LOCK = ".npuconf.lock"
SCRATCH = ".npuconf-new-"


@dataclass(frozen=True)
class Written:
    """What a recording changed: digests (12 digits) of the file before and now; ``old`` is empty for a new one."""

    path: Path
    old: str
    new: str

    def __str__(self) -> str:
        state = "unchanged" if self.old == self.new else f"{self.old or 'none'} -> {self.new}"
        return f"{self.path}: {state}"


def write_baselines(folder: Path, baselines: list[Baseline]) -> list[Written]:
    """Write all of one model's references or none of them: the arrays first, under names of their content, then each JSON
    by one rename. Whoever is killed in between leaves the old ones whole.

    Raises:
        BaselineError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            sweep(folder)
            staged = [_stage(folder, baseline) for baseline in baselines]
            written = [_publish(folder, stem, scratch) for stem, scratch in staged]
            for orphan in orphans(folder):
                orphan.unlink()
            return written
    except OSError as error:
        raise BaselineError(
            f"{folder}: cannot be written: {error}", mend="--npuconf-baselines DIR, a folder you can write to"
        ) from error


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One recorder at a time; the kernel lets go when it dies."""
    with FileLock(str(folder / LOCK)):
        yield


def sweep(folder: Path) -> None:
    """Remove what a killed recorder or installation left."""
    for left in folder.glob(f"{SCRATCH}*"):
        left.unlink()


def _stage(folder: Path, baseline: Baseline) -> tuple[str, Path]:
    data = arrays_bytes(baseline.arrays)
    sha256 = hashlib.sha256(data).hexdigest()
    name = f"{baseline.stem}.{sha256[:12]}.safetensors"
    _write(folder / f"{SCRATCH}{name}", data).replace(folder / name)
    return baseline.stem, _write(folder / f"{SCRATCH}{baseline.stem}.json", to_json(baseline, name, sha256).encode())


def _publish(folder: Path, stem: str, scratch: Path) -> Written:
    target = folder / f"{stem}.json"
    old, new = short_digest(target), short_digest(scratch)
    scratch.replace(target)
    return Written(target, old, new)


def _write(path: Path, data: bytes) -> Path:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return path


def short_digest(path: Path) -> str:
    """The first 12 digits of a stored reference's digest; empty where there is none to read."""
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))[DIGEST])[:12]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""


def stored_files(folder: Path) -> list[Path]:
    """The JSON files of stored references; nothing else in the folder is ours."""
    return sorted(path for path in folder.glob("*.json") if JSON_NAME.fullmatch(path.name))


def orphans(folder: Path) -> list[Path]:
    """Arrays that were recorded here and that no reference names any more. Nobody else's file has such a name; those of a
    reference that cannot be read are left alone."""
    named, unreadable = set(), set()
    for path in stored_files(folder):
        try:
            named.add(json.loads(path.read_text(encoding="utf-8"))["arrays"]["file"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            unreadable.add(path.stem)
    ours = [(path, ARRAYS_NAME.fullmatch(path.name)) for path in sorted(folder.glob("*.safetensors"))]
    return [path for path, match in ours if match and path.name not in named and match["stem"] not in unreadable]
