"""How fast a device reads memory, with as many bytes as a decode step reads: the roof of the roofline."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from pytest_npuconf.devices.base import Device, import_torch
from pytest_npuconf.errors import DeviceError

SECONDS = 0.5  # of measuring, at least
FEWEST = 5
SHARE = 0.5  # of the free memory that the buffer may take, beside a server that holds the rest


@dataclass(frozen=True)
class Bandwidth:
    """``bytes_per_second`` of the fastest of ``repeats`` readings of ``size`` bytes; ``asked``: bytes of a step. The roof must be
    the fastest: a slow reading would make a healthy model look faster than physics."""

    bytes_per_second: float
    size: int
    asked: int
    repeats: int


def measure(device: Device, step: float) -> Bandwidth:
    """Sum a buffer of ``step`` bytes again and again, or of half of the free memory where that is less.

    Raises:
        DeviceError: not even a buffer of a megabyte fits.
    """
    torch = import_torch()
    size = int(min(step, SHARE * device.memory().free))
    if size < min(step, 1 << 20):
        raise DeviceError(f"{device.describe()}: no {step:g} bytes are free", mend="end what holds the device's memory")
    buffer = torch.ones(max(1, size // 4), dtype=torch.float32, device=device.torch_device())
    fastest, repeats, begin = math.inf, 0, time.perf_counter()
    while repeats < FEWEST or time.perf_counter() - begin < SECONDS:
        device.synchronize()
        start = time.perf_counter()
        buffer.sum()
        device.synchronize()
        fastest, repeats = min(fastest, time.perf_counter() - start), repeats + 1
    read = buffer.numel() * 4
    del buffer
    device.release()
    return Bandwidth(read / fastest, read, int(step), repeats)
