"""Tokens of the Markdown parser to sections, tables, code, pairs and prose."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from markdown_it import MarkdownIt
from markdown_it.token import Token

from pytest_npuconf.audit.document import Cell, Code, Pair, Prose, Section, Table
from pytest_npuconf.audit.normalise import normalise, tidy, without_markup
from pytest_npuconf.audit.recover import realign
from pytest_npuconf.audit.repair import Repaired

_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
_PAIR = re.compile(r"(?P<key>[^:|]{1,60}?)\s*:(?!//)\s*(?P<value>\S.*)")
_NO_KEY = re.compile(r"[。!?;]|, |https?$")
_TIME = re.compile(r"(?<![-@A-Za-z\d])\d{1,2}\s?:\s?\d\d(?![\d.%])")


@dataclass(frozen=True)
class Parts:
    """What the tokens hold."""

    sections: tuple[Section, ...]
    tables: tuple[Table, ...]
    codes: tuple[Code, ...]
    pairs: tuple[Pair, ...]
    proses: tuple[Prose, ...]


@dataclass
class _Found:
    headings: list[tuple[str, int, int]] = field(default_factory=list)  # title, depth, line
    tables: list[Table] = field(default_factory=list)
    codes: list[Code] = field(default_factory=list)
    proses: list[Prose] = field(default_factory=list)


def collect(repaired: Repaired, count: int) -> Parts:
    """The parts of a card of ``count`` lines."""
    found = _Found()
    tokens = _parser().parse("\n".join(repaired.lines))
    _walk(tokens, repaired.origins, found)
    found.tables.extend(repaired.tables)
    sections = _sections(found.headings, count)
    titles = _titles(sections, count)
    tables = tuple(replace(realign(t), section=titles[t.line]) for t in sorted(found.tables, key=lambda t: t.line))
    proses = tuple(replace(p, section=titles[p.line]) for p in found.proses)
    pairs = [*repaired.pairs, *_pairs_of_tables(tables), *pairs_of_proses(proses)]
    return Parts(sections, tables, tuple(found.codes), tuple(sorted(pairs, key=lambda pair: pair.line)), proses)


def _parser() -> MarkdownIt:
    # Without "code": an indented line is text. Cards indent under list items freely, and rarely mean code by it.
    return MarkdownIt("commonmark").enable("table").enable("strikethrough").disable("code")


def _walk(tokens: Sequence[Token], origins: Sequence[int], found: _Found) -> None:
    position = 0
    while position < len(tokens):
        token = tokens[position]
        line = origins[token.map[0]] if token.map and token.map[0] < len(origins) else 1
        if token.type == "heading_open":
            title = tidy(" ".join(text for text, _ in _inline_lines(tokens[position + 1], origins)))
            found.headings.append((title, int(token.tag[1:]), line))
            found.proses.append(Prose(title, line, ""))
            position += 2
        elif token.type == "table_open":
            end = next(p for p in range(position, len(tokens)) if tokens[p].type == "table_close")
            found.tables.extend(_table(tokens[position:end], origins))
            position = end
        elif token.type in ("fence", "code_block"):
            language = normalise(token.info).strip().split(" ")[0].lower()
            first = line + 1 if token.type == "fence" else line
            if token.type == "fence" and token.map and token.map[0] + 1 < len(origins):
                first = origins[token.map[0] + 1]
            found.codes.append(Code(language, token.content, first))
        elif token.type == "html_block":
            found.proses.extend(_html_lines(token, origins))
        elif token.type == "inline":
            found.proses.extend(Prose(text, at, "") for text, at in _inline_lines(token, origins) if text)
        position += 1


def _inline_lines(token: Token, origins: Sequence[int]) -> Iterator[tuple[str, int]]:
    """Text without markup and line, one for each source line of an inline token."""
    start = token.map[0] if token.map else 0
    sources = token.content.split("\n")
    texts = _flatten(token.children or ()).split("\n")
    if len(texts) != len(sources):  # code or a tag that runs over the end of a line
        texts = [without_markup(source) for source in sources]
    for offset, text in enumerate(texts):
        yield tidy(text), origins[min(start + offset, len(origins) - 1)]


def _flatten(children: Iterable[Token]) -> str:
    parts = []
    for child in children:
        if child.type in ("text", "code_inline"):
            parts.append(child.content)
        elif child.type in ("softbreak", "hardbreak"):
            parts.append("\n")
        elif child.type == "image":
            parts.append(child.content)
        elif child.type == "html_inline" and _BREAK.match(child.content):
            parts.append(" ")
    return "".join(parts)


def _html_lines(token: Token, origins: Sequence[int]) -> Iterator[Prose]:
    start = token.map[0] if token.map else 0
    for offset, source in enumerate(token.content.rstrip("\n").split("\n")):
        text = without_markup(source)
        if text:
            yield Prose(text, origins[min(start + offset, len(origins) - 1)], "")


def _table(tokens: Sequence[Token], origins: Sequence[int]) -> Iterator[Table]:
    rows: list[list[Cell]] = []
    for token in tokens:
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline" and rows:
            line = origins[token.map[0]] if token.map else 1
            rows[-1].append(Cell(tidy(_flatten(token.children or ()).replace("\n", " ")), line))
    if rows and rows[0]:
        header, *body = rows
        yield Table(tuple(header), tuple(tuple(row) for row in body if row), "", header[0].line)


def _sections(headings: Sequence[tuple[str, int, int]], count: int) -> tuple[Section, ...]:
    sections = []
    ordered = sorted(headings, key=lambda heading: heading[2])
    for index, (title, depth, line) in enumerate(ordered):
        end = next((later[2] - 1 for later in ordered[index + 1 :] if later[1] <= depth), count)
        sections.append(Section(title, depth, line, max(end, line)))
    return tuple(sections)


def _titles(sections: Sequence[Section], count: int) -> list[str]:
    """The innermost section's title for each line, from 0 to ``count``."""
    titles = [""] * (count + 2)
    ordered = sorted(sections, key=lambda section: section.line)
    for index, section in enumerate(ordered):
        following = ordered[index + 1].line if index + 1 < len(ordered) else count + 2
        titles[section.line : following] = [section.title] * (following - section.line)
    return titles


def _pairs_of_tables(tables: Iterable[Table]) -> Iterator[Pair]:
    for table in tables:
        if len(table.header) == 2:
            for key, value in table.rows:
                if key.text:
                    yield Pair(key.text, value.text, key.line, table.section)


def pairs_of_proses(proses: Iterable[Prose]) -> Iterator[Pair]:
    """``key: value`` of lines: a short key without a sentence in it, and a value."""
    for prose in proses:
        match = _PAIR.fullmatch(prose.text)
        if (
            match
            and not _NO_KEY.search(match["key"])
            and not _TIME.search(prose.text, 0, match.start("value") + 3)
            and any(c.isalpha() for c in match["key"])
        ):
            yield Pair(match["key"].strip(), match["value"].strip(), prose.line, prose.section)
