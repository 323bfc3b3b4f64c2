"""The process that runs pytest for a campaign. It says what it would run, then runs what it is told, one by one."""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import hashlib
import importlib.metadata
import inspect
import json
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

import pytest_npuconf
from pytest_npuconf.campaign import session
from pytest_npuconf.campaign.session import Arguments
from pytest_npuconf.checks import CHECKS
from pytest_npuconf.errors import NpuconfError
from pytest_npuconf.faults.base import Fault
from pytest_npuconf.files import sha256_of
from pytest_npuconf.locate import data_folder
from pytest_npuconf.options import read_settings
from pytest_npuconf.plan import Plan, equip, make_plan
from pytest_npuconf.references.shared import SharedReferences

HOOKS = ("pytest_npuconf_devices", "pytest_npuconf_engines", "pytest_npuconf_faults")
TOLD = ("name", "description", "magnitude", "expected", "benign", "seen", "module", "precisions", "equivalent",
        "target")  # fmt: skip


def main(arguments: Arguments, precisions: tuple[str, ...], pipe: Connection, log: str) -> None:
    """Answer each ``(fault, precision)`` that comes through the pipe; before the first, tell what there is.

    Args:
        log: file that takes what is printed, also by a process that dies.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _print_into(log)
    shared = SharedReferences()
    with contextlib.suppress(EOFError, BrokenPipeError):
        pipe.send(tell(arguments, precisions, shared))
        while True:
            fault, precision = pipe.recv()
            os.ftruncate(1, 0)
            pipe.send(session.run(arguments, precision, fault, shared))


def _end_with_parent() -> None:
    """A killed parent cannot end its workers."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def tell(arguments: Arguments, precisions: tuple[str, ...], shared: SharedReferences) -> dict[str, Any]:
    """What a campaign needs to know: the faults, the precisions, the conditions; or ``error`` with its text."""
    teller = Teller(shared)
    status, said = session.ask(arguments, ",".join(precisions), teller)
    if teller.told is None:
        return {"error": teller.error or said.strip() or f"pytest ended with {status}"}
    return {**teller.told, "conditions": {**teller.told["conditions"], "arguments": list(arguments.more),
                                          "left out": list(arguments.leave_out),
                                          "expected only": arguments.expected_only}}  # fmt: skip


class Teller:
    """Stands in for the collection: the plan of the run, as it would be."""

    def __init__(self, shared: SharedReferences) -> None:
        self._shared = shared
        self.told: dict[str, Any] | None = None
        self.error = ""

    @pytest.hookimpl(tryfirst=True)
    def pytest_cmdline_main(self, config: pytest.Config) -> int:
        from pytest_npuconf.run_plugin import extensions_of

        try:
            settings = dataclasses.replace(read_settings(config), results=None)
            extensions = extensions_of(config)
            plan = equip(make_plan(settings, extensions), lambda _: None, self._shared)
        except NpuconfError as error:
            self.error = str(error)
            return session.USAGE
        faults = {fault.name: fault for fault in [*shipped(), *extensions.faults]}
        model, *others = plan.cards
        if others:
            self.error = (
                f"a campaign judges one model, not {len(plan.cards)}\n  mend: one for each of {', '.join(plan.cards)}"
            )
            return session.USAGE
        self.told = {
            "model": model,
            "precisions": list(plan.precisions[model]),
            "engine": plan.factory.name,
            "asked": [name for name, check in CHECKS.items() if plan.asks(check, model)],
            "labels": plan.labels(model),
            "facts": {key: value for key, value in plan.provenance.items() if key != "fault"},
            "faults": [told(fault, _layers(plan, model)) for fault in faults.values()],
            "conditions": conditions(config, plan, model),
        }
        return 0


def shipped() -> tuple[Fault, ...]:
    """The catalogue."""
    from pytest_npuconf.faults.catalogue import CATALOGUE

    return CATALOGUE


def _layers(plan: Plan, model: str) -> int | None:
    """Decoder layers, as config.json has them."""
    found = plan.checkpoints[model].config_value("num_hidden_layers")
    return found if isinstance(found, int) else None


def told(fault: Fault, layers: int | None = None) -> dict[str, Any]:
    """A fault without what only its process can use, its ``module`` in a model of so many layers; ``identity`` is another one
    when the fault changes."""
    plain = {name: getattr(fault, name) for name in TOLD}
    plain |= {"precisions": list(fault.precisions), "module": fault.module_of(layers)}
    home = inspect.getsourcefile(inspect.unwrap(fault.inject)) if inspect.isroutine(fault.inject) else None
    source = sha256_of(Path(home)) if home and Path(home).is_file() else ""
    return {**plain, "identity": _digest([plain["name"], plain["magnitude"], source])}


def conditions(config: pytest.Config, plan: Plan, model: str) -> dict[str, Any]:
    """Everything that a result depends on, but for the fault and the precision."""
    plugins = (impl.plugin for hook in HOOKS for impl in getattr(config.hook, hook).get_hookimpls())
    versions = {
        name: plan.facts[name] for name in ("torch", "transformers", "torch_npu", "cann", "numpy") if name in plan.facts
    }
    return {
        "npuconf": importlib.metadata.version("pytest-npuconf"),
        "source": _digest([sha256_of(path) for path in sources()]),
        "versions": versions,
        "model": model,
        "card": sha256_of(plan.cards[model].path),
        "weights, texts and settings": _digest(plan.comparability(model)),
        "reference": plan.source(model),
        "calibration": plan.facts.get("calibration", ""),
        "device": f"{plan.device.name} ({plan.facts['device_description']})",
        "engine": plan.factory.name,
        "extensions": sorted(set(_hashes(plugins))),
    }


def sources() -> list[Path]:
    """The code of this package that a result depends on."""
    package = Path(pytest_npuconf.__file__).parent
    folders = {package, data_folder("suites")}
    return sorted(
        path for folder in folders for path in folder.rglob("*.py") if "audit" not in path.relative_to(folder).parts
    )


def _hashes(plugins: Iterable[Any]) -> list[str]:
    files = [Path(str(file)) for plugin in plugins if (file := getattr(plugin, "__file__", None))]
    return [f"{path.name} {sha256_of(path)[:12]}" for path in files if path.is_file()]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _print_into(log: str) -> None:
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o666)
    sys.stdout.flush()
    for stream in (1, 2):
        os.dup2(handle, stream)
    os.close(handle)
    faulthandler.enable(file=sys.__stderr__ or sys.stderr, all_threads=False)
