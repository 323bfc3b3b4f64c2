"""What the simulated NPU offers as ``torch.npu``: the names of torch_npu's that this package uses. Work is done when a call
returns, so there is nothing to wait for; memory is counted from live storages. All of it is emulated."""

from __future__ import annotations

import contextlib
import time
import types
import weakref
from collections.abc import Iterator
from typing import Any

from pytest_npuconf.devices.base import import_torch
from pytest_npuconf.devices.cpu import host_memory

DEVICE_NAME = "Simulated NPU"
GRAIN = 512  # bytes: the allocator's least block (c10's kMinBlockSize, which torch_npu's NPUCachingAllocator shares)


class Allocation:
    """One storage; it is counted as long as a tensor holds it."""

    def __init__(self, size: int, counted: Allocations) -> None:
        self.size = size
        weakref.finalize(self, counted.freed, size).atexit = False


class Allocations:
    """Live storages of the device, in bytes rounded up to :data:`GRAIN`."""

    def __init__(self) -> None:
        self._live: weakref.WeakValueDictionary[int, Allocation] = weakref.WeakValueDictionary()
        self.allocated = self.peak = 0

    def of(self, storage: Any) -> Allocation | None:
        """The allocation of a storage; views of it share it. None for one without bytes."""
        address, size = storage.data_ptr(), -(-storage.nbytes() // GRAIN) * GRAIN
        if not address or not size:
            return None
        found = self._live.get(address)
        if found is None or found.size != size:
            found = Allocation(size, self)
            self._live[address] = found
            self.allocated += size
            self.peak = max(self.peak, self.allocated)
        return found

    def freed(self, size: int) -> None:
        """A storage is gone."""
        self.allocated -= size


class Properties(types.SimpleNamespace):
    """``name`` and ``total_memory`` (bytes) of the device."""


class Event:
    """A point in time; ``elapsed_time`` is wall-clock milliseconds of the host."""

    def __init__(self, enable_timing: bool = False, **_: Any) -> None:
        self._timing, self._at = enable_timing, 0.0

    def record(self, stream: Any = None) -> None:
        self._at = time.perf_counter()

    def synchronize(self) -> None:
        """Everything is done already."""

    def wait(self, stream: Any = None) -> None:
        """Everything is done already."""

    def query(self) -> bool:
        return True

    def elapsed_time(self, end_event: Event) -> float:
        """Milliseconds from this event to ``end_event``.

        Raises:
            RuntimeError: as torch does: no timing was asked for, or one was not recorded.
        """
        if not (self._timing and end_event._timing):
            raise RuntimeError("both events need enable_timing=True")
        if not (self._at and end_event._at):
            raise RuntimeError("both events must be recorded first")
        return (end_event._at - self._at) * 1e3


class Stream:
    """A queue that is always empty."""

    def __init__(self, device: Any = None, priority: int = 0, **_: Any) -> None:
        self.device, self.priority = device, priority

    def synchronize(self) -> None:
        """Everything is done already."""

    def query(self) -> bool:
        return True

    def record_event(self, event: Event | None = None) -> Event:
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        """Everything is done already."""

    def wait_stream(self, stream: Stream) -> None:
        """Everything is done already."""


class Runtime:
    """The functions behind ``torch.npu``."""

    def __init__(self, allocations: Allocations) -> None:
        self._allocations = allocations
        # torch_npu's defaults: products exact, convolutions HF32 (docs/ascend-names.md); only matmul's is obeyed
        self.matmul = types.SimpleNamespace(allow_hf32=False)
        self.aclnn = types.SimpleNamespace(allow_hf32=False)
        self.conv = types.SimpleNamespace(allow_hf32=True)
        self._stream = Stream()

    def module(self) -> types.ModuleType:
        """``torch.npu``."""
        made = types.ModuleType("torch.npu", __doc__)
        for name in dir(self):
            if not name.startswith("_") and name != "module":
                setattr(made, name, getattr(self, name))
        made.__dict__.update(
            Event=Event, Stream=Stream, _is_in_bad_fork=lambda: False, manual_seed=self.manual_seed_all
        )
        return made

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return True

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def set_device(self, device: Any) -> None:
        """
        Raises:
            RuntimeError: there is only device 0.
        """
        index = device if isinstance(device, int) else import_torch().device(device).index
        if index not in (0, None):
            raise RuntimeError(f"{DEVICE_NAME}: no device {index}, there is only 0")

    def device(self, device: Any) -> contextlib.AbstractContextManager[None]:
        self.set_device(device)
        return contextlib.nullcontext()

    def synchronize(self, device: Any = None) -> None:
        """Everything is done already."""

    def get_device_name(self, device_name: Any = None) -> str:
        return DEVICE_NAME

    def get_device_properties(self, device_name: Any = None) -> Properties:
        return Properties(name=DEVICE_NAME, total_memory=host_memory().total)

    def mem_get_info(self, device: Any = None) -> tuple[int, int]:
        """Free and total bytes of the host, whose memory it is."""
        found = host_memory()
        return found.free, found.total

    def memory_allocated(self, device: Any = None) -> int:
        return self._allocations.allocated

    def max_memory_allocated(self, device: Any = None) -> int:
        return self._allocations.peak

    # nothing is cached: what is reserved is what is allocated
    memory_reserved, max_memory_reserved = memory_allocated, max_memory_allocated

    def reset_peak_memory_stats(self, device: Any = None) -> None:
        self._allocations.peak = self._allocations.allocated

    def empty_cache(self) -> None:
        """Nothing is cached."""

    def manual_seed_all(self, seed: int) -> None:
        """Random numbers are the CPU generator's, which ``torch.manual_seed`` has seeded."""

    def is_bf16_supported(self) -> bool:
        return True

    def get_amp_supported_dtype(self) -> list[Any]:
        """torch asks before any autocast, also one that is switched off, as rotary embeddings of transformers 4.57 do."""
        torch = import_torch()
        return [torch.float16, torch.bfloat16]

    def is_jit_compile_false(self) -> bool:
        return True

    def current_stream(self, device: Any = None) -> Stream:
        return self._stream

    default_stream = current_stream

    @contextlib.contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        yield
