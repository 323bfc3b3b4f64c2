"""The zip file of a bundle. The same members always give the same bytes; reading one refuses every other layout."""

from __future__ import annotations

import hashlib
import io
import re
import stat
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pytest_npuconf.bundle.findings import BundleError, Finding, wrong

LARGEST = 1 << 30  # bytes of all members together
_HEADERS = 1 << 20  # what the zip's own tables may take beside them
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that zip can say: a bundle does not depend on when it was made
_MODE = stat.S_IFREG | 0o644
_UNIX = 3
_DAMAGED = (
    OSError,
    zipfile.BadZipFile,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    struct.error,
    OverflowError,
)


@dataclass(frozen=True)
class Archive:
    """``sha256`` of the whole file; the members that could be read; what is wrong with the file itself."""

    path: Path
    sha256: str
    contents: dict[str, bytes] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


def sha256_of_bytes(data: bytes) -> str:
    """Hex digest."""
    return hashlib.sha256(data).hexdigest()


def name_problem(name: str) -> str:
    """Why this cannot be the name of a member, empty when it can: it must stay in its folder on every system."""
    parts = name.split("/")
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return "is an absolute path"
    if ".." in parts:
        return "leaves its folder by '..'"
    if "\\" in name or "\0" in name or not name.isprintable():
        return "has a backslash or a character that cannot be printed"
    if "" in parts or "." in parts:
        return "is no plain path of a file"
    return ""


def pack(contents: Mapping[str, bytes]) -> bytes:
    """The zip file: members sorted, stored and not compressed, so that no library decides its bytes."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name, data in sorted(contents.items()):
            info = zipfile.ZipInfo(name, _EPOCH)
            info.external_attr, info.create_system = _MODE << 16, _UNIX
            archive.writestr(info, data)
    return packed.getvalue()


def read_archive(path: Path) -> Archive:
    """Read a bundle into memory; nothing of it is written anywhere. What is wrong with its content is a finding.

    Raises:
        BundleError: there is no such file, or it cannot be opened.
    """
    again = "npuconf verify BUNDLE.zip"
    try:
        if not path.is_file():
            raise BundleError(f"{path}: is no file", mend=again)
        size = path.stat().st_size
        if size > LARGEST + _HEADERS:
            said = f"has {size:,} bytes; a bundle has {LARGEST:,} at most"
            return Archive(path, "", findings=(wrong(path.name, "size", said),))
        data = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error}", mend=again) from error
    digest = sha256_of_bytes(data)
    try:
        contents, findings = _members(data, path.name)
    except _DAMAGED as error:
        return Archive(path, digest, findings=(wrong(path.name, "zip", f"is damaged, or no zip file: {error}"),))
    return Archive(path, digest, contents, tuple(findings))


def _members(data: bytes, name: str) -> tuple[dict[str, bytes], list[Finding]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        findings = [*_unsafe(entries, len(data), name), *_twice(entries)]
        if findings:
            return {}, findings
        contents: dict[str, bytes] = {}
        for info in entries:
            try:
                contents[info.filename] = archive.read(info)
            except _DAMAGED as error:
                findings.append(wrong(info.filename, "zip", f"cannot be read: {error}"))
    if not findings and pack(contents) != data:
        said = "its own bytes (headers, order, a comment, something beside the members) are not those that npuconf bundle writes"
        findings.append(wrong(name, "layout", said))
    return contents, findings


def _unsafe(entries: list[zipfile.ZipInfo], size: int, name: str) -> list[Finding]:
    """Names that leave their folder, links, compressed or encrypted members, more bytes than the file can hold."""
    findings = []
    for info in entries:
        if problem := name_problem(info.orig_filename):
            findings.append(wrong(info.filename, "name", problem))
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            findings.append(wrong(info.filename, "type", "is a link or no plain file"))
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.file_size != info.compress_size:
            said = f"is compressed or encrypted ({info.compress_size:,} bytes that say {info.file_size:,})"
            findings.append(wrong(info.filename, "size", f"{said}: npuconf bundle stores members as they are"))
    total = sum(info.file_size for info in entries)
    if total > min(LARGEST, size):
        said = f"{total:,} bytes in a file of {size:,}; {LARGEST:,} are the most that is read"
        findings.append(wrong(name, "size", f"the members declare {said}"))
    return findings


def _twice(entries: list[zipfile.ZipInfo]) -> list[Finding]:
    """Names that some system would unpack into one file."""
    seen: dict[str, str] = {}
    findings = []
    for info in entries:
        key = info.filename.casefold()
        if key in seen:
            findings.append(wrong(info.filename, "name", f"stands there twice (also as {seen[key]})"))
        seen[key] = info.filename
    return findings
