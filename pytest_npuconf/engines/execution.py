"""Where the ops of a model really run: each that torch dispatches in a short pass and a few decode steps, its tensors' devices, and
whether the device has a kernel for it at all.

A device without a kernel may have the CPU compute the op: torch_npu does, by a fallback of the dispatcher, and says so once per
process on stderr, past Python's warnings (``npu_cpu_fallback``, torch_npu/csrc/aten/VariableFallbackKernel.cpp, 2.9.0). The
dispatcher's own table says it every time, so that is asked.
"""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_npuconf.devices.base import import_torch

PREFILL, DECODED = 24, 2  # tokens: enough for every op of a layer, too few to cost anything
FALLBACK, COMPOSED = "[backend fallback]", "[default backend kernel]"
BY_FALLBACK = "the device has no kernel for it: the dispatcher falls back to the CPU"


@dataclass(frozen=True)
class Elsewhere:
    """An op that did not run where it was asked to: how often, ``why`` in words, and the first ``module`` that called it."""

    op: str
    calls: int
    why: str
    module: str


@dataclass(frozen=True)
class Executed:
    """``calls``: how often each op was dispatched; ``device``: the type that was asked for."""

    device: str
    calls: dict[str, int]
    elsewhere: tuple[Elsewhere, ...]


def execute(model: Any, ids: Sequence[int], device: Any) -> Executed:
    """Run at most ``PREFILL`` ids in one pass and ``DECODED`` more with the cache, if the model has one; watch every op.

    An op ran elsewhere when the dispatcher has only a fallback for it, or when a tensor of more than one element among its
    arguments or results is on another device.
    """
    torch = import_torch()
    ids = list(ids)[: PREFILL + DECODED]
    prefill = max(1, len(ids) - DECODED)
    tokens = torch.tensor([ids], device=device)
    inside: list[str] = []
    watch = _watch_class()(device.type, inside)
    # not inference mode: there an op that is made of others would be seen whole, and its parts not at all
    with torch.no_grad(), _told_modules(model, inside), watch:
        output = model(input_ids=tokens[:, :prefill], use_cache=True)
        for i in range(prefill, len(ids)):
            if (cache := getattr(output, "past_key_values", None)) is None:
                break
            output = model(input_ids=tokens[:, i : i + 1], past_key_values=cache, use_cache=True)
    elsewhere = [Elsewhere(op, n, why, watch.first[op, why]) for (op, why), n in watch.elsewhere.most_common()]
    return Executed(device.type, dict(watch.calls), tuple(elsewhere))


def falls_back(op: Any, key: str) -> bool:
    """Whether the dispatcher has no kernel of this device for ``op`` (a torch overload), nor for the op that it is made of: a
    structured op is computed by its ``out`` form. ``key``: a dispatch key's name."""
    line = _line(op.name(), key)
    if FALLBACK in line:
        return True
    if COMPOSED not in line:
        return False
    return any(FALLBACK in _line(form.name(), key) for form in _out_forms(op))


@functools.cache
def _watch_class() -> Any:
    torch = import_torch()
    from torch.utils._python_dispatch import TorchDispatchMode

    class Watch(TorchDispatchMode):  # type: ignore[misc]
        """Counts ops, and those elsewhere by name and reason."""

        def __init__(self, asked: str, inside: list[str]) -> None:
            super().__init__()
            self._asked, self._inside = asked, inside
            self._key = str(torch._C._dispatch_key_for_device(asked))
            self._known: dict[Any, bool] = {}
            self.calls: Counter[str] = Counter()
            self.elsewhere: Counter[tuple[str, str]] = Counter()
            self.first: dict[tuple[str, str], str] = {}

        def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = op(*args, **(kwargs or {}))
            name = op.name()
            self.calls[name] += 1
            tensors = list(_tensors((args, kwargs, result)))
            found = sorted({t.device.type for t in tensors if t.numel() > 1} - {self._asked})
            reasons = [f"a tensor of it is on {', '.join(found)}"] if found else []
            if op not in self._known:
                self._known[op] = falls_back(op, self._key)
            reasons += [BY_FALLBACK] if self._known[op] and tensors else []
            for why in reasons:
                self.elsewhere[name, why] += 1
                self.first.setdefault((name, why), self._inside[-1] if self._inside else "")
            return result

    return Watch


@contextlib.contextmanager
def _told_modules(model: Any, inside: list[str]) -> Iterator[None]:
    """Keeps the names of the modules that are running in ``inside``, innermost last."""

    def enter(name: str) -> Any:
        return lambda *_: inside.append(name)

    def leave(*_: Any) -> None:
        inside.pop()

    handles = []
    for name, module in model.named_modules():
        handles += [
            module.register_forward_pre_hook(enter(name), prepend=True),
            module.register_forward_hook(leave, always_call=True),
        ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tensors(value: Any) -> Iterator[Any]:
    if isinstance(value, import_torch().Tensor):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)


def _line(name: str, key: str) -> str:
    """The dispatcher's line for one key: which kernel it is."""
    table: str = import_torch()._C._dispatch_dump_table(name)
    return next((line for line in table.splitlines() if line.startswith(f"{key}:")), "")


def _out_forms(op: Any) -> list[Any]:
    """Overloads that take what ``op`` takes and write into ``out``."""

    def taken(overload: Any) -> list[tuple[str, str]]:
        return [(a.name, str(a.type)) for a in overload._schema.arguments if not a.is_out]

    packet = op.overloadpacket
    forms = [getattr(packet, name) for name in packet.overloads()]
    return [f for f in forms if any(a.is_out for a in f._schema.arguments) and taken(f) == taken(op)]
