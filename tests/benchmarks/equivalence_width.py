"""How far unlike but healthy kernels are apart in the unit of the equivalences, whole and by single row or window: what
``EQUIVALENCE_RATIO`` and ``EQUIVALENCE_ROW`` must leave room for.

python -m tests.benchmarks.equivalence_width [--model tiny-qwen3] [--precision bfloat16]
"""

from __future__ import annotations

import argparse
import itertools

import numpy as np

from pytest_npuconf.cards import find_card
from pytest_npuconf.comparison import compare
from pytest_npuconf.equivalence_comparison import RunNoise, compare_pairs
from pytest_npuconf.equivalence_conditions import windows
from pytest_npuconf.options import Settings
from pytest_npuconf.plan import read_documents
from pytest_npuconf.precisions import Precision
from pytest_npuconf.progress import Progress
from pytest_npuconf.references.live import LiveReference
from pytest_npuconf.weights import find_weights


def table(model: str, dtype: str) -> list[str]:
    """One line for each pair of kernels."""
    card, settings = find_card(model, None), Settings()
    checkpoint = find_weights(card, settings, announce=print)
    documents = [d for d in read_documents(card, checkpoint, settings) if d.kind == "document"]
    live, pair = LiveReference(checkpoint, settings, Progress(lambda _: None)), Precision(dtype, "float32")
    members = live.yardstick(pair)
    first = next(iter(members.values()))
    noise = RunNoise.of_comparison(compare(documents, first, lambda d: live.forward(pair, d), members))
    sides = {"default": lambda d: live.engine(dtype).forward(d.ids), **members}
    lines = ["| kernels | whole | worst row | worst window |", "|---|---|---|---|"]
    decoded = windows(documents)
    for a, b in itertools.combinations(sides, 2):
        rows = compare_pairs([(d, d.runs, sides[b](d)) for d in documents], sides[a]).compared
        cut = compare_pairs([(w.document, w.runs, sides[b](w.document)) for w in decoded], sides[a]).compared
        ratios, spans = ([float(c.kl.sum()) / (2 * noise.of(c)) for c in found] for found in (rows, cut))
        whole = sum(float(c.kl.sum()) for c in rows) / sum(2 * noise.of(c) for c in rows)
        lines.append(f"| {a} and {b} | {whole:.2f} | {np.max(ratios):.2f} | {np.max(spans):.2f} |")
    live.close()
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny-qwen3")
    parser.add_argument("--precision", default="bfloat16")
    chosen = parser.parse_args()
    print("\n".join(table(chosen.model, chosen.precision)))
