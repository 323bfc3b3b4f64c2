"""One pytest run of a campaign: the real path (``pytest --model NAME --npuconf-fault NAME``) in this process, with what its
neighbours have in common."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pytest_npuconf import sharing
from pytest_npuconf.checker import check_name
from pytest_npuconf.checks import CHECKS
from pytest_npuconf.errors import FaultError
from pytest_npuconf.sharing import Shared

# Five full collections of garbage at each end of pytest, and a cache folder: neither serves a run that is one of many.
LEAN = ("-q", "--assert=plain", "--capture=no", "-p", "no:cacheprovider", "-p", "no:unraisableexception")
# Of a record, what the matrix needs.
FIELDS = ("verdict", "role", "value", "unit", "bound", "sense", "interval", "broken", "worst", "waived")
NAMED = ("guilty", "origins")
MODULES = "modules.noise_ratio"
TAIL = 4000  # characters of a run's output that are kept with an error
USAGE = int(pytest.ExitCode.USAGE_ERROR)
ENDED = (int(pytest.ExitCode.OK), int(pytest.ExitCode.TESTS_FAILED))


@dataclass(frozen=True)
class Arguments:
    """What every run of a campaign is given. ``more``: pytest's arguments behind ``--``; ``leave_out``: names of checks.
    ``expected_only``: a fault meets the checks that should catch it and no others."""

    model: str
    more: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()
    expected_only: bool = False

    def of(self, precision: str, fault: str, results: Path) -> list[str]:
        """The command line of one run; the last words overrule somebody's addopts."""
        words = ["--npuconf-model", self.model, *self.more, "--npuconf-results", str(results)]
        words += ["--npuconf-precision", precision] if precision else []
        words += ["--npuconf-fault", fault] if fault else []
        return [*LEAN, *words, "--maxfail=0"]


class Plugin:
    """Rides along in a run: hands it what is shared, leaves out the checks that no fault of arithmetic can move, and hears
    what the results file does not say."""

    __name__ = sharing.NAME

    def __init__(self, shared: Shared, leave_out: Sequence[str] = (), *, expected_only: bool = False) -> None:
        self.shared, self._leave_out, self._expected_only = shared, leave_out, expected_only
        self.left_out: list[str] = []
        self.errors: dict[str, str] = {}
        self.inapplicable = ""
        self.crash = ""

    @pytest.hookimpl(wrapper=True)
    def pytest_cmdline_main(self, config: pytest.Config) -> Generator[None, object, object]:
        """What is shared is shared in this process only."""
        if getattr(config.option, "numprocesses", None):
            config.option.numprocesses = None
        return (yield)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        run: Any = config.pluginmanager.get_plugin("npuconf-run")
        fault = run.plan.fault if run is not None else None
        only = fault.checks if self._expected_only and fault is not None and not fault.benign else ()
        dropped = [item for item in items if self._out(check_name(item), only)]
        self.left_out = sorted({str(check_name(item)) for item in dropped})
        if dropped:
            config.hook.pytest_deselected(items=dropped)
            items[:] = [item for item in items if item not in dropped]

    def _out(self, name: str | None, only: Sequence[str]) -> bool:
        left = name in self._leave_out or (bool(only) and name not in only)
        return name in CHECKS and (left or not CHECKS[name].per_pair)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        judged = [r for r in getattr(report, "npuconf", []) if r["verdict"] in ("fail", "inconclusive")]
        if report.failed and not judged:
            self.errors[report.nodeid] = _last_line(report.longreprtext)

    def pytest_exception_interact(self, node: Any, call: pytest.CallInfo[Any]) -> None:
        """A fault that finds nothing to break ends the run: every later test would say the same."""
        error = call.excinfo.value if call.excinfo is not None else None
        if isinstance(error, FaultError):
            self.inapplicable = error.what
            node.session.shouldstop = "the fault does not apply"

    def pytest_internalerror(self, excrepr: Any) -> None:
        self.crash = str(excrepr)


def run(arguments: Arguments, precision: str, fault: str, shared: Shared) -> dict[str, Any]:
    """One run, as JSON values: ``status`` is ``judged``, ``inapplicable`` (with ``reason``), or ``error`` (with ``kind``:
    usage, internal, incomplete; and ``text``)."""
    plugin = Plugin(shared, arguments.leave_out, expected_only=arguments.expected_only)
    start, cpu = time.monotonic(), time.process_time()
    with tempfile.TemporaryDirectory(prefix="npuconf-faults-") as folder:
        results, said = Path(folder) / "results.json", io.StringIO()
        status = _pytest(arguments.of(precision, fault, results), plugin, said)
        data = json.loads(results.read_text(encoding="utf-8")) if results.is_file() else None
    found = _judged(plugin, data, status, said.getvalue())
    return {"fault": fault, "precision": precision, "exit": status, **found,
            "seconds": round(time.monotonic() - start, 2), "cpu_seconds": round(time.process_time() - cpu, 2)}  # fmt: skip


def _pytest(arguments: Sequence[str], plugin: object, said: io.StringIO) -> int:
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            return int(pytest.main(list(arguments), plugins=[plugin]))
        except SystemExit as error:  # pytest 8, as it reads its configuration
            return error.code if isinstance(error.code, int) else USAGE


def ask(arguments: Arguments, precision: str, plugin: object) -> tuple[int, str]:
    """Start pytest with a plugin that answers instead of collecting; the exit status and what was said."""
    said = io.StringIO()
    with tempfile.TemporaryDirectory(prefix="npuconf-faults-") as folder:
        status = _pytest(arguments.of(precision, "", Path(folder) / "results.json"), plugin, said)
    return status, said.getvalue()


def _judged(plugin: Plugin, data: dict[str, Any] | None, status: int, said: str) -> dict[str, Any]:
    if plugin.inapplicable:
        return {"status": "inapplicable", "reason": plugin.inapplicable}
    if status not in ENDED or data is None:
        kind = "usage" if status == USAGE else "internal" if plugin.crash else "incomplete"
        return {"status": "error", "kind": kind, "text": (plugin.crash or said).strip()[-TAIL:]}
    if not any(record["role"] == "required" and record["verdict"] for record in data["checks"]):
        first = next((f": {test}: {why}" for test, why in plugin.errors.items()), "")
        return {"status": "error", "kind": "incomplete", "text": f"no required check came to a verdict{first}"}
    (model,) = data["models"].values()
    return {
        "status": "judged",
        "verdict": model["status"],
        "labels": [label for label in model["labels"] if not label.startswith(("FAULT ", "VARIANT "))],
        "facts": {key: value for key, value in data["facts"].items() if key not in ("fault", "command", "fingerprint")},
        "checks": {record["check"]: _short(record) for record in data["checks"]},
        "left_out": plugin.left_out,
        "errors": plugin.errors,
    }


def _short(record: dict[str, Any]) -> dict[str, Any]:
    kept = {name: record[name] for name in FIELDS}
    if record["check"].startswith(MODULES):
        kept |= {name: record["data"][name] for name in NAMED if name in record["data"]}
    return kept


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    said = [line.removeprefix("E").strip() for line in lines if line.startswith("E ")]
    return (said or lines or ["no text"])[0 if said else -1][:500]
