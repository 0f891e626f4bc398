"""A scripted model on bars made by hand, and the frozen artifact held to what must be so."""

import math
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from live import unknown_allowed
from scripted import (
    BUY,
    CLOSE_LONG,
    LAST_QUIET,
    NEEDED,
    ON,
    SELL,
    Scripted,
    at,
    bars_of,
    walk,
)
from synthetic import random_bars

from hrm_runtime import (
    Account,
    Action,
    BadAccount,
    BadInput,
    Bars,
    Contract,
    Decision,
    Model,
    Reason,
    TooFewBars,
    UnknownInstrument,
    UnknownTimeframe,
)
from hrm_runtime.artifact.decision import hold
from hrm_runtime.backtest.book import Exit
from hrm_runtime.backtest.bootstrap import interval
from hrm_runtime.backtest.rules import HOST, OURS, Rules
from hrm_runtime.backtest.walk import Backtest, backtest, backtests, decision_bars
from hrm_runtime.errors import BadBars, NothingToDecide
from hrm_runtime.market.actions import LEGAL, Side
from hrm_runtime.market.features import Row, row
from hrm_runtime.market.stamps import EARLIEST_STAMP

LONG = 1100
"""Bars among which dice open and close positions dozens of times."""
OWN_PRICE = replace(OURS, exits_at="level")
FIXED = replace(OURS, trailing=False, target=True)


# by hand


def test_two_trades_by_hand(contract: Contract) -> None:
    model = Scripted(contract, {0: BUY, 2: CLOSE_LONG, 4: SELL})
    tail = [(102, 104), (105, 103), (106, 100), (99, 99), (98, 97), (97, 96)]
    bars = bars_of(*tail)
    found = walk(model, bars)

    cash_long = 10_000 - 0.001 * 102 * 50 - 25  # bought 5 lots at the open after the decision
    flat = cash_long + 4 * 50 - 0.001 * 106 * 50 - 35
    cash_short = flat - 0.001 * 98 * 100 - 25  # (10129.6 - 25) / 980 = 10.3 lots are affordable
    final = cash_short + 2 * 100 - 0.001 * 96 * 100 - 35
    assert found.equity == pytest.approx(
        [10_000, cash_long + 100, cash_long + 50, flat, flat, cash_short + 100, final], rel=1e-12
    )
    assert found.datetime.tolist() == [LAST_QUIET + 300 * n for n in range(7)]

    first, second = found.trades
    assert (first.side, first.lots, first.ended) == (Side.LONG, 5, Exit.ACTION)
    assert (first.entered, first.entry_price) == (LAST_QUIET + 300, 102.0)
    assert (first.exited, first.exit_price) == (LAST_QUIET + 900, 106.0)
    assert first.profit == pytest.approx(flat - 10_000)
    assert first.costs == pytest.approx(30.1 + 40.3)
    assert (second.side, second.lots, second.ended) == (Side.SHORT, 10, Exit.END)
    assert (second.entered, second.entry_price) == (LAST_QUIET + 1500, 98.0)
    assert (second.exited, second.exit_price) == (LAST_QUIET + 1800, 96.0)
    assert second.profit == pytest.approx(final - flat)

    assert found.final_return == pytest.approx(final / 10_000 - 1)
    assert found.max_drawdown == pytest.approx(1 - (cash_long + 50) / (cash_long + 100))
    assert found.won == 2
    assert found.costs == pytest.approx(first.costs + second.costs)
    assert found.decisions == {
        Action.BUY_LONG: 1,
        Action.SELL_SHORT: 1,
        Action.CLOSE_LONG: 1,
        Action.CLOSE_SHORT: 0,
        Action.HOLD: 3,
    }
    assert (found.degraded, found.unaffordable, found.used_up) == ({}, 0, None)
    assert (found.instrument, found.timeframe, found.model_id) == ("Alpha", "5", "scripted")


def test_the_account_is_that_of_the_close_decided_at(contract: Contract) -> None:
    model = Scripted(contract, {0: BUY, 3: CLOSE_LONG})
    walk(model, bars_of((102, 104), (105, 103), (103, 103), (104, 104), (104, 104)))
    cash = 10_000 - 0.001 * 102 * 50 - 25
    after = cash + 2 * 50 - 0.001 * 104 * 50 - 35
    expected = [
        Account.flat(10_000),
        Account(cash, 5, 102, 100, True, 3 / 104),  # the best close less 1.5 ATR of 2
        Account(cash, 5, 102, 50, True, 2 / 103),
        Account(cash, 5, 102, 50, True, 2 / 103),
        Account.flat(after),
    ]
    assert [stamp for stamp, _ in model.seen] == [LAST_QUIET + 300 * n for n in range(5)]
    for (_, account), wanted in zip(model.seen, expected, strict=True):
        assert vars(account) == pytest.approx(vars(wanted), rel=1e-12)


@pytest.mark.parametrize(
    ("rules", "price"), [(OURS, 99.5), (OWN_PRICE, 101.0)], ids=["close", "own price"]
)
def test_a_stop_is_filled_at_its_close_or_at_its_own_price(
    contract: Contract, rules: Rules, price: float
) -> None:
    model = Scripted(contract, {0: BUY})
    found = walk(model, bars_of((102, 104), (103, 99.5), (99, 99)), rules=rules)
    (trade,) = found.trades
    assert trade.exit_price == pytest.approx(price, rel=1e-12)
    assert (trade.exited, trade.ended) == (LAST_QUIET + 600, Exit.STOP)
    assert found.equity[2] == found.equity[3] == pytest.approx(10_000 + trade.profit)
    assert model.seen[2][1].side is Side.FLAT  # and may open again at once


def test_fixed_exits_have_a_target(contract: Contract) -> None:
    tail = [(102, 109), (109, 107), (107, 100)]
    (held,) = walk(Scripted(contract, {0: BUY}), bars_of(*tail)).trades
    (fixed,) = walk(Scripted(contract, {0: BUY}), bars_of(*tail), rules=FIXED).trades
    assert (fixed.exited, fixed.exit_price, fixed.ended) == (LAST_QUIET + 300, 109.0, Exit.TARGET)
    assert (held.exited, held.exit_price, held.ended) == (LAST_QUIET + 900, 100.0, Exit.STOP)


def test_the_stop_is_as_far_as_the_atr_of_the_deciding_bar_says(contract: Contract) -> None:
    bars = bars_of((100, 110), (110, 111), (111, 111), (111, 111))
    model = Scripted(contract, {1: BUY})
    walk(model, bars)
    atr = row(bars[: NEEDED + 1], 200).atr
    assert atr == pytest.approx((13 * 2 + 12) / 14)
    assert model.seen[2][1].distance_to_trail == pytest.approx(1.5 * atr / 111)


def test_the_host_fills_at_the_next_close_without_proportional_costs(contract: Contract) -> None:
    model = Scripted(contract, {0: BUY, 2: CLOSE_LONG})
    found = walk(model, bars_of((102, 104), (105, 103), (106, 105), (99, 99)), rules=HOST)
    atr = row(bars_of((102, 104)), 200).atr  # of the bar it is filled in, at 104
    assert atr != row(bars_of(), 200).atr
    held = Account(9975, 5, 104, 0, True, 1.5 * atr / 104)
    expected = [
        Account.flat(10_000),
        held,
        replace(held, unrealized_pnl=-50, distance_to_trail=(103 - 104 + 1.5 * atr) / 103),
        Account.flat(9975 + 50 - 35),
    ]
    for (_, account), wanted in zip(model.seen, expected, strict=True):
        assert vars(account) == pytest.approx(vars(wanted), rel=1e-12)
    assert found.equity == pytest.approx([10_000, 9975, 9925, 9990, 9990], rel=1e-12)
    assert found.buy_and_hold == pytest.approx(
        [10_000, 10_000, *(10_000 / 104 * p for p in (103, 105, 99))]
    )
    (trade,) = found.trades
    assert (trade.entered, trade.exited) == (LAST_QUIET + 300, LAST_QUIET + 900)
    assert (trade.costs, trade.profit, trade.ended) == (60.0, -10.0, Exit.ACTION)
    assert found.rules is HOST


def test_rules_are_taken_as_such_not_by_their_name(contract: Contract) -> None:
    with pytest.raises(BadInput, match=r"expected a Rules, found 'host'; .*, RULES\['host'\], "):
        walk(Scripted(contract), bars_of((102, 104), (105, 103)), rules="host")


def test_what_cannot_be_afforded_is_counted_and_skipped(contract: Contract) -> None:
    model = Scripted(contract, {0: BUY, 1: SELL, 2: BUY})
    found = walk(model, bars_of((102, 100), (101, 100), (97, 100), (100, 100)), capital=1000.0)
    assert found.unaffordable == 2
    assert [trade.entry_price for trade in found.trades] == [97.0]  # 25 + 970
    assert found.decisions[Action.BUY_LONG] == 2


def test_degraded_decisions_are_counted_by_reason(contract: Contract) -> None:
    script = {0: Reason.NON_FINITE, 2: Reason.NON_FINITE, 3: Reason.ERROR}
    found = walk(Scripted(contract, script), bars_of(*[(100, 100)] * 6))
    assert found.degraded == {Reason.NON_FINITE: 2, Reason.ERROR: 1}
    assert found.decisions[Action.HOLD] == 6


def test_capital_that_is_used_up_ends_the_trading(contract: Contract) -> None:
    model = Scripted(contract, {0: (Action.BUY_LONG, 1e9), 2: BUY})
    index = replace(
        model.contract.instruments["Alpha"], type="index", premium_min=0.01, premium_max=0.03
    )
    model.contract = replace(
        model.contract, instruments={**model.contract.instruments, "Alpha": index}
    )
    done: list[int] = []
    tail = [(100, 97.5), (100, 100), (100, 100), (100, 100)]
    found = walk(model, bars_of(*tail), on_progress=done.append)
    # 498 lots of 10 at 100: 498 + 25 to open, 485.55 + 35 to close, 2.5 lost on each unit
    left = 10_000 - 523 - 520.55 - 2.5 * 4980
    assert found.used_up == LAST_QUIET + 300
    assert found.equity == pytest.approx([10_000, left, left, left, left])
    assert [trade.ended for trade in found.trades] == [Exit.CAPITAL]
    assert sum(found.decisions.values()) == len(model.seen) == 1
    assert done == [1, 2, 3, 4]
    assert found.max_drawdown == pytest.approx(1 - left / 10_000)


def test_buying_and_holding_by_hand(contract: Contract) -> None:
    found = walk(Scripted(contract), bars_of((102, 104), (105, 103), (104, 108)))
    units = 10_000 / (102 * 1.001)
    expected = [10_000, units * 104, units * 103, units * 108 * 0.999]
    assert found.buy_and_hold == pytest.approx(expected, rel=1e-12)
    assert found.buy_and_hold_return == pytest.approx(expected[-1] / 10_000 - 1)


def test_intervals_are_of_changes_over_the_capital(contract: Contract) -> None:
    script = {n: BUY if n % 4 == 0 else CLOSE_LONG for n in range(0, 150, 2)}
    closes = random_bars(150, seed=2).close.tolist()
    found = walk(Scripted(contract, script), bars_of(*zip(closes, closes, strict=True)))
    changes, held = np.diff(found.equity), np.diff(found.buy_and_hold)
    assert found.block == 12
    assert found.return_interval == interval(changes, np.full(150, 10_000 / 150), 12)
    assert found.excess_interval == interval(changes - held, np.full(150, 10_000 / 150), 12)
    low, high = found.return_interval
    assert low < found.final_return < high


@pytest.mark.parametrize(("bars", "says"), [(1, False), (99, False), (100, True)])
def test_fewer_than_a_hundred_bars_say_nothing(contract: Contract, bars: int, says: bool) -> None:
    found = walk(Scripted(contract, {0: BUY}), bars_of(*[(100, 101)] * bars))
    for low, high in (found.return_interval, found.excess_interval):
        assert math.isfinite(low) == math.isfinite(high) == says
    assert found.block == 10


# what cannot be otherwise


def test_always_holding_is_doing_nothing(contract: Contract) -> None:
    found = walk(Scripted(contract), random_bars(400, seed=3))
    assert np.array_equal(found.equity, np.full(196, 10_000.0))
    assert np.array_equal(found.do_nothing, found.equity)
    assert (found.trades, found.won, found.costs) == ((), 0, 0.0)
    assert (found.final_return, found.max_drawdown) == (0.0, 0.0)
    assert found.return_interval == (0.0, 0.0)


class Dice(Scripted):
    """Does anything legal with equal chance, and holds a position for a while."""

    def decide_rows(self, window: list[Row], account: Account, **on: str) -> Decision:
        rng = np.random.default_rng(window[-1].datetime)
        legal = LEGAL[account.side]
        weights = [1.0] * (len(legal) - 1) + [20.0]
        action = legal[rng.choice(len(legal), p=np.array(weights) / sum(weights))]
        return replace(hold(Reason.OK, self.id), action=action, quantity=float(rng.integers(1, 9)))


@pytest.fixture(scope="module")
def bars() -> Bars:
    return random_bars(700, seed=36)


@pytest.fixture(scope="module", params=[OURS, FIXED], ids=["trailing", "fixed"])
def diced(request: pytest.FixtureRequest, contract: Contract) -> Backtest:
    bars = random_bars(LONG, seed=5)
    return walk(Dice(contract), bars, capital=20_000.0, rules=request.param)


def test_dice_trade_on_both_sides_and_are_stopped(diced: Backtest) -> None:
    assert {trade.side for trade in diced.trades} == {Side.LONG, Side.SHORT}
    assert {Exit.ACTION, Exit.STOP} <= {trade.ended for trade in diced.trades}


def test_the_equity_is_the_capital_and_what_the_trades_made(diced: Backtest) -> None:
    profits = math.fsum(trade.profit for trade in diced.trades)
    assert diced.equity[-1] == pytest.approx(20_000 + profits, rel=1e-12)
    moves = [
        10 * trade.lots * trade.side * (trade.exit_price - trade.entry_price) - trade.costs
        for trade in diced.trades
    ]
    assert [trade.profit for trade in diced.trades] == pytest.approx(moves)


def test_one_position_at_a_time_each_ending_once(diced: Backtest) -> None:
    assert len(diced.trades) > 30
    for one, after in pairwise(diced.trades):
        assert one.entered <= one.exited <= after.entered
    openings = diced.decisions[Action.BUY_LONG] + diced.decisions[Action.SELL_SHORT]
    assert openings == len(diced.trades) + diced.unaffordable
    closings = diced.decisions[Action.CLOSE_LONG] + diced.decisions[Action.CLOSE_SHORT]
    assert closings == sum(trade.ended is Exit.ACTION for trade in diced.trades)
    assert sum(diced.decisions.values()) == len(diced.equity) - 1 == LONG - NEEDED


def test_each_decision_is_that_of_the_bars_until_then(
    model: Model, bars: Bars, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[int, Account, Decision]] = []

    def remember(window: list[Row], account: Account, **on: str) -> Decision:
        made.append((window[-1].datetime, account, decide(window, account, **on)))
        return made[-1][2]

    decide = model.decide_rows
    monkeypatch.setattr(model, "decide_rows", remember)
    backtest(model, bars, **ON)
    assert (
        len(made) == np.count_nonzero(bars.datetime >= model.contract.provenance.trained_until) - 1
    )
    for stamp, account, decision in made:
        until = int(np.searchsorted(bars.datetime, stamp)) + 1
        assert model.decide(bars[:until], account, **ON) == decision


def test_what_comes_later_changes_nothing_before(model: Model, bars: Bars) -> None:
    bars, changed = bars[:500], 200 + NEEDED - 1  # from this bar on
    names = ("open", "high", "low", "close")
    other = Bars(
        bars.datetime,
        *(
            np.where(np.arange(500) < changed, getattr(bars, name), 1.3 * getattr(bars, name))
            for name in names
        ),
    )
    first, second = (backtest(model, each, **ON, since=0) for each in (bars, other))
    assert np.array_equal(first.equity[:200], second.equity[:200])
    assert not np.array_equal(first.equity[200:], second.equity[200:])
    ended = [trade for trade in first.trades if trade.exited < bars.datetime[changed]]
    assert list(second.trades[: len(ended)]) == ended


def test_two_walks_are_equal(model: Model, bars: Bars) -> None:
    first, second = (backtest(model, bars[:400], **ON, since=0) for _ in range(2))
    assert first.trades == second.trades
    assert np.array_equal(first.equity, second.equity)
    assert first.return_interval == second.return_interval


def test_fills_at_their_own_price_flatter(contract: Contract) -> None:
    bars = random_bars(LONG, seed=5)
    ours, hosts = (
        walk(Dice(contract), bars, capital=1e6, rules=rules) for rules in (OURS, OWN_PRICE)
    )
    better = [
        theirs.side * (theirs.exit_price - trade.exit_price)
        for trade, theirs in zip(ours.trades, hosts.trades, strict=True)
        if trade.ended is Exit.STOP
    ]
    assert len(better) > 20
    assert min(better) >= 0
    assert hosts.final_return > ours.final_return


# from when on


@pytest.mark.parametrize(
    ("since", "first"),
    [
        (None, 250),  # trained until the stamp of bar 250
        (at(250), 250),
        (at(250) + 1, 251),
        (at(298), 298),
        (at(249), 249),
        (at(100), 204),  # the first with its history
        (0, 204),
    ],
)
def test_the_first_decision_is_made_where_training_ended_or_from_a_given_moment(
    contract: Contract, since: int | None, first: int
) -> None:
    model = Scripted(contract, trained_until=at(250))
    bars = bars_of(lead=300)
    found = walk(model, bars, since=since)
    assert [stamp for stamp, _ in model.seen] == [at(n) for n in range(first, 299)]
    assert found.datetime.tolist() == [at(n) for n in range(first, 300)]
    assert found.since == (at(250) if since is None else since)
    assert found.in_sample == (first < 250)
    assert decision_bars(model.contract, bars, **ON, since=since) == range(first, 299)


def test_bars_after_training_are_out_of_sample_whatever_since_is(contract: Contract) -> None:
    model = Scripted(contract, trained_until=at(204))
    assert not walk(model, bars_of(lead=300), since=0).in_sample


@pytest.mark.parametrize("count", [0, 1, 205])
def test_too_few_bars_are_refused(contract: Contract, count: int) -> None:
    with pytest.raises(
        TooFewBars, match=rf"Alpha_5: expected at least 206 bars, .* found {count}$"
    ):
        walk(Scripted(contract), bars_of(lead=300)[:count])


@pytest.mark.parametrize("since", [at(299), at(299) - 1, 1_700_000_000])
def test_no_bars_from_then_on_are_refused_with_dates(contract: Contract, since: int) -> None:
    day = "1971-01-02 00:55" if since < 10**9 else "2023-11-14 22:13"
    message = (
        rf"Alpha_5: expected at least two bars from {day} UTC on, found the last of 300 at "
        r"1971-01-02 00:55 UTC; the weights were trained on what was known before "
        r"1971-01-01 20:50 UTC: give later bars, or an earlier `since`"
    )
    with pytest.raises(NothingToDecide, match=message.replace("00:55 UTC on", r"00:5\d UTC on")):
        walk(Scripted(contract, trained_until=at(250)), bars_of(lead=300), since=since)


def test_bars_that_end_with_the_training_are_refused(contract: Contract) -> None:
    model = Scripted(contract, trained_until=at(300))
    with pytest.raises(
        NothingToDecide, match="two bars from 1971-01-02 01:00 UTC on, found the last"
    ):
        walk(model, bars_of(lead=300))


@pytest.mark.parametrize("since", [-1, 10**11])
def test_since_is_a_moment(contract: Contract, since: int) -> None:
    with pytest.raises(BadInput, match=f"since: expected epoch seconds, found {since}"):
        walk(Scripted(contract), bars_of(lead=300), since=since)


def test_names_the_artifact_does_not_know_are_refused_before_any_work(model: Model) -> None:
    bars = bars_of(lead=300)
    with pytest.raises(UnknownInstrument, match="found 'Gamma'"):
        backtest(model, bars, instrument="Gamma", timeframe="5")
    with pytest.raises(UnknownTimeframe, match="found '7'"):
        backtest(model, bars, instrument="Alpha", timeframe="7")


@pytest.mark.parametrize("capital", [0.0, -1.0, math.nan])
def test_a_capital_is_above_zero(contract: Contract, capital: float) -> None:
    with pytest.raises(BadAccount, match="capital"):
        walk(Scripted(contract), bars_of(lead=300), capital=capital)


def still(count: int = 300, seconds: int = 300) -> Bars:
    return Bars(EARLIEST_STAMP + seconds * np.arange(count), *np.full((4, count), 100.0))


@pytest.mark.parametrize(
    ("timeframe", "told"),
    [("15", "expected bars of 900 s, found "), ("1m", "expected bars of 60 s, the closest of ")],
)
def test_bars_of_another_timeframe_are_refused(model: Model, timeframe: str, told: str) -> None:
    with pytest.raises(BadBars, match=f"^Alpha_{timeframe}: bars: {told}.* 300 s .*another timefr"):
        backtest(unknown_allowed(model), random_bars(300), instrument="Alpha", timeframe=timeframe)


def test_every_spelling_of_a_timeframe_is_walked_alike(model: Model) -> None:
    bars = random_bars(300)
    one, other = (backtest(model, bars, instrument="Alpha", timeframe=t) for t in ("5", "5min"))
    assert other.equity.tolist() == one.equity.tolist()
    assert (other.timeframe, other.unknown) == ("5min", ())


def test_a_backtest_for_an_unknown_name_says_so(model: Model) -> None:
    found = backtest(unknown_allowed(model), random_bars(300), instrument="ALPHA", timeframe="5")
    assert found.unknown == ("instrument",)


def test_bars_that_never_move_are_refused(contract: Contract) -> None:
    with pytest.raises(NothingToDecide, match=r"^Alpha_5: expected a price that moves, found 100"):
        walk(Scripted(contract), still())
    moved = still()
    moved = Bars(
        moved.datetime, moved.open, moved.high + (moved.datetime == at(1)), *2 * [moved.low]
    )
    walk(Scripted(contract), moved)  # in the history of the first decision
    with pytest.raises(NothingToDecide, match="expected a price that moves"):
        walk(Scripted(contract), moved, since=at(206))


# several series

TRAINED_UNTIL = at(220)


@pytest.fixture
def late(model: Model, monkeypatch: pytest.MonkeyPatch) -> Model:
    """The frozen artifact, as if trained until some bars before the end."""
    provenance = replace(model.contract.provenance, trained_until=TRAINED_UNTIL)
    contract = replace(model.contract, provenance=provenance)
    return Model(contract, model.id, model._session)


UNSUITABLE: dict[tuple[str, str], tuple[Bars, type[Exception], str]] = {
    ("Alpha", "15"): (
        bars_of(lead=205),
        TooFewBars,
        "expected at least 206 bars, 205 behind one decision and one to execute it at, found 205",
    ),
    ("Beta", "15"): (
        still(seconds=900),
        NothingToDecide,
        "expected a price that moves, found 100 always",
    ),
    ("Beta", "5"): (
        bars_of(lead=220),
        NothingToDecide,
        (
            "expected at least two bars from 1971-01-01 18:20 UTC on, found the last of 220 at "
            "1971-01-01 18:15 UTC; the weights were trained on what was known before 1971-01-01 "
            "18:20 UTC: give later bars, or an earlier `since` to look at what they have seen"
        ),
    ),
    ("Gamma", "5"): (
        bars_of(lead=300),
        UnknownInstrument,
        "instrument: expected one of Alpha, Beta; found 'Gamma', which this artifact does not know",
    ),
    ("Alpha", "W"): (
        bars_of(lead=300),
        UnknownTimeframe,
        "timeframe: expected one of 15, 5; found 'W', which this artifact does not know",
    ),
}


def test_of_several_series_those_without_anything_to_decide_on_are_skipped_and_named(
    late: Model,
) -> None:
    good = {("Alpha", "5"): bars_of(lead=240), ("Beta", "5"): bars_of((100, 101), lead=230)}
    bad = {name: bars for name, (bars, _, _) in UNSUITABLE.items() if name not in good}
    seen: list[tuple[int, int]] = []
    found = backtests(late, {**bad, **good}, capital=5e5, on_progress=lambda *at: seen.append(at))
    assert [(one.instrument, one.timeframe) for one in found.done] == [*good]
    for one, (name, bars) in zip(found.done, good.items(), strict=True):
        alone = backtest(late, bars, instrument=name[0], timeframe=name[1], capital=5e5)
        assert (one.trades, one.decisions) == (alone.trades, alone.decisions)
        assert np.array_equal(one.equity, alone.equity)
    assert {(s.instrument, s.timeframe): s.reason for s in found.skipped} == {
        name: UNSUITABLE[name][2] for name in bad
    }
    assert seen == [(number, 19 + 10) for number in range(1, 30)]


@pytest.mark.parametrize("name", UNSUITABLE, ids="_".join)
def test_the_only_series_is_an_error_where_there_is_nothing_to_decide_on(
    name: tuple[str, str], late: Model
) -> None:
    bars, error, reason = UNSUITABLE[name]
    with pytest.raises(error, match=re.escape(reason)):
        backtests(late, {name: bars})


def test_no_series_left_is_an_error_that_names_them_all(late: Model) -> None:
    reasons = [f"{'_'.join(name)}: {reason}" for name, (*_, reason) in UNSUITABLE.items()]
    message = (
        "expected at least one series that something can be done with, found none: "
        + "; ".join(reasons)
    )
    with pytest.raises(NothingToDecide, match=f"^{re.escape(message)}$"):
        backtests(late, {name: bars for name, (bars, *_) in UNSUITABLE.items()})


def test_what_is_wrong_with_the_call_is_not_skipped(late: Model) -> None:
    series = {("Alpha", "5"): bars_of(lead=240), ("Gamma", "5"): bars_of(lead=240)}
    with pytest.raises(BadAccount, match="capital"):
        backtests(late, series, capital=0.0)
    with pytest.raises(BadInput, match="since: expected epoch seconds"):
        backtests(late, series, since=-1)
