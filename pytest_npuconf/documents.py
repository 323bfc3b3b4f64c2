"""Documents: the texts that a card gives, with the token ids of its model and the positions that are looked at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from pytest_npuconf.cards.schema import Card, Prompt
from pytest_npuconf.precisions import Precision

KINDS = ("prompt", "hidden", "text", "document")
# Buckets of positions, and how much of one is looked at. A page of a paged KV cache has 128 tokens.
BUCKETS = (0, 16, 64, 128, 256, 512)
WINDOW = 16
WIDE = 64  # a bucket this wide is looked at from both ends
Runs = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Document:
    """A named text with its token ids. ``kind``: ``prompt`` (of the logits), ``hidden`` (of the hidden states), ``text``
    (of the perplexity) or ``document`` (of the positions). ``looked``: runs ``(start, stop)`` of the positions whose logits
    are compared whole, in order; all of them when none is given."""

    name: str
    kind: str
    text: str
    ids: tuple[int, ...]
    looked: Runs = field(default=())

    @property
    def runs(self) -> Runs:
        """``looked``, or the whole document as one run."""
        return self.looked or ((0, len(self.ids)),)

    @property
    def positions(self) -> tuple[int, ...]:
        """The positions that are looked at: one row of logits each."""
        return _positions(self.runs)

    @property
    def rest(self) -> Runs:
        """Runs of the other positions: of each of these only the best token is compared."""
        edges = [0, *(edge for run in self.runs for edge in run), len(self.ids)]
        return tuple((start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True) if start < stop)

    @property
    def rest_positions(self) -> tuple[int, ...]:
        """The positions of :attr:`rest`, in order."""
        return _positions(self.rest)

    def place(self, position: int) -> str:
        """``prompt 2 position 3``: the position whose logits predict the next token."""
        return f"{self.name} position {position}"

    def place_of_row(self, row: int) -> str:
        """The same of a row of the looked positions."""
        return self.place(self.positions[row])

    def place_of_rest(self, row: int) -> str:
        """The same of a row of the other positions."""
        return self.place(self.rest_positions[row])


def _positions(runs: Runs) -> tuple[int, ...]:
    return tuple(p for start, stop in runs for p in range(start, stop))


def windows(length: int) -> Runs:
    """What is looked at of a text of ``length`` tokens: the last tokens of a short one; of a longer one the end of each
    bucket of positions, and the beginning of each wide one: 64, and where a cache has turned the page."""
    if length <= BUCKETS[2]:
        return ((max(0, length - WINDOW), length),) if length > WINDOW + 1 else ((0, length),)
    runs: list[tuple[int, int]] = []
    for first, last in pairwise((*BUCKETS, max(length, BUCKETS[-1] + 1))):
        end = min(last, length)
        if end <= first:
            break
        if last - first >= WIDE and end - first > 2 * WINDOW:
            runs.append((first, first + WINDOW))
        runs.append((max(first, end - WINDOW), end))
    return tuple(runs)


def bucket_of(position: int) -> str:
    """``128-255``, ``512-``: the name of a position's bucket."""
    first = max(edge for edge in BUCKETS if edge <= position)
    index = BUCKETS.index(first)
    return f"{first}-{BUCKETS[index + 1] - 1}" if index + 1 < len(BUCKETS) else f"{first}-"


def for_pair(documents: Sequence[Document], pair: Precision) -> list[Document]:
    """The documents that a precision pair is judged on: two roundings of one low dtype are compared on the card's own short
    texts only, because their long rows would double what is stored and the pair is the weakest of all."""
    if pair.candidate == pair.reference != "float32":
        return [d for d in documents if d.kind != "document"]
    return list(documents)


def named_layers(card: Card, count: int) -> tuple[str, ...]:
    """Modules whose outputs are compared as hidden states: the card's, else the first, middle and last of ``count`` layers
    and the final norm."""
    return card.hidden_layers or tuple(dict.fromkeys([*(f"layers.{i}" for i in (0, count // 2, count - 1)), "norm"]))


def documents_of(card: Card, tokenize: Callable[[str], Sequence[int]], context: int | None = None) -> list[Document]:
    """The card's prompts, inputs, texts and documents, in this order, with their token ids.

    Args:
        context: tokens that the model can take; a document of the positions is cut to it.
    """
    kinds = zip(KINDS, (card.logits_prompts, card.hidden_inputs, card.perplexity_texts, card.long_texts), strict=True)
    return [
        _long(prompt, tokenize(prompt.text), context)
        if kind == "document"
        else Document(prompt.name, kind, prompt.text, tuple(tokenize(prompt.text)))
        for kind, prompts in kinds
        for prompt in prompts
    ]


def _long(prompt: Prompt, ids: Sequence[int], context: int | None) -> Document:
    cut = tuple(ids[: min(n for n in (prompt.tokens, context, len(ids)) if n is not None)])
    return Document(prompt.name, "document", prompt.text, cut, windows(len(cut)))
