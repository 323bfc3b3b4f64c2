"""The versions that a card states: of what, which, exactly or at least, and where."""

from __future__ import annotations

import re
from dataclasses import dataclass

from packaging.version import InvalidVersion, Version

from pytest_npuconf.audit.document import CardText, kept
from pytest_npuconf.audit.lines import DENIED, Line, lines_of

# The written name of each component. The longer name stands first where one begins another.
_NAMES = {
    "vllm_ascend": r"vllm[-_ ]?ascend",
    "vllm": r"vllm",
    "torch_npu": r"torch[-_ ]npu|TorchNPU",
    "torch": r"(?:py)?torch",
    "transformers": r"transformers",
    "numpy": r"numpy",
    "cann": r"CANN(?:[- ]?toolkit)?",
    "python": r"python",
}
_VERSION = r"\d+\.\d+(?:\.\d+|\.x)?(?:[.-]?(?:rc|post|dev|alpha|beta|a|b)\.?\d+)*"
_STATED = re.compile(
    r"(?<![A-Za-z0-9_./-])(?:"
    + "|".join(f"(?P<{name}>{written})" for name, written in _NAMES.items())
    + r")(?![A-Za-z_])[\s`*]*(?:版本|version)?[\s:=|`*]*?(?P<op>==|>=|≥|<=|≤|~=|>|<|=|:|\|)?[\s|`*:]*v?(?P<version>"
    + _VERSION
    + r")(?P<after>\+(?!\s*[A-Za-z])|\s*(?:及以上|以上|或更高|或以上|及更高|and above|or (?:later|newer|above|higher)|and later))?"
    + r"(?P<more>\s?[-~–—/、]\s?v?\d+\.\d|\s?(?:or|and|或|和|至|to)\s?v?\d+\.\d"
    r"|\s?\([^)|]{0,40}\)\s?[,;、/]\s?v?\d+\.\d)?",
    re.IGNORECASE,
)
# Words that make a version something else than the environment of this card.
_OTHER = re.compile(
    r"升级|过低|低于|之前|以前|早于|原生支持|起支持|开始支持|引入|从.{0,12}起|镜像列表"
    r"|\b(?:upgrade|older|below|earlier|before|since|starting (?:from|with)|introduced|changelog|release notes"
    r"|as of)\b",
    re.IGNORECASE,
)
_CUDA = re.compile(r"\bCUDA\s?\d|\bcu1\d\d\b|\bROCm\b", re.IGNORECASE)


@dataclass(frozen=True)
class Stated:
    """``least``: the version is a minimum. ``weight``: 2 in a table or as a pin, 1 in prose."""

    name: str
    version: Version
    text: str
    least: bool
    line: int
    weight: int
    code: bool


@kept
def stated_versions(card: CardText) -> tuple[Stated, ...]:
    """Every version that the card gives of a component of the serving stack, ranges and alternatives left out."""
    found: list[Stated] = []
    for line in lines_of(card):
        if DENIED.search(line.text) and not line.code and "|" not in line.text:
            continue
        found += _in_line(line)
    return tuple(found)


def _in_line(line: Line) -> list[Stated]:
    found = []
    for match in _STATED.finditer(line.text):
        name = next(name for name in _NAMES if match[name])
        if match["more"] or match["op"] in ("<", "<=", "≤", "~=", ">") or match["version"].endswith(".x"):
            continue
        if not line.code and _OTHER.search(line.text):
            continue
        if line.code and name in ("python", "cann"):
            continue  # python3.11, paths and names of images
        version = version_of(match["version"])
        if version is None:
            continue
        if name == "torch" and _CUDA.search(line.text):
            continue  # that of another backend
        least = match["op"] in (">=", "≥") or bool(match["after"])
        if "|" in match.group() and re.search(rf"\|[^|]*{_VERSION}", line.text[match.end() :]):
            continue  # a column for each of several environments
        strong = match["op"] == "|" or (match["op"] == "==" and line.code) or _alone(line.text, match)
        found.append(Stated(name, version, match["version"], least, line.number, 2 if strong else 1, line.code))
    return found


def _alone(text: str, match: re.Match[str]) -> bool:
    """Whether the line is nothing but the name and its version, as a row of a table whose separators were lost."""
    return len(text.strip(" -*•·|")) <= match.end() - match.start() + 4


def version_of(text: str) -> Version | None:
    """The version that the text writes, or None where it writes none."""
    try:
        return Version(text) if len(text) < 40 else None
    except InvalidVersion:
        return None


def settled(found: tuple[Stated, ...], name: str) -> Stated | None:
    """The one version that the card gives of a component, or None where there is none or they differ.

    Statements in tables and pins come before prose, exact ones before minimums.
    """
    mine = [each for each in found if each.name == name and not (each.code and each.least)]
    for exact in (True, False):
        for weight in (2, 1):
            group = [each for each in mine if each.least is not exact and each.weight >= weight]
            if group:
                return group[0] if len({each.version for each in group}) == 1 else None
    return None


def release(version: Version, parts: int = 3) -> tuple[int, ...]:
    """The first numbers of a version, filled with zeros: 2.9 is (2, 9, 0)."""
    return (*version.release, 0, 0, 0)[:parts]
