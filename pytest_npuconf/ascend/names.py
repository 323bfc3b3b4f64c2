"""The outside names that this project uses, mentions or warns about: names.toml, proven by tests/benchmarks/stack_names.py."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

from packaging.version import Version

from pytest_npuconf.audit.data import environment

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["KINDS", "PACKAGES", "Name", "find", "names"]

KINDS = ("module", "function", "class", "method", "attribute", "native", "option", "variable", "message", "plugin")
PACKAGES = ("torch_npu", "vllm_ascend", "vllm")
_AUDIT = "pytest_npuconf/audit/data/environment.toml"


@dataclass(frozen=True)
class Name:
    """One outside name.

    ``kind``: module, function, class, method, attribute (read or set on a module or object), native (of the C++ extension),
    option (a key of ``torch.npu.set_option``), variable (of the environment), message (a text that is searched for), plugin
    (an entry point).
    ``package``: whose wheel must show it; empty where none of :data:`PACKAGES` does: ``documented`` is then the source, and
    the name counts as documented, never as proven.
    ``used_by``: files of this repository that use or mention it.
    ``signatures``: the parameter lists that are known, without annotations.
    ``effect``: ``numeric`` (changes results), ``speed``, or neither.
    ``since``: the first versions that have it: one, and one for each older release that got it in a post release.
    ``until``: the last version that has it.
    ``absent``: no package has this name; ``meant`` is the one that exists.
    """

    name: str
    kind: str
    package: str
    does: str
    used_by: tuple[str, ...] = ()
    signatures: tuple[str, ...] = ()
    effect: str = ""
    since: tuple[str, ...] = ()
    until: str = ""
    absent: bool = False
    meant: str = ""
    documented: str = ""

    def expected_in(self, version: str) -> bool:
        """Whether that version of ``package`` has it.

        A post release counts for its own release only: with since 2.9.0.post9 and 2.13.0, 2.9.0.post9 has the name, 2.11.0 has not.
        """
        if self.absent or not self.package:
            return False
        asked = Version(version)
        if self.until and asked > Version(self.until):
            return False
        if not self.since:
            return True
        first = [Version(text) for text in self.since]
        same = [each for each in first if each.release == asked.release]
        return asked >= min(same) if same else asked >= max(first)


@lru_cache(maxsize=1)
def names() -> tuple[Name, ...]:
    """Every name, in the order of the file; then the variables of vllm-ascend that the audit knows by release."""
    data = tomllib.loads(resources.files(__package__).joinpath("names.toml").read_text(encoding="utf-8"))
    own = tuple(_name(entry) for entry in data["name"])
    listed = {each.name for each in own}
    return own + tuple(each for each in _of_the_audit() if each.name not in listed)


def find(name: str) -> Name | None:
    """The entry of that name, None where there is none."""
    return next((each for each in names() if each.name == name), None)


def _name(entry: dict[str, Any]) -> Name:
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
    return Name(**values)


def _of_the_audit() -> tuple[Name, ...]:
    data = environment()
    known = tuple(
        Name(
            each.name,
            "variable",
            "vllm_ascend",
            "setting of vllm-ascend",
            (_AUDIT,),
            since=(each.first,),
            until="" if each.last == "newest" else each.last,
        )
        for each in data.variables
        if each.first
    )
    mistaken = tuple(
        Name(name, "variable", "", "written by mistake", (_AUDIT,), absent=True, meant=meant)
        for name, meant in data.mistakes
    )
    return known + mistaken
