"""The engines of a run: one candidate at a time, one reference at a time, each comparison made once."""

from __future__ import annotations

import dataclasses

from pytest_npuconf.comparison import Comparison, compare, noise_of_two_roundings
from pytest_npuconf.devices.base import is_deterministic
from pytest_npuconf.documents import Document, for_pair
from pytest_npuconf.engines.base import Engine, EngineFactory, Forward, Modules, Watched
from pytest_npuconf.engines.execution import Executed
from pytest_npuconf.engines.variants import REFERENCE_VARIANT
from pytest_npuconf.equivalence_comparison import (
    Equivalence,
    FirstCall,
    RunNoise,
    compare_batches,
    compare_cached,
    compare_repeats,
    first_call,
)
from pytest_npuconf.errors import EngineError, FaultError
from pytest_npuconf.faults.applies import check_target, check_texts
from pytest_npuconf.hidden_comparison import HiddenComparison, compare_hidden_states
from pytest_npuconf.module_comparison import ModuleComparison, compare_modules
from pytest_npuconf.plan import Plan
from pytest_npuconf.precisions import Precision
from pytest_npuconf.progress import Progress
from pytest_npuconf.references.baseline import Baseline
from pytest_npuconf.references.live import LiveReference
from pytest_npuconf.references.recording import record
from pytest_npuconf.references.stored import StoredReference
from pytest_npuconf.sharing import Shared


class Workbench:
    """Owns every loaded model of the process; another model or dtype releases the one before."""

    def __init__(self, plan: Plan, progress: Progress, shared: Shared) -> None:
        self.plan, self._progress, self.shared = plan, progress, shared
        self._candidate: tuple[tuple[str, str], Engine] | None = None
        self._candidate_passes: dict[tuple[int, ...], Forward] = {}
        self._reference: tuple[str, LiveReference | StoredReference] | None = None
        self._comparisons: dict[tuple[str, str], Comparison] = {}
        self._hidden: dict[tuple[str, str], HiddenComparison] = {}
        self._equivalences: dict[tuple[str, str, str], Equivalence] = {}
        self._modules: dict[tuple[str, str], ModuleComparison] = {}
        self._beside: tuple[str, LiveReference] | None = None
        self._first_call: FirstCall | None = None
        self.recorded: dict[str, list[Baseline]] = {}

    def candidate(self, model: str, dtype: str) -> Engine:
        """The model on the device under test, with the run's fault if there is one."""
        if self._candidate is None or self._candidate[0] != (model, dtype):
            self._release_candidate()
            self._progress.phase(f"loading {model}, {dtype} on {self.plan.device.name}")
            if not isinstance(self.plan.factory, EngineFactory):
                raise EngineError(
                    f"engine {self.plan.factory.name} serves a model and gives no logits",
                    mend="--npuconf-engine transformers",
                )
            engine: Engine = self.plan.factory.load(
                self.plan.checkpoints[model], self.plan.device, dtype, self.plan.settings
            )
            self._inject(engine, model)
            self._candidate = ((model, dtype), engine)
            self._first_call = first_call(engine, self.documents(model))
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
            self._reference = (model, stored or self.shared.live(self.plan, model) or self._live(model))
        return self._reference[1]

    def _live(self, model: str) -> LiveReference:
        plan = self.plan
        return LiveReference(plan.checkpoints[model], plan.settings, self._progress, plan.layers(model))

    def documents(self, model: str) -> list[Document]:
        """The card's prompts, inputs, texts and documents with their token ids, from the reference's tokenizer."""
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

    def modules(self, model: str, pair: Precision) -> ModuleComparison:
        """The candidate's modules, each fed with the float32 reference's inputs; made on first use. The reference is live,
        beside a stored one too.

        Raises:
            EngineError: the engine has no modules to feed.
        """
        key = (model, pair.name)
        if key not in self._modules:
            engine = self.candidate(model, pair.candidate)
            if not isinstance(engine, Modules):
                raise EngineError(
                    f"engine {engine.name} has no modules that can be fed one by one",
                    mend="give it modules(), or name what decides under [required] in the card",
                )
            live = self.live_reference(model)
            noise = live.module_noise(pair.candidate, self.documents(model))
            self._progress.phase(f"{model}, {pair.spoken}: modules")
            self._modules[key] = compare_modules(
                live.engine("float32").model, engine.modules(), noise, self._progress.step
            )
        return self._modules[key]

    def executed(self, model: str, dtype: str) -> Executed:
        """Where the ops of the candidate run, over its longest prompt or document.

        Raises:
            EngineError: the engine's ops cannot be watched.
        """
        engine = self.candidate(model, dtype)
        if not isinstance(engine, Watched):
            raise EngineError(
                f"engine {engine.name} does not say where its ops run",
                mend="give it executed(), or name what decides under [required] in the card",
            )
        return engine.executed(max((d.ids for d in self.documents(model)), key=len))

    def live_reference(self, model: str) -> LiveReference:
        """The reference if it is live, else one beside the stored one."""
        source = self.reference(model)
        if isinstance(source, LiveReference):
            return source
        if self._beside is None or self._beside[0] != model:
            self._release_beside()
            self._beside = (model, self.shared.live(self.plan, model) or self._live(model))
        return self._beside[1]

    def equivalence(self, model: str, dtype: str, kind: str) -> Equivalence:
        """The candidate against itself in another way: ``batch``, ``cache`` or ``repeat``; made on first use."""
        key = (model, dtype, kind)
        if key not in self._equivalences:
            self._equivalences[key] = self._compare_with_itself(model, dtype, kind)
        return self._equivalences[key]

    def _compare_with_itself(self, model: str, dtype: str, kind: str) -> Equivalence:
        engine, documents = self.candidate(model, dtype), self.documents(model)
        self._progress.phase(f"{model}, {dtype}: equivalences, {kind}")

        def alone(document: Document) -> Forward:
            return self._candidate_pass(model, dtype, document)

        if kind == "repeat":
            found = compare_repeats(engine, documents, alone, self._first_call)
        else:
            found = {"batch": compare_batches, "cache": compare_cached}[kind](engine, documents, alone)
        bits_decide = kind == "repeat" and is_deterministic(self.plan.device)
        if dtype == "float32" or bits_decide or found.broken:
            return found
        comparison = self.comparison(model, Precision(dtype, "float32"))
        if comparison.non_finite:
            first = comparison.non_finite[0]
            return dataclasses.replace(found, broken=(f"{first.kind} in the logits alone at {first.place}",))
        return dataclasses.replace(found, noise=RunNoise.of_comparison(comparison))

    def _compare(self, model: str, pair: Precision, *, yardstick: bool = True) -> Comparison:
        documents, source = for_pair(self.documents(model), pair), self.reference(model)
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
            words=lambda document: source.words(pair, document),
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

    def _release_beside(self) -> None:
        if self._beside is not None and self._beside[1] is not self.shared.live(self.plan, self._beside[0]):
            self._beside[1].close()
        self._beside = None

    def _release_reference(self) -> None:
        self._release_beside()
        if self._reference is None:
            return
        model, source = self._reference
        if self.plan.settings.record and isinstance(source, LiveReference) and source.used:
            self._progress.phase(f"recording the reference of {model}")
            self.recorded[model] = record(
                source, self.documents(model), self.plan.layers(model), self.plan.precisions[model], model=model,
                engine=source.engine_name, comparability=self.plan.comparability(model), provenance=self.plan.provenance,
            )  # fmt: skip
        if source is not self.shared.live(self.plan, model):
            source.close()
        self._reference = None

    def _candidate_pass(self, model: str, dtype: str, document: Document) -> Forward:
        engine = self.candidate(model, dtype)
        if document.ids not in self._candidate_passes:
            self._candidate_passes[document.ids] = engine.forward(document.ids)
        return self._candidate_passes[document.ids]

    def _inject(self, engine: Engine, name: str) -> None:
        fault = self.plan.fault
        if fault is None:
            return
        check_target(fault, engine.name)
        check_texts(fault, name, self.documents(name))
        model = getattr(engine, "model", None)
        if model is None:
            raise FaultError(f"fault {fault.name} breaks a transformers model; engine {engine.name} has none to break")
        fault.inject(model)

    def _release_candidate(self) -> None:
        self._candidate_passes.clear()
        self._modules.clear()  # each holds both models, to say how weights differ
        if self._candidate is not None:
            self._candidate[1].close()
            self._candidate = self._first_call = None
