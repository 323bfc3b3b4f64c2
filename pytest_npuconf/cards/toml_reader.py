"""Typed reading of TOML with errors that name the file, the line and the key."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pytest_npuconf.errors import CardError, nearest

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

    def words(self, key: str) -> str:
        """A string that says something."""
        value = self.take(key, str)
        if not value.strip():
            raise self.error(key, "is empty")
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
        if self._inside is not None and not _has_header(self.text, self.name):
            return self._inside._line(self.name.removeprefix(f"{self._inside.name}."))
        return find_line(self.text, self.name, key, self.index)


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


def _has_header(text: str, table: str) -> bool:
    return any(line.table == table for line in _lines(text) if line.header)


@dataclass(frozen=True)
class _Line:
    """A line of TOML outside any multi-line value: a header of ``table``, or a ``key`` in it; ``index`` counts the
    ``[[...]]`` headers of the outermost array of tables so far."""

    number: int
    table: str
    index: int
    header: bool
    key: str = ""


def _lines(text: str) -> list[_Line]:
    found: list[_Line] = []
    table, counts, depth, quote = "", {}, 0, ""  # type: str, dict[str, int], int, str
    for number, raw in enumerate(text.splitlines(), start=1):
        outside = depth == 0 and not quote
        header = _HEADER.match(raw) if outside else None
        if header:
            table = _dotted(header.group(2))
            if header.group(1) == "[[":
                counts[table] = counts.get(table, -1) + 1
            found.append(_Line(number, table, _index(counts, table), True))
            continue
        if outside and (key := _KEY.match(raw)):
            written = next(group for group in key.groups() if group)
            found.append(_Line(number, table, _index(counts, table), False, written))
        depth, quote = _scan(raw, depth, quote)
    return found


def _index(counts: dict[str, int], table: str) -> int:
    """Which entry of its array of tables this is; a sub-table belongs to its array's latest entry."""
    owners = [name for name in counts if table == name or table.startswith(f"{name}.")]
    return counts[max(owners, key=len)] if owners else 0


def _scan(line: str, depth: int, quote: str) -> tuple[int, str]:
    """Brackets open and the multi-line quote open after ``line``."""
    i = 0
    while i < len(line):
        if quote:
            end = line.find(quote, i)
            if end < 0:
                return depth, quote
            i, quote = end + 3, ""
        elif line.startswith(('"""', "'''"), i):
            quote, i = line[i : i + 3], i + 3
        elif line[i] in "\"'":
            skipped = re.compile(r'"(?:[^"\\]|\\.)*"|\'[^\']*\'').match(line, i)
            i = skipped.end() if skipped else len(line)
        elif line[i] == "#":
            break
        else:
            depth += (line[i] in "[{") - (line[i] in "]}")
            i += 1
    return depth, quote


def find_line(text: str, table: str, key: str, index: int = 0) -> int:
    """Line number (from 1) of ``key`` in ``table`` (the ``index``-th of an array of tables); the table's own header, or
    line 1, when the key is not written there. tomllib keeps no positions, so this looks the source over."""
    header_line = 1
    for line in _lines(text):
        if line.index != index:
            continue
        below = line.header and f"{line.table}.".startswith(f"{table}.{key}.".lstrip("."))
        written = not line.header and line.table == table and key in (line.key, line.key.split(".")[0])
        if below or written:
            return line.number
        if line.header and line.table == table:
            header_line = line.number
    return header_line
