"""The typed card. docs/cards.md describes the same fields for people."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_npuconf.gates import Role, Sense
from pytest_npuconf.metrics.objectives import Slo

KINDS = ("model", "stand-in")
BETTER = ("higher", "lower", "equal")
ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class WeightsSource:
    """Where the weights can come from. ``path`` is absolute once loaded; ``sha256`` is of ``file`` in ``package``."""

    path: Path | None = None
    package: str = ""
    package_version: str = ""
    file: str = ""
    sha256: str = ""
    modelscope: str = ""
    huggingface: str = ""


@dataclass(frozen=True)
class TokenProbe:
    """A text and the token ids that this model's own tokenizer gives for it."""

    text: str
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Prompt:
    """A named text; ``tokens``: the length that it is cut to, None for the whole of it."""

    name: str
    text: str
    tokens: int | None = None


@dataclass(frozen=True)
class ClaimGate:
    """The documented gate as a rule: measured ``statistic`` against ``bound``."""

    sense: Sense
    bound: float


@dataclass(frozen=True)
class Claim:
    """One number a document states. ``check`` and ``statistic`` say which measurement answers it, if any does yet."""

    id: str
    documented: str
    source: str
    value: Any = None
    unit: str = ""
    gate_stated: str = ""
    gate: ClaimGate | None = None
    check: str = ""
    statistic: str = ""
    better: str = "equal"
    tolerance: float | None = None
    conditions: dict[str, str] = field(default_factory=dict)
    role: Role = Role.CLAIM
    reason: str = ""
    audit: str = ""


@dataclass(frozen=True)
class GateOverride:
    """A card's own bound for one check, with the reason for it."""

    check: str
    bound: float
    reason: str


@dataclass(frozen=True)
class Waiver:
    """An expected failure: strict (it must fail) and dated (it lapses)."""

    check: str
    reason: str
    link: str
    expires: datetime.date
    conditions: dict[str, str] = field(default_factory=dict)

    def applies(self, today: datetime.date, facts: dict[str, str]) -> bool:
        """Not lapsed, and every condition equals the run's fact of that name."""
        return today <= self.expires and all(facts.get(key) == value for key, value in self.conditions.items())


@dataclass(frozen=True)
class Message:
    """One message of a conversation."""

    role: str
    content: str


@dataclass(frozen=True)
class Sample:
    """A documented conversation and what its greedy answer must hold; every expectation that is given must be met.

    ``contains``: all of these; ``contains_any``: one of these; ``number``: the answer's last number; ``code``: Python
    source whose one function the answer's code must define alike; ``code_function``: the name of a function that it must
    define. Code is parsed, never executed.
    """

    name: str
    messages: tuple[Message, ...]
    max_new_tokens: int
    thinking: bool = True
    contains: tuple[str, ...] = ()
    contains_any: tuple[str, ...] = ()
    number: float | None = None
    code: str = ""
    code_function: str = ""

    @property
    def conversation(self) -> list[dict[str, str]]:
        """The messages as chat templates and APIs take them."""
        return [{"role": message.role, "content": message.content} for message in self.messages]

    @property
    def expects(self) -> bool:
        """Whether anything is expected of the answer."""
        return bool(self.contains or self.contains_any or self.number is not None or self.code or self.code_function)


@dataclass(frozen=True)
class Refusal:
    """A mode that must not start: versions of the server below ``below`` (all of them when it is empty) end with a message
    that holds ``says``."""

    says: str
    below: str = ""


@dataclass(frozen=True)
class ServingMode:
    """One way to start the server. ``template``: a chat template's file, absolute once loaded."""

    name: str
    arguments: tuple[str, ...] = ()
    template: Path | None = None
    refused: Refusal | None = None


@dataclass(frozen=True)
class Serving:
    """How the model is served. ``arguments`` are given in every mode; ``boundaries``: lengths in tokens where something in
    the server changes (a page of the KV cache, a chunk of the prefill); None for ``max_model_len``: the server's own."""

    server: str = "vllm"
    max_model_len: int | None = None
    arguments: tuple[str, ...] = ()
    boundaries: tuple[int, ...] = (128,)
    modes: tuple[ServingMode, ...] = (ServingMode("generate"),)

    def mode(self, name: str) -> ServingMode | None:
        """The mode of this name, None when the card has no such mode."""
        return next((mode for mode in self.modes if mode.name == name), None)

    def words(self, name: str) -> tuple[str, ...]:
        """The card's arguments for the server in the mode of this name; those of every mode where it has no such mode."""
        mode = self.mode(name)
        return (*self.arguments, *(mode.arguments if mode is not None else ()))


@dataclass(frozen=True)
class Floor:
    """The least (of a rate) or the most (of a time) that ``figure`` may be, where ``hardware`` equals the run's facts of those
    names: ``device``, ``chip``, ``devices``."""

    figure: str
    bound: float
    hardware: dict[str, str]
    source: str


@dataclass(frozen=True)
class Speed:
    """At which load speed is measured. A round is ``requests`` of ``input_len`` and ``output_len`` tokens, ``concurrency`` at once;
    ``sweep``: at these; ``long_run_seconds``: of the run that looks for throttling and leaks; ``objectives``: of a request."""

    input_len: int = 128
    output_len: int = 128
    concurrency: int = 4
    requests: int = 16
    rounds: int = 7
    sweep: tuple[int, ...] = (1, 2, 4, 8, 16)
    long_run_seconds: float = 120.0
    objectives: Slo | None = None
    floors: tuple[Floor, ...] = ()


@dataclass(frozen=True)
class RerankExample:
    """A query and its documents, best first, for the server's modes that rank."""

    name: str
    query: str
    documents: tuple[str, ...]
    modes: tuple[str, ...]


@dataclass(frozen=True)
class Card:
    """One model: identity, expected config, prompts, claims, gates, waivers. ``sha256``: of the file ``path``, as it was read."""

    name: str
    path: Path
    title: str = ""
    kind: str = "model"
    weights: WeightsSource = WeightsSource()
    config: dict[str, Any] = field(default_factory=dict)
    probes: tuple[TokenProbe, ...] = ()
    precisions: tuple[str, ...] = ("float32", "bfloat16")
    logits_prompts: tuple[Prompt, ...] = ()
    hidden_inputs: tuple[Prompt, ...] = ()
    perplexity_texts: tuple[Prompt, ...] = ()
    long_texts: tuple[Prompt, ...] = ()
    hidden_layers: tuple[str, ...] = ()
    required: dict[str, tuple[str, ...]] = field(default_factory=dict)
    claims: tuple[Claim, ...] = ()
    gates: dict[str, GateOverride] = field(default_factory=dict)
    waivers: tuple[Waiver, ...] = ()
    generation_config: dict[str, Any] = field(default_factory=dict)
    parameters: int | None = None
    files: tuple[str, ...] = ()
    minimum: dict[str, str | float] = field(default_factory=dict)
    samples: tuple[Sample, ...] = ()
    samples_decide: bool = True
    documents: tuple[Path, ...] = ()
    serving: Serving = Serving()
    rerank: tuple[RerankExample, ...] = ()
    speed: Speed | None = None
    sha256: str = ""

    @property
    def criteria(self) -> tuple[GateOverride | Waiver | Claim, ...]:
        """What of the card a verdict rests on: its bounds, its waivers, and claims with a gate or a tolerance."""
        stated = (claim for claim in self.claims if claim.gate is not None or claim.tolerance is not None)
        return (*self.gates.values(), *self.waivers, *stated)

    @property
    def tools(self) -> bool:
        """Whether the server that the card describes reads tool calls out of answers."""
        return "--tool-call-parser" in self.serving.words("generate")

    @property
    def floors(self) -> tuple[Floor, ...]:
        """What the card's speed must reach on its own hardware."""
        return self.speed.floors if self.speed is not None else ()

    @property
    def objectives(self) -> Slo | None:
        """Service level objectives of a request."""
        return self.speed.objectives if self.speed is not None else None

    @property
    def several_modes(self) -> bool:
        """Whether the card serves the model in more than one mode."""
        return len(self.serving.modes) > 1

    @property
    def stand_in(self) -> bool:
        """Whether the model stands in for the one that a porter cares about."""
        return self.kind == "stand-in"
