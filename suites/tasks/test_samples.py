"""The model answers what its card documents. Nothing that a model wrote is executed."""

from __future__ import annotations

import pytest

from pytest_npuconf import measurements
from pytest_npuconf.engines.chat import answers_of


@pytest.mark.npuconf_check("functional.samples")
def test_samples(npu_card, npu_engine, npu_check):
    npu_check(measurements.samples(npu_card.samples, answers_of(npu_engine, npu_card.samples)))
