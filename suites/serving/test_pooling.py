"""A served model that embeds, ranks and scores."""

from __future__ import annotations

import pytest

from pytest_npuconf.serving import api, encoders, pooling


@pytest.fixture
def vectors(npuconf_workbench, npu_card, npu_precision):
    return encoders.vectors_of(npuconf_workbench, npu_card.name, npu_precision.candidate)


@pytest.fixture
def texts(npuconf_serving, npu_card):
    return npuconf_serving.texts(npu_card.name)


@pytest.fixture
def examples(npu_card, npuconf_served):
    return [example for example in npu_card.rerank if npuconf_served.mode in example.modes]


@pytest.mark.npuconf_check("pooling.repeat")
def test_repeat(npuconf_served, npuconf_first, texts, vectors, npu_check):
    npu_check(pooling.repeated(npuconf_served, texts, npuconf_first, vectors))


@pytest.mark.npuconf_check("pooling.routes")
def test_routes(npuconf_served, npu_check):
    npu_check(api.routes(npuconf_served))


@pytest.mark.npuconf_check("pooling.embeddings")
def test_embeddings(npuconf_served, texts, vectors, npu_check):
    npu_check(pooling.embeddings(npuconf_served, texts, vectors))


@pytest.mark.npuconf_check("pooling.batch")
def test_batch(npuconf_served, texts, vectors, npu_check):
    npu_check(pooling.together(npuconf_served, texts, vectors))


@pytest.mark.npuconf_check("pooling.rerank")
def test_rerank(npuconf_served, examples, vectors, npu_check):
    npu_check(pooling.ranked(npuconf_served, examples, vectors))


@pytest.mark.npuconf_check("pooling.score")
def test_score(npuconf_served, examples, vectors, npu_check):
    npu_check(pooling.scored(npuconf_served, examples, vectors))


@pytest.mark.npuconf_check("pooling.classifier")
def test_classifier(npuconf_served, npu_card, examples, vectors, npu_check):
    template = npu_card.serving.mode("score").template.read_text(encoding="utf-8")
    npu_check(pooling.classified(npuconf_served, examples, vectors, template))
