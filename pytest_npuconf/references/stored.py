"""A stored reference in use: the same verbs as the live one, from files.

Arrays, concatenated over documents in the order of ``comparability.documents``: ``logits.<field>`` for each field of
:class:`~pytest_npuconf.metrics.compact.CompactRows` over all of them, ``hidden.<layer>`` of shape ``(positions, channels)``
over those of kind ``hidden`` (float32 only).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np

from pytest_npuconf.comparison import Noise
from pytest_npuconf.documents import Document
from pytest_npuconf.engines.base import Forward
from pytest_npuconf.metrics.arrays import Float32, Float64
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
        self._start = _starts(self._documents)
        hidden = [d for d in self._documents if d.kind == "hidden"]
        self._hidden_start = _starts(hidden)
        self._layers = tuple(next(iter(self._baselines.values())).comparability["layers"])

    @property
    def source(self) -> str:
        """``stored float32 1f0c..., bfloat16 77ab...``, for the record."""
        listed = ", ".join(f"{dtype} {baseline.digest[:12]}" for dtype, baseline in self._baselines.items())
        return f"stored {listed}"

    def forward(self, pair: Precision, document: Document) -> CompactRows:
        """The stored rows of one document."""
        baseline = self._baselines[pair.reference]
        a = self._start[document.name]
        b = a + len(document.ids)
        cut = {name: baseline.arrays[f"logits.{name}"][a:b] for name in ROW_FIELDS}
        return CompactRows(int(baseline.statistics["vocabulary"]), 0, **cut)

    def yardstick(self, pair: Precision) -> dict[str, Callable[[Document], Forward]]:
        """None: what its members gave is stored as noise."""
        return {}

    def noise(self, pair: Precision) -> Noise:
        """What rounding alone costs at this pair, as recorded."""
        stored = self._baselines[pair.candidate].noise[pair.name]
        return Noise(
            np.array(stored["kl"]), np.array(stored["rel_l2"]), float(stored["gap_sd"]), dict(stored["members"])
        )  # fmt: skip

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


def _starts(documents: Sequence[Document]) -> dict[str, int]:
    ends = np.cumsum([0, *(len(d.ids) for d in documents)])
    return {d.name: int(start) for d, start in zip(documents, ends[:-1], strict=True)}
