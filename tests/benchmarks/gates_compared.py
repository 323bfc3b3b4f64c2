"""The same faults and benign variants before this suite and before other tools: who objects to what.

``python -m tests.benchmarks.gates_compared [--model NAME] [--fault NAME ...] [--json FILE] [--ours FILE] [--resume] [--show]
[--docs]``:
totals, then a table. ``--docs`` writes them into docs/comparison.md, which says what each tool is given. This suite's verdicts
are read from the JSON of ``npuconf faults``. The other tools' packages are not of the development environment:
compared/requirements.txt; the error names the command.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import platform
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytest_npuconf.campaign.worker import told
from pytest_npuconf.errors import FaultError, NpuconfError, SettingsError
from pytest_npuconf.faults.base import Fault
from pytest_npuconf.faults.catalogue import SHIPPED, choose_fault
from pytest_npuconf.files import write_atomically
from tests.benchmarks.compared import page, tools

BUILD = tools.ROOT / "build" / "compared"


def main() -> int:
    """The exit status: 0, or 2 for what cannot be run."""
    try:
        options = _options()
        chosen = [choose_fault(name, []) for name in options.fault] if options.fault else list(SHIPPED)
        target = options.json or BUILD / f"{options.model}.json"
        matrix = _ours(options)
        data = kept(target) if options.show else compare(options, chosen, tools.require_tools(), target)
        if matrix is not None:
            data = page.with_ours(data, matrix)
        _write(target, data)
        print(page.section(data))
        if options.docs:
            write_atomically(page.PAGE, page.write(data).encode())
            _say(f"written: {page.PAGE}")
        return 0
    except NpuconfError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 2


def compare(
    options: argparse.Namespace, faults: Sequence[Fault], versions: dict[str, str], target: Path
) -> dict[str, Any]:
    """Every fault before the other tools; kept in ``target`` after each.

    Raises:
        NpuconfError: the model cannot be run.
    """
    from tests.benchmarks.compared.evidence import Bench

    bench = Bench(options.model)
    data = {
        "model": bench.name,
        "precisions": list(options.precision or bench.precisions),
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="minutes"),
        "command": _command(options),
        "facts": _facts(versions),
        "faults": [],
    }
    before = _before(target, data) if options.resume else {}
    cases = [None, *SHIPPED]
    data["faults"] = [_entry(fault, data["precisions"], before) for fault in cases]
    left = [(f, e) for f, e in zip(cases, data["faults"], strict=True) if (f is None or f in faults) and not _done(e)]
    for number, (fault, entry) in enumerate(left, start=1):
        entry["runs"] = {dtype: _run(bench, fault, dtype) for dtype in data["precisions"]}
        _write(target, data)
        seconds = sum(run.get("seconds", 0.0) for run in entry["runs"].values())
        _say(f"{number} of {len(left)}  {entry['name'] or 'healthy'} ({seconds:.0f} s)")
    return data


def kept(target: Path) -> dict[str, Any]:
    """What an earlier run has, with the catalogue of today.

    Raises:
        SettingsError: there was none.
    """
    if not target.is_file():
        raise SettingsError(f"{target} is not there", mend="leave out --show: it runs nothing")
    data: dict[str, Any] = json.loads(target.read_text(encoding="utf-8"))
    before = {entry["name"]: entry for entry in data["faults"]}
    data["faults"] = [_entry(fault, data["precisions"], before) for fault in (None, *SHIPPED)]
    return data


def _command(options: argparse.Namespace) -> str:
    """What gives this run again, without this machine's paths."""
    words = ["python", "-m", "tests.benchmarks.gates_compared", "--model", options.model]
    for name in ("precision", "fault"):
        words += [f"--{name}", *getattr(options, name)] if getattr(options, name) else []
    return shlex.join(words)


def _entry(fault: Fault | None, precisions: Sequence[str], before: dict[str, Any]) -> dict[str, Any]:
    """A candidate with what an earlier run has of it, unless its definition is another one now."""
    entry: dict[str, Any] = {"name": "", "identity": "", "benign": True, "equivalent": False}
    if fault is not None:
        entry = {name: getattr(fault, name) for name in ("name", "benign")}
        entry |= {"identity": told(fault)["identity"], "equivalent": bool(fault.equivalent)}
    old = before.get(entry["name"])
    if old is not None and old["identity"] == entry["identity"]:
        return {**entry, "runs": old["runs"]}
    return {**entry, "runs": {dtype: {"status": "not run"} for dtype in precisions}}


def _done(entry: dict[str, Any]) -> bool:
    return all(run["status"] != "not run" for run in entry["runs"].values())


def _run(bench: Any, fault: Fault | None, dtype: str) -> dict[str, Any]:
    start = time.monotonic()
    try:
        verdicts = bench.judge(fault, dtype)
    except FaultError as error:
        return {"status": "inapplicable", "reason": error.what}
    said = {tool: {"objects": v.objects, "says": v.says} for tool, v in verdicts.items()}
    return {"status": "judged", "verdicts": said, "seconds": round(time.monotonic() - start, 1)}


def _facts(versions: dict[str, str]) -> dict[str, Any]:
    import torch

    packages = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "numpy")}
    return {
        "versions": packages | versions,
        "machine": f"CPU, {platform.machine()}",
        "threads": torch.get_num_threads(),
    }


def _before(target: Path, data: dict[str, Any]) -> dict[str, Any]:
    """Entries of an interrupted run of the same model, versions and precisions."""
    if not target.is_file():
        return {}
    old = json.loads(target.read_text(encoding="utf-8"))
    same = all(old.get(key) == data[key] for key in ("model", "precisions", "facts"))
    if not same:
        raise SettingsError(f"{target} is of another model, precision or version", mend="leave out --resume")
    return {entry["name"]: entry for entry in old["faults"]}


def _ours(options: argparse.Namespace) -> dict[str, Any] | None:
    """The matrix of this suite, None when it is not asked for.

    Raises:
        SettingsError: it is not there.
    """
    path: Path = options.ours or tools.ROOT / "results" / f"faults-{options.model}.json"
    if options.without_ours:
        return None
    if not path.is_file():
        raise SettingsError(
            f"{path} is not there, so there are no verdicts of this suite to compare with",
            mend=f"npuconf faults --model {options.model} --json {path}; or --without-ours to leave our column open",
        )
    matrix: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return matrix


def _write(target: Path, data: dict[str, Any]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, json.dumps(data, indent=1, ensure_ascii=False).encode())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny-qwen3")
    parser.add_argument("--precision", nargs="+", help="default: the card's")
    parser.add_argument("--fault", nargs="+", help="only these")
    parser.add_argument("--json", type=Path, help="default: build/compared/MODEL.json")
    parser.add_argument("--ours", type=Path, help="the JSON of npuconf faults; default: results/faults-MODEL.json")
    parser.add_argument("--without-ours", action="store_true", help="leave the column of this suite open")
    parser.add_argument("--resume", action="store_true", help="go on where an interrupted run ended")
    parser.add_argument("--show", action="store_true", help="run nothing: what the JSON has")
    parser.add_argument("--docs", action="store_true", help="write docs/comparison.md")
    return parser.parse_args()


def _say(text: str) -> None:
    print(f"compare: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
