"""Faults of the attention mask, where masks are made: in the decoder."""

from __future__ import annotations

from typing import Any

from pytest_npuconf.errors import FaultError
from pytest_npuconf.faults import anatomy
from pytest_npuconf.faults.patching import Call, arguments_hook, is_whole_pass, look, remake_mask, seen_with_padding

SINK = 16  # from this position on the first token is no longer seen
WINDOW = 256


def one_ahead(model: Any) -> None:
    """Each position sees the next one."""
    remake_mask(model, lambda call: seen_with_padding(call, call.keys <= call.rows + 1))


def self_excluded(model: Any) -> None:
    """No position sees itself; the first has nothing else."""
    remake_mask(model, lambda call: seen_with_padding(call, call.keys < call.rows))


def sink_dropped(model: Any) -> None:
    """The first token, on which attention rests, is not seen any more from position 16 on."""

    def rule(call: Call) -> Any:
        return seen_with_padding(call, call.causal & ((call.keys > 0) | (call.rows < SINK)))

    remake_mask(model, rule)


def window_imposed(model: Any) -> None:
    """A window of 256 positions where the model has full attention."""
    remake_mask(model, lambda call: seen_with_padding(call, call.causal & (call.keys > call.rows - WINDOW)))


def left_over(model: Any) -> None:
    """The mask of the request before stays: keys beyond its length are not seen, but for a position's own."""
    lengths = {"before": 0, "now": 0}

    def rule(call: Call) -> Any:
        length = call.keys.shape[1]
        if is_whole_pass(model):
            if call.past == 0:
                lengths["before"] = lengths["now"]
            lengths["now"] = length
        if lengths["before"] == 0:
            return seen_with_padding(call, call.causal)
        return seen_with_padding(call, call.causal & ((call.keys < lengths["before"]) | (call.keys == call.rows)))

    remake_mask(model, rule)


def _window(model: Any) -> int:
    window = getattr(model.config, "sliding_window", None)
    if not window or not getattr(model.config, "use_sliding_window", True):
        raise anatomy.none_of(model, "no sliding window")
    return int(window)


def window_ignored(model: Any) -> None:
    """Layers with a sliding window see everything."""
    _window(model)
    model.config.sliding_window = model.config.max_position_embeddings * 2


def window_short(model: Any) -> None:
    """The sliding window is one position too small."""
    window = _window(model)
    if window < 2:
        raise FaultError(f"{type(model).__name__} has a window of {window}, which cannot be smaller")
    model.config.sliding_window = window - 1


def pad_side(model: Any) -> None:
    """The padding mask is made for the other side."""

    def rule(call: Call) -> Any:
        return call.causal if call.padding is None else call.causal[None] & call.padding.flip(1)[:, None]

    remake_mask(model, rule)


def pads_seen(model: Any) -> None:
    """Padding is not masked."""
    remake_mask(model, lambda call: call.causal)


def left_pad_positions(model: Any) -> None:
    """Positions count the padding on the left."""

    def change(arguments: dict[str, Any]) -> None:
        call = look(arguments)
        if call.padding is not None:
            arguments["position_ids"] = call.rows.T.expand(call.batch, -1)

    anatomy.rotaries(model)
    arguments_hook(anatomy.decoder(model), change)
