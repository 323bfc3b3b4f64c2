"""A server that never gives back what a request needed: ``vllm serve --middleware pytest_npuconf.faults.leaking.Leaking``.

Imported by the server; nothing of this package is needed there but this file.
"""

from __future__ import annotations

from typing import Any

KEPT = 1 << 18  # bytes of each request for the model


class Leaking:
    """ASGI middleware (https://asgi.readthedocs.io/en/latest/specs/main.html)."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._kept: list[bytes] = []

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Keep something of every request under /v1, and pass it on."""
        if scope["type"] == "http" and scope["method"] == "POST" and str(scope["path"]).startswith("/v1/"):
            self._kept.append(b"\x01" * KEPT)
        await self._app(scope, receive, send)
