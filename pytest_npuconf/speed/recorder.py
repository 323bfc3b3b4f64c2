"""Timing a call on the device under test, on top of pytest-benchmark: the fixture ``npu_speed``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pytest_npuconf.devices.base import Device
from pytest_npuconf.gates import MAX_ROWS, Measurement, Row
from pytest_npuconf.stats import quantile_interval


class SpeedRecorder:
    """The fixture ``npu_speed``. pytest-benchmark stores and compares the rounds (``--benchmark-save``, ``-compare``)."""

    def __init__(self, benchmark: Any, device: Device, facts: dict[str, str]) -> None:
        self._benchmark, self._device, self._facts = benchmark, device, facts

    def keep(self, figures: Mapping[str, Any], shape: Mapping[str, Any]) -> None:
        """Put what else the rounds say beside their seconds, into ``extra_info``."""
        self._benchmark.extra_info.update({"figures": dict(figures), "shape": dict(shape)})

    def __call__(
        self, function: Callable[[], object], *, name: str = "seconds per call", rounds: int = 7, warmup_rounds: int = 1
    ) -> Measurement:
        """Time ``function`` with the device synchronised before the clock stops; warm-up rounds are not counted.

        Returns:
            The median in seconds over ``rounds``, slowest rounds first in ``rows``. From six rounds on it has the 95 %
            interval of a median from order statistics (David and Nagaraja, Order Statistics, 2003, section 7.1); fewer
            rounds cannot give one.

        Raises:
            RuntimeError: pytest-benchmark measured nothing, because it is disabled (``-n``, ``--benchmark-disable``).
        """

        def timed() -> None:
            function()
            self._device.synchronize()

        self._device.synchronize()
        self._benchmark.pedantic(timed, rounds=rounds, warmup_rounds=warmup_rounds, iterations=1)
        if self._benchmark.stats is None:
            raise RuntimeError(
                "pytest-benchmark is disabled, so nothing was timed: run without -n and --benchmark-disable"
            )
        self._benchmark.extra_info.update(self._facts)
        seconds = np.asarray(self._benchmark.stats.stats.data, dtype=np.float64)
        order = np.argsort(-seconds, kind="stable")[:MAX_ROWS]
        return Measurement(
            name,
            float(np.median(seconds)),
            unit="s",
            n=seconds.size,
            of="rounds",
            interval=quantile_interval(seconds, 0.5),
            rows=tuple(Row(f"round {i + 1}", float(seconds[i]), "s") for i in order),
            data={"seconds": seconds.tolist(), "rows_total": int(seconds.size)},
        )
