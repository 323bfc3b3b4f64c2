"""The processes of a campaign: each run's crash or hang is that fault's own result, and the others go on."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection
from pathlib import Path
from typing import Any

from pytest_npuconf.campaign import worker
from pytest_npuconf.campaign.session import TAIL, Arguments
from pytest_npuconf.campaign.store import Task

Result = dict[str, Any]
PULSE = 2.0  # seconds between two looks at the clock
LONGEST = 1800.0  # seconds of one run before its process is ended


class Worker:
    """One process and what it is doing."""

    def __init__(self, arguments: Arguments, precisions: tuple[str, ...], log: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._log = log
        self._process = context.Process(target=worker.main, args=(arguments, precisions, theirs, str(log)), daemon=True)
        self._process.start()
        theirs.close()
        self.name = uuid.uuid4().hex[:12]
        self.told: Result | None = None
        self.task: Task | None = None
        self.started = 0.0
        self.used = False

    def give(self, task: Task) -> None:
        """Start a run."""
        self.task, self.started = task, time.monotonic()
        self.used = self.used or bool(task.fault)
        with contextlib.suppress(BrokenPipeError):  # it died while it waited: the pipe's end is what is heard next
            self.pipe.send((task.fault, task.precision))

    def hear(self) -> Result | None:
        """The result of the run, or how the process died; None after what it tells first."""
        try:
            message: Result = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            return self.died()
        if self.told is None:
            self.told = message
            error = message.get("error")
            return self._failed("usage", error) if error else None
        return {**message, "process": self.name}

    def died(self) -> Result:
        """A result that says how the process ended, and its last words."""
        self._process.join(timeout=5)
        code = self._process.exitcode
        how = signal.Signals(-code).name if code is not None and code < 0 else f"exit status {code}"
        words = self._log.read_text(encoding="utf-8", errors="replace").strip()[-TAIL:] if self._log.is_file() else ""
        return self._failed("crash", f"the process ended with {how}\n{words}".strip())

    def overdue(self) -> Result:
        """A result that says that the run was ended."""
        return self._failed("hang", f"no end after {LONGEST:.0f} s; the process was ended")

    def _failed(self, kind: str, text: str) -> Result:
        task = self.task or Task("", "")
        return {"fault": task.fault, "precision": task.precision, "exit": None, "status": "error", "kind": kind, "text": text,
                "seconds": round(time.monotonic() - self.started, 2) if self.started else 0.0, "cpu_seconds": 0.0}  # fmt: skip

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join(timeout=5)
        self.pipe.close()


class Crew:
    """Up to ``jobs`` workers."""

    def __init__(self, arguments: Arguments, precisions: tuple[str, ...], jobs: int, logs: Path) -> None:
        self._arguments, self._precisions, self._logs = arguments, precisions, logs
        self._jobs, self._made = jobs, 0
        self._workers: list[Worker] = []
        _share_cores(jobs)

    def tell(self) -> Result:
        """What the first worker tells, see :func:`pytest_npuconf.campaign.worker.tell`."""
        first = self._add()
        failed = first.hear()
        return {"error": failed["text"]} if failed else first.told or {}

    def work(self, tasks: Sequence[Task]) -> Iterator[Result]:
        """Each task's result, as it comes."""
        waiting = deque(tasks)
        while len(self._workers) < min(self._jobs, len(waiting)):
            self._add()
        return self._loop(lambda _: waiting.popleft() if waiting else None)

    def again(self, tasks: Sequence[Task]) -> Iterator[Result]:
        """Each task by every worker that has run a fault."""
        waiting = {id(w): deque(tasks) for w in self._workers if w.used}

        def following(one: Worker) -> Task | None:
            left = waiting.get(id(one))
            return left.popleft() if left else None

        return self._loop(following)

    def close(self) -> None:
        """End all of them."""
        for one in self._workers:
            one.end()
        self._workers = []

    def _loop(self, following: Callable[[Worker], Task | None]) -> Iterator[Result]:
        while True:
            for one in self._workers:
                if one.task is None and (task := following(one)) is not None:
                    one.give(task)
            busy = {one.pipe: one for one in self._workers if one.task is not None}
            if not busy:
                return
            for pipe in connection.wait(list(busy), timeout=PULSE):
                one = busy[pipe]  # type: ignore[index]
                if (result := one.hear()) is not None:
                    yield self._done(one, result)
            for one in busy.values():
                if one.task is not None and time.monotonic() - one.started > LONGEST:
                    yield self._done(one, one.overdue())

    def _done(self, one: Worker, result: Result) -> Result:
        one.task = None
        if result.get("kind") in ("crash", "hang", "usage"):  # nothing that it left behind reaches the next run
            one.end()
            self._workers.remove(one)
            self._add()
        return result

    def _add(self) -> Worker:
        self._made += 1
        self._workers.append(Worker(self._arguments, self._precisions, self._logs / f"worker-{self._made}.log"))
        return self._workers[-1]


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _share_cores(jobs: int) -> None:
    """For the workers to inherit: not more threads than cores, and none that spins while it waits."""
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // jobs)))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
