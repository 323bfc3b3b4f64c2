"""Two servers, or two settings, measured in turn: A B B A, block after block, so that what drifts with time meets both alike.

Everything is on the log scale: 0.1 is ten per cent, and a ratio and its inverse are as far from one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import ArrayLike

from pytest_npuconf.errors import MetricError
from pytest_npuconf.stats import t_quantile

# A comparison that is made every night may cry wolf once in a hundred nights, not once in twenty.
ALARM = 5  # times as strict as 95 %: 99 %
FEWEST_BLOCKS = 6  # an exact signed rank test of five cannot come below 5 %


class Standing(str, Enum):
    """``worse`` and ``not worse`` are shown; ``inconclusive`` shows neither."""

    WORSE = "worse"
    NOT_WORSE = "not worse"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Interleaved:
    """B against A. ``slowdown``: exp of the mean log ratio, above 1 where B is worse, with its 95 % interval over blocks.

    ``p_value``: exact signed rank test of the blocks, two-sided. ``effect``: Cliff's delta of the rounds, 1 where every round of B
    is worse than every one of A. ``floor``: the least slowdown that counts, learnt from A against A. ``blocks_needed``: how many
    would settle it at the spread seen, None where it is settled.
    """

    slowdown: float
    interval: tuple[float, float]
    p_value: float
    effect: float
    blocks: int
    floor: float
    standing: Standing
    blocks_needed: int | None


def order_of(blocks: int) -> str:
    """The letters in the order of the rounds: ``ABBA`` for each block, every other one the other way round."""
    return "".join("ABBA" if i % 2 == 0 else "BAAB" for i in range(blocks))


def block_ratios(values: ArrayLike, order: str, *, higher_is_better: bool) -> np.ndarray:
    """For each block of four rounds the mean log of B's two over A's two, positive where B is worse; shape ``(blocks,)``.

    Args:
        values: one for each round, in the order in which they were measured, shape ``(4 * blocks,)``, above zero.
        order: what each round measured, as :func:`order_of` gives it.

    Raises:
        MetricError: another number of values than letters, a block without two of each, or a value that is not above zero.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (len(order),) or len(order) % 4 or not order:
        raise MetricError(f"interleaved: {array.size} values for {len(order)} rounds; four make a block")
    wrong = np.flatnonzero(~((array > 0) & np.isfinite(array)))
    if wrong.size:
        raise MetricError(f"interleaved: round {wrong[0] + 1} is {array[wrong[0]]:g}: must be above 0")
    logs = np.log(array).reshape(-1, 4)
    letters = np.array(list(order)).reshape(-1, 4)
    if not ((letters == "A").sum(axis=1) == 2).all() or not ((letters == "B").sum(axis=1) == 2).all():
        raise MetricError(f"interleaved: {order}: each block has two rounds of A and two of B")
    signs = np.where(letters == "B", 0.5, -0.5) * (-1.0 if higher_is_better else 1.0)
    found: np.ndarray = (logs * signs).sum(axis=1)
    return found


def floor_of(same: Sequence[ArrayLike], blocks: int, comparisons: int = 1) -> float:
    """The least log slowdown that ``blocks`` blocks can tell from nothing: the half width of the 95 % interval of their mean,
    with the spread of blocks that measured A against A.

    Args:
        same: block ratios of each run of A against A (:func:`block_ratios`).
        comparisons: figures that are judged together (Bonferroni).

    Raises:
        MetricError: fewer than :data:`FEWEST_BLOCKS` blocks in all.
    """
    pooled = np.concatenate([np.asarray(one, dtype=np.float64).ravel() for one in same]) if same else np.zeros(0)
    if pooled.size < FEWEST_BLOCKS or blocks < 1:
        raise MetricError(f"interleaved: {pooled.size} blocks of A against A; at least {FEWEST_BLOCKS} are needed")
    # about zero: A against A has no difference, and a drift that the order did not remove must count as spread
    spread = float(np.sqrt(np.mean(np.square(pooled))))
    return t_quantile(pooled.size, comparisons) * spread / math.sqrt(blocks)


def judge(
    values: ArrayLike, order: str, *, higher_is_better: bool, floor: float, margin: float, comparisons: int = 1
) -> Interleaved:
    """B against A.

    ``worse``: the whole 99 % interval is above zero and the mean above ``floor``. ``not worse``: the whole 95 % interval is below
    ``margin``, the log slowdown that matters. Else ``inconclusive``.

    Raises:
        MetricError: as :func:`block_ratios`; fewer than :data:`FEWEST_BLOCKS` blocks; a margin that is not above the floor, which
            no number of rounds like these could tell.
    """
    ratios = block_ratios(values, order, higher_is_better=higher_is_better)
    n = ratios.size
    if n < FEWEST_BLOCKS:
        raise MetricError(f"interleaved: {n} blocks; at least {FEWEST_BLOCKS} are needed")
    if not 0 <= floor < margin:
        raise MetricError(
            f"interleaved: a margin of {margin:g} is within what A against A differs by, {floor:g}: more blocks are needed"
        )
    mean, spread = float(ratios.mean()), float(ratios.std(ddof=1))
    half = t_quantile(n - 1, comparisons) * spread / math.sqrt(n)
    low, high = mean - half, mean + half
    sure = t_quantile(n - 1, comparisons * ALARM) * spread / math.sqrt(n)
    standing = Standing.INCONCLUSIVE
    if mean - sure > 0 and mean > floor:
        standing = Standing.WORSE
    elif high < margin:
        standing = Standing.NOT_WORSE
    needed = None
    if standing is Standing.INCONCLUSIVE:
        distance = max(abs(margin - mean), abs(mean)) / 2
        needed = max(n + 1, math.ceil((t_quantile(n - 1, comparisons) * spread / max(distance, 1e-9)) ** 2))
    array, letters = np.asarray(values, dtype=np.float64), np.array(list(order))
    effect = cliffs_delta(array[letters == "B"], array[letters == "A"]) * (-1.0 if higher_is_better else 1.0)
    return Interleaved(
        math.exp(mean),
        (math.exp(low), math.exp(high)),
        signed_rank(ratios),
        effect,
        n,
        math.exp(floor),
        standing,
        needed,
    )


def cliffs_delta(one: ArrayLike, other: ArrayLike) -> float:
    """Share of pairs in which ``one`` is larger, less the share in which ``other`` is (Cliff, Psychological Bulletin 114, 1993).

    Raises:
        MetricError: an empty sample.
    """
    a, b = np.asarray(one, dtype=np.float64).ravel(), np.asarray(other, dtype=np.float64).ravel()
    if a.size == 0 or b.size == 0:
        raise MetricError("cliffs_delta: an empty sample")
    return float(np.sign(a[:, None] - b[None, :]).mean())


def signed_rank(ratios: ArrayLike) -> float:
    """Two-sided p value of Wilcoxon's signed rank test; 1 where every ratio is zero.

    Raises:
        MetricError: empty, or a value that is not finite.
    """
    from scipy.stats import wilcoxon

    array = np.asarray(ratios, dtype=np.float64).ravel()
    if array.size == 0 or not np.isfinite(array).all():
        raise MetricError("signed_rank: needs at least one value, all finite")
    return 1.0 if not array.any() else float(wilcoxon(array).pvalue)
