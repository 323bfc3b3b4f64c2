"""A model that is split over several devices gives the reference's answers too."""

from __future__ import annotations

import pytest

from pytest_npuconf.serving import greedy


@pytest.fixture
def judge(npuconf_serving, npu_card, npu_precision):
    return npuconf_serving.judge(npu_card.name, npu_precision.candidate)


@pytest.fixture
def long(npuconf_serving, npu_card):
    return npuconf_serving.long(npu_card.name)


@pytest.mark.npuconf_check("parallel.tokens")
def test_parallel_tokens(npuconf_served, long, judge, npu_check):
    npu_check(greedy.parallel(npuconf_served, long, judge))


@pytest.mark.npuconf_check("parallel.noise_ratio")
def test_parallel_noise_ratio(npuconf_served, long, judge, npu_check):
    npu_check(greedy.parallel_errors(npuconf_served, long, judge))
