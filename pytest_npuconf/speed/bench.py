"""The runs of load that the checks of speed are about: each made once, when the first check asks for it."""

from __future__ import annotations

import dataclasses
import math
import secrets
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_npuconf.cards.schema import Card, Speed
from pytest_npuconf.engines.server_engine import HttpServed
from pytest_npuconf.errors import EngineError
from pytest_npuconf.load.figures import FIGURES
from pytest_npuconf.load.result import LoadResult
from pytest_npuconf.load.run import load
from pytest_npuconf.load.self_check import Bias, self_check
from pytest_npuconf.load.shape import Shape
from pytest_npuconf.load.sweep import Sweep, sweep
from pytest_npuconf.progress import Progress
from pytest_npuconf.speed.bandwidth import Bandwidth, measure
from pytest_npuconf.speed.memory import Watched, Watching, held_by

if TYPE_CHECKING:
    from pytest_npuconf.plan import Plan

T = TypeVar("T")
# Every run of load has its own prompts: one that was asked before might be answered from a cache.
ALONE, SWEEP, LONG, WARM_UP = 10_000, 20_000, 30_000, 40_000
WAVES = 18  # of the long run, at least: a dozen behind the third in which caches fill
ALONE_REQUESTS = 16
SHORT = 32  # tokens: a prompt that a prefix cache can hardly save anything of, an answer long enough to be timed
REST = 3.0  # seconds without load before the long run, so that what slows down under load shows there


@dataclass(frozen=True)
class LongRun:
    """The long run, and what the server's processes held meanwhile; None where they are not known."""

    found: LoadResult
    held: Watched | None


class SpeedRuns:
    """Of one served model, at its card's load."""

    def __init__(self, served: HttpServed, speed: Speed, device: Any, timeout: float, progress: Progress) -> None:
        self.served, self.speed, self._device = served, speed, device
        self._timeout, self._progress = timeout, progress
        # of every prompt of this session: one that an earlier session asked may lie in the server's caches
        self.salt = secrets.randbelow(1 << 30) << 17
        self._made: dict[str, Any] = {}
        self.rounds: list[LoadResult] = []

    def shape(self, **changes: Any) -> Shape:
        """The card's, with changes."""
        speed = self.speed
        base = Shape(speed.requests, speed.concurrency, speed.input_len, speed.output_len, warmup=0)
        return dataclasses.replace(base, **{**changes, "seed": self.salt + changes.get("seed", 0)})

    def one_round(self) -> None:
        """Measure one more."""
        number = len(self.rounds)
        shape = self.shape(seed=number)
        self._progress.step(f"speed, round {number + 1}: {shape.requests} requests, {shape.concurrency} at once")
        self.rounds.append(self._load(shape))

    def warm_up(self) -> None:
        """Requests before the first round, in no figure."""
        places = self.speed.concurrency
        self._once("warm-up", lambda: self._load(self.shape(requests=places, seed=WARM_UP)))

    def measured(self) -> list[LoadResult]:
        """All rounds that the card asks for."""
        self.warm_up()
        while len(self.rounds) < self.speed.rounds:
            self.one_round()
        return self.rounds

    def alone(self) -> LoadResult:
        """One request at a time."""
        return self._once("alone", lambda: self._load(self._alone_shape()))

    def again(self) -> LoadResult:
        """The very requests of :meth:`alone` once more."""
        self.alone()
        return self._once("again", lambda: self._load(dataclasses.replace(self._alone_shape(), warmup=0)))

    def _alone_shape(self) -> Shape:
        return self.shape(
            requests=ALONE_REQUESTS, concurrency=1, warmup=1, seed=ALONE, input_len=min(self.speed.input_len, SHORT),
            output_len=max(self.speed.output_len, SHORT),
        )  # fmt: skip

    def swept(self) -> Sweep:
        """At each concurrency of the card."""

        def make() -> Sweep:
            self._progress.phase(f"speed at {', '.join(map(str, self.speed.sweep))} requests at once")
            return sweep(
                self.served.url, self.served.model, self.shape(seed=SWEEP), self.speed.sweep, timeout=self._timeout,
                objectives=self.speed.objectives, announce=self._progress.step,
            )  # fmt: skip

        return self._once("sweep", make)

    def long_run(self) -> LongRun:
        """As many requests as the rounds say take ``long_run_seconds``, after a rest."""

        def make() -> LongRun:
            rates = [found.request_rate for found in self.measured() if found.request_rate is not None]
            if not rates:
                raise EngineError(
                    "no request of the rounds was answered, so the long run has no length", mend="see speed.run"
                )
            enough = math.ceil(statistics.median(rates) * self.speed.long_run_seconds)
            shape = self.shape(requests=max(enough, WAVES * self.speed.concurrency), seed=LONG)
            self._progress.phase(
                f"speed, long run: {shape.requests} requests, about {self.speed.long_run_seconds:.0f} s"
            )
            time.sleep(REST)
            processes = self.served.processes()
            if not processes:
                return LongRun(self._load(shape), None)
            with Watching(held_by(processes, self._device)) as held:
                found = self._load(shape)
            return LongRun(found, held)

        return self._once("long", make)

    def client(self) -> Bias:
        """This client at this load, against known latencies."""
        return self._once("client", lambda: self_check(self.shape(warmup=1)))

    def bandwidth(self, step: float) -> Bandwidth:
        """How fast the device reads ``step`` bytes."""
        return self._once("bandwidth", lambda: measure(self._device, step))

    def _load(self, shape: Shape) -> LoadResult:
        return load(self.served.url, self.served.model, shape, timeout=self._timeout, announce=self._progress.step)

    def _once(self, name: str, make: Callable[[], T]) -> T:
        if name not in self._made:
            self._made[name] = make()
        found: T = self._made[name]
        return found


class SpeedStore:
    """The runs of every model and dtype of a session."""

    def __init__(self) -> None:
        self._runs: dict[tuple[str, str], SpeedRuns] = {}

    def of(self, card: Card, dtype: str, served: HttpServed, plan: Plan, progress: Progress) -> SpeedRuns:
        """Those of one model at one dtype; a server that was started anew goes on with what was measured before."""
        if card.speed is None:
            raise EngineError(
                f"{card.path}: no table [speed]", mend="add: [speed] with concurrency, input_len, output_len"
            )
        key = (card.name, dtype)
        if key not in self._runs:
            self._runs[key] = SpeedRuns(served, card.speed, plan.device, plan.settings.timeout, progress)
        self._runs[key].served = served
        return self._runs[key]

    def complete(self, model: str) -> dict[str, dict[str, float]]:
        """By dtype: the figures of a model all of whose rounds were measured and answered."""
        return {
            dtype: medians(runs.rounds)
            for (name, dtype), runs in self._runs.items()
            if name == model and len(runs.rounds) >= runs.speed.rounds and not any(r.failures for r in runs.rounds)
        }


def medians(rounds: Sequence[LoadResult]) -> dict[str, float]:
    """The median over rounds of each figure that every round has."""
    found = {}
    for name, figure in FIGURES.items():
        values = [figure.of(one) for one in rounds]
        known = [value for value in values if value is not None]
        if len(known) == len(values) > 0:
            found[name] = statistics.median(known)
    return found
