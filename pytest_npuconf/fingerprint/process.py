"""A command that ends in time: its output, or that it did not end. Nothing it started is left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

LIMIT_SECONDS = 10.0  # of any command that a fingerprint runs
_AFTER_KILL = 2.0  # for the pipes of a killed group to close


@dataclass(frozen=True)
class Output:
    """``status``: exit status, negative for a signal, None when it did not run or did not end. ``trouble`` says why."""

    status: int | None
    stdout: str = ""
    stderr: str = ""
    trouble: str = ""
    timed_out: bool = False

    @property
    def ok(self) -> bool:
        """It ran, ended in time and said that it succeeded."""
        return self.status == 0

    def why(self) -> str:
        """What went wrong in one line, empty where nothing did."""
        if self.trouble or self.ok:
            return self.trouble
        words = (self.stderr.strip() or self.stdout.strip()).splitlines()
        ended = f"killed by signal {-self.status}" if self.status and self.status < 0 else f"exit status {self.status}"
        return f"{ended}: {words[-1].strip()}" if words else ended


Run = Callable[[Sequence[str], Mapping[str, str]], Output]


def run_limited(command: Sequence[str], environ: Mapping[str, str], limit: float = LIMIT_SECONDS) -> Output:
    """Run a command in a process group of its own, and kill the whole group after ``limit`` seconds."""
    try:
        process = subprocess.Popen(
            list(command),
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        return Output(None, trouble=f"cannot be started: {error}")
    try:
        stdout, stderr = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        _kill(process)
        return Output(None, trouble=f"did not end in {limit:g} s and was killed", timed_out=True)
    except BaseException:
        _kill(process)
        raise
    return Output(process.returncode, stdout, stderr)


def _kill(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    # a grandchild in a session of its own can still hold the pipe: it is not waited for
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=_AFTER_KILL)
