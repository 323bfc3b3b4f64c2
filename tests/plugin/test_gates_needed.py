"""No gate is dead weight: each of these faults of tiny-qwen3 is caught by one gate alone, so without that gate it survives.

The end-to-end figures stand together: ``kl.noise_ratio`` catches what is wrong between modules, and ``logits.rel_l2``,
``hidden.states``, ``token.match`` and ``ppl.delta`` say the same in the words that documents quote (at float32 ``logits.rel_l2``
stands for it). ``logits.finite`` says in one word what makes all others fail.
"""

from __future__ import annotations

import pytest

from pytest_npuconf.campaign import session
from pytest_npuconf.campaign.session import Arguments
from pytest_npuconf.references.shared import SharedReferences

pytestmark = pytest.mark.campaign

ALONE = {
    "modules.noise_ratio": "dead-weight-row",
    "kl.positions": "embeddings-past-256",
    "equivalence.batch": "batch-cross-talk",
    "equivalence.cache": "kv-page-lost",
    "equivalence.repeat": "first-call",
}
END_TO_END = {"kl.noise_ratio", "kl.positions", "logits.rel_l2", "hidden.states", "token.match", "ppl.delta"}


@pytest.fixture(scope="module")
def shared() -> SharedReferences:
    """The references of all runs here, made once."""
    return SharedReferences()


def failing(fault: str, shared: SharedReferences) -> set[str]:
    """Names of the required checks that fail at bfloat16."""
    found = session.run(
        Arguments("tiny-qwen3", ("--npuconf-reference=live",), ("functional.samples",)), "bfloat16", fault, shared
    )
    assert found["status"] == "judged", found
    required = {name: c["verdict"] for name, c in found["checks"].items() if c["role"] == "required"}
    assert len(required) > 10
    return {name.rpartition(".")[0] for name, verdict in required.items() if verdict == "fail"}


@pytest.mark.parametrize(("check", "fault"), ALONE.items(), ids=ALONE)
def test_without_this_gate_the_fault_survives(check, fault, shared):
    assert failing(fault, shared) == {check}


def test_without_the_end_to_end_gates_a_fault_between_modules_survives(shared):
    found = failing("embedding-shard", shared)
    assert "kl.noise_ratio" in found
    assert found <= END_TO_END
