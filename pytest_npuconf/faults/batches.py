"""Faults that show only in a batch, only past some row of a call, only on some calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytest_npuconf.devices.base import import_torch
from pytest_npuconf.faults import anatomy
from pytest_npuconf.faults.base import Injector
from pytest_npuconf.faults.patching import arguments_hook, before_rotation, look, output_hook, wrap_attention
from pytest_npuconf.faults.rotary import rotated

TILE = 256


def cross_talk(model: Any) -> None:
    """In the middle layer the first key/value head of each row of a batch is its neighbour's."""
    _talk(model, lambda: True)


def even_cross_talk(model: Any) -> None:
    """The same, of a batch without padding alone: there kernels take another way, without a mask."""
    even = [False]

    def note(arguments: dict[str, Any]) -> None:
        call = look(arguments)
        even[0] = call.batch > 1 and (call.padding is None or bool(call.padding.all()))

    arguments_hook(anatomy.decoder(model), note)
    _talk(model, lambda: even[0])


def _talk(model: Any, now: Callable[[], bool]) -> None:
    """While ``now()``, asked at each call of the middle layer's attention."""

    def around(call: Any, query: Any, key: Any, value: Any, mask: Any, **kwargs: Any) -> Any:
        if key.shape[0] > 1 and now():
            key, value = key.clone(), value.clone()
            key[:, 0], value[:, 0] = key[:, 0].roll(1, 0), value[:, 0].roll(1, 0)
        return call(query, key, value, mask, **kwargs)

    wrap_attention(anatomy.attention_of(anatomy.middle(model), model), around)


def last_row(model: Any) -> None:
    """The last row of a batch gets nothing from the middle layer's MLP."""

    def change(output: Any) -> Any:
        if output.shape[0] < 2:
            return None
        output = output.clone()
        output[-1] = 0
        return output

    output_hook(anatomy.middle_mlp(model), change)


def keys_by_slot(model: Any) -> None:
    """Of left-padded rows the keys are rotated by their slot, the queries by their position."""
    frequencies = anatomy.rotaries(model)[0].inv_freq
    pads: list[Any] = [None]

    def note(arguments: dict[str, Any]) -> None:
        call = look(arguments)
        left = None if call.padding is None else (~call.padding).long().cumprod(1).sum(1)
        pads[0] = None if left is None or not bool(left.any()) else left

    def change(heads: Any) -> Any:
        return heads if pads[0] is None else rotated(heads, frequencies, pads[0])

    def forget(*_: Any) -> None:
        pads[0] = None

    decoder = anatomy.decoder(model)
    arguments_hook(decoder, note)
    decoder.register_forward_hook(forget, always_call=True)
    for module in anatomy.attentions(model):
        before_rotation(module, "k", change)


def rows_past_tile(factor: float) -> Injector:
    """The middle layer's MLP is ``factor`` too big for the rows of a call past the 256th."""
    return _scaled_rows(TILE, None, 1 + factor)


def without_rows(first: int, count: int) -> Injector:
    """The middle layer's MLP leaves out ``count`` rows of a call, from the row ``first`` on."""
    return _scaled_rows(first, first + count, 0)


def _scaled_rows(first: int, stop: int | None, factor: float) -> Injector:
    """The middle layer's MLP is multiplied in these rows of a call that has them."""

    def inject(model: Any) -> None:
        def change(output: Any) -> Any:
            if output.shape[1] <= first:
                return None
            output = output.clone()
            output[:, first:stop] *= factor
            return output

        output_hook(anatomy.middle_mlp(model), change)

    return inject


def first_call(model: Any) -> None:
    """The middle layer's MLP returns zeros on the first call."""
    calls = [0]

    def change(output: Any) -> Any:
        calls[0] += 1
        return import_torch().zeros_like(output) if calls[0] == 1 else None

    output_hook(anatomy.middle_mlp(model), change)


def noise(relative: float) -> Injector:
    """The middle layer's MLP carries relative noise of this size that is another on each call, and the same in each
    process."""

    def inject(model: Any) -> None:
        torch = import_torch()
        generator = torch.Generator().manual_seed(0)

        def change(output: Any) -> Any:
            drawn = torch.randn(output.shape, generator=generator).to(output.device)
            return (output.float() * (1 + relative * drawn)).to(output.dtype)

        output_hook(anatomy.middle_mlp(model), change)

    return inject
