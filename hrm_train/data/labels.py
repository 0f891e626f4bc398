"""Labels: what each action would have returned, by dynamic programming over the next bars.

From bar t, decided at its close and executed at the next bar's open, the best achievable return
over the following `horizon` bars is worked out for each side and first action, acting again at
every open, paying costs, flat at the end. It is hindsight: an upper bound, not a forecast.
"""

import numpy as np
import numpy.typing as npt

from hrm_runtime.market.account import affordable_lots
from hrm_runtime.market.actions import Action, Side
from hrm_runtime.market.bars import Bars, Floats
from hrm_runtime.market.instruments import Instrument, Trading


def action_returns(
    bars: Bars,
    horizon: int,
    entry_cost: Floats,
    exit_cost: Floats,
) -> npt.NDArray[np.float64]:
    """The best return of each first action on each side, in currency per unit.

    Args:
        bars: n bars of one series.
        horizon: bars until everything is closed, at the open of bar t + horizon; at least 2.
        entry_cost, exit_cost: float64 [n], of an execution at the open of each bar, per unit.

    Returns:
        float64 [n - horizon, 3, 5]: bar t, side + 1 (short, flat, long), action; NaN where the
        action is illegal. Returns count from the close of bar t.
    """
    count = len(bars) - horizon
    returns = np.full((max(count, 0), len(Side), len(Action)), np.nan)
    if count <= 0:
        return returns
    flat = np.zeros(count)  # best return from an execution on, by the side it left us on
    long = short = np.full(count, -np.inf)  # at the end, only flat is allowed
    for step in reversed(range(horizon)):
        here = bars.close[:count] if step == 0 else bars.open[step : step + count]
        after = slice(step + 1, step + 1 + count)
        move = bars.open[after] - here
        wait, buy, sell = flat, long - entry_cost[after], short - entry_cost[after]
        keep_long, close_long = move + long, move - exit_cost[after] + flat
        keep_short, close_short = -move + short, -move - exit_cost[after] + flat
        flat = np.maximum(wait, np.maximum(buy, sell))
        long = np.maximum(keep_long, close_long)
        short = np.maximum(keep_short, close_short)
    for side, action, value in (
        (Side.FLAT, Action.HOLD, wait),
        (Side.FLAT, Action.BUY_LONG, buy),
        (Side.FLAT, Action.SELL_SHORT, sell),
        (Side.LONG, Action.HOLD, keep_long),
        (Side.LONG, Action.CLOSE_LONG, close_long),
        (Side.SHORT, Action.HOLD, keep_short),
        (Side.SHORT, Action.CLOSE_SHORT, close_short),
    ):
        returns[:, side + 1, action] = value
    return returns


def execution_costs(
    prices: Floats, instrument: Instrument, trading: Trading, capital: float
) -> tuple[Floats, Floats]:
    """Cost per unit of an entry and of an exit at `prices`, each float64 [n].

    A fraction of the price, and the fixed brokerage spread over the lots `capital` affords there
    (at least one).
    """
    lots = [affordable_lots(capital, p, instrument, trading.brokerage_entry) for p in prices]
    units = np.maximum(1, lots) * instrument.lot_size
    proportional = trading.cost_fraction * prices
    return (
        proportional + trading.brokerage_entry / units,
        proportional + trading.brokerage_exit / units,
    )


def risk_lots(
    capital: float,
    price: float,
    atr: float,
    instrument: Instrument,
    trading: Trading,
    risk_fraction: float,
    bounds: tuple[float, float],
) -> float:
    """Lots that lose `risk_fraction` of the capital at the stop, within what it affords.

    Not rounded, and within `bounds` even where the capital affords less than one lot.
    """
    stop = trading.stop_atr * atr * instrument.lot_size
    wanted = risk_fraction * capital / stop if stop > 0 else bounds[1]
    affordable = affordable_lots(capital, price, instrument, trading.brokerage_entry)
    return float(np.clip(min(wanted, affordable), *bounds))
