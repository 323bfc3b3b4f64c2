"""Greedy answers under conditions that must not matter: what was asked before, beside it, and at which length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pytest_npuconf.documents import Document
from pytest_npuconf.engines.served import Answer, Ask, Served
from pytest_npuconf.errors import EngineError
from pytest_npuconf.gates import MAX_ROWS, Measurement, Row
from pytest_npuconf.serving.bench import First, windows
from pytest_npuconf.serving.near_ties import Judge
from pytest_npuconf.stats import log_ratio_of_sums

LOAD = 300  # requests: one in a hundred lost is seen with a chance of 95 % (1 - 0.99^300)
TOGETHER = 32
REPEATS = 10
EACH = 4  # texts at one length
SHORT, STEPS = 24, 8  # tokens of a short prompt, and of an answer
PARALLEL = (8, 16)  # requests alone, and at once, to a model that is split over devices
JUDGED = 8192  # tokens of the longest prompt that the reference answers too: on a CPU a longer one takes hours


@dataclass(frozen=True)
class Told:
    """A question, what came back, and what the two are called in a report."""

    name: str
    ask: Ask
    answer: Answer


def deviations(metric: str, told: Sequence[Told], judge: Judge) -> Measurement:
    """Answers that are lost, cut short, or not the reference's greedy answer up to near ties.

    Raises:
        EngineError: the server does not tell the ids of what it generates.
    """
    rows = [row for one in told if (row := _wrong(one, judge)) is not None]
    rows.sort(key=lambda row: -row.value)
    alike: dict[tuple[int, ...], set[tuple[int, ...]]] = {}
    for one in told:
        alike.setdefault(one.ask.ids, set()).add(one.answer.ids)
    kept = {"questions": len(alike), "questions_with_one_answer": sum(len(found) == 1 for found in alike.values())}
    return Measurement.counted(metric, rows, n=len(told), of="answers", **kept)


def _wrong(one: Told, judge: Judge) -> Row | None:
    answer, ask = one.answer, one.ask
    if answer.error:
        return Row(one.name, 1.0, answer.error)
    if not answer.ids:
        raise EngineError(
            f"{one.name}: the server does not tell the token ids of its answer (return_token_ids)",
            mend="serve it with vLLM, or name what decides under [required] server = [...] in the card",
        )
    if ask.ignore_eos and len(answer.ids) != ask.max_tokens:
        return Row(one.name, 1.0, f"{len(answer.ids)} tokens where {ask.max_tokens} were asked for")
    if found := judge.deviations(ask.ids, answer.ids):
        first = found[0]
        detail = f"gap in logits; step {first.step}: token {first.token} for {first.best}, tau {first.tau:.3g}"
        return Row(one.name, first.gap, detail)
    return None


def _asked(served: Served, name: str, asks: Sequence[Ask], together: int = 1) -> list[Told]:
    answers = served.complete(asks, together)
    if len(answers) != len(asks):
        raise EngineError(f"{name}: {len(answers)} answers to {len(asks)} requests")
    return [Told(f"{name}, request {i}", a, b) for i, (a, b) in enumerate(zip(asks, answers, strict=True), start=1)]


def _ask(ids: Sequence[int], steps: int = STEPS) -> Ask:
    return Ask(tuple(ids), steps, ignore_eos=True)


def first_request(served: Served, first: First, judge: Judge) -> Measurement:
    """The first request after the start, and the same once more."""
    if first.ask is None or first.answer is None:
        raise EngineError(f"mode {first}: nothing was asked at the start")
    told = [Told("the first request after the start", first.ask, first.answer), *_asked(served, "again", [first.ask])]
    return deviations("first_request.deviations", told, judge)


def repeats(served: Served, documents: Sequence[Document], judge: Judge) -> Measurement:
    """The same request ten times in a row (a prefix cache answers all but the first), for three long prompts; then prompts
    that begin like one of them and go on otherwise."""
    told, longest = [], [d.ids[: served.max_model_len - STEPS] for d in documents[:3]]
    for ids in longest:
        told += _asked(served, "the same again", [_ask(ids)] * REPEATS)
    begun = [(*a[: len(a) * 3 // 4], *b[:SHORT]) for a, b in zip(longest, reversed(longest), strict=True)]
    told += _asked(served, "begun alike, ended otherwise", [_ask(ids) for ids in begun])
    return deviations("repeat.deviations", told, judge)


def concurrency(served: Served, documents: Sequence[Document], judge: Judge) -> Measurement:
    """Different prompts, each alone, then many at once: nothing lost, nothing swapped, nothing said twice."""
    prompts = [_ask(ids) for ids in windows(documents, SHORT, LOAD)]
    told = _asked(served, "alone", prompts[:TOGETHER]) + _asked(served, f"{TOGETHER} at once", prompts, TOGETHER)
    return deviations("concurrency.deviations", told, judge)


def batch(served: Served, documents: Sequence[Document], judge: Judge) -> Measurement:
    """One prompt alone and in changing company: short and long, more and fewer."""
    longest = min(len(documents[0].ids), served.max_model_len - STEPS)
    lengths = [n for n in (1, 2, 7, 16, 33, 64, 127, 128, 129, 250) if n <= longest]
    company = [_ask(d.ids[:n]) for d in documents[:2] for n in lengths]
    one = _ask(documents[-1].ids[:SHORT])
    told = _asked(served, "alone", [one])
    for size in (2, 3, 8, len(company) + 1):
        told += _asked(served, f"in company of {size - 1}", [one, *company[: size - 1]], size)
        told += _asked(served, f"last of {size}", [*company[: size - 1], one], size)
    return deviations("batch.deviations", told, judge)


def short_then_long(served: Served, documents: Sequence[Document], judge: Judge) -> Measurement:
    """A short request, then one as long as the server takes: what the short one left (a mask, a page) must not be used."""
    told = []
    for document in documents[:4]:
        short, long = document.ids[:3], document.ids[: served.max_model_len - STEPS]
        told += _asked(served, "short, long, short", [_ask(short), _ask(long), _ask(short)])
    return deviations("short_then_long.deviations", told, judge)


def boundaries(served: Served, documents: Sequence[Document], edges: Sequence[int], judge: Judge) -> Measurement:
    """Prompts that end at, just before and just after each edge (a page of the cache, a chunk of the prefill), and pass it
    while they are answered: the error of the generated tokens' log-probabilities over rounding's. Prompts are the sample.

    Raises:
        EngineError: no prompt is long enough for any edge.
    """
    lengths = [n for edge in edges for n in (edge - 2, edge - 1, edge, edge + 1) if n + STEPS < served.max_model_len]
    asks = [_ask(d.ids[:n]) for n in lengths for d in [d for d in documents if len(d.ids) >= n][:EACH]]
    if not asks:
        raise EngineError(
            f"no text of the card reaches {min(edges)} tokens, where something in the server changes",
            mend="give longer texts under [prompts], or other lengths under [serving] boundaries",
        )
    told = _asked(served, "at a boundary", asks, together=4)
    return answer_errors("boundaries.noise_ratio", told, judge, edges=list(edges))


def parallel(served: Served, documents: Sequence[Document], judge: Judge) -> Measurement:
    """Short prompts alone and at once, to a model that is split over several devices."""
    alone, together = PARALLEL
    prompts = [_ask(ids) for ids in windows(documents, SHORT, max(PARALLEL))]
    told = _asked(served, "alone", prompts[:alone]) + _asked(
        served, f"{together} at once", prompts[:together], together
    )
    return deviations("parallel.deviations", told, judge)


def parallel_errors(served: Served, documents: Sequence[Document], judge: Judge) -> Measurement:
    """The error of answers' log-probabilities over rounding's, of a model that is split over several devices."""
    prompts = [_ask(ids) for ids in windows(documents, SHORT, max(PARALLEL))]
    return answer_errors("parallel.noise_ratio", _asked(served, "at once", prompts, len(prompts)), judge)


def answer_errors(metric: str, told: Sequence[Told], judge: Judge, **data: Any) -> Measurement:
    """The error of the generated tokens' log-probabilities over rounding's; prompts are the sample. Unusable where an answer
    is lost or has no log-probabilities."""
    own, noise, rows = [], [], []
    for one in told:
        if one.answer.error or len(one.answer.logprobs) != len(one.answer.ids):
            return Measurement.unusable(metric, one.answer.error or f"{one.name}: no log-probabilities")
        errors, members = judge.logprob_errors(one.ask.ids, one.answer.ids, one.answer.logprobs)
        own.append(float(errors.sum()))
        noise.append({name: float(found.sum()) for name, found in members.items()})
        rows.append((len(one.ask.ids), own[-1]))
    loudest = max(noise[0], key=lambda name: sum(found[name] for found in noise))
    members_sum = np.array([found[loudest] for found in noise])
    estimate = log_ratio_of_sums(own, members_sum)
    by_length = {n: sum(v for m, v in rows if m == n) / sum(x for (m, _), x in zip(rows, members_sum, strict=True) if m == n)
                 for n in dict.fromkeys(n for n, _ in rows)}  # fmt: skip
    worst = sorted((Row(f"prompts of {n} tokens", v) for n, v in by_length.items()), key=lambda row: -row.value)
    return Measurement(
        metric, estimate.value, n=len(told), of="prompts", interval=(estimate.low, estimate.high),
        rows=tuple(worst[:MAX_ROWS]), data={"rows_total": len(worst), **data},
    )  # fmt: skip


def context(served: Served, documents: Sequence[Document], judge: Judge) -> Measurement:
    """Prompts of one token less than the server takes, of as many, and of one more: the first is answered with one token,
    the others are refused. A server that cuts them and says nothing answers another question. Above ``JUDGED`` tokens the answer
    must only come, with the count of its prompt; ``data`` says whether the reference judged it."""
    longest = served.max_model_len
    every = [i for d in documents for i in d.ids]
    ids = tuple((every * (longest // len(every) + 2))[: longest + 1])
    fits, full, over = served.complete([Ask(ids[:n], 1, ignore_eos=True) for n in (longest - 1, longest, longest + 1)])
    rows = []
    told = Told(f"{longest - 1} tokens", Ask(ids[: longest - 1], 1, ignore_eos=True), fits)
    if longest > JUDGED:
        rows += [Row(told.name, 1.0, fits.error)] if fits.error else []
    elif row := _wrong(told, judge):
        rows.append(row)
    if fits.prompt_tokens != longest - 1 and not fits.error:
        rows.append(Row(f"{longest - 1} tokens", 1.0, f"usage says {fits.prompt_tokens} tokens of the prompt"))
    for answer, n in ((full, longest), (over, longest + 1)):
        if not answer.error:
            rows.append(Row(f"{n} tokens", 1.0, f"answered, where {longest} is the limit: cut without a word"))
        elif not answer.error.startswith("status"):
            rows.append(Row(f"{n} tokens", 1.0, f"not refused, but lost: {answer.error}"))
    data = {"max_model_len": longest, "judged": longest <= JUDGED, "refusal": full.error[:300]}
    return Measurement.counted("context.wrong", rows, n=3, of="lengths", **data)
