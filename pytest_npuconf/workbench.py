"""The engines of a run: one candidate at a time, one reference at a time, each comparison made once."""

from __future__ import annotations

import dataclasses

from pytest_npuconf.comparison import Comparison, Document, compare, noise_of_two_roundings
from pytest_npuconf.engines.base import Engine, Forward
from pytest_npuconf.engines.variants import REFERENCE_VARIANT
from pytest_npuconf.errors import FaultError
from pytest_npuconf.plan import Plan
from pytest_npuconf.precisions import Precision
from pytest_npuconf.progress import Progress
from pytest_npuconf.references.live import LiveReference


class Workbench:
    """Owns every loaded model of the process; another model or dtype releases the one before."""

    def __init__(self, plan: Plan, progress: Progress) -> None:
        self.plan, self._progress = plan, progress
        self._candidate: tuple[tuple[str, str], Engine] | None = None
        self._candidate_passes: dict[tuple[int, ...], Forward] = {}
        self._reference: tuple[str, LiveReference] | None = None
        self._documents: dict[str, list[Document]] = {}
        self._comparisons: dict[tuple[str, str], Comparison] = {}

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

    def reference(self, model: str) -> LiveReference:
        """The live reference and yardstick of one model."""
        if self._reference is None or self._reference[0] != model:
            if self._reference is not None:
                self._reference[1].close()
            live = LiveReference(self.plan.checkpoints[model], self.plan.settings, self._progress)
            self._reference = (model, live)
        return self._reference[1]

    def documents(self, model: str) -> list[Document]:
        """The card's prompts and texts with their token ids, from the reference's tokenizer."""
        if model not in self._documents:
            card, engine = self.plan.cards[model], self.reference(model).engine("float32")
            self._documents[model] = [
                Document(prompt.name, kind, prompt.text, tuple(engine.tokenize(prompt.text)))
                for kind, prompts in (("prompt", card.logits_prompts), ("text", card.perplexity_texts))
                for prompt in prompts
            ]
        return self._documents[model]

    def comparison(self, model: str, pair: Precision) -> Comparison:
        """Candidate against reference and yardstick over all documents; made on first use."""
        key = (model, pair.name)
        if key not in self._comparisons:
            same = pair.candidate == pair.reference != "float32"
            self._comparisons[key] = self._compare_same(model, pair) if same else self._compare(model, pair)
        return self._comparisons[key]

    def _compare(self, model: str, pair: Precision, *, yardstick: bool = True) -> Comparison:
        documents, live = self.documents(model), self.reference(model)
        tokens = sum(len(d.ids) for d in documents)
        members = live.yardstick(pair) if yardstick else {}
        seconds = live.estimate_seconds(tokens, len(members) + 2)
        self._progress.phase(
            f"{model}, {pair.spoken}: {tokens} tokens, live reference, about {max(1, round(seconds))} s"
        )
        return compare(
            documents,
            lambda document: self._candidate_pass(model, pair.candidate, document),
            lambda document: live.forward(pair, document),
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
        if self._reference is not None:
            self._reference[1].close()
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
