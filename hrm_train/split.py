"""One chronological split: train before a moment, validate after it and an embargo."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hrm_train.errors import DataInvalid
from hrm_train.prepared import Prepared


@dataclass(frozen=True, eq=False)
class Split:
    """Indices of samples on both sides of `boundary` (epoch seconds).

    A training sample's label is known before the boundary. A validation sample's bar, and the
    `horizon` bars before it, lie at or after the boundary.
    """

    boundary: int
    train: npt.NDArray[np.int64]
    validation: npt.NDArray[np.int64]


def chronological_split(prepared: Prepared, validation_fraction: float, horizon: int) -> Split:
    """Split so that about `validation_fraction` of the samples lie after the boundary.

    Raises:
        DataInvalid: one side would be empty.
    """
    stamps = prepared.sample_stamp
    boundary = int(np.quantile(stamps, 1.0 - validation_fraction, method="higher"))
    embargoed = prepared.bar_stamp[prepared.row_bar[prepared.sample_row] - horizon]
    split = Split(
        boundary,
        train=np.flatnonzero(prepared.sample_end < boundary),
        validation=np.flatnonzero(embargoed >= boundary),
    )
    if not len(split.train) or not len(split.validation):
        raise DataInvalid(
            f"training.validation_fraction: {validation_fraction} leaves {len(split.train)} "
            f"samples to train on and {len(split.validation)} to validate on; "
            "expected some of both: give more bars or another fraction"
        )
    return split


@dataclass(frozen=True, eq=False)
class Statistics:
    """Mean and population standard deviation of each column; 1 for one that never varies."""

    mean: npt.NDArray[np.float32]
    std: npt.NDArray[np.float32]


def feature_statistics(prepared: Prepared, split: Split) -> Statistics:
    """Of the feature rows [F] whose bar had closed, its successor opened, by the boundary."""
    opened = prepared.bar_stamp[prepared.row_bar]
    closed = np.append(prepared.bar_stamp[1:], split.boundary)[prepared.row_bar]
    return _statistics(prepared.features[(opened < split.boundary) & (closed <= split.boundary)])


def account_statistics(prepared: Prepared, split: Split) -> Statistics:
    """Of the account values [C] of the training samples."""
    return _statistics(prepared.sample_account[split.train])


def _statistics(values: npt.NDArray[np.float32]) -> Statistics:
    known = values.astype(np.float64)
    mean, std = known.mean(axis=0), known.std(axis=0)
    std[std < 1e-12] = 1.0
    return Statistics(mean.astype(np.float32), std.astype(np.float32))
