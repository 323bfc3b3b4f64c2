"""What every metric asks of its input, in one place."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_npuconf.errors import MetricError, NonFiniteError

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


def as_float32(values: Any, name: str) -> Float32:
    """An array, list or torch tensor (any device, any float dtype) as a float32 numpy array of the same shape.

    Raises:
        MetricError: the values are not numbers.
    """
    if hasattr(values, "detach"):  # a torch tensor, without importing torch
        values = values.detach().float().cpu().numpy()
    try:
        with np.errstate(over="ignore"):  # beyond float32 becomes infinity, which require_finite names
            return np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise MetricError(f"{name}: not an array of numbers ({error})") from error


def as_float64(values: Any, name: str) -> Float64:
    """The same in float64, for sums and scores that are not float32 to begin with.

    Raises:
        MetricError: the values are not numbers.
    """
    if hasattr(values, "detach"):
        values = values.detach().double().cpu().numpy()
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise MetricError(f"{name}: not an array of numbers ({error})") from error


def require_matching(candidate: Float32, reference: Float32, *, axes: str = "(positions, vocabulary)") -> None:
    """Refuse empty input and shapes that differ.

    Raises:
        MetricError: the message gives both shapes; a differing last axis is called the vocabulary when it is one.
    """
    if reference.size == 0 or candidate.size == 0:
        raise MetricError(f"empty input: candidate {candidate.shape}, reference {reference.shape}")
    if candidate.shape == reference.shape:
        return
    what = "shape"
    if "vocabulary" in axes and candidate.shape[:-1] == reference.shape[:-1]:
        what = "vocabulary"
    raise MetricError(f"{what} differs: candidate {candidate.shape}, reference {reference.shape}, axes {axes}")


def require_finite(values: Float32 | Float64, name: str) -> None:
    """Refuse NaN and infinity.

    Raises:
        NonFiniteError: naming the count and the first position (index along the first axis) and element.
    """
    bad = ~np.isfinite(values)
    if not bad.any():
        return
    first = tuple(int(i) for i in np.argwhere(bad)[0])
    kind = "NaN" if np.isnan(values[first]) else "infinity"
    where = f"position {first[0]}" + (f", element {first[-1]}" if len(first) > 1 else "")
    raise NonFiniteError(f"{kind} in the {name} at {where} ({int(bad.sum())} of {bad.size} elements are not finite)")
