"""The versions that a card states, against what each release of the serving stack asks for."""

from __future__ import annotations

import re
from collections.abc import Iterator

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from pytest_npuconf.audit.context import Context, Rule
from pytest_npuconf.audit.data import Release
from pytest_npuconf.audit.data import versions as version_data
from pytest_npuconf.audit.findings import Finding, Level
from pytest_npuconf.audit.lines import code_lines
from pytest_npuconf.audit.stated_versions import Stated, release, settled, stated_versions, version_of

ID = "versions"
_PACKAGES = ("torch", "torch_npu", "transformers", "numpy")
_PIP = re.compile(r"pip3?\s+install\b(.*)", re.IGNORECASE)
_PIN = re.compile(r"(?<![\w-])(vllm(?:[-_]ascend)?)\s*==\s*v?([0-9][\w.]*)", re.IGNORECASE)


def check(context: Context) -> Iterator[Finding]:
    """Pins against the matrix, torch against torch_npu, and pip lines that cannot both have their way."""
    found = stated_versions(context.card)
    ascend = settled(found, "vllm_ascend")
    torch, torch_npu = settled(found, "torch"), settled(found, "torch_npu")
    if ascend is not None:
        yield from _against_release(context, ascend, found)
    if torch is not None and torch_npu is not None:
        yield from _torch_pair(context, torch, torch_npu)
    yield from _architecture(context, settled(found, "transformers"))
    yield from _pip_lines(context)


def candidates(ascend: Stated) -> tuple[Release, ...]:
    """The releases that the statement leaves open: one, or all from a minimum on."""
    known = version_data().vllm_ascend
    if ascend.least:
        return tuple(each for each in known if Version(each.version) >= ascend.version)
    exact = tuple(each for each in known if Version(each.version) == ascend.version)
    return exact or tuple(each for each in known if Version(each.version).base_version == str(ascend.version))[:1]


def _against_release(context: Context, ascend: Stated, found: tuple[Stated, ...]) -> Iterator[Finding]:
    releases = candidates(ascend)
    if not releases:
        return
    agreed = []
    for name in _PACKAGES:
        stated = settled(found, name)
        if stated is None or (name == "torch_npu" and stated.version.major >= 5):
            continue  # 7.3.0 and 26.1.0 number the product, not the package
        verdicts = [judge_package(each, name, stated) for each in releases]
        if any(verdict is None for verdict in verdicts):
            agreed.append(f"{name} {stated.text}")
            continue
        level, message = next(verdict for verdict in verdicts if verdict is not None)
        level = _softened(level, ascend, stated)
        yield context.finding(
            ID, level, stated.line, message, f"line {ascend.line}: vllm-ascend {ascend.text}; {releases[0].source}"
        )
    for name in ("vllm", "python", "cann"):
        stated = settled(found, name)
        if stated is None:
            continue
        problems = [judge_platform(each, name, stated) for each in releases]
        if all(problems):
            level, message = next(problem for problem in problems if problem)
            level = _softened(level, ascend, stated)
            yield context.finding(
                ID, level, stated.line, message, f"line {ascend.line}: vllm-ascend {ascend.text}; {releases[0].source}"
            )
        else:
            agreed.append(f"{name} {stated.text}")
    if agreed:
        message = f"agrees with vllm-ascend {ascend.text}: {', '.join(agreed)}"
        yield context.finding(ID, Level.FINE, ascend.line, message, releases[0].source)


def _softened(level: Level, ascend: Stated, stated: Stated) -> Level:
    """A minimum leaves room; a version in a sentence of its own may be about something else than this environment."""
    if stated.weight < 2 and stated.line != ascend.line:
        return Level.AMBIGUOUS
    return Level.IMPLAUSIBLE if ascend.least and level is Level.CONTRADICTION else level


def judge_package(wanted: Release, name: str, stated: Stated, has: str = "the card has") -> tuple[Level, str] | None:
    """What is wrong with the stated version of a package, or None. ``has``: whose version it is, in words."""
    specifier = dict(wanted.requires).get(name, "")
    if not specifier or not _judgeable(specifier):
        return None
    asks = f"vllm-ascend {wanted.version} asks for {name} {specifier}"
    if SpecifierSet(specifier, prereleases=True).contains(Version(stated.version.base_version)):
        return None
    if stated.least:
        lower = re.match(r">=\s*([\w.]+)|==\s*([\w.]+)", specifier)
        if lower and stated.version < Version(lower[1] or lower[2]):
            return Level.IMPLAUSIBLE, f"{asks}: a host with the stated minimum {stated.text} cannot have it"
        return None
    if specifier.startswith("=="):
        pinned = Version(specifier[2:])
        if release(pinned) == release(stated.version):
            return None  # another build of the same version: 2.9.0.post1
        if release(pinned, 2) == release(stated.version, 2):
            return Level.IMPLAUSIBLE, f"{asks}, {has} {stated.text}"
    if name == "transformers" and _close(specifier, stated.version):
        return Level.IMPLAUSIBLE, f"{asks}, {has} {stated.text}"
    return Level.CONTRADICTION, f"{asks}, {has} {stated.text}: not one environment"


def _judgeable(specifier: str) -> bool:
    """Development builds that pins named were never on the public index under that name alone."""
    return ".dev" not in specifier


def _close(specifier: str, version: Version) -> bool:
    """Whether only the last number misses a bound: 4.57.3 for >=4.57.4 may well have run."""
    bounds = [Version(bound) for bound in re.findall(r"(?:>=|<=|==)\s*([\w.]+)", specifier)]
    return any(release(bound, 2) == release(version, 2) for bound in bounds)


def judge_platform(wanted: Release, name: str, stated: Stated, has: str = "the card has") -> tuple[Level, str] | None:
    """vLLM, Python and CANN: what is wrong with the stated version, or None. ``has``: whose version it is, in words."""
    head = f"vllm-ascend {wanted.version} is for"
    if name == "vllm":
        minors = {release(Version(each), 2) for each in wanted.vllm}
        mine = release(stated.version, 2)
        if mine in minors or (stated.least and any(mine < minor for minor in minors)):
            return None
        far = all(minor[0] != mine[0] or abs(minor[1] - mine[1]) > 1 for minor in minors)
        level = Level.CONTRADICTION if far and not stated.least else Level.IMPLAUSIBLE
        return level, f"{head} vLLM {' or '.join(wanted.vllm)}, {has} {stated.text}"
    if name == "python":
        allowed = SpecifierSet(wanted.python)
        version = Version(".".join(map(str, release(stated.version, 2))))
        if stated.least or allowed.contains(version):
            return None
        low = min(Version(bound) for bound in re.findall(r">=\s*([\d.]+)", wanted.python))
        level = (
            Level.CONTRADICTION if version < low else Level.IMPLAUSIBLE
        )  # pip refuses an older one; a newer may be built
        return level, f"{head} Python {wanted.python}, {has} {stated.text}"
    if stated.least or release(stated.version, 2) >= release(Version(wanted.cann), 2):
        return None
    return Level.IMPLAUSIBLE, f"{head} CANN {wanted.cann}, {has} {stated.text}"


def _torch_pair(context: Context, torch: Stated, torch_npu: Stated) -> Iterator[Finding]:
    if torch.least or torch_npu.least or torch_npu.version.major >= 5:
        return
    if release(torch.version, 2) != release(torch_npu.version, 2):
        message = (
            f"torch_npu {torch_npu.text} is built for torch {'.'.join(map(str, release(torch_npu.version)))}, the "
            f"card has {torch.text}"
        )
        yield context.finding(
            ID,
            Level.CONTRADICTION,
            torch_npu.line,
            message,
            f"line {torch.line}: torch {torch.text}; {_npu_source(torch_npu)}",
        )
    elif release(torch.version) != release(torch_npu.version):
        message = f"torch_npu {torch_npu.text} is built for another patch release than torch {torch.text}"
        yield context.finding(
            ID,
            Level.IMPLAUSIBLE,
            torch_npu.line,
            message,
            f"line {torch.line}: torch {torch.text}; {_npu_source(torch_npu)}",
        )


def _npu_source(torch_npu: Stated) -> str:
    return next(
        (each.source for each in version_data().torch_npu if Version(each.version) == torch_npu.version),
        "torch_npu's COMPATIBILITY.md",
    )


def _architecture(context: Context, stated: Stated | None) -> Iterator[Finding]:
    """A transformers that is older than the architecture of the model."""
    if stated is None or stated.least:
        return
    text = "\n".join(context.card.lines)
    for each in version_data().architectures:
        if re.search(rf"(?<![\w]){each.name}(?![\w])", text) and stated.version < Version(each.transformers):
            message = f"transformers {stated.text} does not know {each.name}, which came with {each.transformers}"
            yield context.finding(ID, Level.CONTRADICTION, stated.line, message, each.source)


def _pip_lines(context: Context) -> Iterator[Finding]:
    """vLLM's own pin of torch against vllm-ascend's."""
    pins: dict[str, tuple[Version, int]] = {}
    code = code_lines(context.card)
    for number, line in enumerate(context.card.lines, 1):
        command = _PIP.search(line)
        if command and (number in code or line.strip().startswith("pip")):
            for name, written in _PIN.findall(command[1]):
                version = version_of(written)
                if version is not None:
                    pins.setdefault(name.lower().replace("_", "-"), (version, number))
    if len(pins) < 2:
        return
    vllm = next((each for each in version_data().vllm if Version(each.version) == pins["vllm"][0]), None)
    ascend = next(
        (each for each in version_data().vllm_ascend if Version(each.version) == pins["vllm-ascend"][0]), None
    )
    if vllm is None or ascend is None:
        return
    first, second = dict(vllm.requires).get("torch", ""), dict(ascend.requires).get("torch", "")
    if not first.startswith("==") or not second.startswith("==") or first == second:
        return
    one_line = pins["vllm"][1] == pins["vllm-ascend"][1]
    level = Level.IMPLAUSIBLE if one_line else Level.AMBIGUOUS
    ends = (
        "pip cannot resolve them in one command"
        if one_line
        else "the last line wins and pip warns, as vllm-ascend's own guide has it"
    )
    message = f"the two packages pin different torch: vllm torch{first}, vllm-ascend torch{second}; {ends}"
    yield context.finding(
        ID, level, max(pins["vllm"][1], pins["vllm-ascend"][1]), message, f"{vllm.source}; {ascend.source}"
    )


RULES = (Rule(ID, "versions of the serving stack fit each other", check),)
