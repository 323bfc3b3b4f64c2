"""What a service promises of one request."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Slo:
    """Service level objectives, seconds; None: none is stated."""

    ttft: float | None = None
    tpot: float | None = None
