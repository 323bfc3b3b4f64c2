"""Embeddings, rankings and scores against the reference."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from pytest_npuconf import thresholds
from pytest_npuconf.cards.schema import RerankExample
from pytest_npuconf.documents import Document
from pytest_npuconf.engines.served import Served
from pytest_npuconf.engines.server_engine import HttpServed
from pytest_npuconf.engines.topk import log_softmax
from pytest_npuconf.engines.transformers_engine import StreamedForward
from pytest_npuconf.errors import EngineError, MetricError
from pytest_npuconf.gates import MAX_ROWS, Measurement, Row
from pytest_npuconf.metrics.arrays import Float32, Float64
from pytest_npuconf.metrics.ranking import compare_ranking
from pytest_npuconf.precisions import Precision
from pytest_npuconf.references.live import LiveReference
from pytest_npuconf.serving.api import SHAPE, http, misshapen
from pytest_npuconf.serving.bench import First
from pytest_npuconf.stats import log_ratio_of_sums

UNIT = 1e-3  # how far the length of a normalised embedding may be from 1: bfloat16's step there is 2^-8 = 4e-3, float32 sums it
LEAST_NOISE = 1e-6  # of a score: float32's own


class Embedded(Protocol):
    """What a server's embeddings are compared with, at one dtype."""

    def document(self, text: str) -> Document:
        """A text with its token ids, as the tokenizer gives them."""

    def reference(self, texts: Sequence[str]) -> Float64:
        """Shape ``(texts, width)``, length 1: in float32 on the CPU."""

    def members(self, texts: Sequence[str]) -> dict[str, Float64]:
        """The same of each member of the yardstick at the server's dtype."""


class Vectors:
    """See :class:`Embedded`: the final normed state of the last token, divided by its length (vLLM's LAST pooling with
    normalisation, what ``--convert embed`` gives a decoder)."""

    def __init__(self, reference: LiveReference, dtype: str) -> None:
        self._reference, self._pair = reference, Precision(dtype, "float32")
        self._engine = reference.engine("float32")

    @functools.cached_property
    def tokenizer(self) -> Any:
        """transformers' own."""
        return self._engine.tokenizer

    def document(self, text: str) -> Document:
        return Document("input", "served", text, tuple(self._engine.tokenize(text)))

    def reference(self, texts: Sequence[str]) -> Float64:
        return self._rows(self._reference.plain, texts)

    def members(self, texts: Sequence[str]) -> dict[str, Float64]:
        return {name: self._rows(forward, texts) for name, forward in self._reference.members(self._pair).items()}

    def _rows(self, forward: Callable[[Document], StreamedForward], texts: Sequence[str]) -> Float64:
        rows = np.stack([forward(self.document(text)).hidden[-1] for text in texts]).astype(np.float64)
        found: Float64 = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return found

    def yes(self, prompts: Sequence[str], no: int, yes: int) -> tuple[Float64, dict[str, Float64]]:
        """softmax over the two words at the last position, ``yes``'s share, by the reference and by each member; shape
        ``(prompts,)``."""
        documents = [Document("prompt", "served", p, tuple(self.tokenizer(p, add_special_tokens=False)["input_ids"]))
                     for p in prompts]  # fmt: skip

        def of(forward: Callable[[Document], StreamedForward]) -> Float64:
            last = np.concatenate([forward(d).logits(len(d.ids) - 1, len(d.ids)) for d in documents])
            found: Float64 = np.exp(log_softmax(last[:, [no, yes]])[:, 1])
            return found

        members = {name: of(forward) for name, forward in self._reference.members(self._pair).items()}
        return of(self._reference.plain), members


def noisiest(reference: Float64, members: Mapping[str, Float64]) -> Float64:
    """Distance to the reference by text, of the member whose sum is the largest; shape ``(texts,)``."""
    distances = [np.linalg.norm(rows - reference, axis=1) for rows in members.values()]
    found: Float64 = max(distances, key=lambda d: float(d.sum()))
    return found


def embeddings(served: Served, texts: Sequence[str], vectors: Embedded) -> Measurement:
    """Distance to the reference's embedding over what rounding alone costs; texts are the sample. A wrong width or a length
    other than 1 leaves nothing to compare."""
    found, expected = served.embed(texts).astype(np.float64), vectors.reference(texts)
    if found.shape != expected.shape:
        return Measurement.unusable(
            "embeddings.noise_ratio", f"{found.shape[1]} numbers, the model has {expected.shape[1]}"
        )
    lengths = np.linalg.norm(found, axis=1)
    worst = int(np.argmax(np.abs(lengths - 1)))  # the first NaN where there is one
    if not abs(lengths[worst] - 1) <= UNIT:
        reason = f"the embedding of {texts[worst][:40]!r} has the length {lengths[worst]:.6g}, not 1"
        return Measurement.unusable("embeddings.noise_ratio", reason)
    own = np.linalg.norm(found - expected, axis=1)
    cosines = (found * expected).sum(axis=1)
    data = {"statistics": {"width": found.shape[1], "least_cosine": float(cosines.min())}}
    return _ratio("embeddings.noise_ratio", texts, own, noisiest(expected, vectors.members(texts)), data)


def repeated(served: Served, texts: Sequence[str], first: First, vectors: Embedded) -> Measurement:
    """Each text twice, and the first request after the start once more: distance over two roundings."""
    once, again = served.embed(texts), served.embed(texts)
    pairs = list(zip(texts, once, again, strict=True))
    if first.embedding is not None:
        pairs.insert(0, (first.text, first.embedding[0], served.embed([first.text])[0]))
    return _two_ways("embeddings.repeat_ratio", pairs, vectors)


def together(served: Served, texts: Sequence[str], vectors: Embedded) -> Measurement:
    """Each text alone and all in one request, and alone beside others: distance over two roundings."""
    over = http(served)
    alone = served.embed(texts)
    rows = over.client.post("/v1/embeddings", {"model": over.model, "input": list(texts)})["data"]
    try:
        places = [row["index"] for row in rows]
        one_request = [np.asarray(row["embedding"], dtype=np.float32) for row in rows]
    except SHAPE as error:
        return Measurement.unusable("embeddings.batch_ratio", misshapen(error))
    if places != list(range(len(texts))):
        return Measurement.unusable("embeddings.batch_ratio", f"indices {places[:10]} ...")
    beside = served.embed(texts, together=16)
    pairs = list(zip([*texts, *texts], [*alone, *alone], [*one_request, *beside], strict=True))
    return _two_ways("embeddings.batch_ratio", pairs, vectors)


def _two_ways(metric: str, pairs: Sequence[tuple[str, Float32, Float32]], vectors: Embedded) -> Measurement:
    texts = [text for text, _, _ in pairs]
    for text, a, b in pairs:
        if a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all() and a.any() and b.any()):
            reason = f"{text[:40]!r}: {_spoken(a)} and {_spoken(b)}"
            return Measurement.unusable(metric, reason)
    own = np.array([float(np.linalg.norm(np.subtract(a, b, dtype=np.float64))) for _, a, b in pairs])
    cosines = [float(np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b))) for _, a, b in pairs]
    noise = noisiest(vectors.reference(texts), vectors.members(texts)) * np.sqrt(2.0)
    return _ratio(metric, texts, own, noise, {"least_cosine": min(cosines)})


def _spoken(vector: Float32) -> str:
    return f"an embedding of {vector.size} numbers and length {float(np.linalg.norm(vector)):.6g}"


def _ratio(metric: str, texts: Sequence[str], own: Float64, noise: Float64, data: dict[str, Any]) -> Measurement:
    """Sums over texts; a text that is z times as far as rounding moves texts decides alone: two texts that were swapped drown
    in a sum over a hundred, and in its interval."""
    alone = own / np.maximum(noise, noise.mean()) if noise.mean() > 0 else np.zeros_like(own)
    worst = int(np.argmax(alone))
    if alone[worst] > thresholds.TIE_Z.value:
        far = [Row(repr(texts[i][:40]), float(alone[i])) for i in np.argsort(-alone)[:MAX_ROWS]]
        data = {**data, "rows_total": int((alone > thresholds.TIE_Z.value).sum())}
        return Measurement(metric, float(alone[worst]), n=len(texts), of="texts", rows=tuple(far), data=data)
    estimate = log_ratio_of_sums(own, noise)
    rows = [Row(repr(t[:40]), float(o / n)) for t, o, n in zip(texts, own, noise, strict=True) if n > 0]
    rows.sort(key=lambda row: -row.value)
    return Measurement(
        metric, estimate.value, n=len(texts), of="texts", interval=(estimate.low, estimate.high),
        rows=tuple(rows[:MAX_ROWS]), data={**data, "rows_total": len(rows)},
    )  # fmt: skip


def _score_noise(expected: Float64, members: Mapping[str, Float64]) -> float:
    """z times what rounding does to a score: root mean square over all scores of the noisiest member."""
    sizes = [float(np.sqrt(np.mean(np.square(scores - expected)))) for scores in members.values()]
    return thresholds.TIE_Z.value * max(LEAST_NOISE, *sizes)


def _cosines(vectors: Float64, example: RerankExample, texts: Sequence[str]) -> Float64:
    place = {text: i for i, text in enumerate(texts)}
    found: Float64 = vectors[[place[d] for d in example.documents]] @ vectors[place[example.query]]
    return found


def ranked(served: Served, examples: Sequence[RerankExample], vectors: Embedded) -> Measurement:
    """Examples that /rerank orders otherwise than documented (beyond near ties of the reference), does not sort, or scores
    otherwise than the cosine of the reference's embeddings. They are asked worst first: a server that does not sort would
    answer in the right order else."""
    over = http(served)

    def ask(example: RerankExample) -> tuple[list[float], str]:
        body = {"model": over.model, "query": example.query, "documents": list(example.documents[::-1])}
        results = over.client.post("/rerank", body)["results"]
        scores = [float(one["relevance_score"]) for one in results]
        places = [int(one["index"]) for one in results]
        if sorted(places) != list(range(len(example.documents))):
            return [], f"documents {places} came back, of {len(example.documents)}"
        unsorted = "" if scores == sorted(scores, reverse=True) else f"not sorted by score: {scores}"
        return [scores[places.index(i)] for i in reversed(range(len(places)))], unsorted

    return _examples("rerank.wrong", examples, ask, *_expected(examples, vectors))


def scored(served: Served, examples: Sequence[RerankExample], vectors: Embedded) -> Measurement:
    """The same of /score: the cosine of query and document."""
    over = http(served)
    return _examples("score.wrong", examples, lambda e: _scores(over, e), *_expected(examples, vectors))


def classified(served: Served, examples: Sequence[RerankExample], vectors: Vectors, template: str) -> Measurement:
    """The official recipe: /score is the softmax over ``no`` and ``yes`` after the template (Qwen3-Reranker's own code)."""
    over, tokenizer = http(served), vectors.tokenizer
    words = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in ("no", "yes")]
    if any(len(ids) != 1 for ids in words):
        raise EngineError("the tokenizer has no single tokens 'no' and 'yes'", mend="take the mode out of the card")
    prompts = {
        (e.name, d): tokenizer.apply_chat_template(
            [{"role": "query", "content": e.query}, {"role": "document", "content": d}],
            chat_template=template, tokenize=False, add_generation_prompt=True,
        )
        for e in examples for d in e.documents
    }  # fmt: skip
    reference, members = vectors.yes(list(prompts.values()), words[0][0], words[1][0])
    place = {key: i for i, key in enumerate(prompts)}
    expected = {e.name: reference[[place[e.name, d] for d in e.documents]] for e in examples}
    noise = _score_noise(reference, members)
    return _examples("classifier.wrong", examples, lambda e: _scores(over, e), expected, noise)


def _scores(over: HttpServed, example: RerankExample) -> tuple[list[float], str]:
    body = {"model": over.model, "text_1": example.query, "text_2": list(example.documents)}
    rows = over.client.post("/score", body)["data"]
    by_place = {int(row["index"]): float(row["score"]) for row in rows}
    if sorted(by_place) != list(range(len(example.documents))) or len(rows) != len(by_place):
        return [], f"scores of {[row['index'] for row in rows]} came back, of {len(example.documents)}"
    return [by_place[i] for i in range(len(rows))], ""


def _expected(examples: Sequence[RerankExample], vectors: Embedded) -> tuple[dict[str, Float64], float]:
    texts = list(dict.fromkeys(t for e in examples for t in (e.query, *e.documents)))
    reference, members = vectors.reference(texts), vectors.members(texts)
    expected = {e.name: _cosines(reference, e, texts) for e in examples}
    every = np.concatenate(list(expected.values()))
    by_member = {n: np.concatenate([_cosines(rows, e, texts) for e in examples]) for n, rows in members.items()}
    return expected, _score_noise(every, by_member)


def _examples(
    metric: str, examples: Sequence[RerankExample], ask: Callable[[RerankExample], tuple[list[float], str]],
    expected: Mapping[str, Float64], noise: float,
) -> Measurement:  # fmt: skip
    rows, kept = [], {}
    for example in examples:
        try:
            scores, why = ask(example)
        except SHAPE as error:
            scores, why = [], misshapen(error)
        reference = expected[example.name]
        kept[example.name] = {"scores": scores, "reference": reference.tolist()}
        why = why or _disagrees(scores, reference, noise)
        if why:
            rows.append(Row(example.name, 1.0, why))
    margins = [
        float(reference[i] - reference[i + 1]) for reference in expected.values() for i in range(len(reference) - 1)
    ]
    first = kept[examples[0].name]["scores"]
    data = {"examples": kept, "noise": noise, "statistics": {"first_scores": first, "least_margin": min(margins)}}
    return Measurement.counted(metric, rows, n=len(examples), of="examples", **data)


def _disagrees(scores: Sequence[float], reference: Float64, noise: float) -> str:
    if len(scores) != reference.size:
        return f"{len(scores)} scores for {reference.size} documents"
    for i in range(reference.size):
        for j in range(i + 1, reference.size):
            if reference[j] - reference[i] > noise:
                return (
                    f"the reference itself puts document {j + 1} before {i + 1}: the card's order is not this model's"
                )
            margin = float(reference[i] - reference[j])
            if scores[j] > scores[i] and margin > noise:
                return f"document {j + 1} ({scores[j]:.4f}) before {i + 1} ({scores[i]:.4f}), margin {margin:.4f}"
    try:
        found = compare_ranking(scores, reference, noise=noise)
    except MetricError as error:
        return str(error)
    if found.max_score_error > noise:
        return f"scores {[round(s, 4) for s in scores]}, reference {[round(float(r), 4) for r in reference]}, noise {noise:.2g}"
    return ""
