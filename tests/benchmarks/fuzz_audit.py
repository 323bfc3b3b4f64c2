"""Mutated cards through reading, all rules and all outputs: nothing may crash or hang.

Run: ``python -m tests.benchmarks.fuzz_audit --seconds 600``. Cards: tests/data/audit/**/*.md, and the seeds, where they are.
Crashing inputs are written to --out; the status is 1 where there was one. ``--seed`` repeats a run.
"""

from __future__ import annotations

import argparse
import collections
import datetime
import random
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from pytest_npuconf.audit import engine, output
from pytest_npuconf.audit.decoding import decode
from pytest_npuconf.audit.findings import Level
from pytest_npuconf.audit.text import parse_cards
from pytest_npuconf.errors import AuditError
from tests.seeds import seed_folder

CORPUS = Path(__file__).parents[1] / "data" / "audit"
TODAY = datetime.date(2026, 1, 1)
SLOW_S = 10.0
BITS = (
    "|", "||", "|---|---|", "`", "```", "```python", "~~~", "#", "# ", "## x", "---", "\n\n", "\r\n", "\t",
    "    ", ">", "- ", "1. ", "•", "<table>", "</table>", "<td colspan=9>", "<br>", "<details>", "&nbsp;", "\\",
    "**", "%", "％", "０．９９", "，", "：", "\u2009", "\u00a0", "\u202e", "\u200b", "\ufeff", "🐦\u200d⬛",
    "1️⃣", "✅", "❌", "—", "平均", "mean", "中位", "最大", "NaN", "inf", "1e400", "-0", "0", "0.000", "1e-400",
    "9" * 30, "0/0", "5/5", "0.99999", "100%", "-1%", "±2pp", "<1%", ">= 0.99", "0 tok/s", "0 ms", "0 GB", "0B",
    "0 tokens", "vLLM 0.18.0", "vLLM ..", "torch 99999999999999999999.1", "hidden_size: 0",
    "num_attention_heads: 0", "num_hidden_layers: -1", "vocab_size: 1e9", "head_dim: x", "pip install x>=1",
    "export X=", "2026-13-45", "waiver until 2026-99-99", "(", ")", "[", "]", "{", "}", "'", "\"", "$", "/",
    "{x}", "TODO", "x 倍", "并发 0",
)  # fmt: skip


def _line(text: str, pick: random.Random, change: Callable[[list[str], int], None]) -> str:
    lines = text.split("\n")
    change(lines, pick.randrange(len(lines)))
    return "\n".join(lines)


def _move(lines: list[str], at: int, pick: random.Random) -> None:
    line = lines.pop(at)
    lines.insert(pick.randrange(len(lines) + 1), line)


def _number(text: str, pick: random.Random) -> str:
    digits = [i for i, c in enumerate(text) if c.isdecimal()]
    if not digits:
        return text
    at = pick.choice(digits)
    return text[:at] + pick.choice(["", "0", "9", ".", ",", "e", "-", "00000", "%"]) + text[at + pick.randint(0, 1) :]


def _cell(text: str, pick: random.Random) -> str:
    bars = [i for i, c in enumerate(text) if c == "|"]
    if not bars:
        return text
    at = pick.choice(bars)
    return text[:at] + pick.choice(["", "||", "| |", "|" + pick.choice(BITS) + "|"]) + text[at + 1 :]


def _slice(text: str, pick: random.Random) -> tuple[int, int]:
    start = pick.randrange(len(text) + 1)
    return start, min(len(text), start + pick.choice([1, 2, 10, 100, 1000]))


def mutate(text: str, pick: random.Random) -> str:
    """``text`` with one to eight changes."""
    for _ in range(pick.randint(1, 8)):
        kind = pick.randrange(10)
        start, end = _slice(text, pick)
        if kind == 0:
            text = text[:start] + pick.choice(BITS) + text[start:]
        elif kind == 1:
            text = text[:start] + text[end:]
        elif kind == 2:
            text = text[:end] + text[start:]
        elif kind == 3:
            text = _line(text, pick, lambda lines, at: lines.__delitem__(at))
        elif kind == 4:
            text = _line(text, pick, lambda lines, at: lines.insert(at, lines[at]))
        elif kind == 5:
            text = _line(text, pick, lambda lines, at: _move(lines, at, pick))
        elif kind == 6:
            text = _number(text, pick)
        elif kind == 7:
            text = _cell(text, pick)
        elif kind == 8:
            text = _line(
                text, pick, lambda lines, at: lines.__setitem__(at, lines[at].replace("|", "").replace("\n", ""))
            )
        else:
            text = text[:start] + "".join(pick.choice(BITS) for _ in range(pick.randint(1, 6))) + text[end:]
    return text


def run_all(text: str) -> None:
    """Reading, every rule (a rule that fails raises), every output."""
    audits = []
    for card in parse_cards(text, "card.md"):
        findings = engine.check(engine.Context(card, None, TODAY))
        for finding in findings:
            if not (0 <= finding.line <= len(card.raw)):
                raise AssertionError(f"{finding.rule} points to line {finding.line} of {len(card.raw)}")
        audits.append(engine.Audit(card, tuple(findings)))
    for format_audits in output.FORMATS.values():
        format_audits(audits, Level.FINE)


def documents() -> list[tuple[str, str]]:
    """Names and texts of the cards to start from."""
    paths = sorted(CORPUS.rglob("*.md"))
    seeds = seed_folder()
    if seeds is not None:
        paths += sorted(seeds.glob("0*.txt"))
    return [(path.name, path.read_text(encoding="utf-8")) for path in paths]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/fuzz"))
    parsed = parser.parse_args()
    pick, cards = random.Random(parsed.seed), documents()
    seen: collections.Counter[str] = collections.Counter()
    count, slowest, stop = 0, 0.0, time.monotonic() + parsed.seconds
    while time.monotonic() < stop:
        text = mutate(pick.choice(cards)[1], pick)
        if pick.random() < 0.1:
            text = mutate(text, pick) + pick.choice(cards)[1]
        started = time.process_time()
        try:
            if pick.random() < 0.2:
                data = bytearray(text.encode(pick.choice(["utf-8", "gb18030", "utf-16", "latin-1"]), "replace"))
                for _ in range(pick.randint(0, 4) if data else 0):
                    data[pick.randrange(len(data))] = pick.randrange(256)
                text, _ = decode(bytes(data), "card.md")
            run_all(text)
        except AuditError:
            pass
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            key = f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"
            if key not in seen:
                parsed.out.mkdir(parents=True, exist_ok=True)
                (parsed.out / f"crash-{len(seen)}.md").write_text(text, encoding="utf-8", errors="surrogatepass")
                print(f"{key}: {error} -> crash-{len(seen)}.md", flush=True)
            seen[key] += 1
        spent = time.process_time() - started
        slowest = max(slowest, spent)
        if spent > SLOW_S:
            seen[f"slower than {SLOW_S:.0f} s"] += 1
            parsed.out.mkdir(parents=True, exist_ok=True)
            (parsed.out / f"slow-{count}.md").write_text(text, encoding="utf-8", errors="surrogatepass")
        count += 1
    print(
        f"{count} cards in {parsed.seconds:.0f} s, slowest {slowest:.2f} s of processor time, {sum(seen.values())} failures"
    )
    for key, times in seen.most_common():
        print(f"  {times} x {key}")
    return 1 if seen else 0


if __name__ == "__main__":
    sys.exit(main())
