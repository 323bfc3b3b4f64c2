"""Where a reference comes from: stored if there is one that may be compared, else live."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_npuconf.cards.loading import CARD_FILE
from pytest_npuconf.cards.schema import Card
from pytest_npuconf.documents import Document
from pytest_npuconf.errors import BaselineError, OldBaselineError
from pytest_npuconf.options import Settings
from pytest_npuconf.references.baseline import Baseline, read_baseline
from pytest_npuconf.references.comparability import differences
from pytest_npuconf.references.stored import StoredReference

ENGINE, DEVICE = "transformers", "cpu"
SHOWN = 3


@dataclass(frozen=True)
class Needs:
    """What a run asks of a stored reference: the model, the candidate's dtypes, and what it must be comparable with."""

    model: str
    dtypes: tuple[str, ...]
    documents: tuple[Document, ...]
    comparability: dict[str, Any]


def installed_folder(settings: Settings, model: str) -> Path:
    """Where ``npuconf install`` puts the references of a model."""
    return settings.cache / "references" / model


def own_folder(card: Card) -> Path:
    """The folder of a card's references: the card's own where it is called card.toml, else one of the model's name."""
    return card.path.parent if card.path.name == CARD_FILE else card.path.parent / card.name


def folders(card: Card, settings: Settings) -> list[Path]:
    """Where stored references are looked for, in order."""
    given = [settings.baselines / card.name] if settings.baselines is not None else []
    return list(dict.fromkeys([*given, own_folder(card), installed_folder(settings, card.name)]))


def recording_folder(card: Card, settings: Settings) -> Path:
    """Where ``--npuconf-record`` and ``--npuconf-calibrate`` write.

    Raises:
        BaselineError: the card is part of an installed package, which a recording must not change.
    """
    if settings.baselines is not None:
        return settings.baselines / card.name
    if "_data" in card.path.parts and "pytest_npuconf" in card.path.parts:
        flag = "--npuconf-calibrate" if settings.calibrate else "--npuconf-record"
        raise BaselineError(
            f"{flag}: the card of {card.name} belongs to the installed package ({card.path})",
            mend="--npuconf-baselines DIR, a folder of your own",
        )
    return own_folder(card)


def dtypes_needed(precisions: Sequence[str]) -> tuple[str, ...]:
    """The dtypes of the references that judge these precisions: float32 always."""
    return tuple(dict.fromkeys(["float32", *precisions]))


def has_stored(card: Card, settings: Settings, dtypes: Sequence[str]) -> bool:
    """Whether anything is stored for these dtypes, comparable or not."""
    return any((folder / _file(dtype)).is_file() for folder in folders(card, settings) for dtype in dtypes)


def choose_stored(needs: Needs, places: Sequence[Path]) -> tuple[StoredReference | None, list[str]]:
    """The first comparable references of ``places``, with why the others are not.

    Raises:
        BaselineError: a stored file is damaged.
    """
    reasons: list[str] = []
    for folder in places:
        paths = [folder / _file(dtype) for dtype in needs.dtypes]
        missing = [path.name for path in paths if not path.is_file()]
        if missing:
            reasons.append(f"{folder}: no {', '.join(missing)}")
            continue
        try:
            found = [read_baseline(path) for path in paths]
        except OldBaselineError as error:
            reasons.append(f"{folder}: not comparable: {error.what}")
            continue
        differing = [
            text for path, baseline in zip(paths, found, strict=True) for text in _differing(path, baseline, needs)
        ]
        differing += _other_recording(paths, found)
        if differing:
            more = f" and {len(differing) - SHOWN} more" if len(differing) > SHOWN else ""
            reasons.append(f"{folder}: not comparable: {'; '.join(differing[:SHOWN])}{more}")
            continue
        by_dtype = dict(zip(needs.dtypes, found, strict=True))
        return StoredReference(by_dtype, needs.documents, paths), reasons
    return None, reasons


def require_stored(needs: Needs, places: Sequence[Path]) -> StoredReference:
    """As :func:`choose_stored`, for ``--npuconf-reference stored``.

    Raises:
        BaselineError: none that may be compared; every place and the field that differs are named.
    """
    stored, reasons = choose_stored(needs, places)
    if stored is None:
        listed = "\n".join(f"    {reason}" for reason in reasons)
        raise BaselineError(
            f"{needs.model}: no stored reference that may be compared:\n{listed}",
            mend="record one (--npuconf-record), install a pack (npuconf install FILE), or --npuconf-reference live",
        )
    return stored


def _file(dtype: str) -> str:
    return f"{ENGINE}-{DEVICE}-{dtype}.json"


def _other_recording(paths: Sequence[Path], found: Sequence[Baseline]) -> list[str]:
    """References below float32 belong to the float32 one that was recorded with them."""
    return [
        f"{path.name}: statistics.float32_sha256 (recorded with another {paths[0].name})"
        for path, baseline in zip(paths, found, strict=True)
        if baseline.statistics.get("float32_sha256") != found[0].sha256
    ]


def _differing(path: Path, baseline: Baseline, needs: Needs) -> list[str]:
    if baseline.model != needs.model:
        return [f"{path.name}: model (stored {baseline.model}, here {needs.model})"]
    return [f"{path.name}: {text}" for text in differences(baseline.comparability, needs.comparability)]
