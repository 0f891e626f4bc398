"""The account: six values as the host keeps them, and the vector the network gets from them."""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hrm_runtime.errors import BadAccount
from hrm_runtime.market.actions import Side
from hrm_runtime.market.instruments import Instrument

LARGEST: Final = 1e15
"""Of any value: more is no account's, but what brokers give while they have none (1.8e308)."""

FARTHEST: Final = 50.0
"""Times the price that an entry may be above or below it; a premium is, or another instrument."""

_MOST_PROFIT: Final = 100.0
"""Times what the prices say that a profit may be; an option's, and fees, stay far below."""

_LEAST_COVER: Final = 0.5
"""Of what a position costs: with less capital it could not have been opened, but on margin."""

_LARGEST_FLOAT32: Final = math.ldexp(2.0 - 2.0**-23, 127)
"""numpy tells it too, and warns while it does where a host flushes denormals to zero."""

_MOST_UNITS: Final = 1e6
"""That a lot may have whose size nobody declared: a lot of 1 is what facts begin with."""


@dataclass(frozen=True)
class Account:
    """The state of one instrument's account at the close of the newest bar.

    Attributes:
        capital: currency that was realised: what the account was begun with, every profit, loss
            and cost since. What an open position cost is not taken off, and its profit not added:
            not the free cash. > 0 where no position is open.
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
            if abs(number) > LARGEST:
                raise BadAccount(
                    f"account.{field.name}: expected at most {LARGEST:g}, found {value!r}: has the "
                    "broker told it yet?"
                )
            object.__setattr__(self, field.name, number)
        if self.is_position_open not in (0.0, 1.0):
            raise BadAccount(
                f"account.is_position_open: expected 0 or 1, found {self.is_position_open:g}"
            )
        object.__setattr__(self, "is_position_open", bool(self.is_position_open))
        for holds, expectation in (
            (
                self.capital > 0 or self.is_position_open,
                "capital > 0 where no position is open",
            ),
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


def require_plausible(account: Account, close: float, instrument: Instrument) -> None:
    """Hold a position to what it can be at a price.

    What premiums, fees and leverage may do passes; a position that is real can always be closed.

    Raises:
        BadAccount: it was entered at another instrument's price, or its profit is orders of
            magnitude beyond what the prices and lots say.
    """
    if not account.is_position_open:
        return
    entry = account.entry_price
    if not 1 / FARTHEST <= entry / close <= FARTHEST:
        raise BadAccount(
            f"account.entry_price: expected one within {FARTHEST:g} times the close, {close:.10g}, "
            f"found {entry:.10g}: give the price of the instrument itself, of an index not that of "
            "its option"
        )
    units = abs(account.position_quantity) * instrument.lot_size
    times = _MOST_UNITS if instrument.lot_size == 1 else _MOST_PROFIT
    most = times * units * (abs(close - entry) + 0.01 * close)
    if abs(account.unrealized_pnl) > most:
        raise BadAccount(
            f"account.unrealized_pnl: expected {(close - entry) * units * account.side:.10g} or so "
            f"of {abs(account.position_quantity):.10g} lots of {instrument.lot_size} entered at "
            f"{entry:.10g} and now at {close:.10g}, found {account.unrealized_pnl:.10g}"
        )


def doubtful_capital(account: Account, instrument: Instrument) -> str | None:
    """What to tell a host whose capital may be its free cash; None where nothing speaks for that.

    It is no error: a position on margin costs more than there is.
    """
    lots, cost = abs(account.position_quantity), instrument.cost_per_lot(account.entry_price)
    if not account.is_position_open or account.capital >= _LEAST_COVER * lots * cost:
        return None
    return (
        f"account.capital: {account.capital:.10g} is less than half of what {lots:.10g} lots cost "
        f"at {account.entry_price:.10g}, {lots * cost:.10g}: give what was realised, not what is "
        "free, unless the position is on margin"
    )


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
    none and 1 is `quantity_max`. Where the capital is used up, a profit or loss against it is as
    large as can be, which the network takes for the largest it was trained on.

    Args:
        close, atr: of the newest feature row, in currency.
    """
    lots = min(affordable_lots(account.capital, close, instrument, brokerage_entry), quantity_max)
    per_atr = 1.0 / atr if atr > 0 and account.is_position_open else 0.0
    values = (
        float(account.side),
        (close - account.entry_price) * per_atr,
        _against(account.unrealized_pnl, account.capital),
        math.log1p(lots) / math.log1p(quantity_max),
        account.distance_to_trail * close * per_atr,
    )
    within = [min(max(value, -_LARGEST_FLOAT32), _LARGEST_FLOAT32) for value in values]
    return np.array(within, dtype=np.float32)


def _against(profit: float, capital: float) -> float:
    if capital > 0:
        return profit / capital
    return math.copysign(math.inf, profit) if profit else 0.0
