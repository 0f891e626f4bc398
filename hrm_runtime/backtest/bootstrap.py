"""How far chance alone may move a total: the circular block bootstrap, on numpy alone.

Values that follow each other in time are not independent, so runs of consecutive entries are drawn
instead of single ones (Politis and Romano, "A circular block-resampling procedure for stationary
data", 1992). Each entry is as likely to be drawn as any other; the end is followed by the start.
"""

import math
from typing import Final

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from hrm_runtime.errors import BadInput

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

RESAMPLES: Final = 2000

LEAST_BLOCKS: Final = 10
"""Fewer blocks than these say nothing about how much they vary."""


def interval(
    numerators: npt.ArrayLike,
    denominators: npt.ArrayLike,
    block: int = 1,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Low and high percentile of `resampled_ratios`; (-inf, inf) where `LEAST_BLOCKS` do not fit.

    A series of values in time, for example changes of an equity per bar, is resampled in blocks of
    several entries. Samples that belong together, for example all of one day, are summed first by
    `block_sums`, and then drawn one sum at a time:

        interval(changes, np.full(k, capital / k), block=isqrt(k))    # of the return
        interval(block_sums(hit, day), block_sums(np.ones(n), day))   # of the share of hits

    Args:
        confidence: probability in the middle, between 0 and 1.

    Raises:
        BadInput: as `resampled_ratios`, or `confidence` is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise BadInput(f"confidence: expected between 0 and 1, found {confidence!r}")
    if _pairs(numerators, denominators).shape[1] < LEAST_BLOCKS * block:
        return -math.inf, math.inf
    ratios = resampled_ratios(numerators, denominators, block, resamples, seed)
    low, high = np.quantile(ratios, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)


def resampled_ratios(
    numerators: npt.ArrayLike,
    denominators: npt.ArrayLike,
    block: int = 1,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Floats:
    """Sum of numerators over sum of denominators, in each of `resamples` drawn series.

    A drawn series has k entries, in blocks of `block` consecutive ones, the last cut short where
    they do not divide k. Takes memory for resamples x k / block entries.

    Args:
        numerators, denominators: [k], of the same entries; the denominators are not negative.
        block: entries per block, 1 to k.
        seed: the same gives the same series.

    Returns:
        float64 [resamples]; fewer where a drawn denominator was 0, for those have no ratio.

    Raises:
        BadInput: not two finite series of one length, denominators that are negative or sum to 0,
            a block that does not fit.
    """
    pairs = _pairs(numerators, denominators)
    length = pairs.shape[1]
    if not 1 <= block <= length:
        raise BadInput(f"block: expected 1 to {length} entries, found {block}")
    whole, rest = divmod(length, block)
    starts = np.random.default_rng(seed).integers(length, size=(resamples, whole + (rest > 0)))
    sums = _circular_sums(pairs, block)[:, starts[:, :whole]].sum(axis=-1)  # [2, resamples]
    if rest:
        sums += _circular_sums(pairs, rest)[:, starts[:, whole]]
    numerator, denominator = sums[:, sums[1] > 0]
    ratios: Floats = numerator / denominator
    return ratios


def block_sums(values: npt.ArrayLike, blocks: npt.ArrayLike) -> Floats:
    """The sum of `values` [n] over each block, float64, in ascending order of id.

    Args:
        blocks: int [n], the block that each value belongs to; any numbers.

    Raises:
        BadInput: not one whole number per value.
    """
    summed, ids = np.asarray(values, dtype=np.float64), np.asarray(blocks)
    if summed.ndim != 1 or ids.shape != summed.shape or ids.dtype.kind not in "iu":
        raise BadInput(
            f"blocks: expected a whole number for each of {summed.size} values, found "
            f"{ids.dtype} {list(ids.shape)}"
        )
    _, order = np.unique(ids, return_inverse=True)
    return np.bincount(order, weights=summed).astype(np.float64)


def _pairs(numerators: npt.ArrayLike, denominators: npt.ArrayLike) -> Floats:
    """Both, float64 [2, k]."""
    above, below = (np.asarray(each, dtype=np.float64) for each in (numerators, denominators))
    if above.ndim != 1 or above.shape != below.shape or not above.size:
        raise BadInput(
            "bootstrap: expected numerators and denominators of one length, found "
            f"{list(above.shape)} and {list(below.shape)}"
        )
    pairs = np.stack([above, below])
    if not np.isfinite(pairs).all():
        raise BadInput("bootstrap: expected finite numerators and denominators")
    if (below < 0).any() or below.sum() == 0:
        raise BadInput("bootstrap: expected denominators >= 0 with a sum above 0")
    return pairs


def _circular_sums(pairs: Floats, block: int) -> Floats:
    """Of `block` entries from each start on, [2, k]; the end is followed by the start."""
    around = np.concatenate((pairs, pairs[:, : block - 1]), axis=1)
    sums: Floats = sliding_window_view(around, block, axis=1).sum(axis=-1)
    return sums
