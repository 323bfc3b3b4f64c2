"""Detection against magnitude: from which size on is a defect caught, at each dtype?

``python -m tests.benchmarks.detection [--precision NAMES] [--fault NAME ...] [--write]``: runs the suites of tiny-qwen3 with
each magnitude of the catalogue's scalable faults and prints a table; ``--write`` keeps the figures in
tests/data/detection.json and makes docs/detection.md with its picture anew.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_npuconf.campaign import session
from pytest_npuconf.campaign.session import Arguments
from pytest_npuconf.faults.base import Fault
from pytest_npuconf.faults.catalogue import choose_fault
from pytest_npuconf.references.shared import SharedReferences
from tests.benchmarks import detection_page

MODEL = "tiny-qwen3"
PRECISIONS = ("bfloat16", "float16", "float32")
FAULTS = ("attention-scale-2%", "rope-base", "dead-weight-row", "accumulate-bf16", "int8-scale")
# None of these faults needs a batch, a cache or a repeat to show.
LEFT_OUT = ("equivalence.batch", "equivalence.cache", "equivalence.repeat", "functional.samples")
MARK = "@"


@pytest.hookimpl
def pytest_npuconf_faults() -> list[Fault]:
    """Each magnitude as a fault of its own: this module is a plugin of the runs that it starts."""
    return [scaled(choose_fault(name, []), m) for name in FAULTS for m in choose_fault(name, []).magnitudes]


def scaled(fault: Fault, magnitude: float) -> Fault:
    """``attention-scale@0.01``."""
    if fault.scaled is None:
        raise ValueError(f"{fault.name} has no magnitudes")
    return Fault(
        f"{fault.name}{MARK}{magnitude:g}",
        fault.description,
        f"{magnitude:g}",
        fault.expected,
        fault.scaled(magnitude),
        module=fault.module,
    )


def measure(names: Sequence[str], precisions: Sequence[str]) -> dict[str, Any]:
    """By fault and precision, the runs in order of magnitude."""
    shared = SharedReferences()
    arguments = Arguments(
        MODEL,
        ("--npuconf-reference=live", "--npuconf-device=cpu", "-p", __spec__.name if __spec__ else __name__),
        LEFT_OUT,
    )
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    facts: dict[str, str] = {}
    for precision in precisions:
        for name in names:
            for magnitude in choose_fault(name, []).magnitudes:
                result = session.run(arguments, precision, f"{name}{MARK}{magnitude:g}", shared)
                point = read(magnitude, result)
                facts = facts or result.get("facts", {})
                found.setdefault(name, {}).setdefault(precision, []).append(point)
                print(f"{precision:<9} {name:<17} {magnitude:<9g} {describe(point)}", flush=True)
    kept = {key: facts[key] for key in ("host", "torch", "transformers", "npuconf", "python") if key in facts}
    return {
        "model": MODEL,
        "labels": ["CPU", "STAND-IN"],
        "time": time.strftime("%Y-%m-%d"),
        "facts": kept,
        "faults": found,
    }


def read(magnitude: float, result: dict[str, Any]) -> dict[str, Any]:
    """Of one run: whether and by what it was caught, the module named, and each gate's figure over its bound."""
    if result["status"] == "inapplicable":
        return {"magnitude": magnitude, "status": result["reason"]}
    if result["status"] != "judged":
        raise RuntimeError(f"{result['fault']} at {result['precision']}: {result.get('text', result)}")
    checks = {i: c for i, c in result["checks"].items() if c["role"] == "required"}
    caught = sorted(i for i, c in checks.items() if c["verdict"] == "fail")
    over = {
        i: c["value"] / c["bound"] if math.isfinite(c["value"] or math.nan) else None
        for i, c in checks.items()
        if c["bound"] and c["sense"] == "<=" and c["value"] is not None
    }
    guilty = next((c["guilty"] for i, c in checks.items() if i.startswith(session.MODULES) and "guilty" in c), "")
    return {"magnitude": magnitude, "status": "judged", "caught": caught, "guilty": guilty, "over": over}


def describe(point: dict[str, Any]) -> str:
    """``caught by 3: kl.noise_ratio.bf16_fp32, ...; module``."""
    if point["status"] != "judged":
        return f"does not apply: {point['status']}"
    return (
        f"caught by {len(point['caught'])}: {', '.join(point['caught'])}  {point['guilty']}" if point["caught"] else "-"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--precision", default=",".join(PRECISIONS))
    parser.add_argument("--fault", action="append", choices=FAULTS)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    start = time.process_time()
    data = measure(options.fault or FAULTS, options.precision.split(","))
    print(f"{time.process_time() - start:.0f} s of CPU, {os.cpu_count()} cores, {platform.machine()}")
    print(detection_page.table(data))
    if options.write:
        if options.fault or tuple(options.precision.split(",")) != PRECISIONS:
            print("not written: only a whole run is kept", file=sys.stderr)
            return 1
        Path(detection_page.DATA).write_text(json.dumps(data, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        detection_page.write(data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
