"""What config.json says that the weight files must hold: names and shapes. Plain data; no framework is imported here."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Shape = tuple[int, ...]
# BertModel, Qwen3Model, XLMRobertaForMaskedLM, but not GPT2LMHeadModel
_HEADLESS = re.compile(r"(?<!LMHead)Model$|ForMaskedLM$")


def headless(config: Mapping[str, Any]) -> str:
    """The architecture that a config.json names, where that has no head to generate with: transformers' bare models and
    masked language models. Empty where it has one, where none is named, and where the checkpoint's own code brings one."""
    named, own = config.get("architectures"), config.get("auto_map")
    if not isinstance(named, list) or not named or (isinstance(own, Mapping) and "AutoModelForCausalLM" in own):
        return ""
    return str(named[0]) if all(isinstance(n, str) and _HEADLESS.search(n) for n in named) else ""


@dataclass(frozen=True)
class Architecture:
    """The tensors of a model, by the names that its files use.

    ``shapes``: every parameter and every buffer that is saved. ``tied``: groups of names that are one weight, of which one
    stored name is enough. ``buffers``: names that are no parameters; files may hold them or not. ``ignored``: regular
    expressions of stored names that transformers itself passes over; ``optional``: of names that it does not miss.
    ``prefix``: of the decoder, which files may leave out or add. ``embedding``: names of the input embedding's and the
    output head's weights. ``unbuildable`` says why config.json describes no model at all; the rest is empty then.
    """

    name: str
    shapes: Mapping[str, Shape]
    tied: tuple[frozenset[str], ...] = ()
    buffers: frozenset[str] = frozenset()
    ignored: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    prefix: str = ""
    embedding: frozenset[str] = frozenset()
    unbuildable: str = ""

    def named(self, stored: Mapping[str, Shape]) -> dict[str, Shape]:
        """Stored tensors by the architecture's names: files may leave the decoder's prefix out, or carry one more."""
        found = {name: shape for name, shape in stored.items() if name in self.shapes}
        for name, shape in stored.items():
            if name in self.shapes:
                continue
            other = (f"{self.prefix}.{name}", name.removeprefix(f"{self.prefix}."))
            known = next((o for o in other if o in self.shapes and o not in stored), name)
            found.setdefault(known, shape)
        return found

    def passed_over(self, name: str) -> bool:
        """Whether an unexpected stored name is none of the model's: an old file's buffer, or a pattern of transformers."""
        return name in self.buffers or any(re.search(pattern, name) for pattern in self.ignored)

    def missing(self, found: Mapping[str, Shape]) -> list[str]:
        """Names that must be there and are not in ``found`` (by the architecture's names); of tied names one will do."""
        there = {name for group in self.tied if group & found.keys() for name in group} | found.keys()
        absent = [name for name in self.shapes if name not in there]
        return [name for name in absent if not any(re.search(pattern, name) for pattern in self.optional)]

    def count(self, shapes: Mapping[str, Shape]) -> tuple[int, int]:
        """Parameters among ``shapes`` (by the architecture's names): all, and those without embedding and output head.

        A tied weight that is there under several names counts once; buffers and names passed over do not count.
        """
        once = {min(group & shapes.keys()) for group in self.tied if group & shapes.keys()}
        several = {name for group in self.tied for name in group} - once
        sizes = {
            name: math.prod(shape)
            for name, shape in shapes.items()
            if name not in several and (name in self.shapes or not self.passed_over(name)) and name not in self.buffers
        }
        outside = sum(size for name, size in sizes.items() if name not in self.embedding)
        return sum(sizes.values()), outside
