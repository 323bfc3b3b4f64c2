"""The model is the one that the card describes, and its files hold what its config asks for."""

from __future__ import annotations

import pytest

from pytest_npuconf import measurements
from pytest_npuconf.engines.architecture import read_architecture


@pytest.fixture
def checkpoint(npu_card, npuconf_workbench):
    return npuconf_workbench.plan.checkpoints[npu_card.name]


@pytest.fixture
def architecture(checkpoint, npuconf_workbench):
    """Names and shapes by config.json; no weight is loaded, so a checkpoint that cannot be loaded is a finding here."""
    return read_architecture(checkpoint, trust_remote_code=npuconf_workbench.plan.settings.trust_remote_code)


@pytest.mark.npuconf_check("model.config")
def test_config(npu_card, checkpoint, npu_check):
    found = {key: checkpoint.config_value(key) for key in npu_card.config}
    npu_check(measurements.config_differences(npu_card.config, found))


@pytest.mark.npuconf_check("model.generation_config")
def test_generation_config(npu_card, checkpoint, npu_check):
    npu_check(measurements.generation_differences(npu_card.generation_config, checkpoint.generation_config()))


@pytest.mark.npuconf_check("model.weights")
def test_weights(checkpoint, architecture, npu_check):
    npu_check(measurements.weight_differences(architecture, checkpoint.tensors, checkpoint.config))


@pytest.mark.npuconf_check("model.parameters")
def test_parameters(npu_card, checkpoint, architecture, npu_check):
    """By config.json, by the files and by the card."""
    npu_check(measurements.parameter_counts(architecture, checkpoint.tensors, npu_card.parameters))


@pytest.mark.npuconf_check("model.weight_size")
def test_weight_size(checkpoint, npu_check):
    npu_check(measurements.weight_size(checkpoint.files, checkpoint.tensors.values(), checkpoint.origin))


@pytest.mark.npuconf_check("model.files")
def test_files(npu_card, checkpoint, npu_check):
    there = [name for name in npu_card.files if (checkpoint.folder / name).is_file()]
    npu_check(measurements.missing_files(npu_card.files, there))


@pytest.mark.npuconf_check("model.placement")
def test_placement(npu_engine, npu_precision, npu_check):
    """The model is where it was asked to be: a float32 model passes every bfloat16 noise gate."""
    asked = npu_engine.device.torch_device().type
    npu_check(measurements.misplaced(npu_engine.parameters(), npu_precision.candidate, asked))
