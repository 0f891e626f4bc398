"""Whether the halting head knows when it is right: q_halt against the share of correct answers.

q_halt is trained to be the probability that the chosen action is a best one.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from hrm_runtime.market.bars import Floats, Integers

BINS: Final = 10


@dataclass(frozen=True)
class Bin:
    """The decisions with q_halt from `low` to below `high`; 1 belongs to the last bin."""

    low: float
    high: float
    samples: int
    mean_q: float
    correct: float


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How well q_halt foretells a correct answer, and how long decisions take.

    Attributes:
        error: expected calibration error, the average over bins of |mean_q - correct| by their
            samples (Guo et al., arXiv 1706.04599).
        brier: average of the squared difference between q_halt and being correct, 0 or 1.
        mean_q, correct: averages over all decisions.
        bins: of equal width; those without samples are left out.
        mean_segments: segments per decision.
        segments: share of the decisions that took one segment, two, ...
    """

    error: float
    brier: float
    mean_q: float
    correct: float
    bins: tuple[Bin, ...]
    mean_segments: float
    segments: tuple[float, ...]


def calibration(
    q_halt: Floats, correct: npt.NDArray[np.bool_], segments: Integers, max_segments: int
) -> Calibration:
    """Of m decisions, at least one.

    Args:
        q_halt: [m] in [0, 1], at the segment where each halted.
        correct: [m], whether its action was a best one.
        segments: [m], how many it took, from 1.
        max_segments: the most it could have taken.
    """
    count = len(q_halt)
    bins = np.minimum((q_halt * BINS).astype(np.int64), BINS - 1)
    table = tuple(
        Bin(
            low=number / BINS,
            high=(number + 1) / BINS,
            samples=int((bins == number).sum()),
            mean_q=float(q_halt[bins == number].mean()),
            correct=float(correct[bins == number].mean()),
        )
        for number in np.unique(bins).tolist()
    )
    return Calibration(
        error=sum(one.samples * abs(one.mean_q - one.correct) for one in table) / count,
        brier=float(np.square(q_halt - correct).mean()),
        mean_q=float(q_halt.mean()),
        correct=float(correct.mean()),
        bins=table,
        mean_segments=float(segments.mean()),
        segments=tuple((np.bincount(segments, minlength=max_segments + 1)[1:] / count).tolist()),
    )
