"""What a run was measured on and with, in a few words: the facts of its header, its records and its results."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import TYPE_CHECKING

from pytest_npuconf.devices.base import hardware_of
from pytest_npuconf.devices.cpu import processor_name

if TYPE_CHECKING:
    from pytest_npuconf.plan import Plan


def _sources(plan: Plan) -> str:
    """``live``, ``stored``, or which is which."""
    kinds = {model: "stored" if model in plan.stored else "live" for model in plan.cards}
    if len(set(kinds.values())) == 1:
        return next(iter(kinds.values()))
    return ", ".join(f"{model} {kind}" for model, kind in kinds.items())


def gather_facts(plan: Plan) -> dict[str, str]:
    """What the run was measured on and with, all strings."""
    versions = {**plan.factory.versions(), **plan.device.versions()}
    return {
        "npuconf": importlib.metadata.version("pytest-npuconf"),
        "device": plan.device.name,
        "device_description": plan.device.describe(),
        "chip": hardware_of(plan.device),
        "engine": plan.factory.name,
        "reference": f"cpu float32 ({_sources(plan)})",
        "host": f"{platform.system()} {platform.machine()}, {processor_name()}",
        "python": platform.python_version(),
        **{name: versions[name] for name in sorted(versions)},
        "numpy": importlib.metadata.version("numpy"),
        "pytest": importlib.metadata.version("pytest"),
        "fault": plan.fault.name if plan.fault else "",
        "fingerprint_digest": plan.fingerprint.digest(),
    }
