"""One run of load: warm-up, the measured requests, what they say."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from pytest_npuconf.errors import EngineError, SettingsError
from pytest_npuconf.load import server_metrics
from pytest_npuconf.load.ask import address_of, requests_of
from pytest_npuconf.load.generator import Generator, poisson
from pytest_npuconf.load.reply import read
from pytest_npuconf.load.result import LoadResult, result_of
from pytest_npuconf.load.shape import Shape

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def load(
    url: str, model: str, shape: Shape, *, timeout: float = 600.0, announce: Callable[[str], None] = lambda _: None
) -> LoadResult:
    """Put ``shape`` on the server at ``url`` and measure it.

    Args:
        model: the name that it serves.
        timeout: seconds for one answer.
        announce: is given progress.

    Raises:
        SettingsError: a shape that nothing can be measured with, a URL that is none, or a host that is not known.
        EngineError: a warm-up request failed, so nothing is measured.
    """
    check(shape)
    address, path = address_of(url)
    try:
        if shape.warmup:
            warm = dataclasses.replace(shape, requests=shape.warmup, rate=None)
            _warm_up(Generator(address, requests_of(warm, model, address, path, first=shape.requests),
                               concurrency=shape.concurrency, timeout=timeout, announce=announce), shape, url)  # fmt: skip
        offsets = None if shape.rate is None else poisson(shape.requests, shape.rate, shape.seed)
        requests = requests_of(shape, model, address, path)
        run = Generator(
            address, requests, concurrency=shape.concurrency, offsets=offsets, timeout=timeout, announce=announce
        )
    except OSError as error:
        raise SettingsError(
            f"{url}: {error.strerror or error}", mend="name the server's URL: --endpoint URL"
        ) from error
    before = server_metrics.read(url)
    exchanges = run.run()
    server = server_metrics.between(before, server_metrics.read(url))
    replies = [read(e, shape.output_len) for e in exchanges]
    return result_of(shape, replies, run.watch, server, same_host=address.host in LOOPBACK)


def check(shape: Shape) -> None:
    """Raises SettingsError for a shape that asks for nothing."""
    for name in ("requests", "concurrency", "input_len", "output_len"):
        if getattr(shape, name) < 1:
            flag = "--" + name.replace("_", "-")
            raise SettingsError(f"{flag} {getattr(shape, name)}: must be at least 1", mend=f"{flag} 1 or more")
    if shape.warmup < 0:
        raise SettingsError(f"--warmup {shape.warmup}: must be 0 or more", mend="--warmup 0 for none")
    if shape.rate is not None and not 0 < shape.rate < float("inf"):
        raise SettingsError(
            f"--rate {shape.rate:g}: must be requests a second above 0", mend="--rate 2.5, or leave it out"
        )


def _warm_up(generator: Generator, shape: Shape, url: str) -> None:
    replies = [read(e, shape.output_len) for e in generator.run()]
    failed = [reply for reply in replies if reply.kind]
    if failed:
        raise EngineError(
            f"{url}: {len(failed)} of {len(replies)} warm-up requests failed, the first: {failed[0].kind}: {failed[0].trouble}",
            mend="try one request by hand: curl; or see the server's log",
        )
