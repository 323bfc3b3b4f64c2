"""The one table of constants: each has a bound that can be met, a reason, and the run that gave it."""

import dataclasses
import importlib
import math
import re
from pathlib import Path

import pytest

from pytest_npuconf import thresholds
from pytest_npuconf.thresholds import Constant

CONSTANTS = {name: value for name, value in vars(thresholds).items() if isinstance(value, Constant)}


def test_the_table_is_found():
    assert {"NOISE_RATIO", "REL_L2_FLOAT32", "TIE_Z", "PPL_SAME_FLOAT32", "PPL_CROSS"} <= set(CONSTANTS)


@pytest.mark.parametrize("name", list(CONSTANTS))
def test_every_constant_has_a_reason_and_a_run(name):
    constant = CONSTANTS[name]
    assert math.isfinite(constant.value)
    assert constant.value >= 0
    assert len(constant.reason) > 20
    assert constant.run
    assert "{}" not in constant.run


def test_no_bound_stands_outside_the_table():
    """Numbers of the module are constants with a reason, not bare."""
    bare = [n for n, v in vars(thresholds).items() if isinstance(v, (int, float)) and not n.startswith("__")]
    assert bare == []


def test_constants_cannot_be_loosened_at_run_time():
    with pytest.raises(dataclasses.FrozenInstanceError):
        thresholds.NOISE_RATIO.value = 9.0


def test_documented_perplexity_bounds_widen_with_the_pair():
    assert thresholds.PPL_SAME_FLOAT32.value < thresholds.PPL_SAME_LOW.value < thresholds.PPL_CROSS.value


def test_a_run_names_a_fault_that_exists():
    """The command beside a constant must be one that works."""
    from pytest_npuconf.faults.catalogue import SHIPPED

    names = {fault.name for fault in SHIPPED}
    for constant in CONSTANTS.values():
        words = constant.run.split()
        if "--npuconf-fault" in words:
            assert words[words.index("--npuconf-fault") + 1] in names


def test_the_constants_that_figures_are_made_of_are_those_of_the_page():
    page = (Path(__file__).resolve().parents[2] / "docs" / "thresholds.md").read_text(encoding="utf-8")
    page = page.partition("What a figure is made of")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([A-Z_]+)` \| ([^|`]+) \| `([a-z_.]+)` \| .{20,} \|$", page, re.M)
    assert len(rows) >= 10
    for name, value, module in rows:
        found = getattr(importlib.import_module(f"pytest_npuconf.{module}"), name)
        assert value == (", ".join(map(str, found)) if isinstance(found, tuple) else str(found)), name
