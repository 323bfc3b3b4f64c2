"""The parent of a server: a small process that outlives ours and leaves nothing of the server behind.

Run by path, with the standard library alone, as ``python -I -S guard.py PARENT GRACE NICE -- COMMAND...``. It starts the
command in a session of its own and ends it, with every descendant, when it reads a byte or the end of its standard
input, when the process PARENT is gone (also by SIGKILL), or when the command itself ends. As a subreaper (prctl(2)) it
inherits every orphan below it, so neither a session of its own nor a second fork takes a descendant out of its sight.
Its exit status is the command's, or 128 + the signal that ended it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
PR_SET_CHILD_SUBREAPER = 36
_LOOK_SECONDS = 0.2
NOT_STARTED = 127


def parents() -> dict[int, int]:
    """The parent of each process that /proc shows; a process without memory left (a zombie) is not counted."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):  # it ended while we looked
            fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
            if fields[0] not in "ZX":
                found[int(entry.name)] = int(fields[1])
    return found


def descendants(roots: Iterable[int]) -> set[int]:
    """Every living process below ``roots``, without the roots."""
    above = parents()
    found: set[int] = set()
    level = set(roots)
    while level:
        level = {pid for pid, parent in above.items() if parent in level} - found
        found |= level
    return found


def send(pids: Iterable[int], number: int) -> None:
    """A signal to each; one that is gone is passed over."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def prctl(option: int, value: int) -> None:
    """prctl(2). Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}): {os.strerror(ctypes.get_errno())}")


def _start(command: list[str], nice: int) -> int:
    """The command's pid; it is asked to end should this process be killed."""

    def before() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if nice:
            os.nice(nice)
            # where sessions are scheduled as groups (sched(7)), a process's own value counts within its session only
            with contextlib.suppress(OSError), open("/proc/self/autogroup", "w") as group:
                group.write(str(nice))

    # no other thread lives here: preexec_fn is safe
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=before)
    return process.pid


def _reap(main: int, status: int | None) -> int | None:
    """Collect whatever ended; the exit status of ``main`` once it is known."""
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, raw = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid == main:
                code = os.waitstatus_to_exitcode(raw)
                status = code if code >= 0 else 128 - code
    return status


def _end_all(main: int, status: int | None, grace: float) -> int | None:
    """SIGTERM to all, SIGKILL after ``grace`` seconds, until no descendant is left."""
    limit = time.monotonic() + grace
    told: set[int] = set()
    while True:
        status = _reap(main, status)
        left = descendants([os.getpid()])
        if not left:
            return _reap(main, status)
        if time.monotonic() < limit:
            send(left - told, signal.SIGTERM)
            told |= left
        else:
            send(left, signal.SIGKILL)
        time.sleep(0.05)


def main(arguments: list[str]) -> int:
    """See the module's text."""
    parent, grace, nice, command = int(arguments[0]), float(arguments[1]), int(arguments[2]), arguments[4:]
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        server = _start(command, nice)
    except OSError as error:
        print(f"cannot be started: {error}", file=sys.stderr)
        return NOT_STARTED
    status = None
    while status is None and os.getppid() == parent:
        readable, _, _ = select.select([0], [], [], _LOOK_SECONDS)
        status = _reap(server, None)
        if readable:
            break
    status = _end_all(server, status, grace)
    return NOT_STARTED if status is None else status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
