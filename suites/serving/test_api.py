"""What the API of a generating server promises: routes, ends, streams, counts, tool calls, modes."""

from __future__ import annotations

import pytest

from pytest_npuconf.serving import api, chats, modes


@pytest.mark.npuconf_check("serving.routes")
def test_routes(npuconf_served, npu_check):
    npu_check(api.routes(npuconf_served))


@pytest.mark.npuconf_check("serving.stop")
def test_stop(npuconf_served, npuconf_serving, npu_card, npu_check):
    long, ends = npuconf_serving.long(npu_card.name), npuconf_serving.ends(npu_card.name)
    npu_check(api.stops(npuconf_served, long, npu_card.samples, ends))


@pytest.mark.npuconf_check("serving.stream")
def test_stream(npuconf_served, npu_card, npu_check):
    npu_check(api.streams(npuconf_served, npu_card.samples))


@pytest.mark.npuconf_check("serving.usage")
def test_usage(npuconf_served, npuconf_serving, npu_card, npu_check):
    tokenizer = npuconf_serving.tokenizer(npu_card.name)
    asked = {s.name: (s, chats.template_ids(tokenizer, s, s.thinking)) for s in npu_card.samples}
    npu_check(api.usage(npuconf_served, npuconf_serving.long(npu_card.name), asked))


@pytest.mark.npuconf_check("serving.tools")
def test_tools(npuconf_served, npuconf_serving, npu_card, npu_check):
    npu_check(api.tools(npuconf_served, api.blanks(npuconf_serving.tokenizer(npu_card.name))))


@pytest.mark.npuconf_check("serving.modes")
def test_modes(npuconf_serving, npu_card, npu_precision, npu_check):
    """Last, because it starts what no other check has started."""
    version = npuconf_serving.plan.facts[npu_card.serving.server]
    npu_check(modes.modes(npuconf_serving, npu_card.name, npu_precision.candidate, version))
