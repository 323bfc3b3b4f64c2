"""A served model that generates: the reference's answers, whatever was asked before, beside it, or at which length."""

from __future__ import annotations

import pytest

from pytest_npuconf import measurements
from pytest_npuconf.engines.server_engine import arguments_of
from pytest_npuconf.serving import capacity, chats, greedy, sampling


@pytest.fixture(scope="module")
def comparison(npuconf_serving, npu_card, npu_precision):
    """The server's best log-probabilities against the reference's."""
    return npuconf_serving.comparison(npu_card.name, npu_precision)


@pytest.mark.npuconf_check("serving.first_request")
def test_first_request(npuconf_served, npuconf_first, npuconf_judge, npu_check):
    npu_check(greedy.first_request(npuconf_served, npuconf_first, npuconf_judge))


@pytest.mark.npuconf_check("serving.kl")
def test_kl(comparison, npu_check):
    npu_check(measurements.kl_ratio(comparison))


@pytest.mark.npuconf_check("serving.perplexity")
def test_perplexity(comparison, npu_check):
    npu_check(measurements.perplexity(comparison))


@pytest.mark.npuconf_check("serving.tokens")
def test_tokens(comparison, npu_check):
    npu_check(measurements.token_match(comparison))


@pytest.mark.npuconf_check("serving.repeat")
def test_repeat(npuconf_served, npuconf_long, npuconf_judge, npu_check):
    npu_check(greedy.repeats(npuconf_served, npuconf_long, npuconf_judge))


@pytest.mark.npuconf_check("serving.concurrency")
def test_concurrency(npuconf_served, npuconf_long, npuconf_judge, npu_check):
    npu_check(greedy.concurrency(npuconf_served, npuconf_long, npuconf_judge))


@pytest.mark.npuconf_check("serving.batch")
def test_batch(npuconf_served, npuconf_long, npuconf_judge, npu_check):
    npu_check(greedy.batch(npuconf_served, npuconf_long, npuconf_judge))


@pytest.mark.npuconf_check("serving.boundaries")
def test_boundaries(npuconf_served, npu_card, npuconf_long, npuconf_judge, npu_check):
    npu_check(greedy.boundaries(npuconf_served, npuconf_long, npu_card.serving.boundaries, npuconf_judge))


@pytest.mark.npuconf_check("serving.context")
def test_context(npuconf_served, npuconf_long, npuconf_judge, npu_check):
    npu_check(greedy.context(npuconf_served, npuconf_long, npuconf_judge))


@pytest.mark.npuconf_check("serving.short_then_long")
def test_short_then_long(npuconf_served, npuconf_long, npuconf_judge, npu_check):
    npu_check(greedy.short_then_long(npuconf_served, npuconf_long, npuconf_judge))


@pytest.mark.npuconf_check("serving.chat")
def test_chat(npuconf_served, npuconf_serving, npu_card, npuconf_judge, npu_check):
    tokenizer = npuconf_serving.tokenizer(npu_card.name)
    npu_check(chats.chats(npuconf_served, npu_card.samples, tokenizer, npuconf_judge, decide=npu_card.samples_decide))


@pytest.mark.npuconf_check("serving.seed")
def test_seed(npuconf_served, npuconf_long, npu_check):
    npu_check(sampling.seeds(npuconf_served, npuconf_long))


@pytest.mark.npuconf_check("serving.sampling")
def test_sampling(npuconf_served, npuconf_serving, npu_card, npu_check):
    documents = [d for d in npuconf_serving.documents(npu_card.name) if d.kind in ("prompt", "text")]
    place = sampling.open_place(npuconf_serving.reference(npu_card.name), documents)
    npu_check(sampling.sampling(npuconf_served, place))


@pytest.mark.npuconf_check("serving.capacity")
def test_capacity(npuconf_served, npuconf_workbench, npu_card, npu_check):
    checkpoint = npuconf_workbench.plan.checkpoints[npu_card.name]
    words = arguments_of(npu_card, npu_card.serving.mode("generate"))
    npu_check(capacity.capacity(npuconf_served, checkpoint.config, checkpoint.parameters, words))
