"""Hidden states of the candidate against the reference, layer by layer."""

from __future__ import annotations

import pytest

from pytest_npuconf import measurements


@pytest.mark.npuconf_check("hidden.states")
def test_states(npu_hidden, npu_precision, npu_check):
    """float32: the largest error of any position in any named layer; below: the worst layer's error over rounding's."""
    measure = measurements.hidden_error if npu_precision.candidate == "float32" else measurements.hidden_ratio
    npu_check(measure(npu_hidden))
