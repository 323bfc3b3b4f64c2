"""One module's output against the reference's, over what rounding alone costs there. Pure, on arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pytest_npuconf.errors import MetricError
from pytest_npuconf.metrics.arrays import Float32, Float64, require_finite, require_matching

# Half the spacing of numbers just above one: the largest relative error of one rounding to nearest.
UNIT_ROUNDOFF = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
# Positions are judged in blocks: the error of one position is an average over too few independent channels.
BLOCK = 16
# A channel that rounds far less than its neighbours (a constant, a zero) is judged as if it rounded this share of the median.
QUIET = 0.3
# Where few elements carry a sum (massive activations: one channel, one position of each text), little averages out, and their
# error is what a product of two projections makes of its roundings. Healthy ways to compute moved a single one by four
# roundings, so one may be off by twice that, and n of them by that over the root of n.
FEW_ROUNDINGS = 8.0


@dataclass(frozen=True)
class Squares:
    """Sums of squares of errors and of the reference, and of the reference's fourth powers: ``channel_*`` of shape
    ``(channels,)`` over all rows, ``block_*`` of shape ``(blocks,)`` over ``BLOCK`` consecutive rows and all channels.
    float64."""

    channel_error: Float64
    channel_reference: Float64
    channel_fourth: Float64
    block_error: Float64
    block_reference: Float64
    block_fourth: Float64

    def joined(self, other: Squares) -> Squares:
        """Both: channels add up, blocks follow one another.

        Raises:
            MetricError: another number of channels.
        """
        if self.channel_error.shape != other.channel_error.shape:
            raise MetricError(f"channels differ: {self.channel_error.size} and {other.channel_error.size}")
        return Squares(
            self.channel_error + other.channel_error,
            self.channel_reference + other.channel_reference,
            self.channel_fourth + other.channel_fourth,
            np.concatenate([self.block_error, other.block_error]),
            np.concatenate([self.block_reference, other.block_reference]),
            np.concatenate([self.block_fourth, other.block_fourth]),
        )


@dataclass(frozen=True)
class ModuleRatio:
    """Noise ratios of one module: of its worst channel and its worst block of rows (with their indices), and over all."""

    channel: float
    worst_channel: int
    block: float
    worst_block: int
    mean: float

    @property
    def worst(self) -> float:
        """What decides."""
        return max(self.channel, self.block)


def block_starts(rows: int) -> list[int]:
    """First rows of the blocks; a last one that would be less than half a block belongs to the one before."""
    starts = list(range(0, rows, BLOCK))
    return starts[:-1] if len(starts) > 1 and rows - starts[-1] < BLOCK // 2 else starts


def squares(candidate: Float32, reference: Float32) -> Squares:
    """Of one output with shape ``(rows, channels)``.

    Raises:
        MetricError: not two-dimensional, empty, or of another shape.
        NonFiniteError: NaN or infinity, with the row.
    """
    if reference.ndim != 2:
        raise MetricError(f"module output: need (rows, channels), got shape {reference.shape}")
    require_matching(candidate, reference, axes="(rows, channels)")
    require_finite(reference, "reference module's output")
    require_finite(candidate, "candidate module's output")
    starts = block_starts(reference.shape[0])
    error, size = candidate.astype(np.float64) - reference, reference.astype(np.float64)
    for values in (error, size):
        np.square(values, out=values)
    return Squares(
        error.sum(axis=0),
        size.sum(axis=0),
        np.square(size).sum(axis=0),
        np.add.reduceat(error.sum(axis=1), starts),
        np.add.reduceat(size.sum(axis=1), starts),
        np.add.reduceat(np.square(size).sum(axis=1), starts),
    )


def yardstick_squares(members: Sequence[Squares]) -> Squares:
    """The noisiest member at each channel and block: each member is a healthy way to compute, so none may be objected to.

    Raises:
        MetricError: no member, or members of other channels or rows.
    """
    if not members:
        raise MetricError("a yardstick without members has no rounding to tell")
    first = members[0]
    if any(m.block_error.shape != first.block_error.shape for m in members):
        raise MetricError("the yardstick's members were fed with different rows")
    if any(m.channel_error.shape != first.channel_error.shape for m in members):
        raise MetricError("the yardstick's members differ in channels")
    return Squares(
        np.max([m.channel_error for m in members], axis=0),
        first.channel_reference,
        first.channel_fourth,
        np.max([m.block_error for m in members], axis=0),
        first.block_reference,
        first.block_fourth,
    )


def noise_ratio(candidate: Squares, yardstick: Squares, roundoff: float) -> ModuleRatio:
    """Root of the ratio of squared errors, candidate over yardstick, by channel, by block, and of their sums.

    Rounding counts for at least one rounding of the output, ``|r| * roundoff / sqrt(3)`` (the standard deviation of an
    error that is uniform within ``roundoff``), for ``FEW_ROUNDINGS / sqrt(n)`` of them where ``n`` elements carry
    the sum (the participation ratio ``(sum r^2)^2 / sum r^4``), and for at least ``QUIET`` of the median channel or block. Where
    even that is zero, so must the candidate's error be: any other gives infinity.

    Args:
        roundoff: the dtype's unit roundoff, see :data:`UNIT_ROUNDOFF`.

    Raises:
        MetricError: the two are of different shapes.
    """
    if candidate.channel_error.shape != yardstick.channel_error.shape:
        raise MetricError(
            f"channels differ: candidate {candidate.channel_error.size}, yardstick {yardstick.channel_error.size}"
        )
    if candidate.block_error.shape != yardstick.block_error.shape:
        raise MetricError(f"blocks differ: {candidate.block_error.size}, yardstick {yardstick.block_error.size}")
    channel = _ratios(
        candidate.channel_error,
        yardstick.channel_error,
        yardstick.channel_reference,
        yardstick.channel_fourth,
        roundoff,
    )
    block = _ratios(
        candidate.block_error, yardstick.block_error, yardstick.block_reference, yardstick.block_fourth, roundoff
    )
    error, noise = _total(candidate.channel_error), _total(yardstick.channel_error)
    mean = _ratios(error, noise, _total(yardstick.channel_reference), np.zeros(1), roundoff)
    worst_channel, worst_block = int(np.argmax(channel)), int(np.argmax(block))
    return ModuleRatio(
        float(channel[worst_channel]), worst_channel, float(block[worst_block]), worst_block,
        float(mean[0]),
    )  # fmt: skip


def _total(values: Float64) -> Float64:
    return np.array([values.sum()], dtype=np.float64)


def _ratios(error: Float64, noise: Float64, reference: Float64, fourth: Float64, roundoff: float) -> Float64:
    carried = np.divide(fourth, np.square(reference), out=np.zeros_like(fourth), where=reference > 0)  # 1 / n
    roundings = np.maximum(1.0 / 3.0, FEW_ROUNDINGS * FEW_ROUNDINGS * carried)
    floored = np.maximum(noise, reference * roundings * (roundoff * roundoff))
    floored = np.maximum(floored, QUIET * QUIET * float(np.median(floored)))
    quiet = np.where(error > 0, math.inf, 0.0)
    ratios: Float64 = np.sqrt(np.divide(error, floored, out=quiet, where=floored > 0))
    return ratios
