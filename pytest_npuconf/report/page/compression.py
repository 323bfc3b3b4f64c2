"""Size against quality: the weights' bytes and the perplexity of every model and run on the page that looked at the same tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pytest_npuconf.records import Record
from pytest_npuconf.report.pictures.drawing import FIRST, Picture, draw_picture, shortened
from pytest_npuconf.report.reading import Results
from pytest_npuconf.report.run import run_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OVERFLOW = 700.0  # nats a token; exp overflows float64 at 709
Point = tuple[str, float, float]  # words, bytes of the weights, perplexity
Tokens = tuple[tuple[str, int], ...]


def compression(runs: Sequence[tuple[str, Results]], key: str) -> Picture | None:
    """The picture, where at least two sizes of weights have the perplexity of the same texts in the same tokens (of other tokens it
    is no better and no worse). None elsewhere."""
    found: dict[Tokens, dict[Point, None]] = {}
    for name, results in runs:
        for model in results["models"]:
            for tokens, point in _points(model, results, name if len(runs) > 1 else ""):
                found.setdefault(tokens, {})[point] = None
    points = max(found.values(), key=lambda each: len({size for _, size, _ in each}), default={})
    if len({size for _, size, _ in points}) < 2:
        return None
    ordered = sorted(points, key=lambda point: point[1])

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for words, size, quality in ordered:
            axes.plot(size / 1e9, quality, "o", color=FIRST)
            axes.annotate(
                shortened(words), (size / 1e9, quality), textcoords="offset points", xytext=(6, 4), fontsize=8
            )
        axes.set(xlabel="weights (GB)", ylabel="perplexity of the candidate")
        axes.margins(x=0.25, y=0.2)

    return draw_picture(
        key,
        "Size against quality",
        "Bytes of the weight files, and the perplexity of the same tokens. Further left is smaller, further down is better.",
        ("model, precision", "weights (bytes)", "perplexity"),
        [(words, size, quality) for words, size, quality in ordered],
        draw,
    )


def _points(model: str, results: Results, run_name: str) -> Iterator[tuple[Tokens, Point]]:
    run = run_of(results, model)
    sizes = [record["value"] for record in run.of("model.weight_size") if record["value"]]
    for record in run.of("ppl.delta", "serving.perplexity") if sizes else ():
        texts = _texts(record)
        if texts and record["check"].endswith("_fp32"):
            nll, tokens = sum(t["candidate_nll"] for t in texts.values()), sum(t["tokens"] for t in texts.values())
            if not 0 <= nll / tokens < OVERFLOW:
                continue  # a model so broken has no perplexity; its checks say so
            which = tuple(sorted((name, t["tokens"]) for name, t in texts.items()))
            yield (
                which,
                (
                    ", ".join(filter(None, (model, record["precision"], run_name))),
                    float(sizes[0]),
                    math.exp(nll / tokens),
                ),
            )


def _texts(record: Record) -> dict[str, dict[str, Any]]:
    texts = record["data"].get("texts")
    usable = isinstance(texts, dict) and all(
        isinstance(t, dict) and _is_number(t.get("tokens")) and t["tokens"] > 0 and _is_number(t.get("candidate_nll"))
        for t in texts.values()
    )
    return texts if usable and isinstance(texts, dict) else {}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
