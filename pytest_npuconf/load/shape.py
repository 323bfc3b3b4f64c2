"""What load is put on a server."""

from __future__ import annotations

from dataclasses import dataclass

ROUTES = {"completions": "/v1/completions", "chat": "/v1/chat/completions"}


@dataclass(frozen=True)
class Shape:
    """What is asked. ``requests`` of ``input_len`` and ``output_len`` tokens, ``concurrency`` at once; ``rate``: requests a second
    of a Poisson process (open loop), None for a closed loop. ``route``: ``completions`` (prompts as random token ids, of exactly
    that length) or ``chat`` (words; ``usage`` says how many tokens they are). ``warmup``: requests before the measured ones."""

    requests: int
    concurrency: int = 1
    input_len: int = 128
    output_len: int = 128
    rate: float | None = None
    route: str = "completions"
    warmup: int = 1
    seed: int = 0
