"""The bytes of each request: prompts of a given length that no cache has seen, and the headers."""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from pytest_npuconf.engines.openai_client import KEY_VARIABLE, authorization
from pytest_npuconf.errors import SettingsError
from pytest_npuconf.load.generator import Address
from pytest_npuconf.load.shape import ROUTES, Shape

FIRST_ID, IDS = 256, 768  # token ids of random prompts: in every vocabulary, and special in none that we know
WORDS = ("one", "two", "three", "four", "five", "red", "blue", "green", "house", "tree", "river", "stone", "light",
         "road")  # fmt: skip


def address_of(url: str) -> tuple[Address, str]:
    """Where to connect, and the path before ``/v1``.

    Raises:
        SettingsError: no http(s) URL with a host.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise SettingsError(f"{url!r} is no URL of a server", mend="--endpoint http://host:port")
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise SettingsError(f"{url!r}: {error}", mend="--endpoint http://host:port") from error
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return Address(parts.hostname, port, parts.scheme == "https"), path


def requests_of(shape: Shape, model: str, address: Address, path: str, *, first: int = 0) -> list[bytes]:
    """The bytes of ``shape.requests`` requests, numbers ``first`` and up: no two alike, the same for the same seed."""
    rows = range(first, first + shape.requests)
    return [_bytes(_body(shape, model, np.random.default_rng((shape.seed, i))), shape, address, path) for i in rows]


def _body(shape: Shape, model: str, draw: np.random.Generator) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": model, "max_tokens": shape.output_len, "temperature": 0.0, "stream": True, "ignore_eos": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }  # fmt: skip
    if shape.route == "chat":
        words = [WORDS[i] for i in draw.integers(0, len(WORDS), shape.input_len)]
        return {**body, "messages": [{"role": "user", "content": " ".join(words)}]}
    return {**body, "prompt": (FIRST_ID + draw.integers(0, IDS, shape.input_len)).tolist()}


def _bytes(body: dict[str, Any], shape: Shape, address: Address, path: str) -> bytes:
    data = json.dumps(body).encode()
    key = [f"{name}: {value}" for name, value in authorization(os.environ.get(KEY_VARIABLE, "")).items()]
    lines = [
        f"POST {path}{ROUTES[shape.route]} HTTP/1.1", f"Host: {address.host}:{address.port}", "Content-Type: application/json",
        "Accept: text/event-stream", f"Content-Length: {len(data)}", *key,
    ]  # fmt: skip
    return "\r\n".join([*lines, "", ""]).encode() + data
