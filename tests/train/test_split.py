"""The split: nothing of the future in training, and statistics of the training part alone."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from synthetic import random_bars

from hrm_train.errors import DataInvalid
from hrm_train.prepared import Prepared, prepare_series
from hrm_train.settings import Settings
from hrm_train.split import (
    Split,
    Statistics,
    account_statistics,
    chronological_split,
    feature_statistics,
)

HORIZON = 6


def test_no_training_label_is_known_at_or_after_the_boundary(
    prepared: Prepared, split: Split
) -> None:
    bar = prepared.row_bar[prepared.sample_row]
    known = prepared.bar_stamp[bar + HORIZON]
    assert np.array_equal(split.train, np.flatnonzero(known < split.boundary))


def test_validation_bars_and_the_horizon_before_them_lie_at_or_after_the_boundary(
    prepared: Prepared, split: Split
) -> None:
    bar = prepared.row_bar[prepared.sample_row]
    earliest = prepared.bar_stamp[bar - HORIZON]
    assert np.array_equal(split.validation, np.flatnonzero(earliest >= split.boundary))


@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.5])
def test_about_the_wanted_fraction_of_samples_lies_after_the_boundary(
    fraction: float, prepared: Prepared
) -> None:
    split = chronological_split(prepared, fraction, HORIZON)
    after = (prepared.sample_stamp >= split.boundary).mean()
    assert after == pytest.approx(fraction, abs=0.02)
    assert split.boundary in prepared.sample_stamp
    assert not set(split.train) & set(split.validation)


@pytest.mark.parametrize(
    ("fraction", "horizon", "message"),
    [
        (0.999, HORIZON, r"0.999 leaves 0 samples to train on and \d+ to validate on"),
        (0.001, HORIZON, r"0.001 leaves \d+ samples to train on and 0 to validate on"),
        (
            0.2,
            80,
            r"0.2 leaves \d+ samples to train on and 0 to validate on; expected some of both",
        ),
    ],
)
def test_a_side_without_samples_is_an_error(
    fraction: float, horizon: int, message: str, settings: Settings
) -> None:
    prepared = prepare_series(settings, {("Nifty", "5"): random_bars(260)})
    with pytest.raises(DataInvalid, match=f"training.validation_fraction: {message}"):
        chronological_split(prepared, fraction, horizon)


@pytest.mark.parametrize("of", ["features", "accounts"])
def test_statistics_are_the_mean_and_population_deviation_of_the_training_part(
    of: str, prepared: Prepared, split: Split
) -> None:
    if of == "features":
        found = feature_statistics(prepared, split)
        manifest = prepared.manifest
        seconds = [manifest.vocabulary.timeframes[one.timeframe].seconds for one in manifest.series]
        closes = prepared.bar_stamp + np.repeat(seconds, [one.bars for one in manifest.series])
        values = prepared.features[closes[prepared.row_bar] <= split.boundary]
    else:
        found = account_statistics(prepared, split)
        values = prepared.sample_account[split.train]
    mean = values.astype("f8").sum(axis=0) / len(values)
    std = np.sqrt(((values - mean) ** 2).sum(axis=0) / len(values))
    np.testing.assert_allclose(found.mean, mean, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(found.std, std, rtol=1e-6, atol=1e-12)
    assert found.mean.dtype == found.std.dtype == np.float32


@pytest.mark.parametrize("statistics", [feature_statistics, account_statistics])
def test_nothing_at_or_after_the_boundary_changes_the_statistics(
    statistics: Callable[[Prepared, Split], Statistics], prepared: Prepared, split: Split
) -> None:
    features, accounts = prepared.features.copy(), prepared.sample_account.copy()
    features[prepared.bar_stamp[prepared.row_bar] >= split.boundary] = 1e9
    accounts[prepared.sample_end >= split.boundary] = 1e9
    changed = replace(prepared, features=features, sample_account=accounts)
    before, after = statistics(prepared, split), statistics(changed, split)
    assert np.array_equal(before.mean, after.mean)
    assert np.array_equal(before.std, after.std)


def test_the_last_row_before_the_boundary_changes_them(prepared: Prepared, split: Split) -> None:
    before = np.flatnonzero(prepared.bar_stamp[prepared.row_bar] < split.boundary)
    features = prepared.features.copy()
    features[before[-1]] += 1
    changed = feature_statistics(replace(prepared, features=features), split)
    assert (changed.mean != feature_statistics(prepared, split).mean).all()


@pytest.mark.parametrize("value", [0.0, 0.1, -3e5])
@pytest.mark.parametrize("statistics", [feature_statistics, account_statistics])
def test_a_column_that_never_varies_has_deviation_one(
    statistics: Callable[[Prepared, Split], Statistics],
    value: float,
    prepared: Prepared,
    split: Split,
) -> None:
    features, accounts = prepared.features.copy(), prepared.sample_account.copy()
    features[:, 3] = accounts[:, 3] = value
    constant = replace(prepared, features=features, sample_account=accounts)
    found, own = statistics(constant, split), statistics(prepared, split)
    assert (found.mean[3], found.std[3]) == (np.float32(value), 1.0)
    assert np.array_equal(np.delete(found.std, 3), np.delete(own.std, 3))
    assert np.array_equal(np.delete(found.mean, 3), np.delete(own.mean, 3))
