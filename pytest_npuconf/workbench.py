"""The engines of a run: one candidate at a time, one reference at a time, each comparison made once."""

from __future__ import annotations

import dataclasses

from pytest_npuconf.comparison import Comparison, compare, noise_of_two_roundings
from pytest_npuconf.documents import Document
from pytest_npuconf.engines.base import Engine, Forward
from pytest_npuconf.engines.variants import REFERENCE_VARIANT
from pytest_npuconf.errors import FaultError
from pytest_npuconf.hidden_comparison import HiddenComparison, compare_hidden_states
from pytest_npuconf.plan import Plan
from pytest_npuconf.precisions import Precision
from pytest_npuconf.progress import Progress
from pytest_npuconf.references.baseline import Baseline
from pytest_npuconf.references.live import LiveReference
from pytest_npuconf.references.recording import record
from pytest_npuconf.references.stored import StoredReference


class Workbench:
    """Owns every loaded model of the process; another model or dtype releases the one before."""

    def __init__(self, plan: Plan, progress: Progress) -> None:
        self.plan, self._progress = plan, progress
        self._candidate: tuple[tuple[str, str], Engine] | None = None
        self._candidate_passes: dict[tuple[int, ...], Forward] = {}
        self._reference: tuple[str, LiveReference | StoredReference] | None = None
        self._comparisons: dict[tuple[str, str], Comparison] = {}
        self._hidden: dict[tuple[str, str], HiddenComparison] = {}
        self.recorded: dict[str, list[Baseline]] = {}

    def candidate(self, model: str, dtype: str) -> Engine:
        """The model on the device under test, with the run's fault if there is one."""
        if self._candidate is None or self._candidate[0] != (model, dtype):
            self._release_candidate()
            self._progress.phase(f"loading {model}, {dtype} on {self.plan.device.name}")
            engine: Engine = self.plan.factory.load(
                self.plan.checkpoints[model], self.plan.device, dtype, self.plan.settings
            )
            self._inject(engine)
            self._candidate = ((model, dtype), engine)
        return self._candidate[1]

    def any_candidate(self, model: str) -> Engine:
        """The model on the device under test at whatever dtype it is loaded at, else at the first of the run."""
        if self._candidate is not None and self._candidate[0][0] == model:
            return self._candidate[1]
        return self.candidate(model, self.plan.precisions[model][0])

    def reference(self, model: str) -> LiveReference | StoredReference:
        """The reference and yardstick of one model, stored or live; one at a time."""
        if self._reference is None or self._reference[0] != model:
            self._release_reference()
            stored = self.plan.stored.get(model)
            self._reference = (model, stored or self._live(model))
        return self._reference[1]

    def _live(self, model: str) -> LiveReference:
        plan = self.plan
        return LiveReference(plan.checkpoints[model], plan.settings, self._progress, plan.layers(model))

    def documents(self, model: str) -> list[Document]:
        """The card's prompts, inputs and texts with their token ids, from the reference's tokenizer."""
        return list(self.plan.documents[model])

    def comparison(self, model: str, pair: Precision) -> Comparison:
        """Candidate against reference and yardstick over all documents; made on first use."""
        key = (model, pair.name)
        if key not in self._comparisons:
            stored = self.reference(model).noise(pair)
            if stored is not None:
                self._comparisons[key] = dataclasses.replace(self._compare(model, pair), noise=stored)
            elif pair.candidate == pair.reference != "float32":
                self._comparisons[key] = self._compare_same(model, pair)
            else:
                self._comparisons[key] = self._compare(model, pair)
        return self._comparisons[key]

    def hidden(self, model: str, pair: Precision) -> HiddenComparison:
        """Hidden states of the card's inputs, candidate against reference and yardstick; made on first use."""
        key = (model, pair.name)
        if key not in self._hidden:
            source, layers = self.reference(model), self.plan.layers(model)
            compared = compare_hidden_states(
                [d for d in self.documents(model) if d.kind == "hidden"],
                layers,
                lambda document: self.candidate(model, pair.candidate).hidden_states(document.ids, layers),
                source.hidden_states,
                source.hidden_yardstick(pair),
            )
            stored = source.hidden_noise(pair)
            self._hidden[key] = compared if stored is None else dataclasses.replace(compared, noise=stored)
        return self._hidden[key]

    def _compare(self, model: str, pair: Precision, *, yardstick: bool = True) -> Comparison:
        documents, source = self.documents(model), self.reference(model)
        tokens = sum(len(d.ids) for d in documents)
        members = source.yardstick(pair) if yardstick else {}
        kind = "stored reference"
        if isinstance(source, LiveReference):
            kind = f"live reference, about {max(1, round(source.estimate_seconds(tokens, len(members) + 2)))} s"
        self._progress.phase(f"{model}, {pair.spoken}: {tokens} tokens, {kind}")
        return compare(
            documents,
            lambda document: self._candidate_pass(model, pair.candidate, document),
            lambda document: source.forward(pair, document),
            members,
            announce=lambda text: self._progress.step(f"{model}, {pair.spoken}, {text}"),
        )

    def _compare_same(self, model: str, pair: Precision) -> Comparison:
        """Against the candidate's own dtype: the noise is known from both sides' distance to float32."""
        against_float32 = self.comparison(model, Precision(pair.candidate, "float32"))
        comparison = self._compare(model, pair, yardstick=False)
        noise = noise_of_two_roundings(against_float32, REFERENCE_VARIANT.name)
        return dataclasses.replace(comparison, noise=noise)

    def close(self) -> None:
        """Release everything; idempotent."""
        self._release_candidate()
        self._release_reference()

    def _release_reference(self) -> None:
        if self._reference is None:
            return
        model, source = self._reference
        if self.plan.settings.record and isinstance(source, LiveReference) and source.used:
            self._progress.phase(f"recording the reference of {model}")
            self.recorded[model] = record(
                source, self.documents(model), self.plan.layers(model), self.plan.precisions[model], model=model,
                engine=source.engine_name, comparability=self.plan.comparability(model), provenance=self.plan.facts,
            )  # fmt: skip
        source.close()
        self._reference = None

    def _candidate_pass(self, model: str, dtype: str, document: Document) -> Forward:
        engine = self.candidate(model, dtype)
        if document.ids not in self._candidate_passes:
            self._candidate_passes[document.ids] = engine.forward(document.ids)
        return self._candidate_passes[document.ids]

    def _inject(self, engine: Engine) -> None:
        fault = self.plan.fault
        if fault is None:
            return
        model = getattr(engine, "model", None)
        if model is None:
            raise FaultError(f"fault {fault.name} breaks a transformers model; engine {engine.name} has none to break")
        fault.inject(model)

    def _release_candidate(self) -> None:
        self._candidate_passes.clear()
        if self._candidate is not None:
            self._candidate[1].close()
            self._candidate = None
