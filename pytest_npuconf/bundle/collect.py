"""What goes into a bundle: found, read once, and judged before anything is written."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_npuconf.bundle.archive import LARGEST, name_problem
from pytest_npuconf.bundle.card_again import compare_card, member_of, other_bytes, read_rules
from pytest_npuconf.bundle.claims_again import recheck_claims
from pytest_npuconf.bundle.findings import BundleError, Finding, contradictions
from pytest_npuconf.bundle.junit_again import JUNIT
from pytest_npuconf.bundle.manifest import MANIFEST, make_manifest
from pytest_npuconf.bundle.readme import README, make_readme
from pytest_npuconf.bundle.results_file import RESULTS, derived, read_results
from pytest_npuconf.bundle.verify import judge
from pytest_npuconf.cards import known_cards
from pytest_npuconf.errors import CardError

CARD = "card.md"
_NAMES = ("--model", "--npuconf-model")
_BASELINES = "--npuconf-baselines"


@dataclass(frozen=True)
class Inputs:
    """The files that were named. Server logs beside the results, and the models' cards, are looked for."""

    results: Path
    junit: Path | None = None
    logs: tuple[Path, ...] = ()
    card: Path | None = None

    def every_log(self) -> list[Path]:
        """Those named, and ``server-*.log`` beside the results; a file that is named twice counts once."""
        beside = sorted(self.results.parent.glob("server-*.log"))
        found = {path.resolve(): path for path in (*self.logs, *beside)}
        return list(found.values())


@dataclass(frozen=True)
class Gathered:
    """The members by name; what belongs into the bundle and is not there, with the reason; what was read of results.json."""

    contents: dict[str, bytes]
    not_found: dict[str, str]
    results: dict[str, Any]
    sources: tuple[Path, ...]


def gather(inputs: Inputs) -> Gathered:
    """Read everything.

    Raises:
        OtherVersionError: the results are of another schema version.
        BundleError: a file is missing, the results cannot be used or contradict themselves or the JUnit file, two members
            would have one name, or all of it is too large.
    """
    data = _read(inputs.results)
    results = read_results(data, str(inputs.results))
    named = [(JUNIT, inputs.junit), (CARD, inputs.card)]
    files = [(member, path) for member, path in named if path is not None]
    files += [(f"logs/{path.name}", path) for path in inputs.every_log()]
    contents = {RESULTS: data, **derived(results)}
    for member, path in files:
        _add(contents, member, path)
    not_found = {}
    for model in results["models"]:
        found, why = _card(model, results, inputs.results.parent)
        if found is not None:
            contents[member_of(model)] = found
        else:
            not_found[member_of(model)] = why
    contents[README] = make_readme(results, not_found)
    _check(contents, inputs.results)
    contents[MANIFEST] = make_manifest(contents, results, not_found)
    return Gathered(contents, not_found, results, (inputs.results, *(path for _, path in files)))


def _add(contents: dict[str, bytes], member: str, path: Path) -> None:
    same = next((name for name in contents if name.casefold() == member.casefold()), None)
    if same is not None:
        raise BundleError(f"{path}: the bundle has a {same} already", mend=f"rename one of the two files {path.name}")
    if problem := name_problem(member):
        raise BundleError(f"{path}: its name {problem}", mend="rename the file")
    contents[member] = _read(path)
    total = sum(len(data) for data in contents.values())
    if total > LARGEST:
        raise BundleError(
            f"{path}: with its {len(contents[member]):,} bytes the bundle has {total:,}, at most {LARGEST:,} are allowed",
            mend="shorten that log, or leave it out",
        )


def _read(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise BundleError(f"{path}: is no file", mend="npuconf bundle RESULTS.json [--junit FILE] [--log FILE]")
        if path.stat().st_size > LARGEST:
            raise BundleError(f"{path}: is larger than {LARGEST:,} bytes", mend="shorten it, or leave it out")
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error}", mend=f"ls -l {path}") from error


def _check(contents: Mapping[str, bytes], path: Path) -> None:
    """A bundle that ``npuconf verify`` would refuse is not made."""
    found = contradictions(judge(contents).findings)
    if found:
        more = f"\n  ... and {len(found) - 5} more" if len(found) > 5 else ""
        listed = "\n".join(f"  {finding}" for finding in found[:5])
        raise BundleError(
            f"{path}: contradicts itself, or a file that was given with it:\n{listed}{more}",
            mend="take all files from one run, as it wrote them",
        )


def _card(model: str, results: Mapping[str, Any], folder: Path) -> tuple[bytes | None, str]:
    """The card that the run had, or why it is not taken. The first card of the model's name is the one."""
    for path in _candidates(model, results["facts"].get("command", ""), folder):
        try:
            data = path.read_bytes()
            card = read_rules(data, str(path))
        except (OSError, CardError) as error:
            return None, f"{path} cannot be read: {getattr(error, 'what', error)}"
        if card.name != model:
            continue
        if changed := other_bytes(data, model, results):
            return None, f"{path} is not the file that the run had: its sha256 is {changed.recomputed}"
        without = recheck_claims(results, {})
        with_it = [f for f in contradictions(recheck_claims(results, {model: card})) if f not in without]
        differing: list[Finding] = [*compare_card(card, model, results), *with_it]
        if differing:
            return None, f"{path} does not agree with the results, so it was changed since: {differing[0]}"
        return data, ""
    return (
        None,
        "not found: name it in the command of the run (--model path/to/card.toml), or install it with the shipped ones",
    )


def _candidates(model: str, command: str, folder: Path) -> Iterator[Path]:
    """Cards that the run's command names, then those of the folders that it had."""
    words = _words(command)
    for name in (part.strip() for value in _values(words, _NAMES) for part in value.split(",")):
        if name.endswith(".toml"):
            path = Path(name).expanduser()
            yield from (place for place in dict.fromkeys((Path.cwd() / path, folder / path)) if place.is_file())
    for name in _values(words, (_BASELINES,)):
        path = Path(name).expanduser()
        for place in dict.fromkeys((Path.cwd() / path, folder / path)):
            if place.is_dir():
                yield from (
                    known for key, known in known_cards(place).items() if key == model and place in known.parents
                )
    shipped = known_cards().get(model)
    if shipped is not None:
        yield shipped


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:
        return []


def _values(words: list[str], names: Iterable[str]) -> Iterator[str]:
    """What stands behind an option, as its next word or after ``=``."""
    for number, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in names:
            following = words[number + 1] if number + 1 < len(words) else ""
            yield value if equals else following
