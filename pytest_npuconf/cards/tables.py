"""Readers of the tables that describe the model itself: its size, files, minimums and documented samples."""

from __future__ import annotations

import math
from pathlib import Path, PurePosixPath
from typing import Any

from packaging.version import InvalidVersion, Version

from pytest_npuconf.answers import functions_of, parse_code
from pytest_npuconf.cards.schema import ROLES, Message, Sample
from pytest_npuconf.cards.toml_reader import Table

VERSIONS = ("python", "torch", "torch_npu", "transformers", "vllm", "vllm_ascend", "cann", "numpy")
AMOUNTS = ("device_memory_gib", "cpu_count", "memory_gib")


def read_size(table: Table) -> int | None:
    """``[size] parameters``: None when it is not stated."""
    count = table.take("parameters", int) if table.take_any("parameters") is not None else None
    if count is not None and count < 1:
        raise table.error("parameters", f"must be at least 1, got {count}")
    table.finish()
    return count


def read_files(root: Table) -> tuple[str, ...]:
    """``files``: names inside the checkpoint's folder."""
    names = root.strings("files", [])
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name:
            raise root.error("files", f"must name files inside the checkpoint's folder, got {name!r}")
    if len(set(names)) != len(names):
        raise root.error("files", "names the same file twice")
    return names


def read_documents(table: Table, folder: Path) -> tuple[Path, ...]:
    """``[audit] documents``: the model's documents, relative to the card; a missing one is an error before the first test."""
    names = table.strings("documents", [])
    found = tuple((folder / Path(name).expanduser()).resolve() for name in names)
    for name, path in zip(names, found, strict=True):
        if not path.is_file():
            raise table.error("documents", f"names {name!r}, which is no file: {path}")
    if len(set(found)) != len(found):
        raise table.error("documents", "names the same file twice")
    table.finish()
    return found


def read_minimum(table: Table) -> dict[str, str | float]:
    """``[minimum]``: versions as written, amounts as numbers."""
    found: dict[str, str | float] = {}
    for key in (k for k in VERSIONS if table.take_any(k) is not None):
        text = table.words(key)
        try:
            Version(text)
        except InvalidVersion as error:
            raise table.error(key, f"must be a version such as '2.9.0', got {text!r}") from error
        found[key] = text
    for key in (k for k in AMOUNTS if table.take_any(k) is not None):
        amount = table.take(key, float)
        if not 0 < amount < math.inf:
            raise table.error(key, f"must be a finite number above 0, got {amount}")
        found[key] = amount
    table.finish()
    return found


def read_samples(root: Table) -> tuple[Sample, ...]:
    """``[[samples]]``: each with a name of its own."""
    tables = root.tables("samples")
    samples = tuple(_sample(table) for table in tables)
    for i, (table, sample) in enumerate(zip(tables, samples, strict=True)):
        if sample.name in (earlier.name for earlier in samples[:i]):
            raise table.error("name", f"{sample.name!r} appears twice")
    return samples


def _sample(table: Table) -> Sample:
    sample = Sample(
        name=table.words("name"),
        messages=_messages(table),
        max_new_tokens=table.take("max_new_tokens", int),
        thinking=table.take("thinking", bool, True),
        contains=table.strings("contains", []),
        contains_any=table.strings("contains_any", []),
        number=table.take("number", float) if table.take_any("number") is not None else None,
        code=table.words("code") if table.take_any("code") is not None else "",
        code_function=table.words("code_function") if table.take_any("code_function") is not None else "",
    )
    if sample.max_new_tokens < 1:
        raise table.error("max_new_tokens", f"must be at least 1, got {sample.max_new_tokens}")
    if sample.number is not None and not math.isfinite(sample.number):
        raise table.error("number", f"must be finite, got {sample.number}")
    if sample.code:
        _check_code(table, sample.code)
    if sample.code_function and not sample.code_function.isidentifier():
        raise table.error("code_function", f"must be a function's name, got {sample.code_function!r}")
    table.finish()
    if not sample.expects:
        raise table.error(
            "name", f"{sample.name!r} expects nothing", mend="add contains, contains_any, number, code or code_function"
        )
    return sample


def _messages(table: Table) -> tuple[Message, ...]:
    messages: list[Any] = table.take("messages", list)
    for message in messages:
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            raise table.error("messages", f"must be tables with role and content, got {message!r}")
        if message["role"] not in ROLES:
            raise table.error("messages", f"has the role {message['role']!r}, which is none of {', '.join(ROLES)}")
        if not isinstance(message["content"], str) or not message["content"].strip():
            raise table.error("messages", f"has no text in {message!r}")
    if not messages or messages[-1]["role"] != "user":
        raise table.error("messages", "must end with a message of the user, for the model to answer")
    return tuple(Message(message["role"], message["content"]) for message in messages)


def _check_code(table: Table, code: str) -> None:
    try:
        functions = functions_of(parse_code(code))
    except ValueError as error:
        raise table.error("code", f"is not Python: {error}") from error
    if len(functions) != 1:
        raise table.error("code", f"must define one function at its top level, it defines {len(functions)}")
