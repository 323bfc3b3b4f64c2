"""The list of checks: which exist, for which precision pairs, which decide by default, and with which gate.

A new check is a line here, a measurement, and a short test in ``suites/`` marked with its name.
"""

from __future__ import annotations

from dataclasses import dataclass

from pytest_npuconf import thresholds
from pytest_npuconf.cards.schema import Card
from pytest_npuconf.gates import Gate, Role, Sense
from pytest_npuconf.precisions import Precision, pairs_of
from pytest_npuconf.thresholds import Constant


@dataclass(frozen=True)
class Check:
    """``bound(pair)`` gives the shipped constant, None where the check has no gate of its own (a claim only). An
    ``exact`` check has no tolerance: no card can give it another bound or waive it. ``needs`` names the card's field that
    the check is about: a card without it has no such check. ``live``: it needs the reference's weights in this process, so
    ``--npuconf-reference stored`` does not ask for it."""

    name: str
    engine: str
    sense: Sense
    per_pair: bool = True
    required: bool = True
    exact: bool = False
    needs: str = ""
    live: bool = False
    statistics: tuple[str, ...] = ()

    def bound(self, pair: Precision | None) -> Constant | None:
        """The shipped bound for this pair."""
        same = pair is not None and pair.candidate == pair.reference
        full = pair is not None and pair.candidate == "float32"
        return {
            "audit.document": thresholds.DOCUMENT_CONTRADICTIONS,
            "audit.gates": thresholds.UNSOUND_GATES,
            "env.minimum": thresholds.UNMET_MINIMUMS,
            "functional.samples": thresholds.WRONG_SAMPLES,
            "model.config": thresholds.CONFIG_DIFFERENCES,
            "model.files": thresholds.MISSING_FILES,
            "model.generation_config": thresholds.GENERATION_DIFFERENCES,
            "model.parameters": thresholds.PARAMETER_COUNTS,
            "model.weights": thresholds.WEIGHT_DIFFERENCES,
            "token.ids": thresholds.TOKEN_IDS,
            "model.placement": thresholds.MISPLACED,
            "device.execution": thresholds.ELSEWHERE,
            "device.special_values": thresholds.SPECIAL_VALUES,
            "logits.finite": thresholds.NON_FINITE,
            "hidden.states": thresholds.REL_L2_FLOAT32 if full else thresholds.NOISE_RATIO,
            "logits.rel_l2": thresholds.REL_L2_FLOAT32 if full else thresholds.NOISE_RATIO,
            "kl.noise_ratio": thresholds.NOISE_RATIO,
            "kl.positions": thresholds.POSITIONS_RATIO,
            "modules.noise_ratio": thresholds.MODULE_RATIO_FLOAT32 if full else thresholds.MODULE_RATIO,
            "equivalence.batch": thresholds.REL_L2_FLOAT32 if full else thresholds.EQUIVALENCE_RATIO,
            "equivalence.cache": thresholds.REL_L2_FLOAT32 if full else thresholds.EQUIVALENCE_RATIO,
            "equivalence.repeat": thresholds.REPEAT_DIFFERENCES,
            "token.match": thresholds.DISAGREEMENTS,
            "ppl.delta": thresholds.PPL_SAME_FLOAT32
            if full
            else (thresholds.PPL_SAME_LOW if same else thresholds.PPL_CROSS),
        }.get(self.name)

    def given(self, card: Card) -> bool:
        """Whether the card has what this check is about."""
        return not self.needs or bool(getattr(card, self.needs))

    def asked(self, reference: str) -> bool:
        """Whether a run with this kind of reference (auto, stored, live) asks for it."""
        return not (self.live and reference == "stored")

    def runs_at(self, pair: Precision) -> bool:
        """The KL noise ratio of float32 waits for calibration: its floor is not known yet. Hidden states have one reference,
        float32; samples, equivalences and the device have none and run once for each dtype."""
        if self.name in ("hidden.states", "functional.samples", "modules.noise_ratio") or self.name.startswith(
            ("equivalence.", "device.")
        ):
            return pair.reference == "float32"
        if self.name == "kl.positions":
            return pair.candidate != "float32" == pair.reference
        return not (self.name == "kl.noise_ratio" and pair.candidate == "float32")

    def ids(self, precisions: tuple[str, ...]) -> list[str]:
        """``name.pair`` for each pair of these precisions, or the name alone."""
        if not self.per_pair:
            return [self.name]
        return [f"{self.name}.{p.name}" for precision in precisions for p in pairs_of(precision) if self.runs_at(p)]


_LAST = ("mean_last_position",)
_INPUTS = ("mean_inputs", "mae_inputs")
_LOGITS = (*_LAST, *(f"{n}_last_position" for n in ("mean_rel", "active_rel", "within_1e3", "within_5e3")))
_HIDDEN = (
    "cosine", "mae", "rmse", "mean_rel", "active_rel", "within_1e3", "within_5e3", "max_rel", "mean_of_max_rel",
)  # fmt: skip
_COUNTS = ("parameters", "parameters_without_embedding")
_LEVELS = ("contradiction", "implausible", "unsupported", "ambiguous", "fine")
_PPL = ("mean_abs_delta", "max_abs_delta", "ratio_of_means")

CHECKS = {
    check.name: check
    for check in (
        Check("model.config", "transformers", Sense.AT_MOST, per_pair=False, exact=True, needs="config"),
        Check(
            "model.generation_config",
            "transformers",
            Sense.AT_MOST,
            per_pair=False,
            exact=True,
            needs="generation_config",
        ),
        Check("model.weights", "transformers", Sense.AT_MOST, per_pair=False, exact=True),
        Check("model.parameters", "transformers", Sense.AT_MOST, per_pair=False, exact=True, statistics=_COUNTS),
        Check(
            "model.weight_size",
            "transformers",
            Sense.AT_MOST,
            per_pair=False,
            required=False,
            statistics=("gb", "gib"),
        ),
        Check("model.files", "transformers", Sense.AT_MOST, per_pair=False, exact=True, needs="files"),
        Check("model.placement", "transformers", Sense.AT_MOST, exact=True),
        Check("device.execution", "transformers", Sense.AT_MOST, exact=True),
        Check("device.special_values", "transformers", Sense.AT_MOST, exact=True),
        Check("logits.finite", "transformers", Sense.AT_MOST, exact=True),
        Check("logits.rel_l2", "transformers", Sense.AT_MOST, statistics=_LOGITS),
        Check("logits.cosine", "transformers", Sense.AT_LEAST, required=False, statistics=(*_LAST, *_INPUTS)),
        Check("kl.noise_ratio", "transformers", Sense.AT_MOST, statistics=_LOGITS),
        Check("kl.positions", "transformers", Sense.AT_MOST),
        Check("modules.noise_ratio", "transformers", Sense.AT_MOST, live=True),
        Check("equivalence.batch", "transformers", Sense.AT_MOST),
        Check("equivalence.cache", "transformers", Sense.AT_MOST),
        Check("equivalence.repeat", "transformers", Sense.AT_MOST),
        Check("hidden.states", "transformers", Sense.AT_MOST, statistics=_HIDDEN),
        Check("token.ids", "transformers", Sense.AT_MOST, per_pair=False, exact=True, statistics=("input_lengths",)),
        Check("token.match", "transformers", Sense.AT_MOST, statistics=("match_last_position",)),
        Check("token.top5", "transformers", Sense.AT_LEAST, required=False, statistics=_LAST),
        Check("ppl.delta", "transformers", Sense.WITHIN, statistics=_PPL),
        Check("functional.samples", "transformers", Sense.AT_MOST, needs="samples", statistics=("correct",)),
        Check(
            "env.minimum",
            "transformers",
            Sense.AT_MOST,
            per_pair=False,
            required=False,
            needs="minimum",
            statistics=("unmet",),
        ),
        Check(
            "audit.document",
            "transformers",
            Sense.AT_MOST,
            per_pair=False,
            required=False,
            exact=True,
            needs="documents",
            statistics=_LEVELS,
        ),
        Check(
            "audit.gates",
            "transformers",
            Sense.AT_MOST,
            per_pair=False,
            exact=True,
            needs="criteria",
            statistics=_LEVELS,
        ),
    )
}


def known_names() -> dict[str, tuple[str, ...]]:
    """Every check's name and id with its statistics, for the validation of cards. A name that stands for several pairs
    has none: a claim must say which pair it is about."""
    names: dict[str, tuple[str, ...]] = dict.fromkeys(CHECKS, ())
    return names | {i: c.statistics for c in CHECKS.values() for i in c.ids(("float32", "float16", "bfloat16"))}


def required_ids(card: Card, engine: str, precisions: tuple[str, ...], reference: str = "auto") -> list[str]:
    """The required set over these precisions: what the card lists for the engine, else every check that decides.

    A check about something that the card does not state is not required. A listed name stands for all its pairs.
    """
    names = card.required.get(engine) or tuple(
        c.name
        for c in CHECKS.values()
        if c.engine == engine and c.required and c.given(card) and (c.needs != "samples" or card.samples_decide)
    )
    every = {i: c for c in CHECKS.values() if c.asked(reference) for i in c.ids(precisions)}
    return [i for i, check in every.items() if check.name in names or i in names]


def gate_for(check_id: str, pair: Precision | None, card: Card, *, required: bool) -> Gate | None:
    """The gate of one check of this card: the card's own bound if it gives one, else the shipped constant."""
    check = CHECKS[check_id.removesuffix(f".{pair.name}") if pair else check_id]
    constant = check.bound(pair)
    override = card.gates.get(check_id) or card.gates.get(check.name)
    role = Role.REQUIRED if required else Role.CLAIM
    if override is not None:
        return Gate(check_id, override.bound, check.sense, role, override.reason, f"card {card.name}")
    if constant is None:
        return None
    return Gate(check_id, constant.value, check.sense, role, constant.reason, constant.run)
