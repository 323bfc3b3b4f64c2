"""No gate is dead weight: each of these faults of tiny-qwen3 is caught by one gate alone, so without that gate it survives.

Two of section 6 cannot stand alone. ``logits.finite`` says in one word, with the place, what makes every other figure refuse: a
NaN. The gates of files (``model.config``, ``token.ids`` ...) have no fault of a loaded model; tests/plugin/test_model_checks.py
breaks their files one by one.
"""

from __future__ import annotations

import pytest

from pytest_npuconf.campaign import session
from pytest_npuconf.campaign.session import Arguments
from pytest_npuconf.references.shared import SharedReferences

pytestmark = pytest.mark.campaign

ALONE = {
    "modules.noise_ratio": "dead-weight-row",
    "kl.noise_ratio": "states-scaled",
    "kl.positions": "states-scaled-past-256",
    "hidden.states": "residual-scaled",
    "token.match": "state-of-the-token-before",
    "ppl.delta": "next-token-leaks",
    "model.placement": "weight-left-in-float32",
    "equivalence.batch": "even-batch-cross-talk",
    "equivalence.cache": "kv-page-lost",
    "equivalence.repeat": "first-call",
}


SAMPLES = ("functional.samples",)  # they generate for a third of the time of a run


@pytest.fixture(scope="module")
def shared() -> SharedReferences:
    """The references of all runs here, made once."""
    return SharedReferences()


def failing(
    fault: str, shared: SharedReferences, precision: str = "bfloat16", *more: str, left_out: tuple[str, ...] = SAMPLES
) -> set[str]:
    """Names of the required checks that fail."""
    found = session.run(
        Arguments("tiny-qwen3", ("--npuconf-reference=live", *more), left_out), precision, fault, shared
    )
    assert found["status"] == "judged", found
    required = {name: c["verdict"] for name, c in found["checks"].items() if c["role"] == "required"}
    assert len(required) > 10
    return {name.rpartition(".")[0] for name, verdict in required.items() if verdict == "fail"}


@pytest.mark.parametrize(("check", "fault"), ALONE.items(), ids=ALONE)
def test_without_this_gate_the_fault_survives(check, fault, shared):
    assert failing(fault, shared) == {check}


def test_without_the_error_of_the_logits_a_fault_at_float32_survives(shared):
    """Where the noise ratio of KL is not asked for."""
    assert failing("states-scaled", shared, "float32") == {"logits.rel_l2"}


def test_without_the_samples_a_token_of_the_chat_template_survives(shared):
    """None of the texts holds it."""
    assert failing("chat-token", shared, "bfloat16", "-p", "tests.plugin.chat_token", left_out=()) == {*SAMPLES}


def test_every_gate_that_a_loaded_model_can_move_is_here(shared):
    """But for ``logits.finite``: a NaN breaks them all. Those of a device have faults of a device: test_simulated.py."""
    clean = session.run(
        Arguments("tiny-qwen3", ("--npuconf-reference=live",), ("functional.samples",)), "bfloat16", None, shared
    )
    names = {name.rpartition(".")[0] for name, check in clean["checks"].items() if check["role"] == "required"}
    moved = {name for name in names if not name.startswith("device.")}
    assert moved - {"logits.finite", "logits.rel_l2"} == set(ALONE)
