"""Faults of the key/value cache, in pages of 128 tokens; a pass without cached keys is whole."""

from __future__ import annotations

from typing import Any

from pytest_npuconf.devices.base import import_torch
from pytest_npuconf.faults import anatomy
from pytest_npuconf.faults.base import Injector
from pytest_npuconf.faults.patching import arguments_hook, look, wrap_attention

PAGE = 128


def _change_cached(model: Any, change: Any) -> None:
    """``change(state, key, value, past)`` returns the keys and values that attention is given; ``past`` is how many of them
    were cached before this call, and ``state`` is kept for each layer."""

    def wrap(module: Any) -> None:
        state: dict[str, Any] = {}

        def around(call: Any, query: Any, key: Any, value: Any, mask: Any, **kwargs: Any) -> Any:
            key, value = change(state, key, value, key.shape[2] - query.shape[2])
            return call(query, key, value, mask, **kwargs)

        wrap_attention(module, around)

    for module in anatomy.attentions(model):
        wrap(module)


def lost_page(model: Any) -> None:
    """The first page was never written: zeros."""

    def change(_state: Any, key: Any, value: Any, past: int) -> tuple[Any, Any]:
        if past:
            key, value = key.clone(), value.clone()
            key[:, :, : min(PAGE, past)], value[:, :, : min(PAGE, past)] = 0, 0
        return key, value

    _change_cached(model, change)


def stale_page(model: Any) -> None:
    """The first page is what the request before left there; zeros where there was none."""
    torch = import_torch()

    def change(state: Any, key: Any, value: Any, past: int) -> tuple[Any, Any]:
        if not past:
            state["old"] = state.get("new")
            state["new"] = key[:1, :, :PAGE].clone(), value[:1, :, :PAGE].clone()
            return key, value
        size = min(PAGE, past)

        def overlay(whole: Any, old: Any) -> Any:
            whole, kept = whole.clone(), torch.zeros_like(whole[:1, :, :size])
            if old is not None:
                kept[:, :, : old.shape[2]] = old[:, :, :size]
            whole[:, :, :size] = kept
            return whole

        old = state.get("old") or (None, None)
        return overlay(key, old[0]), overlay(value, old[1])

    _change_cached(model, change)


def swapped_values(model: Any) -> None:
    """The first two pages of the values, not of the keys, have changed places."""

    def change(_state: Any, key: Any, value: Any, past: int) -> tuple[Any, Any]:
        return key, _swap(value) if past >= 2 * PAGE else value

    _change_cached(model, change)


def swapped_pages(model: Any) -> None:
    """The first two pages of keys and values together have changed places."""

    def change(_state: Any, key: Any, value: Any, past: int) -> tuple[Any, Any]:
        return (_swap(key), _swap(value)) if past >= 2 * PAGE else (key, value)

    _change_cached(model, change)


def _swap(whole: Any) -> Any:
    torch = import_torch()
    return torch.cat((whole[:, :, PAGE : 2 * PAGE], whole[:, :, :PAGE], whole[:, :, 2 * PAGE :]), dim=2)


def boundary_lost(model: Any) -> None:
    """The first slot of each page but the first is not written while decoding."""

    def change(state: Any, key: Any, value: Any, past: int) -> tuple[Any, Any]:
        if not past:
            state["prefill"] = key.shape[2]
            return key, value
        slots = [s for s in range(PAGE, past, PAGE) if s >= state.get("prefill", 0)]
        if slots:
            key, value = key.clone(), value.clone()
            key[:, :, slots], value[:, :, slots] = 0, 0
        return key, value

    _change_cached(model, change)


def full_page(model: Any) -> None:
    """The first token behind a prompt that fills its last page to the brim is not written: its page is taken one step late."""

    def change(state: Any, key: Any, value: Any, past: int) -> tuple[Any, Any]:
        if not past:
            state["prompt"] = key.shape[2]
            return key, value
        slot = state.get("prompt", 0)
        if slot and slot % PAGE == 0 and past > slot:
            key, value = key.clone(), value.clone()
            key[:, :, slot], value[:, :, slot] = 0, 0
        return key, value

    _change_cached(model, change)


def chunk_mask(model: Any) -> None:
    """Several tokens behind cached ones see as if the first of them stood on the first key: the mask is aligned to the top
    left. A call without cached keys, and one of a single token, are whole."""
    torch = import_torch()

    def around(call: Any, query: Any, key: Any, value: Any, mask: Any, **kwargs: Any) -> Any:
        queries, keys = query.shape[2], key.shape[2]
        if 1 < queries < keys:
            hidden = torch.ones((queries, keys), dtype=torch.bool, device=query.device).triu(1)
            mask = torch.zeros((queries, keys), dtype=query.dtype, device=query.device)
            mask = mask.masked_fill(hidden, torch.finfo(query.dtype).min)[None, None]
        return call(query, key, value, mask, **kwargs)

    for module in anatomy.attentions(model):
        wrap_attention(module, around)


def decode_slots(model: Any) -> None:
    """Decode steps of a left-padded batch take slots, which count the padding, where the prefill took positions."""

    def change(arguments: dict[str, Any]) -> None:
        call = look(arguments)
        if call.past and call.padding is not None and not bool(call.padding.all()):
            arguments["position_ids"] = call.rows.T.expand(call.batch, -1)

    anatomy.rotaries(model)
    arguments_hook(anatomy.decoder(model), change)


def decode_ahead(positions: int = 1) -> Injector:
    """Decode steps take the positions that many ahead of where they are."""

    def inject(model: Any) -> None:
        def change(arguments: dict[str, Any]) -> None:
            call = look(arguments)
            if call.past:
                given = arguments.get("position_ids")
                arguments["position_ids"] = (call.rows.T if given is None else given) + positions

        anatomy.rotaries(model)
        arguments_hook(anatomy.decoder(model), change)

    return inject
