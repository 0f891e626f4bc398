"""A model that decides as it was told, and bars made by hand around which it is walked."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from hrm_runtime import (
    Account,
    Action,
    Bars,
    Contract,
    Decision,
    Reason,
)
from hrm_runtime.artifact.decision import hold
from hrm_runtime.backtest.walk import Backtest, backtest
from hrm_runtime.market.features import Row
from hrm_runtime.market.stamps import EARLIEST_STAMP

ON = {"instrument": "Alpha", "timeframe": "5"}
NEEDED = 205
LAST_QUIET = EARLIEST_STAMP + 300 * (NEEDED - 1)
"""The stamp of the first bar that can be decided at."""


def at(bar: int) -> int:
    """The stamp of one of `bars_of`."""
    return EARLIEST_STAMP + 300 * bar


def bars_of(*tail: tuple[float, float], lead: int = NEEDED) -> Bars:
    """Quiet bars at 100 with an ATR of 2, and after them bars with these opens and closes."""
    prices = np.array([(100.0, 100.0)] * lead + list(tail))
    stamps = EARLIEST_STAMP + 300 * np.arange(len(prices))
    return Bars(stamps, prices[:, 0], prices.max(1) + 1, prices.min(1) - 1, prices[:, 1])


class Scripted:
    """Decides at the n-th bar after the quiet ones as it was told, else HOLD; remembers accounts.

    Ten units a lot, 0.1 % and 25 + 35 currency an execution, stops at 1.5 ATR, targets at 3.
    """

    def __init__(
        self,
        contract: Contract,
        script: Mapping[int, tuple[Action, float] | Reason] | None = None,
        trained_until: int = 0,
    ) -> None:
        self.contract = replace(
            contract,
            instruments={
                **contract.instruments,
                "Alpha": replace(contract.instruments["Alpha"], lot_size=10),
            },
            trading=replace(contract.trading, cost_fraction=0.001),
            provenance=replace(contract.provenance, trained_until=trained_until),
        )
        self.id = "scripted"
        self.script = script or {}
        self.seen: list[tuple[int, Account]] = []

    def decide_rows(self, window: list[Row], account: Account, **on: str) -> Decision:
        assert on == ON
        assert len(window) == self.contract.features.window
        self.seen.append((window[-1].datetime, account))
        told = self.script.get((window[-1].datetime - LAST_QUIET) // 300, Reason.OK)
        safe = hold(told if isinstance(told, Reason) else Reason.OK, self.id)
        if isinstance(told, Reason):
            return safe
        return replace(safe, action=told[0], quantity=told[1])


def walk(model: Any, bars: Bars, **how: Any) -> Backtest:
    return backtest(model, bars, **{**ON, "capital": 10_000.0, **how})


BUY, SELL = (Action.BUY_LONG, 5.0), (Action.SELL_SHORT, 500.0)
CLOSE_LONG, CLOSE_SHORT = (Action.CLOSE_LONG, 5.0), (Action.CLOSE_SHORT, 9.0)
