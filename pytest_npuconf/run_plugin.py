"""Hooks of a run that judges something: collection of the suites, records, reports, closing lines, exit status."""

from __future__ import annotations

import datetime
import os
import shlex
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from pytest_npuconf import pytest_fixtures, scheduling, sharing
from pytest_npuconf.calibration.evidence import findings
from pytest_npuconf.calibration.run import PLUGIN as CALIBRATING
from pytest_npuconf.calibration.run import CalibrationPlugin
from pytest_npuconf.checker import RECORDS, check_id, check_name, parameter
from pytest_npuconf.checks import CHECKS
from pytest_npuconf.collection import SUITE_PREFIX, SuiteModule, is_shipped, resolve_arguments, suite_file
from pytest_npuconf.conformance import Closing, Status, claims_line, close
from pytest_npuconf.engines.transformers_engine import TransformersFactory
from pytest_npuconf.errors import FaultError, NpuconfError, SettingsError
from pytest_npuconf.faults.applies import check_applies, check_target, check_texts
from pytest_npuconf.faults.catalogue import CATALOGUE
from pytest_npuconf.gates import Role
from pytest_npuconf.options import Settings
from pytest_npuconf.plan import Extensions, Plan, equip, make_plan
from pytest_npuconf.precisions import Precision
from pytest_npuconf.progress import Progress, is_log
from pytest_npuconf.records import Record
from pytest_npuconf.references import choose
from pytest_npuconf.references.baseline import Baseline
from pytest_npuconf.references.store import orphans, write_baselines
from pytest_npuconf.report import evidence, junit, terminal, terminal_summary
from pytest_npuconf.sharing import Shared
from pytest_npuconf.speed.baseline import add_session
from pytest_npuconf.speed.bench import SpeedStore
from pytest_npuconf.speed.hardware import hardware_key, is_left_out

SELECTED = "npuconf_selected"
Selection = dict[str, list[str]]


def start(config: pytest.Config, settings: Settings) -> None:
    """Decide the run and register its hooks.

    Raises:
        NpuconfError: anything that would keep the run from measuring.
    """
    extensions = extensions_of(config)
    if not config.option.collectonly and not hasattr(config, "workerinput"):
        evidence.prepare(settings)
    storing = "--npuconf-record" if settings.record else "--npuconf-calibrate" if settings.calibrate else ""
    if storing and (hasattr(config, "workerinput") or getattr(config.option, "numprocesses", None)):
        raise SettingsError(f"{storing} with -n: what is stored is measured in one process", mend="drop -n")
    plan = make_plan(settings, extensions)
    progress = Progress(_writer(config), sparse=is_log(os.environ, terminal=_on_terminal(config)))
    shared: Shared = getattr(config.pluginmanager.get_plugin(sharing.NAME), "shared", None) or Shared()
    if not config.option.collectonly:
        plan = equip(plan, progress.say, shared)
        if not config.pluginmanager.has_plugin(sharing.NAME):  # a campaign goes on with its next fault
            _check_fault_applies(plan)
        plan.facts["command"] = shlex.join(["pytest", *map(str, config.invocation_params.args)])
    config.args = resolve_arguments(config, calibrate=settings.calibrate)
    config.pluginmanager.register(RunPlugin(config, plan, progress, shared), "npuconf-run")
    if settings.calibrate:
        config.pluginmanager.register(CalibrationPlugin(plan, progress, extensions.faults), CALIBRATING)


def _check_fault_applies(plan: Plan) -> None:
    """Before anything is measured, so that nothing is green.

    Raises:
        FaultError: the run's fault finds nothing to break in one of the models.
    """
    if plan.fault is None:
        return
    check_target(plan.fault, plan.factory.name)
    if plan.factory.name != TransformersFactory.name:
        return
    for model, checkpoint in plan.checkpoints.items():
        check_texts(plan.fault, model, plan.documents[model])
        code = plan.settings.trust_remote_code
        check_applies(plan.fault, model, checkpoint.folder, plan.precisions[model], trust_remote_code=code)


def list_faults(config: pytest.Config) -> str:
    """What ``--npuconf-fault list`` prints."""
    return terminal.fault_list([*CATALOGUE, *extensions_of(config).faults])


def extensions_of(config: pytest.Config) -> Extensions:
    """What the hooks add."""
    engines: dict[str, Any] = {}
    for offered in config.hook.pytest_npuconf_engines(config=config):
        engines.update(offered)
    devices = [d for offered in config.hook.pytest_npuconf_devices(config=config) for d in offered]
    faults = [f for offered in config.hook.pytest_npuconf_faults(config=config) for f in offered]
    return Extensions(devices, engines, faults)


def _writer(config: pytest.Config) -> Any:
    """Shows a line on the real terminal, past pytest's capture; silent in a worker and under -q."""

    def write(line: str) -> None:
        reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
        capture: Any = config.pluginmanager.get_plugin("capturemanager")
        if hasattr(config, "workerinput") or config.get_verbosity() < 0:
            return
        with capture.global_and_fixture_disabled():
            if reporter is None:  # while pytest is configured, before its reporter stands
                print(line, flush=True)
                return
            reporter.ensure_newline()
            reporter.write_line(line)
            reporter.flush()

    return write


def _on_terminal(config: pytest.Config) -> bool:
    """Whether pytest's own lines go to a terminal."""
    capture: Any = config.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled():
        return sys.stdout.isatty()


class RunPlugin:
    """State and hooks of one run, in the controller and in each xdist worker."""

    def __init__(self, config: pytest.Config, plan: Plan, progress: Progress, shared: Shared) -> None:
        self.config, self.plan, self.progress, self.shared = config, plan, progress, shared
        self.records: list[Record] = []
        self.selected: Selection = {}
        self.interrupted = False
        self.suites_asked = any(suite_file(Path(argument.partition("::")[0])) for argument in config.args)
        self.ended_in_error: set[str] = set()
        self.closings: list[Closing] = []
        self.claims_line = ""
        self.recorded: dict[str, list[Baseline]] = {}
        self.recording_lines: list[str] = []
        self.speed = SpeedStore()
        self._worker = hasattr(config, "workerinput")

    # collection

    def pytest_pycollect_makemodule(self, module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
        relative = suite_file(module_path)
        if relative is None:
            return None
        module: pytest.Module = SuiteModule.from_parent(parent, path=module_path, nodeid=f"{SUITE_PREFIX}/{relative}")
        return module

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if not self.plan.cards or "npu_card" not in metafunc.fixturenames:
            return
        check = CHECKS.get(check_name(metafunc.definition) or "")
        models = [model for model in self.plan.cards if check is None or self.plan.asks(check, model)]
        if "npu_precision" not in metafunc.fixturenames:
            metafunc.parametrize("npu_card", models, indirect=True, scope="session", ids=models)
            return
        cases = [
            (model, pair)
            for model in models
            for pair in self.plan.pairs(model)
            if check is None
            or (check.runs_at(pair) and not is_left_out(f"{check.name}.{pair.name}", self.plan.left_out.get(model, {})))
        ]
        metafunc.parametrize(
            ("npu_card", "npu_precision"),
            cases,
            indirect=True,
            scope="session",
            ids=[f"{model}-{pair.name}" for model, pair in cases],
        )

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        """A check that no chosen pair runs, or that no card states, has no case: pytest would show it as skipped."""
        report = yield
        if isinstance(collector, SuiteModule) and report.result:
            report.result = [node for node in report.result if not _has_no_case(node, self.plan)]
        return report

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """pytest's own order interleaves models, which would load each of them again."""
        places = [i for i, item in enumerate(items) if check_name(item) in CHECKS]
        ordered = sorted((items[i] for i in places), key=self._turn)
        for i, item in zip(places, ordered, strict=True):
            items[i] = item

    def _turn(self, item: pytest.Item) -> tuple[int, int, int]:
        """Models in their order, within one the candidate's dtypes, within one the server's modes; checks without a dtype
        come last, and last of its dtype the check that starts every mode."""
        models, pair = list(self.plan.cards), parameter(item, "npu_precision")
        model = parameter(item, "npu_card")
        if model not in models:
            return len(models), 0, 0
        dtypes = self.plan.precisions[model]
        modes = [mode.name for mode in self.plan.cards[model].serving.modes]
        mode = CHECKS[str(check_name(item))].mode
        turn = modes.index(mode) if mode in modes else len(modes)
        return models.index(model), dtypes.index(pair.candidate) if isinstance(pair, Precision) else len(dtypes), turn

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        selected: Selection = {}
        for item in session.items:
            check = check_id(item)
            if check is not None and check_name(item) in CHECKS:
                selected.setdefault(str(parameter(item, "npu_card")), []).append(check)
        self.selected = selected
        if self._worker:
            self.config.workeroutput[SELECTED] = selected  # type: ignore[attr-defined]

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        for model, checks in getattr(node, "workeroutput", {}).get(SELECTED, {}).items():
            self.selected[model] = sorted({*self.selected.get(model, []), *checks})

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> Any:
        """All checks of a model on one worker, unless another distribution was asked for."""
        return scheduling.scheduler(config, log, self.plan.cards) if config.getoption("dist") == "load" else None

    # records

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if call.when == "call":
            report.npuconf = item.stash.get(RECORDS, [])  # type: ignore[attr-defined]
        return report

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """A shipped check measures with the shipped fixtures: a conftest that replaces one would judge something else."""
        if not is_shipped(item):
            return
        known: Any = getattr(item, "_fixtureinfo").name2fixturedefs  # noqa: B009 (pytest keeps it private)
        for name, definitions in known.items():
            home = definitions[-1].func.__module__
            if name.startswith(("npu_", "npuconf_")) and home != pytest_fixtures.__name__:
                pytest.fail(f"the fixture {name} of a shipped check is replaced by {home}: rename yours", pytrace=False)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        judged = [
            record
            for record in getattr(report, "npuconf", [])
            if record["verdict"] in ("fail", "inconclusive") and record["role"] == Role.REQUIRED.value
        ]
        if report.failed and report.nodeid.startswith(f"{SUITE_PREFIX}/") and not judged:
            self.ended_in_error.add(report.nodeid)
        for record in getattr(report, "npuconf", []):
            self.records.append({"nodeid": report.nodeid, **record})

    @pytest.hookimpl(trylast=True)
    def pytest_exception_interact(self, call: pytest.CallInfo[Any]) -> None:
        """A fault that only the loaded model shows not to apply: every later test would say the same."""
        error = call.excinfo.value if call.excinfo is not None else None
        if isinstance(error, FaultError) and not self.config.pluginmanager.has_plugin(sharing.NAME):
            name = self.plan.settings.fault
            pytest.exit(f"--npuconf-fault {name} does not apply: {error}", returncode=pytest.ExitCode.USAGE_ERROR)

    def pytest_keyboard_interrupt(self) -> None:
        self.interrupted = True

    # reports

    def pytest_report_header(self) -> list[str]:
        return terminal.header(self.plan)

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> Generator[None, object, object]:
        if not self._worker and not self.config.option.collectonly:
            self._conclude(session, exitstatus)
        result = yield
        xml = getattr(self.config.option, "xmlpath", None)
        if not self._worker and xml:
            junit.set_failure_types(Path(xml))
        return result

    def _conclude(self, session: pytest.Session, exitstatus: int) -> None:
        # a run of somebody's own tests only says nothing about conformance
        judged = {} if self.plan.settings.calibrate else self.plan.cards if self.suites_asked or self.selected else {}
        self.closings = [
            close(
                model,
                self.plan.required[model],
                self.selected.get(model, []),
                self.records,
                where=terminal.where(self.plan, model),
                interrupted=self.interrupted or exitstatus == pytest.ExitCode.INTERRUPTED,
                errors=sorted(nodeid for nodeid in self.ended_in_error if f"[{model}" in nodeid),
            )
            for model in judged
        ]
        self.claims_line, counts = claims_line(judged.values(), self.records)
        if exitstatus == pytest.ExitCode.OK and any(c.status is not Status.CONFORMANT for c in self.closings):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if self.plan.settings.record:
            self._write_recorded(session)
        try:
            status = int(session.exitstatus)
            evidence.write(self.plan, self.records, self.closings, counts, status, self.progress.phase)
        except NpuconfError as error:
            session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
            self.closings = [*self.closings, terminal.not_written(str(error))]

    def _write_recorded(self, session: pytest.Session) -> None:
        """A reference is as good as the run that made it: only a conformant one is kept."""
        if not self.closings:
            self.recording_lines.append("not recorded: no shipped check ran")
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED
        for closing in self.closings:
            card = self.plan.cards[closing.model]
            if self._record_speed(closing, session) and closing.model not in self.recorded:
                continue
            if closing.status is not Status.CONFORMANT or closing.model not in self.recorded:
                self.recording_lines.append(f"{closing.model}: not recorded: only a CONFORMANT run records a reference")
                continue
            try:
                folder = choose.recording_folder(card, self.plan.settings)
                written = write_baselines(folder, self.recorded[closing.model])
            except NpuconfError as error:
                session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
                self.recording_lines.append(str(error))
            else:
                self.recording_lines += [f"recorded {line}" for line in written]

    def _record_speed(self, closing: Closing, session: pytest.Session) -> bool:
        """Add this session to the recorded speed; a run of the checks of speed alone may, too. Whether it was asked to."""
        figures = self.speed.complete(closing.model)
        if not figures:
            return False
        wrong = [check for check in (*closing.failed, *closing.inconclusive) if check.startswith("speed.")]
        if wrong or self.interrupted:
            why = f"{', '.join(wrong)} did not pass" if wrong else "the run was interrupted"
            self.recording_lines.append(f"{closing.model}: speed not recorded: {why}")
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED
            return True
        key, now = hardware_key(self.plan, closing.model), datetime.datetime.now(datetime.timezone.utc)
        for dtype, found in figures.items():
            try:
                line = add_session(self.plan, closing.model, dtype, key, found, now.isoformat(timespec="seconds"))
            except NpuconfError as error:
                session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
                self.recording_lines.append(str(error))
            else:
                self.recording_lines.append(f"recorded {line}")
        return True

    @pytest.hookimpl(optionalhook=True)
    def pytest_benchmark_update_machine_info(self, machine_info: dict[str, Any]) -> None:
        """What was measured, and not the host of the client, is what runs must have in common to be compared."""
        client = dict(machine_info)
        machine_info.clear()
        names = ("device", "chip", "device_description", "engine", "npuconf")
        machine_info.update({name: self.plan.facts[name] for name in names if name in self.plan.facts})
        machine_info["client"] = client

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if not self.config.option.collectonly:
            notes = [*findings(self.records), *self._unused()]
            notes += [
                f"{m}: {c} is not asked: {why}" for m, out in self.plan.left_out.items() for c, why in out.items()
            ]
            terminal_summary.summary(
                terminalreporter, self.plan, self.records, self.closings, self.claims_line,
                verbosity=self.config.get_verbosity(), notes=notes,
                files=[*self.plan.calibrations.not_used, *self.recording_lines],
            )  # fmt: skip

    def _unused(self) -> list[str]:
        """Stored files that no run of these cards can use."""
        folders = [folder for card in self.plan.cards.values() for folder in choose.folders(card, self.plan.settings)]
        return [f"unused baseline: {path}" for folder in dict.fromkeys(folders) for path in orphans(folder)]


def _has_no_case(node: Any, plan: Plan) -> bool:
    """A check that is parametrized with nothing. (One without parameters has a fixture replaced: its set-up will say so.)"""
    return hasattr(node, "callspec") and check_name(node) in CHECKS and parameter(node, "npu_card") not in plan.cards
