"""Faults of a server that embeds, ranks or scores. Each injector is given the proxy in front of it."""

from __future__ import annotations

import array
import base64
import json
import math
import sys
from collections.abc import Callable

from pytest_npuconf.faults.base import Injector
from pytest_npuconf.faults.calls import EMBED, RERANK, SCORE, Body, Call
from pytest_npuconf.faults.prompts import Prompt, ids_of, in_the_form_of, several
from pytest_npuconf.faults.proxy import Proxy

Vector = list[float]


def last_token_missing(proxy: Proxy) -> None:
    """Each embedding is that of the text without its last token; ``usage`` counts it all the same."""

    def request(call: Call) -> None:
        body = call.to(*EMBED)
        if body is None or "input" not in body:
            return
        every = [ids_of(call, one) for one in several(body["input"])]
        shorter: list[Prompt] = [ids[:-1] if len(ids) > 1 else ids for ids in every]
        call.notes["missing"] = sum(len(ids) > 1 for ids in every)
        body["input"] = in_the_form_of(body["input"], shorter)

    def answer(call: Call, answer: Body) -> None:
        for name in ("prompt_tokens", "total_tokens"):
            if call.notes.get("missing") and name in (answer.get("usage") or {}):
                answer["usage"][name] += call.notes["missing"]

    proxy.requests.append(request)
    proxy.answers.append(answer)


def of_norm(norm: float) -> Injector:
    """Embeddings have this norm where 1 is promised."""
    return lambda proxy: _embeddings(proxy, lambda _, rows: [[norm * x for x in row] for row in rows])


def second_differs(cosine: float) -> Injector:
    """From its second time on an input gets an embedding of this cosine to its first one, of the same norm."""

    def change(call: Call, rows: list[Vector]) -> list[Vector]:
        inputs = several((call.body or {}).get("input"))
        changed = []
        for one, row in zip(inputs, rows, strict=True):
            again = call.store.count(f"input {json.dumps(one)}") > 1
            changed.append(_turned(row, cosine) if again else row)
        return changed

    return lambda proxy: _embeddings(proxy, change)


def _turned(row: Vector, cosine: float) -> Vector:
    """A vector of the same norm at this cosine: towards the part of its own reversal that is at right angles to it."""
    square = sum(x * x for x in row)
    other = [x if i % 2 else -x for i, x in enumerate(reversed(row))]
    share = sum(x * y for x, y in zip(row, other, strict=True)) / square
    across = [y - share * x for x, y in zip(row, other, strict=True)]
    scale = math.sqrt((1 - cosine**2) * square / sum(y * y for y in across))
    return [cosine * x + scale * y for x, y in zip(row, across, strict=True)]


def two_swapped(proxy: Proxy) -> None:
    """In a request of several inputs the first two get each other's embedding."""
    _embeddings(proxy, lambda _, rows: [*rows[1::-1], *rows[2:]])


def _embeddings(proxy: Proxy, change: Callable[[Call, list[Vector]], list[Vector]]) -> None:
    """Let ``change`` see and change the embeddings of every answer, in the order of ``index``."""

    def rule(call: Call, answer: Body) -> None:
        if call.to(*EMBED) is None or not answer.get("data"):
            return
        data = sorted(answer["data"], key=lambda one: one["index"])
        for one, row in zip(data, change(call, [_vector(one["embedding"]) for one in data]), strict=True):
            one["embedding"] = _as_sent(row, one["embedding"])

    proxy.answers.append(rule)


def _vector(sent: Vector | str) -> Vector:
    """Numbers, or base64 of little-endian float32 (``encoding_format``: what OpenAI's own client asks for)."""
    if not isinstance(sent, str):
        return sent
    found = array.array("f", base64.b64decode(sent))
    if sys.byteorder == "big":
        found.byteswap()
    return found.tolist()


def _as_sent(row: Vector, before: Vector | str) -> Vector | str:
    if not isinstance(before, str):
        return row
    found = array.array("f", row)
    if sys.byteorder == "big":
        found.byteswap()
    return base64.b64encode(found.tobytes()).decode()


# ranking


def sign_flipped(proxy: Proxy) -> None:
    """A score s is 1 - s, which is what the sigmoid makes of a logit with the other sign; a ranking is sorted by it."""

    def request(call: Call) -> None:
        body = call.to(*RERANK)
        if body is not None:
            call.notes["top_n"] = body.pop("top_n", None)

    def answer(call: Call, answer: Body) -> None:
        if call.to(*SCORE) is not None:
            for one in answer.get("data", []):
                one["score"] = 1 - one["score"]
        if call.to(*RERANK) is not None and "results" in answer:
            for one in answer["results"]:
                one["relevance_score"] = 1 - one["relevance_score"]
            answer["results"].sort(key=lambda one: -one["relevance_score"])
            answer["results"] = answer["results"][: call.notes.get("top_n") or None]

    proxy.requests.append(request)
    proxy.answers.append(answer)


def unsorted(proxy: Proxy) -> None:
    """A ranking comes in the order of the documents."""

    def answer(call: Call, answer: Body) -> None:
        if call.to(*RERANK) is not None and "results" in answer:
            answer["results"].sort(key=lambda one: one["index"])

    proxy.answers.append(answer)
