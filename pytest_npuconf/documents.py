"""Documents: the texts that a card gives, with the token ids of its model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pytest_npuconf.cards.schema import Card

KINDS = ("prompt", "hidden", "text")


@dataclass(frozen=True)
class Document:
    """A named text with its token ids. ``kind``: ``prompt`` (of the logits), ``hidden`` (of the hidden states) or ``text``
    (of the perplexity)."""

    name: str
    kind: str
    text: str
    ids: tuple[int, ...]

    def place(self, position: int) -> str:
        """``prompt 2 position 3``: the position whose logits predict the next token."""
        return f"{self.name} position {position}"


def named_layers(card: Card, count: int) -> tuple[str, ...]:
    """Modules whose outputs are compared as hidden states: the card's, else the first, middle and last of ``count`` layers
    and the final norm."""
    return card.hidden_layers or tuple(dict.fromkeys([*(f"layers.{i}" for i in (0, count // 2, count - 1)), "norm"]))


def documents_of(card: Card, tokenize: Callable[[str], Sequence[int]]) -> list[Document]:
    """The card's prompts, inputs and texts, in this order, with their token ids."""
    kinds = zip(KINDS, (card.logits_prompts, card.hidden_inputs, card.perplexity_texts), strict=True)
    return [
        Document(prompt.name, kind, prompt.text, tuple(tokenize(prompt.text)))
        for kind, prompts in kinds
        for prompt in prompts
    ]
