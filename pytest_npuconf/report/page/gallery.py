"""Which pictures a page shows of a run: of each kind those that fill most of their bound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pytest_npuconf.errors import MetricError
from pytest_npuconf.records import Record
from pytest_npuconf.report.pictures import precision, speed
from pytest_npuconf.report.pictures.drawing import Picture
from pytest_npuconf.report.run import Run, name_of

MOST_OF_A_KIND, MOST = 2, 16
_DRAWN: dict[str, Callable[[str, Record], Picture | None]] = {
    "modules.noise_ratio": precision.modules,
    "kl.noise_ratio": precision.kl_by_position,
    "serving.kl": precision.kl_by_position,
    "kl.positions": precision.ratio_by_bucket,
    "token.match": precision.top1_gaps,
    "serving.tokens": precision.top1_gaps,
    "ppl.delta": precision.perplexity,
    "serving.perplexity": precision.perplexity,
    "serving.capacity": speed.capacity,
    "speed.sweep": speed.sweep,
    "speed.physics": speed.physics,
    "speed.run": speed.rounds,
    "speed.steady": speed.steady,
    "speed.memory": speed.memory,
}


@dataclass
class Gallery:
    """Pictures in the order of the page, the ``overview`` before them, and words on those that a record's data did not give."""

    overview: Picture | None = None
    pictures: list[Picture] = field(default_factory=list)
    not_drawn: list[str] = field(default_factory=list)

    def add(self, name: str, draw: Callable[[], Picture | None]) -> None:
        """One more, where there is room and something to draw."""
        if len(self.pictures) >= MOST:
            self.not_drawn.append(f"{name}: a page has at most {MOST} pictures")
        elif (picture := self.tried(name, draw)) is not None:
            self.pictures.append(picture)

    def tried(self, name: str, draw: Callable[[], Picture | None]) -> Picture | None:
        """The picture, if there is something to draw; data that cannot be drawn is said."""
        try:
            return draw()
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, Warning, MetricError) as error:
            self.not_drawn.append(f"{name}: its data cannot be drawn: {type(error).__name__}: {error}")
            return None


def gallery_of(run: Run, key: str) -> Gallery:
    """The pictures of one model.

    Args:
        key: unique on the page.

    Raises:
        SettingsError: matplotlib is not installed.
    """
    gallery = Gallery()
    judged = [record for record in run.checks if record["check"] in run.summary["required"]]
    gallery.overview = gallery.tried("margins", lambda: precision.margins(f"{key}-margins", judged))
    for name, drawn in _DRAWN.items():
        for number, record in enumerate(_fullest(run.of(name))):
            _add(gallery, drawn, f"{key}-{name.replace('.', '-').replace('_', '-')}-{number}", record)
    hidden = run.of("hidden.states")
    gallery.add("hidden.states", lambda: precision.hidden_by_layer(f"{key}-hidden", hidden))
    return gallery


def _add(gallery: Gallery, drawn: Callable[[str, Record], Picture | None], key: str, record: Record) -> None:
    gallery.add(record["check"], lambda: drawn(key, record))


def _fullest(records: Sequence[Record]) -> list[Record]:
    """Of several precision pairs those that use most of their bound; what failed first."""

    def used(record: Record) -> tuple[bool, float]:
        found = precision.bound_used(record)
        return record["verdict"] in ("pass", None), -(found[2] if found is not None else 0.0)

    return sorted(records, key=used)[:MOST_OF_A_KIND] if len({name_of(r["check"]) for r in records}) == 1 else []
