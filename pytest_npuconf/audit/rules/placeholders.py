"""Places that were left to be filled in."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pytest_npuconf.audit.context import Context, Rule
from pytest_npuconf.audit.document import Table
from pytest_npuconf.audit.findings import Finding, Level
from pytest_npuconf.audit.lines import Line, prose_of

ID = "placeholder"
# A whole cell, value or bracket that says "to be filled in".
_WHOLE = re.compile(
    r"^(?:TBD|TBC|TODO|FIXME|XX+%?|[xX]{2,}(?:\.[xX]+)*\s?%?|[xX]\.[xX]+|\?{2,}|_{3,}|\.{6,}|待填写?|待补充?|待定|待更新|填写"
    r"|请填写|此处填写|未填写|待填入|to be (?:filled|added|completed)(?: in)?"
    r"|placeholder|fill (?:me|this|in)(?: in)?|insert here|your[_ ][\w ]+[_ ]here|N\.N+|0\.0x+|lorem ipsum"
    r"|YYYY[-/.]MM[-/.]DD|\$\{?[A-Za-z_]\w*\}?|[xX]{4}[-/年][xX]{1,2}([-/月][xX]{1,2}日?)?)$",
    re.IGNORECASE,
)
# The same inside a line, where nothing else can be meant.
_INSIDE = re.compile(
    r"\{\{\s*\w[\w .\u4e00-\u9fff-]{0,40}?\s*\}\}|【\s*(?:待|请|此处)?(?:填写?|补充|填入)[^】]{0,20}】"
    r"|\[\s*(?:待填写?|待补充|请填写|TBD"
    r"|TODO|to be (?:filled|added)[^\]]{0,20}|insert [^\]]{1,30}|your [^\]]{1,30})\s*\]"
    r"|<\s*(?:待填写?|待补充|请填写|填写|在此填写|TBD|TODO)[^>]{0,30}>|https?://[\w./-]*/(?:xxx+|XXX+)(?:/(?:xxx+|XXX+))*(?![\w.])"
    r"|(?:待填写|待补充|此处填写|请填写(?=\s*(?:$|[\])】>。.;,|])))|(?<![A-Za-z0-9_-])_{4,}(?![A-Za-z0-9_-])"
    r"|[:=]\s*TBD\b|[:=]\s*FIXME\b|\blorem ipsum\b",
    re.IGNORECASE,
)
_ASKS = re.compile(
    r"(?:版本|型号|数量|大小|得分|准确率|延迟|吞吐量?|version|size|score|accuracy|latency|throughput)$", re.I
)
_TEMPLATE = re.compile(r"template|jinja|模板|占位|通配|替换|placeholder|wildcard|substitut|replac", re.IGNORECASE)
_VARIABLE = re.compile(r"\$\{?[A-Za-z_]\w*\}?")


def check(context: Context) -> Iterator[Finding]:
    """Cells and values that hold a placeholder; empty cells where the rest of the column is filled."""
    seen: set[int] = set()
    named: set[int] = set()
    for table in context.card.tables:
        for row in table.rows:
            for index, cell in enumerate(row):
                text = cell.text.strip(" `*")
                if cell.line in seen or not _WHOLE.match(text):
                    continue
                if _VARIABLE.fullmatch(text) and _named(context, text, [r[index].text for r in table.rows]):
                    named.add(cell.line)
                else:
                    seen.add(cell.line)
                    message = f"the cell says {cell.text!r}: its value was never filled in"
                    yield context.finding(ID, Level.UNSUPPORTED, cell.line, message)
    for pair in context.card.pairs:
        if pair.line not in seen and pair.line not in named and _WHOLE.match(pair.value.strip(" `*")):
            seen.add(pair.line)
            message = f"{pair.key}: {pair.value!r} was never filled in"
            yield context.finding(ID, Level.UNSUPPORTED, pair.line, message)
    for table in context.card.tables:
        yield from _blank(context, table, seen)
    for line in prose_of(context.card):
        if line.number not in seen:
            yield from _inside(context, line, seen)
    for table in context.card.tables:
        yield from _empty(context, table, seen)


def _named(context: Context, text: str, column: list[str]) -> bool:
    """Whether "$NAME" is meant as it stands: the card sets it, or the whole column holds such names."""
    variable = text.strip("${}")
    filled = [cell.strip(" `*") for cell in column if cell.strip()]
    named = len(filled) > 1 and all(_VARIABLE.fullmatch(cell) for cell in filled)
    return named or context.facts.has(rf"(?<![\w$]){variable}=")


def _blank(context: Context, table: Table, seen: set[int]) -> Iterator[Finding]:
    """In a table of two columns, a key that asks for a value and has none."""
    if table.recovered or len(table.header) != 2:
        return
    for row in table.rows:
        key, value = row
        if not value.text.strip() and _ASKS.search(key.text.strip()) and key.line not in seen:
            seen.add(key.line)
            yield context.finding(ID, Level.UNSUPPORTED, key.line, f"{key.text}: no value was filled in")


def _inside(context: Context, line: Line, seen: set[int]) -> Iterator[Finding]:
    found = _INSIDE.search(line.text)
    if found is None or not line.text.strip("_ ") or _TEMPLATE.search(line.text):
        return
    seen.add(line.number)
    yield context.finding(ID, Level.UNSUPPORTED, line.number, f"{found.group()!r} was never filled in")


def _empty(context: Context, table: Table, seen: set[int]) -> Iterator[Finding]:
    """Empty cells of a table that was read as written, one finding a table. Cells may be merged ones: ambiguous."""
    if table.recovered or len(table.rows) < 2:
        return
    found = []
    for row in table.rows:
        empty = [index for index, cell in enumerate(row) if not cell.text.strip()]
        if empty and len(empty) < len(row) and row[0].line not in seen:
            found.append((row[0].line, [table.header[index].text or f"column {index + 1}" for index in empty]))
    if found:
        line, names = found[0]
        others = f" (and {len(found) - 1} more rows)" if len(found) > 1 else ""
        message = f"empty: {', '.join(names)}{others}; left out, merged, or not measured?"
        yield context.finding(ID, Level.AMBIGUOUS, line, message)


RULES = (Rule(ID, "nothing was left to be filled in", check),)
