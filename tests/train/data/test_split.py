"""The split: nothing of the future in training, and statistics of the training part alone."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from synthetic import random_bars

from hrm_train.data.preparation import prepare_series
from hrm_train.data.prepared import Prepared
from hrm_train.data.split import (
    Fold,
    Split,
    Statistics,
    account_statistics,
    chronological_split,
    feature_statistics,
    judged_samples,
    known_samples,
    walk_forward,
)
from hrm_train.errors import DataInvalid
from hrm_train.settings import Settings

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


@pytest.fixture(scope="module")
def long(settings: Settings) -> Prepared:
    """Series of other lengths and bars, enough for four folds."""
    return prepare_series(
        settings,
        {
            ("Nifty", "15"): random_bars(500, seed=1, seconds=900),
            ("Nifty", "5"): random_bars(900, seed=2),
            ("Reliance", "5"): random_bars(700, seed=3),
        },
    )


@pytest.fixture(scope="module")
def folds(long: Prepared) -> tuple[Fold, ...]:
    return walk_forward(long, 4, 0.3, HORIZON)


def ten_seconds(count: int) -> Prepared:
    """One series: a bar every ten seconds from 0 on, a sample at each that has two bars on either
    side, its label known two bars later.
    """
    bars = np.arange(count)
    newest = bars[2:-2]
    nothing = np.zeros((len(newest), 1))
    return Prepared(
        manifest=None,  # type: ignore[arg-type]  # a split reads stamps alone
        bar_stamp=10 * bars,
        bar_price=nothing,
        row_bar=bars,
        features=nothing.astype(np.float32),
        sample_row=newest,
        sample_instrument=newest,
        sample_timeframe=newest,
        sample_account=nothing.astype(np.float32),
        sample_raw_account=nothing,
        sample_returns=nothing.astype(np.float32),
        sample_lots=nothing.astype(np.float32),
        sample_end=10 * (newest + 2),
    )


def test_two_folds_by_hand() -> None:
    prepared = ten_seconds(34)  # samples 0 to 29 at bars 2 to 31: three parts of ten
    first, second = walk_forward(prepared, 2, 0.5, horizon=2)
    # from bar 12 on fold 1 is judged, from bar 22 on fold 2
    assert (first.number, first.start, first.end) == (1, 120, 220)
    assert (second.number, second.start, second.end) == (2, 220, None)
    # fold 1 knows labels that end by bar 11: bars 2 to 9; the upper half of those from bar 6 on
    assert first.split.boundary == 60
    assert (first.split.train + 2).tolist() == [2, 3]
    assert (first.split.validation + 2).tolist() == [8, 9]
    assert second.split.boundary == 110
    assert (second.split.train + 2).tolist() == [2, 3, 4, 5, 6, 7, 8]
    assert (second.split.validation + 2).tolist() == [13, 14, 15, 16, 17, 18, 19]
    judged = [judged_samples(prepared, fold.start, fold.end, 2) for fold in (first, second)]
    assert (judged[0] + 2).tolist() == [14, 15, 16, 17, 18, 19, 20, 21]
    assert (judged[1] + 2).tolist() == [24, 25, 26, 27, 28, 29, 30, 31]


def test_time_is_cut_into_parts_of_about_equal_sample_counts(
    long: Prepared, folds: tuple[Fold, ...]
) -> None:
    starts = [fold.start for fold in folds]
    parts = np.histogram(long.sample_stamp, [0, *starts, np.inf])[0]
    assert parts == pytest.approx(len(long) / 5, rel=0.02)
    assert set(starts) <= set(long.sample_stamp.tolist())
    assert [fold.end for fold in folds] == [*starts[1:], None]
    assert [fold.number for fold in folds] == [1, 2, 3, 4]


@pytest.mark.parametrize("index", range(4))
def test_a_fold_knows_nothing_of_what_it_is_judged_on(
    index: int, long: Prepared, folds: tuple[Fold, ...]
) -> None:
    """By brute force over samples of three series: their bars, the bars of their labels, and the
    horizon before those that judge.
    """
    fold = folds[index]
    bar = long.row_bar[long.sample_row]
    judged = judged_samples(long, fold.start, fold.end, HORIZON)
    label_ends = {name: long.bar_stamp[bar[chosen] + HORIZON].max() for name, chosen in (
        ("train", fold.split.train), ("validation", fold.split.validation),
    )}  # fmt: skip
    embargo_starts = {name: long.bar_stamp[bar[chosen] - HORIZON].min() for name, chosen in (
        ("validation", fold.split.validation), ("judged", judged),
    )}  # fmt: skip
    assert label_ends["train"] < fold.split.boundary <= embargo_starts["validation"]
    assert label_ends["validation"] < fold.start <= embargo_starts["judged"]
    # and nothing is left out that may be known or judged
    expected: dict[str, list[int]] = {"train": [], "validation": [], "judged": []}
    for sample in range(len(long)):
        newest = int(bar[sample])
        end = int(long.bar_stamp[newest + HORIZON])
        earliest, stamp = int(long.bar_stamp[newest - HORIZON]), int(long.bar_stamp[newest])
        if end < fold.split.boundary:
            expected["train"].append(sample)
        if earliest >= fold.split.boundary and end < fold.start:
            expected["validation"].append(sample)
        if earliest >= fold.start and (fold.end is None or stamp < fold.end):
            expected["judged"].append(sample)
    assert fold.split.train.tolist() == expected["train"]
    assert fold.split.validation.tolist() == expected["validation"]
    assert judged.tolist() == expected["judged"]
    assert {*zip(long.sample_instrument[judged], long.sample_timeframe[judged], strict=True)} == {
        (1, 1), (1, 2), (2, 2)
    }  # fmt: skip


def test_no_sample_judges_two_folds(long: Prepared, folds: tuple[Fold, ...]) -> None:
    judged = [judged_samples(long, fold.start, fold.end, HORIZON) for fold in folds]
    together = np.concatenate(judged)
    assert len(np.unique(together)) == len(together)
    assert all(early.max() < late.min() for early, late in zip(
        [long.sample_stamp[one] for one in judged], [long.sample_stamp[one] for one in judged[1:]],
        strict=False,
    ))  # fmt: skip


def test_a_fold_is_split_as_a_training_on_what_it_knows(
    long: Prepared, folds: tuple[Fold, ...]
) -> None:
    fold = folds[2]
    known = known_samples(long, fold.start)
    alone = replace(
        long, **{name: array[known] for name, array in vars(long).items() if name[:6] == "sample"}
    )
    split = chronological_split(alone, 0.3, HORIZON)
    assert split.boundary == fold.split.boundary
    assert np.array_equal(known[split.train], fold.split.train)
    assert np.array_equal(known[split.validation], fold.split.validation)


def test_samples_are_known_once_their_label_is(long: Prepared) -> None:
    moment = int(np.median(long.sample_end))
    known = known_samples(long, moment)
    assert long.sample_end[known].max() < moment
    assert np.delete(long.sample_end, known).min() >= moment


@pytest.mark.parametrize(
    ("bars", "folds", "fraction", "found"),
    [
        (34, 6, 0.5, "fold 1 of 6.*found 0, 0 and 2 with 2 bars of embargo"),
        (34, 2, 0.2, "fold 1 of 2.*found 4, 0 and 8 with 2 bars"),
        (34, 2, 0.9, "fold 1 of 2.*found 0, 5 and 8 with 2 bars"),
        (9, 4, 0.5, "fold 1 of 4.*found 0, 0 and 0 with 2 bars"),
    ],
)
def test_a_fold_too_short_for_its_embargo_is_an_error(
    bars: int, folds: int, fraction: float, found: str
) -> None:
    with pytest.raises(DataInvalid, match=f"{found}.*give more bars, fewer folds or another"):
        walk_forward(ten_seconds(bars), folds, fraction, horizon=2)


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
