"""Where ops ran, and special values."""

from __future__ import annotations

import math

import pytest

from pytest_npuconf.devices.special import Special, special_values
from pytest_npuconf.engines.execution import BY_FALLBACK, Elsewhere, Executed
from pytest_npuconf.errors import MetricError
from pytest_npuconf.measurements import executed_elsewhere, wrong_special_values


def test_ops_elsewhere_are_counted_and_named():
    found = executed_elsewhere(
        Executed("npu", {"aten::silu": 3, "aten::mm": 7}, (Elsewhere("aten::silu", 3, BY_FALLBACK, "layers.0.mlp"),))
    )
    assert (found.value, found.n, found.of) == (3.0, 10, "ops")
    assert found.rows[0].place == "aten::silu"
    assert "layers.0.mlp" in found.rows[0].detail
    assert found.data["modules"] == ["layers.0.mlp"]


def test_a_pass_that_nobody_saw_proves_nothing():
    with pytest.raises(MetricError, match="no op"):
        executed_elsewhere(Executed("npu", {}, ()))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_this_processor_is_ieee(dtype):
    torch = pytest.importorskip("torch")
    found = special_values(torch.device("cpu"), dtype)
    assert len(found) == (9 if dtype == "float32" else 10)
    assert wrong_special_values(found).value == 0


def test_saturated_values_are_wrong():
    found = wrong_special_values(
        [
            Special("max * 2", math.inf, 65504.0),
            Special("0 / 0", math.nan, 0.0),
            Special("-max * 2", -math.inf, -math.inf),
        ]
    )
    assert (found.value, found.n) == (2.0, 3)
    assert found.rows[0].detail == "gave 65504, IEEE 754 gives inf; saturation mode?"
