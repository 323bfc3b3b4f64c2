"""The model ran where it was asked to, and the device does not hide what overflows."""

from __future__ import annotations

import pytest

from pytest_npuconf import measurements
from pytest_npuconf.devices.special import special_values


@pytest.mark.npuconf_check("device.execution")
def test_execution(npu_card, npu_precision, npuconf_workbench, npu_check):
    """No op falls back to the CPU, in a short pass and two decode steps."""
    npu_check(measurements.executed_elsewhere(npuconf_workbench.executed(npu_card.name, npu_precision.candidate)))


@pytest.mark.npuconf_check("device.special_values")
def test_special_values(npu_engine, npu_check):
    """Overflow gives infinity and an invalid operation NaN: a device that saturates hides both."""
    npu_check(measurements.wrong_special_values(special_values(npu_engine.device.torch_device(), npu_engine.dtype)))
