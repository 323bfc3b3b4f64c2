"""The served models of a run: one server at a time, started once for each dtype and mode, and what they are compared with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_npuconf.cards.schema import Card
from pytest_npuconf.comparison import Comparison, Noise, compare
from pytest_npuconf.documents import Document
from pytest_npuconf.engines.base import Forward
from pytest_npuconf.engines.chat import ends_of_turn
from pytest_npuconf.engines.served import Answer, Ask, Served, ServingFactory
from pytest_npuconf.engines.topk import FilledForward, K, PlainForward, ReducedForward
from pytest_npuconf.engines.transformers_engine import load_tokenizer, tokenize
from pytest_npuconf.errors import EngineError, NpuconfError
from pytest_npuconf.metrics.arrays import Float32
from pytest_npuconf.plan import Plan
from pytest_npuconf.precisions import Precision
from pytest_npuconf.progress import Progress
from pytest_npuconf.references.live import LiveReference
from pytest_npuconf.serving.near_ties import Judge
from pytest_npuconf.workbench import Workbench

FIRST_TOKENS = 8
GENERATING = ("generate", "tensor_parallel")  # modes that answer with text


@dataclass(frozen=True)
class First:
    """What the first request after the start asked and got: a generated answer, or an embedding of shape ``(1, width)``."""

    ask: Ask | None = None
    answer: Answer | None = None
    text: str = ""
    embedding: Float32 | None = None


class ServingBench:
    """Starts what a check asks for and ends it when another is asked for."""

    def __init__(self, workbench: Workbench, plan: Plan, progress: Progress) -> None:
        self._workbench, self.plan, self._progress = workbench, plan, progress
        self._current: tuple[tuple[str, str, str], Served] | None = None
        self._failed: dict[tuple[str, str, str], NpuconfError] = {}
        self.first: dict[tuple[str, str, str], First] = {}
        self.started: set[tuple[str, str, str]] = set()

    def served(self, model: str, dtype: str, mode: str) -> Served:
        """The model, served; its first request is sent before any other.

        Raises:
            EngineError: it does not start or has ended, now or when it was asked for before.
        """
        key = (model, dtype, mode)
        if key in self._failed:
            raise self._failed[key]
        try:
            if self._current is not None and self._current[0] == key:
                self._current[1].check_alive()
                return self._current[1]
            self.close()
            self._current = (key, self._start(model, dtype, mode))
        except NpuconfError as error:
            self._failed[key] = error
            self.close()
            raise
        self.started.add(key)
        return self._current[1]

    def _start(self, model: str, dtype: str, mode: str) -> Served:
        factory, card = self.plan.factory, self.plan.cards[model]
        if not isinstance(factory, ServingFactory):
            raise EngineError(f"engine {factory.name} serves nothing", mend="--npuconf-engine server")
        stated = card.serving.mode(mode)
        if stated is None:
            raise EngineError(f"{card.path}: no mode {mode!r} of the server", mend=f"add: [serving.modes.{mode}]")
        self._progress.phase(f"starting {model}, {dtype}, mode {mode}, engine {factory.name}")
        served = factory.serve(
            self.plan.checkpoints[model], card, stated, self.plan.device, dtype, self.plan.settings, self._progress,
            self.plan.fault,
        )  # fmt: skip
        try:
            self._check_lengths(served, model)
            self.first[model, dtype, mode] = self._first(served, model)
        except BaseException:
            served.close()
            raise
        return served

    def _check_lengths(self, served: Served, model: str) -> None:
        """Refuse a text that does not fit: of what is continued, with one token of its answer; of what is embedded or ranked,
        alone."""
        mend = f"raise max_model_len under [serving] in {self.card(model).path}, or give shorter texts under"
        if served.mode in GENERATING:
            longest = self.long(model)[0]
            if len(longest.ids) >= served.max_model_len:
                raise EngineError(
                    f"{longest.name} has {len(longest.ids)} tokens, and the server takes {served.max_model_len} with its "
                    "answer",
                    mend=f"{mend} [prompts]",
                )
        if served.mode in ("embed", "score"):
            tokenizer = self.tokenizer(model)
            count, text = max((len(tokenize(tokenizer, text)), text) for text in self.texts(model))
            if count > served.max_model_len:
                raise EngineError(
                    f"{text[:40]!r} ... has {count} tokens, and the server takes {served.max_model_len} in mode {served.mode}",
                    mend=f"{mend} [[rerank]] or [prompts]",
                )

    def _first(self, served: Served, model: str) -> First:
        document = self.long(model)[0]
        if served.mode in GENERATING:
            ask = Ask(document.ids[: min(len(document.ids), served.max_model_len // 2)], FIRST_TOKENS, ignore_eos=True)
            return First(ask, served.complete([ask])[0])
        if served.mode == "embed":
            text = self.texts(model)[0]
            return First(text=text, embedding=served.embed([text]))
        return First()

    def card(self, model: str) -> Card:
        """The card of a model."""
        return self.plan.cards[model]

    def documents(self, model: str) -> list[Document]:
        """The card's documents with their token ids."""
        return self._workbench.documents(model)

    def long(self, model: str) -> list[Document]:
        """The longest documents first."""
        return sorted(self.documents(model), key=lambda d: -len(d.ids))

    def texts(self, model: str) -> list[str]:
        """What embeddings are made of: queries and documents of the card's examples, then its short texts."""
        examples = [text for example in self.card(model).rerank for text in (example.query, *example.documents)]
        short = [d.text for d in self.documents(model) if d.kind in ("prompt", "hidden", "text")]
        return list(dict.fromkeys([*examples, *short]))

    def reference(self, model: str) -> LiveReference:
        """The same weights in transformers on the CPU."""
        return self._workbench.live_reference(model)

    def tokenizer(self, model: str) -> Any:
        """transformers' own tokenizer of a model, with its chat template."""
        checkpoint, code = self.plan.checkpoints[model], self.plan.settings.trust_remote_code
        return self._workbench.shared.once(
            ("tokenizer", model), lambda: load_tokenizer(checkpoint, trust_remote_code=code)
        )

    def ends(self, model: str) -> list[int]:
        """Token ids that end a turn, by the tokenizer and by the checkpoint's generation_config.json."""
        engine = self.reference(model).engine("float32")
        return ends_of_turn(engine.model, engine.tokenizer)

    def judge(self, model: str, dtype: str) -> Judge:
        """Of greedy answers."""

        def make() -> Judge:
            prompts = [d for d in self.documents(model) if d.kind in ("prompt", "text")]
            return Judge(self.reference(model), dtype, prompts)

        return self._workbench.shared.once(("judge", model, dtype), make)

    def comparison(self, model: str, pair: Precision) -> Comparison:
        """The server's best log-probabilities against the reference's, with the yardstick reduced to as many."""
        served, reference = self.served(model, pair.candidate, "generate"), self.reference(model)
        documents = self.documents(model)
        self._progress.phase(
            f"{model}, {pair.spoken}: {sum(len(d.ids) for d in documents)} tokens, {K} log-probabilities each"
        )

        def plain(document: Document) -> PlainForward:
            return PlainForward(reference.plain(document))

        def candidate(document: Document) -> FilledForward:
            return FilledForward(served.top(document.ids, K), reference.plain(document))

        found = compare(documents, candidate, plain, {}, announce=self._progress.step)
        return dataclasses.replace(found, noise=self._noise(model, pair))

    def _noise(self, model: str, pair: Precision) -> Noise:
        """What rounding costs, seen through as few log-probabilities."""
        reference = self.reference(model)

        def member(whole: Callable[[Document], Forward]) -> Callable[[Document], Forward]:
            return lambda document: ReducedForward(whole(document), reference.plain(document), document.ids)

        def measure() -> Noise:
            def plain(document: Document) -> PlainForward:
                return PlainForward(reference.plain(document))

            members = {name: member(whole) for name, whole in reference.members(pair).items()}
            return compare(self.documents(model), plain, plain, members, announce=self._progress.step).noise

        return self._workbench.shared.once(("served noise", model, pair.name), measure)

    def close(self) -> None:
        """End the server; idempotent."""
        if self._current is not None:
            current, self._current = self._current[1], None
            current.close()


def windows(documents: Sequence[Document], length: int, count: int) -> list[tuple[int, ...]]:
    """``count`` different runs of ``length`` tokens out of the documents, from evenly spread places.

    Raises:
        EngineError: they do not hold as many.
    """
    every = [d.ids[i : i + length] for d in documents for i in range(0, len(d.ids) - length + 1, 3)]
    distinct = list(dict.fromkeys(every))
    if len(distinct) < count:
        raise EngineError(
            f"the card's texts give {len(distinct)} different prompts of {length} tokens, {count} are needed",
            mend="give longer texts under [prompts], or drop the table to use the shipped ones",
        )
    step = len(distinct) / count
    return [distinct[int(i * step)] for i in range(count)]
