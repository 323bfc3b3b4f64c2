"""Is there room for the card that was named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pytest_npuconf.devices.base import Memory
from pytest_npuconf.devices.npu import VISIBLE
from pytest_npuconf.doctor.case import Case, Rule
from pytest_npuconf.doctor.findings import Finding, Level
from pytest_npuconf.doctor.memory import Needed
from pytest_npuconf.fingerprint.npu_smi import COMMAND, Chip

NARROWER = "judge a narrower precision (--npuconf-precision bfloat16), or on a larger machine"
STORED = (
    "use a reference that was recorded elsewhere (npuconf install FILE; --npuconf-reference stored), or a larger host"
)


def memory(case: Case) -> Iterator[Finding]:
    """Weights, working memory and what else the run needs, against the device's memory and the host's."""
    needed = case.asked.needed
    if needed is None:
        return
    if needed.parameters is None or not needed.precisions:
        what = f"what {needed.model} needs is not known: {needed.source}"
        yield Finding("memory", Level.NOTE, what, needed.source, "state parameters = N in the card")
        return
    on_host = case.asked.device == "cpu"
    yield from _judge(
        "the host", needed.on_host(candidate=on_host), case.host.memory(), "sysconf, /proc/meminfo", STORED
    )
    if not on_host:
        yield from _on_device(case, needed)


def _on_device(case: Case, needed: Needed) -> Iterator[Finding]:
    chip = _first_visible(case)
    if chip is None or chip.total_mib is None:
        what = f"the memory of device {case.asked.device} is not known without starting it"
        mend = "pytest --npuconf-device " + case.asked.device + " checks it before the first test"
        yield Finding("memory", Level.NOTE, what, COMMAND, mend)
        return
    total, used = chip.total_mib << 20, (chip.used_mib or 0) << 20
    name = f"device {chip.index} ({chip.name})"
    yield from _judge(name, needed.on_device(case.asked.engine), Memory(total - used, total), COMMAND, NARROWER)


def _first_visible(case: Case) -> Chip | None:
    first = case.host.environ.get(VISIBLE, "0").split(",")[0]
    return next((chip for chip in case.collected.smi.chips if str(chip.index) == first.strip()), None)


def _judge(name: str, parts: Mapping[str, int], there: Memory, where: str, mend: str) -> Iterator[Finding]:
    need = sum(parts.values())
    listed = ", ".join(f"{part} {_gib(size)}" for part, size in parts.items() if size)
    if need > there.total:
        what = f"{name} has {_gib(there.total)} in all, {_gib(need)} are needed ({listed})"
        yield Finding("memory", Level.PROBLEM, what, where, mend)
    elif need > there.free:
        what = f"{name} has {_gib(there.free)} free of {_gib(there.total)}, {_gib(need)} are needed ({listed})"
        yield Finding("memory", Level.WARNING, what, where, f"end what else runs there, or {mend}")


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"


RULES = (Rule("memory", "the card that is named fits", memory),)
