"""Logits of the candidate against the reference, position by position."""

from __future__ import annotations

import pytest

from pytest_npuconf import measurements


@pytest.mark.npuconf_check("logits.finite")
def test_finite(npu_comparison, npu_check):
    npu_check(measurements.finite(npu_comparison))


@pytest.mark.npuconf_check("logits.rel_l2")
def test_rel_l2(npu_comparison, npu_precision, npu_check):
    """float32: the largest error of any position; below: the error over what rounding alone costs."""
    measure = measurements.rel_l2 if npu_precision.candidate == "float32" else measurements.rel_l2_ratio
    npu_check(measure(npu_comparison))


@pytest.mark.npuconf_check("logits.cosine")
def test_cosine(npu_comparison, npu_check):
    npu_check(measurements.cosine(npu_comparison))


@pytest.mark.npuconf_check("kl.noise_ratio")
def test_kl_noise_ratio(npu_comparison, npu_check):
    npu_check(measurements.kl_ratio(npu_comparison))


@pytest.mark.npuconf_check("kl.positions")
def test_kl_by_position(npu_comparison, npu_check):
    """A fault past some position drowns in a mean over all of them."""
    npu_check(measurements.kl_by_position(npu_comparison))
