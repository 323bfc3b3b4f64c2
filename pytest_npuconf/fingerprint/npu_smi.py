"""``npu-smi info`` as a table of chips.

The layout differs from driver to driver, and is read by its own header: the columns ``Chip`` or ``Chip Phy-ID`` or
``Chip Device``, and memory under ``HBM-Usage(MB)`` or, on parts without HBM, ``Memory-Usage(MB)``. Samples of six drivers with
their sources are in tests/data/npu_smi.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pytest_npuconf.fingerprint.process import Run

COMMAND = "npu-smi info"
_VERSION = re.compile(r"npu-smi\s+(\S+)\s+Version:\s*(\S+)")
_CARD = re.compile(r"^(\d+)\s+(\S.*)$")
_CHIP = re.compile(r"^(\d+)(?:\s+(\d{1,6}|-|NA))?$")
_PAIR = re.compile(r"(\d{1,12})\s*/\s*(\d{1,12})")


@dataclass(frozen=True)
class Chip:
    """One row pair. ``index``: the number that programs use, which is the Phy-ID where there is one, else the order.
    Memory in MiB as npu-smi counts it, None where the table has none."""

    index: int
    name: str
    health: str
    used_mib: int | None = None
    total_mib: int | None = None


@dataclass(frozen=True)
class Smi:
    """What npu-smi said. ``trouble``: why it said nothing; ``present``: whether there is such a command at all."""

    version: str = ""
    chips: tuple[Chip, ...] = ()
    trouble: str = ""
    present: bool = True


def ask(path: str | None, run: Run, environ: Mapping[str, str]) -> Smi:
    """Run it, at most ten seconds.

    Args:
        path: of npu-smi, None where there is none.
    """
    if path is None:
        return Smi(present=False)
    output = run([path, "info"], environ)
    if not output.ok:
        return Smi(trouble=f"`{COMMAND}` {output.why()}")
    return parse(output.stdout)


def parse(text: str) -> Smi:
    """The table. A text without one is a trouble, never an empty list of chips."""
    found = _VERSION.search(text)
    version = found[2] if found else ""
    chips: list[Chip] = []
    card: tuple[str, str] | None = None
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if "Process id" in line:  # the second table: what runs on the chips
            break
        if len(cells) != 3 or cells[0].startswith(("NPU", "+")):
            continue
        if card is None:
            named = _CARD.match(cells[0])
            card = (named[2].strip(), cells[1]) if named else None
            continue
        numbered = _CHIP.match(cells[0])
        if numbered is None:
            return Smi(version, trouble=f"`{COMMAND}` has a row that is not understood: {line.strip()}")
        used, total = _memory(cells[2])
        index = int(numbered[2]) if numbered[2] and numbered[2].isdigit() else len(chips)
        chips.append(Chip(index, *card, used, total))
        card = None
    if not chips:
        said = " ".join(text.split())[:200] or "nothing"
        return Smi(version, trouble=f"`{COMMAND}` prints no table of chips: {said}")
    return Smi(version, tuple(chips))


def _memory(cell: str) -> tuple[int | None, int | None]:
    """The last ``used / total`` of the row: HBM stands after DDR, and parts without HBM have DDR alone."""
    pairs = _PAIR.findall(cell)
    return (int(pairs[-1][0]), int(pairs[-1][1])) if pairs else (None, None)
