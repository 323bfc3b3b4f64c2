"""What the engine says of its capacity against what the configuration implies, and how long it took to start."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_npuconf.audit.counting import GIB
from pytest_npuconf.engines.capacity import (
    BLOCK,
    Expected,
    Reported,
    expected_capacity,
    read_cache_metrics,
    read_capacity,
)
from pytest_npuconf.engines.command_lines import tensor_parallel, value_of
from pytest_npuconf.engines.served import Served
from pytest_npuconf.engines.server_engine import HttpServed
from pytest_npuconf.errors import ServerError
from pytest_npuconf.gates import Measurement, Row

PRINTED = 0.005 * GIB  # bytes: the log prints GiB with two digits
SMALL = 0.006  # of a concurrency that is printed with two digits


def reported_by(served: Served) -> Reported:
    """From the log, and from /metrics where there is one."""
    found = read_capacity(served.log_text())
    if isinstance(served, HttpServed):
        try:
            found = found.completed(read_cache_metrics(served.client.text("/metrics")))
        except ServerError as error:
            if error.status not in (404, 405):  # another server than vLLM has no such route
                raise
    return found


def capacity(served: Served, config: Mapping[str, Any], parameters: int, arguments: Sequence[str] = ()) -> Measurement:
    """Figures that differ from the configuration's: tokens in the KV cache, and requests of the full length at once.

    Args:
        arguments: the card's words for the server: its tensor parallel size, dtype and block of the cache count.
    """
    kv_dtype = value_of(arguments, "--kv-cache-dtype") or "auto"
    block = int(value_of(arguments, "--block-size") or BLOCK)
    ranks = tensor_parallel(arguments)
    said = reported_by(served)
    data = {"reported": dataclasses.asdict(said), "start_seconds": getattr(served, "start_seconds", 0.0)}
    memory = said.kv_bytes if said.kv_bytes is not None else said.kv_gib and round(said.kv_gib * GIB)
    if not memory or said.kv_tokens is None:
        return Measurement.unusable(
            "capacity.differing", "the engine says neither in its log nor in /metrics what it holds"
        )
    # a measured memory may be printed as a whole number too
    exact = said.kv_bytes is not None or ("Explicitly set (" in served.log_text() and memory % GIB == 0)
    unsure = 0.0 if exact else PRINTED

    def of(bytes_: float) -> Expected:
        return expected_capacity(
            config,
            served.dtype,
            kv_dtype,
            said.block_size or block,
            int(bytes_),
            served.max_model_len,
            tensor_parallel=ranks,
            parameters=parameters,
        )

    low, mid, high = of(memory - unsure), of(memory), of(memory + unsure)
    rows = []
    # vLLM keeps one block back and reports it or not; 0.32 reports whole requests instead of whole blocks
    ends = (
        min(low.tokens - low.block_size, low.request_tokens - low.block_size),
        max(high.tokens, high.request_tokens),
    )
    if not ends[0] <= said.kv_tokens <= ends[1]:
        rows.append(Row("KV cache, tokens", float(said.kv_tokens), f"the configuration implies {ends[0]} to {ends[1]}"))
    if said.concurrency is not None and not (
        low.concurrency * (1 - 1 / max(1, low.blocks)) - SMALL <= said.concurrency <= high.concurrency + SMALL
    ):
        rows.append(
            Row(
                "requests of the full length at once",
                said.concurrency,
                f"the configuration implies {mid.concurrency:.2f}",
            )
        )
    return Measurement.counted("capacity.differing", rows, n=2, of="figures", expected=dataclasses.asdict(mid), **data)
