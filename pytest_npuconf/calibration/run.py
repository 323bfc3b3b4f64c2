"""Hooks of a run with ``--npuconf-calibrate``: one test for the candidate itself and for each benign variant and dtype."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from pytest_npuconf.calibration import noise, output
from pytest_npuconf.calibration.choose import comparability_here
from pytest_npuconf.calibration.evidence import worse_yardstick
from pytest_npuconf.calibration.noise import Judged
from pytest_npuconf.calibration.stored import CLEAN, FEWEST, Calibration, figures_of, write
from pytest_npuconf.errors import FaultError, NpuconfError
from pytest_npuconf.faults.base import Fault
from pytest_npuconf.faults.catalogue import SHIPPED
from pytest_npuconf.plan import Plan
from pytest_npuconf.progress import Progress
from pytest_npuconf.references.choose import recording_folder
from pytest_npuconf.references.recording import provenance_of
from pytest_npuconf.references.shared import SharedReferences
from pytest_npuconf.sharing import Shared
from pytest_npuconf.workbench import Workbench

PLUGIN = "npuconf-calibration"
FIXTURE = "npuconf_variant"


@dataclass(frozen=True)
class Case:
    """One test: a model at one dtype, computed as ``variant`` says (None: as it comes)."""

    model: str
    dtype: str
    variant: Fault | None

    @property
    def name(self) -> str:
        """``benign-split-k``, or ``clean``."""
        return self.variant.name if self.variant is not None else CLEAN


@dataclass
class Measured:
    """What was measured of one model at one dtype, and which variants do not apply to it."""

    judged: dict[str, dict[str, Judged]] = field(default_factory=dict)
    not_applied: dict[str, str] = field(default_factory=dict)


def benign(more: Sequence[Fault]) -> list[Fault]:
    """The benign variants of the catalogue; ``more`` (from hooks) hides a shipped one of the same name."""
    return [
        fault for fault in {f.name: f for f in [*SHIPPED, *more]}.values() if fault.benign and fault.target == "model"
    ]


def measure(plan: Plan, case: Case, shared: Shared, progress: Progress) -> dict[str, Judged]:
    """Load the candidate anew, change it, and judge every check that is a matter of rounding.

    Raises:
        FaultError: the variant does not apply to this model or device.
    """
    bench = Workbench(dataclasses.replace(plan, fault=case.variant), progress, shared)
    with contextlib.closing(bench):
        return noise.measure(bench, case.model, case.dtype)


def assemble(plan: Plan, model: str, dtype: str, found: Measured, reference: dict[str, Any]) -> Calibration:
    """The calibration of one model and dtype. Variants whose figures are those of the candidate itself, to the last bit, are
    not counted: they computed the same."""
    candidate, counted, left = found.judged[CLEAN], {}, dict(found.not_applied)
    for name, judged in found.judged.items():
        if name != CLEAN and judged == candidate:
            left[name] = "changes nothing here: every figure is the candidate's own"
        elif name != CLEAN:
            counted[name] = judged
    card = plan.cards[model]
    checks = noise.pairs(dtype, plan.required[model])
    bounds = {check: noise.bound_of(name, pair, card) for check, (name, pair) in checks.items()}
    figures = figures_of(counted, bounds)
    findings = [
        f"FALSE ALARM {name}: {check} = {judged[check].said} ({bounds[check].constant})"
        for name, judged in counted.items()
        for check in bounds
        if judged[check].failed
    ]
    findings += [line for check, figure in figures.items() if (line := worse_yardstick(check, figure.largest))]
    return Calibration(
        model, plan.factory.name, plan.device.name, dtype, comparability_here(plan, reference), candidate, counted,
        left, figures, tuple(findings), provenance_of(plan.provenance),
    )  # fmt: skip


class CalibrationPlugin:
    """State and hooks of one calibrating run."""

    def __init__(self, plan: Plan, progress: Progress, faults: Sequence[Fault]) -> None:
        self.plan, self._progress = plan, progress
        self._variants = benign(faults)
        self._shared: tuple[str, SharedReferences] | None = None
        self.measured: dict[tuple[str, str], Measured] = {}
        self.lines: list[str] = []

    def cases(self) -> list[Case]:
        """Model by model and dtype by dtype, so that each reference is made once."""
        return [
            Case(model, dtype, variant)
            for model in self.plan.cards
            for dtype in self.plan.precisions[model]
            for variant in (None, *self._variants)
        ]

    @pytest.hookimpl
    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if FIXTURE in metafunc.fixturenames:
            cases = self.cases()
            ids = [f"{case.model}-{case.dtype}-{case.name}" for case in cases]
            metafunc.parametrize(FIXTURE, cases, indirect=True, ids=ids)

    def judge(self, case: Case, item: pytest.Item) -> None:
        """Measure one case, keep it, and fail the test on a false alarm."""
        found = self.measured.setdefault((case.model, case.dtype), Measured())
        self._progress.phase(f"calibrating {case.model}, {case.dtype}: {case.name}")
        try:
            judged = measure(self.plan, case, self._reference(case.model), self._progress)
        except FaultError as error:
            found.not_applied[case.name] = f"does not apply: {error.what}"
            item.user_properties.append(("npuconf.calibration", found.not_applied[case.name]))
            return
        found.judged[case.name] = judged
        item.user_properties.extend((f"npuconf.{check}", one.said) for check, one in judged.items())
        wrong = {check: one for check, one in judged.items() if one.failed}
        if wrong:
            pytest.fail(self._message(case, wrong), pytrace=False)

    def _message(self, case: Case, wrong: dict[str, Judged]) -> str:
        card, checks = self.plan.cards[case.model], noise.pairs(case.dtype, self.plan.required[case.model])
        head = "FALSE ALARM" if case.variant is not None else "FAIL: the candidate itself is beyond a bound"
        lines = [f"{head}: {case.model}, {case.dtype}, {case.name}"]
        for check, one in wrong.items():
            bound = noise.bound_of(*checks[check], card)
            lines.append(f"  {check} = {one.said}; the constant is {bound.constant}")
        if case.variant is not None:
            lines.append(
                f"  {case.variant.description}: nothing may object to it; the constant or the check is wrong here"
            )
        return "\n".join(lines)

    def _reference(self, model: str) -> SharedReferences:
        """One model's references at a time."""
        if self._shared is None or self._shared[0] != model:
            self._release()
            self._shared = (model, SharedReferences())
        return self._shared[1]

    def _release(self) -> None:
        if self._shared is not None:
            model, shared = self._shared
            shared.live(self.plan, model).close()
            self._shared = None

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> Generator[None, object, object]:
        self._release()
        if not session.config.option.collectonly:
            good = [self._conclude(model, dtype) for model in self.plan.cards for dtype in self.plan.precisions[model]]
            if not all(good) and exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
        return (yield)

    def _conclude(self, model: str, dtype: str) -> bool:
        """Store what is whole; say what is not."""
        found = self.measured.get((model, dtype), Measured())
        expected = [CLEAN, *(variant.name for variant in self._variants)]
        missing = [name for name in expected if name not in found.judged and name not in found.not_applied]
        where = f"{model} on {self.plan.device.name}, {dtype}"
        if missing:
            done = len(expected) - len(missing)
            self.lines.append(f"SUBSET: {where}: {done} of {len(expected)} measured: nothing is stored")
            return False
        failing = [check for check, one in found.judged[CLEAN].items() if one.failed]
        if failing:
            self.lines.append(
                f"NOT CALIBRATED: {where}: the candidate itself fails {', '.join(failing)}, so what its variants do is no "
                "noise floor: nothing is stored"
            )
            return False
        made = assemble(self.plan, model, dtype, found, self.plan.comparability(model))
        self.lines += output.table(made, where)
        if len(made.variants) < FEWEST:
            self.lines.append(
                f"NOT CALIBRATED: {where}: {len(made.variants)} benign variants apply and differ from the candidate, at least "
                f"{FEWEST} are needed: nothing is stored"
            )
            return False
        try:
            folder = recording_folder(self.plan.cards[model], self.plan.settings)
            self.lines += [f"stored {line}" for line in write(folder, [made])]
        except NpuconfError as error:
            self.lines.append(f"NOT CALIBRATED: {where}: {error}")
            return False
        self.lines.append(output.closing(made, where))
        return not output.false_alarms(made)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self.lines:
            terminalreporter.section("npuconf calibration", "=")
            for line in self.lines:
                terminalreporter.write_line(line)
