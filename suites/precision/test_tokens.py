"""Predicted tokens of the candidate against the reference."""

from __future__ import annotations

import pytest

from pytest_npuconf import measurements


@pytest.mark.npuconf_check("token.ids")
def test_ids(npu_card, npuconf_workbench, npu_check):
    """The candidate is asked the same questions as the reference."""
    tokenize = npuconf_workbench.any_candidate(npu_card.name).tokenize
    npu_check(measurements.token_ids(npuconf_workbench.documents(npu_card.name), npu_card.probes, tokenize))


@pytest.mark.npuconf_check("token.match")
def test_match(npu_comparison, npu_check):
    """Tie-aware: a disagreement counts when the reference's own gap is larger than rounding moves it."""
    npu_check(measurements.token_match(npu_comparison))


@pytest.mark.npuconf_check("token.top5")
def test_top5(npu_comparison, npu_check):
    npu_check(measurements.top5(npu_comparison))
