"""pytest_npuconf/report/page/advice.toml from docs/gates.md: what the page says of a check is what the guide says of it.

``python -m tests.benchmarks.gate_advice --write`` after an edit of docs/gates.md.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GATES, ADVICE = ROOT / "docs" / "gates.md", ROOT / "pytest_npuconf" / "report" / "page" / "advice.toml"
_HEAD = "# Of each check: its question, and what to do when it fails. Written from docs/gates.md by tests.benchmarks.gate_advice."
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")


def rows(text: str) -> Iterator[tuple[str, str, str]]:
    """Name of the check, its question, what to do when it fails."""
    columns: list[str] = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]
        if not cells:
            columns = []
        elif not columns:
            columns = cells
        elif (name := re.fullmatch(r"`([a-z0-9_.]+)`", cells[0])) is not None:
            told = dict(zip(columns, cells, strict=True))
            then = told.get("when it fails") or f"It does not decide: {told['why it does not decide']}"
            yield name[1], plain(told["the question"]), _sentence(plain(then))


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}" + ("" if words.endswith((".", "?")) else ".")


def plain(markdown: str) -> str:
    """Links as their words, code and emphasis without their marks."""
    return re.sub(r"[`*]|\\(?=\|)", "", _LINK.sub(r"\1", markdown))


def advice() -> str:
    """The whole of advice.toml."""
    lines = [_HEAD]
    for name, asks, then in rows(GATES.read_text(encoding="utf-8")):
        lines += [
            f'["{name}"]',
            f"asks = {json.dumps(asks, ensure_ascii=False)}",
            f"then = {json.dumps(then, ensure_ascii=False)}",
        ]
    return "\n".join(lines) + "\n"


def main() -> int:
    if "--write" in sys.argv[1:]:
        ADVICE.write_text(advice(), encoding="utf-8")
    else:
        print(advice(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
