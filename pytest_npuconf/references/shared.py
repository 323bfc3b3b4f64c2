"""A live reference that several candidates are judged by, one after the other: what does not depend on them is made once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from pytest_npuconf.comparison import Noise, compare, noise_of_two_roundings, require_finite_side
from pytest_npuconf.documents import Document, for_pair
from pytest_npuconf.engines.base import Forward
from pytest_npuconf.engines.variants import REFERENCE_VARIANT
from pytest_npuconf.hidden_comparison import compare_hidden_states
from pytest_npuconf.metrics.arrays import Float32, Float64
from pytest_npuconf.options import Settings
from pytest_npuconf.plan import Plan
from pytest_npuconf.precisions import Precision
from pytest_npuconf.progress import Progress
from pytest_npuconf.references.live import LiveReference
from pytest_npuconf.sharing import Shared
from pytest_npuconf.weights import Checkpoint

HELD = 512 << 20  # bytes of the reference's logits kept from one candidate to the next
Kept = TypeVar("Kept")


class SharedReference(LiveReference):
    """See :class:`LiveReference`. Noise is known from the first question on, so no comparison asks for the yardstick's
    members; ``close`` is for the owner, not for a run."""

    def __init__(
        self, checkpoint: Checkpoint, settings: Settings, layers: Sequence[str], documents: Sequence[Document]
    ) -> None:
        super().__init__(checkpoint, settings, Progress(), layers)
        self._documents = list(documents)
        self._kept: dict[tuple[str, str], object] = {}
        self._rows: OrderedDict[tuple[str, tuple[int, ...]], Rows] = OrderedDict()

    def forward(self, pair: Precision, document: Document) -> Forward:
        key = (pair.reference, document.ids)
        if key not in self._rows:
            held = sum(rows.size for rows in self._rows.values())
            self._rows[key] = Rows(super().forward(pair, document), keep=held < HELD)
        return self._rows[key]

    def yardstick(self, pair: Precision) -> dict[str, Callable[[Document], Forward]]:
        """None: what its members give is known as noise."""
        return {}

    def noise(self, pair: Precision) -> Noise:
        """What rounding alone costs: as a run's own comparison would find it, candidate or not."""
        return self._once("noise", pair, lambda: self._noise(pair))

    def hidden_yardstick(self, pair: Precision) -> dict[str, Callable[[Document], Mapping[str, Float32]]]:
        """None, as for the logits."""
        return {}

    def hidden_noise(self, pair: Precision) -> Mapping[str, Float64]:
        return self._once("hidden", pair, lambda: self._hidden_noise(pair))

    def estimate_seconds(self, tokens: int, passes: int) -> float:
        """Nothing that is still to be made."""
        return 0.0

    def _once(self, kind: str, pair: Precision, make: Callable[[], Kept]) -> Kept:
        key = (kind, pair.name)
        if key not in self._kept:
            self._kept[key] = make()
        kept: Kept = self._kept[key]  # type: ignore[assignment]
        return kept

    def _noise(self, pair: Precision) -> Noise:
        against = Precision(pair.candidate, "float32")
        members = super().yardstick(against)
        found = compare(
            for_pair(self._documents, against),
            members[REFERENCE_VARIANT.name],
            lambda document: self.forward(against, document),
            members,
            words=lambda document: self.words(against, document),
        )
        require_finite_side(found.non_finite, f"logits of the yardstick {REFERENCE_VARIANT.name}")
        self._kept["noise", against.name] = found.noise
        if pair.candidate == "float32":
            return found.noise
        self._kept["noise", Precision(pair.candidate, pair.candidate).name] = noise_of_two_roundings(
            found, REFERENCE_VARIANT.name
        )
        return self._kept["noise", pair.name]  # type: ignore[return-value]

    def _hidden_noise(self, pair: Precision) -> Mapping[str, Float64]:
        members = super().hidden_yardstick(pair)
        found = compare_hidden_states(
            [d for d in self._documents if d.kind == "hidden"],
            self._layers,
            members[REFERENCE_VARIANT.name],
            self.hidden_states,
            members,
        )
        require_finite_side(found.non_finite, f"hidden states of the yardstick {REFERENCE_VARIANT.name}")
        return found.noise


class Rows:
    """A pass whose logits are kept once they were made. ``size``: bytes that are kept."""

    def __init__(self, forward: Forward, *, keep: bool) -> None:
        self._forward, self._keep = forward, keep
        self._logits: dict[tuple[int, int], Float32] = {}

    @property
    def positions(self) -> int:
        return self._forward.positions

    @property
    def size(self) -> int:
        return sum(logits.nbytes for logits in self._logits.values())

    def logits(self, start: int, stop: int) -> Float32:
        if (start, stop) in self._logits:
            return self._logits[start, stop]
        logits = self._forward.logits(start, stop)
        if self._keep:
            self._logits[start, stop] = logits
        return logits


class SharedReferences(Shared):
    """Also keeps the live reference of each model."""

    def live(self, plan: Plan, model: str) -> LiveReference:
        def make() -> SharedReference:
            return SharedReference(plan.checkpoints[model], plan.settings, plan.layers(model), plan.documents[model])

        return self.once(("live", model), make)
