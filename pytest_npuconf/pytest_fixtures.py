"""The public fixtures. They serve in the shipped suites and in anybody's own test file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pytest_npuconf.cards import Card
    from pytest_npuconf.cards.schema import Floor
    from pytest_npuconf.checker import Checker
    from pytest_npuconf.comparison import Comparison
    from pytest_npuconf.devices import Device
    from pytest_npuconf.documents import Document
    from pytest_npuconf.engines.base import Engine
    from pytest_npuconf.engines.served import Served
    from pytest_npuconf.gates import Measurement
    from pytest_npuconf.hidden_comparison import HiddenComparison
    from pytest_npuconf.load.result import LoadResult
    from pytest_npuconf.module_comparison import ModuleComparison
    from pytest_npuconf.precisions import Precision
    from pytest_npuconf.references.live import LiveReference
    from pytest_npuconf.references.stored import StoredReference
    from pytest_npuconf.run_plugin import RunPlugin
    from pytest_npuconf.serving.bench import First, ServingBench
    from pytest_npuconf.serving.near_ties import Judge
    from pytest_npuconf.speed.baseline import Recorded
    from pytest_npuconf.speed.bench import SpeedRuns
    from pytest_npuconf.speed.recorder import SpeedRecorder
    from pytest_npuconf.speed.roof import Roof
    from pytest_npuconf.workbench import Workbench

NO_MODEL = "no model was named, so there is nothing to judge\n  mend: pytest --model NAME (or path/to/card.toml)"


def run_plugin(config: pytest.Config) -> RunPlugin:
    """The state of this run; a test that asks for it without a model fails, it is never skipped."""
    plugin: Any = config.pluginmanager.get_plugin("npuconf-run")
    if plugin is None or not plugin.plan.cards:
        pytest.fail(NO_MODEL, pytrace=False)
    return plugin  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def npuconf_workbench(request: pytest.FixtureRequest) -> Iterator[Workbench]:
    """Owner of the loaded models; released at the end of the session."""
    from pytest_npuconf.workbench import Workbench

    run = run_plugin(request.config)
    workbench = Workbench(run.plan, run.progress, run.shared)
    yield workbench
    workbench.close()
    run.recorded = workbench.recorded


@pytest.fixture(scope="session")
def npu_card(request: pytest.FixtureRequest) -> Card:
    """The card of the model under test; a test that uses it runs once for each model that was named."""
    run = run_plugin(request.config)
    return run.plan.cards[request.param]


@pytest.fixture(scope="session")
def npu_precision(request: pytest.FixtureRequest) -> Precision:
    """The precision pair; a test that uses it runs once for each pair: ``.candidate``, ``.reference``, ``.name``."""
    run_plugin(request.config)
    pair: Precision = request.param
    return pair


@pytest.fixture(scope="session")
def npu_device(request: pytest.FixtureRequest) -> Device:
    """The device under test, probed."""
    return run_plugin(request.config).plan.device


@pytest.fixture(scope="session")
def npu_engine(npuconf_workbench: Workbench, npu_card: Card, npu_precision: Precision) -> Engine:
    """The model on the device under test: ``tokenize(text)``, ``forward(ids).logits(start, stop)``."""
    return npuconf_workbench.candidate(npu_card.name, npu_precision.candidate)


@pytest.fixture(scope="session")
def npuconf_serving(request: pytest.FixtureRequest, npuconf_workbench: Workbench) -> Iterator[ServingBench]:
    """Owner of the served model; ended at the end of the session."""
    from pytest_npuconf.serving.bench import ServingBench

    run = run_plugin(request.config)
    bench = ServingBench(npuconf_workbench, run.plan, run.progress)
    yield bench
    bench.close()


@pytest.fixture
def npuconf_served(
    request: pytest.FixtureRequest, npuconf_serving: ServingBench, npu_card: Card, npu_precision: Precision
) -> Served:
    """The model, served in the mode that the test's check asks."""
    return npuconf_serving.served(npu_card.name, npu_precision.candidate, mode_of(request.node))


@pytest.fixture
def npuconf_first(npuconf_serving: ServingBench, npuconf_served: Served, npu_card: Card) -> First:
    """What the first request after the start asked and got."""
    return npuconf_serving.first[npu_card.name, npuconf_served.dtype, npuconf_served.mode]


@pytest.fixture
def npuconf_judge(npuconf_serving: ServingBench, npu_card: Card, npu_precision: Precision) -> Judge:
    """Of greedy answers: each token the reference's best, or a near tie."""
    return npuconf_serving.judge(npu_card.name, npu_precision.candidate)


@pytest.fixture
def npuconf_long(npuconf_serving: ServingBench, npu_card: Card) -> list[Document]:
    """The card's documents, the longest first."""
    return npuconf_serving.long(npu_card.name)


@pytest.fixture
def npu_load(request: pytest.FixtureRequest, npuconf_served: Served) -> Callable[..., LoadResult]:
    """Puts load on the served model: ``npu_load(requests=40, concurrency=4, input_len=64, output_len=32)``, see
    :class:`pytest_npuconf.load.shape.Shape`; engine ``server`` only."""
    from pytest_npuconf.load.run import load
    from pytest_npuconf.load.shape import Shape
    from pytest_npuconf.serving.api import http

    run, over = run_plugin(request.config), http(npuconf_served)

    def call(**shape: Any) -> LoadResult:
        return load(over.url, over.model, Shape(**shape), timeout=run.plan.settings.timeout, announce=run.progress.step)

    return call


@pytest.fixture
def npuconf_speed(
    request: pytest.FixtureRequest, npuconf_served: Served, npu_card: Card, npu_precision: Precision
) -> SpeedRuns:
    """The runs of load at the card's ``[speed]``, made when they are asked for and kept for the checks after."""
    from pytest_npuconf.serving.api import http

    run = run_plugin(request.config)
    return run.speed.of(npu_card, npu_precision.candidate, http(npuconf_served), run.plan, run.progress)


@pytest.fixture
def npuconf_roof(npuconf_workbench: Workbench, npu_card: Card, npu_precision: Precision) -> Roof:
    """What a decode step reads."""
    from pytest_npuconf.speed.hardware import ranks
    from pytest_npuconf.speed.roof import roof_of

    checkpoint = npuconf_workbench.plan.checkpoints[npu_card.name]
    return roof_of(checkpoint, npu_precision.candidate, ranks(npu_card), npu_card.serving.words("generate"))


@pytest.fixture
def npuconf_floors(npuconf_workbench: Workbench, npu_card: Card) -> tuple[Floor, ...]:
    """The card's floors on this hardware; of its start only where this run starts it."""
    from pytest_npuconf.speed.hardware import floors_asked

    return floors_asked(npuconf_workbench.plan, npu_card.name)


@pytest.fixture
def npuconf_sessions(npuconf_workbench: Workbench, npu_card: Card, npu_precision: Precision) -> Recorded:
    """The recorded speed of this hardware."""
    from pytest_npuconf.speed.baseline import find_sessions
    from pytest_npuconf.speed.hardware import hardware_key

    plan = npuconf_workbench.plan
    found = find_sessions(plan, npu_card.name, npu_precision.candidate, hardware_key(plan, npu_card.name))
    assert found is not None, "a check without sessions is not asked"
    return found


@pytest.fixture
def npuconf_start(npuconf_served: Served) -> Measurement:
    """Seconds of the server's start, by its log."""
    from pytest_npuconf.serving.api import http
    from pytest_npuconf.speed.measurements import start

    return start(npuconf_served.log_text(), http(npuconf_served).start_seconds)


def mode_of(item: pytest.Item) -> str:
    """The server's mode of a test's check; generate for a test of somebody's own."""
    from pytest_npuconf.checker import check_name
    from pytest_npuconf.checks import CHECKS

    name = check_name(item)
    return CHECKS[name].mode if name in CHECKS else "generate"


@pytest.fixture(scope="session")
def npu_reference(npuconf_workbench: Workbench, npu_card: Card) -> LiveReference | StoredReference:
    """The same weights on the CPU, computed live or stored: ``forward(pair, document)``, and what rounding costs."""
    return npuconf_workbench.reference(npu_card.name)


@pytest.fixture(scope="session")
def npu_comparison(npuconf_workbench: Workbench, npu_card: Card, npu_precision: Precision) -> Comparison:
    """Candidate against reference and yardstick over the card's prompts and texts; made once for each pair."""
    return npuconf_workbench.comparison(npu_card.name, npu_precision)


@pytest.fixture(scope="session")
def npu_hidden(npuconf_workbench: Workbench, npu_card: Card, npu_precision: Precision) -> HiddenComparison:
    """Hidden states of the card's inputs, candidate against reference and yardstick, layer by layer."""
    return npuconf_workbench.hidden(npu_card.name, npu_precision)


@pytest.fixture(scope="session")
def npu_modules(npuconf_workbench: Workbench, npu_card: Card, npu_precision: Precision) -> ModuleComparison:
    """Each module of the candidate, fed with the float32 reference's input, against the reference's output."""
    return npuconf_workbench.modules(npu_card.name, npu_precision)


@pytest.fixture(scope="session")
def npu_modules_bound(npu_card: Card, npu_precision: Precision) -> float:
    """The bound above which a module counts as off: the card's own, else the shipped one."""
    from pytest_npuconf.checks import gate_for

    gate = gate_for(f"modules.noise_ratio.{npu_precision.name}", npu_precision, npu_card, required=False)
    assert gate is not None
    return gate.bound


@pytest.fixture
def npuconf_variant(request: pytest.FixtureRequest) -> Callable[[], None]:
    """Measures one benign variant; only ``--npuconf-calibrate`` gives any."""
    plugin: Any = request.config.pluginmanager.get_plugin("npuconf-calibration")
    if plugin is None:
        pytest.fail("no variant is measured here\n  mend: pytest --model NAME --npuconf-calibrate", pytrace=False)
    return lambda: plugin.judge(request.param, request.node)


@pytest.fixture
def npu_check(request: pytest.FixtureRequest) -> Checker:
    """Judges a measurement, records it, and fails with a message that says where and what next.

    ``npu_check(measurement)`` in a shipped suite takes the check's own gate; ``npu_check(measurement, gate)`` in your
    test takes yours. Returns the verdict.
    """
    from pytest_npuconf.checker import Checker

    plugin: Any = request.config.pluginmanager.get_plugin("npuconf-run")
    return Checker(request.node, plugin.plan if plugin is not None else None)


@pytest.fixture
def npu_speed(request: pytest.FixtureRequest, npu_device: Device) -> SpeedRecorder:
    """Times a call on the device under test: ``npu_speed(function, rounds=7)`` returns a measurement for ``npu_check``."""
    if not request.config.pluginmanager.has_plugin("benchmark"):
        pytest.fail("npu_speed needs pytest-benchmark\n  mend: pip install 'pytest-npuconf[speed]'", pytrace=False)
    from pytest_npuconf.speed.recorder import SpeedRecorder

    return SpeedRecorder(request.getfixturevalue("benchmark"), npu_device, run_plugin(request.config).plan.facts)
