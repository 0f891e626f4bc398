"""Labels against a brute-force walk over every sequence of actions, and by hand."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
from synthetic import random_bars

from hrm_runtime.market.actions import LEGAL, Action, Side
from hrm_runtime.market.bars import Bars, Floats
from hrm_runtime.market.instruments import Instrument, Trading
from hrm_train.data.labels import action_returns, execution_costs, risk_lots

STOCK = Instrument(
    id=1, type="stock", lot_size=10, tick_size=0.05, premium_min=0.025, premium_max=0.05
)
INDEX = Instrument(
    id=2, type="index", lot_size=75, tick_size=0.05, premium_min=0.01, premium_max=0.02
)
TRADING = Trading(
    cost_fraction=0.0002, brokerage_entry=25.0, brokerage_exit=35.0, stop_atr=1.5, target_atr=3.0
)
EFFECT = {Action.BUY_LONG: Side.LONG, Action.SELL_SHORT: Side.SHORT, Action.HOLD: None}


def sequences(side: Side, length: int) -> Iterator[tuple[tuple[Action, ...], Side]]:
    """Every legal sequence of actions from `side`, with the side it ends on."""
    if length == 0:
        yield (), side
        return
    for action in LEGAL[side]:
        after = EFFECT.get(action, Side.FLAT)
        for rest, end in sequences(side if after is None else after, length - 1):
            yield (action, *rest), end


def profit(
    bars: Bars, bar: int, side: Side, actions: tuple[Action, ...], entry: Floats, exit_: Floats
) -> float:
    """Cash in the end of trading `actions` at the next opens, a held position paid at the close."""
    cash = -side * float(bars.close[bar])
    for at, action in enumerate(actions, start=bar + 1):
        price = float(bars.open[at])
        if action is Action.BUY_LONG:
            cash -= price + entry[at]
        elif action is Action.SELL_SHORT:
            cash += price - entry[at]
        elif action is Action.CLOSE_LONG:
            cash += price - exit_[at]
        elif action is Action.CLOSE_SHORT:
            cash -= price + exit_[at]
    return cash


def costs(bars: Bars, seed: int, size: float) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    return size * rng.random(len(bars)), size * rng.random(len(bars))


@pytest.mark.parametrize("size", [0.0, 0.1, 2.0])
@pytest.mark.parametrize("horizon", [2, 3, 4, 5])
def test_returns_are_the_best_over_every_sequence_of_actions(horizon: int, size: float) -> None:
    bars = random_bars(horizon + 6, seed=horizon)
    entry, exit_ = costs(bars, seed=horizon, size=size)
    expected = np.full((6, 3, 5), np.nan)
    for bar in range(6):
        for side in Side:
            for actions, end in sequences(side, horizon):
                if end is Side.FLAT:
                    found = profit(bars, bar, side, actions, entry, exit_)
                    best = expected[bar, side + 1, actions[0]]
                    expected[bar, side + 1, actions[0]] = np.fmax(best, found)

    returns = action_returns(bars, horizon, entry, exit_)

    np.testing.assert_allclose(returns, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("side", Side)
def test_exactly_the_illegal_actions_have_no_return(side: Side) -> None:
    bars = random_bars(40)
    returns = action_returns(bars, 6, *costs(bars, seed=0, size=0.1))
    legal = [action in LEGAL[side] for action in Action]
    assert np.array_equal(np.isfinite(returns[:, side + 1]), np.tile(legal, (34, 1)))


@pytest.mark.parametrize("count", [0, 3, 6])
def test_too_few_bars_have_no_labels(count: int) -> None:
    bars = random_bars(count + 1)[:count]
    assert action_returns(bars, 6, np.zeros(count), np.zeros(count)).shape == (0, 3, 5)


def shifted(bars: Bars, column: str, bar: int) -> Bars:
    """`bars` with one price of one bar moved by 3, its high and low out of the way."""
    columns = {name: getattr(bars, name).copy() for name in ("open", "high", "low", "close")}
    columns[column][bar] += 3.0
    columns["high"] += 50.0
    columns["low"] -= 50.0
    return Bars(bars.datetime, **columns)


def test_nothing_after_the_horizon_influences_a_label() -> None:
    bars, horizon, bar = random_bars(20), 5, 7
    end = bar + horizon
    changed = {
        name: np.concatenate([getattr(bars, name)[:end], getattr(random_bars(20, 9), name)[end:]])
        for name in ("open", "high", "low", "close")
    }
    changed["open"][end] = bars.open[end]  # where everything is closed; the last that counts
    changed["high"], changed["low"] = changed["high"] + 50, changed["low"] - 50
    other = Bars(bars.datetime, **changed)
    free = np.zeros(20)
    before, after = action_returns(bars, horizon, free, free), action_returns(other, 5, free, free)
    assert np.array_equal(before[: bar + 1], after[: bar + 1], equal_nan=True)
    assert (before[bar + 1 :] != after[bar + 1 :])[:, Side.FLAT + 1, Action.HOLD].any()


@pytest.mark.parametrize(
    ("column", "offset"), [("close", 0), *(("open", offset) for offset in range(1, 6))]
)
def test_the_close_now_and_every_open_to_the_horizon_influence_a_label(
    column: str, offset: int
) -> None:
    bars, free = random_bars(20), np.zeros(20)
    before = action_returns(bars, 5, free, free)[7]
    after = action_returns(shifted(bars, column, 7 + offset), 5, free, free)[7]
    legal = np.isfinite(before)
    assert (after[legal] != before[legal]).any()


@pytest.mark.parametrize(
    ("column", "offset"),
    [("open", 0), ("high", 1), ("low", 1), *(("close", i) for i in (-1, 1, 5))],
)
def test_no_other_price_influences_a_label(column: str, offset: int) -> None:
    bars, free = random_bars(20), np.zeros(20)
    before = action_returns(bars, 5, free, free)[7]
    after = action_returns(shifted(bars, column, 7 + offset), 5, free, free)[7]
    assert np.array_equal(before, after, equal_nan=True)


@pytest.mark.parametrize("which", ["entry", "exit"])
def test_larger_costs_never_increase_a_return(which: str) -> None:
    bars = random_bars(200)
    entry, exit_ = costs(bars, seed=0, size=0.1)
    more = costs(bars, seed=1, size=0.1)[0]
    dearer = (entry + more, exit_) if which == "entry" else (entry, exit_ + more)
    cheap, dear = action_returns(bars, 6, entry, exit_), action_returns(bars, 6, *dearer)
    legal = np.isfinite(cheap)
    assert (dear[legal] <= cheap[legal]).all()
    assert (dear[legal] < cheap[legal]).any()


@pytest.mark.parametrize(
    ("instrument", "price", "capital", "units"),
    [
        (STOCK, 100.0, 100_025.0, 1_000),  # 100 lots of 10
        (STOCK, 100.0, 100_024.0, 990),  # brokerage comes first
        (STOCK, 100.0, 50.0, 10),  # what cannot be afforded still costs one lot's brokerage
        (INDEX, 20_000.0, 90_025.0, 300),  # 4 lots of 75 at a premium of 300
    ],
)
def test_a_cost_is_a_fraction_of_the_price_and_the_brokerage_over_the_affordable_lots(
    instrument: Instrument, price: float, capital: float, units: int
) -> None:
    entry, exit_ = execution_costs(np.array([price, price]), instrument, TRADING, capital)
    np.testing.assert_allclose(entry, [0.0002 * price + 25 / units] * 2, rtol=1e-12)
    np.testing.assert_allclose(exit_, [0.0002 * price + 35 / units] * 2, rtol=1e-12)


@pytest.mark.parametrize(
    ("instrument", "capital", "price", "atr", "bounds", "lots"),
    [
        # 1 % of the capital over (1.5 ATR x lot size)
        (STOCK, 1e6, 100.0, 2.0, (1, 1e5), 10_000 / 30),
        (INDEX, 1e6, 20_000.0, 40.0, (1, 1e5), 10_000 / (60 * 75)),
        (STOCK, 1e6, 10_000.0, 2.0, (1, 1e5), 9.0),  # no more than it affords, brokerage paid
        (STOCK, 1e6, 10.0, 0.01, (1, 5_000), 5_000.0),  # the upper bound
        (STOCK, 1e6, 100.0, 2.0, (400, 5_000), 400.0),  # the lower bound
        (STOCK, 100.0, 100.0, 2.0, (1, 1e5), 1.0),  # affords none: the lower bound still
        (STOCK, 1e6, 100.0, 0.0, (1, 500), 500.0),  # no risk: the upper bound,
        (STOCK, 1e6, 100.0, 0.0, (1, 1e5), 999.0),  # or what it affords
    ],
)
def test_risk_lots_lose_a_fraction_of_the_capital_at_the_stop(
    instrument: Instrument,
    capital: float,
    price: float,
    atr: float,
    bounds: tuple[float, float],
    lots: float,
) -> None:
    found = risk_lots(capital, price, atr, instrument, TRADING, 0.01, bounds)
    assert math.isclose(found, lots, rel_tol=1e-12)
