"""Readers of the tables that say how a model is served: ``[serving]``, its modes, and ``[[rerank]]``."""

from __future__ import annotations

from pathlib import Path

from packaging.version import InvalidVersion, Version

from pytest_npuconf.cards.schema import Refusal, RerankExample, Serving, ServingMode
from pytest_npuconf.cards.toml_reader import Table

MODES = ("generate", "tensor_parallel", "embed", "score", "classify")
RANKING = ("embed", "score")
SERVERS = ("vllm", "lmdeploy")
FEWEST = 3  # tokens of a boundary: the shortest prompt before it is two tokens shorter


def read_serving(table: Table, folder: Path) -> Serving:
    """``[serving]``; one mode, ``generate``, when it names none."""
    longest = table.take("max_model_len", int) if table.take_any("max_model_len") is not None else None
    if longest is not None and longest < 2:
        raise table.error("max_model_len", f"must be at least 2 tokens, got {longest}")
    boundaries = table.take("boundaries", list, [128])
    for boundary in boundaries:
        if not isinstance(boundary, int) or isinstance(boundary, bool) or boundary < FEWEST:
            raise table.error("boundaries", f"must be lengths in tokens of at least {FEWEST}, got {boundary!r}")
    if not boundaries:
        raise table.error("boundaries", "names no length", mend="leave it out for the default, 128")
    modes = table.table("modes")
    found = tuple(_mode(name, modes.table(name), modes, folder) for name in list(modes.data))
    serving = Serving(
        server=table.choice("server", SERVERS, "vllm"),
        max_model_len=longest,
        arguments=table.strings("arguments", []),
        boundaries=tuple(boundaries),
        modes=found or (ServingMode("generate"),),
    )
    table.finish()
    return serving


def _mode(name: str, table: Table, modes: Table, folder: Path) -> ServingMode:
    if name not in MODES:
        raise modes.error(name, f"is no mode of a server: one of {', '.join(MODES)}")
    template = None
    if table.take_any("template") is not None:
        template = (folder / Path(table.words("template")).expanduser()).resolve()
        if not template.is_file():
            raise table.error("template", f"names no file: {template}")
    elif name == "score":
        raise table.error("template", "is missing: the recipe's prompt", mend='add: template = "file.jinja"')
    refused = _refusal(table.table("refused")) if "refused" in table else None
    mode = ServingMode(name, table.strings("arguments", []), template, refused)
    table.finish()
    return mode


def _refusal(table: Table) -> Refusal:
    below = table.words("below") if table.take_any("below") is not None else ""
    try:
        Version(below or "0")
    except InvalidVersion as error:
        raise table.error("below", f"must be a version such as '0.19.0', got {below!r}") from error
    refusal = Refusal(table.words("says"), below)
    table.finish()
    return refusal


def read_rerank(root: Table) -> tuple[RerankExample, ...]:
    """``[[rerank]]``: each with a name of its own and at least two documents."""
    found: list[RerankExample] = []
    for table in root.tables("rerank"):
        example = RerankExample(
            table.words("name"),
            table.words("query"),
            table.strings("documents"),
            table.strings("modes", list(RANKING)),
        )
        if len(example.documents) < 2 or len(set(example.documents)) != len(example.documents):
            raise table.error("documents", "must be at least two, best first, and no two alike")
        if not example.modes:
            raise table.error("modes", f"names none, so nothing would be ranked: {', '.join(RANKING)}")
        for mode in example.modes:
            if mode not in RANKING:
                raise table.error("modes", f"holds {mode!r}, which ranks nothing: {', '.join(RANKING)}")
        if any(example.name == earlier.name for earlier in found):
            raise table.error("name", f"{example.name!r} appears twice")
        table.finish()
        found.append(example)
    return tuple(found)
