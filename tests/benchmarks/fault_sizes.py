"""How big each fault of the catalogue is: KL in float32 against the healthy model, by way of running it.

``python -m tests.benchmarks.fault_sizes [--model tiny-qwen3] [--fault NAME ...] [--write]``: a table. Nothing below the floor is
hidden: it is printed as it is, and a fault that stays there without a proof ends in exit 1. ``--write`` keeps the figures of
tiny-qwen3 in tests/data/fault_sizes.json and makes docs/faults.md anew.

Ways: ``plain`` one pass over each of four texts, every position; ``batch`` uneven batches, padded on either side, and an even
one; ``cache`` tokens decoded one at a time, alone and in a batch, and some that go on from a cache at once; ``repeat`` the same
text again after others. The healthy model's plain pass is the reference of the first three; of the last it is the fault's own
first call.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pytest_npuconf.cards import find_card
from pytest_npuconf.devices.cpu import CpuDevice
from pytest_npuconf.documents import Document
from pytest_npuconf.engines.transformers_engine import TransformersEngine
from pytest_npuconf.equivalence_conditions import continued, decoded_together, even_batch, windows
from pytest_npuconf.errors import FaultError
from pytest_npuconf.faults.base import Fault
from pytest_npuconf.faults.catalogue import SHIPPED
from pytest_npuconf.options import Settings
from pytest_npuconf.plan import read_documents
from pytest_npuconf.weights import find_weights
from tests.benchmarks import fault_page

# Mean KL (nats) in float32 below which a fault is no larger than the order of summation: the benign variants stay under a
# hundredth of it.
FLOOR = 1e-8
WAYS = ("plain", "batch", "cache", "repeat")
LENGTHS = (48, 129, 257, 1025)
BATCH = (15, 257, 48)
DECODED = slice(2, 5)  # a full page and two turns of one, of the windows that equivalence.cache decodes
CONTINUED = slice(3, 4)  # behind a full page, of the texts that go on from a cache there


@dataclass
class Sizes:
    """Mean KL (nats) by way; ``nan`` where an output is not finite; ``says`` why the fault does not apply."""

    fault: Fault
    kl: dict[str, float] = field(default_factory=dict)
    says: str = ""

    @property
    def way(self) -> str:
        """Where the fault is meant to show."""
        return way_of(self.fault)


def way_of(fault: Fault) -> str:
    """By the first check that should catch it."""
    first = fault.checks[0] if fault.checks else ""
    return first.removeprefix("equivalence.") if first.startswith("equivalence.") else "plain"


class Bench:
    """One model in float32 with its healthy outputs."""

    def __init__(self, model: str) -> None:
        settings = Settings(models=(model,))
        card = find_card(model, None)
        self._checkpoint = find_weights(card, settings, announce=lambda _: None)
        documents = [d for d in read_documents(card, self._checkpoint, settings) if d.kind == "document"]

        def of(length: int) -> Document:
            return min(documents, key=lambda d: abs(len(d.ids) - length))

        self.texts = [of(length) for length in LENGTHS]
        self.rows = [of(length) for length in BATCH]
        self.even = even_batch(documents)
        self.decoded, self.together = windows(documents)[DECODED], decoded_together(documents)
        self.continued = continued(documents)[CONTINUED]
        engine = self.load()
        listed = [*self.rows, *self.even.rows]
        listed += [one.document for one in (*self.decoded, *self.together, *self.continued)]
        self._healthy = {d.ids: _looked(engine.forward(d.ids), d.positions) for d in listed}
        self._whole = {d.ids: _every(engine.forward(d.ids)) for d in self.texts}

    def load(self) -> TransformersEngine:
        """The model, healthy."""
        return TransformersEngine(self._checkpoint, CpuDevice(), "float32")

    def measure(self, fault: Fault, chosen: Sequence[str] = WAYS) -> Sizes:
        """A fresh model for each way, so that what a fault remembers does not go from one to another."""
        sizes = Sizes(fault)
        ways: dict[str, Callable[[TransformersEngine], float]] = {
            "plain": self._plain, "batch": self._batch, "cache": self._cache, "repeat": self._repeat,
        }  # fmt: skip
        for way in chosen:
            engine = self.load()
            try:
                fault.inject(engine.model)
            except FaultError as error:
                return Sizes(fault, says=error.what)
            sizes.kl[way] = ways[way](engine)
        return sizes

    def _against(self, document: Document, found: np.ndarray, positions: Sequence[int] | None = None) -> np.ndarray:
        healthy = self._healthy[document.ids]
        if positions is not None:
            healthy = healthy[[document.positions.index(p) for p in positions]]
        return kl(healthy, found)

    def _plain(self, engine: TransformersEngine) -> float:
        return _mean([kl(self._whole[d.ids], _every(engine.forward(d.ids))) for d in self.texts])

    def _batch(self, engine: TransformersEngine) -> float:
        ids = [d.ids for d in self.rows]
        found = [
            (d, f)
            for side in ("right", "left")
            for d, f in zip(self.rows, engine.forward_batch(ids, side), strict=True)
        ]
        values = [self._against(d, _looked(f, d.positions)) for d, f in found]
        even = engine.forward_batch([d.ids[: self.even.tokens] for d in self.even.rows], "left")
        return _mean(
            [*values, *(self._against(d, _looked(f, d.positions)) for d, f in zip(self.even.rows, even, strict=True))]
        )

    def _cache(self, engine: TransformersEngine) -> float:
        given = [(w, engine.forward_cached(w.document.ids[: w.stop], w.prefill)) for w in self.decoded]
        rows = [w.document.ids[: w.stop] for w in self.together]
        given += zip(self.together, engine.forward_decoded(rows, [w.prefill for w in self.together]), strict=True)
        values = []
        for window, found in given:
            document = window.document
            where = [p for p in document.positions if window.prefill <= p < window.stop]
            values.append(self._against(document, _looked(found, where), where))
        for one in self.continued:
            where = [p for p in one.document.positions if p >= one.cached]
            found = engine.forward_continued(one.document.ids, one.cached)
            values.append(self._against(one.document, _looked(found, where), where))
        return _mean(values)

    def _repeat(self, engine: TransformersEngine) -> float:
        short, long = self.texts[0], self.texts[2]
        first = {d.ids: _looked(engine.forward(d.ids), d.positions) for d in (short, long)}
        return _mean([kl(first[d.ids], _looked(engine.forward(d.ids), d.positions)) for d in (long, short)])


def _looked(forward: Any, positions: Sequence[int]) -> np.ndarray:
    starts = [i for i, p in enumerate(positions) if i == 0 or p != positions[i - 1] + 1]
    runs = [positions[a:b] for a, b in zip(starts, [*starts[1:], len(positions)], strict=True)]
    return np.concatenate([forward.logits(run[0], run[-1] + 1) for run in runs]).astype(np.float64)


def _every(forward: Any) -> np.ndarray:
    return np.asarray(forward.logits(0, forward.positions), dtype=np.float64)


def kl(reference: np.ndarray, found: np.ndarray) -> np.ndarray:
    """KL (nats) of each row of logits; NaN where one is not finite."""

    def log_probabilities(logits: np.ndarray) -> np.ndarray:
        shifted = logits - logits.max(axis=1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))

    with np.errstate(invalid="ignore"):
        p, q = log_probabilities(reference), log_probabilities(found)
        return (np.exp(p) * (p - q)).sum(axis=1)


def _mean(values: Sequence[np.ndarray]) -> float:
    return float(np.concatenate(values).mean())


def wrong_with(sizes: Sizes) -> str:
    """What speaks against the catalogue's entry, or nothing."""
    fault, at = sizes.fault, sizes.kl
    if sizes.says:
        return ""
    if fault.benign or fault.equivalent:
        loud = [way for way, value in at.items() if not value <= FLOOR]
        return f"shows in {', '.join(loud)}" if loud else ""
    if any(map(math.isnan, at.values())) != ("logits.finite" in fault.checks):
        return "NaN, or none, against what is expected"
    if at[sizes.way] <= FLOOR:
        return f"changes nothing in {sizes.way}"
    if sizes.way in ("batch", "cache") and not at["plain"] <= FLOOR:
        return "shows in a plain pass too"
    return ""


def line(sizes: Sizes, width: int) -> str:
    """One row of the table."""
    name = f"{sizes.fault.name:<{width}}"
    if sizes.says:
        return f"{name}  does not apply: {sizes.says}"
    numbers = "  ".join(f"{sizes.kl[way]:>8.1e}" if way in sizes.kl else f"{'-':>8}" for way in WAYS)
    mark = "benign" if sizes.fault.benign else "equivalent" if sizes.fault.equivalent else sizes.way
    return f"{name}  {numbers}  {mark:<10}  {wrong_with(sizes)}".rstrip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny-qwen3")
    parser.add_argument("--fault", nargs="+")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    if options.write and (options.fault or options.model != "tiny-qwen3"):
        parser.error("--write takes the whole catalogue on tiny-qwen3")
    chosen = [f for f in SHIPPED if not options.fault or f.name in options.fault]
    bench, width = Bench(options.model), max(len(f.name) for f in chosen)
    print(f"{'mean KL, nats':<{width}}  {'  '.join(f'{way:>8}' for way in WAYS)}  meant for", flush=True)
    wrong, figures = 0, {}
    for fault in chosen:
        sizes = bench.measure(fault)
        figures[fault.name] = {way: f"{value:.1e}" for way, value in sizes.kl.items()} or {"says": sizes.says}
        wrong += bool(wrong_with(sizes))
        print(line(sizes, width), flush=True)
    print(f"{len(chosen)} entries, {wrong} wrong; floor {FLOOR:g}")
    if options.write:
        fault_page.FIGURES.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        fault_page.PAGE.write_text(fault_page.page(), encoding="utf-8")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
