"""The Ascend software of this host: toolkit, driver, nnal. Installed, half installed, not sourced or absent: each is said.

Files: https://www.hiascend.com/document/detail/en/canncommercial/850/softwareinst/instg/instg_0044.html (CANN from 8.5 on in
``/usr/local/Ascend/cann``), the same page of 800 (before: ``ascend-toolkit/latest``), and collect_env.py of vllm-ascend.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

VARIABLES = ("ASCEND_TOOLKIT_HOME", "ASCEND_HOME_PATH")
DEFAULTS = ("usr/local/Ascend/cann", "usr/local/Ascend/ascend-toolkit/latest")
DRIVER = "usr/local/Ascend/driver/version.info"
ATB = "usr/local/Ascend/nnal/atb"
ATB_VARIABLE = "ATB_HOME_PATH"


@dataclass(frozen=True)
class Cann:
    """``version``: of the toolkit, empty where it is not known. ``folder``: of the toolkit, as seen from the root; ``sourced``:
    whether its set_env.sh was run in this environment. ``gaps``: what is missing of a half installed one, each with its mend."""

    version: str = ""
    source: str = ""
    folder: str = ""
    sourced: bool = False
    driver: str = ""
    driver_source: str = ""
    atb: str = ""
    atb_source: str = ""
    gaps: tuple[tuple[str, str, str], ...] = ()
    """What, where it was looked for, what mends it."""

    @property
    def installed(self) -> bool:
        """Whether there is a toolkit, whole or not."""
        return bool(self.folder)

    @property
    def state(self) -> str:
        """``installed``, ``not sourced``, ``half installed`` or ``absent``."""
        if self.gaps:
            return "half installed"
        if not self.installed:
            return "absent"
        return "installed" if self.sourced else "not sourced"


def find_cann(root: Path, environ: Mapping[str, str]) -> Cann:
    """Look where the environment says, then in the default folders. Reads files only."""
    named = [(name, environ[name]) for name in VARIABLES if environ.get(name)]
    gone = [(name, path) for name, path in named if not os.path.isdir(within(root, path))]
    there = [path for name, path in named if (name, path) not in gone]
    folder = there[0] if there else next((f"/{path}" for path in DEFAULTS if os.path.isdir(root / path)), "")
    gaps: list[tuple[str, str, str]] = []
    for name, path in gone:
        what = f"{name} names a folder that is not there: {path}"
        gaps.append((what, f"environment {name}", f"unset {name}; {set_env(folder)}"))
    version, source = _version(root, folder) if folder else ("", "")
    if folder and not version:
        gaps.append(
            (
                f"the toolkit in {folder} has no ascend_toolkit_install.info with a version",
                folder,
                "install the CANN toolkit again: ./Ascend-cann-toolkit_VERSION_linux-ARCH.run --install",
            )
        )
    driver, driver_source = _driver(root)
    if folder and not driver:
        gaps.append(
            (
                "the toolkit is there, but not the driver",
                f"/{DRIVER}",
                "install the driver on the host (Ascend HDK); in a container: docker run "
                "-v /usr/local/Ascend/driver:/usr/local/Ascend/driver -v /usr/local/bin/npu-smi:/usr/local/bin/npu-smi ...",
            )
        )
    atb, atb_source = _atb(root, environ)
    sourced = bool(named) and not gone
    return Cann(version, source, folder, sourced, driver, driver_source, atb, atb_source, tuple(gaps))


def set_env(folder: str) -> str:
    """The line that sources a toolkit: its own script, which lies in the folder or above ``latest``."""
    if not folder:
        return (
            "source /usr/local/Ascend/ascend-toolkit/set_env.sh (from CANN 8.5 on: /usr/local/Ascend/cann/set_env.sh)"
        )
    path = Path(folder)
    return f"source {path.parent if path.name == 'latest' else path}/set_env.sh"


def within(root: Path, path: str | Path) -> Path:
    """A path of the host under ``root``."""
    return root / str(path).lstrip("/")


def _version(root: Path, folder: str) -> tuple[str, str]:
    """Of ``[ARCH-linux/]ascend_*_install.info``, which holds lines ``name=value``."""
    base = within(root, folder)
    for pattern in ("*-linux/ascend_*_install.info", "ascend_*_install.info"):
        for path in sorted(base.glob(pattern)):
            if version := named_values(path).get("version", ""):
                return version, f"/{path.relative_to(root)}"
    return "", ""


def _driver(root: Path) -> tuple[str, str]:
    path = root / DRIVER
    version = named_values(path).get("version", "") if os.path.isfile(path) else ""
    return version, f"/{DRIVER}" if version else ""


def _atb(root: Path, environ: Mapping[str, str]) -> tuple[str, str]:
    """``set`` where nnal's script was run, its folder where it is only there."""
    if environ.get(ATB_VARIABLE):
        return environ[ATB_VARIABLE], f"environment {ATB_VARIABLE}"
    return (f"/{ATB} (not sourced)", f"/{ATB}") if os.path.isdir(root / ATB) else ("", "")


def named_values(path: Path) -> dict[str, str]:
    """Lines ``name=value`` by name in lower case; an unreadable file has none."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    pairs = (line.partition("=") for line in lines if "=" in line)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}
