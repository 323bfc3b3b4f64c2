"""Typed reading of TOML with errors that name the file, the line and the key."""

from __future__ import annotations

import difflib
import re
import sys
from pathlib import Path
from typing import Any, TypeVar

from pytest_npuconf.errors import CardError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")
_HEADER = re.compile(r"^\s*(\[\[?)\s*(.+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"""^\s*(?:"([^"]+)"|'([^']+)'|([A-Za-z0-9_.-]+))\s*=""")


def read_toml(path: Path) -> Table:
    """The root table of ``path``.

    Raises:
        CardError: unreadable, not UTF-8, or not TOML (the parser's line and column are in the message).
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CardError(f"{path}: cannot be read: {error}", mend=f"check the file: ls -l {path}") from error
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CardError(f"{path}: not valid TOML: {error}", mend="mend that line (https://toml.io)") from error
    return Table(path, text, data)


class Table:
    """One TOML table that remembers where it stands; ``take`` each known key, then ``finish``."""

    def __init__(
        self,
        path: Path,
        text: str,
        data: dict[str, Any],
        name: str = "",
        index: int = 0,
        inside: Table | None = None,
    ) -> None:
        self.path, self.text, self.data, self.name, self.index = path, text, data, name, index
        self._inside = inside
        self._known: list[str] = []

    def __contains__(self, key: str) -> bool:
        return key in self.data

    def take(self, key: str, kind: type[T], default: T | None = None) -> T:
        """The value of ``key``, of type ``kind``; a missing one gives ``default``, or an error when that is None."""
        self._known.append(key)
        if key not in self.data:
            if default is None:
                raise self.error(key, "is missing", mend=f"add: {key} = ...")
            return default
        value = self.data[key]
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.error(key, f"must be {_spoken(kind)}, got {value!r}")
        return value

    def take_any(self, key: str) -> Any:
        """The value of ``key`` as it stands, None when missing."""
        self._known.append(key)
        return self.data.get(key)

    def choice(self, key: str, allowed: tuple[str, ...], default: str) -> str:
        """A string that must be one of ``allowed``."""
        value = self.take(key, str, default)
        if value not in allowed:
            raise self.error(key, f"must be one of {', '.join(allowed)}, got {value!r}{nearest(value, allowed)}")
        return value

    def strings(self, key: str, default: list[str] | None = None) -> tuple[str, ...]:
        """A list of non-empty strings."""
        values = self.take(key, list, default)
        for value in values:
            if not isinstance(value, str) or not value:
                raise self.error(key, f"must be a list of non-empty strings, got {value!r}")
        return tuple(values)

    def table(self, key: str) -> Table:
        """The table under ``key``, empty when missing."""
        value = self.take(key, dict, {})
        return Table(self.path, self.text, value, f"{self.name}.{key}".lstrip("."), self.index, inside=self)

    def tables(self, key: str) -> list[Table]:
        """The array of tables under ``key``."""
        values = self.take(key, list, [])
        name = f"{self.name}.{key}".lstrip(".")
        for value in values:
            if not isinstance(value, dict):
                raise self.error(key, f"must be tables written as [[{name}]], got {value!r}")
        return [Table(self.path, self.text, value, name, i) for i, value in enumerate(values)]

    def finish(self) -> None:
        """Refuse any key that nobody took."""
        for key in self.data:
            if key not in self._known:
                raise self.error(key, f"is not a key of a card{nearest(key, self._known)}")

    def error(self, key: str, problem: str, *, mend: str = "") -> CardError:
        """An error that names the file, the line and the key."""
        full = f"{self.name}.{key}".lstrip(".")
        line = self._line(key)
        return CardError(
            f"{self.path}:{line}: {full} {problem}", mend=mend or f"edit line {line}; docs/cards.md lists every key"
        )

    def _line(self, key: str) -> int:
        """Where ``key`` is written; a table written inline has no header of its own, so its parent's line stands."""
        if self._inside is not None and f"{self.name}" not in _headers(self.text):
            return self._inside._line(self.name.rpartition(".")[2])
        return find_line(self.text, self.name, key, self.index)


def nearest(word: str, words: list[str] | tuple[str, ...]) -> str:
    """``; did you mean 'x'?`` or nothing."""
    close = difflib.get_close_matches(word, list(words), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(repr(c) for c in close)}?" if close else ""


def _spoken(kind: type[Any]) -> str:
    names = {
        str: "a string",
        float: "a number",
        int: "an integer",
        list: "a list",
        dict: "a table",
        bool: "true or false",
    }
    return names.get(kind, kind.__name__)


def _dotted(header: str) -> str:
    """``gates."a.b"`` as ``gates.a.b``."""
    return ".".join(part.strip().strip("\"'") for part in re.findall(r"""\"[^"]*"|'[^']*'|[^.]+""", header))


def _headers(text: str) -> set[str]:
    return {_dotted(found.group(2)) for line in text.splitlines() if (found := _HEADER.match(line))}


def find_line(text: str, table: str, key: str, index: int = 0) -> int:
    """Line number (from 1) of ``key`` in ``table`` (the ``index``-th of an array of tables); the table's own header,
    or line 1, when the key is not written there. tomllib keeps no positions, so this looks the source over."""
    here, seen, header_line = "", -1, 1
    inside = table == ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            here = _dotted(header.group(2))
            if here == table:
                seen += 1
            inside = here == table and (header.group(1) == "[" or seen == index)
            if inside:
                header_line = number
            elif here == f"{table}.{key}".lstrip("."):
                return number
        elif inside and (found := _KEY.match(line)):
            written = next(group for group in found.groups() if group)
            if written == key or written.split(".")[0] == key:
                return number
    return header_line
