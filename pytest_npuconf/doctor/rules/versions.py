"""Versions that do not belong together, by the data and the judgement of the audit."""

from __future__ import annotations

import re
from collections.abc import Iterator

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from pytest_npuconf.audit.data import Release, chips
from pytest_npuconf.audit.data import versions as version_data
from pytest_npuconf.audit.findings import Level as AuditLevel
from pytest_npuconf.audit.rules.versions import candidates, judge_package, judge_platform
from pytest_npuconf.audit.stated_versions import Stated, release, version_of
from pytest_npuconf.doctor.case import Case, Rule
from pytest_npuconf.doctor.findings import Finding, Level

HAS = "this host has"


def stack(case: Case) -> Iterator[Finding]:
    """torch, torch_npu, transformers, vLLM and CANN against the release of vllm-ascend that is installed."""
    ascend = case.stated("vllm_ascend")
    releases = candidates(ascend) if ascend is not None else ()
    if ascend is not None and not releases:
        what = f"vllm-ascend {ascend.text} is no release that is known here (up to {version_data().newest_vllm_ascend})"
        yield Finding("stack", Level.NOTE, what, case.where("vllm_ascend"), "pip install -U pytest-npuconf")
    for wanted in releases:
        for name in ("torch", "torch_npu", "transformers", "vllm", "cann"):
            yield from _against(case, wanted, name)


def _against(case: Case, wanted: Release, name: str) -> Iterator[Finding]:
    stated = case.stated(name)
    if stated is None:
        return
    judge = judge_platform if name in ("vllm", "cann") else judge_package
    verdict = judge(wanted, name, stated, HAS)
    if verdict is None:
        return
    level = Level.PROBLEM if verdict[0] is AuditLevel.CONTRADICTION else Level.WARNING
    where = f"{case.where(name)}; {wanted.source}"
    yield Finding("stack", level, verdict[1], where, _mend(wanted, name))


def _mend(wanted: Release, name: str) -> str:
    if name == "cann":
        return f"install CANN {wanted.cann} and source its set_env.sh"
    if name == "vllm":
        return f"pip install vllm=={wanted.vllm[-1]}"
    specifier = dict(wanted.requires).get(name, "")
    return f"pip install '{name.replace('_', '-')}{specifier}'"


def torch_pair(case: Case) -> Iterator[Finding]:
    """torch_npu is built for one version of torch, and released with one of CANN."""
    torch, torch_npu = case.version("torch"), case.version("torch_npu")
    if torch_npu is None:
        return
    if torch is not None and release(torch) != release(torch_npu):
        minor = release(torch, 2) != release(torch_npu, 2)
        wanted = ".".join(map(str, release(torch_npu)))
        what = f"torch_npu {torch_npu} is built for torch {wanted}, this host has {torch}"
        where = f"{case.where('torch')}; {case.where('torch_npu')}; https://gitcode.com/Ascend/pytorch COMPATIBILITY.md"
        yield Finding(
            "torch-pair", Level.PROBLEM if minor else Level.WARNING, what, where, f"pip install torch=={wanted}"
        )
    known = next((each for each in version_data().torch_npu if Version(each.version) == torch_npu), None)
    cann = case.version("cann")
    if known is None or cann is None or case.has("vllm_ascend"):
        return  # vllm-ascend's own word on CANN is the rule before
    if release(cann, 2) < release(Version(known.cann), 2):
        what = (
            f"torch_npu {torch_npu} was released with CANN {known.cann}, this host has {case.fingerprint.value('cann')}"
        )
        mend = f"install CANN {known.cann} and source its set_env.sh"
        yield Finding("torch-pair", Level.WARNING, what, f"{case.where('cann')}; {known.source}", mend)


def python_numpy(case: Case) -> Iterator[Finding]:
    """Python and numpy within the range of the stack that is installed."""
    releases = _open_releases(case)
    if not releases:
        return
    stack_name = (
        f"vllm-ascend {releases[0].version}" if case.has("vllm_ascend") else "the serving stack of this torch_npu"
    )
    python = Version(".".join(map(str, release(Version(case.host.python.rstrip("+")), 2))))
    ranges = sorted({each.python for each in releases if each.python})
    if ranges and not any(SpecifierSet(each).contains(python) for each in ranges):
        oldest = re.search(r"<\s*3\.(\d+)", ranges[-1])
        minor = int(oldest[1]) - 1 if oldest else python.minor
        what = f"{stack_name} is for Python {' or '.join(ranges)}, this is {case.host.python}"
        mend = f"python3.{minor} -m venv .venv, and install the stack there"
        yield Finding("python-numpy", Level.PROBLEM, what, f"{case.where('python')}; {releases[0].source}", mend)
    numpy = case.version("numpy")
    specifiers = [dict(each.requires).get("numpy", "") for each in releases]
    if numpy is not None and not any(SpecifierSet(each).contains(numpy) for each in specifiers):
        what = f"{stack_name} asks for numpy {specifiers[0]}, this host has {numpy}"
        where = f"{case.where('numpy')}; {releases[0].source}"
        yield Finding("python-numpy", Level.PROBLEM, what, where, f"pip install 'numpy{specifiers[0]}'")


def _open_releases(case: Case) -> tuple[Release, ...]:
    """The release that is installed, or those of the torch_npu that is."""
    ascend, torch_npu = case.stated("vllm_ascend"), case.stated("torch_npu")
    if ascend is not None:
        return candidates(ascend)
    if torch_npu is None:
        return ()
    return tuple(each for each in version_data().vllm_ascend if _same(each.torch_npu, torch_npu))


def _same(text: str, stated: Stated) -> bool:
    version = version_of(text)
    return version is not None and release(version) == release(stated.version)


def driver(case: Case) -> Iterator[Finding]:
    """The driver is older than those that the release of CANN is documented to go with."""
    cann, found = case.version("cann"), re.match(r"(\d+)\.(\d+)", case.fingerprint.value("driver"))
    if cann is None or found is None:
        return
    mine = (int(found[1]), int(found[2]))
    for each in chips().drivers:
        fit = [release(version, 2) for hdk in each.hdk if (version := version_of(hdk)) is not None]
        if release(Version(each.cann), 2) == release(cann, 2) and mine < min(fit):
            what = f"CANN {case.fingerprint.value('cann')} goes with driver {' or '.join(each.hdk)}, this host has {found.string}"
            mend = f"install the driver (Ascend HDK) {each.hdk[0]} on the host"
            yield Finding("driver", Level.WARNING, what, f"{case.where('driver')}; {each.source}", mend)


RULES = (
    Rule("stack", "the serving stack's versions fit each other", stack),
    Rule("torch-pair", "torch_npu fits torch and CANN", torch_pair),
    Rule("python-numpy", "Python and numpy are in the stack's range", python_numpy),
    Rule("driver", "the driver fits CANN", driver, ("npu",)),
)
