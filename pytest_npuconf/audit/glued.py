"""Rows of numbers that lost their separators: ``France is0.9999890.79%✅`` into ``France is | 0.999989 | 0.79% | ✅``.

Where a row could be cut in several ways, one of two regularities must decide: every column keeps its number of decimals in
all rows, or (metrics in rows) every row keeps its own. Where several cuts are left, the table's own arithmetic may single
one out (means and differences that agree), by at least two agreements more than the next. Else there is no table.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_LABEL = re.compile(r"(?:NPU|CPU|GPU)\s?(?:FP32|BF16|FP16)(?:\s?vs\.?\s?(?:NPU|CPU|GPU)\s?(?:FP32|BF16|FP16))?")
_AGGREGATE = re.compile(
    r"(?:平均值?|均值|中位数?|最大值?|最小值?|mean|average|avg\.?|median|max|min|总体|合计|overall)", re.IGNORECASE
)
_MARK = (
    r"(?:[✅❌⚠✔✓✗🟢🔴🟡]"
    r"(?:\s?(?:通过|不通过|未通过|达标|不达标|合格|失败|正常|一致|完成|pass(?:ed)?|fail(?:ed)?|ok)(?![A-Za-z]))?)"
)
_FIXED = re.compile(
    r"(?P<quote>\"[^\"]*\"|“[^”]*”)|(?P<share>\d+/\d+(?:\s?\(\d+(?:\.\d+)?%\))?)|(?P<dash>——|—|–|N/A|(?<!\w)-(?![\w-]))|(?P<mark>"
    + _MARK
    + r")"
    r"|(?P<sci>\d(?:\.\d+)?[eE][-+]\d\d)"
)
_DIGITS = re.compile(r"((?:[≤≥<>]=?|[~≈±])\s?|[-+])?(\d+)(?:\.(\d+))?")
_UNIT = re.compile(rf"%(?:\s{_MARK})?|\s?(?:ms|tok/s|tokens/s|GiB|GB|MiB|MB|s)(?![a-zA-Z])")
MAX_CUTS = 400


@dataclass(frozen=True)
class Piece:
    """A cell of a possible cut: its text, what it is, and its decimals where it is a number."""

    text: str
    kind: str
    decimals: int = 0


Cut = tuple[str, tuple[Piece, ...]]  # the label, and the cells behind it


def split_rows(texts: Sequence[str], columns: int, elsewhere: frozenset[str] = frozenset()) -> list[list[str]] | None:
    """``texts`` as rows of cells, or None where no single way to cut them can be defended.

    ``elsewhere``: the numbers that stand apart in other lines of the card.
    """
    for words in (False, True):
        grid = _split(texts, columns, words, elsewhere)
        if grid:
            return [[label, *(piece.text for piece in pieces)] for label, pieces in grid]
    return None


def _split(texts: Sequence[str], columns: int, words: bool, elsewhere: frozenset[str]) -> list[Cut] | None:
    cuts: list[list[Cut]] = []
    for text in texts:
        found = _cuts(text, columns - 1, words)
        if not found:
            break
        cuts.append(found)
    body = [i for i, found in enumerate(cuts) if not _AGGREGATE.match(found[0][0])]
    if not body or (len(body) == 1 and columns < 3):
        return None
    if len(cuts) < len(texts) and not all(cut[1][0].kind == "bound" for i in body for cut in cuts[i]):
        return None  # a row that does not fit could be the one that an aggregate needs
    grids = _by_column(cuts, body)
    if not grids:
        grids = _by_row(cuts)
    return grids[0] if len(grids) == 1 else _decided(grids, elsewhere)


def _cuts(text: str, count: int, words: bool) -> list[Cut]:
    """Every way to cut a row into a label and ``count`` cells, the last of them words where ``words`` says so."""
    known = _LABEL.match(text)
    starts = [known.end()] if known else [i for i in range(1, len(text)) if _can_start(text, i)]
    found: list[Cut] = []
    for start in starts:
        for pieces in _tile(text, start, count, words):
            found.append((text[:start].strip(), pieces))
            if len(found) > MAX_CUTS:
                return []
    return found


def _can_start(text: str, index: int) -> bool:
    """A label never ends inside a number, a mark or a space."""
    if re.search(r"\d\.\d\d", text[:index]):
        return False  # a number of the row would be left in the label
    if text[index].isspace() or (text[index] == "." and text[index - 1] == "."):
        return False
    return not re.match(r"[\d.%\s+\-\"“✅❌—≤≥<>~≈±]", text[index - 1]) or text[:index].endswith(("...", "…"))


def _tile(text: str, start: int, count: int, words: bool) -> Iterator[tuple[Piece, ...]]:
    if count == 0:
        if start == len(text):
            yield ()
        return
    if start >= len(text):
        return
    if words and count == 1:
        rest = text[start:].strip()
        if rest and not re.match(r"[\d.%]", rest):
            yield (Piece(rest, "words"),)
        return
    for piece, end in _pieces(text, start):
        for others in _tile(text, end, count - 1, words):
            yield (piece, *others)


def _pieces(text: str, start: int) -> Iterator[tuple[Piece, int]]:
    """The cells that can begin here, and where each ends."""
    match = _FIXED.match(text, start)
    if match:
        yield Piece(match.group(), match.lastgroup or ""), match.end()
        if match.group() == "——":  # one long dash, or two
            yield Piece("—", "dash"), start + 1
        if match.lastgroup != "sci":
            return
    digits = _DIGITS.match(text, start)
    if digits is None or (len(digits[2]) > 1 and digits[2][0] == "0"):
        return
    fraction = digits[3] or ""
    for length in range(len(fraction), 0, -1) if fraction else (0,):
        end = digits.end() - (len(fraction) - length)
        unit = _UNIT.match(text, end)
        stop = unit.end() if unit else end
        name = "percent" if unit and unit.group().startswith("%") else (unit.group().strip() if unit else "number")
        if text[stop : stop + 1] not in (".", "e", "E"):
            bound = digits[1] and digits[1][0] in "≤≥<>"
            yield Piece(text[start:stop], "bound" if bound else name, length), stop


def _signature(cut: Cut) -> tuple[tuple[str, int], ...]:
    return tuple((piece.kind, piece.decimals) for piece in cut[1])


def _fits(cut: Cut, signature: tuple[tuple[str, int], ...]) -> bool:
    return all(
        piece.kind == "dash" or (piece.kind, piece.decimals) == wanted
        for piece, wanted in zip(cut[1], signature, strict=True)
    )


def _by_column(cuts: Sequence[list[Cut]], body: Sequence[int]) -> list[list[Cut]]:
    """Grids whose columns keep kind and decimals in all rows but those of aggregates, which follow as near as they can."""
    grids = []
    for signature in dict.fromkeys(_signature(cut) for cut in cuts[body[0]]):
        grid: list[Cut] = []
        for index, found in enumerate(cuts):
            if index in body:
                fitting = [cut for cut in found if _fits(cut, signature)]
            else:
                best = max(_likeness(cut, signature) for cut in found)
                fitting = [cut for cut in found if _likeness(cut, signature) == best]
            if len(fitting) != 1:
                break
            grid.append(fitting[0])
        else:
            grids.append(grid)
    return grids


def _likeness(cut: Cut, signature: tuple[tuple[str, int], ...]) -> int:
    pairs = zip(cut[1], signature, strict=True)
    return sum(
        1 if piece.kind == "dash" else (piece.kind == kind) * (1 + (piece.decimals == decimals))
        for piece, (kind, decimals) in pairs
    )


def _by_row(cuts: Sequence[list[Cut]]) -> list[list[Cut]]:
    """The grid whose rows each keep their own number of decimals in plain numbers, where each row has one such cut."""
    grid: list[Cut] = []
    for found in cuts:
        even = [cut for cut in found if _even([cut])]
        if len(even) != 1:
            break
        grid.append(even[0])
    return [grid] if grid else []


def _even(grid: Sequence[Cut]) -> bool:
    """Whether all plain numbers have one number of decimals."""
    return len({piece.decimals for _, pieces in grid for piece in pieces if piece.kind == "number"}) <= 1


def _decided(grids: Sequence[list[Cut]], elsewhere: frozenset[str]) -> list[Cut] | None:
    """The one grid that its arithmetic supports, or else the only one whose plain numbers all have equal decimals."""
    if not grids:
        return None
    scored = sorted(((_score(grid, elsewhere), i) for i, grid in enumerate(grids)), reverse=True)
    if scored[0][0] >= 1 and scored[0][0] - scored[1][0] >= 2:
        return grids[scored[0][1]]
    plain = max(sum(piece.kind == "number" for piece in cut[1]) for cut in grids[0])
    even = [grid for grid in grids if _even(grid)]
    return even[0] if len(even) == 1 and plain > 1 and scored[0][0] <= _score(even[0], elsewhere) else None


def _score(grid: Sequence[Cut], elsewhere: frozenset[str]) -> int:
    """Agreements, and cells that the card repeats elsewhere, less two where a percentage exceeds a hundred."""
    pieces = [piece for _, cells in grid for piece in cells]
    repeated = {piece.text for piece in pieces if piece.text in elsewhere}
    beyond = any(piece.kind == "percent" and (_value(piece) or 0) > 100 for piece in pieces)
    return _agreements(grid) + len(repeated) - 2 * beyond


def _agreements(grid: Sequence[Cut]) -> int:
    """Aggregates and differences that agree with their rows, less those that do not (differences only count for)."""
    rows = [[_value(piece) for piece in pieces] for label, pieces in grid if not _AGGREGATE.match(label)]
    score = 0
    for label, pieces in grid:
        if not _AGGREGATE.match(label):
            continue
        for column, piece in enumerate(pieces):
            values = [row[column] for row in rows]
            stated, known = _value(piece), [value for value in values if value is not None]
            if stated is not None and len(known) == len(values) > 1:
                agrees = abs(_aggregate(label, known) - stated) <= 1.02 * 10.0**-piece.decimals
                score += 1 if agrees else -1
    width = len(grid[0][1])
    triples = ((a, b, d) for a in range(width) for b in range(a + 1, width) for d in range(b + 1, width))
    return score + max((sum(_differs(row, *triple) for row in rows) for triple in triples), default=0)


def _aggregate(label: str, values: Sequence[float]) -> float:
    if re.match(r"中位|median", label, re.IGNORECASE):
        return float(statistics.median(values))
    if re.match(r"最大|max", label, re.IGNORECASE):
        return max(values)
    if re.match(r"最小|min", label, re.IGNORECASE):
        return min(values)
    return statistics.fmean(values)


def _differs(row: Sequence[float | None], a: int, b: int, d: int) -> bool:
    """Whether the third cell is the relative difference of the first two, in per cent."""
    first, second, difference = row[a], row[b], row[d]
    if first is None or second is None or difference is None or not second or not first:
        return False
    return any(abs(100 * abs(first - second) / abs(base) - abs(difference)) <= 0.011 for base in (first, second))


def _value(piece: Piece) -> float | None:
    match = re.match(r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]\d\d)?", piece.text)
    return (
        float(match.group())
        if match and piece.kind not in ("share", "quote", "dash", "mark", "words", "bound")
        else None
    )
