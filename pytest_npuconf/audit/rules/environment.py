"""Environment variables that nothing reads."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator

from packaging.version import Version

from pytest_npuconf.audit.context import Context, Rule
from pytest_npuconf.audit.data import Variable
from pytest_npuconf.audit.data import environment as environment_data
from pytest_npuconf.audit.findings import Finding, Level
from pytest_npuconf.audit.lines import DENIED, Line, lines_of
from pytest_npuconf.audit.rules.shell import joined
from pytest_npuconf.audit.stated_versions import settled, stated_versions

ID = "environment-variable"
_DEVICES = re.compile(r"ASCEND_(?:RT_VISIBLE|VISIBLE|RT)_DEVICES?(?:_IDS?|_LIST)?")
# What is given to a script by "NAME=value bash run.sh" is the script's.
_SCRIPT = re.compile(r"\S\.sh\b")
# "$NAME" is read by the command line that has it.
_EXPANDED = re.compile(r"\$\{?([A-Z][A-Z0-9_]*)")
_NAME = re.compile(r"(?<![A-Za-z0-9_$])(?<!\$\{)[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+(?![A-Za-z0-9_*])")


def check(context: Context) -> Iterator[Finding]:
    """Names under vllm-ascend's prefix that no release has, names that are written for another, lists out of order."""
    lines = lines_of(context.card)
    uses: dict[str, list[int]] = {}
    commands = joined(context)
    own = set(_EXPANDED.findall("\n".join(context.card.lines)))
    for line in lines:
        if DENIED.search(line.text):
            continue
        if line.code and _SCRIPT.search(commands.get(line.number, "")):
            own |= set(_NAME.findall(line.text))
        for name in _NAME.findall(line.text):
            uses.setdefault(name, []).append(line.number)
    stated = settled(stated_versions(context.card), "vllm_ascend")
    for name, where in uses.items():
        if name in own and name not in dict(environment_data().mistakes):
            continue
        yield from _judge(context, name, where, stated.version if stated and not stated.least else None)
    for line in lines:
        yield from _order(context, line)


def _judge(context: Context, name: str, where: list[int], stated: Version | None) -> Iterator[Finding]:
    data = environment_data()
    also = f" (also line {', '.join(str(n) for n in where[1:])})" if len(where) > 1 else ""
    meant = dict(data.mistakes).get(name)
    if meant is not None:
        message = f"{name} is no variable of the stack: nothing reads it; {meant} is the one that exists{also}"
        yield context.finding(ID, Level.CONTRADICTION, where[0], message, data.source)
        return
    if not name.startswith(data.prefix):
        if _DEVICES.fullmatch(name) and name not in data.known:
            message = (
                f"{name} is not known as a variable of the stack; devices are chosen by ASCEND_RT_VISIBLE_DEVICES{also}"
            )
            yield context.finding(ID, Level.IMPLAUSIBLE, where[0], message, data.source)
        return
    known = {each.name: each for each in data.variables}
    if name in known:
        yield from _out_of_date(context, known[name], where, stated)
        return
    newest = Version(data.newest)
    level = Level.UNSUPPORTED if stated is not None and stated > newest else Level.IMPLAUSIBLE
    if stated is not None and stated <= newest:
        level = Level.CONTRADICTION
    near = difflib.get_close_matches(name, [*known, *data.known], n=2, cutoff=0.75)
    hint = f"; the nearest are {' and '.join(near)}" if near else ""
    message = f"no release of {data.owner} up to {data.newest} has {name}: nothing reads it{hint}{also}"
    yield context.finding(ID, level, where[0], message, data.source)


def _out_of_date(context: Context, variable: Variable, where: list[int], stated: Version | None) -> Iterator[Finding]:
    if stated is None or not variable.first:
        return
    early = stated.base_version < variable.first and stated < Version(variable.first)
    late = variable.last != "newest" and Version(stated.base_version) > Version(Version(variable.last).base_version)
    if early or late:
        last = "the newest" if variable.last == "newest" else variable.last
        message = f"{variable.name} is defined from release {variable.first} to {last}, the card has {stated}"
        yield context.finding(ID, Level.AMBIGUOUS, where[0], message, environment_data().source)


def _order(context: Context, line: Line) -> Iterator[Finding]:
    for name in environment_data().ascending:
        match = re.search(rf"{name}['\"]?\]?\s*=\s*(['\"]?)(\d{{1,4}}(?:\s*,\s*\d{{1,4}})+)(?!\d)", line.text)
        if match is None or DENIED.search(line.text):
            continue
        devices = [int(device) for device in match[2].split(",")]
        if devices != sorted(set(devices)):
            message = (
                f"{name} must list devices in ascending order, each once; {match[2]} is not, and no device may be found"
            )
            yield context.finding(ID, Level.IMPLAUSIBLE, line.number, message, "CANN's manual of environment variables")
        elif re.search(r"\s", match[2]) and line.code:
            message = f"{name} is read up to the first space: {match[2]} names the device {devices[0]} only"
            yield context.finding(ID, Level.IMPLAUSIBLE, line.number, message, "CANN's manual of environment variables")


RULES = (Rule(ID, "environment variables exist", check),)
