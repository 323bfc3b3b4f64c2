"""Settings of torch read in a process of their own: where CANN is half installed, ``import torch`` can hang or crash."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from pytest_npuconf.fingerprint.process import Run
from pytest_npuconf.fingerprint.readings import Reading
from pytest_npuconf.fingerprint.torch_settings import Groups, read

MARK = "npuconf-fingerprint:"  # torch_npu prints lines of its own


@dataclass(frozen=True)
class Imported:
    """The readings, or why there are none. ``absent``: torch is not installed."""

    groups: Groups = field(default_factory=dict)
    trouble: str = ""
    absent: bool = False


def main(device: str) -> None:
    """In the child: print the readings, or the error of the import, as one line of JSON."""
    try:
        import torch

        if device == "npu":
            import torch_npu  # noqa: F401
    except Exception as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "torch"
        print(MARK + json.dumps({"trouble": f"{type(error).__name__}: {error}", "absent": missing}))
        return
    found = read(torch, device)
    print(MARK + json.dumps({group: [[r.name, r.value, r.source] for r in found[group]] for group in found}))


def import_apart(device: str, run: Run, environ: Mapping[str, str]) -> Imported:
    """Import torch (and torch_npu for ``npu``) in a child of this Python, at most ten seconds; twice, because from a cold disk
    a first import can take longer than that, and a hang takes longer again."""
    code = f"from pytest_npuconf.fingerprint.child import main; main({device!r})"
    output = run([sys.executable, "-c", code], environ)
    if output.timed_out:
        output = run([sys.executable, "-c", code], environ)
    line = next((line for line in output.stdout.splitlines() if line.startswith(MARK)), None)
    if line is None:
        return Imported(trouble=output.why() or "it printed nothing")
    told = json.loads(line.removeprefix(MARK))
    if "trouble" in told:
        return Imported(trouble=told["trouble"], absent=told["absent"])
    return Imported({group: [Reading(*parts) for parts in readings] for group, readings in told.items()})
