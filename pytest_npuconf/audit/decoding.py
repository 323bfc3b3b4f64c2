"""Bytes to text. What is no text, or too long to be a card, is refused with the reason."""

from __future__ import annotations

import codecs
from pathlib import Path

from pytest_npuconf.errors import AuditError

MAX_BYTES = 4_000_000
"""The longest cards known are below 0.5 MB. A file of 50 MB is a log or a checkpoint; it is refused unread."""
MAX_LINE = 8_000
"""Characters in a line: embedded pictures (data:image/png;base64,...) are longer, and are cut."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),  # before UTF-16's
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
_KNOWN = (
    (b"\x89PNG", "a PNG picture"), (b"\xff\xd8\xff", "a JPEG picture"), (b"GIF8", "a GIF picture"), (b"%PDF", "a PDF"),
    (b"PK\x03\x04", "a ZIP archive (docx, xlsx, pth)"), (b"\x1f\x8b", "a gzip archive"), (b"\x7fELF", "a program"),
    (b"GGUF", "a GGUF checkpoint"), (b"\x80\x02", "a Python pickle"), (b"\x80\x04", "a Python pickle"),
)  # fmt: skip
_MEND = "npuconf audit reads Markdown or plain text, such as a README.md"


def read_bytes(path: Path) -> bytes:
    """The file's content. AuditError where there is none, or too much of it."""
    try:
        if path.is_dir():
            raise AuditError(f"{path} is a folder", mend=f"name a file in it: npuconf audit {path / 'README.md'}")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise AuditError(
                f"{path} has {size / 1e6:.1f} MB; a card of more than {MAX_BYTES / 1e6:.0f} MB is not read", mend=_MEND
            )
        with path.open("rb") as file:  # a growing file or a device is cut at the limit too
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise AuditError(f"cannot read {path}: {error.strerror or error}", mend=_MEND) from error
    except ValueError as error:  # a name with a null character
        raise AuditError(f"cannot read {str(path)!r}: {error}", mend=_MEND) from error
    if len(data) > MAX_BYTES:
        raise AuditError(f"{path} is longer than {MAX_BYTES / 1e6:.0f} MB and is not read", mend=_MEND)
    return data


def decode(data: bytes, name: str) -> tuple[str, tuple[str, ...]]:
    """Text, and what had to be assumed. UTF-8 with or without mark, UTF-16 with mark, else GB 18030, announced."""
    for start, what in _KNOWN:
        if data.startswith(start):
            raise AuditError(f"{name} is {what}, not text", mend=_MEND)
    encoding = next((encoding for mark, encoding in _MARKS if data.startswith(mark)), "")
    if encoding:
        try:
            return _checked(data.decode(encoding), name), ()
        except UnicodeDecodeError as error:
            raise _broken(name, encoding, error) from error
    if b"\x00" in data:
        raise AuditError(f"{name} holds null bytes: it is binary, or UTF-16 without its mark", mend=_MEND)
    try:
        return _checked(data.decode("utf-8"), name), ()
    except UnicodeDecodeError as error:
        broken = error
    try:
        text = _checked(data.decode("gb18030"), name)
    except UnicodeDecodeError as error:
        raise _broken(name, "UTF-8 nor GB 18030", broken) from error
    return text, (f"{name} is not UTF-8 (byte {broken.start}); it was read as GB 18030",)


def _broken(name: str, encoding: str, error: UnicodeDecodeError) -> AuditError:
    neither = "neither " if " nor " in encoding else "not valid "
    return AuditError(
        f"{name} is {neither}{encoding}: byte {error.start} is 0x{error.object[error.start]:02x}",
        mend="convert it, for example: iconv -f ENCODING -t utf-8 OLD > NEW",
    )


def _checked(text: str, name: str) -> str:
    """The text, where it looks like one: few control characters, no null."""
    sample = text[:200_000]
    control = sum(
        1 for character in sample if (character < " " and character not in "\t\n\r\f\v\x1b") or character == "\x7f"
    )
    if control > max(8, len(sample) // 100):
        raise AuditError(f"{name} holds {control} control characters in {len(sample)}: it is no text", mend=_MEND)
    return text
