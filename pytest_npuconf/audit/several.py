"""Several cards in one file."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pytest_npuconf.audit.normalise import tidy, without_markup
from pytest_npuconf.audit.repair import code_lines

MAX_BEFORE = 30
"""Lines before the first title: a front matter, badges. More are a card of their own without a title."""
_TITLE = re.compile(r"^#\s+(?P<title>\S.*?)\s*#*\s*$")
_KEY = re.compile(
    r"^(?:##+\s+(?P<heading>.+)|\s*(?:[-*+]\s+)?\**(?P<key>[^:：|*]{2,40}?)\**\s*[:：]"
    r"|\|\s*(?P<cell>[^|]{2,40}?)\s*\|)"
)
_MODEL = re.compile(
    r"[\w./]+(?:-[\w.]+)*-?\d+(?:\.\d+)?[bBmM](?:-[\w.]+)*"
    r"|[A-Za-z]+[\w./]*(?:-[\w.]+)*-?\d[\w.]*(?:-[\w.]+)+"
)
_COMMON = re.compile(
    r"introduction|overview|usage|quick ?start|install|licen[sc]e|citation|performance|benchmark|evaluation|requirements"
    r"|model card|faq|appendix|简介|介绍|概述|快速|安装|部署|使用|许可|授权|引用|性能|评测|精度|环境|参考|常见问题|附录",
    re.IGNORECASE,
)


def split_cards(lines: Sequence[str]) -> list[tuple[int, int]]:
    """Ranges of lines (from 0, end excluded), one a card.

    A card begins at a second front matter, and at a heading of the first depth where the file repeats the card's shape under
    it: the same subheadings or keys (at least two), or titles that are all names of models. Most files that have several
    such headings are one card; splitting them would hide that two parts of it contradict each other.
    """
    if not any(line.startswith(("# ", "---")) for line in lines[1:]):
        return [(0, len(lines))]
    code = code_lines(lines)
    plain = {number for number in range(len(lines)) if number + 1 not in code}
    fronts = _front_matters(lines, plain)
    titles = [(n, match["title"]) for n in sorted(plain) if (match := _TITLE.match(lines[n]))]
    starts = sorted({*fronts[1:], *_repeated(lines, plain, titles)})
    starts = [start for start in starts if any(line.strip() for line in lines[:start])]
    starts = [s for i, s in enumerate(starts) if i == 0 or any(lines[n].strip() for n in range(starts[i - 1] + 1, s))]
    return list(zip([0, *starts], [*starts, len(lines)], strict=True))


def _front_matters(lines: Sequence[str], plain: set[int]) -> list[int]:
    """Where a block between two lines of "---" begins that holds only keys and items."""
    found: list[int] = []
    bars = [n for n in sorted(plain) if lines[n].strip() == "---"]
    position = 0
    while position + 1 < len(bars):
        start, end = bars[position], bars[position + 1]
        inside = [line for line in lines[start + 1 : end] if line.strip()]
        if inside and end - start < 200 and all(re.match(r"\s*(?:[\w.\-]+:(?:\s|$)|-\s|#)", line) for line in inside):
            found.append(start)
            position += 2
        else:
            position += 1
    first = next((n for n, line in enumerate(lines) if line.strip()), 0)
    return found if found[:1] == [first] else [-1, *found]


def _repeated(lines: Sequence[str], plain: set[int], titles: Sequence[tuple[int, str]]) -> list[int]:
    """Headings of the first depth that begin another card."""
    if len(titles) < 2 or sum(bool(line.strip()) for line in lines[: titles[0][0]]) > MAX_BEFORE:
        return []
    ends = [*(n for n, _ in titles[1:]), len(lines)]
    keys = [_keys(lines, plain, start, end) for (start, _), end in zip(titles, ends, strict=True)]
    named = [bool(_MODEL.fullmatch(tidy(without_markup(title)))) for _, title in titles]
    again = [any(len(keys[i] & keys[j]) >= 2 for j in range(len(titles)) if j != i) for i in range(len(titles))]
    alike = [i for i in range(len(titles)) if (named[i] or again[i]) and not _COMMON.search(titles[i][1])]
    if len(alike) < 2 or alike[0] != 0:
        return []
    return [n for i, (n, title) in enumerate(titles) if i and not _COMMON.search(title)]


def _keys(lines: Sequence[str], plain: set[int], start: int, end: int) -> set[str]:
    matches = (_KEY.match(lines[n]) for n in range(start + 1, end) if n in plain)
    return {tidy(m["heading"] or m["key"] or m["cell"] or "").lower() for m in matches if m} - {"---", ""}
