"""Facts of an instrument and of a timeframe, and the rules of trading."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

UNKNOWN: Final = "unknown"
"""The name behind id 0: whatever the artifact was not trained on."""


@dataclass(frozen=True, kw_only=True)
class Instrument:
    """Facts of one instrument.

    Attributes:
        id: its row in the embedding table; 0 is `unknown`.
        type: "stock" trades at its price; "index" trades through options, whose premium is a
            fraction of the index between `premium_min` and `premium_max`.
        lot_size: units per lot.
        tick_size: smallest price step, in currency.
    """

    id: int
    type: Literal["index", "stock"]
    lot_size: int
    tick_size: float
    premium_min: float
    premium_max: float

    def cost_per_lot(self, price: float) -> float:
        """Currency needed to open one lot while the instrument stands at `price`."""
        if self.type == "index":
            price *= 0.5 * (self.premium_min + self.premium_max)
        return price * self.lot_size


@dataclass(frozen=True, kw_only=True)
class Timeframe:
    """One bar length. `id` is its row in the embedding table, `seconds` its length."""

    id: int
    seconds: int


@dataclass(frozen=True, kw_only=True)
class Trading:
    """What a trade costs, and how far from its entry a position is stopped.

    Attributes:
        cost_fraction: slippage and taxes per execution, as a fraction of the price.
        brokerage_entry, brokerage_exit: currency per order.
        stop_atr, target_atr: distance from the entry price, in ATR at entry.
    """

    cost_fraction: float
    brokerage_entry: float
    brokerage_exit: float
    stop_atr: float
    target_atr: float


def name_of(entries: Mapping[str, Instrument] | Mapping[str, Timeframe], number: int) -> str:
    """The name behind an id; `unknown` where there is none."""
    return next((name for name, entry in entries.items() if entry.id == number), UNKNOWN)
