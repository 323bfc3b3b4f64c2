"""Writes the corpus: sources/<name>.txt becomes <name>.good.md and <name>.bad.md, sources/hard/<name>.txt hard-good/<name>.md.

A source is Python (the card's arithmetic), a line of equal signs, and the card. In the card, ``⟦=expression⟧`` is the value of
an expression and ``⟦good¦bad⟧`` what the correct card says against what the card with the planted error says; either side may
be an expression. So no figure of a good card is typed by hand that follows from others, and the two cards differ in the planted
places only. Run it after changing a source; tests/unit/test_audit_corpus.py compares what is on disk with what it writes.
"""

from __future__ import annotations

import math
import re
import statistics
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MARK = re.compile(r"⟦(.*?)⟧", re.DOTALL)
GIB = 1024**3


def dense(vocab, hidden, inter, layers, heads, kv, head_dim=None, *, tied=False, bias=False, qk_norm=False):
    """Parameters of a Llama/Qwen decoder: embedding, head, attention, gated MLP, two norms a layer, the last norm."""
    head_dim = head_dim or hidden // heads
    q, k = heads * head_dim, kv * head_dim
    attention = hidden * (q + 2 * k) + q * hidden + (q + 2 * k if bias else 0) + (2 * head_dim if qk_norm else 0)
    layer = attention + 3 * hidden * inter + 2 * hidden
    return vocab * hidden * (1 if tied else 2) + layers * layer + hidden


def mixture(vocab, hidden, inter, layers, heads, kv, head_dim, experts, chosen, *, tied=False):
    """(all parameters, parameters active per token) of a Qwen3-MoE decoder: router, experts, norms of queries and keys."""
    q, k = heads * head_dim, kv * head_dim
    shared = hidden * (q + 2 * k) + q * hidden + 2 * head_dim + 2 * hidden + hidden * experts
    rest = vocab * hidden * (1 if tied else 2) + hidden
    expert = 3 * hidden * inter
    return tuple(rest + layers * (shared + count * expert) for count in (experts, chosen))


def kv_bytes(layers, kv, head_dim, width=2):
    """Bytes of keys and values per token: two tensors a layer."""
    return 2 * layers * kv * head_dim * width


def mean(values):
    return statistics.fmean(values)


def median(values):
    return statistics.median(values)


def percent(value, reference):
    """Absolute difference in percent of the reference."""
    return abs(value - reference) / abs(reference) * 100


def half_width(hits, n, z=1.959964):
    """Half of Wilson's 95 % interval, in percentage points."""
    p = hits / n
    return 100 * z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)


def lower_bound(n, confidence=0.95):
    """One-sided lower bound, in percent, on a rate of which n of n were seen (Clopper-Pearson)."""
    return 100 * (1 - confidence) ** (1 / n)


def write(source: str, bad: bool) -> str:
    """The card of one source, with or without the planted errors."""
    code, _, card = ("\n" + source).partition("\n=====\n")
    names: dict[str, Any] = dict(globals())
    exec(compile(code, "<source>", "exec"), names)

    def value(match: re.Match[str]) -> str:
        sides = match[1].split("¦")
        side = sides[-1] if bad else sides[0]
        return str(eval(side[1:], names)) if side.startswith("=") else side

    return MARK.sub(value, card)


def corpus() -> dict[Path, str]:
    """Every generated file and its text."""
    files = {}
    for path in sorted((HERE / "sources").glob("*.txt")):
        source = path.read_text(encoding="utf-8")
        for kind in ("good", "bad"):
            files[HERE / f"{path.stem}.{kind}.md"] = write(source, kind == "bad")
    for path in sorted((HERE / "sources" / "hard").glob("*.txt")):
        files[HERE / "hard-good" / f"{path.stem}.md"] = write(path.read_text(encoding="utf-8"), False)
    return files


if __name__ == "__main__":
    for path, text in corpus().items():
        path.write_text(text, encoding="utf-8")
