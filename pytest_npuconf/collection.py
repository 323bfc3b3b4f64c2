"""Collecting the shipped suites with the same node ids from a wheel, an editable install and a checkout."""

from __future__ import annotations

import importlib.util
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import pytest

from pytest_npuconf.errors import SettingsError
from pytest_npuconf.locate import data_folder

SUITE_PREFIX = "npuconf"
CALIBRATION = "precision/calibrate.py"  # collected by --npuconf-calibrate, alone


def suite_files(*, calibrate: bool = False) -> list[Path]:
    """Every shipped suite's test file; to ``calibrate``, the one that does.

    Raises:
        FileNotFoundError: the installation has none.
    """
    files = sorted(data_folder("suites").glob(CALIBRATION if calibrate else "*/test_*.py"))
    if not files:
        raise FileNotFoundError(f"{data_folder('suites')} holds no suite: reinstall pytest-npuconf")
    return files


def suite_file(path: Path) -> str | None:
    """``precision/test_logits.py`` for a shipped suite's file, None for any other."""
    try:
        return path.resolve().relative_to(data_folder("suites").resolve()).as_posix()
    except ValueError:
        return None


def resolve_arguments(config: pytest.Config, *, calibrate: bool = False) -> list[str]:
    """The paths to collect: the suites when none was given; ``npuconf/...`` and ``suites/...`` as shipped ones.

    Files are named one by one, so that neither somebody's ``python_files`` nor ``norecursedirs`` can empty a suite.

    Raises:
        SettingsError: a suite that does not exist.
    """
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        return [str(path) for path in suite_files(calibrate=calibrate)]
    resolved: list[str] = []
    for argument in config.args:
        path, colons, rest = argument.partition("::")
        first, _, below = path.partition("/")
        if first not in (SUITE_PREFIX, "suites") or (config.invocation_params.dir / path).exists():
            resolved.append(argument)
            continue
        shipped = [f for f in suite_files(calibrate=calibrate) if (data_folder("suites") / below) in (f, *f.parents)]
        if not shipped:
            names = ", ".join(f"{SUITE_PREFIX}/{suite_file(f)}" for f in suite_files(calibrate=calibrate))
            raise SettingsError(f"no shipped suite {path!r}", mend=f"one of: {names}")
        resolved += [f"{file}{colons}{rest}" for file in shipped]
    return resolved


def is_shipped(item: pytest.Item) -> bool:
    """Whether a test belongs to a shipped suite: only these decide conformance."""
    return item.getparent(SuiteModule) is not None


class _NoCacheLoader(SourceFileLoader):
    """Leaves no ``__pycache__`` behind in the shipped folders."""

    def set_data(self, path: str, data: Any, *, _mode: int = 0o666) -> None:
        """Write nothing: importlib treats this as a read-only folder."""


class SuiteModule(pytest.Module):
    """A suite's module, imported under a name of its own: no ``sys.path`` entry, no clash with the user's modules."""

    def funcnamefilter(self, name: str) -> bool:
        """Somebody's ``python_functions`` must not empty a suite."""
        return name.startswith("test_")

    def _getobj(self) -> Any:
        name = "npuconf_suites." + ".".join(Path(str(suite_file(self.path))).with_suffix("").parts)
        spec = importlib.util.spec_from_file_location(name, self.path, loader=_NoCacheLoader(name, str(self.path)))
        if spec is None or spec.loader is None:
            raise self.CollectError(f"{self.path} cannot be imported")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
