"""The candidate's modules against the reference's, each fed with the reference's input, over the yardstick's own error."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_npuconf.documents import Document
from pytest_npuconf.engines.modules import (
    LOGITS,
    ModuleMismatch,
    ModuleRunner,
    Own,
    allowed,
    as_rows,
    implementation,
    layer_names,
    row_outputs,
    walk,
    weights_differ,
)
from pytest_npuconf.errors import EngineError, NonFiniteError
from pytest_npuconf.metrics.arrays import Float32
from pytest_npuconf.metrics.modules import (
    BLOCK,
    UNIT_ROUNDOFF,
    ModuleRatio,
    Squares,
    block_starts,
    noise_ratio,
    squares,
    yardstick_squares,
)

MASK, POSITIONS = "attention_mask", "position_ids"  # what the decoder itself makes for its layers
LENGTHS = (48, 129, 513)  # late positions count, and the least that tells one channel's rounding to some 4 %
KEPT_ROWS = 128  # of a document, where the logits and the layers' own outputs are compared


@dataclass
class Collected:
    """What feeding one model gave. ``blocks``: of each module, the place of each of its blocks of rows; ``own``: of each
    layer, the sum over documents of its mean rel_l2 in the model's own pass; ``wrong``: of mask and position ids, how many
    entries differ; ``uncalled``: layers that the model's own pass leaves out."""

    modules: dict[str, Squares] = field(default_factory=dict)
    blocks: dict[str, list[str]] = field(default_factory=dict)
    unmatched: dict[str, str] = field(default_factory=dict)
    non_finite: dict[str, str] = field(default_factory=dict)
    own: dict[str, float] = field(default_factory=dict)
    wrong: dict[str, tuple[int, str]] = field(default_factory=dict)
    uncalled: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ModuleNoise:
    """What rounding alone costs in each module at ``dtype``, in the order in which the reference computes them, and of each
    layer in the model's own pass. ``reach``: positions that rotary embeddings are asked for."""

    dtype: str
    documents: tuple[Document, ...]
    reach: int
    modules: Mapping[str, Squares]
    own: Mapping[str, float]


@dataclass(frozen=True)
class ModuleComparison:
    """``ratios`` of the modules in the order in which the reference computes them; ``own``: each layer's error in the
    candidate's own pass over the yardstick's; ``places``: where a module's worst block lies; ``weights``: how a module's own
    weights differ, asked when it is needed. The other fields as in :class:`Collected`."""

    documents: tuple[Document, ...]
    ratios: Mapping[str, ModuleRatio]
    own: Mapping[str, float]
    places: Mapping[str, str]
    wrong: Mapping[str, tuple[int, str]]
    non_finite: Mapping[str, str]
    uncalled: Mapping[str, str]
    unmatched: Mapping[str, str]
    weights: Callable[[str], str] = lambda _: ""

    @property
    def positions(self) -> int:
        """Positions of all documents."""
        return sum(len(d.ids) for d in self.documents)


def module_documents(documents: Sequence[Document]) -> tuple[Document, ...]:
    """The documents nearest to ``LENGTHS`` tokens; those of kind ``document`` where there are any."""
    left = [d for d in documents if d.kind == "document"] or list(documents)
    chosen = []
    for length in LENGTHS:
        if left:
            chosen.append(min(left, key=lambda d: abs(len(d.ids) - length)))
            left = [d for d in left if d.ids != chosen[-1].ids]
    return tuple(chosen)


def measure_noise(
    documents: Sequence[Document], reference: Any, members: Mapping[str, ModuleRunner], dtype: str,
    announce: Callable[[str], None] = lambda _: None,
) -> ModuleNoise:  # fmt: skip
    """Feed the yardstick's members with :func:`module_documents` of these documents.

    Args:
        reference: the float32 model on the CPU.

    Raises:
        NonFiniteError: a member gives NaN or infinity: there is nothing to compare with.
        EngineError: the model cannot be taken apart, or a member's modules are not the reference's.
    """
    chosen, reach = module_documents(documents), max(len(d.ids) for d in documents)
    collected = collect(chosen, reference, members, reach, announce)
    for name, found in collected.items():
        for error, places in ((NonFiniteError, found.non_finite), (EngineError, found.unmatched)):
            for module, words in places.items():
                raise error(f"{module}, yardstick {name} at {dtype}: {words}: nothing to compare with")
    listed = list(collected.values())
    return ModuleNoise(
        dtype,
        chosen,
        reach,
        {module: yardstick_squares([c.modules[module] for c in listed]) for module in listed[0].modules},
        {layer: max(c.own[layer] for c in listed) for layer in listed[0].own},
    )


def compare_modules(
    reference: Any, candidate: ModuleRunner, noise: ModuleNoise, announce: Callable[[str], None] = lambda _: None
) -> ModuleComparison:
    """Feed the candidate's modules with the documents of ``noise``.

    Raises:
        EngineError: no module of the candidate could be matched with the reference's.
    """
    found = collect(noise.documents, reference, {"": candidate}, noise.reach, announce)[""]
    judged = {name: s for name, s in found.modules.items() if name not in found.non_finite | found.unmatched}
    if not judged and not found.non_finite:
        name, words = next(iter(found.unmatched.items()))
        raise EngineError(f"no module of the candidate matches the reference's: {name}: {words}")
    roundoff = UNIT_ROUNDOFF[noise.dtype]
    ratios = {
        name: noise_ratio(judged[name], noise.modules[name], roundoff) for name in noise.modules if name in judged
    }
    return ModuleComparison(
        noise.documents,
        ratios,
        {layer: _over(error, noise.own[layer]) for layer, error in found.own.items()},
        {name: found.blocks[name][ratio.worst_block] for name, ratio in ratios.items()},
        found.wrong,
        found.non_finite,
        found.uncalled,
        found.unmatched,
        lambda name: _weights_of(reference, candidate, name),
    )


def collect(
    documents: Sequence[Document],
    reference: Any,
    runners: Mapping[str, ModuleRunner],
    reach: int,
    announce: Callable[[str], None],
) -> dict[str, Collected]:
    """Walk the reference over each document and feed every runner with what it computes; rotary embeddings also with all
    positions below ``reach``, which costs next to nothing."""
    collected = {name: Collected() for name in runners}
    for number, document in enumerate(documents, start=1):
        announce(f"modules: {document.name}: {len(document.ids)} tokens ({number} of {len(documents)})")
        walked = _Walk(document, reference, runners, collected, reach if number == len(documents) else 0)
        walk(reference, document.ids, walked.visit, walked.rows)
    return collected


class _Walk:
    """One document: what the hooks do."""

    def __init__(
        self, document: Document, reference: Any, runners: Mapping[str, ModuleRunner],
        collected: Mapping[str, Collected], reach: int,
    ) -> None:  # fmt: skip
        self._document, self._reference, self._runners, self._collected = document, reference, runners, collected
        self.rows = kept_rows(len(document.ids))
        self._layers = layer_names(reference)
        self._own: dict[str, Own] = {n: r.own(document.ids, self._layers, self.rows) for n, r in runners.items()}
        self._head_rows, self._reach = 0, reach

    def visit(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        wanted = row_outputs(output)
        if not wanted:
            return
        expected = as_rows(wanted)
        places = self._places(name, expected.shape[0])
        for runner, collected in self._pairs():
            self._feed(runner, collected, name, args, kwargs, wanted, expected, places)
        if name in self._layers:
            self._follow(name, kwargs, expected)
        elif hasattr(self._module(name), "inv_freq"):
            self._rotary(name, args, kwargs)

    def _rotary(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        positions = kwargs.get("position_ids", args[1] if len(args) > 1 else None)
        if positions is None or positions.shape[-1] != len(self._document.ids):
            return
        self._compare_positions(name, positions)
        if self._reach > positions.shape[-1]:
            reach, self._reach = self._reach, 0  # calling the module ends in `visit` again
            all_of_them = positions.new_tensor([list(range(reach))])
            listed = (args[0], all_of_them, *args[2:]) if len(args) > 1 else args
            self._module(name)(*listed, **({**kwargs, "position_ids": all_of_them} if len(args) < 2 else kwargs))

    def _feed(
        self, runner: ModuleRunner, collected: Collected, name: str, args: tuple[Any, ...], kwargs: dict[str, Any],
        wanted: list[Any], expected: Float32, places: list[str],
    ) -> None:  # fmt: skip
        if name in collected.unmatched:
            return
        try:
            found = row_outputs(runner.feed(name, args, kwargs), wanted)
            if [tuple(t.shape) for t in found] != [tuple(t.shape) for t in wanted]:
                shapes = [tuple(t.shape) for t in found]
                raise ModuleMismatch(f"gives {shapes or 'no tensor'}, the reference {[tuple(t.shape) for t in wanted]}")
        except ModuleMismatch as error:
            collected.unmatched[name] = str(error)
            return
        given = as_rows(found)
        bad = ~np.isfinite(given).all(axis=1)
        if bad.any():
            kind = "NaN" if np.isnan(given).any() else "infinity"
            collected.non_finite.setdefault(
                name, f"{kind} at {places[bisect.bisect(block_starts(len(given)), int(np.argmax(bad))) - 1]}"
            )
        if name in collected.non_finite:
            return
        part = squares(given, expected)
        before = collected.modules.get(name)
        collected.modules[name] = part if before is None else before.joined(part)
        collected.blocks.setdefault(name, []).extend(places)

    def _follow(self, layer: str, kwargs: dict[str, Any], expected: Float32) -> None:
        """The same layer in each model's own pass: its error, and what the decoder gave it."""
        length = len(self._document.ids)
        mask = allowed(kwargs.get("attention_mask"), implementation(self._reference), length)
        reference = expected[self.rows].astype(np.float64)
        scale = np.linalg.norm(reference, axis=1)
        for name, collected in self._collected.items():
            own = self._own[name]
            if layer not in own.layers:
                collected.uncalled.setdefault(
                    layer, f"the candidate's own pass over {self._document.name} leaves it out"
                )
                continue
            error = np.linalg.norm(own.layers[layer] - reference, axis=1) / np.where(scale > 0, scale, 1.0)
            mean = float(error.mean()) if np.isfinite(error).all() else np.inf
            collected.own[layer] = collected.own.get(layer, 0.0) + mean
            self._compare_masks(collected, own.masks.get(layer), mask)
        self._compare_positions(layer, kwargs.get("position_ids"))

    def _compare_masks(
        self, collected: Collected, found: NDArray[np.bool_] | None, wanted: NDArray[np.bool_] | None
    ) -> None:
        if MASK in collected.wrong or (found is None and wanted is None):
            return
        causal = np.tri(len(self._document.ids), dtype=bool)
        found, wanted = (causal if m is None else m for m in (found, wanted))
        if found.shape != wanted.shape:
            collected.wrong[MASK] = (1, f"of shape {found.shape} for {wanted.shape}")
            return
        wrong = found != wanted
        if wrong.any():
            query, key = (int(i) for i in np.argwhere(wrong)[0])
            word = "sees" if found[query, key] else "does not see"
            places = f"{self._document.name}: position {query} {word} position {key}"
            collected.wrong[MASK] = (int(wrong.sum()), places)

    def _compare_positions(self, module: str, wanted: Any) -> None:
        """Relative to the first: all of them shifted alike is the same text further on."""
        if wanted is None:
            return
        expected = np.asarray(wanted.reshape(-1).tolist())
        for name, collected in self._collected.items():
            found = np.asarray(self._own[name].positions.get(module, expected))
            same = found.shape == expected.shape
            wrong = found - found[0] != expected - expected[0] if same else np.ones(1, dtype=bool)
            if wrong.any() and POSITIONS not in collected.wrong:
                at = int(np.argmax(wrong))
                words = f"{self._document.name}: token {at} has position {found[at]}, expected {expected[at]}"
                collected.wrong[POSITIONS] = (int(wrong.sum()), words)

    def _places(self, name: str, count: int) -> list[str]:
        """A name for each block of rows."""
        length = len(self._document.ids)
        if name in (LOGITS, "lm_head") and count != length:
            first = self._head_rows
            self._head_rows += count if name == LOGITS else 0
            numbers = self.rows[first : first + count]
        else:
            numbers = list(range(count))
        word = "position" if count == length or name in (LOGITS, "lm_head") else "row"
        where = self._document.name if count <= length else "text"
        starts = block_starts(count)
        ends = [(numbers[a], numbers[b - 1]) for a, b in zip(starts, [*starts[1:], count], strict=True)]
        return [f"{where} {word}s {a}-{b}" if a != b else f"{where} {word} {a}" for a, b in ends]

    def _pairs(self) -> list[tuple[ModuleRunner, Collected]]:
        return [(runner, self._collected[name]) for name, runner in self._runners.items()]

    def _module(self, name: str) -> Any:
        return None if name == LOGITS else self._reference.get_submodule(name)


def kept_rows(length: int) -> list[int]:
    """At most ``KEPT_ROWS`` positions: all, or blocks spread evenly, the first and the last among them."""
    if length <= KEPT_ROWS:
        return list(range(length))
    starts = np.linspace(0, length - BLOCK, KEPT_ROWS // BLOCK).astype(int)
    return [int(start) + i for start in starts for i in range(BLOCK)]


def _over(error: float, noise: float) -> float:
    """A ratio; where rounding costs nothing, neither may the candidate."""
    return error / noise if noise else (np.inf if error else 0.0)


def _weights_of(reference: Any, candidate: ModuleRunner, name: str) -> str:
    if name in (LOGITS, MASK, POSITIONS):
        return ""
    try:
        return weights_differ(reference.get_submodule(name), candidate.module(name))
    except (ModuleMismatch, AttributeError):
        return ""
