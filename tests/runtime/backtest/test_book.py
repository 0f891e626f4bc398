"""Fills, stops and costs by hand: 10 units a lot, 0.1 % and 25 + 35 an execution, 1.5 and 3 ATR."""

from dataclasses import replace
from typing import Any

import pytest

from hrm_runtime import Account
from hrm_runtime.artifact.decision import Reason, hold
from hrm_runtime.backtest.book import Book, Exit, Trade
from hrm_runtime.backtest.rules import HOST, HOST_NO_TARGET, HOST_OWN_PRICE, OURS, RULES, Rules
from hrm_runtime.errors import BadInput
from hrm_runtime.market.actions import LEGAL, Action, Side
from hrm_runtime.market.instruments import Instrument, Trading

STOCK = Instrument(
    id=1, type="stock", lot_size=10, tick_size=0.05, premium_min=0.025, premium_max=0.05
)
INDEX = replace(STOCK, type="index", premium_min=0.01, premium_max=0.03)
TRADING = Trading(
    cost_fraction=0.001, brokerage_entry=25.0, brokerage_exit=35.0, stop_atr=1.5, target_atr=3.0
)
OWN_PRICE = replace(OURS, exits_at="level")
FIXED = replace(OURS, trailing=False, target=True)
FIXED_OWN_PRICE = replace(FIXED, exits_at="level")
ENTRY_COST = 0.001 * 100 * 50 + 25  # of five lots at 100


def opened(side: Side = Side.LONG, lots: float = 5.0, atr: float = 2.0, **how: Any) -> Book:
    """Opened at 100 from a capital of 10,000; the stop is three away, a target six."""
    book = Book(10_000.0, how.pop("instrument", STOCK), how.pop("trading", TRADING), **how)
    assert book.open(side, lots, 100.0, atr, stamp=300)
    return book


def walked(book: Book, *closes: float) -> Book:
    """After these closes, at the stamps 300, 600 and so on."""
    for number, close in enumerate(closes, start=1):
        book.settle(close, 300 * number)
    return book


def ended(book: Book) -> tuple[int, float, Exit]:
    (trade,) = book.trades
    return trade.exited, trade.exit_price, trade.ended


# accounts


def test_a_flat_book_is_its_cash() -> None:
    book = Book(10_000.0, STOCK, TRADING)
    assert book.account(100.0) == Account.flat(10_000.0)
    assert (book.equity(100.0), book.used_up, book.trades) == (10_000.0, False, [])


def test_a_long_position_is_kept_as_the_host_keeps_it() -> None:
    book = walked(opened(Side.LONG), 101.0)
    assert ENTRY_COST == 30.0
    assert book.account(101.0) == Account(9970.0, 5.0, 100.0, 50.0, True, 3.0 / 101.0)
    assert book.equity(101.0) == 9970.0 + 50.0


def test_a_short_position_is_kept_as_the_host_keeps_it() -> None:
    book = walked(opened(Side.SHORT), 101.0)
    assert book.account(101.0) == Account(9970.0, -5.0, 100.0, -50.0, True, 2.0 / 101.0)
    assert book.equity(101.0) == 9970.0 - 50.0


def test_a_distance_beyond_the_price_is_clipped() -> None:
    assert opened(atr=1000.0).account(100.0).distance_to_trail == 1.0
    assert opened(atr=1.0).account(30.0).distance_to_trail == -1.0  # not settled at 30


# opening


@pytest.mark.parametrize(
    ("capital", "instrument", "wanted", "lots"),
    [
        (10_000.0, STOCK, 5.0, 5),
        (10_000.0, STOCK, 9.99, 9),
        (10_000.0, STOCK, 100.0, 9),  # (10000 - 25) / 1000 = 9.98
        (10_025.0, STOCK, 100.0, 10),
        (10_000.0, INDEX, 1000.0, 498),  # 100 * 0.02 * 10 = 20 a lot: 498.75
    ],
)
def test_lots_are_those_wanted_as_far_as_the_cash_affords_them(
    capital: float, instrument: Instrument, wanted: float, lots: int
) -> None:
    book = Book(capital, instrument, TRADING)
    assert book.open(Side.LONG, wanted, 100.0, 2.0, 300)
    assert book.account(100.0).position_quantity == lots
    assert book.cash == pytest.approx(capital - 25 - 0.001 * 100 * 10 * lots, rel=1e-15)


@pytest.mark.parametrize(("capital", "wanted"), [(1024.99, 5.0), (10.0, 5.0), (10_000.0, 0.9)])
def test_less_than_a_lot_is_not_opened(capital: float, wanted: float) -> None:
    book = Book(capital, STOCK, TRADING)
    assert not book.open(Side.SHORT, wanted, 100.0, 2.0, 300)
    assert book.account(100.0) == Account.flat(capital)


# closing


@pytest.mark.parametrize(("side", "gain"), [(Side.LONG, 200.0), (Side.SHORT, -200.0)])
def test_a_trade_pays_both_executions(side: Side, gain: float) -> None:
    book = opened(side)
    book.close(104.0, 900, Exit.ACTION)
    costs = 30.0 + 0.001 * 104 * 50 + 35
    assert costs == pytest.approx(70.2)
    assert book.trades == [
        Trade(
            side=side,
            lots=5,
            entered=300,
            entry_price=100.0,
            exited=900,
            exit_price=104.0,
            costs=pytest.approx(costs),
            profit=pytest.approx(gain - costs),
            ended=Exit.ACTION,
        )
    ]
    assert book.cash == pytest.approx(10_000 + gain - costs)
    assert book.account(50.0) == Account.flat(book.cash)


def test_there_is_nothing_to_close_when_flat() -> None:
    book = Book(10_000.0, STOCK, TRADING)
    book.close(100.0, 300, Exit.END)
    book.settle(1.0, 300)
    assert (book.cash, book.trades) == (10_000.0, [])


# decisions


DECIDED = replace(hold(Reason.OK, "by hand"), quantity=5.0)


@pytest.mark.parametrize(
    ("action", "side"), [(Action.BUY_LONG, Side.LONG), (Action.SELL_SHORT, Side.SHORT)]
)
def test_an_opening_is_executed_with_its_lots(action: Action, side: Side) -> None:
    book = Book(10_000.0, STOCK, TRADING)
    assert book.execute(replace(DECIDED, action=action), 100.0, 2.0, 300)
    assert book.account(101.0) == opened(side).account(101.0)


def test_an_opening_that_the_cash_does_not_pay_for_is_not() -> None:
    book = Book(1_000.0, STOCK, TRADING)
    assert not book.execute(replace(DECIDED, action=Action.BUY_LONG), 100.0, 2.0, 300)
    assert book.account(100.0) == Account.flat(1_000.0)


def test_a_close_is_executed_and_a_hold_does_nothing() -> None:
    book = opened(Side.LONG)
    assert book.execute(DECIDED, 101.0, 2.0, 600)
    assert (book.trades, book.account(100.0)) == ([], opened(Side.LONG).account(100.0))
    assert book.execute(replace(DECIDED, action=Action.CLOSE_LONG), 104.0, 2.0, 900)
    assert ended(book) == (900, 104.0, Exit.ACTION)


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
@pytest.mark.parametrize("side", Side)
def test_an_action_that_is_not_legal_on_the_side_held_does_nothing(
    side: Side, rules: Rules
) -> None:
    for action in set(Action) - set(LEGAL[side]):
        book = Book(10_000.0, STOCK, TRADING, rules)
        if side is not Side.FLAT:
            assert book.open(side, 5.0, 100.0, 2.0, 300)
        before = book.account(101.0)
        assert book.execute(replace(DECIDED, action=action), 101.0, 2.0, 600)
        assert (book.account(101.0), book.trades) == (before, [])


def test_a_position_is_not_opened_in_the_place_of_another() -> None:
    book = opened(Side.LONG)
    with pytest.raises(BadInput, match="expected no open position to open one, found one; close"):
        book.open(Side.SHORT, 1.0, 101.0, 2.0, 600)
    assert book.account(101.0) == opened(Side.LONG).account(101.0)


# the stop that trails


@pytest.mark.parametrize(
    ("side", "closes", "stop"),
    [
        (Side.LONG, [97.1], 97.0),
        (Side.LONG, [102.0], 99.0),
        (Side.LONG, [102.0, 100.0], 99.0),  # never back
        (Side.LONG, [102.0, 100.0, 101.0, 104.0], 101.0),
        (Side.SHORT, [102.9], 103.0),
        (Side.SHORT, [98.0], 101.0),
        (Side.SHORT, [98.0, 100.0], 101.0),
        (Side.SHORT, [98.0, 100.0, 99.0, 96.0], 99.0),
    ],
)
def test_the_stop_keeps_its_distance_behind_the_best_close(
    side: Side, closes: list[float], stop: float
) -> None:
    book = walked(opened(side), *closes)
    assert book.trades == []
    distance = side * (closes[-1] - stop) / closes[-1]
    assert book.account(closes[-1]).distance_to_trail == pytest.approx(distance, rel=1e-12)


@pytest.mark.parametrize(
    ("side", "closes", "stop"),
    [
        (Side.LONG, [97.0], 97.0),  # reached exactly
        (Side.LONG, [92.0], 97.0),
        (Side.LONG, [103.0, 98.0], 100.0),
        (Side.SHORT, [103.0], 103.0),
        (Side.SHORT, [110.0], 103.0),
        (Side.SHORT, [95.0, 100.5], 98.0),
    ],
)
def test_a_close_that_reaches_the_stop_fills_it_there_or_at_its_own_price(
    side: Side, closes: list[float], stop: float
) -> None:
    at = 300 * len(closes)
    assert ended(walked(opened(side), *closes)) == (at, closes[-1], Exit.STOP)
    assert ended(walked(opened(side, rules=OWN_PRICE), *closes)) == (at, stop, Exit.STOP)


def test_while_it_trails_no_target_is_checked() -> None:
    book = walked(opened(Side.LONG), 106.0, 130.0)
    assert book.trades == []
    assert ended(walked(book, 127.0)) == (300, 127.0, Exit.STOP)


# the stop that does not


@pytest.mark.parametrize(
    ("side", "better", "target"), [(Side.LONG, 105.9, 106.0), (Side.SHORT, 94.1, 94.0)]
)
def test_a_fixed_stop_stays_and_has_a_target(side: Side, better: float, target: float) -> None:
    book = walked(opened(side, rules=FIXED), better)
    stop = 100 - 3 * side
    found = book.account(better).distance_to_trail
    assert found == pytest.approx(side * (better - stop) / better, rel=1e-12)
    assert ended(walked(book, target)) == (300, target, Exit.TARGET)
    stopped = walked(opened(side, rules=FIXED), better, stop)
    assert ended(stopped) == (600, stop, Exit.STOP)


@pytest.mark.parametrize(("side", "close"), [(Side.LONG, 109.0), (Side.SHORT, 91.0)])
def test_a_target_is_filled_at_the_close_or_at_its_own_price(side: Side, close: float) -> None:
    assert ended(walked(opened(side, rules=FIXED), close)) == (300, close, Exit.TARGET)
    hosted = opened(side, rules=FIXED_OWN_PRICE)
    assert ended(walked(hosted, close)) == (300, 100 + 6 * side, Exit.TARGET)


# the end of the capital


def leveraged(**how: Any) -> Book:
    """400 lots of an index at 100 on a capital of 10,000: 4,000 units, the stop far away."""
    return opened(Side.LONG, lots=400.0, atr=50.0, instrument=INDEX, **how)


def test_a_position_that_has_used_up_the_capital_is_closed() -> None:
    book = leveraged()
    assert book.cash == 10_000 - 0.001 * 100 * 4000 - 25
    assert walked(book, 97.7).trades == []
    assert book.equity(97.7) == pytest.approx(375.0)
    assert ended(walked(book, 97.6)) == (300, 97.6, Exit.CAPITAL)
    assert book.cash == pytest.approx(9575 - 9600 - 0.001 * 97.6 * 4000 - 35)
    assert book.used_up


def test_a_stop_comes_before_the_end_of_the_capital() -> None:
    book = walked(opened(Side.LONG, 400.0, atr=2.0, instrument=INDEX), 90.0)
    assert ended(book) == (300, 90.0, Exit.STOP)
    assert book.used_up


def test_costs_alone_can_use_up_the_cash() -> None:
    dear = replace(TRADING, cost_fraction=0.03)
    book = opened(Side.LONG, 400.0, atr=50.0, instrument=INDEX, trading=dear)
    assert book.cash == pytest.approx(10_000 - 12_025)
    assert ended(walked(book, 101.0)) == (300, 101.0, Exit.CAPITAL)


# the host's rules


def test_the_host_takes_brokerage_alone() -> None:
    book = opened(rules=HOST)
    assert book.cash == 10_000 - 25
    book.close(104.0, 900, Exit.ACTION)
    (trade,) = book.trades
    assert (trade.costs, trade.profit, book.cash) == (60.0, 140.0, 10_140.0)


@pytest.mark.parametrize(
    ("rules", "wanted", "lots"),
    [(OURS, 50.0, 50), (HOST, 49.9, 49), (HOST, 50.0, 498), (HOST, 1000.0, 498)],
)
def test_the_host_takes_fifty_lots_for_as_many_as_it_affords(
    rules: Rules, wanted: float, lots: int
) -> None:
    book = opened(Side.LONG, wanted, instrument=INDEX, rules=rules)
    assert book.account(100.0).position_quantity == lots


def test_a_close_that_the_cash_caps_is_of_a_part() -> None:
    book = Book(10_025.0, STOCK, TRADING, HOST)
    close = replace(DECIDED, action=Action.CLOSE_LONG, quantity=10.0)
    assert book.open(Side.LONG, 60.0, 100.0, 2.0, 300)
    assert book.execute(close, 104.0, 2.0, 600)  # (10000 - 25) / 1040 = 9.6
    assert book.account(104.0) == Account(10_325.0, 1.0, 100.0, 40.0, True, 7.0 / 104)
    assert book.execute(close, 104.0, 2.0, 900)
    assert book.account(104.0) == Account.flat(10_330.0)
    parts = [(trade.lots, trade.exited, trade.costs, trade.profit) for trade in book.trades]
    assert parts == [(9, 600, 22.5 + 35, 302.5), (1, 900, 2.5 + 35, 2.5)]


def test_a_close_that_the_cash_does_not_pay_for_is_not_done() -> None:
    book = Book(1_025.0, STOCK, TRADING, HOST)
    assert book.open(Side.SHORT, 1.0, 100.0, 2.0, 300)
    before = book.account(99.0)
    assert not book.execute(replace(DECIDED, action=Action.CLOSE_SHORT), 99.0, 2.0, 600)
    assert (book.account(99.0), book.trades) == (before, [])
    assert book.settle(103.0, 900)  # a stop is not capped
    assert ended(book) == (900, 103.0, Exit.STOP)


@pytest.mark.parametrize("side", [Side.LONG, Side.SHORT], ids=["long", "short"])
@pytest.mark.parametrize(
    ("rules", "moves", "at", "why"),
    [
        (HOST, [9], 9, Exit.TARGET),
        (HOST_OWN_PRICE, [9], 6, Exit.TARGET),
        (HOST_NO_TARGET, [9, 6], 6, Exit.STOP),
        (HOST, [5, 1], 1, Exit.STOP),
        (HOST_OWN_PRICE, [5, 1], 2, Exit.STOP),  # the trail
        (HOST_OWN_PRICE, [5, -4], -3, Exit.STOP),  # the stop is looked at before the trail
    ],
)
def test_the_first_of_stop_target_and_trail_ends_a_position(
    side: Side, rules: Rules, moves: list[int], at: int, why: Exit
) -> None:
    book = walked(opened(side, rules=rules), *(100.0 + side * move for move in moves))
    assert ended(book) == (300 * len(moves), 100.0 + side * at, why)


def test_where_nothing_moves_the_trail_of_the_host_is_reached_at_once() -> None:
    assert ended(walked(opened(atr=0.0, rules=HOST_NO_TARGET), 101.0)) == (300, 101.0, Exit.STOP)
    assert walked(opened(atr=0.0, rules=OURS), 101.0).trades == []


def test_the_host_keeps_a_position_that_has_used_up_the_capital() -> None:
    book = walked(leveraged(rules=replace(HOST, all_in=500.0)), 90.0)
    assert (book.trades, book.used_up) == ([], False)
    assert book.equity(90.0) == 10_000 - 25 - 40_000


# a bar further


def test_ours_fills_at_the_open_and_then_holds_the_close_to_the_levels() -> None:
    book = Book(10_000.0, STOCK, TRADING)
    assert book.advance(replace(DECIDED, action=Action.BUY_LONG), 100.0, 97.0, 2.0, 300)
    assert ended(book) == (300, 97.0, Exit.STOP)
    book = opened()
    assert book.advance(replace(DECIDED, action=Action.CLOSE_LONG), 101.0, 90.0, 2.0, 600)
    assert ended(book) == (600, 101.0, Exit.ACTION)


def test_the_host_fills_at_the_close_unless_a_level_was_reached_there() -> None:
    book = Book(10_000.0, STOCK, TRADING, HOST)
    assert book.advance(replace(DECIDED, action=Action.BUY_LONG), 90.0, 100.0, 2.0, 300)
    assert book.account(100.0) == Account(9975.0, 5.0, 100.0, 0.0, True, 0.03)
    close = replace(DECIDED, action=Action.CLOSE_LONG)
    assert book.advance(close, 90.0, 97.0, 2.0, 600)
    assert ended(book) == (600, 97.0, Exit.STOP)
    book = opened(rules=HOST)
    assert book.advance(close, 90.0, 97.5, 2.0, 600)
    assert ended(book) == (600, 97.5, Exit.ACTION)


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_an_opening_that_is_not_done_is_told_whatever_the_rules(rules: Rules) -> None:
    book = Book(1_000.0, STOCK, TRADING, rules)
    buy = replace(DECIDED, action=Action.BUY_LONG)
    assert not book.advance(buy, 100.0, 100.0, 2.0, 300)
    assert book.account(100.0) == Account.flat(1_000.0)
