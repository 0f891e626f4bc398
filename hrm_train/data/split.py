"""Chronological splits: train before a moment, validate or judge after it and an embargo."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hrm_runtime.market.bars import Integers
from hrm_train.data.prepared import Prepared
from hrm_train.errors import DataInvalid


@dataclass(frozen=True, eq=False)
class Split:
    """Indices of samples on both sides of `boundary` (epoch seconds).

    A training sample's label is known before the boundary. A validation sample's bar, and the
    `horizon` bars before it, lie at or after the boundary.
    """

    boundary: int
    train: Integers
    validation: Integers


@dataclass(frozen=True, eq=False)
class Fold:
    """One step of a walk forward: what may be known by `start`, judged from there to `end`.

    Attributes:
        number: from 1.
        start: epoch seconds; every label of `split` is known before it.
        end: where the next fold's judged part begins; None for the last.
        split: training and validation samples.
    """

    number: int
    start: int
    end: int | None
    split: Split


def chronological_split(prepared: Prepared, validation_fraction: float, horizon: int) -> Split:
    """Split so that about `validation_fraction` of the samples lie after the boundary.

    Raises:
        DataInvalid: one side would be empty.
    """
    split = _split(prepared, np.arange(len(prepared)), validation_fraction, horizon)
    if not len(split.train) or not len(split.validation):
        raise DataInvalid(
            f"training.validation_fraction: {validation_fraction} leaves {len(split.train)} "
            f"samples to train on and {len(split.validation)} to validate on; "
            "expected some of both: give more bars or another fraction"
        )
    return split


def walk_forward(
    prepared: Prepared, folds: int, validation_fraction: float, horizon: int
) -> tuple[Fold, ...]:
    """Cut time into `folds` + 1 parts of about equal sample counts, and walk through them.

    Fold k may know parts 1 to k, of which the last `validation_fraction` is for validation, and is
    judged on part k + 1.

    Raises:
        DataInvalid: a fold would have nothing to train on, to validate on or to be judged on.
    """
    shares = np.arange(1, folds + 1) / (folds + 1)
    starts = np.quantile(prepared.sample_stamp, shares, method="higher").tolist()
    found = []
    for number, (start, end) in enumerate(zip(starts, [*starts[1:], None], strict=True), start=1):
        known = known_samples(prepared, start)
        split = (
            _split(prepared, known, validation_fraction, horizon)
            if len(known)
            else Split(start, known, known)
        )
        judged = judged_samples(prepared, start, end, horizon)
        if not len(split.train) or not len(split.validation) or not len(judged):
            raise DataInvalid(
                f"fold {number} of {folds}: expected samples to train on, to validate on and to "
                f"judge, found {len(split.train)}, {len(split.validation)} and {len(judged)} with "
                f"{horizon} bars of embargo before each part; give more bars, fewer folds or "
                "another training.validation_fraction"
            )
        found.append(Fold(number, start, end, split))
    return tuple(found)


def known_samples(prepared: Prepared, moment: int) -> Integers:
    """The samples whose label is known before `moment`, epoch seconds."""
    return np.flatnonzero(prepared.sample_end < moment)


def judged_samples(
    prepared: Prepared, judged_from: int, judged_until: int | None, horizon: int
) -> Integers:
    """The samples between two moments (epoch seconds), after an embargo of `horizon` bars.

    Args:
        judged_from: at or before the bar `horizon` bars before a sample's.
        judged_until: after a sample's bar; None for no end.
    """
    after = _embargoed(prepared, horizon) >= judged_from
    if judged_until is not None:
        after &= prepared.sample_stamp < judged_until
    return np.flatnonzero(after)


def _split(
    prepared: Prepared, candidates: Integers, validation_fraction: float, horizon: int
) -> Split:
    stamps = prepared.sample_stamp[candidates]
    boundary = int(np.quantile(stamps, 1.0 - validation_fraction, method="higher"))
    before, after = (
        np.intersect1d(candidates, part, assume_unique=True)
        for part in (
            known_samples(prepared, boundary),
            judged_samples(prepared, boundary, None, horizon),
        )
    )
    return Split(boundary, train=before, validation=after)


def _embargoed(prepared: Prepared, horizon: int) -> Integers:
    """The stamp of the bar `horizon` bars before each sample's."""
    return prepared.bar_stamp[prepared.row_bar[prepared.sample_row] - horizon]


@dataclass(frozen=True, eq=False)
class Statistics:
    """Mean and population standard deviation of each column; 1 for one that never varies."""

    mean: npt.NDArray[np.float32]
    std: npt.NDArray[np.float32]


def feature_statistics(prepared: Prepared, split: Split) -> Statistics:
    """Of the feature rows [F] whose bar had closed, its successor opened, by the boundary."""
    opened = prepared.bar_stamp[prepared.row_bar]
    closed = np.append(prepared.bar_stamp[1:], split.boundary)[prepared.row_bar]
    return statistics(prepared.features[(opened < split.boundary) & (closed <= split.boundary)])


def account_statistics(prepared: Prepared, split: Split) -> Statistics:
    """Of the account values [C] of the training samples."""
    return statistics(prepared.sample_account[split.train])


def statistics(values: npt.NDArray[np.floating[Any]]) -> Statistics:
    """Of the columns of `values`, [n, width]."""
    known = values.astype(np.float64)
    mean, std = known.mean(axis=0), known.std(axis=0)
    std[std < 1e-12] = 1.0
    return Statistics(mean.astype(np.float32), std.astype(np.float32))
