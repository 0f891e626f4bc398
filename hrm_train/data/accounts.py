"""Synthesised accounts: positions as a backtest would hold them, without a history of trading.

A position was opened at a random earlier bar and has survived our rules since: a stop
`stop_atr` ATR (of the entry) away, trailing the best close at that distance and never going back,
acting on closes. Capital is log-uniform.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hrm_runtime.market.account import Account
from hrm_runtime.market.actions import Side
from hrm_runtime.market.bars import Bars, Floats
from hrm_runtime.market.instruments import Instrument, Trading
from hrm_train.data.labels import risk_lots
from hrm_train.settings import Settings

ATTEMPTS = 4
"""Entries tried per position before the bar is left without one on that side."""


@dataclass(frozen=True, eq=False)
class Positions:
    """One candidate position per bar: where it was entered and where its trail stands.

    Attributes:
        entered: int64 [n], the bar whose close decided the entry (filled at the next open).
        entry_price, trail: float64 [n], currency.
        alive: bool [n], false where every attempt was stopped out.
    """

    entered: npt.NDArray[np.int64]
    entry_price: Floats
    trail: Floats
    alive: npt.NDArray[np.bool_]


def positions(
    bars: Bars,
    atr: Floats,
    at: npt.NDArray[np.int64],
    side: Side,
    longest: int,
    stop_atr: float,
    rng: np.random.Generator,
) -> Positions:
    """A position on `side` at each of the bars `at`, entered 1 to `longest` bars earlier.

    Args:
        bars: n bars.
        atr: float64 [n], currency; known for `longest` bars before each of `at`.
        at: int64 [m] indices, each at least `longest`.
    """
    found = Positions(at.copy(), np.zeros(len(at)), np.zeros(len(at)), np.zeros(len(at), bool))
    for _ in range(ATTEMPTS):
        held = rng.integers(1, longest, size=len(at), endpoint=True)
        retry = ~found.alive
        entered = at[retry] - held[retry]
        entry_price, trail, alive = replay_trail(bars, atr, entered, at[retry], side, stop_atr)
        found.entered[retry] = entered
        found.entry_price[retry] = entry_price
        found.trail[retry] = trail
        found.alive[retry] = alive
    return found


def replay_trail(
    bars: Bars,
    atr: Floats,
    entered: npt.NDArray[np.int64],
    until: npt.NDArray[np.int64],
    side: Side,
    stop_atr: float,
) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    """Entry price, trail after the close of `until`, and whether no close reached the trail.

    All arrays are [m]; a position decided at bar `entered` is filled at the next open.
    """
    entry_price = bars.open[entered + 1]
    distance = stop_atr * atr[entered]
    best = entry_price.copy()
    alive = np.ones(len(entered), dtype=bool)
    for held in range(1, int((until - entered).max(initial=0)) + 1):
        now = entered + held
        running = alive & (now <= until)
        close = bars.close[np.minimum(now, until)]
        stopped = side * (close - (best - side * distance)) <= 0
        alive &= ~(running & stopped)
        better = running & (side * (close - best) > 0)
        best = np.where(better, close, best)
    return entry_price, best - side * distance, alive


def accounts(
    bars: Bars,
    atr: Floats,
    at: npt.NDArray[np.int64],
    side: Side,
    instrument: Instrument,
    trading: Trading,
    settings: Settings,
    rng: np.random.Generator,
) -> list[Account | None]:
    """An account on `side` at each of the bars `at`; None where no position survived.

    Shapes as `positions`. The entries lie within one label horizon.
    """
    training, heads = settings.training, settings.network.output_heads
    low, high = np.log(training.capital_min), np.log(training.capital_max)
    capitals = np.exp(rng.uniform(low, high, size=len(at))).tolist()
    if side is Side.FLAT:
        return [Account.flat(capital) for capital in capitals]
    held = positions(bars, atr, at, side, training.label_horizon, trading.stop_atr, rng)
    made: list[Account | None] = []
    for i, capital in enumerate(capitals):
        close, entry = float(bars.close[at[i]]), float(held.entry_price[i])
        if not held.alive[i]:
            made.append(None)
            continue
        lots = np.floor(
            risk_lots(
                capital,
                entry,
                float(atr[held.entered[i]]),
                instrument,
                trading,
                training.risk_fraction,
                (heads.quantity_min, heads.quantity_max),
            )
        )
        made.append(
            Account(
                capital=capital,
                position_quantity=side * lots,
                entry_price=entry,
                unrealized_pnl=side * (close - entry) * lots * instrument.lot_size,
                is_position_open=True,
                distance_to_trail=float(np.clip(side * (close - held.trail[i]) / close, -1, 1)),
            )
        )
    return made
