"""What a wheel shows of a name, read from the zip: Python source through ``ast``, shared objects as bytes. Nothing is imported."""

from __future__ import annotations

import ast
import configparser
import posixpath
import re
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pytest_npuconf.ascend.names import Name
from pytest_npuconf.files import sha256_of

PYTHON, STRING, PLUGIN, MENTION = "python", "string", "plugin", "mention"
READS, SETS = "read from the environment", "set in the environment"
TEXTS = ("variable", "option", "native", "message")
_LETTERS = {bytes([each]) for each in b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_"}
_DETAILS = (READS, SETS, "a text")
Scope = ast.Module | ast.ClassDef


@dataclass(frozen=True)
class Found:
    """``how``: :data:`PYTHON` (source), :data:`STRING` (bytes of a shared object), :data:`PLUGIN` (entry_points.txt), or
    :data:`MENTION` (a comment, a docstring, or a longer text: no proof). ``where``: member of the wheel, with the line of a source.
    ``signature``: of what can be called. ``detail``: what is done with it there."""

    how: str
    where: str
    detail: str = ""
    signature: str | None = None


class Text(NamedTuple):
    """A string in a source, and what holds it."""

    value: str
    line: int
    parent: ast.AST


class Wheel:
    """A wheel, opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.package, self.version = path.name.split("-")[:2]
        self._zip = zipfile.ZipFile(path)
        self._members = set(self._zip.namelist())
        self._sources: dict[str, bytes] = {}
        self._trees: dict[str, ast.Module] = {}
        self._strings: dict[str, list[Text]] = {}

    def sha256(self) -> str:
        return sha256_of(self.path)

    def sources(self) -> list[str]:
        """Python files, the shallow ones first."""
        found = [name for name in self._members if name.endswith(".py")]
        return sorted(found, key=lambda name: (name.count("/"), name))

    def natives(self) -> list[str]:
        """Shared objects, that of the package before those of its parts. Those of vLLM are CUDA's: a gigabyte, and not asked."""
        if self.package == "vllm":
            return []
        found = [name for name in self._members if re.search(r"\.so(\.\d+)*$", name)]
        return sorted(found, key=lambda name: (not name.endswith(f"lib{self.package}.so"), name))

    def read(self, member: str) -> bytes:
        if not member.endswith(".py"):
            return self._zip.read(member)
        if member not in self._sources:
            self._sources[member] = self._zip.read(member)
        return self._sources[member]

    def tree(self, member: str) -> ast.Module:
        if member not in self._trees:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # SyntaxWarning: escapes that are not ours
                self._trees[member] = ast.parse(self.read(member), member)
        return self._trees[member]

    def strings(self, member: str) -> list[Text]:
        if member not in self._strings:
            self._strings[member] = _strings(self.tree(member))
        return self._strings[member]

    def module(self, dotted: str) -> str | None:
        """The member that holds a module, None where the wheel has none."""
        base = dotted.replace(".", "/")
        return next((member for member in (f"{base}/__init__.py", f"{base}.py") if member in self._members), None)

    def requires(self) -> dict[str, str]:
        """What the package asks for, as its METADATA says: specifiers by name, without extras and conditions."""
        text = self.read(f"{self.package}-{self.version}.dist-info/METADATA").decode()
        asked = [Requirement(line.partition(":")[2]) for line in text.splitlines() if line.startswith("Requires-Dist:")]
        return {canonicalize_name(each.name): str(each.specifier) for each in asked if each.marker is None}

    def plugins(self) -> tuple[str, configparser.ConfigParser]:
        member = f"{self.package}-{self.version}.dist-info/entry_points.txt"
        parser = configparser.ConfigParser(delimiters=("=",))
        if member in self._members:
            parser.read_string(self.read(member).decode())
        return member, parser


def find_all(wheel: Wheel, names: tuple[Name, ...]) -> dict[str, Found | None]:
    """Every name that this wheel may show, and what it shows of it."""
    found: dict[str, Found | None] = {}
    asked = [name for name in names if name.package == wheel.package or not name.package]
    natives = _in_natives(wheel, [_last(name) for name in asked if name.kind in TEXTS])
    for name in asked:
        if name.kind in TEXTS:
            found[name.name] = _best(wheel, name, natives.get(_last(name)))
        elif name.kind == "plugin":
            found[name.name] = _plugin(wheel, name.name)
        elif name.kind == "module":
            found[name.name] = _registered(wheel, name.name)
        else:
            found[name.name] = resolve(wheel, name.name.replace("torch.npu", "torch_npu.npu", 1))
    return found


def _best(wheel: Wheel, name: Name, native: Found | None) -> Found | None:
    """Source that reads it, a shared object that has it, source that sets or has it, a mention."""
    source = None if name.kind == "native" else _text(wheel, name.name)
    if source is not None and (source.detail == READS or native is None or name.kind == "option"):
        return source
    return native or _mention(wheel, _last(name))


def _last(name: Name) -> str:
    return name.name.rpartition(".")[2] if name.kind == "native" else name.name


def resolve(wheel: Wheel, dotted: str) -> Found | None:
    """Follows a dotted name through imports, classes and instances to its definition."""
    parts = dotted.split(".")
    for length in range(len(parts) - 1, 0, -1):
        member = wheel.module(".".join(parts[:length]))
        if member is not None:
            return _in_module(wheel, member, parts[length:])
    return None


def _in_module(wheel: Wheel, member: str, parts: list[str]) -> Found | None:
    tree = wheel.tree(member)
    replaced = _replacement(tree)
    if replaced is not None:
        found = _in_class(member, replaced, parts)
        if found is not None:
            return found
    for node in reversed(list(_statements(tree))):
        found = _in_statement(wheel, member, node, parts)
        if found is not None:
            return found
    return None


def _in_statement(wheel: Wheel, member: str, node: ast.stmt, parts: list[str]) -> Found | None:
    first, rest = parts[0], parts[1:]
    if isinstance(node, ast.FunctionDef) and node.name == first and not rest:
        return Found(PYTHON, f"{member}:{node.lineno}", "def", signature(node))
    if isinstance(node, ast.ClassDef) and node.name == first:
        return _in_class(member, node, rest)
    if isinstance(node, ast.ImportFrom):
        return _imported(wheel, member, node, parts)
    if isinstance(node, (ast.Assign, ast.AnnAssign)) and first in _targets(node):
        if not rest:
            return Found(PYTHON, f"{member}:{node.lineno}", "assigned")
        if isinstance(node.value, ast.Call):  # an instance: its class has the rest
            return _in_module(wheel, *_lookup(wheel, member, _dotted(node.value.func), rest))
    return None


def _lookup(wheel: Wheel, member: str, callee: list[str], rest: list[str]) -> tuple[str, list[str]]:
    """The module and path of a class that is named in ``member``, where it may be ``module.Class``."""
    if len(callee) > 1:
        beside = wheel.module(posixpath.dirname(member).replace("/", ".") + "." + ".".join(callee[:-1]))
        if beside is not None:
            return beside, [callee[-1], *rest]
    return member, [*callee, *rest]


def _imported(wheel: Wheel, member: str, node: ast.ImportFrom, parts: list[str]) -> Found | None:
    package = posixpath.dirname(member).split("/")
    base = package[: len(package) - node.level + 1] if node.level else []
    dotted = ".".join([*base, *([node.module] if node.module else [])])
    for alias in node.names:
        target = wheel.module(dotted)
        if alias.name == "*":
            if target is not None and _exported(wheel.tree(target), parts[0]):
                found = _in_module(wheel, target, parts)
                if found is not None:
                    return found
        elif (alias.asname or alias.name) == parts[0]:
            inner = wheel.module(f"{dotted}.{alias.name}")
            if inner is not None and len(parts) > 1:
                return _in_module(wheel, inner, parts[1:])
            if target is not None and target != member:
                return _in_module(wheel, target, [alias.name, *parts[1:]])
    return None


def _exported(tree: ast.Module, name: str) -> bool:
    for node in _statements(tree):
        if isinstance(node, ast.Assign) and "__all__" in _targets(node):
            return name in ast.literal_eval(node.value)
    return not name.startswith("_")


def _in_class(member: str, node: ast.ClassDef, parts: list[str]) -> Found | None:
    methods = {each.name: each for each in node.body if isinstance(each, ast.FunctionDef)}
    if not parts:
        made = [methods[name] for name in ("__new__", "__init__") if name in methods]
        told = max((signature(each, method=True) for each in made), key=len, default=None)
        return Found(PYTHON, f"{member}:{node.lineno}", "class", told)
    if len(parts) > 1:
        return None
    if parts[0] in methods:
        return Found(PYTHON, f"{member}:{methods[parts[0]].lineno}", "def", signature(methods[parts[0]], method=True))
    for each in node.body:
        if isinstance(each, (ast.Assign, ast.AnnAssign)) and parts[0] in _targets(each):
            return Found(PYTHON, f"{member}:{each.lineno}", "assigned in the class")
    handled = [
        name for name in ("__getattr__", "__setattr__") if name in methods and _compares(methods[name], parts[0])
    ]
    if handled:
        return Found(PYTHON, f"{member}:{methods[handled[0]].lineno}", "in " + " and ".join(handled))
    return None


def signature(node: ast.FunctionDef, *, method: bool = False) -> str:
    """The parameters without annotations: names and defaults. ``method``: without the first one."""
    arguments = ast.parse(ast.unparse(node.args).join(("def f(", "): ...")))
    bare = arguments.body[0].args  # type: ignore[attr-defined]
    every = [*bare.posonlyargs, *bare.args, *bare.kwonlyargs, *filter(None, (bare.vararg, bare.kwarg))]
    for each in every:
        each.annotation = None
    first = bare.posonlyargs or bare.args
    if method and first and not any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in node.decorator_list):
        del first[0]
    return f"({ast.unparse(bare)})"


def _replacement(tree: ast.Module) -> ast.ClassDef | None:
    """The class of ``sys.modules[__name__] = Class(...)``."""
    for node in tree.body:
        if not (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "sys.modules[__name__]"):
            continue
        name = ast.unparse(node.value.func) if isinstance(node.value, ast.Call) else ""
        return next((each for each in tree.body if isinstance(each, ast.ClassDef) and each.name == name), None)
    return None


def _statements(scope: Scope) -> Iterator[ast.stmt]:
    """Statements that run when a module is imported: those of if, try and with too."""
    waiting = list(scope.body)
    while waiting:
        node = waiting.pop(0)
        yield node
        for field in ("body", "orelse", "finalbody"):
            if not isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
                waiting[:0] = getattr(node, field, [])


def _targets(node: ast.Assign | ast.AnnAssign) -> list[str]:
    return [ast.unparse(target) for target in (node.targets if isinstance(node, ast.Assign) else [node.target])]


def _dotted(node: ast.expr) -> list[str]:
    return ast.unparse(node).split(".")


def _compares(node: ast.FunctionDef, text: str) -> bool:
    compared = [each for each in ast.walk(node) if isinstance(each, ast.Compare)]
    return any(isinstance(each, ast.Constant) and each.value == text for c in compared for each in ast.walk(c))


def _registered(wheel: Wheel, name: str) -> Found | None:
    call = f"torch._register_device_module({name.removeprefix('torch.')!r},"
    for member in wheel.sources():
        if b"_register_device_module" in wheel.read(member):
            for node in ast.walk(wheel.tree(member)):
                if isinstance(node, ast.Call) and ast.unparse(node).startswith(call):
                    return Found(PYTHON, f"{member}:{node.lineno}", ast.unparse(node))
    return None


def _plugin(wheel: Wheel, name: str) -> Found | None:
    group, _, short = name.partition(":")
    member, parser = wheel.plugins()
    if not parser.has_option(group, short):
        return None
    target = parser.get(group, short)
    return Found(PLUGIN, member, target) if resolve(wheel, target.replace(":", ".")) else None


def _text(wheel: Wheel, text: str) -> Found | None:
    """A string of Python source that is this text (of a sentence: that holds it), and what is done with it."""
    best: tuple[int, Found] | None = None
    for member in wheel.sources():
        if _position(wheel.read(member), text) < 0:
            continue
        for each in wheel.strings(member):
            if each.value == text or (" " in text and text in each.value):
                rank = _rank(each.parent)
                if best is None or rank < best[0]:
                    best = rank, Found(PYTHON, f"{member}:{each.line}", _DETAILS[rank])
    return None if best is None else best[1]


def _strings(tree: ast.Module) -> list[Text]:
    """The strings of a module that are no docstrings."""
    found = []
    for parent in ast.walk(tree):
        for node in ast.iter_child_nodes(parent):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and not isinstance(parent, ast.Expr):
                found.append(Text(node.value, node.lineno, parent))
    return found


def _rank(parent: ast.AST) -> int:
    """Into :data:`_DETAILS`."""
    if isinstance(parent, ast.Call) and re.search(r"getenv$|environ\.(get|pop)$", ast.unparse(parent.func)):
        return 0
    if isinstance(parent, ast.Subscript) and ast.unparse(parent.value).endswith("environ"):
        return 1 if isinstance(parent.ctx, ast.Store) else 0
    return 2


def _in_natives(wheel: Wheel, texts: list[str]) -> dict[str, Found]:
    """Texts in the shared objects, as whole words."""
    found: dict[str, Found] = {}
    for member in wheel.natives():
        data = wheel.read(member)
        for text in texts:
            if text not in found and _position(data, text) >= 0:
                found[text] = Found(STRING, member, "string")
    return found


def _mention(wheel: Wheel, text: str) -> Found | None:
    for member in wheel.sources():
        source = wheel.read(member)
        at = _position(source, text)
        if at >= 0:
            line = source.count(b"\n", 0, at) + 1
            return Found(MENTION, f"{member}:{line}", "mentioned")
    return None


def _position(data: bytes, text: str) -> int:
    """Where ``text`` stands as a whole word, -1 where it does not. (A regular expression takes seconds for a shared object.)"""
    word = text.encode()
    at = data.find(word)
    while at >= 0 and (data[at - 1 : at] in _LETTERS or data[at + len(word) : at + len(word) + 1] in _LETTERS):
        at = data.find(word, at + 1)
    return at
