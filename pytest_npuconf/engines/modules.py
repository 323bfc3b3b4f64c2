"""The modules of a transformers model, one by one: the reference walks, others are fed with what it feeds.

Nothing of the walk is kept: a module's inputs and output are there while its hook runs.
"""

from __future__ import annotations

import contextlib
import copy
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_npuconf.devices.base import import_torch
from pytest_npuconf.engines.variants import BLOCKED
from pytest_npuconf.errors import EngineError
from pytest_npuconf.metrics.arrays import Float32

Visit = Callable[[str, tuple[Any, ...], dict[str, Any], Any], None]
LOGITS = "logits"  # stands for what the model does behind its decoder, its head among it
# Additive masks forbid with a number far below any score; a bias (ALiBi) stays above.
FORBIDDEN = -1e3
PERTURBED = 1 << 22  # elements perturbed at once
HEAD_ROWS = 64  # rows of logits held at once: 39 MB at 151,936 words


class ModuleMismatch(Exception):
    """A module that could not be fed: it is not there, or takes or gives something else."""


@dataclass(frozen=True)
class Own:
    """The candidate's own pass over one sequence. ``layers``: rows of each decoder layer's output, float32; ``masks``: which
    keys each layer's queries may see, shape ``(positions, positions)``, None for plainly causal; ``positions``: the position
    ids that each layer or rotary embedding got."""

    layers: dict[str, Float32] = field(default_factory=dict)
    masks: dict[str, NDArray[np.bool_] | None] = field(default_factory=dict)
    positions: dict[str, tuple[int, ...]] = field(default_factory=dict)


class ModuleRunner:
    """Feeds the modules of one model. ``dtype`` is a torch dtype's name, ``device`` a torch device."""

    def __init__(self, model: Any, dtype: str, device: Any) -> None:
        self.model, self.dtype, self.device = model, dtype, device
        self._modules: dict[str, Any] = dict(model.named_modules())
        self._mask_form = ""

    def module(self, name: str) -> Any:
        """The module of this name.

        Raises:
            ModuleMismatch: there is none.
        """
        if name not in self._modules:
            raise ModuleMismatch("the candidate has no module of this name")
        return self._modules[name]

    def feed(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The module's output for the reference's inputs, cast to this dtype and moved to this device.

        Raises:
            ModuleMismatch: there is no such module, or it does not take these inputs.
        """
        torch = import_torch()
        call = self._logits if name == LOGITS else self.module(name)
        given = [self._cast(value) for value in args]
        named = {key: self._named(key, value, args, kwargs) for key, value in kwargs.items()}
        with torch.inference_mode():
            try:
                return call(*given, **named)
            except torch.OutOfMemoryError:
                raise
            except (TypeError, ValueError, RuntimeError, AttributeError, IndexError, KeyError) as error:
                words = str(error).strip().partition("\n")[0]
                raise ModuleMismatch(
                    f"the candidate's module does not take these inputs: {type(error).__name__}: {words}"
                ) from error

    def own(self, ids: Sequence[int], layers: Sequence[str], rows: Sequence[int]) -> Own:
        """The model's own pass, no cache, batch 1; of each layer's output only ``rows`` are kept."""
        torch = import_torch()
        found, handles = Own(), []
        for name in layers:
            if name in self._modules:
                module = self._modules[name]
                handles.append(
                    module.register_forward_pre_hook(self._overheard(name, found), with_kwargs=True, prepend=True)
                )
                handles.append(module.register_forward_hook(_keep(name, found, rows)))
        for name, module in self._modules.items():
            if _is_rotary(module):
                handles.append(
                    module.register_forward_pre_hook(_positions(name, found), with_kwargs=True, prepend=True)
                )
        tokens = torch.tensor([list(ids)], device=self.device)
        try:
            with torch.inference_mode():
                self.model.base_model(input_ids=tokens, use_cache=False)
        finally:
            for handle in handles:
                handle.remove()
        return found

    def _overheard(self, name: str, found: Own) -> Any:
        def hook(_module: Any, args: Any, kwargs: dict[str, Any]) -> None:
            mask = kwargs.get("attention_mask")
            self._mask_form = "" if mask is None else ("bool" if not mask.is_floating_point() else "float")
            length = int((args[0] if args else kwargs["hidden_states"]).shape[1])
            found.masks[name] = allowed(mask, implementation(self.model), length)
            if kwargs.get("position_ids") is not None:
                found.positions[name] = tuple(kwargs["position_ids"].reshape(-1).tolist())

        return hook

    def _logits(self, hidden: Any) -> Any:
        torch = import_torch()
        with decoder_returning(self.model, hidden):
            tokens = torch.zeros((1, hidden.shape[1]), dtype=torch.long, device=self.device)
            return self.model(input_ids=tokens, use_cache=False).logits

    def _named(self, key: str, value: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if key != "attention_mask":
            return self._cast(value)
        first = args[0] if args else kwargs["hidden_states"]
        kind = implementation(self.model)
        return mask_for(value, kind, self._mask_form, first.shape[1], self.dtype, self.device)

    def _cast(self, value: Any) -> Any:
        torch = import_torch()
        if isinstance(value, torch.Tensor):
            floating = value.is_floating_point()
            return value.to(device=self.device, dtype=getattr(torch, self.dtype) if floating else value.dtype)
        if isinstance(value, (tuple, list)):
            return type(value)(self._cast(v) for v in value)
        if isinstance(value, dict):
            return {k: self._cast(v) for k, v in value.items()}
        # the reference's cache, if it made one, is not the candidate's to fill
        return None if hasattr(value, "get_seq_length") else value


class PerturbedRunner(ModuleRunner):
    """Feeds a module with inputs, parameters and buffers that are off by up to one unit in the last place.

    Wilkinson's backward error analysis: the rounded result is the exact one of slightly wrong data. It tells what rounding
    costs where there is no other order of summation (norms, rotary embedding, activations). Seeded by the module's name.
    """

    def feed(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        torch = import_torch()
        draw = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        spacing = torch.finfo(getattr(torch, self.dtype)).eps

        def moved(value: Any) -> Any:
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                result = torch.empty(value.shape, dtype=getattr(torch, self.dtype))
                for given, block in zip(
                    value.reshape(-1).split(PERTURBED), result.view(-1).split(PERTURBED), strict=True
                ):
                    factor = (2 * torch.rand(given.shape, generator=draw, dtype=torch.float64) - 1) * spacing
                    block.copy_(given.double() * (1 + factor))
                return result
            return type(value)(map(moved, value)) if isinstance(value, (tuple, list)) else value

        module = self.model if name == LOGITS else self.module(name)
        held = list(module.lm_head.parameters()) if name == LOGITS and hasattr(module, "lm_head") else []
        held = held or [
            t for t in (*module.parameters(), *module.buffers()) if name != LOGITS and t.is_floating_point()
        ]
        before = [tensor.data for tensor in held]
        given = tuple(moved(value) for value in args)
        named = {key: value if key == "attention_mask" else moved(value) for key, value in kwargs.items()}
        try:
            for tensor in held:
                tensor.data = moved(tensor.data)
            return super().feed(name, given, named)
        finally:
            for tensor, data in zip(held, before, strict=True):
                tensor.data = data


def replica(model: Any) -> Any:
    """The same model a second time on the same storage: its structure is copied, its weights are not. A variant or a
    perturbation put into it does not reach ``model``."""
    memo: dict[int, Any] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        twin = tensor.data.detach()
        memo[id(tensor)] = import_torch().nn.Parameter(twin, requires_grad=False) if _is_parameter(tensor) else twin
    return copy.deepcopy(model, memo)


def walk(model: Any, ids: Sequence[int], visit: Visit, rows: Sequence[int]) -> None:
    """One pass of the reference model over one sequence: ``visit(name, args, kwargs, output)`` at each module that computes,
    then behind the decoder for ``rows`` of its output only, some at a time; there the whole is called ``logits``."""
    torch = import_torch()
    decoder = model.base_model
    handles = []
    for name, module in model.named_modules():
        if module in (model, decoder) or isinstance(module, (torch.nn.ModuleList, torch.nn.ModuleDict)):
            continue
        handles.append(module.register_forward_hook(_visiting(name, visit), with_kwargs=True))
    tokens = torch.tensor([list(ids)], device=model.device)
    try:
        with torch.inference_mode():
            hidden = decoder(input_ids=tokens, use_cache=False).last_hidden_state
            for first in range(0, len(rows), HEAD_ROWS):
                part = hidden[:, list(rows[first : first + HEAD_ROWS])]
                with decoder_returning(model, part):
                    logits = model(input_ids=tokens[:, : part.shape[1]], use_cache=False).logits
                visit(LOGITS, (part,), {}, logits)
                del logits
    finally:
        for handle in handles:
            handle.remove()


def layer_names(model: Any) -> list[str]:
    """Names of the decoder's layers: the entries of its longest list of modules.

    Raises:
        EngineError: it has no such list.
    """
    torch = import_torch()
    lists = [(name, m) for name, m in model.named_modules() if isinstance(m, torch.nn.ModuleList) and len(m)]
    if not lists:
        raise EngineError(f"{type(model).__name__} has no list of layers, so its modules cannot be told apart")
    name, found = max(lists, key=lambda pair: len(pair[1]))
    return [f"{name}.{i}" for i in range(len(found))]


def row_outputs(output: Any, like: Any = None) -> list[Any]:
    """The tensors of a module's output that are compared: the first one, and others of a tuple that have its shape (cosine
    and sine of a rotary embedding). ``like``: the reference's, when the candidate gives more (attention weights)."""
    torch = import_torch()
    listed = list(output) if isinstance(output, (tuple, list)) else [output]
    if not listed or not isinstance(listed[0], torch.Tensor) or not listed[0].is_floating_point():
        return []
    same = [t for t in listed if isinstance(t, torch.Tensor) and t.shape == listed[0].shape and t.is_floating_point()]
    return same if like is None else same[: len(like)]


def as_rows(tensors: Sequence[Any]) -> Float32:
    """Shape ``(rows, channels)``, float32 on the host: a row is a position (or whatever the module takes one by one)."""
    torch = import_torch()
    flat = [
        t.reshape(t.shape[1], -1) if t.dim() > 2 and t.shape[0] == 1 else t.reshape(-1, t.shape[-1]) for t in tensors
    ]
    array: Float32 = torch.cat([t.float() for t in flat], dim=-1).cpu().numpy()
    return array


def implementation(model: Any) -> str:
    """Which attention the decoder makes its masks for: transformers' own word."""
    return str(getattr(model.base_model.config, "_attn_implementation", "") or "")


def allowed(mask: Any, kind: str, length: int) -> NDArray[np.bool_] | None:
    """Which keys each query may see, shape ``(positions, positions)``; None for plainly causal.

    A mask that is None means causal to every kernel but the eager one, which adds what it is given and forbids nothing.
    """
    causal = np.tri(length, dtype=bool)
    if mask is None:
        return None if kind != "eager" or length == 1 else np.ones((length, length), dtype=bool)
    seen = mask > FORBIDDEN if mask.is_floating_point() else mask.bool()
    if seen.dim() == 4:
        found = np.asarray(seen[..., :length, :length].all(dim=1)[0].cpu().numpy(), dtype=bool)
        some = np.asarray(seen[..., :length, :length].any(dim=1)[0].cpu().numpy(), dtype=bool)
        found = np.where(causal, found, some)  # of several heads, the one that is wrong counts
    else:
        found = causal & np.asarray(seen.reshape(-1)[-length:].cpu().numpy(), dtype=bool)
    return None if np.array_equal(found, causal) else found


def mask_for(mask: Any, kind: str, form: str, length: int, dtype: str, device: Any) -> Any:
    """The reference's mask as another attention takes it; a forbidden entry stays a finite number at every dtype.

    Args:
        kind: the attention that is to be fed; form: what an attention we do not know gets in the model's own pass:
            ``""`` for None, ``bool`` or ``float``.
    """
    torch = import_torch()
    if kind in ("eager", BLOCKED) or (kind not in ("sdpa",) and form == "float"):
        if mask is None and kind == BLOCKED:
            return None
        if mask is None:
            mask = torch.ones((1, 1, length, length), dtype=torch.bool).tril()
        number = getattr(torch, dtype)
        lowest = torch.finfo(number).min
        if not mask.is_floating_point():
            return torch.zeros(mask.shape, dtype=number).masked_fill(~mask.bool(), lowest).to(device)
        return mask.clamp(min=lowest).to(number).to(device)
    if mask is None or (kind != "sdpa" and form == "" and allowed(mask, "sdpa", length) is None):
        return None
    return (mask > FORBIDDEN if mask.is_floating_point() else mask.bool()).to(device)


@contextlib.contextmanager
def decoder_returning(model: Any, hidden: Any) -> Iterator[None]:
    """The model's decoder set aside: it returns ``hidden``. A forward that somebody put into it comes back afterwards."""
    from transformers.modeling_outputs import BaseModelOutputWithPast

    decoder = model.base_model
    before = decoder.__dict__.get("forward")
    decoder.forward = lambda *_, **__: BaseModelOutputWithPast(last_hidden_state=hidden)
    try:
        yield
    finally:
        del decoder.forward
        if before is not None:
            decoder.forward = before


def weights_differ(reference: Any, candidate: Any) -> str:
    """How a module's own weights differ from the reference's at the candidate's dtype, in words; empty when they do not."""
    words = []
    theirs = dict([*candidate.named_parameters(), *candidate.named_buffers()])
    for name, mine in (*reference.named_parameters(), *reference.named_buffers()):
        found = theirs.get(name)
        if found is None or found.shape != mine.shape:
            words.append(f"{name} is missing" if found is None else f"{name} has another shape")
            continue
        differs = (found.detach().cpu() != mine.detach().to(found.dtype)).reshape(
            max(1, mine.shape[0] if mine.dim() else 1), -1
        )
        rows = int(differs.any(dim=1).sum())
        if rows:
            words.append(f"{name}: {rows} of {differs.shape[0]} {'rows' if mine.dim() > 1 else 'elements'}")
    return f"differs from the checkpoint in {'; '.join(words)}" if words else ""


def _visiting(name: str, visit: Visit) -> Any:
    return lambda _module, args, kwargs, output: visit(name, args, kwargs, output)


def _keep(name: str, found: Own, rows: Sequence[int]) -> Any:
    def hook(_module: Any, _args: Any, output: Any) -> None:
        states = output[0] if isinstance(output, tuple) else output
        found.layers[name] = states[0, list(rows)].float().cpu().numpy()

    return hook


def _positions(name: str, found: Own) -> Any:
    def hook(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = kwargs.get("position_ids", args[1] if len(args) > 1 else None)
        if ids is not None:
            found.positions[name] = tuple(ids.reshape(-1).tolist())

    return hook


def _is_rotary(module: Any) -> bool:
    return hasattr(module, "inv_freq")


def _is_parameter(tensor: Any) -> bool:
    return isinstance(tensor, import_torch().nn.Parameter)
