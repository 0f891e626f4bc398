import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hrm_runtime import Account, BadAccount
from hrm_runtime.market.account import affordable_lots, require_plausible, vector
from hrm_runtime.market.actions import Side
from hrm_runtime.market.instruments import Instrument

FLAT = {
    "capital": 100_000.0,
    "position_quantity": 0.0,
    "entry_price": 0.0,
    "unrealized_pnl": 0.0,
    "is_position_open": False,
    "distance_to_trail": 0.0,
}
LONG = {
    "capital": 100_000.0,
    "position_quantity": 3.0,
    "entry_price": 98.0,
    "unrealized_pnl": 600.0,
    "is_position_open": True,
    "distance_to_trail": 0.03,
}
SHORT = {**LONG, "position_quantity": -2.0, "entry_price": 104.0, "distance_to_trail": -0.01}

STOCK = Instrument(
    id=1, type="stock", lot_size=4, tick_size=0.05, premium_min=0.025, premium_max=0.05
)
INDEX = Instrument(
    id=2, type="index", lot_size=75, tick_size=0.05, premium_min=0.01, premium_max=0.02
)


def vector_of(account: Account, **changes: Any) -> list[float]:
    facts = {
        "close": 100.0,
        "atr": 2.0,
        "instrument": STOCK,
        "brokerage_entry": 25.0,
        "quantity_max": 100_000.0,
    }
    made = vector(account, **{**facts, **changes})
    assert made.dtype == np.float32
    return made.tolist()


def as_float32(*values: float) -> list[float]:
    return np.array(values, dtype=np.float32).tolist()


# contradictions


@pytest.mark.parametrize(
    ("base", "change", "expectation"),
    [
        (FLAT, {"capital": 0.0}, "capital > 0"),
        (FLAT, {"capital": -1.0}, "capital > 0 where no position is open"),
        (LONG, {"distance_to_trail": 1.01}, r"distance_to_trail in \[-1, 1\]"),
        (LONG, {"distance_to_trail": -1.01}, r"distance_to_trail in \[-1, 1\]"),
        (FLAT, {"is_position_open": True}, "is_position_open to agree with position_quantity"),
        (LONG, {"is_position_open": False}, "is_position_open to agree with position_quantity"),
        (FLAT, {"position_quantity": 1.0}, "is_position_open to agree with position_quantity"),
        (LONG, {"position_quantity": 0.0}, "is_position_open to agree with position_quantity"),
        (LONG, {"entry_price": 0.0}, "entry_price > 0 if a position is open, else 0"),
        (SHORT, {"entry_price": -98.0}, "entry_price > 0 if a position is open, else 0"),
        (FLAT, {"entry_price": 98.0}, "entry_price > 0 if a position is open, else 0"),
        (FLAT, {"unrealized_pnl": 1.0}, "unrealized_pnl and distance_to_trail 0 when no position"),
        (FLAT, {"distance_to_trail": 0.1}, "unrealized_pnl and distance_to_trail 0 when no"),
    ],
)
def test_a_contradiction_is_refused_with_what_was_expected(
    base: dict[str, Any], change: dict[str, Any], expectation: str
) -> None:
    (name, value), *_ = change.items()
    with pytest.raises(BadAccount, match=rf"account: expected {expectation}.*{name}={value}"):
        Account(**{**base, **change})


@pytest.mark.parametrize("value", [0.5, 2, -1])
def test_a_position_is_open_or_not(value: float) -> None:
    with pytest.raises(BadAccount, match=rf"is_position_open: expected 0 or 1, found {value:g}"):
        Account(**{**LONG, "is_position_open": value})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", FLAT)
def test_a_field_is_finite(name: str, value: float) -> None:
    with pytest.raises(BadAccount, match=rf"account\.{name}: expected a finite number, found"):
        Account(**{**LONG, name: value})


@pytest.mark.parametrize(
    "value", ["much", None, [1.0, 2.0], 10**400], ids=["text", "none", "list", "beyond floats"]
)
@pytest.mark.parametrize("name", FLAT)
def test_a_field_is_a_number(name: str, value: object) -> None:
    with pytest.raises(BadAccount, match=rf"account\.{name}: expected a number, found"):
        Account(**{**LONG, name: value})


# values


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.array], ids=lambda k: k.__name__)
@pytest.mark.parametrize("fields", [FLAT, {**LONG, "distance_to_trail": 0.25}])
def test_numpy_scalars_become_plain_python_values(kind: Any, fields: dict[str, Any]) -> None:
    made = Account(**{name: kind(value) for name, value in fields.items()})
    assert made == Account(**fields)
    assert type(made.is_position_open) is bool
    assert {type(getattr(made, name)) for name in FLAT if name != "is_position_open"} == {float}


def test_flat_is_an_account_without_a_position() -> None:
    assert Account.flat(100_000) == Account(**FLAT)


@pytest.mark.parametrize(
    ("fields", "side"), [(FLAT, Side.FLAT), (LONG, Side.LONG), (SHORT, Side.SHORT)]
)
def test_the_side_is_the_sign_of_the_quantity(fields: dict[str, Any], side: Side) -> None:
    assert Account(**fields).side is side


@pytest.mark.parametrize("distance", [-1.0, 1.0])
def test_the_bounds_of_the_distance_belong_to_it(distance: float) -> None:
    assert Account(**{**LONG, "distance_to_trail": distance}).distance_to_trail == distance


# mappings


def test_an_account_is_itself() -> None:
    account = Account(**LONG)
    assert Account.of(account) is account


class View(Mapping[str, Any]):
    """A mapping that is no dict."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return reversed(self._values)

    def __len__(self) -> int:
        return len(self._values)


@pytest.mark.parametrize("kind", [dict, View])
@pytest.mark.parametrize("fields", [FLAT, LONG, SHORT], ids=["flat", "long", "short"])
def test_a_mapping_of_the_six_values_is_read_by_name(
    fields: dict[str, Any], kind: type[Any]
) -> None:
    assert Account.of(kind(fields)) == Account(**fields)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({}, "none"),
        ({name: value for name, value in FLAT.items() if name != "capital"}, "position_quantity"),
        ({**FLAT, "leverage": 2.0}, "capital, .*, distance_to_trail, leverage"),
        ({**FLAT, 7: 2.0}, "capital, .*, distance_to_trail, 7"),
    ],
    ids=["empty", "missing", "unknown", "a number"],
)
def test_a_mapping_of_other_values_is_refused(values: dict[Any, Any], found: str) -> None:
    with pytest.raises(
        BadAccount,
        match="^account: expected the values capital, position_quantity, entry_price, "
        f"unrealized_pnl, is_position_open, distance_to_trail; found {found}",
    ):
        Account.of(values)


@pytest.mark.parametrize(
    ("values", "name"), [(None, "NoneType"), ([1.0] * 6, "list"), ("capital", "str")]
)
def test_what_is_neither_account_nor_mapping_is_refused(values: Any, name: str) -> None:
    with pytest.raises(
        BadAccount, match=f"^account: expected an Account or a mapping, found {name}$"
    ):
        Account.of(values)


def test_a_name_may_be_whatever_reads_as_one() -> None:
    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

        def __str__(self) -> str:
            return self.name

    values: dict[Any, Any] = {Named(name): value for name, value in LONG.items()}
    assert Account.of(values) == Account(**LONG)


def test_a_mapping_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(BadAccount, match="account: expected is_position_open to agree with"):
        Account.of({**LONG, "is_position_open": False})


# lots


@pytest.mark.parametrize(
    ("capital", "price", "instrument", "lots"),
    [
        (100_000.0, 100.0, STOCK, 249),  # (100000 - 25) / 400 = 249.9
        (400.0 + 25.0, 100.0, STOCK, 1),
        (400.0 + 24.99, 100.0, STOCK, 0),
        (10.0, 100.0, STOCK, 0),  # less than the brokerage
        (100_000.0, 23_500.0, INDEX, 3),  # 23500 * 0.015 * 75 = 26437.5 a lot
        (105_775.0, 23_500.0, INDEX, 4),
        (1.7e308, 1e-12, STOCK, 2**63 - 1),  # no float holds the quotient
    ],
)
def test_lots_are_what_the_capital_pays_after_brokerage(
    capital: float, price: float, instrument: Instrument, lots: int
) -> None:
    assert affordable_lots(capital, price, instrument, brokerage_entry=25.0) == lots


# the vector


def test_the_vector_of_a_flat_account() -> None:
    lots = math.log(1 + 249) / math.log(100_001)
    assert vector_of(Account(**FLAT)) == as_float32(0, 0, 0, lots, 0)


def test_the_vector_of_a_long_position() -> None:
    lots = math.log(1 + 249) / math.log(100_001)
    expected = as_float32(1, (100 - 98) / 2, 600 / 100_000, lots, 0.03 * 100 / 2)
    assert vector_of(Account(**LONG)) == pytest.approx(expected, rel=1e-7)


def test_the_vector_of_a_short_position_past_its_stop() -> None:
    lots = math.log(1 + 249) / math.log(100_001)
    expected = as_float32(-1, (100 - 104) / 2, 600 / 100_000, lots, -0.01 * 100 / 2)
    assert vector_of(Account(**SHORT)) == pytest.approx(expected, rel=1e-7)


def test_an_index_is_afforded_through_its_premium() -> None:
    found = vector_of(Account(**FLAT), close=23_500.0, instrument=INDEX)
    assert found == as_float32(0, 0, 0, math.log(1 + 3) / math.log(100_001), 0)


def test_affordable_lots_end_at_the_largest_quantity() -> None:
    assert vector_of(Account.flat(1e12), quantity_max=50.0)[3] == 1.0


def test_no_affordable_lot_is_zero() -> None:
    assert vector_of(Account.flat(30.0))[3] == 0.0


@pytest.mark.parametrize("fields", [FLAT, LONG, SHORT])
def test_without_a_range_distances_in_it_are_zero(fields: dict[str, Any]) -> None:
    with_range, without = vector_of(Account(**fields)), vector_of(Account(**fields), atr=0.0)
    assert without == [with_range[0], 0.0, with_range[2], with_range[3], 0.0]


@pytest.mark.parametrize("profit", [1e15, -1e15])
@pytest.mark.parametrize("capital", [1e-30, 0.0, -0.0, -250.0])
def test_against_a_capital_that_is_used_up_a_profit_is_as_large_as_can_be(
    capital: float, profit: float
) -> None:
    found = vector_of(Account(**{**LONG, "capital": capital, "unrealized_pnl": profit}))
    assert found[2] == math.copysign(float(np.finfo(np.float32).max), profit)
    assert found[3] == 0.0  # lots
    even = vector_of(Account(**{**LONG, "capital": capital, "unrealized_pnl": 0.0}))
    assert even[2] == 0.0


# what cannot be


@pytest.mark.parametrize("value", [sys.float_info.max, -sys.float_info.max, 1.1e15])
@pytest.mark.parametrize("name", ["capital", "position_quantity", "entry_price", "unrealized_pnl"])
def test_what_a_broker_gives_while_it_has_no_value_is_refused(name: str, value: float) -> None:
    with pytest.raises(
        BadAccount, match=rf"^account\.{name}: expected at most 1e\+15, found .*yet\?"
    ):
        Account(**{**LONG, name: value})


@pytest.mark.parametrize("entry", [100 / 49, 4_900.0, 30.0, 300.0])
@pytest.mark.parametrize("lots", [3.0, -3.0])
def test_a_position_of_long_ago_may_be_closed(entry: float, lots: float) -> None:
    profit = (100.0 - entry) * lots * STOCK.lot_size
    held = {**LONG, "entry_price": entry, "position_quantity": lots}
    for paid in (profit, 0.5 * profit - 5_000.0, -profit, 0.0):  # a premium, fees, whatever
        account = Account(**{**held, "unrealized_pnl": paid})
        require_plausible(account, 100.0, STOCK)


@pytest.mark.parametrize("entry", [100 / 51, 5_100.0, 1.0, 1e15])
def test_an_entry_at_the_price_of_something_else_is_refused(entry: float) -> None:
    account = Account(**{**LONG, "entry_price": entry})
    with pytest.raises(
        BadAccount, match=r"^account\.entry_price: expected one within 50 times the "
    ):
        require_plausible(account, 100.0, STOCK)


@pytest.mark.parametrize("profit", [1e5, -1e5, 1e12])
def test_a_profit_orders_of_magnitude_beyond_the_prices_is_refused(profit: float) -> None:
    account = Account(**{**LONG, "unrealized_pnl": profit})
    expected = "expected 24 or so of 3 lots of 4 entered at 98 and now at 100, found "
    with pytest.raises(BadAccount, match=rf"^account\.unrealized_pnl: {expected}"):
        require_plausible(account, 100.0, STOCK)


def test_a_lot_whose_size_nobody_declared_may_have_many_units() -> None:
    """100,000 of a currency, whose profit a host knows though the facts say 1."""
    facts = replace(STOCK, lot_size=1)
    held = {**LONG, "entry_price": 1.08, "position_quantity": 2.0}
    require_plausible(Account(**{**held, "unrealized_pnl": 0.01 * 200_000}), 1.09, facts)
    with pytest.raises(BadAccount, match="unrealized_pnl"):
        require_plausible(Account(**{**held, "unrealized_pnl": 1e8}), 1.09, facts)


def test_an_option_on_an_index_may_gain_what_options_gain() -> None:
    """Half a lot's points, or ten times them, and the premium when it expires."""
    held = {**LONG, "entry_price": 22_000.0}
    for profit in (0.5 * 50 * 3 * 75, 10 * 50 * 3 * 75, -0.02 * 22_000 * 3 * 75):
        require_plausible(Account(**{**held, "unrealized_pnl": profit}), 22_050.0, INDEX)


def test_without_a_position_there_is_nothing_to_contradict() -> None:
    require_plausible(Account(**FLAT), 1e-9, STOCK)
