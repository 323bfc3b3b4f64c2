"""Files on the disk: their hash, and writing them whole or not at all."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from pytest_npuconf.errors import SettingsError


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 24):
            digest.update(chunk)
    return digest.hexdigest()


def write_atomically(path: Path, data: bytes, *, mode: int | None = None) -> None:
    """Write ``path`` by one rename: it is whole or untouched, and nothing else is left.

    Args:
        mode: permission bits; None takes those of a file that ``open`` makes, under the process's umask.

    Raises:
        OSError: the folder cannot be written.
    """
    handle, scratch = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(scratch, 0o666 & ~_umask() if mode is None else mode)
        os.replace(scratch, path)
    except BaseException:
        os.unlink(scratch)
        raise


def write_output(path: Path, data: bytes, mend: str) -> None:
    """The same of a file that somebody asked for.

    Raises:
        SettingsError: it cannot be written; ``mend`` says what to ask for.
    """
    try:
        write_atomically(path, data)
    except OSError as error:
        raise SettingsError(f"{path}: {error}", mend=mend) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
