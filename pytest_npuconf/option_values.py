"""What an option's text means: typed ``parse_*`` functions, which raise ValueError with the reason."""

from __future__ import annotations

import math
import re
from pathlib import Path

from pytest_npuconf.precisions import PRECISIONS

REFERENCES = ("auto", "stored", "live")
URL = re.compile(r"https?://(?:\[[\da-fA-F:.]+\]|[^:/?#@\[\]\s]+)(?::[1-9]\d{0,4})?(?:/[^?#\s]*)?")
TRUE, FALSE = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")


def parse_names(text: str) -> tuple[str, ...]:
    """``a,b`` as a tuple; empty names are refused."""
    names = tuple(part.strip() for part in text.split(","))
    if not all(names):
        raise ValueError(f"an empty name in {text!r}")
    return names


def parse_precisions(text: str) -> tuple[str, ...]:
    """A comma list of precisions."""
    names = parse_names(text)
    for name in names:
        if name not in PRECISIONS:
            raise ValueError(f"{name!r} is not one of {', '.join(PRECISIONS)}")
    return names


def parse_name(text: str) -> str:
    """One non-empty word."""
    if not text.strip():
        raise ValueError("it is empty")
    return text.strip()


def parse_path(text: str) -> Path:
    """A path, ``~`` expanded, made absolute against the current folder."""
    try:
        return Path(parse_name(text)).expanduser().absolute()
    except RuntimeError as error:  # ~nobody
        raise ValueError(f"{text!r}: {error}") from error


def parse_endpoint(text: str) -> tuple[tuple[str, str], ...]:
    """``[MODE=]URL``, or a comma list of them, as modes and URLs; the mode is ``generate`` when none is named."""
    return tuple(_endpoint(part) for part in parse_names(text))


def _endpoint(text: str) -> tuple[str, str]:
    head, equals, rest = text.partition("=")
    mode, url = (head.strip(), rest.strip()) if equals and "/" not in head else ("generate", text)
    if "@" in url.partition("://")[2].partition("/")[0]:
        raise ValueError(
            "a user or password in the URL would be printed and kept in results: set NPUCONF_API_KEY instead"
        )
    if not mode or not URL.fullmatch(url):
        raise ValueError(f"{text!r} is no URL: http://host:port, or mode=http://host:port")
    return mode, url.rstrip("/").removesuffix("/v1")


def parse_seconds(text: str) -> float:
    """A finite number of seconds above 0."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ValueError(f"{text!r} is no number of seconds above 0")
    return seconds


def parse_reference(text: str) -> str:
    """``auto``, ``stored`` or ``live``."""
    if text not in REFERENCES:
        raise ValueError(f"{text!r} is not one of {', '.join(REFERENCES)}")
    return text


def parse_switch(text: str) -> bool:
    """An ini or environment switch."""
    if text.strip().lower() in TRUE:
        return True
    if text.strip().lower() in FALSE:
        return False
    raise ValueError(f"{text!r} is not one of {', '.join(TRUE)}, {', '.join(f for f in FALSE if f)}")
