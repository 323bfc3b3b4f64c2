"""The list of checks: which exist, for which precision pairs, which decide by default, and with which gate.

A new check is a line here, a measurement, and a short test in ``suites/`` marked with its name.
"""

from __future__ import annotations

from pytest_npuconf.cards.schema import Card
from pytest_npuconf.check import EVERY, IN_PROCESS, Check
from pytest_npuconf.checks_serving import SERVED
from pytest_npuconf.checks_speed import SPEED
from pytest_npuconf.gates import Gate, Role, Sense
from pytest_npuconf.precisions import Precision

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
        Check("model.config", EVERY, Sense.AT_MOST, per_pair=False, exact=True, needs="config"),
        Check(
            "model.generation_config",
            EVERY,
            Sense.AT_MOST,
            per_pair=False,
            exact=True,
            needs="generation_config",
        ),
        Check("model.weights", EVERY, Sense.AT_MOST, per_pair=False, exact=True),
        Check("model.parameters", EVERY, Sense.AT_MOST, per_pair=False, exact=True, statistics=_COUNTS),
        Check(
            "model.weight_size",
            EVERY,
            Sense.AT_MOST,
            per_pair=False,
            required=False,
            statistics=("gb", "gib"),
        ),
        Check("model.files", EVERY, Sense.AT_MOST, per_pair=False, exact=True, needs="files"),
        Check("model.placement", IN_PROCESS, Sense.AT_MOST, exact=True),
        Check("device.execution", IN_PROCESS, Sense.AT_MOST, exact=True),
        Check("device.special_values", IN_PROCESS, Sense.AT_MOST, exact=True),
        Check("logits.finite", IN_PROCESS, Sense.AT_MOST, exact=True),
        Check("logits.rel_l2", IN_PROCESS, Sense.AT_MOST, statistics=_LOGITS),
        Check("logits.cosine", IN_PROCESS, Sense.AT_LEAST, required=False, statistics=(*_LAST, *_INPUTS)),
        Check("kl.noise_ratio", IN_PROCESS, Sense.AT_MOST, statistics=_LOGITS),
        Check("kl.positions", IN_PROCESS, Sense.AT_MOST),
        Check("modules.noise_ratio", IN_PROCESS, Sense.AT_MOST, live=True),
        Check("equivalence.batch", IN_PROCESS, Sense.AT_MOST),
        Check("equivalence.cache", IN_PROCESS, Sense.AT_MOST),
        Check("equivalence.repeat", IN_PROCESS, Sense.AT_MOST),
        Check("hidden.states", IN_PROCESS, Sense.AT_MOST, statistics=_HIDDEN),
        Check("token.ids", IN_PROCESS, Sense.AT_MOST, per_pair=False, exact=True, statistics=("input_lengths",)),
        Check("token.match", IN_PROCESS, Sense.AT_MOST, statistics=("match_last_position",)),
        Check("token.top5", IN_PROCESS, Sense.AT_LEAST, required=False, statistics=_LAST),
        Check("ppl.delta", IN_PROCESS, Sense.WITHIN, statistics=_PPL),
        Check("functional.samples", IN_PROCESS, Sense.AT_MOST, needs="samples", statistics=("correct",)),
        Check(
            "env.minimum",
            EVERY,
            Sense.AT_MOST,
            per_pair=False,
            required=False,
            needs="minimum",
            statistics=("unmet",),
        ),
        Check(
            "audit.document",
            EVERY,
            Sense.AT_MOST,
            per_pair=False,
            required=False,
            exact=True,
            needs="documents",
            statistics=_LEVELS,
        ),
        Check(
            "audit.gates",
            EVERY,
            Sense.AT_MOST,
            per_pair=False,
            exact=True,
            needs="criteria",
            statistics=_LEVELS,
        ),
        *SERVED,
        *SPEED,
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
        if c.answered_by(engine) and c.required and c.given(card) and (c.needs != "samples" or card.samples_decide)
    )
    answered = [c for c in CHECKS.values() if c.asked(reference) and c.answered_by(engine)]
    every = {i: c for c in answered for i in c.ids(precisions)}
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
