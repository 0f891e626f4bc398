"""The account: six values as the host keeps them, and the vector the network gets from them."""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from hrm_runtime.errors import BadAccount
from hrm_runtime.market.actions import Side
from hrm_runtime.market.instruments import Instrument


@dataclass(frozen=True)
class Account:
    """The state of one instrument's account at the close of the newest bar.

    Attributes:
        capital: free currency, > 0.
        position_quantity: signed lots; long > 0, short < 0, flat 0.
        entry_price: currency, > 0 if and only if a position is open.
        unrealized_pnl: currency; 0 when flat.
        is_position_open: agrees with `position_quantity`.
        distance_to_trail: of the price to the trailing stop, as a fraction of the price, in
            [-1, 1], positive while the stop is not reached; 0 when flat.

    Raises:
        BadAccount: a value is not a finite number or out of range, or two values contradict.
    """

    capital: float
    position_quantity: float
    entry_price: float
    unrealized_pnl: float
    is_position_open: bool
    distance_to_trail: float

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            try:
                if isinstance(value, str | bytes):
                    raise TypeError("text")  # noqa: TRY301, refused as float would refuse a list
                number = float(value)
            except (TypeError, ValueError, OverflowError) as error:
                raise BadAccount(
                    f"account.{field.name}: expected a number, found {value!r}"
                ) from error
            if not math.isfinite(number):
                raise BadAccount(f"account.{field.name}: expected a finite number, found {value!r}")
            object.__setattr__(self, field.name, number)
        if self.is_position_open not in (0.0, 1.0):
            raise BadAccount(
                f"account.is_position_open: expected 0 or 1, found {self.is_position_open:g}"
            )
        object.__setattr__(self, "is_position_open", bool(self.is_position_open))
        for holds, expectation in (
            (self.capital > 0, "capital > 0"),
            (-1.0 <= self.distance_to_trail <= 1.0, "distance_to_trail in [-1, 1]"),
            (
                self.is_position_open == (self.position_quantity != 0),
                "is_position_open to agree with position_quantity",
            ),
            (
                (self.entry_price > 0) if self.is_position_open else (self.entry_price == 0),
                "entry_price > 0 if a position is open, else 0",
            ),
            (
                self.is_position_open or (self.unrealized_pnl == 0 and self.distance_to_trail == 0),
                "unrealized_pnl and distance_to_trail 0 when no position is open",
            ),
        ):
            if not holds:
                raise BadAccount(f"account: expected {expectation}; found {self}")

    @classmethod
    def of(cls, values: "Account | Mapping[str, Any]") -> "Account":
        """An account as it is, or from a mapping of the six values by name.

        Raises:
            BadAccount: neither, a name is missing or unknown, or as the constructor.
        """
        if isinstance(values, cls):
            return values
        if not isinstance(values, Mapping):
            raise BadAccount(
                f"account: expected an Account or a mapping, found {type(values).__name__}"
            )
        names, found = [field.name for field in fields(cls)], [*map(str, values)]
        if sorted(found) != sorted(names):
            raise BadAccount(
                f"account: expected the values {', '.join(names)}; "
                f"found {', '.join(found) or 'none'}"
            )
        return cls(**dict(zip(found, values.values(), strict=True)))

    @classmethod
    def flat(cls, capital: float) -> "Account":
        """An account with `capital` and no position."""
        return cls(capital, 0.0, 0.0, 0.0, False, 0.0)

    @property
    def side(self) -> Side:
        """Which side the position is on."""
        return Side(int(np.sign(self.position_quantity)))


def affordable_lots(
    capital: float, price: float, instrument: Instrument, brokerage_entry: float
) -> int:
    """How many lots `capital` opens at `price` after brokerage; 0 means skip the trade."""
    lots = (capital - brokerage_entry) / instrument.cost_per_lot(price)
    return math.floor(min(max(0.0, lots), sys.maxsize))


def vector(
    account: Account,
    *,
    close: float,
    atr: float,
    instrument: Instrument,
    brokerage_entry: float,
    quantity_max: float,
) -> npt.NDArray[np.float32]:
    """The account as the network sees it: float32 [A], in the order of `columns.ACCOUNT`.

    The side as -1, 0, 1; then close - entry and the distance to the trail in ATR (0 where the ATR
    is), the unrealised profit over the capital, and the affordable lots on a log scale where 0 is
    none and 1 is `quantity_max`.

    Args:
        close, atr: of the newest feature row, in currency.
    """
    lots = min(affordable_lots(account.capital, close, instrument, brokerage_entry), quantity_max)
    per_atr = 1.0 / atr if atr > 0 and account.is_position_open else 0.0
    values = (
        float(account.side),
        (close - account.entry_price) * per_atr,
        account.unrealized_pnl / account.capital,
        math.log1p(lots) / math.log1p(quantity_max),
        account.distance_to_trail * close * per_atr,
    )
    limit = float(np.finfo(np.float32).max)
    return np.array([min(max(value, -limit), limit) for value in values], dtype=np.float32)
