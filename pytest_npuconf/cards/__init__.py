"""Cards: what a model is, what its documents claim, and what is required of it."""

from pytest_npuconf.cards.loading import card_folders, find_card, known_cards, load_card
from pytest_npuconf.cards.schema import (
    Card,
    Claim,
    ClaimGate,
    GateOverride,
    Message,
    Prompt,
    Sample,
    TokenProbe,
    Waiver,
    WeightsSource,
)

__all__ = [
    "Card",
    "Claim",
    "ClaimGate",
    "GateOverride",
    "Message",
    "Prompt",
    "Sample",
    "TokenProbe",
    "Waiver",
    "WeightsSource",
    "card_folders",
    "find_card",
    "known_cards",
    "load_card",
]
