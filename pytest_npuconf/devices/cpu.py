"""The host processor: reference device, and stand-in for a device under test."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from pytest_npuconf.devices.base import Memory, import_torch

NUMERIC_VARIABLES = (
    "ATEN_CPU_CAPABILITY",
    "ONEDNN_MAX_CPU_ISA",
    "MKL_ENABLE_INSTRUCTIONS",
    "MKL_CBWR",
    "OMP_NUM_THREADS",
)


class CpuDevice:
    """See :class:`pytest_npuconf.devices.base.Device`."""

    name = "cpu"

    def probe(self) -> None:
        import_torch()

    def torch_device(self) -> Any:
        return import_torch().device("cpu")

    def describe(self) -> str:
        torch = import_torch()
        return f"{processor_name()}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"

    def hardware(self) -> str:
        """Processor and instruction set."""
        return f"{processor_name()}, {import_torch().backends.cpu.get_cpu_capability()}"

    def memory(self) -> Memory:
        return host_memory()

    def synchronize(self) -> None:
        """Work on the CPU is done when the call returns."""

    def release(self) -> None:
        """The allocator gives memory back by itself."""

    def deterministic(self) -> bool:
        """Yes: work is split by shape and number of threads, not by who comes first."""
        return True

    def determinism(self) -> tuple[bool, str]:
        """The same, and why."""
        return True, "device cpu: the kernels split work by shape and threads"

    def settings(self) -> dict[str, str]:
        """What moves the last digits of a computation here: instruction set, threads, matmul precision, oneDNN, and the
        environment that overrides them."""
        torch = import_torch()
        named = {name: os.environ[name] for name in NUMERIC_VARIABLES if name in os.environ}
        return {
            "instruction_set": torch.backends.cpu.get_cpu_capability(),
            "threads": str(torch.get_num_threads()),
            "matmul_precision": torch.get_float32_matmul_precision(),
            "onednn": str(torch.backends.mkldnn.is_available()),
            **named,
        }

    def versions(self) -> dict[str, str]:
        return {}


def processor_name() -> str:
    """The processor's model as the kernel names it, else its architecture."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(errors="replace").splitlines():
            if line.lower().startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def host_memory() -> Memory:
    """Available and total memory of the host in bytes; the cgroup's limit when it is lower."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    free = total
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    if limit.is_file() and used.is_file() and (text := limit.read_text().strip()) != "max":
        total = min(total, int(text))
        free = min(free, max(0, int(text) - int(used.read_text())))
    return Memory(free, total)
