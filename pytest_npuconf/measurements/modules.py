"""Modules fed one by one: the figures of the check ``modules.noise_ratio``, and which module is to blame."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from pytest_npuconf.engines.modules import LOGITS
from pytest_npuconf.gates import Measurement, Row, format_number
from pytest_npuconf.module_comparison import MASK, POSITIONS, ModuleComparison

METRIC = "modules.noise_ratio"
SHOWN = 10
HEAD = "lm_head"


@dataclass(frozen=True)
class Blame:
    """``origins``, the likeliest first; ``containers``: off only because they hold an origin."""

    origins: tuple[str, ...]
    containers: tuple[str, ...]

    @property
    def guilty(self) -> str:
        """The one to look at first, empty when none is off."""
        return self.origins[0] if self.origins else ""


def module_ratio(comparison: ModuleComparison, over: float, spread: float) -> Measurement:
    """The worst noise ratio of any module. What is not a matter of rounding (a mask, position ids, NaN, a layer that is left
    out, one that cannot be judged) breaks the measurement.

    Args:
        over: the bound above which a module counts as off, for the blame.
        spread: the same for the error of a layer in the candidate's own pass.
    """
    exact = _exact(comparison)
    off = {name: ratio.worst for name, ratio in comparison.ratios.items() if ratio.worst > over}
    blame = apportion({**off, **dict.fromkeys(exact, math.inf)})
    downstream = {layer: value for layer, value in comparison.own.items() if value > spread}
    data = {
        "guilty": blame.guilty,
        "origins": list(blame.origins),
        "containers": list(blame.containers),
        "downstream": [[layer, value if math.isfinite(value) else None] for layer, value in downstream.items()],
        "own": {layer: value if math.isfinite(value) else None for layer, value in comparison.own.items()},
        "ratios": {n: r.worst if math.isfinite(r.worst) else None for n, r in comparison.ratios.items()},
        "unmatched": dict(comparison.unmatched),
        "modules": len(comparison.ratios),
        "notes": _notes(comparison, blame, downstream),
    }
    rows = _rows(comparison, blame, exact)
    data["rows_total"] = len(rows)
    worst = max((ratio.worst for ratio in comparison.ratios.values()), default=math.inf)
    broken = f"{blame.guilty}: {exact[blame.guilty]}" if exact and blame.guilty in exact else ""
    if not broken and not math.isfinite(worst):
        broken = f"{blame.guilty}: not zero where the reference is exactly zero"
    return Measurement(
        METRIC, math.nan if broken else worst, n=len(comparison.ratios), of="modules", rows=tuple(rows[:SHOWN]),
        data=data, broken=broken,
    )  # fmt: skip


def apportion(off: Mapping[str, float]) -> Blame:
    """Tell origins from containers among modules that are off: an origin has nothing inside that is off.

    Args:
        off: ratios by name, in the order in which the reference computes them; the exact findings are infinite. The worst
            origin is named first, of several equal ones the earliest.
    """
    containers = [name for name in off if any(inside(other, name) for other in off)]
    origins = [name for name in off if name not in containers]
    origins.sort(
        key=lambda name: (name != POSITIONS, name != MASK, -off[name])
    )  # a wrong mask may follow from positions
    return Blame(tuple(origins), tuple(containers))


def inside(name: str, container: str) -> bool:
    """Whether a module is part of another; the logits contain the head."""
    return name.startswith(f"{container}.") or (container == LOGITS and name == HEAD)


def _exact(comparison: ModuleComparison) -> dict[str, str]:
    """Findings that no bound can excuse, in words."""
    found = {
        name: f"{count} entries differ from the reference's, {where}"
        for name, (count, where) in comparison.wrong.items()
    }
    found |= comparison.uncalled
    found |= comparison.non_finite
    for name, words in comparison.unmatched.items():
        judged = any(inside(name, other) for other in comparison.ratios) or name in found
        if not judged and not any(inside(name, other) for other in found):
            found[name] = f"not judged, nor anything that contains it: {words}"
    return found


def _rows(comparison: ModuleComparison, blame: Blame, exact: Mapping[str, str]) -> list[Row]:
    """Origins and containers; where there are none, every module, worst first."""
    ratios = comparison.ratios
    others = () if blame.origins else sorted(ratios, key=lambda name: -ratios[name].worst)
    rows = []
    for name in (*blame.origins, *blame.containers, *others):
        part = "origin" if name in blame.origins else "contains an origin" if name in blame.containers else ""
        if name in exact:
            value, words = float(comparison.wrong.get(name, (1, ""))[0]), [part, exact[name]]
        else:
            ratio = ratios[name]
            value = ratio.worst
            places = [f"channel {ratio.worst_channel}: {format_number(ratio.channel)}"]
            places += [f"{comparison.places[name]}: {format_number(ratio.block)}", f"mean {format_number(ratio.mean)}"]
            words = [part, ", ".join(places)]
        words += [comparison.weights(name)] if name in blame.origins[:SHOWN] else []
        rows.append(Row(name, value, "; ".join(filter(None, words))))
    return rows


def _notes(comparison: ModuleComparison, blame: Blame, downstream: Mapping[str, float]) -> list[str]:
    """Lines under a failure: where it began, where it goes, what could not be looked at."""
    notes = []
    if blame.origins:
        notes.append(f"origin: {_listed(blame.origins)}")
    if downstream:
        listed = [f"{layer} {format_number(value)}" for layer, value in downstream.items()]
        word = (
            "spreads in the model's own pass"
            if blame.origins
            else "the model's own pass is off, each module alone is not"
        )
        notes.append(f"{word}, over rounding's: {_listed(listed)}")
    if blame.containers:
        notes.append(f"contained in: {_listed(blame.containers)}")
    if comparison.unmatched:
        first, words = next(iter(comparison.unmatched.items()))
        names = _listed(tuple(comparison.unmatched))
        notes.append(f"could not be matched with the reference's modules: {names} ({first}: {words})")
    return notes


def _listed(names: Collection[str], most: int = 4) -> str:
    shown = list(names)[:most]
    return ", ".join(shown) + (f" and {len(names) - most} more" if len(names) > most else "")
