from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from hrm_runtime import BadBars, TradingHours
from hrm_runtime.market.spacing import require_spacing

MINUTE, HOUR, DAY, WEEK = 60, 3600, 86_400, 604_800
NEW_YORK: Final = TradingHours(["09:30-16:00"], "America/New_York")


def local(*moments: str) -> np.ndarray:
    zone = ZoneInfo("America/New_York")
    return np.array([int(datetime.fromisoformat(m).replace(tzinfo=zone).timestamp())
                     for m in moments])  # fmt: skip


def every(seconds: int, count: int = 40) -> np.ndarray:
    return 1_700_000_000 + seconds * np.arange(count)


def days(*clock: str) -> np.ndarray:
    """Stamps of each of ten weekdays of 2024, across the change of clocks on 10 March."""
    dates = ["04", "05", "06", "07", "08", "11", "12", "13", "14", "15"]
    return local(*(f"2024-03-{day} {time}" for day in dates for time in clock))


HALF_FIRST = days("09:30", "10:00", "11:00", "12:00", "13:00", "14:00", "15:00")
HALF_LAST = days("09:30", "10:30", "11:30", "12:30", "13:30", "14:30", "15:30")


# offline


@pytest.mark.parametrize(
    ("stamps", "seconds"),
    [
        (every(300), 300),
        (HALF_FIRST, HOUR),
        (HALF_LAST, HOUR),
        (days("09:30", "12:00"), 4 * HOUR),
        (days("09:30", "13:30"), 4 * HOUR),
        (days("00:00"), DAY),
        (local("2024-03-09", "2024-03-10", "2024-03-11", "2024-03-12"), DAY),
        (local(*(f"2024-{month}" for month in ("02-26", "03-04", "03-11", "03-18"))), WEEK),
        (local("2024-01-08", "2024-01-16", "2024-01-22", "2024-01-29"), WEEK),
    ],
    ids=["whole", "short first", "short last", "cut at noon", "two a day", "days", "a short day",
         "a short week", "a week from its Tuesday"],
)  # fmt: skip
def test_bars_of_the_timeframe_are_taken(stamps: np.ndarray, seconds: int) -> None:
    require_spacing(stamps, seconds)


def test_of_bars_with_holes_some_two_must_follow_on_each_other() -> None:
    sparse = every(3 * 300, 30)
    with pytest.raises(BadBars, match=r"expected bars of 300 s, the closest of 30 are 900 s apart"):
        require_spacing(sparse, 300)
    require_spacing(np.append(sparse, sparse[-1] + 300), 300)


def test_a_few_bars_may_be_of_different_days() -> None:
    require_spacing(every(DAY, 9), 300)
    with pytest.raises(BadBars, match=r"the closest of 10 are 86400 s apart: another timeframe$"):
        require_spacing(every(DAY, 10), 300)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_where_there_are_no_two_steps_nothing_is_refused(count: int) -> None:
    require_spacing(every(MINUTE, count), HOUR)


@pytest.mark.parametrize(
    ("given", "seconds"),
    [(300, HOUR), (1800, HOUR), (3599, HOUR), (HOUR, DAY), (DAY, WEEK), (MINUTE, 300)],
)
def test_bars_of_a_shorter_timeframe_are_refused_with_both_lengths(
    given: int, seconds: int
) -> None:
    expected = rf"^bars: expected bars of {seconds} s, found .* within that of .*, {given} s after "
    with pytest.raises(BadBars, match=expected + "it: another timeframe$"):
        require_spacing(every(given), seconds)


@pytest.mark.parametrize(("given", "seconds"), [(HOUR, 300), (DAY, HOUR), (WEEK, DAY), (376, 300)])
def test_bars_of_a_longer_timeframe_are_refused_with_both_lengths(given: int, seconds: int) -> None:
    expected = rf"^bars: expected bars of {seconds} s, the closest of 40 are {given} s apart"
    with pytest.raises(BadBars, match=expected):
        require_spacing(every(given), seconds)


def test_bars_that_are_a_little_apart_are_taken() -> None:
    require_spacing(every(375), 300)


def test_a_shorter_timeframe_that_begins_later_is_found() -> None:
    stamps = np.append(every(HOUR), every(HOUR)[-1] + 300 * np.arange(1, 4))
    with pytest.raises(BadBars, match=r"another timeframe"):
        require_spacing(stamps, HOUR)


# by hours


def test_hours_say_when_a_bar_is_closed() -> None:
    require_spacing(HALF_LAST, HOUR, NEW_YORK)
    with pytest.raises(BadBars, match=r"expected bars of 3600 s, found .* 1800 s after it"):
        require_spacing(HALF_FIRST, HOUR, NEW_YORK)


def test_a_bar_within_another_is_refused_though_it_is_one() -> None:
    stamps = np.append(every(300), every(300)[-1] + 60)
    require_spacing(stamps, 300)
    with pytest.raises(BadBars, match=r"expected bars of 300 s, found .* 60 s after it"):
        require_spacing(stamps, 300, TradingHours())


def test_days_follow_on_each_other_by_hours() -> None:
    require_spacing(days("09:30"), DAY, NEW_YORK)
    require_spacing(days("09:30"), 390 * MINUTE, NEW_YORK)  # one bar is the whole session
    with pytest.raises(BadBars, match=r"the closest of 10 are 86400 s apart"):
        require_spacing(days("09:30"), HOUR, NEW_YORK)


def test_weeks_have_no_grid_and_are_held_to_the_rule_without_hours() -> None:
    for hours in (NEW_YORK, TradingHours()):
        require_spacing(local("2024-02-26", "2024-03-04", "2024-03-11", "2024-03-18"), WEEK, hours)
        with pytest.raises(BadBars, match=r"86400 s after it: another timeframe"):
            require_spacing(every(DAY), WEEK, hours)


# where hours do not say when a bar is closed

CLOCK: Final = TradingHours(
    ["09:30-16:00"], "America/New_York", weekdays=[0, 1, 2, 3], grid="clock"
)  # the Fridays of `days` are sessions that it does not know


@pytest.mark.parametrize("hours", [TradingHours(), CLOCK], ids=["around the clock", "a day"])
def test_the_first_bar_of_a_session_that_hours_do_not_know_may_be_short(
    hours: TradingHours,
) -> None:
    for start in range(14):  # wherever the bars begin, and whichever is new
        require_spacing(HALF_FIRST[start:], HOUR, hours)
    for end in range(2, len(HALF_FIRST) + 1):
        require_spacing(HALF_FIRST[:end], HOUR, hours, 1)


def test_a_day_after_an_evening_that_hours_do_not_know_is_taken() -> None:
    openings = local("2024-03-06 09:30", "2024-03-07 09:30", "2024-03-07 18:15", "2024-03-08 09:30")
    with pytest.raises(BadBars, match=r"54900 s after it: another timeframe, or a session that"):
        require_spacing(openings, DAY, NEW_YORK)  # a second bar of that Thursday
    holiday = TradingHours(["09:30-16:00"], "America/New_York", holidays=["2024-03-07"])
    require_spacing(openings[[0, 2, 3]], DAY, holiday)


@pytest.mark.parametrize("new", [None, 1])
@pytest.mark.parametrize(
    "clock",
    [("10:00", "11:00", "11:30"), ("09:30", "10:00", "10:30")],
    ids=["after a whole one", "after a short one"],
)
def test_bars_within_one_that_hours_do_not_know_are_refused(
    clock: tuple[str, ...], new: int | None
) -> None:
    friday = local(*(f"2024-03-08 {moment}" for moment in clock))
    told = r"within that of 2024-03-08 .*, 1800 s after it: another timeframe"
    with pytest.raises(BadBars, match=told + ", or a session that hours do not know$"):
        require_spacing(friday, HOUR, CLOCK, new)
    with pytest.raises(BadBars, match=told + "$"):
        require_spacing(friday, HOUR, TradingHours(), new)


@pytest.mark.parametrize("hours", [None, NEW_YORK, TradingHours()], ids=repr)
def test_of_steps_that_come_one_by_one_a_second_short_one_is_found(
    hours: TradingHours | None,
) -> None:
    weeks = every(WEEK, 10)
    finer = np.append(weeks, weeks[-1] + 2 * DAY * np.arange(1, 3))
    require_spacing(finer[:-1], WEEK, hours, 1)
    with pytest.raises(BadBars, match=r"172800 s after it: another timeframe$"):
        require_spacing(finer, WEEK, hours, 1)
