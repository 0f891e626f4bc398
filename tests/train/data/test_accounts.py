"""Synthesised accounts against a plain walk over the bars, and by hand."""

from collections.abc import Callable

import numpy as np
import pytest
from synthetic import random_bars

from hrm_runtime.backtest.book import Book
from hrm_runtime.market.account import Account
from hrm_runtime.market.actions import Side
from hrm_runtime.market.bars import Bars, Floats
from hrm_runtime.market.instruments import Instrument, Trading
from hrm_train.data.accounts import accounts, positions, replay_trail
from hrm_train.data.prepared import trading_rules
from hrm_train.settings import Settings

BARS = random_bars(300, seed=5)
ATR = np.random.default_rng(5).uniform(0.1, 0.5, 300)
STOCK = Instrument(
    id=1, type="stock", lot_size=10, tick_size=0.05, premium_min=0.025, premium_max=0.05
)
POSITIONS = [Side.LONG, Side.SHORT]


def walk(entered: int, until: int, side: Side) -> tuple[float, float] | None:
    """Entry price and trail after `until`, bar by bar; None once a close reached the trail."""
    entry = float(BARS.open[entered + 1])
    distance = 1.5 * float(ATR[entered])
    trail = entry - distance if side is Side.LONG else entry + distance
    for bar in range(entered + 1, until + 1):
        close = float(BARS.close[bar])
        if (close <= trail) if side is Side.LONG else (close >= trail):
            return None
        trail = max(trail, close - distance) if side is Side.LONG else min(trail, close + distance)
    return entry, trail


def flat_then(last: float, count: int = 40) -> Bars:
    """A price of 100 that ends at `last`."""
    close = np.full(count, 100.0)
    close[-1] = last
    opening = np.full(count, 100.0)
    stamps = 31_536_000 + 300 * np.arange(count)
    return Bars(stamps, opening, np.maximum(opening, close), np.minimum(opening, close), close)


def synthesise(
    settings: Settings,
    bars: Bars,
    at: list[int],
    side: Side,
    atr: float | Floats = 2.0,
    seed: int = 0,
) -> list[Account | None]:
    return accounts(
        bars,
        np.broadcast_to(atr, len(bars)),
        np.array(at),
        side,
        STOCK,
        trading_rules(settings),
        settings,
        np.random.default_rng(seed),
    )


@pytest.mark.parametrize("side", POSITIONS)
def test_the_trail_is_that_of_a_walk_bar_by_bar(side: Side) -> None:
    rng = np.random.default_rng(1)
    entered = rng.integers(0, 250, 500)
    until = entered + rng.integers(1, 20, 500)
    walked = [walk(*pair, side) for pair in zip(entered.tolist(), until.tolist(), strict=True)]
    survived = np.array([result is not None for result in walked])

    entry, trail, alive = replay_trail(BARS, ATR, entered, until, side, 1.5)

    assert np.array_equal(alive, survived)
    assert 50 < alive.sum() < 450  # the bars show both
    assert np.array_equal(entry, BARS.open[entered + 1])
    expected = np.array([result for result in walked if result is not None])
    np.testing.assert_allclose(np.stack([entry, trail], 1)[alive], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("side", POSITIONS)
def test_the_trail_is_that_of_the_books_a_backtest_keeps(side: Side, settings: Settings) -> None:
    rng = np.random.default_rng(3)
    entered = rng.integers(0, 250, 300)
    until = entered + rng.integers(1, 20, 300)
    entry, trail, alive = replay_trail(BARS, ATR, entered, until, side, 1.5)
    for at, begun in enumerate(entered.tolist()):
        book = Book(1e6, STOCK, trading_rules(settings))
        book.open(side, 1, float(BARS.open[begun + 1]), float(ATR[begun]), 0)
        for bar in range(begun + 1, until[at] + 1):
            book.settle(float(BARS.close[bar]), bar)
        close = float(BARS.close[until[at]])
        account = book.account(close)
        assert account.is_position_open == alive[at]
        if alive[at]:
            assert account.entry_price == entry[at]
            distance = side * (close - trail[at]) / close
            assert account.distance_to_trail == pytest.approx(distance, abs=1e-12)


@pytest.mark.parametrize("side", POSITIONS)
def test_a_position_was_entered_within_reach_and_has_survived(side: Side) -> None:
    at = np.arange(50, 290)
    held = positions(BARS, ATR, at, side, 12, 1.5, np.random.default_rng(2))
    assert np.array_equal(at, np.arange(50, 290))  # the caller's array is left as it was
    assert ((at - held.entered >= 1) & (at - held.entered <= 12)).all()
    assert {1, 12} <= set((at - held.entered).tolist())
    walked = [walk(*pair, side) for pair in zip(held.entered.tolist(), at.tolist(), strict=True)]
    assert [result is not None for result in walked] == held.alive.tolist()
    assert 0.5 < held.alive.mean() < 1
    expected = np.array([result for result in walked if result is not None])
    found = np.stack([held.entry_price, held.trail], 1)[held.alive]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_an_entry_is_tried_again_only_where_it_was_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    at = np.arange(50, 290)
    retried = positions(BARS, ATR, at, Side.LONG, 12, 1.5, np.random.default_rng(2))
    monkeypatch.setattr("hrm_train.data.accounts.ATTEMPTS", 1)
    once = positions(BARS, ATR, at, Side.LONG, 12, 1.5, np.random.default_rng(2))
    assert once.alive.sum() < retried.alive.sum()
    for name, array in vars(once).items():
        assert np.array_equal(getattr(retried, name)[once.alive], array[once.alive]), name


# a close at the trail, exactly or beyond it, is a stop
@pytest.mark.parametrize(
    ("side", "last"),
    [(Side.LONG, 96.9), (Side.LONG, 97.0), (Side.SHORT, 103.1), (Side.SHORT, 103.0)],
)
def test_a_bar_where_every_entry_was_stopped_has_no_account(
    side: Side, last: float, settings: Settings
) -> None:
    assert synthesise(settings, flat_then(last), [39], side) == [None]
    assert synthesise(settings, flat_then(last), [38], side) != [None]


@pytest.mark.parametrize(
    ("side", "last", "distance"),
    [
        (Side.LONG, 102.0, 3 / 102),  # best 102, trail 99
        (Side.LONG, 98.0, 1 / 98),  # best 100, trail 97
        (Side.SHORT, 98.0, 3 / 98),  # best 98, trail 101
        (Side.SHORT, 102.0, 1 / 102),  # best 100, trail 103
    ],
)
def test_profit_and_distance_to_the_trail_by_hand(
    side: Side, last: float, distance: float, make_settings: Callable[..., Settings]
) -> None:
    capital = {"training.capital_min": 1e5, "training.capital_max": 1e5}
    (account,) = synthesise(make_settings(capital), flat_then(last), [39], side)
    assert account is not None
    assert account.capital == pytest.approx(1e5)
    assert account.position_quantity == side * 33  # floor of 1 % of 1e5 over 1.5 x 2 x 10
    assert account.entry_price == 100.0
    assert account.is_position_open
    assert account.unrealized_pnl == pytest.approx(side * (last - 100) * 33 * 10)
    assert account.distance_to_trail == pytest.approx(distance)


def test_a_position_was_sized_and_stopped_by_the_atr_at_its_entry(
    make_settings: Callable[..., Settings],
) -> None:
    capital = {"training.capital_min": 1e5, "training.capital_max": 1e5}
    atr = np.full(40, 2.0)
    atr[39] = 50.0  # of the bar the account is for
    (account,) = synthesise(make_settings(capital), flat_then(100.0), [39], Side.LONG, atr)
    assert account is not None
    assert account.position_quantity == 33
    assert account.distance_to_trail == pytest.approx(3 / 100)


def test_a_trail_beyond_the_price_itself_is_a_distance_of_one(settings: Settings) -> None:
    (account,) = synthesise(settings, flat_then(100.0), [39], Side.LONG, atr=90.0)
    assert account is not None
    assert account.distance_to_trail == 1.0


def test_flat_accounts_hold_nothing(settings: Settings) -> None:
    made = synthesise(settings, BARS, list(range(50, 150)), Side.FLAT)
    assert made == [Account.flat(account.capital) for account in made if account is not None]
    assert len({account.capital for account in made if account is not None}) == 100


def test_capitals_are_log_uniform_within_their_range(settings: Settings) -> None:
    made = synthesise(settings, BARS, [50] * 20_000, Side.FLAT)
    capitals = np.sort([account.capital for account in made if account is not None])
    assert capitals[0] >= 5e4
    assert capitals[-1] <= 1e7
    assert np.median(capitals) == pytest.approx((5e4 * 1e7) ** 0.5, rel=0.05)
    shares = np.log(capitals / 5e4) / np.log(1e7 / 5e4)
    np.testing.assert_allclose(shares, np.linspace(0, 1, 20_000), rtol=0, atol=0.02)


@pytest.mark.parametrize("side", Side)
def test_the_same_seed_makes_the_same_accounts_and_another_others(
    side: Side, settings: Settings
) -> None:
    made, again, other = (
        synthesise(settings, BARS, list(range(50, 90)), side, seed=seed) for seed in (0, 0, 1)
    )
    assert made == again
    assert made != other


def test_an_account_uses_the_rules_it_is_given(settings: Settings) -> None:
    rules = Trading(
        cost_fraction=0.0, brokerage_entry=0.0, brokerage_exit=0.0, stop_atr=3.0, target_atr=3.0
    )
    (account,) = accounts(
        flat_then(100.0), np.full(40, 2.0), np.array([39]), Side.LONG, STOCK, rules, settings,
        np.random.default_rng(0),
    )  # fmt: skip
    assert account is not None
    assert account.distance_to_trail == pytest.approx(6 / 100)
