"""Facts about the serving stack, the chips and the environment variables: TOML files, each entry with its source."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "Architecture",
    "Chip",
    "Chips",
    "Dataset",
    "Driver",
    "Environment",
    "Option",
    "Product",
    "Release",
    "Variable",
    "Versions",
    "chips",
    "environment",
    "versions",
]


@dataclass(frozen=True)
class Release:
    """One release of vllm-ascend, vLLM or torch_npu. ``requires``: specifiers of its package, by distribution name."""

    name: str
    version: str
    source: str
    vllm: tuple[str, ...] = ()
    python: str = ""
    cann: str = ""
    torch: str = ""
    torch_npu: str = ""
    requires: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Architecture:
    """The least transformers that knows an architecture."""

    name: str
    transformers: str
    source: str


@dataclass(frozen=True)
class Option:
    """A command line option that a program no longer has from version ``removed`` on."""

    name: str
    program: str
    removed: str
    values: tuple[str, ...]
    instead: str
    source: str


@dataclass(frozen=True)
class Dataset:
    """How many test items a public data set has."""

    name: str
    items: int
    source: str


@dataclass(frozen=True)
class Versions:
    """The file versions.toml."""

    newest_vllm_ascend: str
    vllm_ascend: tuple[Release, ...]
    vllm: tuple[Release, ...]
    torch_npu: tuple[Release, ...]
    architectures: tuple[Architecture, ...]
    options: tuple[Option, ...]
    datasets: tuple[Dataset, ...]


@dataclass(frozen=True)
class Chip:
    """A part: ``family`` is the hardware generation; memory and bandwidth are of one device, None where no figure was found."""

    name: str
    pattern: re.Pattern[str]
    family: str
    source: str
    memory_gb: tuple[float, ...] = ()
    bandwidth_tb_s: float | None = None


@dataclass(frozen=True)
class Product:
    """A server, card or box that carries chips of one family."""

    name: str
    pattern: re.Pattern[str]
    family: str
    source: str


@dataclass(frozen=True)
class Driver:
    """The releases of the driver (Ascend HDK) that a release of CANN is documented to go with."""

    cann: str
    hdk: tuple[str, ...]
    source: str


@dataclass(frozen=True)
class Chips:
    """The file chips.toml."""

    chips: tuple[Chip, ...]
    products: tuple[Product, ...]
    drivers: tuple[Driver, ...] = ()

    def chips_in(self, text: str) -> tuple[Chip, ...]:
        """The parts that ``text`` names, each once, in the order of the file."""
        if not any(number in text for number in ("910", "310", "950")):
            return ()
        return tuple(chip for chip in self.chips if chip.pattern.search(text))

    def products_in(self, text: str) -> tuple[Product, ...]:
        """The products that ``text`` names, each once, in the order of the file."""
        if "atlas" not in text.lower():
            return ()
        return tuple(product for product in self.products if product.pattern.search(text))


@dataclass(frozen=True)
class Variable:
    """A variable of vllm-ascend; ``first`` and ``last``: the releases that define it, empty where none does."""

    name: str
    first: str
    last: str


@dataclass(frozen=True)
class Environment:
    """The file environment.toml."""

    prefix: str
    owner: str
    newest: str
    source: str
    variables: tuple[Variable, ...]
    known: tuple[str, ...]
    mistakes: tuple[tuple[str, str], ...]
    ascending: tuple[str, ...]


@lru_cache(maxsize=1)
def versions() -> Versions:
    """What each release of the stack asks for."""
    data = _read("versions.toml")
    return Versions(
        data["newest_vllm_ascend"],
        tuple(_release("vllm_ascend", entry) for entry in data["vllm_ascend"]),
        tuple(_release("vllm", entry) for entry in data["vllm"]),
        tuple(_release("torch_npu", entry) for entry in data["torch_npu"]),
        tuple(Architecture(**entry) for entry in data["architecture"]),
        tuple(Option(**entry | {"values": tuple(entry["values"])}) for entry in data["option"]),
        tuple(Dataset(**entry) for entry in data["dataset"]),
    )


@lru_cache(maxsize=1)
def chips() -> Chips:
    """Chips and products. A chip's name must stand apart: after "Ascend" or no letter or digit, before none."""
    data = _read("chips.toml")
    return Chips(
        tuple(
            Chip(
                entry["name"],
                re.compile(_chip_pattern(entry), re.IGNORECASE),
                entry["family"],
                entry["source"],
                tuple(float(size) for size in entry.get("memory_gb", ())),
                entry.get("bandwidth_tb_s"),
            )
            for entry in data["chip"]
        ),
        tuple(
            Product(
                entry["name"],
                re.compile(r"(?:" + entry["pattern"] + r")(?![A-Za-z0-9])", re.IGNORECASE),
                entry["family"],
                entry["source"],
            )
            for entry in data["product"]
        ),
        tuple(Driver(entry["cann"], tuple(entry["hdk"]), entry["source"]) for entry in data["driver"]),
    )


@lru_cache(maxsize=1)
def environment() -> Environment:
    """Environment variables that exist, and names that do not."""
    data = _read("environment.toml")
    (prefix,) = data["prefix"]
    return Environment(
        prefix["name"],
        prefix["owner"],
        prefix["newest"],
        prefix["source"],
        tuple(Variable(**entry) for entry in data["variable"]),
        tuple(entry["name"] for entry in data["known"]),
        tuple((entry["name"], entry["meant"]) for entry in data["mistake"]),
        tuple(entry["name"] for entry in data["ascending"]),
    )


def _chip_pattern(entry: dict[str, Any]) -> str:
    # A bare 950 is any number: that family needs the word in front. 910 and 310 with a letter stand for themselves.
    front = r"(?:Ascend|昇腾)[\s-]?" if entry["family"] == "950" else r"(?:(?:Ascend|昇腾)[\s-]?|(?<![A-Za-z0-9_.]))"
    return front + r"(?:" + str(entry["pattern"]) + r")(?![A-Za-z0-9])"


def _release(name: str, entry: dict[str, Any]) -> Release:
    return Release(
        name,
        entry["version"],
        entry["source"],
        tuple(entry.get("vllm", ())),
        entry.get("python", ""),
        entry.get("cann", ""),
        entry.get("torch", ""),
        entry.get("torch_npu", ""),
        tuple(entry.get("requires", {}).items()),
    )


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads(resources.files(__name__).joinpath(name).read_text(encoding="utf-8"))
