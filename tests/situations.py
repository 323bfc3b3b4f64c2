"""Hosts that are written down: tests/data/situations/NAME holds env.toml and, where there are files, root/.

``like = "NAME"`` takes another situation's tables and folder as a start; a value of ``"-"`` takes one of its entries away.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_npuconf.devices.base import Memory
from pytest_npuconf.doctor.case import Asked
from pytest_npuconf.doctor.memory import Needed
from pytest_npuconf.fingerprint.child import Imported
from pytest_npuconf.fingerprint.collect import Host
from pytest_npuconf.fingerprint.process import Output
from pytest_npuconf.fingerprint.readings import DEVICE, NUMERIC, Reading

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DATA = Path(__file__).parent / "data"
SITUATIONS = DATA / "situations"
TABLES = ("asked", "environment", "packages", "torch", "host")


def names() -> list[str]:
    """Every situation."""
    return sorted(path.parent.name for path in SITUATIONS.glob("*/env.toml"))


def load(name: str) -> dict[str, Any]:
    """The tables of a situation, with those of the one that it is like."""
    own = tomllib.loads((SITUATIONS / name / "env.toml").read_text(encoding="utf-8"))
    base = load(own["like"]) if "like" in own else {}
    merged = {table: _merged(base.get(table, {}), own.get(table, {})) for table in TABLES}
    folder = SITUATIONS / name / "root"
    root = folder if folder.is_dir() else base.get("root", folder)
    return {**merged, "root": root, "about": own["about"], "finding": own.get("finding", [])}


def _merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in {**base, **own}.items() if value != "-"}


def host_of(data: Mapping[str, Any]) -> Host:
    """The host as the doctor sees it: its folder, its environment, its packages, what its npu-smi and its torch say."""
    told, packages = data["host"], data["packages"]
    table = told.get("npu_smi", "")

    def run(command: Sequence[str], _environ: Mapping[str, str]) -> Output:
        assert list(command) == ["/usr/local/bin/npu-smi", "info"]
        text = (DATA / "npu_smi" / table).read_text(encoding="utf-8")
        return Output(told.get("npu_smi_status", 0), text)

    return Host(
        environ=dict(data["environment"]),
        root=data["root"],
        which=lambda name: f"/usr/local/bin/{name}" if table else None,
        run=run,
        installed=packages.get,
        python=told["python"],
        start_method=lambda: told.get("start_method"),
        machine=told["machine"],
        memory=lambda: Memory(int(told["memory_gib"] * 2**30), int(told["memory_gib"] * 2**30)),
        imported=lambda *_: _imported(data["torch"]),
    )


def _imported(torch: Mapping[str, str]) -> Imported:
    if "trouble" in torch:
        return Imported(trouble=torch["trouble"])
    readings = [Reading(name, value, f"torch: {name}") for name, value in torch.items()]
    device = [reading for reading in readings if reading.name == "visible_device_count"]
    return Imported({NUMERIC: [reading for reading in readings if reading not in device], DEVICE: device})


def asked_of(data: Mapping[str, Any]) -> Asked:
    """What the planned run would be."""
    asked = data["asked"]
    precisions = tuple(asked.get("precisions", ("bfloat16",)))
    needed = None
    if "parameters" in asked:
        needed = Needed("a-model", asked["parameters"], "card.toml: parameters", precisions, asked.get("kv_numbers", 0))
    return Asked(
        asked["device"], precisions, asked.get("engine", "transformers"), asked.get("bit_equal", False), needed
    )
