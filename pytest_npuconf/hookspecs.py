"""Extension points for other packages and conftest files. docs/extending.md has examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pytest_npuconf.devices.base import Device
    from pytest_npuconf.faults.base import Fault


@pytest.hookspec()
def pytest_npuconf_devices(config: pytest.Config) -> list[Device]:  # type: ignore[empty-body]
    """Return devices to offer under ``--npuconf-device``; one with a shipped name replaces it."""


@pytest.hookspec()
def pytest_npuconf_engines(config: pytest.Config) -> dict[str, Any]:  # type: ignore[empty-body]
    """Return engine factories by name, to offer under ``--npuconf-engine``.

    Each is a :class:`pytest_npuconf.engines.base.EngineFactory`.
    """


@pytest.hookspec()
def pytest_npuconf_faults(config: pytest.Config) -> list[Fault]:  # type: ignore[empty-body]
    """Return faults to offer under ``--npuconf-fault``."""
