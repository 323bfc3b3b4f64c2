"""Hook wiring of every pytest run. A run that names no model stops here: nothing else is imported."""

from __future__ import annotations

import sys
from argparse import ArgumentError
from collections.abc import Generator
from typing import NoReturn

import pytest

from pytest_npuconf import hookspecs
from pytest_npuconf.errors import NpuconfError
from pytest_npuconf.options import add_options, read_settings, registered_twice, taken

pytest_plugins = ("pytest_npuconf.pytest_fixtures",)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    pluginmanager.add_hookspecs(hookspecs)


def pytest_addoption(parser: pytest.Parser) -> None:
    try:
        add_options(parser)
    except NpuconfError as error:
        refuse_early(error)


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(parser: pytest.Parser) -> Generator[None, object, object]:
    """A conftest that owns ``--model`` or ``--npu`` makes pytest crash: say what to do instead."""
    try:
        result = yield
    except (ValueError, ArgumentError) as error:  # pytest 9: argparse's own, raised as the conftest registers
        if "--model" in str(error) or "--npu" in str(error):
            refuse_early(taken(str(error)))
        raise
    if twice := registered_twice(parser):  # pytest 8 would find out later, where nothing of ours is called
        refuse_early(taken(f"{twice} is registered twice"))
    return result


def refuse_early(error: NpuconfError) -> NoReturn:
    """A usage error while pytest reads its configuration; pytest 8 would show it as a crash."""
    if pytest.version_tuple >= (9,):
        raise pytest.UsageError(str(error)) from error
    print(f"ERROR: {error}\n", file=sys.stderr)
    raise SystemExit(pytest.ExitCode.USAGE_ERROR) from error


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
