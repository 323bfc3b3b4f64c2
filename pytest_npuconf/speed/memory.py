"""What a server's processes hold while load goes on."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pytest_npuconf.devices.base import Device

EVERY = 0.5  # seconds


@dataclass
class Watched:
    """``times``: ``time.perf_counter_ns`` of each reading; ``held``: bytes, of the host and (but for a CPU) of the device."""

    times: list[int] = field(default_factory=list)
    held: list[int] = field(default_factory=list)


def resident(processes: set[int]) -> int:
    """Bytes that these processes have in RAM (``/proc/PID/statm``, second number, in pages); one that has ended has none."""
    pages = 0
    for pid in processes:
        with contextlib.suppress(OSError):
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def held_by(processes: set[int], device: Device) -> Callable[[], int]:
    """Reads what the processes hold, with the memory in use on the device."""

    def read() -> int:
        if device.name == "cpu":
            return resident(processes)
        memory = device.memory()
        return resident(processes) + memory.total - memory.free

    return read


class Watching:
    """Reads every half second, in a thread, until its block ends."""

    def __init__(self, read: Callable[[], int]) -> None:
        self._read, self.found, self._error = read, Watched(), list[BaseException]()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="npuconf-memory", daemon=True)

    def _run(self) -> None:
        try:
            while not self._end.is_set():
                self.found.held.append(self._read())
                self.found.times.append(time.perf_counter_ns())
                self._end.wait(EVERY)
        except BaseException as error:
            self._error.append(error)

    def __enter__(self) -> Watched:
        self._thread.start()
        return self.found

    def __exit__(self, kind: object, *_: object) -> None:
        self._end.set()
        self._thread.join()
        if self._error and kind is None:
            raise self._error[0]
