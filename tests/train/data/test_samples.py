"""Samples against the bars that they were made of."""

from collections.abc import Callable

import numpy as np
import pytest
from synthetic import constant_bars, random_bars

from hrm_runtime.market.account import Account, vector
from hrm_runtime.market.actions import Side
from hrm_runtime.market.bars import Bars
from hrm_runtime.market.features import rows
from hrm_runtime.market.stamps import EARLIEST_STAMP
from hrm_train.data.labels import action_returns, execution_costs, risk_lots
from hrm_train.data.preparation import prepare_series
from hrm_train.data.prepared import Prepared, trading_rules
from hrm_train.data.samples import measurable
from hrm_train.settings import Settings

MakeSettings = Callable[..., Settings]
AllSeries = dict[tuple[str, str], Bars]

HISTORY, WINDOW, HORIZON = 200, 6, 6
NEEDED = HISTORY + HORIZON + HORIZON  # the horizon, here not less than the window, leads
KINDS = [("Nifty", "15"), ("Nifty", "5"), ("Reliance", "5")]


def joined(*parts: Bars) -> Bars:
    """The prices of all parts, one bar after another, 300 s apart."""
    columns = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("open", "high", "low", "close")
    )
    return Bars(EARLIEST_STAMP + 300 * np.arange(sum(map(len, parts))), *columns)


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("name", KINDS, ids="_".join)
def test_a_sample_is_what_its_bars_say(
    name: tuple[str, str], side: Side, prepared: Prepared, series: AllSeries, settings: Settings
) -> None:
    vocabulary = prepared.manifest.vocabulary
    instrument, trading = vocabulary.instrument(name[0]), trading_rules(settings)
    kind = (
        (prepared.sample_instrument == instrument.id)
        & (prepared.sample_timeframe == vocabulary.timeframes[name[1]].id)
        & (np.sign(prepared.sample_raw_account[:, 1]) == side)
    )
    sample = int(np.flatnonzero(kind)[kind.sum() // 2])
    bars = series[name]
    bar = int(np.searchsorted(bars.datetime, prepared.sample_stamp[sample]))
    table = rows(bars[bar - HISTORY - WINDOW + 2 : bar + 1], HISTORY)
    close, atr = table[-1].close, table[-1].atr
    account = Account(*prepared.sample_raw_account[sample].tolist())

    newest = prepared.sample_row[sample]
    window = prepared.features[newest - WINDOW + 1 : newest + 1]
    assert np.array_equal(window, [row.values for row in table])
    assert account.side is side
    assert np.array_equal(
        prepared.sample_account[sample],
        vector(
            account, close=close, atr=atr, instrument=instrument, brokerage_entry=25.0,
            quantity_max=1e5,
        ),
    )  # fmt: skip
    costs = execution_costs(bars.open, instrument, trading, 1e6)
    returns = action_returns(bars, HORIZON, *costs)[bar, side + 1] / atr
    assert np.array_equal(prepared.sample_returns[sample], returns.astype("f4"), equal_nan=True)
    lots = risk_lots(account.capital, close, atr, instrument, trading, 0.01, (1.0, 1e5))
    assert prepared.sample_lots[sample] == np.float32(lots)
    assert prepared.sample_end[sample] == bars.datetime[bar + HORIZON]


def test_every_bar_with_its_window_and_its_horizon_is_a_flat_sample(
    prepared: Prepared, series: AllSeries
) -> None:
    flat = prepared.sample_stamp[prepared.sample_raw_account[:, 1] == 0]
    expected = [bars.datetime[HISTORY - 1 + HORIZON : -HORIZON] for bars in series.values()]
    assert np.array_equal(flat, np.concatenate(expected))


def test_a_series_has_the_same_samples_whatever_is_prepared_beside_it(
    prepared: Prepared, series: AllSeries, settings: Settings
) -> None:
    name = ("Reliance", "5")
    alone = prepare_series(settings, {name: series[name]})
    count = len(alone)
    for array in ("sample_account", "sample_raw_account", "sample_returns", "sample_lots"):
        assert np.array_equal(
            getattr(alone, array), getattr(prepared, array)[-count:], equal_nan=True
        )


def test_another_seed_makes_other_accounts_of_the_same_bars(
    prepared: Prepared, series: AllSeries, make_settings: MakeSettings
) -> None:
    other = prepare_series(make_settings({"training.seed": 1}), series)
    assert np.array_equal(other.features, prepared.features)
    flat, others = (
        p.sample_raw_account[p.sample_raw_account[:, 1] == 0] for p in (prepared, other)
    )
    assert not (flat[:, 0] == others[:, 0]).any()


@pytest.mark.parametrize(
    "bars",
    [joined(constant_bars(230), random_bars(40)), joined(random_bars(230), constant_bars(230))],
    ids=["still, then moving", "moving, then still"],
)
def test_a_sample_has_an_atr_at_its_bar_and_wherever_it_may_have_entered(
    bars: Bars, settings: Settings
) -> None:
    prepared = prepare_series(settings, {("Stiff", "5"): bars})
    moving = {row.datetime for row in rows(bars, HISTORY) if row.atr > 0}
    expected = [
        stamp
        for stamp in bars.datetime[HISTORY - 1 + HORIZON : -HORIZON].tolist()
        if {stamp - 300 * back for back in range(HORIZON + 1)} <= moving
    ]
    flat = prepared.sample_raw_account[:, 1] == 0
    assert prepared.sample_stamp[flat].tolist() == expected
    assert not np.isinf(prepared.sample_returns).any()


def test_a_bar_is_measurable_where_it_and_the_horizon_behind_it_have_an_atr() -> None:
    atr = np.array([np.nan, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0])
    assert measurable(atr, np.arange(2, 9), 2).tolist() == [3, 7, 8]
    assert measurable(atr, np.arange(2, 7), 0).tolist() == [2, 3, 5, 6]


def test_two_series_have_accounts_of_their_own(settings: Settings) -> None:
    bars = random_bars(NEEDED + 10)
    one, other = (prepare_series(settings, {(name, "5"): bars}) for name in ("A", "B"))
    assert np.array_equal(one.features, other.features)
    capitals = {*one.sample_raw_account[:, 0]} & {*other.sample_raw_account[:, 0]}
    assert capitals == set()
