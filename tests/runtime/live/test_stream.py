import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live import bar_at
from synthetic import random_bars

from hrm_runtime import BadBars, Bar, Bars, Contract, Reason, Untrusted
from hrm_runtime.live.stream import Stream
from hrm_runtime.market.bars import REQUIRED
from hrm_runtime.market.features import Row, rows
from hrm_runtime.market.hours import TradingHours

HISTORY, WINDOW, NEEDED = 200, 6, 205
BARS = random_bars(260, seed=41)
LAST = int(BARS.datetime[-1])
NOW = LAST + 300.0
NO_BARS = Bars([], [], [], [], [])
INDIA = ZoneInfo("Asia/Kolkata")
HOUR = 3600


def stream_of(
    contract: Contract,
    bars: Bars = NO_BARS,
    *,
    seconds: int = 300,
    hours: TradingHours | None = None,
    skew: float = 0.0,
) -> Stream:
    """A stream that was fed `bars`."""
    stream = Stream(seconds, hours or TradingHours(), contract, skew)
    stream.feed(bars, math.inf)
    return stream


def bits(made: Row) -> tuple[Any, ...]:
    """All of a row, every number spelt out to its last bit."""
    return made.datetime, made.close, made.atr, made.values.tobytes(), made.history_bars


def picked(numbers: list[int]) -> Bars:
    """Some of `BARS`."""
    return Bars(*(getattr(BARS, name)[numbers] for name in REQUIRED))


def assert_equal(found: Bars | None, expected: Bars) -> None:
    assert found is not None
    for name in REQUIRED:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), strict=True)


def assert_holds(stream: Stream, bars: Bars) -> None:
    """The newest of `bars`, and their rows bit for bit."""
    newest = bars[max(0, len(bars) - NEEDED) :]
    assert_equal(stream.bars, newest)
    expected = rows(newest, HISTORY) if len(newest) >= HISTORY else []
    assert list(map(bits, stream.rows)) == list(map(bits, expected))


@contextmanager
def refusal(stream: Stream, reason: Reason, message: str) -> Iterator[None]:
    """Expects to be refused, and that nothing is changed by that."""
    bars, made = stream.bars, stream.rows
    with pytest.raises(Untrusted, match=message) as caught:
        yield
    assert caught.value.reason is reason
    assert stream.bars is bars
    assert stream.rows is made


@pytest.fixture(scope="module")
def other_window(contract: Contract) -> Contract:
    """As the frozen contract, with a window of one row."""
    return replace(contract, features=replace(contract.features, window=1))


# what it holds


def test_the_contract_is_the_one_that_these_tests_count_with(contract: Contract) -> None:
    features = contract.features
    assert (features.history_bars, features.window) == (HISTORY, WINDOW)
    assert contract.bars_needed == NEEDED


def test_a_new_stream_is_empty(contract: Contract) -> None:
    stream = stream_of(contract)
    assert (stream.bars, stream.rows, stream.ready, stream.seconds) == (None, (), False, 300)


@pytest.mark.parametrize(
    ("count", "made"), [(1, 0), (199, 0), (200, 1), (201, 2), (204, 5), (205, 6), (206, 6)]
)
def test_rows_come_with_their_history_until_the_window_is_full(
    contract: Contract, count: int, made: int
) -> None:
    stream = stream_of(contract, BARS[:count])
    assert_holds(stream, BARS[:count])
    assert (len(stream.rows), stream.ready) == (made, made == WINDOW)


def test_bars_that_are_taken_one_by_one_are_those_of_a_feed(contract: Contract) -> None:
    stream = stream_of(contract, BARS[:195])
    for number in range(195, 260):
        stream.take(bar_at(BARS, number), NOW)
        assert_holds(stream, BARS[: number + 1])


@pytest.mark.parametrize("size", [1, 3, 64, 205, 260])
def test_history_may_come_in_pieces_of_any_size(contract: Contract, size: int) -> None:
    stream = stream_of(contract)
    for start in range(0, 260, size):
        stream.feed(BARS[start : start + size], NOW)
    assert_holds(stream, BARS)


def test_history_may_come_newest_first(contract: Contract) -> None:
    stream = stream_of(contract)
    for start in range(240, -1, -20):
        stream.feed(BARS[start : start + 20], NOW)
        assert_holds(stream, BARS[start:])


def test_older_bars_complete_the_window(contract: Contract) -> None:
    stream = stream_of(contract, BARS[7:206])
    for start in range(6, -1, -1):
        stream.feed(BARS[start : start + 2], NOW)
        assert_holds(stream, BARS[start:206])


@pytest.mark.parametrize("end", [253, 254, 256, 259])
def test_a_feed_may_overlap_what_is_there_and_go_on(contract: Contract, end: int) -> None:
    stream = stream_of(contract, BARS[:253])
    stream.feed(BARS[end - 3 : end], NOW)
    assert_holds(stream, picked([*range(253), *range(max(253, end - 3), end)]))


def test_one_feed_may_fill_a_hole_and_go_on(contract: Contract) -> None:
    stream = stream_of(contract, picked([*range(250), 251]))
    stream.feed(picked([250, 252]), NOW)
    stream.require_window()
    assert_holds(stream, BARS[:253])


def test_a_window_of_one_row_needs_its_history_alone(other_window: Contract) -> None:
    stream = stream_of(other_window, BARS[:199])
    assert not stream.ready
    stream.take(bar_at(BARS, 199), NOW)
    stream.require_window()
    assert list(map(bits, stream.rows)) == list(map(bits, rows(BARS[:200], HISTORY)))
    assert_equal(stream.bars, BARS[:200])


def test_no_more_bars_are_kept_than_are_needed(contract: Contract) -> None:
    stream = stream_of(contract, BARS)
    assert_equal(stream.bars, BARS[-NEEDED:])
    stream.feed(BARS[:30], NOW)  # older than all of them
    assert_holds(stream, BARS)


def test_feeding_no_bars_changes_nothing(contract: Contract) -> None:
    stream = stream_of(contract, BARS)
    before = stream.bars
    stream.feed(NO_BARS, -math.inf)
    assert stream.bars is before


def test_what_was_read_before_is_not_changed_by_a_bar(contract: Contract) -> None:
    stream = stream_of(contract, BARS[:-1])
    bars, made = stream.bars, stream.rows
    before = list(map(bits, made))
    stream.take(bar_at(BARS, -1), NOW)
    assert_equal(bars, BARS[-NEEDED - 1 : -1])
    assert list(map(bits, made)) == before
    assert stream.rows[:-1] == made[1:]  # the very same: rows are computed once


def test_volume_is_not_kept(contract: Contract) -> None:
    stream = stream_of(contract)
    stream.take(bar_at(BARS, 0)._replace(volume=5.0), NOW)
    stream.feed(Bars(**bar_columns(1), volume=[7.0]), NOW)
    assert_equal(stream.bars, BARS[:2])
    assert stream.bars is not None
    assert stream.bars.volume is None


def bar_columns(number: int) -> dict[str, list[float]]:
    return {name: [getattr(bar_at(BARS, number), name)] for name in REQUIRED}


# any order


@st.composite
def pieces(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Runs of the first 215 bars that hold each of them, in any order, some more than once."""
    cuts = draw(st.sets(st.integers(1, 214), max_size=7))
    singles = range(215 - draw(st.integers(0, 8)), 215)
    whole = list(pairwise(sorted({0, 215, *cuts, *singles})))
    starts = st.integers(0, 210)
    again = draw(st.lists(st.tuples(starts, st.integers(1, 5)), max_size=4))
    return draw(st.permutations([*whole, *((start, start + size) for start, size in again)]))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(order=pieces())
def test_any_order_of_the_same_bars_ends_in_the_same_rows(
    contract: Contract, order: list[tuple[int, int]]
) -> None:
    stream, known = stream_of(contract), set[int]()
    for start, end in order:
        if end == start + 1 and start >= max(known, default=0):
            stream.take(bar_at(BARS, start), NOW)
        else:
            stream.feed(BARS[start:end], NOW)
        known |= set(range(start, end))
        numbers = sorted(known)
        assert_holds(stream, picked(numbers))
        if len(numbers) < NEEDED:
            with refusal(stream, Reason.WARMING_UP, f"found {len(numbers)};"):
                stream.require_window()
        elif numbers[-2] != numbers[-1] - 1:
            with refusal(stream, Reason.GAP, "expected the one that follows"):
                stream.require_window()
        else:
            stream.require_window()
    assert_holds(stream, BARS[:215])


# repetition and contradiction


@pytest.mark.parametrize(
    "again",
    [
        lambda bar: bar,
        lambda bar: bar._asdict(),
        lambda bar: bar._replace(volume=7.0),
        lambda bar: {name: np.float64(value) for name, value in bar._asdict().items() if value},
    ],
    ids=["bar", "mapping", "other volume", "numpy"],
)
@pytest.mark.parametrize("now", [NOW, 0.0], ids=["now", "clock set back"])
def test_a_bar_equal_to_the_newest_changes_nothing(
    contract: Contract, again: Any, now: float
) -> None:
    stream = stream_of(contract, BARS)
    before, made = stream.bars, stream.rows
    stream.take(again(bar_at(BARS, -1)), now)
    assert stream.bars is before
    assert stream.rows is made


@pytest.mark.parametrize(
    "change", [{"open": 0.001}, {"high": 0.5}, {"low": -0.5}, {"close": -0.001}], ids=str
)
def test_a_bar_that_contradicts_the_newest_is_refused(
    contract: Contract, change: dict[str, float]
) -> None:
    stream = stream_of(contract, BARS)
    known = bar_at(BARS, -1)
    ((name, step),) = change.items()
    other = known._replace(**{name: getattr(known, name) + step})
    other = other._replace(
        low=min(other.open, other.low, other.close), high=max(other.open, other.high, other.close)
    )
    with refusal(
        stream,
        Reason.BAD_INPUT,
        r"^bar: expected what was given for 2023-11-22 05:15 UTC before, "
        rf"\({known.open}, .*, {known.close}\), found \({other.open}, .*, {other.close}\); "
        "correct puts a bar in the place of another, reset in the place of all$",
    ):
        stream.take(other, NOW)


def test_a_feed_of_bars_that_are_there_changes_no_bar(contract: Contract) -> None:
    stream = stream_of(contract, BARS)
    stream.feed(BARS[100:], NOW)
    assert_holds(stream, BARS)


@pytest.mark.parametrize("number", [-1, -NEEDED], ids=["newest", "oldest"])
def test_a_feed_that_contradicts_a_bar_is_refused_as_a_whole(
    contract: Contract, number: int
) -> None:
    stream = stream_of(contract, BARS)
    before, made = stream.bars, stream.rows
    known = bar_at(BARS, number)
    other = Bars.of_one(known._replace(high=known.high + 1.0))
    with pytest.raises(
        BadBars,
        match=r"^bars: expected what was given for .* before, .*; correct puts a bar in the",
    ):
        stream.feed(other, NOW)
    assert stream.bars is before
    assert stream.rows is made


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "bar: expected a Bar or a mapping, found NoneType"),
        (BARS, "bar: expected a Bar or a mapping, found Bars"),
        ({"datetime": LAST + 300, "open": 1.0, "high": 1.0, "low": 1.0}, "missing close"),
        (Bar(LAST + 300, 1.0, 1.0, 1.0, math.nan), "expected finite prices"),
        (Bar(1000 * LAST, 1.0, 1.0, 1.0, 1.0), "whole epoch seconds"),
        (Bar(LAST + 300, 1.0, 0.9, 0.8, 0.9), "low <= open, close <= high"),
    ],
    ids=["none", "bars", "missing", "nan", "milliseconds", "impossible"],
)
def test_what_is_not_a_bar_is_refused(contract: Contract, given: Any, message: str) -> None:
    stream = stream_of(contract, BARS)
    before = stream.bars
    with pytest.raises(BadBars, match=message):
        stream.take(given, NOW + 300)
    assert stream.bars is before


# the wrong time


@pytest.mark.parametrize("number", [-2, -100, 0])
def test_an_earlier_bar_is_out_of_order(contract: Contract, number: int) -> None:
    stream = stream_of(contract, BARS)
    with refusal(
        stream,
        Reason.OUT_OF_ORDER,
        r"^bar: expected one after 2023-11-22 05:15 UTC, found 2023-11-2.* UTC; to fill a hole, "
        "feed what was missed; to replace a bar, correct it$",
    ):
        stream.take(bar_at(BARS, number), NOW)


@pytest.mark.parametrize("skew", [0.0, 2.5])
def test_a_bar_is_taken_once_it_is_closed_by_a_clock_that_may_be_behind(
    contract: Contract, skew: float
) -> None:
    stream = stream_of(contract, BARS[:-1], skew=skew)
    with refusal(
        stream,
        Reason.FUTURE,
        r"^bar: expected one closed by 2023-11-22 05:19 UTC, found that of 2023-11-22 05:15 UTC, "
        "which closes at 2023-11-22 05:20 UTC; pass closed bars, and look at the clock$",
    ):
        stream.take(bar_at(BARS, -1), NOW - skew - 0.5)
    stream.take(bar_at(BARS, -1), NOW - skew)
    assert_holds(stream, BARS)


@pytest.mark.parametrize(("seconds", "early"), [(1, 0.5), (4, 2.0), (300, 2.0)])
def test_a_clock_may_be_behind_by_half_a_bar_at_most(
    contract: Contract, seconds: int, early: float
) -> None:
    bar = Bar(seconds * 10**8, 1.0, 1.0, 1.0, 1.0)
    closing = bar.datetime + seconds
    stream = stream_of(contract, seconds=seconds, skew=2.0)
    with pytest.raises(Untrusted, match="expected one closed by"):
        stream.take(bar, closing - early - 0.01)
    stream.take(bar, closing - early)


@pytest.mark.parametrize("skew", [0.0, 2.5])
def test_history_that_is_not_closed_is_refused_as_a_whole(contract: Contract, skew: float) -> None:
    stream = stream_of(contract, BARS[:210], skew=skew)
    with refusal(stream, Reason.FUTURE, "found that of 2023-11-22 05:15 UTC, which closes at"):
        stream.feed(BARS, NOW - skew - 0.5)
    stream.feed(BARS, NOW - skew)
    assert_holds(stream, BARS)


@pytest.mark.parametrize("seconds", [60, 150, 299])
def test_a_bar_within_the_newest_is_of_another_timeframe(contract: Contract, seconds: int) -> None:
    stream = stream_of(contract, BARS)
    finer = bar_at(BARS, -1)._replace(datetime=LAST + seconds)
    told = (
        r"^bars: expected bars of 300 s, found 2023-11-22 05:1\d UTC within that of 2023-11-22 "
        rf"05:15 UTC, {seconds} s after it: another timeframe$"
    )
    with pytest.raises(BadBars, match=told):
        stream.take(finer, NOW + 300)
    with pytest.raises(BadBars, match=told):
        stream.feed(Bars.of_one(finer), NOW + 300)
    assert_holds(stream, BARS)


def test_daily_bars_may_be_less_than_a_day_apart(contract: Contract) -> None:
    zone = ZoneInfo("America/New_York")  # where clocks went forward on 10 March 2024
    days = [int(datetime(2024, 3, day, 9, 30, tzinfo=zone).timestamp()) for day in (9, 10)]
    assert days[1] - days[0] == 82_800
    hours = TradingHours(["09:30-16:00"], "America/New_York", weekdays=range(7))
    stream = Stream(86_400, hours, contract, 0.0)
    prices = [100.0] * 2
    stream.feed(Bars(days, prices, prices, prices, prices), NOW + 1e8)
    assert stream.bars is not None
    assert stream.bars.datetime.tolist() == days


def test_history_of_a_shorter_timeframe_is_refused(contract: Contract) -> None:
    minutes = random_bars(700, seed=4, seconds=60)
    with pytest.raises(BadBars, match=r"expected bars of 300 s, found .* another timeframe$"):
        stream_of(contract).feed(minutes, NOW)


def at_stamps(*stamps: np.ndarray) -> Bars:
    """Bars at these moments, of which the prices are no matter."""
    together = np.concatenate(stamps)
    prices = np.full(len(together), 100.0)
    return Bars(together, prices, prices, prices, prices)


def test_only_bars_that_are_kept_are_held_to_the_timeframe(contract: Contract) -> None:
    hours = LAST + HOUR * np.arange(1, 301)
    fives = LAST - 300 * np.arange(260)[::-1]
    minutes = fives[0] - 60 * np.arange(1, 11)[::-1]
    with pytest.raises(BadBars, match="the closest of 205 are 3600 s apart"):
        stream_of(contract, at_stamps(fives, hours))
    stream = stream_of(contract, at_stamps(minutes, fives))
    assert_equal(stream.bars, at_stamps(fives[-NEEDED:]))


# holes


@pytest.mark.parametrize("missing", [[259 - 1], [255, 256, 257, 258]], ids=["one", "several"])
def test_a_decision_after_a_hole_waits_for_the_next_bar(
    contract: Contract, missing: list[int]
) -> None:
    stream = stream_of(contract, BARS[: missing[0]])
    stream.take(bar_at(BARS, -1), NOW)
    known = [number for number in range(260) if number not in missing]
    assert_holds(stream, picked(known))
    with refusal(
        stream,
        Reason.GAP,
        r"^bars: expected the one that follows 2023-11-22 0.* UTC, found 2023-11-22 05:15 UTC; "
        "the next one decides again, or feed what was missed$",
    ):
        stream.require_window()
    stream.take(Bar(LAST + 300, 100.0, 101.0, 99.0, 100.5), NOW + 300)
    stream.require_window()


@pytest.mark.parametrize("piece", [slice(250, 259), slice(250, 260), slice(255, 259)], ids=str)
def test_a_hole_that_is_filled_was_never_there(contract: Contract, piece: slice) -> None:
    stream = stream_of(contract, BARS[:255])
    stream.take(bar_at(BARS, -1), NOW)
    with refusal(stream, Reason.GAP, "expected the one that follows"):
        stream.require_window()
    stream.feed(BARS[piece], NOW)
    stream.require_window()
    assert_holds(stream, BARS)


def test_history_of_a_longer_timeframe_is_refused(contract: Contract) -> None:
    told = "expected bars of 60 s, the closest of 205 are 300 s apart: another timeframe$"
    with pytest.raises(BadBars, match=told):
        stream_of(contract, BARS, seconds=60)


@pytest.mark.parametrize("count", [1, 150, 204])
def test_a_stream_warms_up(contract: Contract, count: int) -> None:
    stream = stream_of(contract, BARS[:count])
    with refusal(
        stream,
        Reason.WARMING_UP,
        f"^expected 205 bars for a decision, found {count}; feed history to start at once$",
    ):
        stream.require_window()
    stream.feed(BARS[count:205], NOW)
    stream.require_window()


# trading hours

SESSIONS = ["09:15-15:30"]
HOLIDAYS = TradingHours(
    SESSIONS, "Asia/Kolkata", holidays=["2024-11-15"], special={"2024-11-01": ["18:00-19:00"]}
)


def at(text: str) -> int:
    """Epoch seconds of a local time."""
    return int(datetime.fromisoformat(text).replace(tzinfo=INDIA).timestamp())


def hourly(until: str, count: int = 230) -> Bars:
    """The `count` bars of `HOLIDAYS` before and at `until`."""
    stamps = [
        stamp
        for stamp in range(at("2024-09-02 09:15"), at(until) + 1, 900)
        if HOLIDAYS.closing(stamp, HOUR) is not None
    ]
    walk = random_bars(count, seed=43)
    return Bars(stamps[-count:], walk.open, walk.high, walk.low, walk.close)


def next_bar(bars: Bars, moment: str) -> Bar:
    """A bar at `moment` like the last of `bars`."""
    return bars.newest()._replace(datetime=at(moment))


@pytest.mark.parametrize(
    ("last", "following"),
    [
        ("2024-11-13 14:15", "2024-11-13 15:15"),
        ("2024-11-13 15:15", "2024-11-14 09:15"),
        ("2024-11-08 15:15", "2024-11-11 09:15"),
        ("2024-11-14 15:15", "2024-11-18 09:15"),
        ("2024-10-31 15:15", "2024-11-01 17:15"),
        ("2024-11-01 18:15", "2024-11-04 09:15"),
    ],
    ids=["day", "night", "weekend", "holiday", "to special", "from special"],
)
def test_a_break_that_hours_know_is_no_hole(contract: Contract, last: str, following: str) -> None:
    bars = hourly(last)
    stream = stream_of(contract, bars, seconds=HOUR, hours=HOLIDAYS)
    stream.take(next_bar(bars, following), at(following) + HOUR)
    stream.require_window()
    assert stream.rows[-1].datetime == at(following)


def test_a_holiday_that_hours_do_not_know_is_a_hole(contract: Contract) -> None:
    bars = hourly("2024-11-14 15:15")
    hours = TradingHours(SESSIONS, "Asia/Kolkata")
    stream = stream_of(contract, bars, seconds=HOUR, hours=hours)
    stream.take(next_bar(bars, "2024-11-18 09:15"), at("2024-11-18 10:15"))
    with refusal(
        stream,
        Reason.GAP,
        r"the one that follows 2024-11-14 09:45 UTC, found 2024-11-18 03:45 UTC; the next",
    ):
        stream.require_window()


@pytest.mark.parametrize(
    ("stamp", "closing"),
    [
        ("2024-11-14 15:15", "2024-11-14 15:30"),
        ("2024-11-14 14:15", "2024-11-14 15:15"),
        ("2024-11-01 18:15", "2024-11-01 19:00"),
    ],
)
def test_the_last_bar_of_a_session_is_closed_with_it(
    contract: Contract, stamp: str, closing: str
) -> None:
    bars = hourly(stamp)
    stream = stream_of(contract, bars[:-1], seconds=HOUR, hours=HOLIDAYS)
    with refusal(stream, Reason.FUTURE, "which closes at"):
        stream.take(bars.newest(), at(closing) - 1)
    stream.take(bars.newest(), at(closing))
    assert stream.age(at(closing) + 12.5) == 12.5


def test_the_age_is_counted_from_the_close(contract: Contract) -> None:
    stream = stream_of(contract, BARS)
    assert (stream.age(NOW), stream.age(NOW + 7.5), stream.age(NOW - 1)) == (0.0, 7.5, -1.0)


@pytest.mark.parametrize(
    "moment",
    ["2024-11-14 09:20", "2024-11-14 16:15", "2024-11-15 09:15", "2024-11-16 09:15"],
    ids=["off the grid", "evening", "holiday", "Saturday"],
)
@pytest.mark.parametrize("before", [True, False], ids=["later", "first"])
@pytest.mark.parametrize("days", [0, 15], ids=["as it opens", "long after"])
def test_a_bar_outside_trading_hours_is_refused(
    contract: Contract, moment: str, before: bool, days: int
) -> None:
    bars = hourly("2024-11-13 15:15")
    stream = stream_of(contract, bars if before else NO_BARS, seconds=HOUR, hours=HOLIDAYS)
    with refusal(
        stream,
        Reason.BAD_INPUT,
        r"^bar: expected the opening of a bar of 3600 s within trading hours, found 2024-11-1. "
        r"..:.. UTC: another timeframe, or a session that hours do not know$",
    ):
        stream.take(next_bar(bars, moment), at(moment) + 86_400 * days)


def test_history_outside_trading_hours_is_closed_by_its_timeframe(contract: Contract) -> None:
    bars = hourly("2024-11-13 15:15")
    stream = stream_of(contract, bars, seconds=HOUR, hours=HOLIDAYS)
    evening = Bars.of_one(next_bar(bars, "2024-11-13 18:00"))
    with refusal(stream, Reason.FUTURE, "found that of 2024-11-13 12:30 UTC, which closes at 2024"):
        stream.feed(evening, at("2024-11-13 18:59"))
    stream.feed(evening, at("2024-11-13 19:00"))
    assert stream.age(at("2024-11-13 19:00")) == 0.0
    stream.take(next_bar(bars, "2024-11-14 09:15"), at("2024-11-14 10:15"))
    stream.require_window()
