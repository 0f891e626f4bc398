"""The samples of one series.

Each bar with a full window behind it and a label horizon ahead gives up to three: flat, long and
short, each with a synthesised account.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from hrm_runtime.market.account import vector
from hrm_runtime.market.actions import Side
from hrm_runtime.market.bars import PRICES, Bars
from hrm_runtime.market.instruments import Instrument, Timeframe
from hrm_train.data.accounts import accounts
from hrm_train.data.labels import action_returns, execution_costs, risk_lots
from hrm_train.data.prepared import trading_rules
from hrm_train.settings import Settings


def series_samples(
    settings: Settings, bars: Bars, name: str, instrument: Instrument, timeframe: Timeframe
) -> tuple[dict[str, Any] | None, str | None]:
    """The arrays of one series, those of `Prepared` but for ids, or why it has none.

    Bars and rows are counted from its own first ones.
    """
    from hrm_runtime.market.features import rows  # training from tensors has no TA-Lib

    config, horizon = settings.network.input, settings.training.label_horizon
    lead = max(config.window - 1, horizon)  # rows before the first sample: its window, its entries
    needed = config.history_bars + lead + horizon
    if len(bars) < needed:
        return None, f"{len(bars)} bars, {needed} needed"
    table = rows(bars, config.history_bars)
    first_bar = config.history_bars - 1
    atr = np.full(len(bars), np.nan)
    atr[first_bar:] = [row.atr for row in table]
    at = measurable(atr, np.arange(first_bar + lead, len(bars) - horizon), horizon)
    if not len(at):
        return None, "the price never moves"
    seed = [settings.training.seed, *f"{name}_{timeframe.seconds}".encode()]
    newest, columns = _labelled(settings, bars, atr, at, instrument, np.random.default_rng(seed))
    return {
        "bar_stamp": bars.datetime,
        "bar_price": np.stack([getattr(bars, price) for price in PRICES], axis=1),
        "row_bar": np.arange(first_bar, len(bars)),
        "features": np.stack([row.values for row in table]),
        "sample_row": newest - first_bar,
        **columns,
        "sample_end": bars.datetime[newest + horizon],
    }, None


def measurable(
    atr: npt.NDArray[np.float64], at: npt.NDArray[np.int64], horizon: int
) -> npt.NDArray[np.int64]:
    """Those of the bars `at` that have an ATR, as has every bar they may have been entered at.

    A motionless stretch has none to measure a return or a stop in.
    """
    return at[(sliding_window_view(atr, horizon + 1)[at - horizon] > 0).all(axis=1)]


def _labelled(
    settings: Settings,
    bars: Bars,
    atr: npt.NDArray[np.float64],
    at: npt.NDArray[np.int64],
    instrument: Instrument,
    rng: np.random.Generator,
) -> tuple[npt.NDArray[np.int64], dict[str, Any]]:
    """The newest bar of each sample, and its account and labels, by name of `Prepared`."""
    training, heads = settings.training, settings.network.output_heads
    trading = trading_rules(settings)
    costs = execution_costs(bars.open, instrument, trading, training.label_capital)
    returns = action_returns(bars, training.label_horizon, *costs)
    bounds = (heads.quantity_min, heads.quantity_max)
    newest: list[int] = []
    columns: dict[str, list[Any]] = {"account": [], "raw_account": [], "returns": [], "lots": []}
    for side in Side:
        made = accounts(bars, atr, at, side, instrument, trading, settings, rng)
        for bar, account in zip(at.tolist(), made, strict=True):
            if account is None:
                continue
            close, range_ = float(bars.close[bar]), float(atr[bar])
            seen = vector(
                account,
                close=close,
                atr=range_,
                instrument=instrument,
                brokerage_entry=trading.brokerage_entry,
                quantity_max=heads.quantity_max,
            )
            lots = risk_lots(
                account.capital, close, range_, instrument, trading, training.risk_fraction, bounds
            )
            newest.append(bar)
            columns["account"].append(seen)
            columns["raw_account"].append(list(vars(account).values()))
            columns["returns"].append(returns[bar, side + 1] / range_)
            columns["lots"].append(lots)
    return np.array(newest, dtype=np.int64), {
        "sample_account": np.array(columns["account"], dtype=np.float32),
        "sample_raw_account": np.array(columns["raw_account"], dtype=np.float64),
        "sample_returns": np.array(columns["returns"], dtype=np.float32),
        "sample_lots": np.array(columns["lots"], dtype=np.float32),
    }
