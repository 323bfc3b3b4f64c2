"""Each module of the candidate, fed with the reference's input, against the reference's output: which one is wrong."""

from __future__ import annotations

import pytest

from pytest_npuconf import measurements
from pytest_npuconf.thresholds import NOISE_RATIO


@pytest.mark.npuconf_check("modules.noise_ratio")
def test_noise_ratio(npu_modules, npu_modules_bound, npu_check):
    npu_check(measurements.module_ratio(npu_modules, npu_modules_bound, NOISE_RATIO.value))
