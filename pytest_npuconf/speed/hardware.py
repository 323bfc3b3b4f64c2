"""What a floor or a recorded speed belongs to, and which checks of speed a run has no use for."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pytest_npuconf.cards.schema import Card, Floor
from pytest_npuconf.devices.base import hardware_of
from pytest_npuconf.engines.command_lines import value_of
from pytest_npuconf.errors import SettingsError
from pytest_npuconf.load.run import LOOPBACK
from pytest_npuconf.speed.baseline import find_sessions

if TYPE_CHECKING:
    from pytest_npuconf.plan import Plan

START = ("load_s", "init_s")  # figures of a server that this run starts


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
    return int(value_of(words_of(card), "--tensor-parallel-size", "-tp") or 1)


def words_of(card: Card) -> tuple[str, ...]:
    """The card's words for the server in mode ``generate``."""
    mode = card.serving.mode("generate")
    return (*card.serving.arguments, *(mode.arguments if mode else ()))


def floors_here(floors: tuple[Floor, ...], key: dict[str, str]) -> tuple[Floor, ...]:
    """Those whose hardware is this one; none at another host, of whose hardware nothing is known here."""
    if "host" in key:
        return ()
    return tuple(f for f in floors if all(key.get(name) == value for name, value in f.hardware.items()))


def without_unasked(plan: Plan) -> Plan:
    """Checks that this hardware, or this way to reach the server, has no answer for are not required of it."""
    if plan.factory.name != "server":
        return plan
    left_out = {model: not_asked(plan, model) for model in plan.cards}
    required = {
        model: tuple(check for check in checks if not {check, check.rpartition(".")[0]} & left_out[model].keys())
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
    for pair in plan.pairs(model):
        if plan.settings.record:
            found[f"speed.baseline.{pair.name}"] = "this run records"
        elif not find_sessions(plan, model, pair.candidate, key):
            found[f"speed.baseline.{pair.name}"] = f"no speed is recorded for {spoken}: pytest ... --npuconf-record"
    if plan.settings.endpoints:
        attached = "the server was not started by this run, so its processes are not known"
        found |= {"speed.start": attached, "speed.memory": attached}
        here = floors_here(card.floors, key)
        if here and all(floor.figure in START for floor in here):
            found["speed.floors"] = attached
    return {name: why for name, why in found.items() if not name.startswith("speed.baseline") or name.endswith("_fp32")}
