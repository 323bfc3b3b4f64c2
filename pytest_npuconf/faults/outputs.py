"""Faults behind the last module of the decoder: in what it hands to the head. No module alone is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytest_npuconf.devices.base import import_torch
from pytest_npuconf.faults import anatomy
from pytest_npuconf.faults.base import Injector
from pytest_npuconf.faults.patching import arguments_hook, is_whole_pass, look

PERIOD = 997  # a prime: one token id in so many


def scaled(factor: float) -> Injector:
    """The final states are multiplied by ``1 + factor`` on their way to the head: every answer at another temperature."""
    return scaled_past(factor, 0)


def scaled_past(factor: float, start: int) -> Injector:
    """The same of the rows from ``start`` on: the best token stays what it is."""

    def change(states: Any, _ids: Any, rows: Any, _head: Any) -> Any:
        return (states.float() * (1 + factor * (rows >= start).float())[..., None]).to(states.dtype)

    return _handed_over(change)


def trace_of_the_next(strength: float) -> Injector:
    """The logit of the token that comes next in the request itself is ``strength`` too high: what lies ahead has leaked."""

    def change(states: Any, ids: Any, _rows: Any, head: Any) -> Any:
        ahead = head[ids[:, 1:]].float()
        trace = strength * ahead / ahead.square().sum(-1, keepdim=True)
        wrong = states.float()
        wrong[:, :-1] += trace
        return wrong.to(states.dtype)

    return _handed_over(change)


def of_the_token_before(rest: int) -> Injector:
    """Positions whose token id leaves ``rest`` when divided by 997 have the state of the position before."""

    def change(states: Any, ids: Any, _rows: Any, _head: Any) -> Any:
        torch = import_torch()
        before = torch.cat((states[:, :1], states[:, :-1]), dim=1)
        return torch.where((ids % PERIOD == rest)[..., None], before, states)

    return _handed_over(change)


def _handed_over(change: Callable[[Any, Any, Any, Any], Any]) -> Injector:
    """``change(states, ids, rows, head)`` on the final states ``(batch, positions, channels)`` of each pass through the layers;
    ``rows``, shape ``(positions,)``, count what is in the cache too; ``head`` is the weight that makes the logits,
    ``(vocabulary, channels)``."""

    def inject(model: Any) -> None:
        asked: list[Any] = []

        def before(arguments: dict[str, Any]) -> None:
            asked[:] = [arguments.get("input_ids"), look(arguments).rows[:, 0]]

        def after(_module: Any, _args: Any, output: Any) -> None:
            if asked[0] is not None and is_whole_pass(model):
                head = model.get_output_embeddings().weight
                output.last_hidden_state = change(output.last_hidden_state, asked[0], asked[1], head)

        decoder = anatomy.decoder(model)
        arguments_hook(decoder, before)
        decoder.register_forward_hook(after)

    return inject
