"""Sends requests on time and stamps what comes back: one thread, one loop over non-blocking sockets, nothing parsed on the way.

Usual clients parse each event when it comes, and the events behind it wait; with hundreds of streams that wait is what they then
report as the server's. Here a read costs a time stamp and an append.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import math
import selectors
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pytest_npuconf.load.exchange import SECOND, Exchange, Framing
from pytest_npuconf.load.waiting import ready

READ = 1 << 17  # bytes
_STARTED = (0, errno.EINPROGRESS, errno.EWOULDBLOCK)
_LATER = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


@dataclass(frozen=True)
class Address:
    """Where the server listens: ``host`` and ``port``, with TLS or without."""

    host: str
    port: int
    tls: bool = False


@dataclass
class Watch:
    """What the loop cost. ``busy_ns``: the longest time from one wait to the next, how late a stamp can be at worst. ``late``:
    loops of a millisecond and more. ``loops``; ``cpu_seconds`` of this process; ``wall_seconds``."""

    busy_ns: int = 0
    late: int = 0
    loops: int = 0
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0


@dataclass(eq=False)
class _Connection:
    socket: socket.socket
    exchange: Exchange | None = None
    framing: Framing = field(default_factory=Framing)
    unsent: memoryview = field(default_factory=lambda: memoryview(b""))
    connected: bool = False
    used: bool = False  # it has answered before


class Generator:
    """One run.

    Args:
        address: of the server.
        requests: bytes of each request, header and body.
        concurrency: requests under way at once, at most.
        offsets: nanoseconds after the start at which each request is to be sent (open loop); None: each as soon as an earlier one
            has ended (closed loop).
        timeout: seconds from when a request was sent to the end of its answer.
        announce: is given a line of progress every two seconds.
    """

    def __init__(
        self, address: Address, requests: Sequence[bytes], *, concurrency: int, offsets: Sequence[int] | None = None,
        timeout: float = 600.0, announce: Callable[[str], None] = lambda _: None,
    ) -> None:  # fmt: skip
        if concurrency < 1:
            raise ValueError(f"concurrency {concurrency}: at least one request at a time")
        if offsets is not None and len(offsets) != len(requests):
            raise ValueError(f"{len(offsets)} times for {len(requests)} requests")
        self._address, self._requests, self._concurrency = address, requests, concurrency
        self._offsets, self._timeout, self._announce = offsets, int(timeout * SECOND), announce
        self._where = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
        self._tls = ssl.create_default_context() if address.tls else None
        self._selector = selectors.DefaultSelector()
        self._idle: deque[_Connection] = deque()
        self._busy: set[_Connection] = set()
        self._next = self._ended = 0
        self.exchanges: list[Exchange] = []
        self.watch = Watch()

    def run(self) -> list[Exchange]:
        """Send all and wait for every answer; exchanges in the order of ``requests``. Failed ones say why in ``trouble``."""
        collects = gc.isenabled()
        gc.disable()  # a collection stops the loop for milliseconds
        cpu, begin = time.process_time(), time.perf_counter_ns()
        try:
            self._loop(begin)
        finally:
            self.watch.wall_seconds = (time.perf_counter_ns() - begin) / SECOND
            self.watch.cpu_seconds = time.process_time() - cpu
            self._close()
            if collects:
                gc.enable()
        return self.exchanges

    # ------------------------------------------------------------ the loop

    def _loop(self, begin: int) -> None:
        clock, total = time.perf_counter_ns, len(self._requests)
        told = checked = woken = begin
        while self._ended < total:
            now = clock()
            self._send_due(begin, now)
            if now - checked > SECOND // 5:
                self._end_overdue(now)
                checked = now
            if now - told > 2 * SECOND:
                self._announce(f"{self._ended} of {total} requests, {len(self._busy)} under way")
                told = now
            spent = clock() - woken
            self.watch.busy_ns = max(self.watch.busy_ns, spent)
            self.watch.late += spent >= 1_000_000
            self.watch.loops += 1
            found = self._wait(begin)
            woken = clock()
            for key, mask in found:
                self._serve(key.data, mask)

    def _wait(self, begin: int) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready, at the latest when the next request is due."""
        seconds = 0.1
        if self._offsets is not None and self._next < len(self._requests) and len(self._busy) < self._concurrency:
            seconds = max(0.0, (begin + self._offsets[self._next] - time.perf_counter_ns()) / SECOND)
        return ready(self._selector, min(seconds, 0.1))

    def _send_due(self, begin: int, now: int) -> None:
        while self._next < len(self._requests) and len(self._busy) < self._concurrency:
            intended = now if self._offsets is None else begin + self._offsets[self._next]
            if intended > now:
                return
            self._begin(Exchange(self._next, intended))
            self._next += 1

    def _end_overdue(self, now: int) -> None:
        for connection in [c for c in self._busy if c.exchange and now - c.exchange.sent > self._timeout]:
            self._fail(connection, f"timeout: not answered within {self._timeout / SECOND:g} s")

    # ------------------------------------------------------------ one request

    def _begin(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        try:
            connection = self._idle.popleft() if self._idle else self._connect()
        except OSError as error:
            exchange.sent = exchange.ended = time.perf_counter_ns()
            exchange.trouble = f"refused: {error.strerror or error}"
            self._ended += 1
            return
        connection.exchange, connection.framing = exchange, Framing()
        connection.unsent = memoryview(self._requests[exchange.number])
        self._busy.add(connection)
        exchange.sent = time.perf_counter_ns()
        if connection.connected:
            self._write(connection)

    def _connect(self) -> _Connection:
        family, kind, protocol, _, where = self._where
        opened = socket.socket(family, kind, protocol)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is not None:  # the handshake is not part of any time: it is done before the request counts as sent
            opened.settimeout(30.0)
            opened.connect(where)
            opened = self._tls.wrap_socket(opened, server_hostname=self._address.host)
            opened.setblocking(False)
        else:
            opened.setblocking(False)
            status = opened.connect_ex(where)
            if status not in _STARTED:
                opened.close()
                raise OSError(status, errno.errorcode.get(status, "unknown"))
        connection = _Connection(opened, connected=self._tls is not None)
        self._selector.register(opened, selectors.EVENT_READ | selectors.EVENT_WRITE, connection)
        return connection

    def _serve(self, connection: _Connection, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            if not connection.connected:
                status = connection.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if status:
                    self._fail(connection, f"refused: {errno.errorcode.get(status, status)}")
                    return
                connection.connected = True
            self._write(connection)
        if mask & selectors.EVENT_READ:
            self._read(connection)

    def _write(self, connection: _Connection) -> None:
        try:
            while connection.unsent:
                connection.unsent = connection.unsent[connection.socket.send(connection.unsent) :]
        except _LATER:
            pass
        except OSError as error:
            self._fail(connection, f"closed: while the request was sent: {error.strerror or error}")
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.unsent else 0)
        if self._selector.get_key(connection.socket).events != wanted:
            self._selector.modify(connection.socket, wanted, connection)

    def _read(self, connection: _Connection) -> None:
        exchange = connection.exchange
        while True:
            stamp = time.perf_counter_ns()
            try:
                data = connection.socket.recv(READ)
            except _LATER:
                return
            except OSError as error:
                self._fail(connection, f"closed: {error.strerror or error}")
                return
            if exchange is None:  # idle: the server ended the connection, or speaks unasked
                self._drop(connection)
                return
            if not data:
                whole = connection.framing.ends_with_connection
                where = ", on a connection that had answered before" if connection.used else ""
                self._fail(connection, "" if whole else f"closed: after {sum(map(len, exchange.reads))} bytes{where}")
                return
            exchange.stamps.append(stamp)
            exchange.reads.append(data)
            if connection.framing.is_whole(data):
                self._finish(connection, stamp)
                return
            if self._tls is None:
                return  # another read is another event; TLS may hold more than the kernel tells

    # ------------------------------------------------------------ ends

    def _finish(self, connection: _Connection, stamp: int) -> None:
        assert connection.exchange is not None
        connection.exchange.ended = stamp
        connection.exchange, connection.used = None, True
        self._busy.discard(connection)
        self._ended += 1
        if connection.framing.closes:
            self._drop(connection)
        else:
            self._idle.append(connection)

    def _fail(self, connection: _Connection, trouble: str) -> None:
        """End a connection and its exchange; ``trouble`` is empty where the end of the connection is the end of the answer."""
        exchange, connection.exchange = connection.exchange, None
        self._busy.discard(connection)
        if exchange is not None:
            exchange.trouble, exchange.ended = trouble, time.perf_counter_ns()
            self._ended += 1
        self._drop(connection)

    def _drop(self, connection: _Connection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(connection.socket)
        connection.socket.close()

    def _close(self) -> None:
        for connection in [*self._busy, *self._idle]:
            self._drop(connection)
        self._selector.close()


def poisson(count: int, rate: float, seed: int) -> list[int]:
    """``count`` times in nanoseconds after the start, of a Poisson process of ``rate`` requests a second.

    Raises:
        ValueError: a rate that is not above zero and finite.
    """
    import numpy as np

    if not 0 < rate < math.inf:
        raise ValueError(f"rate {rate:g}: must be requests a second above 0")
    gaps = np.random.default_rng(seed).exponential(SECOND / rate, count)
    return [int(t) for t in np.cumsum(gaps) - gaps[0]] if count else []
