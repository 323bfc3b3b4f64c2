"""What a model's answer holds: the text after its thought, its last number, its code. Code is parsed and compared, and
nothing that a model wrote is ever executed. Pure."""

from __future__ import annotations

import ast
import re
import textwrap
import warnings
from typing import Any

THINK, THINK_END = "<think>", "</think>"
_NUMBER = re.compile(
    r"(?<![A-Za-z0-9_.])[-+\u2212]?(?:[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]*\.[0-9]+|[0-9]+)(?:[eE][-+]?[0-9]+)?"
)
_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[^\n`]*\n", re.MULTILINE)


def final_answer(text: str) -> str | None:
    """What follows ``</think>``, the whole text when it holds no thought, None when a thought was opened and not closed."""
    rest = text
    while THINK_END in rest:
        rest = rest.partition(THINK_END)[2]
        if not rest.lstrip().startswith(THINK):
            return rest.strip()
    return None if rest.lstrip().startswith(THINK) else rest.strip()


def last_number(text: str) -> float | None:
    """The last number of a text (``1,319``, ``-2.5``, ``6e-3``), None when it has none."""
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "").replace("\u2212", "-")) if found else None


def code_block(text: str) -> str | None:
    """The first fenced code block, up to the end of the text when its fence is not closed; None without one."""
    text = text.replace("\r\n", "\n")
    start = _FENCE.search(text)
    if start is None:
        return None
    fence = start.group(1)
    end = re.compile(rf"^[ \t]*{fence[0]}{{{len(fence)},}}[ \t]*$", re.MULTILINE).search(text, start.end())
    return textwrap.dedent(text[start.end() : end.start() if end else len(text)])


def parse_code(source: str) -> ast.Module:
    """The syntax tree of Python source; nothing is executed.

    Raises:
        ValueError: not Python, or nested too deeply; the message says where.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a model's odd escape is no warning of ours
            return ast.parse(source)
    except SyntaxError as error:
        raise ValueError(f"line {error.lineno}: {error.msg}") from error
    except (RecursionError, MemoryError) as error:
        raise ValueError("it is nested too deeply to be parsed") from error


def functions_of(tree: ast.Module) -> dict[str, ast.stmt]:
    """The functions that a module defines at its top level; of two with one name the later, which would win."""
    return {node.name: node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}


def normal_form(function: ast.stmt) -> str:
    """One function as text that is the same for the same code: docstrings, comments, annotations, layout and the style of
    quotes are gone, names and operations stay. The tree is changed in place.

    Raises:
        ValueError: nested too deeply.
    """
    try:
        return ast.dump(_Normal().visit(function))
    except RecursionError as error:
        raise ValueError("it is nested too deeply to be compared") from error


class _Normal(ast.NodeTransformer):
    """Drops what does not change what code does."""

    def visit_FunctionDef(self, node: Any) -> Any:
        node.returns = node.type_comment = None
        if hasattr(node, "type_params"):  # since Python 3.12
            node.type_params = []
        return self._block(node)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> Any:
        return self._block(node)

    def _block(self, node: Any) -> Any:
        first = node.body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            del node.body[0]
        self.generic_visit(node)
        node.body = node.body or [ast.Pass()]
        return node

    def visit_arg(self, node: ast.arg) -> Any:
        node.annotation = node.type_comment = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> Any:
        self.generic_visit(node)
        return ast.Assign([node.target], node.value) if node.value is not None else None

    def visit_Assign(self, node: ast.Assign) -> Any:
        node.type_comment = None
        return self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> Any:
        node.kind = None
        return node
