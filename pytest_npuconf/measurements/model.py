"""The model itself against its card and its files: what was loaded, and whether it is what the card describes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pytest_npuconf.gates import MAX_ROWS, Measurement, Row
from pytest_npuconf.weights.architecture import Architecture, Shape
from pytest_npuconf.weights.checkpoint import GENERATION, StoredTensor


def misplaced(parameters: dict[str, tuple[str, str]], dtype: str, device: str) -> Measurement:
    """Floating-point parameters of the candidate that are not at the dtype and on the device that was asked for.

    Args:
        parameters: name to (dtype, device type), as found in the loaded model.
    """
    wrong = [(name, found) for name, found in parameters.items() if found != (dtype, device)]
    rows = [Row(name, 1.0, f"{found[0]} on {found[1]}, asked for {dtype} on {device}") for name, found in wrong]
    return Measurement.counted("parameters.misplaced", rows, n=len(parameters), of="parameters")


def config_differences(expected: Mapping[str, Any], found: Mapping[str, Any]) -> Measurement:
    """Values of the checkpoint's config that are not the card's."""
    return _differences("config.differences", expected, found)


def generation_differences(expected: Mapping[str, Any], found: Mapping[str, Any] | None) -> Measurement:
    """Values of generation_config.json that are not the card's; None: the checkpoint has no such file."""
    if found is not None:
        return _differences("generation_config.differences", expected, found)
    row = Row(GENERATION, 1.0, f"the checkpoint has none, the card states {', '.join(expected)}")
    return Measurement.counted("generation_config.differences", [row], n=len(expected), of="values")


def parameter_counts(
    architecture: Architecture, tensors: Mapping[str, StoredTensor], stated: int | None
) -> Measurement:
    """Disagreements between three counts of parameters: by config.json, in the files' headers, and the card's if it states
    one. A tied weight counts once, however often it is stored.

    Args:
        tensors: the stored tensors by name.
        stated: the card's ``[size] parameters``.
    """
    metric = "parameters.disagreements"
    if architecture.unbuildable:
        return Measurement.unusable(metric, architecture.unbuildable)
    by_config, _ = architecture.count(architecture.shapes)
    in_files, without_embedding = architecture.count(architecture.named(_shapes(tensors)))
    others = {"files": in_files} | ({"card": stated} if stated is not None else {})
    rows = [
        Row(name, 1.0, f"{count:,} parameters, config.json gives {by_config:,} ({count - by_config:+,})")
        for name, count in others.items()
        if count != by_config
    ]
    data = {
        "by_config": by_config,
        "in_files": in_files,
        "card": stated,
        "statistics": {"parameters": in_files, "parameters_without_embedding": without_embedding},
    }
    return Measurement.counted(metric, rows, n=1 + len(others), of="counts", **data)


def weight_differences(
    architecture: Architecture, tensors: Mapping[str, StoredTensor], config: Mapping[str, Any]
) -> Measurement:
    """Tensors of the architecture that the files have in another shape or not at all, and stored ones that it does not know.

    Args:
        tensors: the stored tensors by name.
        config: of the checkpoint; a shape that differs names the keys that ask for it.
    """
    metric = "weights.differences"
    if architecture.unbuildable:
        return Measurement.unusable(metric, architecture.unbuildable)
    found = architecture.named(_shapes(tensors))
    differing = [n for n, shape in architecture.shapes.items() if n in found and found[n] != shape]
    missing = architecture.missing(found)
    unexpected = [n for n in found if n not in architecture.shapes]
    passed_over = [n for n in unexpected if architecture.passed_over(n)]
    unknown = [n for n in unexpected if n not in passed_over]
    rows = [
        Row(n, 1.0, f"{found[n]} in the files, {architecture.shapes[n]} by config.json"
            f"{_asked_by(architecture.shapes[n], found[n], config)}")
        for n in differing
    ]  # fmt: skip
    rows += [Row(n, 1.0, f"missing, {architecture.shapes[n]} by config.json") for n in missing]
    rows += [Row(n, 1.0, f"{found[n]} in the files, {architecture.name} has no such weight") for n in unknown]
    data = {
        "architecture": architecture.name,
        "differing": len(differing),
        "missing": len(missing),
        "unexpected": len(unknown),
        "passed_over": passed_over[:MAX_ROWS],
        "passed_over_total": len(passed_over),
    }
    return Measurement.counted(metric, rows, n=len(architecture.shapes), of="tensors", **data)


def weight_size(files: Mapping[str, int], tensors: Iterable[StoredTensor], origin: str) -> Measurement:
    """Bytes of the weight files as they lie on the disk: ``gb`` in 1e9, ``gib`` in 2**30 bytes.

    Args:
        files: name to bytes.
        origin: where the checkpoint came from; one that was converted here is not the size that anybody published.
    """
    total = sum(files.values())
    rows = [Row(name, float(size)) for name, size in sorted(files.items(), key=lambda f: -f[1])]
    data = {
        "origin": origin,
        "dtypes": sorted({tensor.dtype for tensor in tensors}),
        "statistics": {"gb": total / 1e9, "gib": total / 2**30},
    }
    return Measurement(
        "weights.stored", float(total), unit="B", n=len(files), of="files", rows=tuple(rows[:MAX_ROWS]), data=data
    )


def missing_files(documented: Sequence[str], there: Iterable[str]) -> Measurement:
    """Files that the card names and the checkpoint's folder does not hold."""
    found = set(there)
    rows = [Row(name, 1.0, "not in the checkpoint's folder") for name in documented if name not in found]
    return Measurement.counted("files.missing", rows, n=len(documented), of="files")


def _differences(metric: str, expected: Mapping[str, Any], found: Mapping[str, Any]) -> Measurement:
    rows = [
        Row(key, 1.0, f"the card says {want!r}, the checkpoint {found.get(key)!r}")
        for key, want in expected.items()
        if not _same(want, found.get(key))
    ]
    return Measurement.counted(metric, rows, n=len(expected), of="values")


def _shapes(tensors: Mapping[str, StoredTensor]) -> dict[str, Shape]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def _asked_by(wanted: Shape, found: Shape, config: Mapping[str, Any]) -> str:
    """``; hidden_size = 80``: the keys of config.json with a value that the files do not have there."""
    odd = {extent for extent in wanted if extent not in found}
    keys = [f"{k} = {v}" for k, v in config.items() if isinstance(v, int) and not isinstance(v, bool) and v in odd]
    return f"; {', '.join(keys)}" if keys else ""


def _same(want: Any, found: Any) -> bool:
    if isinstance(want, float) and isinstance(found, (int, float)):
        return abs(want - found) <= 1e-6 * abs(want)  # 1e-05 is 9.999999747378752e-06 once a float32
    return bool(want == found)
