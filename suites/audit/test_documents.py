"""The card's documents say nothing that cannot hold, and its gates can fail."""

from __future__ import annotations

import pytest

from pytest_npuconf import measurements
from pytest_npuconf.audit.own_card import criteria, read_documents, read_gates


@pytest.mark.npuconf_check("audit.document")
def test_document(npu_card, npuconf_workbench, npu_check):
    """About the document, not about the port: it decides with --npuconf-strict-claims, or where the card requires it."""
    checkpoint = npuconf_workbench.plan.checkpoints[npu_card.name]
    npu_check(measurements.contradictions(read_documents(npu_card, checkpoint)))


@pytest.mark.npuconf_check("audit.gates")
def test_gates(npu_card, npu_check):
    npu_check(measurements.unsound_gates(read_gates(npu_card), criteria(npu_card)))
