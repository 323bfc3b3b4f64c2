"""Which stored calibrations a run may use, and why not the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_npuconf.calibration.stored import Calibration, file_name, read, unlike
from pytest_npuconf.devices.base import hardware_of
from pytest_npuconf.engines.variants import MODULE_YARDSTICK
from pytest_npuconf.errors import BaselineError
from pytest_npuconf.references.choose import folders

if TYPE_CHECKING:
    from pytest_npuconf.plan import Plan

# what a device brings and what computes on it
VERSIONS = ("torch", "transformers", "torch_npu", "cann", "cuda", "driver")
SHOWN = 3


@dataclass(frozen=True)
class Calibrations:
    """``used`` by model and dtype; ``not_used`` says, line by line, which file was found and what differs."""

    used: dict[tuple[str, str], Calibration] = field(default_factory=dict)
    not_used: tuple[str, ...] = ()

    @property
    def digests(self) -> list[str]:
        """``tiny-qwen3 bfloat16 1f0c2a...``"""
        return [f"{model} {dtype} {c.digest[:12]}" for (model, dtype), c in self.used.items()]

    def spoken(self) -> str:
        """For the facts of a run; empty when there is none."""
        return "; ".join([*self.digests, *self.not_used])


def comparability_here(plan: Plan, reference: dict[str, Any]) -> dict[str, Any]:
    """What a calibration of this run depends on but for model and dtype.

    Args:
        reference: what a reference depends on, :meth:`pytest_npuconf.plan.Plan.comparability`.
    """
    modules = [member.name for member in MODULE_YARDSTICK]
    return {
        "device": hardware_of(plan.device),
        "versions": {name: plan.facts[name] for name in VERSIONS if name in plan.facts},
        "engine": plan.factory.name,
        **reference,
        "yardstick": {**reference["yardstick"], "modules": modules},
    }


def choose_calibrations(plan: Plan, reference: Callable[[str], dict[str, Any]]) -> Calibrations:
    """The first comparable calibration of each model and dtype, in the folders of the references.

    Args:
        reference: gives :meth:`pytest_npuconf.plan.Plan.comparability` of a model; asked only where a file is.
    """
    used: dict[tuple[str, str], Calibration] = {}
    not_used: list[str] = []
    for model, card in plan.cards.items():
        for dtype in plan.precisions[model]:
            paths = [folder / file_name(plan.device.name, dtype) for folder in folders(card, plan.settings)]
            for path in (path for path in paths if path.is_file()):
                try:
                    found = read(path)
                    differing = unlike(found, model, comparability_here(plan, reference(model)))
                except BaselineError as error:
                    not_used.append(f"calibration not used: {error.what}")
                    continue
                if not differing:
                    used[model, dtype] = found
                    break
                more = f" and {len(differing) - SHOWN} more" if len(differing) > SHOWN else ""
                not_used.append(f"calibration not used: {path}: {'; '.join(differing[:SHOWN])}{more}")
    return Calibrations(used, tuple(not_used))
