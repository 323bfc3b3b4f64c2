"""docs/ascend-names.md, from the list of names and what each wheel shows of them."""

from __future__ import annotations

from collections import Counter
from typing import Any

from pytest_npuconf.ascend.names import PACKAGES, Name
from tests.benchmarks.stack_wheels import MENTION, PLUGIN, PYTHON, STRING

_TITLES = {"torch_npu": "torch_npu", "vllm_ascend": "vllm-ascend", "vllm": "vLLM"}
_HOW = {PYTHON: "Python source", STRING: "a string in a shared object", PLUGIN: "an entry point"}


def page(listed: tuple[Name, ...], wheels: list[dict[str, Any]]) -> str:
    """Markdown."""
    proven = [name for name in listed if name.package]
    documented = [name for name in listed if not name.package and not name.absent]
    absent = [name for name in listed if name.absent]
    parts = [_HEAD.format(wheels=_wheels(wheels), summary=_summary(proven, documented, absent, wheels))]
    for package in PACKAGES:
        own = [wheel for wheel in wheels if wheel["package"] == package]
        of_package = [name for name in proven if name.package == package]
        parts.append(f"## {_TITLES[package]}\n\n{_table(of_package, own)}")
    parts.append(f"## Documented, not proven\n\n{_DOCUMENTED}\n\n{_documented(documented, wheels)}")
    parts.append(f"## Not there\n\n{_ABSENT}\n\n{_absent(absent, wheels)}")
    return "\n\n".join(parts) + "\n"


def _wheels(wheels: list[dict[str, Any]]) -> str:
    lines = ["| wheel | MB | SHA-256 |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {w['file']} | {w['bytes'] / 1e6:.0f} | `{w['sha256']}` |" for w in wheels)])


def _summary(proven: list[Name], documented: list[Name], absent: list[Name], wheels: list[dict[str, Any]]) -> str:
    ways: Counter[str] = Counter()
    for name in proven:
        shown = [w["found"].get(name.name) for w in wheels if w["package"] == name.package]
        how = [each["how"] for each in shown if each is not None and each["how"] != MENTION]
        ways[_HOW[how[-1]] if how else "in none of these versions, as the list says"] += 1
    told = ", ".join(f"{count} {way}" for way, count in sorted(ways.items(), key=lambda item: -item[1]))
    return (
        f"{len(proven)} names are checked against the wheels ({told}), {len(documented)} are only documented, "
        f"{len(absent)} exist nowhere."
    )


def _table(listed: list[Name], wheels: list[dict[str, Any]]) -> str:
    versions = [wheel["version"] for wheel in wheels]
    head = ["name", "kind", *versions, "parameters", "changes", "what it is", "used by"]
    rows = [
        [
            f"`{name.name}`",
            name.kind,
            *(_cell(wheel["found"].get(name.name), name.package) for wheel in wheels),
            _parameters(name, wheels),
            name.effect,
            name.does,
            _used(name),
        ]
        for name in listed
    ]
    return _markdown(head, rows)


def _cell(found: dict[str, Any] | None, package: str) -> str:
    if found is None or found["how"] == MENTION:
        return "no"
    where = found["where"].removeprefix(f"{package}/")
    if found["how"] == STRING:
        return f"string in {where.rpartition('/')[2]}"
    if found["how"] == PLUGIN:
        return f"`{found['detail']}`"
    return where


def _parameters(name: Name, wheels: list[dict[str, Any]]) -> str:
    by_text: dict[str, list[str]] = {}
    for wheel in wheels:
        found = wheel["found"].get(name.name)
        if found is not None and found["signature"] is not None:
            by_text.setdefault(found["signature"], []).append(wheel["version"])
    if len(by_text) == 1:
        return f"`{next(iter(by_text))}`"
    return "; ".join(f"{', '.join(versions)}: `{text}`" for text, versions in by_text.items())


def _documented(listed: list[Name], wheels: list[dict[str, Any]]) -> str:
    rows = []
    for name in listed:
        seen = [f"{w['package']} {w['version']}" for w in wheels if w["found"].get(name.name) is not None]
        rows.append([f"`{name.name}`", name.effect, name.does, name.documented, ", ".join(seen), _used(name)])
    return _markdown(["name", "changes", "what it is", "documented by", "also seen in", "used by"], rows)


def _absent(listed: list[Name], wheels: list[dict[str, Any]]) -> str:
    rows = []
    for name in listed:
        seen = [f"{w['package']} {w['version']}" for w in wheels if w["found"].get(name.name) is not None]
        rows.append([f"`{name.name}`", ", ".join(seen) or "none", f"`{name.meant}`", _used(name)])
    return _markdown(["name", "wheels that have it", "the name that exists", "used by"], rows)


def _used(name: Name) -> str:
    return ", ".join(path.removeprefix("pytest_npuconf/") for path in name.used_by)


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


_HEAD = """# Outside names

Every name of torch_npu, CANN, vllm-ascend and vLLM that this project uses, mentions or warns about, and the wheels that show it.
`make stack-names` downloads the wheels, reads them without importing anything, and writes this page. A test fails where the page,
the list ([names.toml](../pytest_npuconf/ascend/names.toml)) and our code do not fit together. A second one reads the wheels again
where they are (`build/stack`, or the folder that `NPUCONF_WHEELS` names).

{wheels}

{summary}

How to read a cell: `npu/utils.py:62` is Python source, file and line in the wheel's package. *string in libtorch_npu.so*: the
compiled library holds the name as a whole word, so it exists there; what it does is from the documentation. *no*: not there, as the
list expects."""

_DOCUMENTED = "These live in CANN, HCCL, ATB or the container runtime. No wheel above has to show them."
_ABSENT = "Searched for in every Python source and shared object above (of vLLM: sources only), comments too."
