"""The faults that come with the package, and the choice of one by name. docs/faults.md is made from this table.

Sources are public issue threads that were read (``owner/repository#number``); an empty one means that none was found.
"""

from __future__ import annotations

from pytest_npuconf.errors import FaultError, nearest
from pytest_npuconf.faults.base import Fault
from pytest_npuconf.faults.catalogue_between import BETWEEN
from pytest_npuconf.faults.catalogue_device import DEVICE
from pytest_npuconf.faults.catalogue_serving import SERVING
from pytest_npuconf.faults.catalogue_speed import SPEED
from pytest_npuconf.faults.catalogue_state import STATE
from pytest_npuconf.faults.catalogue_structure import STRUCTURE
from pytest_npuconf.faults.catalogue_variants import VARIANTS

SHIPPED: tuple[Fault, ...] = (*STRUCTURE, *BETWEEN, *STATE, *VARIANTS)  # of a model, on any device
CATALOGUE: tuple[Fault, ...] = (*SHIPPED, *DEVICE, *SERVING, *SPEED)


def choose_fault(name: str, more: list[Fault]) -> Fault:
    """The fault of this name; ``more`` (from hooks) hides a shipped one of the same name.

    Raises:
        FaultError: unknown name.
    """
    offered = {fault.name: fault for fault in [*CATALOGUE, *more]}
    if name not in offered:
        raise FaultError(
            f"no fault {name!r}{nearest(name, list(offered))}", mend="pytest --npuconf-fault list prints them"
        )
    return offered[name]
