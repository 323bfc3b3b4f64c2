"""The live reference and the yardstick: the same weights on the CPU, computed when they are needed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence

from pytest_npuconf.comparison import Noise, blocks_of, non_finite_rows, require_finite_side
from pytest_npuconf.devices.base import import_torch
from pytest_npuconf.devices.cpu import CpuDevice
from pytest_npuconf.documents import Document, Runs
from pytest_npuconf.engines.base import Forward
from pytest_npuconf.engines.modules import ModuleRunner, PerturbedRunner, replica
from pytest_npuconf.engines.transformers_engine import StreamedForward, TransformersEngine, Variant
from pytest_npuconf.engines.variants import MODULE_YARDSTICK, REFERENCE_VARIANT, YARDSTICK
from pytest_npuconf.metrics.arrays import Float32, Float64
from pytest_npuconf.metrics.best_words import BestWords, best_words, joined
from pytest_npuconf.module_comparison import ModuleNoise, measure_noise
from pytest_npuconf.options import Settings
from pytest_npuconf.precisions import Precision
from pytest_npuconf.progress import Progress
from pytest_npuconf.weights import Checkpoint

ROWS = 64  # positions of full logits held at once, of a reference alone


class LiveReference:
    """Reference and yardstick of one checkpoint. Engines are loaded on first use; each pass is made once and kept as
    hidden states (positions x channels), from which logits are made on demand."""

    source = "live"
    engine_name = "transformers"

    def __init__(
        self, checkpoint: Checkpoint, settings: Settings, progress: Progress, layers: Sequence[str] = ()
    ) -> None:
        """``layers``: names of the decoder's modules whose outputs are compared as hidden states."""
        self._checkpoint, self._settings, self._progress = checkpoint, settings, progress
        self._engines: dict[str, TransformersEngine] = {}
        self._layers = tuple(layers)
        self._module_noise: dict[str, ModuleNoise] = {}
        self._passes: dict[tuple[str, str, tuple[int, ...], tuple[str, ...]], StreamedForward] = {}
        self._words: dict[tuple[str, tuple[int, ...], Runs], BestWords] = {}

    def forward(self, pair: Precision, document: Document) -> Forward:
        """The reference of ``pair``: float32 as it comes; at a lower dtype another kernel than a candidate's default."""
        variant = None if pair.reference == "float32" else REFERENCE_VARIANT
        return self._pass(pair.reference, document, variant)

    def words(self, pair: Precision, document: Document) -> BestWords:
        """The best words of that reference at the document's ``rest``; made once.

        Raises:
            NonFiniteError: the reference is not finite there.
        """
        key = (pair.reference, document.ids, document.rest)
        if key not in self._words:
            forward, parts = LiveReference.forward(self, pair, document), []
            for start, stop in blocks_of(document.rest, ROWS):
                logits = forward.logits(start, stop)
                require_finite_side(non_finite_rows(logits, document, start), "logits of the reference")
                parts.append(best_words(logits))
            self._words[key] = joined(parts)
        return self._words[key]

    def yardstick(self, pair: Precision) -> dict[str, Callable[[Document], Forward]]:
        """Members of the yardstick at the candidate's dtype, by name."""
        return dict(self.members(pair))

    def members(self, pair: Precision) -> dict[str, Callable[[Document], StreamedForward]]:
        """Passes of the yardstick's members over any document, by name."""

        def member(variant: Variant) -> Callable[[Document], StreamedForward]:
            return lambda document: self._pass(pair.candidate, document, variant)

        return {variant.name: member(variant) for variant in YARDSTICK}

    def plain(self, document: Document) -> StreamedForward:
        """The float32 pass over any document."""
        return self._pass("float32", document, None)

    def noise(self, pair: Precision) -> Noise | None:
        """None: it follows from the yardstick's members."""
        return None

    def hidden_states(self, document: Document) -> Mapping[str, Float32]:
        """The float32 states of the named layers for one document."""
        return self._pass("float32", document, None).states

    def hidden_yardstick(self, pair: Precision) -> dict[str, Callable[[Document], Mapping[str, Float32]]]:
        """The same of the yardstick's members at the candidate's dtype, by name."""

        def member(variant: Variant) -> Callable[[Document], Mapping[str, Float32]]:
            return lambda document: self._pass(pair.candidate, document, variant).states

        return {variant.name: member(variant) for variant in YARDSTICK}

    def hidden_noise(self, pair: Precision) -> Mapping[str, Float64] | None:
        """None: it follows from the members."""
        return None

    def module_noise(self, dtype: str, documents: Sequence[Document]) -> ModuleNoise:
        """What rounding costs in each module at ``dtype``; measured once.

        Raises:
            NonFiniteError: the model overflows at this dtype by itself.
        """
        if dtype not in self._module_noise:
            model, device = self.engine(dtype).model, CpuDevice().torch_device()
            with contextlib.ExitStack() as stack:
                members: dict[str, ModuleRunner] = {}
                for variant in MODULE_YARDSTICK:
                    twin = replica(model)
                    stack.enter_context(variant.applied(twin))
                    members[variant.name] = ModuleRunner(twin, dtype, device)
                if dtype == "float32":  # below, the inputs are rounded already
                    members["perturbed"] = PerturbedRunner(replica(model), dtype, device)
                self._progress.phase(f"the yardstick's modules, {dtype}")
                self._module_noise[dtype] = measure_noise(
                    documents, self.engine("float32").model, members, dtype, self._progress.step
                )
        return self._module_noise[dtype]

    def engine(self, dtype: str) -> TransformersEngine:
        """The reference model at one dtype, on the CPU."""
        if dtype not in self._engines:
            size = self._checkpoint.parameters * (4 if dtype == "float32" else 2)
            self._progress.phase(f"loading the reference, {dtype} on the CPU: {size / 2**30:.2f} GiB")
            self._engines[dtype] = TransformersEngine(
                self._checkpoint, CpuDevice(), dtype, trust_remote_code=self._settings.trust_remote_code
            )
        return self._engines[dtype]

    @property
    def used(self) -> bool:
        """Whether anything was computed."""
        return bool(self._engines)

    def estimate_seconds(self, tokens: int, passes: int) -> float:
        """Time of ``passes`` over ``tokens``: 2 FLOP per parameter and token at the speed of a probe matmul here."""
        return 2.0 * self._checkpoint.parameters * tokens * passes / _flops()

    def close(self) -> None:
        """Release every engine and pass."""
        self._passes.clear()
        self._words.clear()
        for engine in self._engines.values():
            engine.close()
        self._engines.clear()

    def _pass(self, dtype: str, document: Document, variant: Variant | None) -> StreamedForward:
        layers = self._layers if document.kind == "hidden" else ()
        key = (dtype, variant.name if variant else "", document.ids, layers)
        if key not in self._passes:
            self._passes[key] = self.engine(dtype).forward(document.ids, variant, layers)
        return self._passes[key]


def _flops() -> float:
    """Floating-point operations a second of a float32 matmul about as narrow as a document's."""
    torch = import_torch()
    a, b = torch.ones(96, 1024), torch.ones(1024, 2048)
    a @ b
    start = time.perf_counter()
    rounds = 10
    for _ in range(rounds):
        a @ b
    return float(2.0 * 96 * 1024 * 2048 * rounds / (time.perf_counter() - start))
