"""LMDeploy's own argument parser, built from the sources of a wheel: ``python -m tests.benchmarks.lmdeploy_parser FOLDER``.

Prints as JSON what ``lmdeploy serve api_server`` takes. Only lmdeploy.cli and what it imports is run. What it imports of other
packages (torch, transformers, fastapi, pydantic, partial_json_parser) is real, as in the environment of ``make
test-serving``; of the two that are not there, only registries and short ids are used, and a placeholder stands for them.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.abc
import importlib.machinery
import io
import json
import sys
import types
from typing import Any
from unittest.mock import MagicMock

ABSENT = ("mmengine", "shortuuid")
TRIED = {"--quant-policy": ("0", "4", "8", "5", "int8", "16")}


class Placeholder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Modules of :data:`ABSENT`, empty but for whatever is asked of them."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if name.split(".")[0] in ABSENT else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> Any:
        module = MagicMock(name=spec.name)
        module.__path__, module.__spec__ = [], spec
        return module

    def exec_module(self, module: Any) -> None:
        pass


def build(folder: str) -> tuple[argparse.ArgumentParser, argparse.ArgumentParser, list[str]]:
    """The parser of ``lmdeploy``, that of ``serve api_server``, and the names of the other commands of ``serve``.

    Args:
        folder: that holds the folder ``lmdeploy`` of the wheel. Its ``__init__`` files, which import every engine, are not
            run.
    """
    for name in ("lmdeploy", "lmdeploy.pytorch"):
        package = types.ModuleType(name)
        package.__path__ = [f"{folder}/{name.replace('.', '/')}"]
        sys.modules[name] = package
    sys.meta_path.append(Placeholder())
    whole = importlib.import_module("lmdeploy.cli.cli").CLI.parser
    serve = importlib.import_module("lmdeploy.cli.serve").SubCliServe
    serve.add_parsers()
    commands = serve.subparsers.choices
    return whole, commands["api_server"], sorted(commands)


def takes(parser: argparse.ArgumentParser, words: list[str]) -> bool:
    """Whether a parser takes a command line."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            parser.parse_args(words)
    except SystemExit:
        return False
    return True


def shown(folder: str) -> dict[str, Any]:
    """What the parser of ``serve api_server`` takes."""
    whole, server, commands = build(folder)
    options = {}
    for action in server._actions:
        if action.option_strings and action.dest != "help":
            choices = None if action.choices is None else [str(each) for each in action.choices if each is not None]
            for flag in action.option_strings:
                options[flag] = {"choices": choices, "switch": action.nargs == 0}
    start = ["serve", "api_server", "MODEL"]
    tried = {flag: {value: takes(whole, [*start, flag, value]) for value in values} for flag, values in TRIED.items()}
    return {"commands": commands, "options": options, "tried": tried}


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        found = shown(sys.argv[1])
    print(json.dumps(found))
