"""The options of a server's command line, read from the engine's own source with ``ast``: nothing of it is imported.

Seen in the wheels of vLLM 0.18.0 and 0.32.0 and of LMDeploy 0.9.2, 0.12.3 and 0.18.0 (``make serve-arguments``). What the
engine reads from dataclasses at run time (the values that an option of vLLM takes) is left to its own parser, and so to a
failing start.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_npuconf.errors import EngineError, nearest

Source = Callable[[str], "str | None"]
"""The text of a file of a package (``vllm/engine/arg_utils.py``), None where the package has no such file."""

VLLM_ENGINE = "vllm/engine/arg_utils.py"
VLLM_FRONTENDS = ("vllm/entrypoints/openai/cli_args.py", "vllm/entrypoints/launchers/cli_args.py")  # 0.18; 0.32
LMDEPLOY_SERVE, LMDEPLOY_HELPER = "lmdeploy/cli/serve.py", "lmdeploy/cli/utils.py"
_FLAG = re.compile(r"--?[A-Za-z]")
_SWITCHES = ("store_true", "store_false")


@dataclass(frozen=True)
class Option:
    """``flags``: every spelling; none of a positional argument. ``choices``: the values it takes, None where the source does
    not list them. ``switch``: it takes no value."""

    flags: tuple[str, ...]
    choices: tuple[str, ...] | None = None
    switch: bool = False


Known = Mapping[str, Option]
"""Options by each of their flags."""


def installed_source(package: str) -> Source:
    """Reads the files of an installed package; every answer is None where it is not installed. Imports nothing."""
    spec = importlib.util.find_spec(package)
    folders = [Path(folder).parent for folder in (spec.submodule_search_locations or ())] if spec else []

    def read(member: str) -> str | None:
        found = next((folder / member for folder in folders if (folder / member).is_file()), None)
        return found.read_text(encoding="utf-8") if found else None

    return read


def vllm_options(source: Source) -> Known | None:
    """Flags of ``vllm serve``: every literal ``add_argument`` of the two files, and each field of a frontend's dataclass.

    ``--no-x`` is known beside each ``--x``: which of them are switches is said by dataclasses elsewhere. None: not laid out
    as in the versions above.
    """
    engine = source(VLLM_ENGINE)
    frontends = [text for text in map(source, VLLM_FRONTENDS) if text is not None]
    if engine is None or not frontends:
        return None
    found = [option for text in (engine, *frontends) for option in _literal_options(_parse(text))]
    for text in frontends:
        for node in ast.walk(_parse(text)):
            if isinstance(node, ast.ClassDef) and node.name.endswith("FrontendArgs"):
                found += [Option((_dashed(name),)) for name in _fields(node)]
    known = {flag: option for option in found for flag in option.flags}
    return {**{f"--no-{flag[2:]}": option for flag, option in known.items() if flag.startswith("--")}, **known}


def lmdeploy_options(source: Source) -> Known | None:
    """Flags of ``lmdeploy serve api_server``: the literal ``add_argument`` calls of ``add_parser_api_server`` and those of the
    ``ArgumentHelper`` methods that it calls. None: not laid out as in the versions above."""
    serve, helper = source(LMDEPLOY_SERVE), source(LMDEPLOY_HELPER)
    if serve is None or helper is None:
        return None
    main = _functions(_parse(serve)).get("add_parser_api_server")
    if main is None:
        return None
    helpers = _functions(_parse(helper))
    calls = [node.func for node in ast.walk(main) if isinstance(node, ast.Call)]
    asked = [call.attr for call in calls if ast.unparse(call).startswith("ArgumentHelper.") and hasattr(call, "attr")]
    found = [*_literal_options(main), *(option for name in asked for option in _literal_options(helpers[name]))]
    return {flag: option for option in found for flag in option.flags}


def check_words(words: Sequence[str], known: Known | None, *, engine: str, where: str) -> None:
    """Find what the engine's parser would refuse, as far as ``known`` tells: a flag it has not, a value it does not take.

    Args:
        known: None checks nothing; the engine's own parser then says it when it starts.
        where: whose words they are, for the message.

    Raises:
        EngineError: naming the word.
    """
    if known is None:
        return
    for i, word in enumerate(words):
        if not is_flag(word):
            continue
        flag = flag_of(word)
        option = known.get(flag)
        if option is None:
            raise EngineError(
                f"{where}: {engine} has no option {flag}{nearest(flag, list(known))}",
                mend=f"write the option in full, as the help of {engine} lists it",
            )
        value = _value(word, words[i + 1 : i + 2])
        if option.switch or option.choices is None or value is None or value in option.choices:
            continue
        raise EngineError(
            f"{where}: {engine} does not take {flag} {value}", mend=f"{flag} takes one of: {', '.join(option.choices)}"
        )


def is_flag(word: str) -> bool:
    """Whether a word of a command line is an option; a negative number or JSON is a value."""
    return _FLAG.match(word) is not None


def flag_of(word: str) -> str:
    """``--max_model_len=8`` and ``--compilation-config.mode`` without value and key, in dashes as both parsers read them;
    ``-O3`` is ``--optimization-level``."""
    name = word.split("=")[0].split(".")[0]
    if name.startswith("-O"):
        return "--optimization-level"
    return name.replace("_", "-") if name.startswith("--") else name


def value_of(words: Sequence[str], *flags: str) -> str | None:
    """What the words of a command line give to the first of these flags that stands there; None where none does, or it is
    given nothing."""
    for i, word in enumerate(words):
        if is_flag(word) and flag_of(word) in flags:
            return _value(word, words[i + 1 : i + 2])
    return None


def tensor_parallel(words: Sequence[str]) -> int:
    """Devices that the words of a vLLM's command line spread the model over."""
    return int(value_of(words, "--tensor-parallel-size", "-tp") or 1)


def _value(word: str, after: Sequence[str]) -> str | None:
    """The value that is given to the option of ``word``: behind its ``=``, or the word after it where that is no option."""
    if "=" in word:
        return word.partition("=")[2]
    return after[0] if after and not is_flag(after[0]) else None


def _parse(text: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SyntaxWarning: escapes that are not ours
        return ast.parse(text)


def _literal_options(scope: ast.AST) -> Iterator[Option]:
    for node in ast.walk(scope):
        if not (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument"
        ):
            continue
        flags = [each.value for each in node.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
        flags = [flag for flag in flags if is_flag(flag)]
        if flags:
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            action = given.get("action")
            switch = isinstance(action, ast.Constant) and action.value in _SWITCHES
            yield Option(tuple(flags), _choices(given.get("choices"), scope), switch)


def _choices(node: ast.expr | None, scope: ast.AST) -> tuple[str, ...] | None:
    """Literal choices, also those that are a default of the function's own parameter; None where they are computed."""
    if isinstance(node, ast.Name) and isinstance(scope, ast.FunctionDef):
        arguments = scope.args.args
        defaults = dict(zip((a.arg for a in arguments[::-1]), scope.args.defaults[::-1], strict=False))
        node = defaults.get(node.id)
    try:
        values = ast.literal_eval(node) if node is not None else None
    except ValueError:
        return None
    return None if values is None else tuple(str(value) for value in values if value is not None)


def _functions(tree: ast.Module) -> dict[str, ast.FunctionDef]:
    return {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def _fields(node: ast.ClassDef) -> list[str]:
    return [
        each.target.id for each in node.body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
    ]


def _dashed(name: str) -> str:
    return f"--{name.replace('_', '-')}"
