"""Faults of a server's speed. Over a server that was always slow a baseline, a floor or a second server beside it decides."""

from __future__ import annotations

from pytest_npuconf.faults import serving_speed
from pytest_npuconf.faults.base import Fault, Injector


def _fault(
    name: str, description: str, magnitude: str, expected: str, inject: Injector, seen: str = "", **more: object
) -> Fault:
    return Fault(name, description, magnitude, expected, inject, seen=seen, target="server", **more)  # type: ignore[arg-type]


SHARES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)

SPEED: tuple[Fault, ...] = (
    _fault("tpot-doubled", "every token behind the first takes twice as long", "TPOT x 2", "speed.baseline",
           serving_speed.slower_tokens(1.0), scaled=serving_speed.slower_tokens, magnitudes=SHARES),
    _fault("slower-5%", "everything takes 5 % longer", "x 1.05", "speed.baseline", serving_speed.slower(0.05),
           scaled=serving_speed.slower, magnitudes=SHARES),
    _fault("long-tail", "one request in twenty takes five times as long", "1 in 20, x 5", "speed.baseline",
           serving_speed.one_in(20, 4.0)),
    _fault("throttling", "after a minute of load everything takes twice as long, until it rests", "x 2 after 60 s", "speed.steady",
           serving_speed.throttled(60.0)),
    _fault("memory-leak", "the server keeps memory of every request", "256 KiB a request", "speed.memory",
           serving_speed.in_the_server, arguments=("--middleware", "pytest_npuconf.faults.leaking.Leaking")),
    _fault("cached-answers", "a request that was asked before is answered from a cache, at once", "every repeat", "speed.repeat",
           serving_speed.answered_from_a_cache),
)  # fmt: skip
