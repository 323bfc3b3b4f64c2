"""A server that this run starts, waits for and ends, with everything it started itself."""

from __future__ import annotations

import atexit
import contextlib
import errno
import http.client
import os
import random
import shlex
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from pytest_npuconf.engines import guard
from pytest_npuconf.engines.ports import holder, taken
from pytest_npuconf.engines.server_log import COMMAND, last_line, root_cause, tail
from pytest_npuconf.errors import EngineError

MARKER = "NPUCONF_SERVER"  # environment variable of every process of a server
PORTS = range(20000, 32000)  # Linux hands out 32768 to 60999 (ip_local_port_range)
GRACE_SECONDS = 15.0  # between SIGTERM and SIGKILL: vLLM ends its engine and frees the device in a few seconds
_ANNOUNCE_SECONDS = 5.0
_LOOK_SECONDS = 0.3
_KILL_SECONDS = 10.0  # after SIGKILL, for the kernel to free memory and ports


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port of ``host`` that nobody listens on now, outside the range that the kernel hands out by itself: a server takes
    a minute to listen, and meanwhile any connection of this host may be given a port of that range.

    Raises EngineError where none of them is free.
    """
    for port in random.sample(PORTS, len(PORTS)):
        if not taken(host, port):
            return port
    raise EngineError(f"no port of {host} from {PORTS[0]} to {PORTS[-1]} is free", mend="end a server that uses them")


class ServerProcess:
    """One server: started, waited for, watched, ended.

    ``environment`` is added to ours. ``url`` and ``ready_route``: where it answers 200 once it is ready. ``log``: file
    for its output, kept. ``grace``: seconds between SIGTERM and SIGKILL. ``nice``: how much it gives way to others
    (nice(2)). Nothing of it stays behind: not after ``close``, an exception, Ctrl-C or the interpreter's end, nor when
    our own process is killed (guard.py).
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        url: str,
        ready_route: str,
        log: Path,
        *,
        name: str,
        grace: float = GRACE_SECONDS,
        nice: int = 0,
    ) -> None:
        self.command = list(command)
        self.url = url.rstrip("/")
        self.ready_route = ready_route
        self.log = log
        self.name = name
        self._environment = dict(environment)
        self._grace, self._nice = grace, nice
        self._marker = uuid.uuid4().hex
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        self._answer = "no answer yet"

    def start(self, announce: Callable[[str], None], timeout: float = 600.0) -> float:
        """Start and wait; seconds until it is ready. ``announce`` gets a line every 5 s.

        Raises EngineError where the port is taken, the command cannot be run, the server ends or is not ready in time.
        """
        if self._process is not None:
            raise EngineError(f"{self.name} is started already", mend="close it first")
        host, port = self._address()
        if not Path("/proc/self/stat").exists():
            raise EngineError(
                f"{self.name}: servers are started on Linux only, where /proc shows what they leave behind",
                mend="start it yourself and name it with --npuconf-endpoint URL",
            )
        self._refuse_taken(host, port)
        begin = time.monotonic()
        atexit.register(self.close)
        try:
            self._spawn()
            self._wait(announce, begin, timeout)
        except BaseException:  # Ctrl-C too
            self.close()
            raise
        return time.monotonic() - begin

    def processes(self) -> set[int]:
        """Process ids of the server and of all that it started; empty when it does not run."""
        return self._left() if self._process is not None else set()

    def check_alive(self) -> None:
        """Raises EngineError with the log's last lines when it was not started, or has ended."""
        if self._process is None:
            raise EngineError(f"{self.name} does not run", mend="start it first")
        status = self._process.poll()
        if status is not None:
            raise self._failed(f"ended by itself ({_ended(status)})")

    def log_text(self) -> str:
        """Everything that it has written so far; a byte that is no UTF-8 as ``\\xff``."""
        return self.log.read_text(encoding="utf-8", errors="backslashreplace") if self.log.exists() else ""

    def close(self) -> None:
        """End it with all that it started, and check that no process is left and the port is free. May be repeated.

        Raises EngineError naming what could not be ended.
        """
        process = self._process
        if process is None or os.getpid() != self._owner:  # a fork of ours does not own the server
            return
        with contextlib.suppress(BrokenPipeError):  # the guard ended before
            assert process.stdin is not None
            process.stdin.close()
        try:
            process.wait(self._grace + _KILL_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._sweep()
        self._process = None
        atexit.unregister(self.close)
        self._check_nothing_left()

    def _address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        if parts.hostname is None or parts.port is None:
            raise EngineError(f"{self.name}: the URL {self.url!r} names no host and port", mend="http://127.0.0.1:8000")
        return parts.hostname, parts.port

    def _refuse_taken(self, host: str, port: int) -> None:
        trouble = taken(host, port)
        if trouble == errno.EADDRINUSE:
            raise EngineError(
                f"{self.name}: port {port} of {host} is taken by {holder(port)}", mend="end that, or name another port"
            )
        if trouble:
            raise EngineError(
                f"{self.name}: cannot listen on {host} port {port}: {os.strerror(trouble)}",
                mend="name an address of this machine and a port above 1023",
            )

    def _spawn(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        words = [str(os.getpid()), str(self._grace), str(self._nice), "--"]
        launcher = [sys.executable, "-I", "-S", guard.__file__, *words]
        with self.log.open("wb") as out:
            out.write(f"{COMMAND}{shlex.join(self.command)}\n".encode())
            out.flush()
            self._process = subprocess.Popen(
                [*launcher, *self.command],
                env={**os.environ, **self._environment, MARKER: self._marker},
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _wait(self, announce: Callable[[str], None], begin: float, timeout: float) -> None:
        announce(f"{self.name}: starting; its log: {self.log}")
        told = begin
        while not self._ready():
            self._check_started()
            now = time.monotonic()
            if now - begin > timeout:
                raise self._failed(
                    f"was not ready after {timeout:g} s and was ended; GET {self.url}{self.ready_route}: {self._answer}"
                )
            if now - told >= _ANNOUNCE_SECONDS:
                told = now
                announce(f"{self.name}: {now - begin:.0f} s: {last_line(self.log_text())}")
            time.sleep(_LOOK_SECONDS)
        self._check_started()

    def _check_started(self) -> None:
        assert self._process is not None
        status = self._process.poll()
        if status is not None:
            raise self._failed(f"ended before it was ready ({_ended(status)})")

    def _ready(self) -> bool:
        host, port = self._address()
        connection = http.client.HTTPConnection(host, port, timeout=5.0)
        try:
            connection.request("GET", urlsplit(self.url).path + self.ready_route)
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            self._answer = str(error) or type(error).__name__
            return False
        finally:
            connection.close()
        self._answer = f"answered {status}"
        return status == 200

    def _failed(self, what: str) -> EngineError:
        text = self.log_text()
        cause, mend = root_cause(text)
        said = f"\n  cause: {cause}" if cause else ""
        lines = "".join(f"\n    {line}" for line in tail(text))
        return EngineError(
            f"{self.name} {what}{said}\n  command: {shlex.join(self.command)}\n  last lines of {self.log}:{lines}",
            mend=mend or f"read {self.log} from its first error on",
        )

    def _left(self) -> set[int]:
        """Living processes that carry our marker, and all below them."""
        marked = set()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):  # gone, or another user's
                    if f"{MARKER}={self._marker}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                        marked.add(int(entry.name))
        return (marked | guard.descendants(marked)) - {os.getpid()}

    def _sweep(self) -> None:
        """SIGKILL what the guard left, should it have been killed itself."""
        limit = time.monotonic() + _KILL_SECONDS
        while (left := self._left()) and time.monotonic() < limit:
            guard.send(left, signal.SIGKILL)
            time.sleep(0.05)

    def _check_nothing_left(self) -> None:
        left = self._left()
        if left:
            raise EngineError(
                f"{self.name}: processes {', '.join(map(str, sorted(left)))} could not be ended",
                mend=f"kill -9 {' '.join(map(str, sorted(left)))}",
            )
        host, port = self._address()
        limit = time.monotonic() + _KILL_SECONDS
        while taken(host, port) == errno.EADDRINUSE:
            if time.monotonic() > limit:
                raise EngineError(
                    f"{self.name} has ended, but port {port} of {host} is still held by {holder(port)}",
                    mend="end that process",
                )
            time.sleep(0.1)


def _ended(status: int) -> str:
    number = -status if status < 0 else status - 128
    with contextlib.suppress(ValueError):
        name = signal.Signals(number).name
        hint = "; the kernel kills like this when the memory is full: dmesg" if name == "SIGKILL" else ""
        return f"killed by {name}{hint}"
    return f"exit status {status}"
