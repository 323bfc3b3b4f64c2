"""This host is one that the card's document describes."""

from __future__ import annotations

import pytest

from pytest_npuconf import measurements
from pytest_npuconf.environment import found_here


@pytest.mark.npuconf_check("env.minimum")
def test_minimum(npu_card, npu_device, npuconf_workbench, npu_check):
    engine = npuconf_workbench.plan.factory.name
    here = f"engine {engine} on {npu_device.name}"
    npu_check(measurements.unmet_minimums(npu_card.minimum, found_here(npu_device, engine), here))
