"""What a floor or a recorded speed belongs to, and which checks of speed a run has no use for."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pytest_npuconf.cards.schema import Card, Floor
from pytest_npuconf.devices.base import hardware_of
from pytest_npuconf.engines.command_lines import tensor_parallel
from pytest_npuconf.errors import SettingsError
from pytest_npuconf.load.run import LOOPBACK
from pytest_npuconf.metrics.speed_figures import OF_START
from pytest_npuconf.precisions import Precision
from pytest_npuconf.speed.baseline import find_sessions

if TYPE_CHECKING:
    from pytest_npuconf.plan import Plan


def hardware_key(plan: Plan, model: str) -> dict[str, str]:
    """``device``, ``chip``, ``devices`` (that the model is spread over), ``cores`` where the CPU computes, and ``host`` where the
    server is another host's: figures with another key are figures of something else."""
    key = {"device": plan.device.name, "chip": hardware_of(plan.device), "devices": str(ranks(plan.cards[model]))}
    if plan.device.name == "cpu":
        key["cores"] = str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    host = urlsplit(dict(plan.settings.endpoints).get("generate", "")).hostname
    return key if host is None or host in LOOPBACK else {**key, "host": host}


def ranks(card: Card) -> int:
    """Devices that mode ``generate`` spreads the model over."""
    return tensor_parallel(card.serving.words("generate"))


def floors_here(floors: tuple[Floor, ...], key: dict[str, str]) -> tuple[Floor, ...]:
    """Those whose hardware is this one; none at another host, of whose hardware nothing is known here."""
    if "host" in key:
        return ()
    return tuple(f for f in floors if all(key.get(name) == value for name, value in f.hardware.items()))


def floors_asked(plan: Plan, model: str) -> tuple[Floor, ...]:
    """The card's floors that this run can judge: on their hardware, and of a server's start only where this run starts it."""
    here = floors_here(plan.cards[model].floors, hardware_key(plan, model))
    return tuple(floor for floor in here if not (plan.settings.endpoints and floor.figure in OF_START))


def is_left_out(check: str, left_out: Mapping[str, str]) -> bool:
    """Whether a check's id, or the name that it is of, is among what is not asked."""
    return check in left_out or check.rpartition(".")[0] in left_out


def without_unasked(plan: Plan) -> Plan:
    """Checks that this hardware, or this way to reach the server, has no answer for are not required of it."""
    if plan.factory.name != "server":
        return plan
    left_out = {model: not_asked(plan, model) for model in plan.cards}
    required = {
        model: tuple(check for check in checks if not is_left_out(check, left_out[model]))
        for model, checks in plan.required.items()
    }
    for model, checks in required.items():
        if not checks:
            raise SettingsError(
                f"{plan.cards[model].path}: nothing that is required of {model} can be asked here: "
                + "; ".join(f"{check}: {why}" for check, why in left_out[model].items()),
                mend="name other checks under [required] in the card",
            )
    return dataclasses.replace(plan, left_out=left_out, required=required)


def not_asked(plan: Plan, model: str) -> dict[str, str]:
    """Checks of speed that this run does not ask, and why: name or id to reason."""
    card = plan.cards[model]
    if card.speed is None:
        return {}
    key, found = hardware_key(plan, model), dict[str, str]()
    spoken = ", ".join(f"{name} {value}" for name, value in key.items())
    if "host" in key:
        found["speed.physics"] = f"the memory that {key['host']} reads is not this host's"
    if card.floors and not floors_here(card.floors, key):
        theirs = sorted({", ".join(f"{n} {v}" for n, v in floor.hardware.items()) for floor in card.floors})
        found["speed.floors"] = f"the card's floors are for {'; '.join(theirs)}, this is {spoken}"
    for dtype in plan.precisions[model]:
        check = f"speed.baseline.{Precision(dtype, 'float32').name}"
        if plan.settings.record:
            found[check] = "this run records"
        elif not find_sessions(plan, model, dtype, key):
            found[check] = f"no speed is recorded for {spoken}: pytest ... --npuconf-record"
    if plan.settings.endpoints:
        attached = "the server was not started by this run, so its processes are not known"
        found |= {"speed.start": attached, "speed.memory": attached}
        if card.floors and not floors_asked(plan, model):
            found.setdefault("speed.floors", attached)
    return found
