"""A model that is split over several devices gives the reference's answers too."""

from __future__ import annotations

import pytest

from pytest_npuconf.serving import greedy


@pytest.mark.npuconf_check("parallel.tokens")
def test_parallel_tokens(npuconf_served, npuconf_long, npuconf_judge, npu_check):
    npu_check(greedy.parallel(npuconf_served, npuconf_long, npuconf_judge))


@pytest.mark.npuconf_check("parallel.noise_ratio")
def test_parallel_noise_ratio(npuconf_served, npuconf_long, npuconf_judge, npu_check):
    npu_check(greedy.parallel_errors(npuconf_served, npuconf_long, npuconf_judge))
