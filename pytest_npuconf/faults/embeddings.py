"""Faults between the modules: in the decoder's own code, where no module alone is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytest_npuconf.faults import anatomy
from pytest_npuconf.faults.base import Injector
from pytest_npuconf.faults.patching import arguments_hook, is_whole_pass, look, running

SHARD = 16  # parts of the vocabulary


def scaled_past(factor: float, start: int) -> Injector:
    """The decoder multiplies the embeddings of the positions from ``start`` on by ``1 + factor``."""
    return _scaled(factor, lambda _, arguments: (look(arguments).rows[:, 0] >= start)[None])


def scaled_shard(factor: float) -> Injector:
    """The decoder multiplies the embeddings of the first sixteenth of the vocabulary, one shard of it, by ``1 + factor``."""

    def rule(model: Any, arguments: dict[str, Any]) -> Any:
        return arguments["input_ids"] < model.config.vocab_size // SHARD

    return _scaled(factor, rule)


def _scaled(factor: float, rule: Callable[[Any, dict[str, Any]], Any]) -> Injector:
    def inject(model: Any) -> None:
        embed = model.get_input_embeddings()

        def change(arguments: dict[str, Any]) -> None:
            if arguments.get("input_ids") is None or not is_whole_pass(model):
                return
            states = embed(arguments["input_ids"])
            wrong = states.float() * (1 + factor * rule(model, arguments).float())[..., None]
            arguments["inputs_embeds"] = wrong.to(states.dtype)
            arguments["input_ids"] = None

        arguments_hook(anatomy.decoder(model), change)

    return inject


def scaled_residual(factor: float) -> Injector:
    """The decoder multiplies what it hands from the last layer but one to the last by ``1 + factor``."""

    def inject(model: Any) -> None:
        inside = running(anatomy.decoder(model))

        def change(arguments: dict[str, Any]) -> None:
            if inside():
                states = arguments["hidden_states"]
                arguments["hidden_states"] = (states.float() * (1 + factor)).to(states.dtype)

        arguments_hook(anatomy.layers(model)[-1], change)

    return inject
