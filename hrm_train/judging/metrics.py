"""What predictions are worth against hindsight, and how sure that is.

Intervals are bootstrapped over time: the labels of neighbouring bars overlap, so whole blocks of it
are drawn, of all series together, since they move together.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hrm_runtime.backtest.bootstrap import block_sums, interval
from hrm_runtime.market.actions import Action, Side
from hrm_runtime.market.bars import Floats, Integers
from hrm_train.data.prepared import Prepared

LABELS_PER_BLOCK: Final = 2
"""Length of a block of time, in labels: the longer, the fewer labels reach into the next block.

With 2, intervals of 95 % cover some 91 % on random walks; with 1 some 2 points less, with 3 no
more.
"""

MAJORITY: Final = "majority"
"""The predictor that the others are held against."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a predictor answers for m samples.

    Attributes:
        action: int64 [m], each legal on its sample's side.
        quantity: float64 [m], lots.
        value: float64 [m], the best return over the label horizon, ATR.
    """

    action: Integers
    quantity: Floats
    value: Floats


@dataclass(frozen=True, eq=False)
class Hindsight:
    """What would have been best for m samples.

    Attributes:
        returns: float64 [m, 5], best return by first action in ATR; NaN where illegal.
        lots: float64 [m], what an opening should be.
        side: int64 [m], -1, 0 or 1.
        block: int64 [m], from 0: the block of time of each sample.
    """

    returns: Floats
    lots: Floats
    side: Integers
    block: Integers

    @classmethod
    def of(cls, prepared: Prepared, samples: Integers) -> "Hindsight":
        """Of the given samples, at least one; only blocks of time that hold some are counted."""
        stamp = prepared.sample_stamp[samples]
        length = LABELS_PER_BLOCK * (prepared.sample_end[samples] - stamp).max()
        _, block = np.unique((stamp - stamp.min()) // length, return_inverse=True)
        return cls(
            returns=prepared.sample_returns[samples].astype(np.float64),
            lots=prepared.sample_lots[samples].astype(np.float64),
            side=prepared.sample_side[samples],
            block=block,
        )

    def __len__(self) -> int:
        return len(self.returns)

    @property
    def blocks(self) -> int:
        """How many blocks of time there are."""
        return int(self.block.max()) + 1

    @property
    def best(self) -> Floats:
        """float64 [m]: the best return, ATR."""
        best: Floats = np.nanmax(self.returns, axis=1)
        return best

    @property
    def stake(self) -> Floats:
        """float64 [m]: the best return less the worst of a legal action, ATR."""
        worst: Floats = np.nanmin(self.returns, axis=1)
        return self.best - worst

    def regret(self, action: Integers) -> Floats:
        """float64 [m]: what these actions give up against the best, ATR; 0 for a best one."""
        chosen = self.returns[np.arange(len(self)), action]
        assert not np.isnan(chosen).any(), "expected actions that are legal on their side"
        regret: Floats = self.best - chosen
        return regret


@dataclass(frozen=True)
class Estimate:
    """An average and its 95 % interval; no interval where there are too few blocks of time."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """What a predictor is worth on some samples.

    What is weighted counts each sample by what was at stake: the best return less the worst of a
    legal action. None stands for what is not defined: a weighting of samples at which nothing was
    at stake, an R2 where all values are the same.

    Attributes:
        accuracy: share of samples whose chosen action is a best one.
        accuracy_by_side: the same by the side of the account.
        over_majority: its accuracy less that of the majority baseline, where there is one.
        macro_f1: F1 averaged over the actions that were best or chosen somewhere.
        regret: average return given up against the best action, ATR.
        quantity_error: average absolute log ratio of predicted to wanted lots.
        value_r2: share of the variance of the best return that the predicted value explains.
    """

    accuracy: Estimate
    accuracy_by_side: dict[str, float]
    over_majority: Estimate | None
    macro_f1: float
    regret: Estimate
    weighted_accuracy: float | None
    weighted_macro_f1: float | None
    weighted_regret: float | None
    quantity_error: float
    value_r2: float | None


def metrics(truth: Hindsight, found: Predictions, majority: Predictions | None = None) -> Metrics:
    """What `found` is worth; `majority` is the baseline's answer to the same samples."""
    regret, stake = truth.regret(found.action), truth.stake
    hit = regret == 0
    # where several actions are best and one of them is chosen, that is the true one
    best = np.where(hit, found.action, np.nanargmax(truth.returns, axis=1))
    over = None
    if majority is not None:
        over = _estimate(hit.astype(np.float64) - (truth.regret(majority.action) == 0), truth)
    staked = stake.any()
    return Metrics(
        accuracy=_estimate(hit, truth),
        accuracy_by_side={
            side.name.lower(): float(hit[truth.side == side].mean())
            for side in Side
            if (truth.side == side).any()
        },
        over_majority=over,
        macro_f1=_macro_f1(best, found.action, np.ones(len(truth))),
        regret=_estimate(regret, truth),
        weighted_accuracy=float(np.average(hit, weights=stake)) if staked else None,
        weighted_macro_f1=_macro_f1(best, found.action, stake) if staked else None,
        weighted_regret=float(np.average(regret, weights=stake)) if staked else None,
        quantity_error=float(np.abs(np.log(found.quantity / truth.lots)).mean()),
        value_r2=_r2(truth.best, found.value),
    )


def joined(parts: Sequence[Predictions]) -> Predictions:
    """Predictions of one part of the samples after another."""
    return Predictions(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0]))
    )


def _estimate(values: npt.NDArray[Any], truth: Hindsight) -> Estimate:
    totals, counts = (block_sums(each, truth.block) for each in (values, np.ones(len(truth))))
    low, high = interval(totals, counts)
    known = math.isfinite(low)
    return Estimate(float(np.mean(values)), low if known else None, high if known else None)


def _macro_f1(best: Integers, chosen: Integers, weights: Floats) -> float:
    """F1 is twice the hits over how often an action was best and how often it was chosen."""
    hits, truly, said = (
        np.bincount(actions, counted, minlength=len(Action))
        for actions, counted in (
            (best, weights * (best == chosen)),
            (best, weights),
            (chosen, weights),
        )
    )
    occurs = truly + said > 0
    return float((2 * hits[occurs] / (truly + said)[occurs]).mean())


def _r2(truth: Floats, found: Floats) -> float | None:
    if not np.ptp(truth):
        return None
    return 1.0 - float(np.square(truth - found).sum() / np.square(truth - truth.mean()).sum())
