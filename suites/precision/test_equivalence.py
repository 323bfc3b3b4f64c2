"""The candidate against itself: alone, in a batch, with a cache, and again. No reference is asked."""

from __future__ import annotations

import pytest

from pytest_npuconf import measurements
from pytest_npuconf.devices.base import determinism_of


@pytest.fixture
def measured(npuconf_workbench, npu_card, npu_precision):
    """float32: the largest error of any position; below: the error over what two roundings cost."""
    dtype = npu_precision.candidate
    measure = measurements.equivalence_error if dtype == "float32" else measurements.equivalence_ratio
    return lambda kind: measure(npuconf_workbench.equivalence(npu_card.name, dtype, kind))


@pytest.mark.npuconf_check("equivalence.batch")
def test_batch(measured, npu_check):
    npu_check(measured("batch"))


@pytest.mark.npuconf_check("equivalence.cache")
def test_cache(measured, npu_check):
    npu_check(measured("cache"))


@pytest.mark.npuconf_check("equivalence.repeat")
def test_repeat(npuconf_workbench, npu_card, npu_precision, npu_device, npu_check):
    """Bit-equal where the device is deterministic; elsewhere no further apart than rounding."""
    found = npuconf_workbench.equivalence(npu_card.name, npu_precision.candidate, "repeat")
    deterministic, why = determinism_of(npu_device)
    npu_check(measurements.repeat_differences(found, deterministic=deterministic, why=why))
