"""Many runs of one model: how its verdict and its fullest bounds went over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_npuconf.errors import SettingsError
from pytest_npuconf.records import Record
from pytest_npuconf.report.pictures.drawing import INK, SERIES, Picture, draw_picture, log_scale, shortened
from pytest_npuconf.report.pictures.precision import bound_used
from pytest_npuconf.report.reading import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINES, MOST_RUNS = 4, 200


@dataclass(frozen=True)
class History:
    """``runs``: file, time, status, required checks that failed, device; oldest first."""

    model: str
    runs: tuple[tuple[str, str, str, str, str], ...]
    left_out: int
    picture: Picture | None


def history(model: str, runs: Sequence[tuple[str, Results]], key: str) -> History:
    """The history of one model over runs by name; the last ``MOST_RUNS`` of them.

    Raises:
        SettingsError: a run does not have this model.
    """
    for name, results in runs:
        if model not in results["models"]:
            raise SettingsError(f"{name} has no model {model}", mend="compare runs of one model")
    ordered = sorted(runs, key=lambda run: run[1]["created"])
    shown = ordered[-MOST_RUNS:]
    rows = tuple(
        (
            name,
            results["created"],
            results["models"][model]["status"],
            ", ".join(results["models"][model]["failed"][:3])
            + (" …" if len(results["models"][model]["failed"]) > 3 else ""),
            f"{results['facts'].get('device', '')} {results['facts'].get('device_description', '')}".strip(),
        )
        for name, results in shown
    )
    return History(model, rows, len(ordered) - len(shown), _picture(model, [results for _, results in shown], key))


def _picture(model: str, runs: Sequence[Results], key: str) -> Picture | None:
    """The checks that once used most of their bound, of those that several runs have."""
    found: dict[str, list[float | None]] = {}
    for number, results in enumerate(runs):
        for record in results["checks"]:
            if record["model"] == model and (used := _used(record)) is not None:
                found.setdefault(record["check"], [None] * len(runs))[number] = used
    several = {check: line for check, line in found.items() if sum(one is not None for one in line) > 1}
    fullest = sorted(several, key=lambda check: -max(one for one in several[check] if one is not None))[:LINES]
    if not fullest:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for check, (colour, style, marker) in zip(fullest, SERIES, strict=False):
            points = [(i + 1, one) for i, one in enumerate(several[check]) if one is not None]
            axes.plot(
                [i for i, _ in points],
                [y for _, y in points],
                color=colour,
                ls=style,
                marker=marker,
                ms=4,
                label=shortened(check),
            )
        axes.axhline(1, color=INK, lw=1.2)
        log_scale(axes, "y", [one for check in fullest for one in several[check] if one])
        axes.set(xlabel="run, oldest first", ylabel="share of the bound used")
        axes.locator_params("x", integer=True)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)

    return draw_picture(
        key,
        f"How much of their bounds the fullest checks of {model} used, run by run",
        "The figures; a check fails, or is inconclusive, when its interval's worse end passes the line.",
        ("run", *fullest),
        [(str(i + 1), *(several[check][i] for check in fullest)) for i in range(len(runs))],
        draw,
        height=3.6,
    )


def _used(record: Record) -> float | None:
    used = bound_used(record)
    return used[0] if used is not None else None
