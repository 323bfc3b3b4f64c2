"""Perplexity of the candidate against the reference, paired and two-sided."""

from __future__ import annotations

import pytest

from pytest_npuconf import measurements


@pytest.mark.npuconf_check("ppl.delta")
def test_delta(npu_comparison, npu_check):
    npu_check(measurements.perplexity(npu_comparison))
