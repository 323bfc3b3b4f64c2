"""What a run will do, decided before the first test: cards, device, weights, required checks. Every error here is a
usage error (exit 4)."""

from __future__ import annotations

import dataclasses
import functools
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pytest_npuconf import thresholds
from pytest_npuconf.calibration.choose import Calibrations, choose_calibrations
from pytest_npuconf.cards import Card, find_card
from pytest_npuconf.cards.loading import validate_names
from pytest_npuconf.check import Check
from pytest_npuconf.checks import CHECKS, gate_for, known_names, required_ids
from pytest_npuconf.devices import Device, choose_device, import_torch
from pytest_npuconf.devices.cpu import CpuDevice
from pytest_npuconf.documents import Document, documents_of, named_layers
from pytest_npuconf.engines.architecture import check_head
from pytest_npuconf.engines.base import EngineFactory
from pytest_npuconf.engines.offline import OfflineFactory
from pytest_npuconf.engines.served import ServingFactory
from pytest_npuconf.engines.server_engine import ServerFactory
from pytest_npuconf.engines.transformers_engine import TransformersFactory
from pytest_npuconf.engines.variants import REFERENCE_VARIANT, YARDSTICK
from pytest_npuconf.errors import EngineError, SettingsError, WeightsError
from pytest_npuconf.facts import gather_facts
from pytest_npuconf.faults.base import Fault
from pytest_npuconf.faults.catalogue import choose_fault
from pytest_npuconf.fingerprint.collect import of_run
from pytest_npuconf.fingerprint.readings import Fingerprint
from pytest_npuconf.options import Settings
from pytest_npuconf.precisions import SHORT, Precision, pairs_of
from pytest_npuconf.references import choose
from pytest_npuconf.references.comparability import comparability
from pytest_npuconf.references.live import LiveReference
from pytest_npuconf.references.stored import StoredReference
from pytest_npuconf.sharing import Shared
from pytest_npuconf.speed.hardware import is_left_out, without_unasked
from pytest_npuconf.weights import Checkpoint, find_weights

ENGINES = ("transformers", "vllm", "server")  # that a card may require checks of, whether or not they are offered here
WORKING_BYTES = 1 << 30  # logits, hidden states and scratch: the streaming budget
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class Extensions:
    """What other packages and conftest files add through our hooks."""

    devices: list[Device] = field(default_factory=list)
    engines: dict[str, EngineFactory] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """The decided run. ``checkpoints`` and ``facts`` are filled by :func:`equip`, which touches hardware and files."""

    settings: Settings
    cards: dict[str, Card]
    precisions: dict[str, tuple[str, ...]]
    required: dict[str, tuple[str, ...]]
    device: Device
    factory: EngineFactory | ServingFactory
    fault: Fault | None
    checkpoints: dict[str, Checkpoint] = field(default_factory=dict)
    documents: dict[str, tuple[Document, ...]] = field(default_factory=dict)
    stored: dict[str, StoredReference] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    calibrations: Calibrations = field(default_factory=Calibrations)
    fingerprint: Fingerprint = field(default_factory=Fingerprint)
    left_out: dict[str, dict[str, str]] = field(default_factory=dict)  # by model: check, and why it is not asked here

    @property
    def provenance(self) -> dict[str, Any]:
        """The facts and the fingerprint, as they are stored with results and references."""
        return {**self.facts, "fingerprint": self.fingerprint.to_json()}

    def layers(self, model: str) -> tuple[str, ...]:
        """Modules whose outputs are compared as hidden states."""
        return named_layers(self.cards[model], int(self.checkpoints[model].config_value("num_hidden_layers") or 1))

    def source(self, model: str) -> str:
        """``live``, or which stored reference."""
        return self.stored[model].source if model in self.stored else LiveReference.source

    def comparability(self, model: str) -> dict[str, Any]:
        """What this run's reference of a model depends on."""
        return comparability(
            self.checkpoints[model], self.documents[model], self.layers(model),
            [member.name for member in YARDSTICK], REFERENCE_VARIANT.name,
        )  # fmt: skip

    def asks(self, check: Check, model: str) -> bool:
        """Whether a check is about something that the card states, and this run's engine, reference and endpoints can
        answer it."""
        attached = dict(self.settings.endpoints)
        reached = not attached or (check.mode in attached if check.mode else check.needs != "several_modes")
        answered = check.answered_by(self.factory.name) and check.asked(self.settings.reference)
        left_out = check.name in self.left_out.get(model, {})
        return check.given(self.cards[model]) and answered and reached and not left_out

    @property
    def not_asked(self) -> tuple[str, ...]:
        """Checks that decide elsewhere and that this run's kind of reference cannot answer."""
        mine = {name: check for name, check in CHECKS.items() if check.answered_by(self.factory.name)}
        return tuple(name for name, check in mine.items() if not check.asked(self.settings.reference))

    def pairs(self, model: str) -> list[Precision]:
        """The precision pairs of one model."""
        return [pair for precision in self.precisions[model] for pair in pairs_of(precision)]

    def labels(self, model: str) -> list[str]:
        """What every number of this run must carry: not an NPU, not the model, or broken on purpose."""
        kind = "SIMULATED" if self.settings.simulate else self.device.name.upper()
        labels = [] if kind == "NPU" else [kind]
        labels += ["STAND-IN"] if self.cards[model].stand_in else []
        labels += self._relaxations(self.cards[model])
        if self.fault is not None:
            labels.append(f"{'VARIANT' if self.fault.benign else 'FAULT'} {self.fault.name}")
        return labels

    def _relaxations(self, card: Card) -> list[str]:
        """What the card moved: its own bounds, and a required set that is shorter than all that could decide."""
        names = [check if check in CHECKS else check.rpartition(".")[0] for check in card.gates]
        own = [f"CARD BOUNDS {n}"] if (n := sum(CHECKS[name].answered_by(self.factory.name) for name in names)) else []
        every = required_ids(
            dataclasses.replace(card, required={}, samples_decide=True),
            self.factory.name,
            self.precisions[card.name],
            self.settings.reference,
        )
        every = [check for check in every if not is_left_out(check, self.left_out.get(card.name, {}))]
        listed = len(self.required[card.name])
        return own + ([f"CARD REQUIRES {listed} OF {len(every)}"] if listed < len(every) else [])


def make_plan(settings: Settings, extensions: Extensions) -> Plan:
    """Read the cards and check the choices against them; touches no hardware and no weights.

    Raises:
        NpuconfError: an unknown or invalid card, device, engine, fault, or a precision that cannot be run.
    """
    found = [find_card(name, settings.baselines) for name in settings.models]
    cards = {card.name: card for card in found}
    if len(cards) != len(found):
        raise SettingsError("two of the named cards have the same name", mend="rename one of them")
    for card in found:
        validate_names(card, known_names(), (*ENGINES, *extensions.engines))
    precisions = {card.name: settings.precisions or card.precisions for card in found}
    for name, chosen in precisions.items():
        for precision in chosen:
            if precision not in SHORT:
                raise SettingsError(
                    f"precision {precision}: the card {name} names no quantization scheme that engine {settings.engine} runs",
                    mend=f"--npuconf-precision one of: {', '.join(SHORT)}",
                )
    factory = _choose_engine(settings.engine, extensions.engines)
    for card in found:
        check_head(card, card.config, serves=isinstance(factory, ServingFactory))
    required = {
        card.name: tuple(required_ids(card, factory.name, precisions[card.name], settings.reference)) for card in found
    }
    for card in found:
        _check_given(card, required[card.name])
        _check_gates(card, required[card.name])
        _check_exact(card)
        if not required[card.name]:
            raise SettingsError(
                f"{card.path}: nothing is required of {card.name} with engine {factory.name} at "
                f"{', '.join(precisions[card.name])}, so nothing could be conformant",
                mend=f"name checks under [required] {factory.name} = [...] in the card, or judge another precision",
            )
    return Plan(
        settings,
        cards,
        precisions,
        required,
        choose_device(settings.device, extensions.devices, simulate=settings.simulate),
        factory,
        choose_fault(settings.fault, extensions.faults) if settings.fault else None,
    )


def equip(plan: Plan, announce: Callable[[str], None], shared: Shared | None = None) -> Plan:
    """Probe the device, find and check the weights, check the memory, gather the facts.

    Args:
        shared: has the weights and documents of earlier runs with the same settings.

    Raises:
        NpuconfError: whatever is missing, with the mend.
    """
    if (
        "torch" not in sys.modules
    ):  # threads that spin while they wait make a busy host ten times slower; results are the same
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    plan.device.probe()
    CpuDevice().probe()  # the live reference runs there
    shared, checkpoints, documents = shared or Shared(), {}, {}
    for card in plan.cards.values():
        plan.factory.check(card, plan.settings)
        checkpoint = shared.once(
            ("weights", card.name), functools.partial(find_weights, card, plan.settings, announce=announce)
        )
        check_head(card, checkpoint.config, serves=isinstance(plan.factory, ServingFactory))
        checkpoints[card.name] = checkpoint
        documents[card.name] = shared.once(
            ("documents", card.name), functools.partial(read_documents, card, checkpoint, plan.settings)
        )
    plan = dataclasses.replace(plan, checkpoints=checkpoints, documents=documents)
    plan = dataclasses.replace(plan, stored=_choose_references(plan, announce))
    for card in plan.cards.values():
        _check_memory(card, checkpoints[card.name], plan)
    plan = dataclasses.replace(plan, fingerprint=of_run(plan.device, import_torch()))
    plan = without_unasked(dataclasses.replace(plan, facts=gather_facts(plan)))
    return plan if plan.settings.calibrate else _with_calibrations(plan, shared)


def _with_calibrations(plan: Plan, shared: Shared) -> Plan:
    found = choose_calibrations(
        plan, lambda model: shared.once(("comparability", model), functools.partial(plan.comparability, model))
    )
    return dataclasses.replace(plan, calibrations=found, facts={**plan.facts, "calibration": found.spoken()})


def _choose_references(plan: Plan, announce: Callable[[str], None]) -> dict[str, StoredReference]:
    """Stored references by model; a model that is missing has a live one, and why not a stored one is announced."""
    chosen: dict[str, StoredReference] = {}
    for model, card in plan.cards.items():
        kind, dtypes = plan.settings.reference, choose.dtypes_needed(plan.precisions[model])
        if plan.settings.record or plan.settings.calibrate:
            choose.recording_folder(card, plan.settings)
            continue
        if kind == "live" or (kind == "auto" and not choose.has_stored(card, plan.settings, dtypes)):
            continue
        places = choose.folders(card, plan.settings)
        needs = choose.Needs(model, dtypes, plan.documents[model], plan.comparability(model))
        if kind == "stored":
            chosen[model] = choose.require_stored(needs, places)
            continue
        stored, reasons = choose.choose_stored(needs, places)
        if stored is not None:
            chosen[model] = stored
        else:
            announce(f"{model}: the reference is computed live; no stored one will do: {'; '.join(reasons)}")
    return chosen


def _check_given(card: Card, required: tuple[str, ...]) -> None:
    """Refuse a required check about something that the card does not state: it could never run."""
    for check in (c for c in required if c in CHECKS or c.rpartition(".")[0] in CHECKS):
        known = CHECKS[check if check in CHECKS else check.rpartition(".")[0]]
        if not known.given(card):
            raise SettingsError(
                f"{card.path}: {check} is required, but the card has no {known.needs}",
                mend=f"state {known.needs} in the card, or take {check} from its list",
            )


def _check_gates(card: Card, required: tuple[str, ...]) -> None:
    """Refuse a required check that has no gate: it could not decide anything."""
    for check in required:
        name, _, pair = check.rpartition(".")
        named = Precision.named(pair) if name in CHECKS else None
        if gate_for(check, named, card, required=True) is None:
            raise SettingsError(
                f"{card.path}: {check} is required, but neither the package nor the card has a bound for it",
                mend=f'add to the card: [gates."{check}"] with bound = ... and reason = "..."',
            )


def _check_exact(card: Card) -> None:
    """Refuse a bound or a waiver for a check that has no tolerance."""
    for table, check in [("gates", c) for c in card.gates] + [("waivers", w.check) for w in card.waivers]:
        name = check if check in CHECKS else check.rpartition(".")[0]
        if CHECKS[name].exact:
            raise SettingsError(
                f"{card.path}: {table} names {check}, which is exact: there is no tolerance to widen or to waive",
                mend=f"delete that entry of {table}",
            )


def _choose_engine(name: str, more: dict[str, EngineFactory]) -> EngineFactory | ServingFactory:
    shipped = {"transformers": TransformersFactory(), "server": ServerFactory(), "vllm": OfflineFactory()}
    offered: dict[str, Any] = {**shipped, **more}
    if name not in offered:
        raise EngineError(f"no engine {name!r}", mend=f"--npuconf-engine one of: {', '.join(sorted(offered))}")
    chosen: EngineFactory | ServingFactory = offered[name]
    return chosen


def needed_bytes(
    checkpoint: Checkpoint, precisions: tuple[str, ...], *, on_host: bool, live: bool = True
) -> dict[str, int]:
    """Bytes by part that a run needs on this host: a live reference, and the candidate when it runs here too."""
    widest = max(BYTES[p] for p in precisions)
    low = max((BYTES[p] for p in precisions if p != "float32"), default=0)
    parts = {"reference (float32)": 4 * checkpoint.parameters, "yardstick": low * checkpoint.parameters} if live else {}
    if on_host:
        parts["candidate"] = widest * checkpoint.parameters
    return {**parts, "working memory": WORKING_BYTES}


def _check_memory(card: Card, checkpoint: Checkpoint, plan: Plan) -> None:
    on_host = plan.device.name == "cpu"
    # a check of single modules has the weights live, beside a stored reference too
    live = card.name not in plan.stored or any(check.live and plan.asks(check, card.name) for check in CHECKS.values())
    parts = needed_bytes(checkpoint, plan.precisions[card.name], on_host=on_host, live=live)
    need, free = sum(parts.values()), CpuDevice().memory().free
    if need > free:
        listed = ", ".join(f"{name} {_gib(size)}" for name, size in parts.items() if size)
        raise WeightsError(
            f"{card.name}: not enough memory on this host: {_gib(need)} needed ({listed}), {_gib(free)} free",
            mend="run on a host with more memory, one precision at a time (--npuconf-precision bfloat16), or with a reference "
            "that was recorded elsewhere (npuconf install FILE) and without the check of single modules "
            "(--npuconf-reference stored)",
        )
    if plan.device.name != "cpu":
        need = max(BYTES[p] for p in plan.precisions[card.name]) * checkpoint.parameters + WORKING_BYTES
        memory = plan.device.memory()
        if need > memory.free:
            raise WeightsError(
                f"{card.name}: {_gib(need)} needed on {plan.device.name}, {_gib(memory.free)} of {_gib(memory.total)} free",
                mend="free the device, or judge a narrower precision: --npuconf-precision bfloat16",
            )


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"


def read_documents(card: Card, checkpoint: Checkpoint, settings: Settings) -> tuple[Document, ...]:
    """The card's documents with their token ids. Another model's tokenizer is refused: the card's probes, and no id beyond
    the model's vocabulary.

    Raises:
        WeightsError: naming the text, the expected and the found ids.
    """
    from pytest_npuconf.engines.transformers_engine import load_tokenizer, tokenize

    tokenizer = load_tokenizer(checkpoint, trust_remote_code=settings.trust_remote_code)
    for probe in card.probes:
        found = tokenize(tokenizer, probe.text)
        if found != list(probe.ids):
            raise WeightsError(
                f"{checkpoint.folder}: this is not {card.name}'s tokenizer: {probe.text!r} gives {found}, "
                f"the card says {list(probe.ids)}",
                mend="take tokenizer and weights from the same checkpoint",
            )
    total = 0
    vocabulary = checkpoint.vocabulary()
    context = checkpoint.config_value("max_position_embeddings")
    documents = tuple(
        documents_of(card, lambda text: tokenize(tokenizer, text), context if isinstance(context, int) else None)
    )
    for prompt in documents:
        ids = prompt.ids
        total += len(ids) if prompt.kind in ("prompt", "text") else 0
        fewest = 1 if prompt.kind == "document" else 2
        if len(ids) < fewest:
            raise WeightsError(f"{prompt.name} {prompt.text!r} gives {len(ids)} tokens, at least {fewest} are needed")
        if vocabulary is not None and max(ids) >= vocabulary:
            raise WeightsError(
                f"{checkpoint.folder}: {prompt.name} gives token id {max(ids)}, but the model's vocabulary has "
                f"{vocabulary}: the tokenizer is another model's",
                mend="take tokenizer and weights from the same checkpoint",
            )

    fewest = int(thresholds.FEWEST_TOKENS.value)
    if total < fewest:
        raise SettingsError(
            f"{card.path}: its prompts and texts have {total} tokens in all; at least {fewest} are needed to judge anything",
            mend="give longer texts under [prompts], or drop the table to use the shipped ones",
        )
    return documents
