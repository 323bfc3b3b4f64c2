"""Hidden states of candidate, reference and yardstick over the same inputs, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pytest_npuconf.comparison import NonFinite, noisiest, non_finite_rows, require_finite_side
from pytest_npuconf.documents import Document
from pytest_npuconf.metrics.arrays import Float32, Float64
from pytest_npuconf.metrics.hidden import HiddenRows, compare_hidden

FINAL = "norm"  # the final normed hidden state, which the documents compare
States = Mapping[str, Float32]


@dataclass(frozen=True)
class HiddenComparison:
    """``rows[layer]`` has one entry for each of ``documents``; ``noise[layer]``, shape ``(documents,)``, is what rounding
    alone costs: the sum over positions of rel_l2, of the noisiest member of the yardstick. With ``non_finite`` places, only the
    documents without them are there."""

    documents: tuple[Document, ...]
    rows: Mapping[str, tuple[HiddenRows, ...]]
    noise: Mapping[str, Float64]
    non_finite: tuple[NonFinite, ...] = ()

    @property
    def positions(self) -> int:
        """Positions of all documents that were compared."""
        return sum(len(d.ids) for d in self.documents)


def compare_hidden_states(
    documents: Sequence[Document],
    layers: Sequence[str],
    candidate: Callable[[Document], States],
    reference: Callable[[Document], States],
    yardstick: Mapping[str, Callable[[Document], States]],
) -> HiddenComparison:
    """Compare over all documents.

    Raises:
        NonFiniteError: the reference or a yardstick's member is not finite.
        MetricError: the sides differ in shape.
    """
    done: list[Document] = []
    rows: dict[str, list[HiddenRows]] = {layer: [] for layer in layers}
    off: dict[str, list[list[float]]] = {layer: [[] for _ in yardstick] for layer in layers}
    bad: list[NonFinite] = []
    for document in documents:
        wanted, found = reference(document), candidate(document)
        places = [p for layer in layers for p in non_finite_rows(found[layer], document, where=f" {layer}")]
        if places:
            bad += places
            continue
        members = {name: states(document) for name, states in yardstick.items()}
        for layer in layers:
            _require_usable(document, layer, {"reference": wanted, **{f"yardstick {n}": s for n, s in members.items()}})
            rows[layer].append(compare_hidden(found[layer], wanted[layer]))
            for sums, states in zip(off[layer], members.values(), strict=True):
                sums.append(float(compare_hidden(states[layer], wanted[layer]).rel_l2.sum()))
        done.append(document)
    return HiddenComparison(
        tuple(done),
        {layer: tuple(found) for layer, found in rows.items()},
        {layer: noisiest([np.array(sums) for sums in found or [[0.0] * len(done)]]) for layer, found in off.items()},
        tuple(bad),
    )


def _require_usable(document: Document, layer: str, sides: Mapping[str, States]) -> None:
    for side, states in sides.items():
        require_finite_side(non_finite_rows(states[layer], document, where=f" {layer}"), f"hidden states of the {side}")
