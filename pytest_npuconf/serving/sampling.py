"""Drawn answers: the sampler's distribution against the reference's, and seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pytest_npuconf.documents import Document
from pytest_npuconf.engines.served import Ask, Served
from pytest_npuconf.errors import EngineError
from pytest_npuconf.gates import Measurement, Row
from pytest_npuconf.metrics.arrays import Float64
from pytest_npuconf.references.live import LiveReference

DRAWS = 512
TOP_K = 5
TEMPERATURES = (0.4, 2.0)  # the API takes 0 to 2
TOLD_APART = 0.06  # nats a draw by which a wrong sampler differs: 512 draws give G of 61 in the mean, p = 2e-12
CLEAR = 0.5  # logits between the last word of the top-k and the next: far beyond rounding
SEEDED, WORDS = 8, 24


@dataclass(frozen=True)
class Place:
    """A prompt whose next word is open: ``ids`` of its likeliest words, best first, and their logits."""

    document: Document
    position: int
    ids: tuple[int, ...]
    logits: tuple[float, ...]

    def probabilities(self, temperature: float) -> Float64:
        """Of the ``TOP_K`` words: softmax(logits / temperature), shape ``(TOP_K,)``."""
        scaled = np.asarray(self.logits) / temperature
        weights = np.exp(scaled - scaled.max())
        found: Float64 = weights / weights.sum()
        return found


def told_apart(place: Place) -> float:
    """Nats a draw by which the least visible of these samplers differs from the right one: one that draws at temperature 1
    whatever is asked (KL of the two distributions), one that loses the last word of the top-k (-ln of what is left)."""
    plain = place.probabilities(1.0)
    ignored = [float((p * np.log(p / plain)).sum()) for p in map(place.probabilities, TEMPERATURES)]
    return min(*ignored, -float(np.log1p(-place.probabilities(max(TEMPERATURES))[-1])))


def open_place(reference: LiveReference, documents: Sequence[Document]) -> Place:
    """Of all positions the one that tells wrong samplers best, with the last of the top-k words clear of the next.

    Raises:
        EngineError: none is clear and tells them.
    """
    best, found = TOLD_APART, None
    for document in documents:
        rows = reference.plain(document).logits(0, len(document.ids)).astype(np.float64)
        for position, row in enumerate(rows):
            ids = np.argsort(-row, kind="stable")[: TOP_K + 1]
            if row[ids[TOP_K - 1]] - row[ids[TOP_K]] < CLEAR:
                continue
            place = Place(document, position, tuple(map(int, ids[:TOP_K])), tuple(map(float, row[ids[:TOP_K]])))
            if (seen := told_apart(place)) > best:
                best, found = seen, place
    if found is None:
        raise EngineError(
            "no prompt of the card leaves its next word open, so no sampler can be judged by its draws",
            mend="give more texts under [prompts]",
        )
    return found


def p_value(counts: Sequence[int], expected: Float64) -> float:
    """Chance of counts at least as far from the expected distribution: the G-test (likelihood ratio against chi-square with
    one degree fewer than words), which scipy computes. A word that was drawn and cannot be gives 0."""
    from scipy.stats import power_divergence

    total = sum(counts)
    return float(power_divergence(counts, expected * total, lambda_="log-likelihood").pvalue)


def sampling(served: Served, place: Place) -> Measurement:
    """The least of the p-values over the temperatures, each of ``DRAWS`` draws of one word, times their number
    (Bonferroni); 0 when a word outside the top-k was drawn."""
    prompt = place.document.ids[: place.position + 1]
    rows, told = [], {}
    for temperature in TEMPERATURES:
        ask = Ask(prompt, 1, temperature=temperature, top_k=TOP_K, ignore_eos=True)
        answers = served.samples(ask, DRAWS)
        drawn = Counter(answer.ids[0] for answer in answers if answer.ids)
        if sum(drawn.values()) != DRAWS:
            return Measurement.unusable("sampling.p_value", f"{sum(drawn.values())} words came back for {DRAWS} draws")
        counts, outside = [drawn[i] for i in place.ids], [i for i in drawn if i not in place.ids]
        expected = place.probabilities(temperature)
        p = 0.0 if outside else min(1.0, len(TEMPERATURES) * p_value(counts, expected))
        seen = ", ".join(f"{n / DRAWS:.3f} for {q:.3f}" for n, q in zip(counts, expected, strict=True))
        rows.append(Row(f"temperature {temperature}", p, seen + (f"; outside the top-k: {outside}" if outside else "")))
        told[str(temperature)] = {"counts": counts, "expected": expected.tolist(), "outside": outside}
    rows.sort(key=lambda row: row.value)
    data = {"place": place.document.place(place.position), "top_k": TOP_K, "draws": told, "rows_total": len(rows)}
    return Measurement(
        "sampling.p_value", rows[0].value, n=DRAWS * len(TEMPERATURES), of="draws", rows=tuple(rows), data=data
    )


def seeds(served: Served, documents: Sequence[Document]) -> Measurement:
    """Share of prompts whose text is another one with the same seed, or the same with another seed."""
    prompts = [d.ids[:16] for d in documents if len(d.ids) >= 4][:SEEDED]

    def drawn(seed: int) -> list[tuple[int, ...]]:
        asks = [Ask(ids, WORDS, temperature=1.0, seed=seed, ignore_eos=True) for ids in prompts]
        answers = served.complete(asks)
        if lost := [a.error for a in answers if a.error]:
            raise EngineError(f"a request with a seed failed: {lost[0]}")
        return [answer.ids for answer in answers]

    once, again, other = drawn(7), drawn(7), drawn(8)
    rows = [
        Row(f"prompt {i}", 1.0, "another text with the same seed" if a != b else "the same text with another seed")
        for i, (a, b, c) in enumerate(zip(once, again, other, strict=True), start=1)
        if a != b or a == c
    ]
    share = len(rows) / len(prompts)
    return Measurement(
        "seed.differing", share, n=len(prompts), of="prompts", rows=tuple(rows), data={"rows_total": len(rows)}
    )
