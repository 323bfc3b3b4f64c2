"""Pictures for a page: drawn by matplotlib, coloured by the page, each with the numbers that it shows."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_npuconf.errors import SettingsError
from pytest_npuconf.gates import format_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MEND = "pip install 'pytest-npuconf[report]'"
WIDTH = 5.6  # inches: readable on a phone, two beside each other on a desk
# matplotlib draws in colours that nothing else has; the page says what they are, in light and in dark
INK, MUTED, GRID, PAPER = "#010203", "#010204", "#010205", "#010206"
FIRST, SECOND, THIRD, FOURTH, BAD = "#010211", "#010212", "#010213", "#010214", "#010221"
_VARIABLES = {
    INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "paper", FIRST: "first", SECOND: "second", THIRD: "third",
    FOURTH: "fourth", BAD: "bad",
    # of pictures that were drawn for white paper
    "#000000": "ink", "#333333": "ink", "#4c4c4c": "ink", "#666666": "muted", "#bfbfbf": "muted", "#e5e5e5": "grid",
    "#e6e6e6": "grid", "#ffffff": "paper", "#0072b2": "first", "#d55e00": "second", "#009e73": "third",
}  # fmt: skip
# told apart without colour too
SERIES = ((FIRST, "-", "o"), (SECOND, "--", "s"), (THIRD, "-.", "^"), (FOURTH, ":", "D"))
_STYLE = {
    "svg.fonttype": "none", "text.parse_math": False, "font.size": 9, "axes.titlesize": 9, "axes.grid": True,
    "grid.color": GRID, "grid.linewidth": 0.6, "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False,
    "axes.edgecolor": MUTED, "axes.labelcolor": INK, "axes.facecolor": "none", "text.color": INK, "xtick.color": MUTED,
    "ytick.color": MUTED, "xtick.labelcolor": INK, "ytick.labelcolor": INK, "legend.frameon": False, "lines.linewidth": 1.5,
    "axes.formatter.useoffset": False, "figure.facecolor": "none", "figure.constrained_layout.use": True,
}  # fmt: skip
_HEAD = re.compile(r".*?<svg\b[^>]*?viewBox=\"([^\"]+)\"[^>]*>", re.DOTALL)
_IDS = re.compile(r'(\bid="|href="#|url\(#)')
_FONT = re.compile(r"font: ([^;\"]*?)'[^;\"]*")
_TAG = re.compile(r"<[^>]*>")
_NOT_DRAWN = re.compile(r"<metadata>.*?</metadata>|<!--.*?-->|<!DOCTYPE[^>]*>", re.DOTALL)


@dataclass(frozen=True)
class Picture:
    """``svg``: for the body of a page; ``header`` and ``rows``: the numbers in it; ``caption``: how to read it."""

    key: str
    title: str
    caption: str
    svg: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def draw_picture(
    key: str,
    title: str,
    caption: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str | float | None]],
    draw: Callable[[Figure], None],
    *,
    height: float = 3.1,
) -> Picture:
    """Call ``draw`` with an empty figure, ``height`` in inches. Not from two threads at once: matplotlib has one set of settings.

    Args:
        key: unique on the page; letters, digits and hyphens.

    Raises:
        SettingsError: matplotlib is not installed.
        ValueError: no rows: there is nothing to draw.
    """
    if not rows:
        raise ValueError(f"{key}: nothing to draw")
    try:
        import matplotlib.style
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SettingsError(f"a picture needs matplotlib: {error}", mend=MEND) from error
    out = io.StringIO()
    with warnings.catch_warnings(), matplotlib.style.context(["default", _STYLE, {"svg.hashsalt": key}]):
        # a glyph's width is guessed, the viewer's fonts draw it; labels that leave no room overlap, the numbers stand below
        warnings.filterwarnings("ignore", message="Glyph|constrained_layout not applied")
        figure = Figure(figsize=(WIDTH, height))
        draw(figure)
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    cells = tuple(tuple(_cell(value) for value in row) for row in rows)
    return Picture(key, title, caption, for_page(out.getvalue(), key), tuple(header), cells)


def for_page(svg: str, key: str) -> str:
    """An SVG of matplotlib's for the body of a page: no size of its own, ids that no other has, colours and font of the page.

    Raises:
        ValueError: it has no viewBox.
    """
    found = _HEAD.match(svg)
    if found is None:
        raise ValueError(f"{key}: matplotlib wrote no svg with a viewBox")
    body = _NOT_DRAWN.sub("", svg[found.end() :])
    body = _TAG.sub(lambda tag: _own(tag.group(), key), body)
    return f'<svg viewBox="{found.group(1)}" role="img" aria-labelledby="{key}-title" aria-describedby="{key}-caption">{body}'


def _own(tag: str, key: str) -> str:
    """A tag with the page's ids, font and colours; text between tags is somebody's, and stays as it is."""
    tag = _FONT.sub(r"font: \1var(--font)", _IDS.sub(rf"\g<1>{key}-", tag))
    for colour, name in _VARIABLES.items():
        tag = tag.replace(colour, f"var(--{name})")
    return tag


def _cell(value: str | float | None) -> str:
    if value is None:
        return "–"
    return value if isinstance(value, str) else format_number(float(value))


def log_scale(axes: Axes, which: str, values: Sequence[float]) -> None:
    """A logarithmic axis where the positive values span more than a decade; plain numbers as its ticks."""
    positive = [value for value in values if value > 0 and math.isfinite(value)]
    if positive and max(positive) > 10 * min(positive):
        axes.set(**{f"{which}scale": "log"})
        axis = getattr(axes, f"{which}axis")
        axis.set_major_formatter("{x:.4g}")
        axis.set_minor_formatter("")


def natural(name: str) -> list[tuple[int, int, str]]:
    """A key to sort names by, numbers in them as numbers; a name without one comes last."""
    parts = re.findall(r"\d+|\D+", name)
    key = [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]
    return key if any(kind == 0 for kind, *_ in key) else [(2, 0, name)]


def shortened(text: str, most: int = 34) -> str:
    """A label that fits: its end tells names of modules apart."""
    clean = "".join(c if c.isprintable() else "\ufffd" for c in text)
    return clean if len(clean) <= most else f"…{clean[1 - most :]}"
