"""A stored reference in use: the same verbs as the live one, from files.

Arrays, concatenated over documents in their order: ``logits.<field>`` for each field of
:class:`~pytest_npuconf.metrics.compact.CompactRows` over their looked positions (below float32 without those of kind
``document``), ``hidden.<layer>`` of shape ``(positions, channels)``
over those of kind ``hidden`` (float32 only), ``gap.<pair>`` of shape ``(positions,)``: see ``Noise.gap``. Over the documents'
``rest``: ``rest.<field>`` of :class:`~pytest_npuconf.metrics.best_words.BestWords` (float32 only) and ``rest_gap.<pair>`` (against
float32 only), see ``Noise.rest_gap``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np

from pytest_npuconf.comparison import Noise
from pytest_npuconf.documents import Document, for_pair
from pytest_npuconf.engines.base import Forward
from pytest_npuconf.errors import BaselineError
from pytest_npuconf.metrics.arrays import Float32, Float64
from pytest_npuconf.metrics.best_words import BestWords
from pytest_npuconf.metrics.compact import CompactRows
from pytest_npuconf.precisions import Precision
from pytest_npuconf.references.baseline import Arrays, Baseline

ROW_FIELDS = tuple(f.name for f in fields(CompactRows) if f.name not in ("vocabulary", "start"))


class StoredReference:
    """References of one model by dtype; see :class:`pytest_npuconf.references.live.LiveReference` for the verbs."""

    def __init__(self, baselines: Mapping[str, Baseline], documents: Sequence[Document], paths: Sequence[Path]) -> None:
        """``baselines``: by dtype of the reference; ``documents``: those of the run, comparable with the stored ones."""
        self._baselines, self.paths = dict(baselines), tuple(paths)
        self._documents = list(documents)
        self._start = {dtype: _starts(for_pair(self._documents, Precision(dtype, dtype))) for dtype in self._baselines}
        self._rest_start = _starts(self._documents, lambda d: len(d.rest_positions))
        self._hidden_start = _starts([d for d in self._documents if d.kind == "hidden"])
        self._layers = tuple(next(iter(self._baselines.values())).comparability["layers"])

    @property
    def source(self) -> str:
        """``stored float32 1f0c..., bfloat16 77ab...``, for the record."""
        listed = ", ".join(f"{dtype} {baseline.digest[:12]}" for dtype, baseline in self._baselines.items())
        return f"stored {listed}"

    def forward(self, pair: Precision, document: Document) -> CompactRows:
        """The stored rows of one document."""
        baseline = self._baselines[pair.reference]
        a = self._start[pair.reference][document.name]
        b = a + len(document.positions)
        cut = {name: baseline.arrays[f"logits.{name}"][a:b] for name in ROW_FIELDS}
        return CompactRows(int(baseline.statistics["vocabulary"]), 0, **cut)

    def words(self, pair: Precision, document: Document) -> BestWords:
        """The stored best words at the ``rest`` of one document."""
        if pair.reference != "float32":
            raise BaselineError(f"best words are stored of float32, not of {pair.reference}")
        a = self._rest_start[document.name]
        b = a + len(document.rest_positions)
        arrays = self._baselines[pair.reference].arrays
        return BestWords(arrays["rest.ids"][a:b], arrays["rest.logits"][a:b])

    def yardstick(self, pair: Precision) -> dict[str, Callable[[Document], Forward]]:
        """None: what its members gave is stored as noise."""
        return {}

    def noise(self, pair: Precision) -> Noise:
        """What rounding alone costs at this pair, as recorded."""
        stored = self._baselines[pair.candidate].noise[pair.name]
        return Noise(
            np.array(stored["kl"]), np.array(stored["rel_l2"]), float(stored["gap_sd"]), dict(stored["members"]),
            runs=tuple(map(np.array, stored["runs"])), typical_runs=tuple(map(np.array, stored["typical_runs"])),
            gap=self._gaps("gap", pair, lambda d: len(d.positions)),
            rest_gap=self._gaps("rest_gap", pair, lambda d: len(d.rest_positions)) if pair.reference == "float32" else (),
        )  # fmt: skip

    def _gaps(self, name: str, pair: Precision, size: Callable[[Document], int]) -> tuple[Float64, ...]:
        every = self._baselines[pair.candidate].arrays[f"{name}.{pair.name}"].astype(np.float64)
        ends = np.cumsum([size(d) for d in for_pair(self._documents, pair)])
        return tuple(np.split(every, ends[:-1]))

    def hidden_states(self, document: Document) -> Mapping[str, Float32]:
        """The stored float32 states of one document."""
        arrays: Arrays = self._baselines["float32"].arrays
        a = self._hidden_start[document.name]
        return {layer: arrays[f"hidden.{layer}"][a : a + len(document.ids)] for layer in self._layers}

    def hidden_yardstick(self, pair: Precision) -> dict[str, Callable[[Document], Mapping[str, Float32]]]:
        """None, as for the logits."""
        return {}

    def hidden_noise(self, pair: Precision) -> dict[str, Float64]:
        """By layer, one value for each input."""
        stored = self._baselines[pair.candidate].noise[pair.name]["hidden"]
        return {layer: np.array(stored[layer]) for layer in self._layers}

    def close(self) -> None:
        """Nothing to release."""


def _starts(
    documents: Sequence[Document], size: Callable[[Document], int] = lambda d: len(d.positions)
) -> dict[str, int]:
    ends = np.cumsum([0, *(size(d) for d in documents)])
    return {d.name: int(start) for d, start in zip(documents, ends[:-1], strict=True)}
