"""The figures of speed by name: unit, and whether more is better. Of a run of load, and of a server's start."""

from __future__ import annotations

OF_LOAD: dict[str, tuple[str, bool]] = {
    "output_tokens_per_second": ("tok/s", True),
    "requests_per_second": ("requests/s", True),
    "ttft_ms": ("ms", False),
    "tpot_ms": ("ms", False),
    "latency_ms": ("ms", False),
    "latency_tail_ms": ("ms", False),
}
OF_START: dict[str, tuple[str, bool]] = {"load_s": ("s", False), "init_s": ("s", False)}
EVERY = {**OF_LOAD, **OF_START}
