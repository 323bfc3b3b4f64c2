"""Lines as a Markdown parser needs them, each with the line of the file that it comes from.

Mended: front matter, tables in HTML, fences, commands without a fence, tables glued to the prose before or after them,
bullets that Markdown does not know, headings that lost their "#", and (``recover``) tables that lost their separators.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_npuconf.audit.document import Pair, Table
from pytest_npuconf.audit.fences import GLUED, Line, close_fences, fence_commands
from pytest_npuconf.audit.html_tables import take_html_tables
from pytest_npuconf.audit.normalise import tidy
from pytest_npuconf.audit.recover import recover_tables

_DELIMITER = re.compile(r"^\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$")
_BORDER = re.compile(r"^\s*\+(?:[-=:]{2,}\+)+\s*$")
_DRAWN = re.compile(r"^\s*(?:\|.*\||\+(?:[-=:]{2,}\+)+)\s*$")
_BULLET = re.compile(r"^(\s*)[•●▪◦○■◆►➤‣∙]\s*")
_FRONT_KEY = re.compile(r"^(?P<indent>\s*)(?P<key>[\w.\-]+)\s*:(?:\s+(?P<value>.*))?$")
_HEADING = re.compile(r"^\s{0,3}#{1,6}\s+\S")


@dataclass(frozen=True)
class Repaired:
    """``lines`` for the parser, ``origins``: the line of the file (from 1) of each; what was taken out of them."""

    lines: tuple[str, ...]
    origins: tuple[int, ...]
    pairs: tuple[Pair, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()


def repair(lines: Sequence[str]) -> Repaired:
    """Everything that is mended before the Markdown parser reads."""
    entries = [Line(text.expandtabs(4) if text.startswith("\t") else text, n) for n, text in enumerate(lines, 1)]
    entries, pairs = _take_front_matter(entries)
    entries, notes = close_fences(entries)
    entries, html = take_html_tables(entries)
    entries = [_plain_bars(entry) for entry in entries]
    entries = _cut_glued(entries)
    entries = fence_commands(entries)
    entries, dropped = _separate_tables(_delimited(entries))
    entries, recovered = recover_tables(entries)
    entries = _plain_headings(entries)
    entries = [_readable(entry) for entry in entries]
    return Repaired(
        tuple(entry.text for entry in entries),
        tuple(entry.origin for entry in entries),
        tuple(pairs),
        (*html, *recovered),
        (*notes, *dropped),
    )


def code_lines(lines: Sequence[str]) -> set[int]:
    """The lines (from 1) that are code, with a fence or without."""
    entries, _ = close_fences([Line(text, number) for number, text in enumerate(lines, 1)])
    return {entry.origin for entry in fence_commands(_cut_glued(entries)) if entry.code}


def _take_front_matter(entries: list[Line]) -> tuple[list[Line], list[Pair]]:
    """The YAML block at the top as pairs; lists are joined by commas, nested keys by dots."""
    first = next((index for index, entry in enumerate(entries) if entry.text.strip()), None)
    if first is None or entries[first].text.strip() != "---":
        return entries, []
    limit = min(len(entries), first + 400)
    end = next((i for i in range(first + 1, limit) if entries[i].text.strip() in ("---", "...")), None)
    if end is None or not any(_FRONT_KEY.match(entry.text) for entry in entries[first + 1 : end]):
        return entries, []
    stack: list[tuple[int, str]] = []
    found: dict[str, tuple[list[str], int]] = {}
    for entry in entries[first + 1 : end]:
        match = _FRONT_KEY.match(re.sub(r"^(\s*)-\s+(?=[\w.\-]+\s*:(?:\s|$))", r"\1  ", entry.text))
        if match is None:
            item = re.match(r"^\s*-\s+(.*)$", entry.text)
            if item and stack:
                found.setdefault(".".join(key for _, key in stack), ([], entry.origin))[0].append(item[1])
            continue
        indent = len(match["indent"])
        stack = [*((depth, key) for depth, key in stack if depth < indent), (indent, match["key"])]
        value = (match["value"] or "").strip().strip("\"'")
        name = ".".join(key for _, key in stack)
        if value:
            found.setdefault(name, ([], entry.origin))[0].append(value)
    pairs = [Pair(key, tidy(", ".join(values)), line, "") for key, (values, line) in found.items()]
    return entries[end + 1 :], pairs


def _plain_bars(entry: Line) -> Line:
    """A row between full-width bars, with plain ones; bars inside a sentence stay."""
    text = entry.text.strip()
    drawn = len(text) > 2 and text[0] == text[-1] == "｜" and "|" not in text and not entry.code
    return Line(entry.text.replace("｜", "|"), entry.origin) if drawn else entry


def _cut_glued(entries: Sequence[Line]) -> list[Line]:
    """A command, a table's header or the text after its last row, glued to another line, stands on a line of its own."""
    result: list[Line] = []
    columns = 0
    for index, entry in enumerate(entries):
        if entry.code:
            result.append(entry)
            columns = 0
            continue
        following = entries[index + 1] if index + 1 < len(entries) else None
        parts = _cut_row(entry.text, columns) if columns else [entry.text]
        if following and _is_delimiter(following):
            columns = len(cells(following.text))
            parts[-1:] = _cut_header(parts[-1], columns)
        elif len(parts) > 1 or "|" not in entry.text:
            columns = 0
        header = parts.pop() if len(parts) > 1 and parts[-1].startswith("|") else None
        pieces = [piece for part in parts for piece in GLUED.split(part)]
        pieces += [] if header is None else [header]
        result.extend(Line(piece, entry.origin) for piece in pieces)
    return result


def _cut_row(text: str, columns: int) -> list[str]:
    """``| a | b |text`` in a table of two columns: a row, and text."""
    bars = [match.start() for match in re.finditer(r"(?<!\\)\|", text)]
    if not text.lstrip().startswith("|") or len(bars) <= columns:
        return [text]
    end = bars[columns] + 1
    return [text[:end], text[end:]] if text[end : end + 1].strip() and "`" not in text[:end] else [text]


def _cut_header(text: str, columns: int) -> list[str]:
    """``text| a | b |`` before a delimiter row of two: prose, and a header."""
    if text.lstrip().startswith("|") or not text.rstrip().endswith("|"):
        return [text]
    bars = [match.start() for match in re.finditer(r"(?<!\\)\|", text)]
    if len(bars) != columns + 1 or not text[: bars[0]].strip():
        return [text]
    return [text[: bars[0]].rstrip(), text[bars[0] :]]


def cells(row: str) -> list[str]:
    """The cells of a row: split at "|" that is not escaped and not inside code."""
    parts = [""]
    ticks = ""
    for match in re.finditer(r"\\.|`+|\||[^\\`|]+|\\", row.strip()):
        piece = match.group()
        if piece == "|" and not ticks:
            parts.append("")
            continue
        if piece[0] == "`":
            ticks = "" if piece == ticks else ticks or (piece if row.count(piece) > 1 else "")
        parts[-1] += piece
    if len(parts) > 1 and not parts[0].strip():
        parts = parts[1:]
    if len(parts) > 1 and not parts[-1].strip() and row.rstrip().endswith("|"):
        parts = parts[:-1]
    return parts


def _delimited(entries: Sequence[Line]) -> list[Line]:
    """Tables drawn with "+---+" or without a delimiter row get one, where their first line is a header beyond doubt."""
    result: list[Line] = []
    position = 0
    while position < len(entries):
        end = position
        while end < len(entries) and not entries[end].code and _DRAWN.match(entries[end].text):
            end += 1
        block = entries[position:end]
        rows = [entry for entry in block if not _BORDER.match(entry.text)]
        if len(rows) > 1 and not any(_is_delimiter(row) for row in rows) and _has_header([cells(r.text) for r in rows]):
            bars = Line("|" + "---|" * len(cells(rows[0].text)), rows[0].origin)
            result += [Line("", block[0].origin), rows[0], bars, *rows[1:], Line("", block[-1].origin)]
        else:
            result += block
        if end == position:
            result.append(entries[position])
        position = max(end, position + 1)
    return result


def _has_header(rows: Sequence[Sequence[str]]) -> bool:
    """Names only in the first row, and the same number of cells in all, the first of them never empty."""
    names = [tidy(cell) for cell in rows[0]]
    whole = all(name and not re.match(r"[-+~≈<>≤≥]?\s?[\d.]", name) for name in names)
    return whole and len(names) > 1 and all(len(row) == len(names) and row[0].strip() for row in rows)


def _separate_tables(entries: Sequence[Line]) -> tuple[list[Line], list[str]]:
    """A blank line before each table and after its last row; a delimiter row of the header's length."""
    result: list[Line] = []
    notes: list[str] = []
    position = 0
    while position < len(entries):
        end = _end_of_table(entries, position)
        if end == position:
            result.append(entries[position])
            position += 1
            continue
        rows = entries[position:end]
        result.append(Line("", rows[0].origin))
        if _aligned(rows):
            count = len(cells(rows[0].text))
            indent = re.match(r"\s*", rows[0].text)
            delimiter = (indent.group() if indent else "") + "|" + " --- |" * count
            result += [rows[0], Line(delimiter, rows[1].origin), *rows[2:]]
        else:
            notes.append(f"the table in line {rows[0].origin} has rows longer than its header; it was not read")
        result.append(Line("", rows[-1].origin))
        position = end
    return result, notes


def _end_of_table(entries: Sequence[Line], start: int) -> int:
    """Index after the table whose header is at ``start``; ``start`` where there is none."""
    if start + 1 >= len(entries) or entries[start].code or entries[start + 1].code:
        return start
    header, delimiter = entries[start].text, entries[start + 1].text
    if "|" not in header or "|" not in delimiter or not _DELIMITER.match(delimiter) or _DELIMITER.match(header):
        return start
    end = start + 2
    bars = header.lstrip().startswith("|")
    while end < len(entries) and not entries[end].code and "|" in entries[end].text:
        if bars and not entries[end].text.lstrip().startswith("|"):
            break
        if end + 1 < len(entries) and _is_delimiter(entries[end + 1]):
            break
        end += 1
    return end


def _is_delimiter(entry: Line) -> bool:
    return not entry.code and "|" in entry.text and "-" in entry.text and bool(_DELIMITER.match(entry.text))


def _aligned(rows: Sequence[Line]) -> bool:
    """No row has more cells than the header, but for empty ones at its end."""
    count = len(cells(rows[0].text))
    return not any(cell.strip() for row in rows[2:] for cell in cells(row.text)[count:])


def _plain_headings(entries: list[Line]) -> list[Line]:
    """Where no heading has its "#", a short line between blank lines is one: "1. Install" of depth 3, others of depth 2."""
    plain = [entry for entry in entries if not entry.code]
    if any(_HEADING.match(entry.text) or re.match(r"\s{0,3}={3,}\s*$", entry.text) for entry in plain):
        return entries
    result = []
    for index, entry in enumerate(entries):
        before = entries[index - 1].text.strip() if index else ""
        after = entries[index + 1].text.strip() if index + 1 < len(entries) else ""
        if not entry.code and not before and not after and _is_heading(entry.text.strip()):
            depth = 3 if re.match(r"\d+\.\s", entry.text.strip()) else 2
            result.append(Line("#" * depth + " " + entry.text.strip().lstrip("#"), entry.origin))
        else:
            result.append(entry)
    return result


def _is_heading(text: str) -> bool:
    if (
        not 2 <= len(text) <= 60
        or re.search(r"\d\.\d\d|[:：]\s*[<>≤≥~±]?\d", text)
        or text[-1] in "。.:：;；,，!?！？、|…"
        or re.match(r"[-*+>|`<!\[•●&$=]", text)
    ):
        return False
    return any(c.isalpha() for c in text) and len(text.split()) <= 9 and not re.fullmatch(r"[\W\d_]*", text)


def _readable(entry: Line) -> Line:
    """Bullets as Markdown knows them; a line of tags keeps what follows it from being read as HTML."""
    if entry.code:
        return entry
    return Line(_BULLET.sub(r"\1- ", entry.text), entry.origin)
