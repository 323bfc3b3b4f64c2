"""A plugin of somebody else: a device, an engine and two faults of its own. ``pytest -p npuconf_example`` or an entry point."""

from pytest_npuconf.devices.cpu import CpuDevice
from pytest_npuconf.engines.transformers_engine import TransformersEngine, TransformersFactory
from pytest_npuconf.errors import FaultError
from pytest_npuconf.faults.base import Fault


class BoardDevice(CpuDevice):
    """A device under test: its name goes into every header, label and file."""

    name = "board"


class TracedEngine(TransformersEngine):
    """An engine: here transformers with one attribute more."""

    calls = 0

    def forward(self, ids, variant=None, layers=()):
        self.calls += 1
        return super().forward(ids, variant, layers)


class TracedFactory(TransformersFactory):
    """Its ``name`` stays the engine's whose required checks are asked for."""

    def load(self, checkpoint, device, dtype, settings):
        return TracedEngine(checkpoint, device, dtype, trust_remote_code=settings.trust_remote_code)


def scale_values(factor):
    """A fault by magnitude: what attention reads is too big, in every layer."""

    def inject(model):
        found = [m for name, m in model.named_modules() if name.endswith(".v_proj")]
        if not found:
            raise FaultError(f"{type(model).__name__} has no v_proj, so there is nothing to break")
        for module in found:
            module.weight.data *= 1 + factor

    return inject


def break_a_vision_tower(model):
    if not hasattr(model, "visual"):
        raise FaultError(f"{type(model).__name__} has no vision tower, so there is nothing to break")


def pytest_npuconf_devices():
    return [BoardDevice()]


def pytest_npuconf_engines():
    return {"traced": TracedFactory()}


def pytest_npuconf_faults():
    return [
        Fault(
            "values-scaled", "values of attention are 25 % too big", "x1.25", "kl.noise_ratio, modules.noise_ratio",
            scale_values(0.25), module="model.layers.*.self_attn.v_proj", scaled=scale_values, magnitudes=(0.01, 0.1, 1.0),
        ),
        Fault("vision", "the vision tower is broken", "all", "kl.noise_ratio", break_a_vision_tower),
    ]  # fmt: skip
