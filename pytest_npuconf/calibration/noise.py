"""What a gate judges that is a matter of rounding: how each such check is measured, and which constant bounds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_npuconf import measurements, thresholds
from pytest_npuconf.cards.schema import Card
from pytest_npuconf.checks import CHECKS, gate_for
from pytest_npuconf.devices.base import is_deterministic
from pytest_npuconf.gates import Gate, Measurement, Outcome, format_bound, format_measurement
from pytest_npuconf.precisions import Precision, pairs_of
from pytest_npuconf.thresholds import Constant

if TYPE_CHECKING:
    from pytest_npuconf.workbench import Workbench

FULL = "float32"
Measure = Callable[["Workbench", str, Precision], Measurement]
Parts = Callable[["Workbench", str, Precision, Measurement], Mapping[str, float]]


@dataclass(frozen=True)
class Noise:
    """One check. ``figure`` is what is held against the bound, where it is not the measurement's value; ``constant`` bounds
    it, where that is not the check's own; ``parts`` are figures that ``figure`` is the largest of."""

    measure: Measure
    parts: Parts = lambda *_: {}
    figure: Callable[[Measurement], float] = lambda m: abs(m.value)
    constant: Constant | None = None


@dataclass(frozen=True)
class Judged:
    """One check of one variant. ``figure`` is None where there is no number; ``said`` is the measurement in words."""

    figure: float | None
    outcome: str
    said: str
    parts: dict[str, float | None]

    @property
    def failed(self) -> bool:
        """Of a benign variant: a false alarm."""
        return self.outcome == Outcome.FAIL.value


@dataclass(frozen=True)
class Bound:
    """The bound in force of one check's figure, and the name of the constant behind it."""

    value: float
    constant: str


def _logits(full: Callable[..., Measurement], ratio: Callable[..., Measurement]) -> Measure:
    def measure(bench: Workbench, model: str, pair: Precision) -> Measurement:
        return (full if pair.candidate == FULL else ratio)(bench.comparison(model, pair))

    return measure


def _hidden(bench: Workbench, model: str, pair: Precision) -> Measurement:
    take = measurements.hidden_error if pair.candidate == FULL else measurements.hidden_ratio
    return take(bench.hidden(model, pair))


def _modules(bench: Workbench, model: str, pair: Precision) -> Measurement:
    gate = gate_of("modules.noise_ratio", pair, bench.plan.cards[model])
    return measurements.module_ratio(bench.modules(model, pair), gate.bound, thresholds.NOISE_RATIO.value)


def _equivalence(kind: str) -> Measure:
    def measure(bench: Workbench, model: str, pair: Precision) -> Measurement:
        take = measurements.equivalence_error if pair.candidate == FULL else measurements.equivalence_ratio
        return take(bench.equivalence(model, pair.candidate, kind))

    return measure


def _repeat(bench: Workbench, model: str, pair: Precision) -> Measurement:
    found = bench.equivalence(model, pair.candidate, "repeat")
    return measurements.repeat_differences(found, deterministic=is_deterministic(bench.plan.device))


def _module_parts(bench: Workbench, model: str, pair: Precision, _: Measurement) -> dict[str, float]:
    ratios = bench.modules(model, pair).ratios.values()
    named = {"channel": "channel", "position": "block", "mean": "mean"}
    return {part: max((getattr(r, field) for r in ratios), default=0.0) for part, field in named.items()}


def _rows(_bench: Workbench, _model: str, _pair: Precision, measured: Measurement) -> dict[str, float]:
    return {row.place: row.value for row in measured.rows} if measured.interval is not None else {}


def _groups(_bench: Workbench, _model: str, _pair: Precision, measured: Measurement) -> dict[str, float]:
    found = {name: group["ratio"] for name, group in measured.data.get("groups", {}).items()}
    return found | ({"single row or window": measured.rows[0].value} if found and measured.rows else {})


def _deviations(measured: Measurement) -> float:
    """The largest gap of a disagreement, in standard deviations of what rounding does to a gap (TIE_Z of which is tau)."""
    tau = float(measured.data["tau"])
    counted = measured.rows[0].value / tau * thresholds.TIE_Z.value if measured.rows and tau > 0 else 0.0
    return max(counted, float(measured.data["largest_excused"]))


NOISE: dict[str, Noise] = {
    "logits.rel_l2": Noise(_logits(measurements.rel_l2, measurements.rel_l2_ratio)),
    "kl.noise_ratio": Noise(_logits(measurements.kl_ratio, measurements.kl_ratio)),
    "kl.positions": Noise(_logits(measurements.kl_by_position, measurements.kl_by_position), _rows),
    "hidden.states": Noise(_hidden, _rows),
    "modules.noise_ratio": Noise(_modules, _module_parts),
    "equivalence.batch": Noise(_equivalence("batch"), _groups),
    "equivalence.cache": Noise(_equivalence("cache"), _groups),
    "equivalence.repeat": Noise(_repeat),
    "token.match": Noise(
        _logits(measurements.token_match, measurements.token_match), figure=_deviations, constant=thresholds.TIE_Z
    ),
    "ppl.delta": Noise(_logits(measurements.perplexity, measurements.perplexity)),
}


def pairs(dtype: str, required: tuple[str, ...]) -> dict[str, tuple[str, Precision]]:
    """Check and pair by id: what is a matter of rounding among the ``required`` at this dtype."""
    return {
        f"{name}.{pair.name}": (name, pair)
        for pair in pairs_of(dtype)
        for name in NOISE
        if CHECKS[name].runs_at(pair) and f"{name}.{pair.name}" in required
    }


def gate_of(name: str, pair: Precision, card: Card) -> Gate:
    """The gate in force."""
    gate = gate_for(f"{name}.{pair.name}", pair, card, required=True)
    assert gate is not None, name  # a required check without one is refused at the start of a run
    return gate


def bound_of(name: str, pair: Precision, card: Card) -> Bound:
    """The bound of the check's figure."""
    own = card.gates.get(f"{name}.{pair.name}") or card.gates.get(name)
    constant = NOISE[name].constant or CHECKS[name].bound(pair)
    assert constant is not None, name
    if own is not None and NOISE[name].constant is None:
        return Bound(own.bound, f"[gates] of the card {card.name}")
    return Bound(constant.value, constant_name(constant))


def constant_name(constant: Constant) -> str:
    """``NOISE_RATIO``: as the table calls it."""
    return next(name for name, value in vars(thresholds).items() if value is constant)


def measure(bench: Workbench, model: str, dtype: str) -> dict[str, Judged]:
    """Every check of :func:`pairs`, of the candidate that this workbench loads, by id.

    Raises:
        FaultError: the workbench's variant does not apply to this model.
        MetricError: too few documents for one of the checks.
    """
    found = {}
    for check, (name, pair) in pairs(dtype, bench.plan.required[model]).items():
        noise, gate = NOISE[name], gate_of(name, pair, bench.plan.cards[model])
        measured = noise.measure(bench, model, pair)
        said = measured.broken or f"{format_measurement(measured)}, gate {format_bound(gate)}"
        parts: dict[str, float | None] = {}
        parts |= {} if measured.broken else noise.parts(bench, model, pair, measured)
        figure = None if measured.broken else noise.figure(measured)
        found[check] = Judged(figure, gate.judge(measured).outcome.value, said, parts)
    return found
