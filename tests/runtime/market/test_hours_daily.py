"""Which day a daily bar is of, when it is closed, and which one follows."""

from datetime import date, datetime, time, timedelta
from itertools import pairwise, product
from zoneinfo import ZoneInfo

import pytest
from markets import AMERICA, FUTURES, HOUR, NSE, at

from hrm_runtime.market.hours import DAY, TradingHours


@pytest.mark.parametrize("moment", ["00:00", "05:30", "09:15"], ids=["midnight", "UTC", "opening"])
def test_a_day_s_bar_is_closed_when_its_last_session_ends(moment: str) -> None:
    assert NSE.closing(at(f"2024-11-13 {moment}"), DAY) == at("2024-11-13 15:30")
    assert NSE.closing(at(f"2024-11-01 {moment}"), DAY) == at("2024-11-01 19:00")
    assert NSE.closing(at(f"2024-03-02 {moment}"), DAY) == at("2024-03-02 12:30")
    assert NSE.closing(at(f"2024-11-16 {moment}"), DAY) is None


NEW_YORK = TradingHours(
    ["09:30-16:00"],
    AMERICA,
    holidays=["2024-11-28"],
    special={"2024-11-29": ["09:30-13:00"]},
)
SAO_PAULO = TradingHours(["10:00-17:00"], "America/Sao_Paulo")
CURRENCIES = TradingHours(["17:00-17:00"], AMERICA, weekdays=[6, 0, 1, 2, 3])
COIN = TradingHours(["00:00-00:00"], "America/Sao_Paulo", weekdays=range(7))
KIWI = TradingHours(["10:00-12:00"], "Pacific/Auckland")
"""Where 00:00 UTC is 13:00, after the close."""
LATE = TradingHours(["04:00-20:00"], AMERICA)
"""Where a date's 00:00 UTC comes before the session of the day before ends, in winter."""


def stamps_of(hours: TradingHours, day: str, opening: str) -> list[int]:
    """A date's daily bar in every way to stamp it; it opens at `opening`, local time."""
    zone = hours.time_zone
    midnight = datetime.combine(date.fromisoformat(day), time(), ZoneInfo(zone))
    return [at(day, "UTC"), int(midnight.timestamp()), at(opening, zone)]


@pytest.mark.parametrize(
    ("hours", "day", "opening", "closing"),
    [
        (NEW_YORK, "2024-11-15", "2024-11-15 09:30", "2024-11-15 16:00"),
        (NEW_YORK, "2024-11-29", "2024-11-29 09:30", "2024-11-29 13:00"),  # half a day
        (NEW_YORK, "2024-03-08", "2024-03-08 09:30", "2024-03-08 16:00"),
        (NEW_YORK, "2024-03-11", "2024-03-11 09:30", "2024-03-11 16:00"),  # clocks changed
        (NEW_YORK, "2024-11-04", "2024-11-04 09:30", "2024-11-04 16:00"),
        (SAO_PAULO, "2017-10-13", "2017-10-13 10:00", "2017-10-13 17:00"),
        (SAO_PAULO, "2017-10-16", "2017-10-16 10:00", "2017-10-16 17:00"),
        (COIN, "2017-10-15", "2017-10-15 00:00", "2017-10-16 00:00"),  # it begins at 01:00
        (COIN, "2017-10-16", "2017-10-16 00:00", "2017-10-17 00:00"),
        (FUTURES, "2024-11-11", "2024-11-10 18:00", "2024-11-11 17:00"),  # a Monday
        (FUTURES, "2024-11-15", "2024-11-14 18:00", "2024-11-15 17:00"),
        (FUTURES, "2024-03-11", "2024-03-10 18:00", "2024-03-11 17:00"),
        (CURRENCIES, "2024-03-11", "2024-03-10 17:00", "2024-03-11 17:00"),
        (CURRENCIES, "2024-11-04", "2024-11-03 17:00", "2024-11-04 17:00"),
        (KIWI, "2024-11-15", "2024-11-15 10:00", "2024-11-15 12:00"),
        (LATE, "2024-11-15", "2024-11-15 04:00", "2024-11-15 20:00"),
    ],
)
def test_a_day_s_bar_may_be_stamped_with_its_date_or_its_opening(
    hours: TradingHours, day: str, opening: str, closing: str
) -> None:
    stamps = stamps_of(hours, day, opening)
    expected = at(closing, hours.time_zone)
    assert [hours.closing(stamp, DAY) for stamp in stamps] == [expected] * 3


def test_an_evening_s_bar_may_be_stamped_with_either_opening() -> None:
    stamps = [at("2024-11-01 18:00"), at("2024-11-01 09:15")]
    assert [NSE.closing(stamp, DAY) for stamp in stamps] == [at("2024-11-01 19:00")] * 2


@pytest.mark.parametrize(
    ("sessions", "closing"),
    [
        ("00:00-00:00", "2024-11-13 00:00"),
        ("09:00-00:15", "2024-11-13 00:15"),
        ("20:00-04:00", "2024-11-12 04:00"),  # midnight is its middle
        ("19:00-04:00", "2024-11-13 04:00"),
    ],
)
def test_a_date_names_the_session_in_whose_middle_it_lies(sessions: str, closing: str) -> None:
    hours = TradingHours([sessions], weekdays=range(7))
    assert hours.closing(at("2024-11-12", "UTC"), DAY) == at(closing, "UTC")


def test_a_date_prefers_what_begins_on_it_to_what_ends_on_it() -> None:
    special = {"2024-11-12": ["08:00-13:00"]}
    hours = TradingHours(["18:00-17:00"], AMERICA, weekdays=[6, 0, 1, 2, 3], special=special)
    assert hours.closing(at("2024-11-12", "UTC"), DAY) == at("2024-11-12 13:00", AMERICA)


@pytest.mark.parametrize(
    ("hours", "stamp"),
    [
        (NEW_YORK, "2024-11-15 12:00"),  # neither
        (NEW_YORK, "2024-11-15 14:31"),
        (NEW_YORK, "2024-11-15 21:00"),  # closing
        (NEW_YORK, "2024-11-16"),  # a Saturday, Friday evening in New York
        (NEW_YORK, "2024-11-16 05:00"),
        (NEW_YORK, "2024-11-16 14:30"),
        (NEW_YORK, "2024-11-28"),  # a holiday
        (NEW_YORK, "2024-11-28 05:00"),
        (NEW_YORK, "2024-11-28 14:30"),
        (NEW_YORK, "2024-07-15 05:00"),  # midnight of another season
        (FUTURES, "2024-11-10"),  # a Sunday, on which that of Monday begins
        (FUTURES, "2024-11-10 05:00"),
        (FUTURES, "2024-11-15 23:00"),  # nothing begins on a Friday
    ],
)
def test_another_moment_or_day_has_no_daily_bar(hours: TradingHours, stamp: str) -> None:
    assert hours.closing(at(stamp, "UTC"), DAY) is None
    before = at("2024-11-14", "UTC")
    assert not hours.follows(before, at(stamp, "UTC"), DAY)


@pytest.mark.parametrize("way", range(3), ids=["date in UTC", "midnight", "opening"])
@pytest.mark.parametrize(
    ("hours", "days"),
    [
        (
            NEW_YORK,
            {
                "2024-11-26": "2024-11-26 09:30",
                "2024-11-27": "2024-11-27 09:30",
                "2024-11-29": "2024-11-29 09:30",
                "2024-12-02": "2024-12-02 09:30",
            },
        ),
        (NEW_YORK, {"2024-03-08": "2024-03-08 09:30", "2024-03-11": "2024-03-11 09:30"}),
        (
            COIN,
            {f"2017-10-{day}": f"2017-10-{day} 00:00" for day in range(13, 18)},
        ),
        (
            FUTURES,
            {
                "2024-03-07": "2024-03-06 18:00",
                "2024-03-08": "2024-03-07 18:00",
                "2024-03-11": "2024-03-10 18:00",
                "2024-03-12": "2024-03-11 18:00",
            },
        ),
        (LATE, {f"2024-11-{day}": f"2024-11-{day} 04:00" for day in (13, 14, 15, 18)}),
    ],
    ids=["holiday", "spring", "no midnight", "futures", "late"],
)
def test_days_follow_each_other_in_every_way_to_stamp_them(
    hours: TradingHours, days: dict[str, str], way: int
) -> None:
    stamps = [stamps_of(hours, day, opening)[way] for day, opening in days.items()]
    for (first, earlier), (second, later) in product(enumerate(stamps), repeat=2):
        assert hours.follows(earlier, later, DAY) is (second == first + 1)
        if first != second:
            assert hours.overlap(earlier, later, DAY) is (second < first)


@pytest.mark.parametrize(
    ("hours", "day", "opening"),
    [
        (NEW_YORK, "2024-11-15", "2024-11-15 09:30"),
        (FUTURES, "2024-11-15", "2024-11-14 18:00"),
        (KIWI, "2024-11-15", "2024-11-15 10:00"),
    ],
)
def test_two_stamps_of_a_day_are_one_bar(hours: TradingHours, day: str, opening: str) -> None:
    stamps = sorted(stamps_of(hours, day, opening))
    for earlier, later in pairwise(stamps):
        assert hours.overlap(earlier, later, DAY)
        assert not hours.follows(earlier, later, DAY)


def test_the_day_after_one_that_hours_do_not_know_follows_it() -> None:
    saturday, monday = at("2024-11-16", "UTC"), at("2024-11-18", "UTC")
    assert NEW_YORK.follows(saturday, monday, DAY)
    assert not NEW_YORK.follows(saturday, monday + DAY, DAY)
    assert NEW_YORK.overlap(saturday, monday, DAY) is None  # when it was closed nobody says
    assert NEW_YORK.overlap(saturday, saturday + DAY - 1, DAY) is None


@pytest.mark.parametrize("moment", ["00:00", "09:15"])
@pytest.mark.parametrize(
    ("earlier", "later", "follows"),
    [
        ("2024-11-11", "2024-11-12", True),
        ("2024-11-08", "2024-11-11", True),
        ("2024-11-13", "2024-11-18", True),
        ("2024-03-01", "2024-03-02", True),
        ("2024-11-11", "2024-11-13", False),
        ("2024-11-13", "2024-11-15", False),
        ("2024-11-12", "2024-11-12", False),
        ("2024-11-12", "2024-11-11", False),
    ],
)
def test_a_day_s_bar_is_followed_by_that_of_the_next_trading_day(
    earlier: str, later: str, follows: bool, moment: str
) -> None:
    assert NSE.follows(at(f"{earlier} {moment}"), at(f"{later} {moment}"), DAY) is follows


@pytest.mark.parametrize("seconds", [2 * DAY, 7 * DAY])
def test_a_bar_longer_than_a_day_knows_no_sessions(seconds: int) -> None:
    stamp = at("2024-11-16")
    assert NSE.closing(stamp, seconds) == stamp + seconds
    assert NSE.follows(stamp, stamp + seconds, seconds)
    assert not NSE.follows(stamp, stamp + seconds - DAY, seconds)


@pytest.mark.parametrize(("days", "found"), [(390, True), (410, False)])
@pytest.mark.parametrize("seconds", [HOUR, DAY])
def test_after_so_long_a_break_nothing_is_expected(seconds: int, days: int, found: bool) -> None:
    last, next_ = date(2024, 1, 1), date(2024, 1, 1) + timedelta(days)
    special = {last: ["10:00-11:00"], next_: ["10:00-11:00"]}
    hours = TradingHours(["10:00-11:00"], weekdays=(), special=special)
    stamps = (at(f"{day} 10:00", "UTC") for day in (last, next_))
    assert hours.follows(*stamps, seconds) is found
