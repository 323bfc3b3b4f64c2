"""The checkpoint is the one that the card describes."""

from __future__ import annotations

import pytest

from pytest_npuconf import measurements


@pytest.mark.npuconf_check("model.config")
def test_config(npu_card, npuconf_workbench, npu_check):
    if not npu_card.config:
        return  # the card states none, so none is required
    checkpoint = npuconf_workbench.plan.checkpoints[npu_card.name]
    found = {key: checkpoint.config_value(key) for key in npu_card.config}
    npu_check(measurements.config_differences(npu_card.config, found))


@pytest.mark.npuconf_check("model.placement")
def test_placement(npu_engine, npu_precision, npu_check):
    """The model is where it was asked to be: a float32 model passes every bfloat16 noise gate."""
    asked = npu_engine.device.torch_device().type
    npu_check(measurements.misplaced(npu_engine.parameters(), npu_precision.candidate, asked))
