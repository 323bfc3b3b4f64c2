"""Reference packs: the stored references of one model in one file, to be recorded on one host and used on another.

A pack is a zip file with ``pack.json`` (schema version, model, and sha256 and size of each file) and the files themselves.
The same references always give the same bytes, so that a pack can be named by its own sha256.
"""

from __future__ import annotations

import hashlib
import io
import json
import operator
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pytest_npuconf.errors import BaselineError
from pytest_npuconf.files import write_atomically
from pytest_npuconf.references.baseline import ARRAYS_NAME, JSON_NAME, read_baseline
from pytest_npuconf.references.store import SCRATCH, locked, orphans, stored_files, sweep

PACK_VERSION = 1
MANIFEST = "pack.json"
_FOREIGN = "do not use this pack: no npuconf made it"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that zip can say: a pack does not depend on when it was made


@dataclass(frozen=True)
class Pack:
    """``files``: the references' files in it, by name; ``sha256``: of the pack itself."""

    path: Path
    model: str
    files: tuple[str, ...]
    sha256: str


def write_pack(folder: Path, model: str, target: Path) -> Pack:
    """Pack the stored references of ``model`` in ``folder`` into ``target``; every one is read and checked first.

    Raises:
        BaselineError: none there, one is damaged or another model's, or the target cannot be written.
    """
    stored = stored_files(folder)
    if not stored:
        raise BaselineError(
            f"{folder}: no stored reference of {model} to pack", mend=f"pytest --model {model} --npuconf-record"
        )
    contents: dict[str, bytes] = {}
    for path in stored:
        if read_baseline(path).model != model:
            raise BaselineError(f"{path}: is not a reference of {model}", mend="pack the folder of that model")
        text = path.read_bytes()
        arrays = json.loads(text)["arrays"]["file"]
        contents |= {path.name: text, arrays: (folder / arrays).read_bytes()}
    listed = {name: {"sha256": _sha256(data), "bytes": len(data)} for name, data in sorted(contents.items())}
    manifest = {"schema_version": PACK_VERSION, "model": model, "files": listed}
    contents[MANIFEST] = (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, _zip(contents))
    except OSError as error:
        raise BaselineError(
            f"{target}: cannot be written: {error}", mend="name a file in a folder you can write to"
        ) from error
    return Pack(target, model, tuple(listed), _sha256(target.read_bytes()))


def _zip(contents: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name, data in sorted(contents.items()):
            info = zipfile.ZipInfo(name, _EPOCH)
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)
    return packed.getvalue()


def read_pack(path: Path) -> tuple[Pack, dict[str, bytes]]:
    """Read and check a pack whole, before anything of it is written anywhere.

    Raises:
        BaselineError: not a pack, another schema version, a wrong hash, a file that is missing, not listed, or named so that
            it would land outside its folder.
    """
    again = "get the pack again from whoever made it (npuconf pack MODEL FILE)"
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            names = [info.filename for info in entries]
            for info in entries:
                _check_entry(path, info)
            if len(set(names)) != len(names):
                raise BaselineError(f"{path}: holds a file twice", mend=again)
            if MANIFEST not in names:
                raise BaselineError(f"{path}: has no {MANIFEST}: it is not a reference pack", mend=again)
            manifest = _manifest(path, archive.read(MANIFEST), again)
            _check_listed(path, names, manifest, again)
            contents = {name: archive.read(name) for name in manifest["files"]}
    except (OSError, zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise BaselineError(f"{path}: cannot be read as a reference pack: {error}", mend=again) from error
    for name, data in contents.items():
        if len(data) != manifest["files"][name]["bytes"]:
            raise BaselineError(f"{path}: {name} does not have the size that {MANIFEST} gives", mend=again)
        if _sha256(data) != manifest["files"][name]["sha256"]:
            raise BaselineError(f"{path}: {name} does not have the sha256 that {MANIFEST} gives", mend=again)
    return Pack(path, manifest["model"], tuple(contents), _sha256(path.read_bytes())), contents


def _manifest(path: Path, data: bytes, again: str) -> dict[str, Any]:
    try:
        manifest = json.loads(data)
        version, model, files = manifest["schema_version"], manifest["model"], manifest["files"]
        sizes = {name: (entry["sha256"], operator.index(entry["bytes"])) for name, entry in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BaselineError(f"{path}: {MANIFEST} is damaged: {type(error).__name__}: {error}", mend=again) from error
    if version != PACK_VERSION:
        raise BaselineError(
            f"{path}: schema_version of the pack is {version!r}, this pytest-npuconf reads {PACK_VERSION}",
            mend="use the version of pytest-npuconf that made it",
        )
    _check_name(path, model)
    foreign = [name for name in sizes if not JSON_NAME.fullmatch(name) and not ARRAYS_NAME.fullmatch(name)]
    if foreign:
        raise BaselineError(f"{path}: {foreign[0]!r} is no file of a reference", mend=_FOREIGN)
    if not any(JSON_NAME.fullmatch(name) for name in sizes):
        raise BaselineError(f"{path}: {MANIFEST} lists no reference", mend=again)
    loaded: dict[str, Any] = manifest
    return loaded


def _check_listed(path: Path, names: list[str], manifest: Mapping[str, Any], again: str) -> None:
    listed = {MANIFEST, *manifest["files"]}
    for name in sorted(listed ^ set(names)):
        state = "is listed but missing" if name in listed else f"is not listed in {MANIFEST}"
        raise BaselineError(f"{path}: {name} {state}", mend=again)


def _check_entry(path: Path, info: zipfile.ZipInfo) -> None:
    """A file as :func:`write_pack` writes it: a plain name, stored and not compressed, so that no pack takes more memory than
    its own size."""
    _check_name(path, info.filename)
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.file_size != info.compress_size:
        raise BaselineError(f"{path}: {info.filename} is compressed or encrypted", mend=_FOREIGN)


def _check_name(path: Path, name: Any) -> None:
    """A plain file name: nothing of a pack may land outside its folder."""
    plain = isinstance(name, str) and bool(name) and name == PurePosixPath(name).name
    if not plain or name.startswith(".") or "\\" in name or "\0" in name:
        raise BaselineError(
            f"{path}: {name!r} is not a plain file name: it would land outside the pack's folder",
            mend=_FOREIGN,
        )


def install_pack(path: Path, root: Path) -> tuple[Pack, list[Path]]:
    """Install a pack into ``root/<model>``; files of the same name are replaced, others stay.

    Raises:
        BaselineError: see :func:`read_pack`; a reference in it is damaged; the folder cannot be written.
    """
    pack, contents = read_pack(path)
    folder = root / pack.model
    try:
        with tempfile.TemporaryDirectory() as scratch:
            for name, data in contents.items():
                (Path(scratch) / name).write_bytes(data)
            for stored in stored_files(Path(scratch)):
                _check_reference(pack, stored)
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            sweep(folder)
            # arrays first: a JSON that stands always finds its arrays
            for name in sorted(contents, key=lambda n: n.endswith(".json")):
                new = folder / f"{SCRATCH}{name}"
                new.write_bytes(contents[name])
                new.replace(folder / name)
            for orphan in orphans(folder):
                orphan.unlink()
    except OSError as error:
        raise BaselineError(
            f"{folder}: cannot be written: {error}", mend="--into DIR, a folder you can write to"
        ) from error
    return pack, [folder / name for name in pack.files]


def _check_reference(pack: Pack, stored: Path) -> None:
    again = "get the pack again from whoever made it (npuconf pack MODEL FILE)"
    try:
        model = read_baseline(stored).model
    except BaselineError as error:
        said = error.what.replace(str(stored), f"{pack.path}: {stored.name}")
        raise BaselineError(said, mend=again) from error
    if model != pack.model:
        raise BaselineError(f"{pack.path}: {stored.name} is not a reference of {pack.model}", mend=again)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
