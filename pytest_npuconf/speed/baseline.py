"""Recorded speed: sessions of healthy runs on one piece of hardware, and what a new session may differ from them by.

Sessions, and not rounds, are the unit: a server that is started anew, on another day, differs from itself by more than its rounds.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_npuconf.errors import BaselineError
from pytest_npuconf.files import write_atomically
from pytest_npuconf.load.figures import FIGURES, JUDGED
from pytest_npuconf.references.choose import folders, recording_folder
from pytest_npuconf.references.store import locked
from pytest_npuconf.stats import t_quantile

if TYPE_CHECKING:
    from pytest_npuconf.plan import Plan

SCHEMA_VERSION = 1
FEWEST_SESSIONS = 5  # of fewer the spread is hardly known: Student's quantile for two is above 12


@dataclass(frozen=True)
class Recorded:
    """A file of sessions. ``sessions``: each figure of each session (the median of its rounds), with its time and versions."""

    path: Path
    shape: dict[str, Any]
    sessions: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Departure:
    """A figure of this session against those recorded. ``slowdown``: ratio, above 1 is worse; ``allowed``: the slowdown up to which
    one more healthy session is expected to come, with 95 % over all figures."""

    figure: str
    measured: float
    recorded: float
    slowdown: float
    allowed: float

    @property
    def share(self) -> float:
        """Of what is allowed, on the log scale; above 1 is more."""
        return math.log(self.slowdown) / math.log(self.allowed)


def departures(measured: Mapping[str, float], sessions: Sequence[Mapping[str, float]]) -> list[Departure]:
    """Each figure that every session has, worst first.

    The prediction interval of one more observation, on logarithms: ``t(n - 1) s sqrt(1 + 1/n)`` (Hahn and Meeker, Statistical
    Intervals, 1991, section 4.7), Bonferroni over the figures.

    Raises:
        BaselineError: fewer than :data:`FEWEST_SESSIONS` sessions, or no figure that all have.
    """
    n = len(sessions)
    names = [name for name in JUDGED if name in measured and all(name in session for session in sessions)]
    if n < FEWEST_SESSIONS or not names:
        raise BaselineError(
            f"{n} sessions of speed are recorded, {FEWEST_SESSIONS} are needed to know what healthy ones differ by",
            mend="run it again with --npuconf-record, on another day if you can",
        )
    found = []
    for name in names:
        logs = np.log([session[name] for session in sessions])
        worse = -1.0 if FIGURES[name].higher_is_better else 1.0
        # sessions that agree to the last digit would allow nothing at all
        spread = max(float(logs.std(ddof=1)), 1e-4)
        allowed = t_quantile(n - 1, len(names)) * spread * math.sqrt(1 + 1 / n)
        mean = float(logs.mean())
        slowdown = math.exp(worse * (math.log(measured[name]) - mean))
        found.append(Departure(name, measured[name], math.exp(mean), slowdown, math.exp(allowed)))
    return sorted(found, key=lambda one: -one.share)


def file_name(dtype: str, key: Mapping[str, str], shape: Mapping[str, Any]) -> str:
    """``speed-cpu-bfloat16-1f0c2a3b.json``: the end is of hardware and load."""
    digest = hashlib.sha256(json.dumps([dict(key), dict(shape)], sort_keys=True).encode()).hexdigest()[:8]
    return f"speed-{key['device']}-{dtype}-{digest}.json"


def shape_of(plan: Plan, model: str) -> dict[str, Any]:
    """The load that sessions are comparable at."""
    speed = plan.cards[model].speed
    assert speed is not None
    return {name: getattr(speed, name) for name in ("input_len", "output_len", "concurrency", "requests")}


def find_sessions(plan: Plan, model: str, dtype: str, key: Mapping[str, str]) -> Recorded | None:
    """The recorded sessions of this hardware, dtype and load in the folders of the references; None where there are none.

    Raises:
        BaselineError: a file that cannot be read, or is of another schema.
    """
    for folder in folders(plan.cards[model], plan.settings):
        found = read(folder / file_name(dtype, key, shape_of(plan, model)))
        if found is not None:
            return found
    return None


def read(path: Path) -> Recorded | None:
    """The file's sessions, None where there is no such file.

    Raises:
        BaselineError: it cannot be read, or is of another schema.
    """
    if not path.is_file():
        return None
    mend = f"delete it and record anew: rm {path}"
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        if told["schema_version"] != SCHEMA_VERSION:
            raise BaselineError(
                f"{path}: schema {told['schema_version']}, this version reads {SCHEMA_VERSION}", mend=mend
            )
        sessions = tuple(told["sessions"])
        for session in sessions:
            for name, value in session["figures"].items():
                if name not in FIGURES or not (math.isfinite(value) and value > 0):
                    raise ValueError(f"figure {name}: {value!r}")
        return Recorded(path, dict(told["shape"]), sessions)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BaselineError(f"{path} holds no recorded speed: {type(error).__name__}: {error}", mend=mend) from error


def add_session(
    plan: Plan, model: str, dtype: str, key: Mapping[str, str], figures: Mapping[str, float], time: str
) -> str:
    """Write the file anew with one more session; what was written, in words.

    Raises:
        BaselineError: the folder cannot be written, belongs to an installed package, or the file there is damaged.
    """
    shape = shape_of(plan, model)
    path = recording_folder(plan.cards[model], plan.settings) / file_name(dtype, key, shape)
    session = {"time": time, "figures": dict(figures), "facts": dict(plan.facts)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.parent):
            before = read(path)
            kept = () if before is None else before.sessions
            told = {
                "schema_version": SCHEMA_VERSION, "model": model, "dtype": dtype, "hardware": dict(key), "shape": shape,
                "sessions": [*kept, session],
            }  # fmt: skip
            write_atomically(path, (json.dumps(told, indent=1, sort_keys=True) + "\n").encode())
    except OSError as error:
        raise BaselineError(f"{path} cannot be written: {error}", mend="--npuconf-baselines DIR") from error
    return f"{path}: {len(kept)} -> {len(kept) + 1} sessions of speed"
