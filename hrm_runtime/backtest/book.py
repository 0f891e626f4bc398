"""The books of one account under given rules: cash, at most one position, its levels, its costs.

The training accounts were synthesised under `OURS`: a stop `stop_atr` ATR (of the deciding bar)
from the entry price, which trails the best close seen at that distance and never goes back. It
acts on closes, and there is no target.
"""

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from hrm_runtime.artifact.decision import Decision
from hrm_runtime.backtest.rules import OURS, RULES, Rules
from hrm_runtime.errors import BadInput
from hrm_runtime.market.account import Account, affordable_lots
from hrm_runtime.market.actions import LEGAL, Action, Side
from hrm_runtime.market.instruments import Instrument, Trading

_OPENS: Final = {Action.BUY_LONG: Side.LONG, Action.SELL_SHORT: Side.SHORT}


class Exit(StrEnum):
    """Why a trade ended."""

    ACTION = "action"
    """The model closed it."""
    STOP = "stop"
    """A close reached the stop, or the trail."""
    TARGET = "target"
    CAPITAL = "capital"
    """It had used up the capital."""
    END = "end"
    """There were no more bars."""


@dataclass(frozen=True)
class Trade:
    """One position from its opening to its end; or a part of it, where only that was closed.

    Attributes:
        side: LONG or SHORT.
        lots: how many.
        entered: stamp of the bar in which it was opened.
        entry_price: currency.
        exited: stamp of the bar in which it ended.
        exit_price: currency.
        costs: of both executions, of a part its share of the first, currency.
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
    def trail(self) -> float:
        return self.best - self.side * self.distance

    def profit(self, price: float) -> float:
        """Before costs, at `price`."""
        return self.side * (price - self.entry_price) * self.units

    def reached(self, close: float) -> tuple[float, Exit] | None:
        """The first of stop, target and trail that a close has reached: its price, and its name."""
        stop = self.entry_price - self.side * self.distance
        if self.side * (close - stop) <= 0:
            return stop, Exit.STOP
        if self.side * (close - self.target) >= 0:
            return self.target, Exit.TARGET
        if self.side * (close - self.trail) <= 0:
            return self.trail, Exit.STOP
        return None

    def follow(self, close: float) -> None:
        """Let the trail follow a close that is better than those before."""
        if self.side * (close - self.best) > 0:
            self.best = close


class Book:
    """Cash and the open position; every method is told the price, and books what happens there.

    An index moves point for point with its units here, as in training; its premium only limits
    how many lots the cash affords.

    Args:
        capital: currency to begin with.
        instrument: facts of what is traded.
        trading: what an execution costs, and how far away the levels are.
        rules: where and when that is applied.

    Attributes:
        cash: the capital and what was realised since, entry costs of an open position included.
        trades: those that have ended, oldest first.

    Raises:
        BadInput: `rules` are no `Rules`.
    """

    def __init__(
        self,
        capital: float,
        instrument: Instrument,
        trading: Trading,
        rules: Rules = OURS,
    ) -> None:
        if not isinstance(rules, Rules):
            raise BadInput(
                f"rules: expected a Rules, found {rules!r}; take one of RULES by its name: "
                f"{', '.join(f'RULES[{name!r}]' for name in RULES)}"
            )
        self.cash = capital
        self.rules = rules
        self.trades: list[Trade] = []
        self._instrument = instrument
        self._trading = trading
        self._cost_fraction = trading.cost_fraction if rules.proportional_costs else 0.0
        self._position: _Position | None = None

    @property
    def used_up(self) -> bool:
        """Whether no position is open, and there is no capital left to open one with."""
        return self._position is None and self.cash <= 0

    def equity(self, price: float) -> float:
        """Cash, and what the open position has gained at `price`, in currency."""
        return self.cash + (self._position.profit(price) if self._position else 0.0)

    def account(self, close: float) -> Account:
        """The account at a close, as `advance` has left it. There must be cash, or a position.

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
            distance_to_trail=min(max(held.side * (close - held.trail) / close, -1.0), 1.0),
        )

    def advance(
        self, decision: Decision, opening: float, close: float, atr: float, stamp: int
    ) -> bool:
        """Go on by the bar after a decision: fill that, and apply the rules at the bar's close.

        Args:
            opening, close: of the bar, which is stamped `stamp`, in currency.
            atr: of the bar that `rules.atr` names, in currency.

        Returns:
            As `execute`; true as well where a level was reached and the decision is void.
        """
        if self.rules.fill == "open":
            done = self.execute(decision, opening, atr, stamp)
            self.settle(close, stamp)
            return done
        return self.settle(close, stamp) or self.execute(decision, close, atr, stamp)

    def execute(self, decision: Decision, price: float, atr: float, stamp: int) -> bool:
        """Fill a decision at `price`, in the bar stamped `stamp`.

        One whose action is not legal on the side held does nothing, as in a host's environment.

        Args:
            atr: of the bar that `rules.atr` names, in currency.

        Returns:
            Whether there was nothing to do or it was done: the cash may not pay for one lot of an
            opening, nor of a close that it caps.
        """
        held = self._position.side if self._position else Side.FLAT
        if decision.action is Action.HOLD or decision.action not in LEGAL[held]:
            return True
        side = _OPENS.get(decision.action)
        if side is not None:
            return self.open(side, decision.quantity, price, atr, stamp)
        lots = self._lots(decision.quantity, price) if self.rules.closes_capped else None
        if lots == 0:
            return False
        self.close(price, stamp, Exit.ACTION, lots)
        return True

    def open(self, side: Side, wanted: float, price: float, atr: float, stamp: int) -> bool:
        """Open a position at `price`, of as many of the `wanted` lots as the cash affords there.

        None must be open.

        Args:
            atr: of the bar that `rules.atr` names, in currency.
            stamp: of the bar in which it is opened.

        Returns:
            Whether it affords one.

        Raises:
            BadInput: a position is open, which it would take the place of.
        """
        if self._position is not None:
            raise BadInput("book: expected no open position to open one, found one; close it first")
        trading = self._trading
        lots = self._lots(wanted, price)
        if lots < 1:
            return False
        units = lots * self._instrument.lot_size
        cost = self._cost_fraction * price * units + trading.brokerage_entry
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
            target=price + side * (trading.target_atr * atr if self.rules.target else math.inf),
        )
        return True

    def close(self, price: float, stamp: int, why: Exit, lots: int | None = None) -> None:
        """End the open position, if there is one, at `price` in the bar stamped `stamp`.

        Args:
            lots: at least 1; so many of a position that has more. All of it if left out.
        """
        held = self._position
        if held is None:
            return
        rest = max(held.lots - lots, 0) if lots is not None else 0
        part = replace(held, lots=held.lots - rest)
        part.units = part.lots * self._instrument.lot_size
        part.entry_cost *= part.lots / held.lots
        cost = self._cost_fraction * price * part.units + self._trading.brokerage_exit
        self.cash += part.profit(price) - cost
        costs = part.entry_cost + cost
        self.trades.append(
            Trade(
                side=part.side,
                lots=part.lots,
                entered=part.entered,
                entry_price=part.entry_price,
                exited=stamp,
                exit_price=price,
                costs=costs,
                profit=part.profit(price) - costs,
                ended=why,
            )
        )
        self._position = None
        if rest:
            units, entry_cost = held.units - part.units, held.entry_cost - part.entry_cost
            self._position = replace(held, lots=rest, units=units, entry_cost=entry_cost)

    def settle(self, close: float, stamp: int) -> bool:
        """Apply the rules at a bar's close: the levels, the end of the capital, the trail.

        Returns:
            Whether they ended a position.
        """
        held, rules = self._position, self.rules
        if held is None:
            return False
        if rules.trailing and rules.trail_first:
            held.follow(close)
        reached = held.reached(close)
        if reached is not None:
            level, why = reached
            self.close(level if rules.exits_at == "level" else close, stamp, why)
        elif rules.ruin and min(self.cash, self.equity(close)) <= 0:
            self.close(close, stamp, Exit.CAPITAL)
        elif rules.trailing:
            held.follow(close)
        return self._position is None

    def _lots(self, wanted: float, price: float) -> int:
        """As many of the `wanted` lots as the cash affords at `price`."""
        brokerage = self._trading.brokerage_entry
        affordable = affordable_lots(self.cash, price, self._instrument, brokerage)
        return affordable if wanted >= self.rules.all_in else min(math.floor(wanted), affordable)
