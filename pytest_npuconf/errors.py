"""Errors a user can mend. Each message says what was wrong, where, and the command or line that mends it."""

from __future__ import annotations

import difflib


class NpuconfError(Exception):
    """Base of every error that this package raises about its input or its surroundings."""

    def __init__(self, what: str, *, mend: str = "") -> None:
        """``what``: what was wrong and where; ``mend``: the command or line that mends it."""
        self.what = what
        self.mend = mend
        super().__init__(f"{what}\n  mend: {mend}" if mend else what)

    def __reduce__(self) -> tuple[object, ...]:
        """Keep both parts when the error crosses a process boundary (pytest-xdist)."""
        return (_rebuild, (type(self), self.what, self.mend))


def _rebuild(cls: type[NpuconfError], what: str, mend: str) -> NpuconfError:
    return cls(what, mend=mend)


class SettingsError(NpuconfError):
    """An option, ini value or environment variable that cannot be used."""


class CardError(NpuconfError):
    """A card that cannot be read, with the file, key and line."""


class WeightsError(NpuconfError):
    """Weights or tokenizer that are missing, damaged, or another model's."""


class DeviceError(NpuconfError):
    """A device that is not there, or a framework that cannot be imported."""


class EngineError(NpuconfError):
    """An engine that is not installed or cannot run what was asked."""


class ServerError(EngineError):
    """A served model that did not answer as the OpenAI interface says.

    ``kind``: ``refused`` (nobody listens, or the name is unknown), ``timeout`` (silence), ``status`` (an HTTP status
    other than 2xx, or an error object), ``not-json``, ``not-openai`` (another protocol or another shape),
    ``malformed-stream``, ``endless`` (over the deadline or the size limit), ``closed`` (cut off). ``status``: the HTTP
    status, None where no answer began. ``route``: the path that was asked for.
    """

    def __init__(
        self, what: str, *, mend: str = "", kind: str = "", status: int | None = None, route: str = ""
    ) -> None:
        super().__init__(what, mend=mend)
        self.kind = kind
        self.status = status
        self.route = route

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild_server, (self.what, self.mend, self.kind, self.status, self.route))


def _rebuild_server(what: str, mend: str, kind: str, status: int | None, route: str) -> ServerError:
    return ServerError(what, mend=mend, kind=kind, status=status, route=route)


class FaultError(NpuconfError):
    """A fault that is unknown, or that found nothing to break in this model."""


class BaselineError(NpuconfError):
    """A stored reference that is damaged, of another schema, or not comparable with this run."""


class AuditError(NpuconfError):
    """A document that cannot be audited: missing, not text, too large."""


class OldBaselineError(BaselineError):
    """A stored reference of another schema version: whole, but not to be read by this version."""


class MetricError(NpuconfError, ValueError):
    """Input that a metric refuses: empty, of another shape, of another vocabulary."""


class NonFiniteError(MetricError):
    """NaN or infinity in a metric's input; the message names the position."""


def nearest(word: str, words: list[str] | tuple[str, ...]) -> str:
    """``; did you mean 'x'?`` or nothing."""
    close = difflib.get_close_matches(word, list(words), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(repr(c) for c in close)}?" if close else ""
