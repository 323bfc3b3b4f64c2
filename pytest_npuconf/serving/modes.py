"""The modes of the card, each started: whether it starts, or is refused as the card says of this version."""

from __future__ import annotations

from packaging.version import Version

from pytest_npuconf.cards.schema import ServingMode
from pytest_npuconf.errors import EngineError
from pytest_npuconf.gates import Measurement, Row
from pytest_npuconf.serving.bench import ServingBench


def must_refuse(mode: ServingMode, version: str) -> bool:
    """Whether the server of this version must refuse the mode."""
    return mode.refused is not None and (not mode.refused.below or Version(version) < Version(mode.refused.below))


def modes(bench: ServingBench, model: str, dtype: str, version: str) -> Measurement:
    """Modes with another outcome than the card's. One that fails must say why in the words that the card gives."""
    rows, told = [], {}
    for mode in bench.card(model).serving.modes:
        said = _outcome(bench, model, dtype, mode.name)
        told[mode.name] = said or "starts"
        refuse = must_refuse(mode, version)
        if not refuse and said:
            rows.append(Row(mode.name, 1.0, f"does not start: {said}"))
        elif refuse and mode.refused is not None and mode.refused.says not in said:
            rows.append(Row(mode.name, 1.0, f"expected a refusal with {mode.refused.says!r}: {said or 'it starts'}"))
    return Measurement.counted("modes.unexpected", rows, n=len(told), of="modes", outcomes=told, version=version)


def _outcome(bench: ServingBench, model: str, dtype: str, mode: str) -> str:
    """Empty when it starts or has started in this run."""
    if (model, dtype, mode) in bench.started:
        return ""
    try:
        bench.served(model, dtype, mode)
    except EngineError as error:
        return str(error)
    return ""
