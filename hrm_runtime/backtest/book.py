"""The books of one account under the host's rules: cash, at most one position, its stop, its costs.

The training accounts were synthesised under the same rules: a stop `stop_atr` ATR (of the deciding
bar) from the entry price, which trails the best close seen at that distance and never goes back.
It acts on closes. While it trails, no target is checked.
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from hrm_runtime.artifact.decision import Decision
from hrm_runtime.market.account import Account, affordable_lots
from hrm_runtime.market.actions import Action, Side
from hrm_runtime.market.instruments import Instrument, Trading

_OPENS: Final = {Action.BUY_LONG: Side.LONG, Action.SELL_SHORT: Side.SHORT}


class Exit(StrEnum):
    """Why a trade ended."""

    ACTION = "action"
    """The model closed it."""
    STOP = "stop"
    TARGET = "target"
    CAPITAL = "capital"
    """It had used up the capital."""
    END = "end"
    """There were no more bars."""


@dataclass(frozen=True)
class Trade:
    """One position from its opening to its end.

    Attributes:
        side: LONG or SHORT.
        lots: how many.
        entered: stamp of the bar at whose open it was opened.
        entry_price: currency.
        exited: stamp of the bar in which it ended: at its open by the model, else at its close.
        exit_price: currency.
        costs: of both executions, currency.
        profit: after costs, currency.
        ended: why.
    """

    side: Side
    lots: int
    entered: int
    entry_price: float
    exited: int
    exit_price: float
    costs: float
    profit: float
    ended: Exit


@dataclass
class _Position:
    """An open position; `best` is the best close seen, or the entry price where nothing trails."""

    side: Side
    lots: int
    units: int
    entered: int
    entry_price: float
    entry_cost: float
    distance: float
    best: float
    target: float

    @property
    def stop(self) -> float:
        return self.best - self.side * self.distance

    def profit(self, price: float) -> float:
        """Before costs, at `price`."""
        return self.side * (price - self.entry_price) * self.units


class Book:
    """Cash and the open position; every method is told the price, and books what happens there.

    An index moves point for point with its units here, as in training; its premium only limits
    how many lots the cash affords.

    Args:
        capital: currency to begin with.
        instrument: facts of what is traded.
        trading: the host's rules.
        trailing: let the stop trail; otherwise it stays, with a target at `target_atr`.
        host_fills: book a stop or target at its own price although the close is beyond it.

    Attributes:
        cash: the capital and what was realised since, entry costs of an open position included.
        trades: those that have ended, oldest first.
    """

    def __init__(
        self,
        capital: float,
        instrument: Instrument,
        trading: Trading,
        *,
        trailing: bool = True,
        host_fills: bool = False,
    ) -> None:
        self.cash = capital
        self.trades: list[Trade] = []
        self._instrument = instrument
        self._trading = trading
        self._trailing = trailing
        self._host_fills = host_fills
        self._position: _Position | None = None

    @property
    def used_up(self) -> bool:
        """Whether there is no capital left to trade with."""
        return self.cash <= 0

    def equity(self, price: float) -> float:
        """Cash, and what the open position has gained at `price`, in currency."""
        return self.cash + (self._position.profit(price) if self._position else 0.0)

    def account(self, close: float) -> Account:
        """The account at a close, as `settle` has left it. There must be cash.

        The distance to a stop that does not trail stands where that to the trail does.
        """
        held = self._position
        if held is None:
            return Account.flat(self.cash)
        return Account(
            capital=self.cash,
            position_quantity=float(held.side * held.lots),
            entry_price=held.entry_price,
            unrealized_pnl=held.profit(close),
            is_position_open=True,
            distance_to_trail=min(max(held.side * (close - held.stop) / close, -1.0), 1.0),
        )

    def execute(self, decision: Decision, price: float, atr: float, stamp: int) -> bool:
        """Fill a decision at `price`, the open of the bar after it, which is stamped `stamp`.

        Args:
            atr: of the bar decided at, in currency.

        Returns:
            Whether it was done: the cash may not pay for one lot of an opening.
        """
        side = _OPENS.get(decision.action)
        if side is not None:
            return self.open(side, decision.quantity, price, atr, stamp)
        if decision.action is not Action.HOLD:
            self.close(price, stamp, Exit.ACTION)
        return True

    def open(self, side: Side, wanted: float, price: float, atr: float, stamp: int) -> bool:
        """Open a position at `price`, of as many of the `wanted` lots as the cash affords there.

        Args:
            atr: of the bar that decided it, in currency.
            stamp: of the bar that opens at `price`.

        Returns:
            Whether it affords one.
        """
        trading = self._trading
        affordable = affordable_lots(self.cash, price, self._instrument, trading.brokerage_entry)
        lots = min(math.floor(wanted), affordable)
        if lots < 1:
            return False
        units = lots * self._instrument.lot_size
        cost = trading.cost_fraction * price * units + trading.brokerage_entry
        self.cash -= cost
        self._position = _Position(
            side=side,
            lots=lots,
            units=units,
            entered=stamp,
            entry_price=price,
            entry_cost=cost,
            distance=trading.stop_atr * atr,
            best=price,
            target=side * math.inf if self._trailing else price + side * trading.target_atr * atr,
        )
        return True

    def close(self, price: float, stamp: int, why: Exit) -> None:
        """End the open position, if there is one, at `price` in the bar stamped `stamp`."""
        held = self._position
        if held is None:
            return
        cost = self._trading.cost_fraction * price * held.units + self._trading.brokerage_exit
        self.cash += held.profit(price) - cost
        self._position = None
        costs = held.entry_cost + cost
        self.trades.append(
            Trade(
                side=held.side,
                lots=held.lots,
                entered=held.entered,
                entry_price=held.entry_price,
                exited=stamp,
                exit_price=price,
                costs=costs,
                profit=held.profit(price) - costs,
                ended=why,
            )
        )

    def settle(self, close: float, stamp: int) -> None:
        """Apply the rules at a bar's close: stop, target, the end of the capital, the trail."""
        held = self._position
        if held is None:
            return
        if held.side * (close - held.stop) <= 0:
            self.close(held.stop if self._host_fills else close, stamp, Exit.STOP)
        elif held.side * (close - held.target) >= 0:
            self.close(held.target if self._host_fills else close, stamp, Exit.TARGET)
        elif min(self.cash, self.equity(close)) <= 0:
            self.close(close, stamp, Exit.CAPITAL)
        elif self._trailing and held.side * (close - held.best) > 0:
            held.best = close
