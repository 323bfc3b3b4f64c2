"""Hook wiring of every pytest run. A run that names no model stops here: nothing else is imported."""

from __future__ import annotations

from argparse import ArgumentError
from collections.abc import Generator

import pytest

from pytest_npuconf import hookspecs
from pytest_npuconf.errors import NpuconfError
from pytest_npuconf.options import add_options, read_settings, taken

pytest_plugins = ("pytest_npuconf.pytest_fixtures",)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    pluginmanager.add_hookspecs(hookspecs)


def pytest_addoption(parser: pytest.Parser) -> None:
    try:
        add_options(parser)
    except NpuconfError as error:
        raise pytest.UsageError(str(error)) from error


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests() -> Generator[None, object, object]:
    """A conftest that owns ``--model`` or ``--npu`` makes pytest crash: say what to do instead."""
    try:
        return (yield)
    except (ValueError, ArgumentError) as error:  # pytest 8 raises the first, pytest 9 argparse's own
        if "--model" in str(error) or "--npu" in str(error):
            raise pytest.UsageError(str(taken(str(error)))) from error
        raise


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """``--npuconf-fault list`` prints and ends, as ``--markers`` does."""
    if config.getoption("npuconf_fault") != "list":
        return None
    from pytest_npuconf.run_plugin import list_faults

    print(list_faults(config))
    return 0


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "npuconf_check(name): the conformance check that this test makes")
    try:
        settings = read_settings(config)
        if settings.active:
            from pytest_npuconf.run_plugin import start

            start(config, settings)
    except NpuconfError as error:
        raise pytest.UsageError(str(error)) from error
