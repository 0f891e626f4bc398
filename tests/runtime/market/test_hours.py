import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pytest
from markets import AMERICA, FUTURES, HOUR, INDIA, NSE, at, listed

from hrm_runtime import BadInput
from hrm_runtime.market import hours as module
from hrm_runtime.market.hours import DAY, TradingHours

# around the clock


@pytest.mark.parametrize("seconds", [60, 300, HOUR, DAY, 7 * DAY])
@pytest.mark.parametrize("stamp", [0, 1_700_000_000, 1_700_000_001])
def test_around_the_clock_a_bar_is_closed_when_its_time_is_over(stamp: int, seconds: int) -> None:
    assert TradingHours().closing(stamp, seconds) == stamp + seconds


@pytest.mark.parametrize(
    ("later", "follows"), [(300, True), (299, False), (301, False), (600, False), (0, False)]
)
def test_around_the_clock_the_next_bar_opens_when_one_is_closed(later: int, follows: bool) -> None:
    assert TradingHours().follows(at("2024-11-16"), at("2024-11-16") + later, 300) is follows


# ordinary days


def test_the_last_bar_of_a_session_is_closed_when_the_session_ends() -> None:
    assert listed(NSE, "2024-11-13", 60) == [
        *("09:15-10:15", "10:15-11:15", "11:15-12:15", "12:15-13:15", "13:15-14:15"),
        *("14:15-15:15", "15:15-15:30"),
    ]


@pytest.mark.parametrize(
    ("minutes", "first", "last", "count"),
    [
        (1, "09:15-09:16", "15:29-15:30", 375),
        (5, "09:15-09:20", "15:25-15:30", 75),
        (15, "09:15-09:30", "15:15-15:30", 25),
        (30, "09:15-09:45", "15:15-15:30", 13),
        (240, "09:15-13:15", "13:15-15:30", 2),
        (375, "09:15-15:30", "09:15-15:30", 1),
        (720, "09:15-15:30", "09:15-15:30", 1),
    ],
)
def test_a_day_has_the_bars_of_its_session(minutes: int, first: str, last: str, count: int) -> None:
    bars = listed(NSE, "2024-11-13", minutes)
    assert (bars[0], bars[-1], len(bars)) == (first, last, count)


@pytest.mark.parametrize(
    "day",
    ["2024-11-16", "2024-11-17", "2024-11-15", "2024-11-14"],
    ids=["Saturday", "Sunday", "holiday", "special without sessions"],
)
@pytest.mark.parametrize("minutes", [5, 60, 1440])
def test_a_day_without_sessions_has_no_bars(day: str, minutes: int) -> None:
    assert listed(NSE, day, minutes) == []


def test_weekdays_are_those_that_are_given() -> None:
    hours = TradingHours(["10:00-11:00"], "Asia/Riyadh", weekdays=iter([6, 0, 1, 2, 3]))
    traded = [
        bool(listed(hours, f"2024-11-{day}", 60, "Asia/Riyadh")) for day in range(10, 17)
    ]  # Sunday to Saturday
    assert traded == [True, True, True, True, True, False, False]


def test_a_market_without_ordinary_days_has_its_special_ones() -> None:
    hours = TradingHours(["09:00-17:00"], weekdays=(), special={"2024-11-16": ["10:00-12:00"]})
    assert listed(hours, "2024-11-16", 60, "UTC") == ["10:00-11:00", "11:00-12:00"]
    assert listed(hours, "2024-11-18", 60, "UTC") == []


def test_sessions_with_a_break_share_the_day_s_grid() -> None:
    hours = TradingHours(["09:30-12:00", "13:00-16:00"], "Asia/Hong_Kong")
    assert listed(hours, "2024-11-13", 60, "Asia/Hong_Kong") == [
        *("09:30-10:30", "10:30-11:30", "11:30-12:00"),
        *("12:30-13:30", "13:30-14:30", "14:30-15:30", "15:30-16:00"),
    ]


def test_a_bar_that_two_sessions_share_is_closed_in_the_second() -> None:
    hours = TradingHours(["09:15-10:00", "10:05-11:00"])
    assert listed(hours, "2024-11-13", 60, "UTC") == ["09:15-10:15", "10:15-11:00"]


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("2024-11-12 09:15", "2024-11-12 10:15"),
        ("2024-11-12 14:15", "2024-11-12 15:15"),
        ("2024-11-12 15:15", "2024-11-13 09:15"),
        ("2024-11-08 15:15", "2024-11-11 09:15"),  # over a weekend
        ("2024-11-13 15:15", "2024-11-18 09:15"),  # two holidays and a weekend
        ("2024-10-31 15:15", "2024-11-01 17:15"),  # to a special session
        ("2024-11-01 18:15", "2024-11-04 09:15"),
        ("2024-03-02 09:15", "2024-03-02 11:15"),
        ("2024-11-12 09:20", "2024-11-12 10:15"),  # after a bar that should not be
        ("2024-11-16 12:00", "2024-11-18 09:15"),
    ],
)
def test_the_next_bar_there_is_follows_and_no_other_does(earlier: str, later: str) -> None:
    first, second = at(earlier), at(later)
    assert NSE.follows(first, second, HOUR)
    others = [first, second - 60, second + 60, second + HOUR, second + DAY, first - HOUR]
    assert [other for other in others if NSE.follows(first, other, HOUR)] == []


# special sessions


def test_an_evening_session_has_the_bars_of_the_ordinary_grid() -> None:
    assert listed(NSE, "2024-11-01", 60) == ["17:15-18:15", "18:15-19:00"]
    assert listed(NSE, "2024-11-01", 15)[:2] == ["18:00-18:15", "18:15-18:30"]


def test_a_saturday_with_two_sessions_has_the_bars_that_overlap_them() -> None:
    assert listed(NSE, "2024-03-02", 60) == ["09:15-10:00", "11:15-12:15", "12:15-12:30"]


def test_a_special_session_may_begin_before_ordinary_ones() -> None:
    hours = TradingHours(["09:15-15:30"], special={"2024-11-13": ["08:00-09:30"]})
    assert listed(hours, "2024-11-13", 60, "UTC") == ["07:15-08:15", "08:15-09:15", "09:15-09:30"]


def test_the_bar_of_a_special_session_may_open_on_the_day_before() -> None:
    hours = TradingHours(["00:30-12:00"], special={"2024-11-13": ["00:00-02:00"]})
    assert listed(hours, "2024-11-12", 60, "UTC")[-1] == "23:30-00:30"
    assert listed(hours, "2024-11-13", 60, "UTC") == ["00:30-01:30", "01:30-02:00"]
    stamps = [at(f"2024-11-{moment}", "UTC") for moment in ("12 11:30", "12 23:30", "13 00:30")]
    assert hours.follows(stamps[0], stamps[1], HOUR)
    assert hours.follows(stamps[1], stamps[2], HOUR)


# the clock on the wall


def test_sessions_begin_by_the_clock_on_the_wall() -> None:
    hours = TradingHours(["09:30-16:00"], AMERICA)
    friday, monday = at("2024-03-08 15:30", AMERICA), at("2024-03-11 09:30", AMERICA)
    assert (friday % DAY, monday % DAY) == (20.5 * HOUR, 13.5 * HOUR)  # in UTC, an hour earlier
    assert hours.follows(friday, monday, HOUR)
    assert not hours.follows(friday, monday + HOUR, HOUR)
    assert hours.closing(monday - HOUR, HOUR) is None


@pytest.mark.parametrize(
    ("day", "count"), [("2024-03-09", 24), ("2024-03-10", 23), ("2024-11-03", 25)]
)
def test_a_day_has_as_many_hours_as_its_clock(day: str, count: int) -> None:
    hours = TradingHours(["00:00-00:00"], AMERICA, weekdays=range(7))
    assert len(listed(hours, day, 60, AMERICA)) == count


@pytest.mark.parametrize(
    ("day", "bars"),
    [
        ("2024-03-10", ["00:00-05:00", "05:00-09:00", "09:00-13:00", "21:00-00:00"]),
        ("2024-11-03", ["00:00-03:00", "03:00-07:00", "07:00-11:00", "23:00-00:00"]),
    ],
)
def test_a_bar_has_its_length_where_the_clock_is_changed(day: str, bars: list[str]) -> None:
    hours = TradingHours(["00:00-00:00"], AMERICA, weekdays=range(7))
    found = listed(hours, day, 240, AMERICA)
    assert [*found[:3], found[-1]] == bars


# other grids


HONG_KONG = ["09:30-12:00", "13:00-16:00"]
SHORT = {"2024-12-24": ["09:30-12:00"]}


def hong_kong(grid: Any) -> TradingHours:
    return TradingHours(HONG_KONG, "Asia/Hong_Kong", special=SHORT, grid=grid)


def test_a_grid_may_start_anew_with_each_session() -> None:
    hours = hong_kong("session")
    assert listed(hours, "2024-11-13", 60, "Asia/Hong_Kong") == [
        *("09:30-10:30", "10:30-11:30", "11:30-12:00"),
        *("13:00-14:00", "14:00-15:00", "15:00-16:00"),
    ]
    assert listed(hours, "2024-12-24", 120, "Asia/Hong_Kong") == ["09:30-11:30", "11:30-12:00"]
    tokyo = TradingHours(["09:00-11:30", "12:30-15:30"], "Asia/Tokyo", grid="session")
    assert listed(tokyo, "2024-11-13", 60, "Asia/Tokyo")[2:5] == [
        *("11:00-11:30", "12:30-13:30", "13:30-14:30"),
    ]


def test_a_grid_may_be_that_of_the_clock() -> None:
    hours = hong_kong("clock")
    bars = ["09:30-10:00", "10:00-11:00", "11:00-12:00", "13:00-14:00", "14:00-15:00"]
    alias = "09:00-10:00"  # the grid's own stamp of the first
    assert listed(hours, "2024-11-13", 60, "Asia/Hong_Kong") == [alias, *bars, "15:00-16:00"]
    assert listed(hours, "2024-11-13", 240, "Asia/Hong_Kong") == [
        *("08:00-12:00", "09:30-12:00"),
        *("12:00-16:00", "13:00-16:00"),
    ]


def test_both_stamps_of_a_short_first_bar_are_one_bar() -> None:
    hours, zone = hong_kong("clock"), "Asia/Hong_Kong"
    before, alias, opening, after = (
        at(f"2024-11-{moment}", zone) for moment in ("12 15:00", "13 09:00", "13 09:30", "13 10:00")
    )
    for first in (alias, opening):
        assert hours.follows(before, first, HOUR)
        assert hours.follows(first, after, HOUR)
        assert not hours.overlap(before, first, HOUR)
        assert not hours.overlap(first, after, HOUR)
    assert not hours.follows(alias, opening, HOUR)
    assert hours.overlap(alias, opening, HOUR)
    assert not hours.follows(before, after, HOUR)


def test_a_lunch_break_is_no_hole_of_a_grid_that_starts_anew() -> None:
    hours, zone = hong_kong("session"), "Asia/Hong_Kong"
    morning, lunch, afternoon = (
        at(f"2024-11-13 {moment}", zone) for moment in ("11:30", "12:30", "13:00")
    )
    assert hours.follows(morning, afternoon, HOUR)
    assert not hours.overlap(morning, afternoon, HOUR)
    assert hours.closing(lunch, HOUR) is None


def test_a_bar_of_its_own_is_never_the_other_stamp_of_the_next() -> None:
    hours = TradingHours(["18:00-17:00"], AMERICA, weekdays=[6, 0, 1, 2, 3], grid="clock")
    four = 4 * HOUR
    last, first = at("2024-11-12 16:00", AMERICA), at("2024-11-12 18:00", AMERICA)
    assert hours.closing(last, four) == at("2024-11-12 17:00", AMERICA)
    assert hours.closing(first, four) == at("2024-11-12 20:00", AMERICA)
    assert hours.follows(last, first, four)
    assert not hours.follows(last, at("2024-11-12 20:00", AMERICA), four)  # no bar of two days
    sunday = at("2024-11-10 16:00", AMERICA)  # where none ends
    assert hours.closing(sunday, four) == at("2024-11-10 20:00", AMERICA)


@pytest.mark.parametrize(
    ("minutes", "day", "bars"),
    [
        (240, "2024-03-10", ["00:00-04:00", "04:00-08:00", "08:00-12:00"]),
        (240, "2024-11-03", ["00:00-04:00", "04:00-08:00", "08:00-12:00"]),
        (60, "2024-03-10", ["00:00-01:00", "01:00-03:00", "03:00-04:00"]),
        (60, "2024-11-03", ["00:00-01:00", "01:00-01:00", "01:00-02:00", "02:00-03:00"]),
        (50, "2024-03-10", ["00:00-00:50", "00:50-01:40", "01:40-03:20", "03:20-04:10"]),
    ],
)
def test_the_clock_s_grid_is_cut_where_the_clock_shows_it(
    minutes: int, day: str, bars: list[str]
) -> None:
    hours = TradingHours(["00:00-00:00"], AMERICA, weekdays=range(7), grid="clock")
    assert listed(hours, day, minutes, AMERICA)[: len(bars)] == bars


def test_the_clock_s_grid_starts_anew_at_midnight_where_bars_do_not_fill_a_day() -> None:
    hours = TradingHours(["18:00-17:00"], weekdays=range(7), grid="clock")
    assert listed(hours, "2024-11-12", 420, "UTC") == [
        *("00:00-07:00", "07:00-14:00", "14:00-17:00"),
        *("18:00-21:00", "21:00-00:00"),
    ]


# over midnight


def test_a_session_over_midnight_belongs_to_the_day_on_which_it_begins() -> None:
    assert listed(FUTURES, "2024-11-10", 240, AMERICA) == ["18:00-22:00", "22:00-02:00"]  # Sunday
    assert listed(FUTURES, "2024-11-15", 240, AMERICA) == [  # Friday
        *("02:00-06:00", "06:00-10:00", "10:00-14:00", "14:00-17:00"),
    ]
    assert listed(FUTURES, "2024-11-16", 240, AMERICA) == []


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("2024-11-11 23:00", "2024-11-12 00:00"),
        ("2024-11-12 16:00", "2024-11-12 18:00"),
        ("2024-11-15 16:00", "2024-11-17 18:00"),
    ],
)
def test_bars_follow_each_other_over_midnight(earlier: str, later: str) -> None:
    first, second = at(earlier, AMERICA), at(later, AMERICA)
    assert FUTURES.follows(first, second, HOUR)
    assert not FUTURES.follows(first, second + HOUR, HOUR)
    assert not FUTURES.follows(first - HOUR, second, HOUR)


def test_a_session_of_24_hours_never_pauses_within_the_week() -> None:
    hours = TradingHours(["17:00-17:00"], AMERICA, weekdays=[6, 0, 1, 2, 3])
    stamps = range(at("2024-11-10 17:00", AMERICA), at("2024-11-15 17:00", AMERICA), HOUR)
    assert [s for s in stamps if hours.closing(s, HOUR) != s + HOUR] == []
    assert [s for s in stamps[:-1] if not hours.follows(s, s + HOUR, HOUR)] == []
    assert hours.follows(stamps[-1], at("2024-11-17 17:00", AMERICA), HOUR)


@pytest.mark.parametrize("weekdays", [range(7), ()], ids=["sessions", "none"])
def test_no_more_bars_are_kept_than_so_many(
    weekdays: Iterable[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_KEPT", 12)
    hours = TradingHours(["10:00-12:00"], weekdays=weekdays)
    traded = bool(weekdays)
    for day in range(1, 30):
        stamp = at(f"2024-11-{day:02} 11:00", "UTC")
        assert hours.closing(stamp, HOUR) == (stamp + HOUR if traded else None)
        assert not traded or hours.follows(stamp, stamp + 23 * HOUR, HOUR)
        assert sum(1 + len(one.bars) for one in hours._kept.values()) <= 12 + 3


def test_an_earlier_document_has_the_grid_of_the_first_opening() -> None:
    document = NSE.document()
    assert document.pop("grid") == "open"
    again = TradingHours(**document)
    assert listed(again, "2024-11-01", 60) == ["17:15-18:15", "18:15-19:00"]


# what cannot be read


@pytest.mark.parametrize("grid", ["", "Clock", "hour", None, 60, ["open"]], ids=repr)
def test_an_unknown_grid_is_refused(grid: Any) -> None:
    told = "^hours.grid: expected open, session or clock, found "
    with pytest.raises(BadInput, match=told + re.escape(repr(grid))):
        TradingHours(["09:15-15:30"], grid=grid)


@pytest.mark.parametrize("days", [{"holidays": ["2024-11-15"]}, {"special": {"2024-11-15": []}}])
def test_a_market_around_the_clock_has_no_special_days(days: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="hours: expected sessions beside holidays and special"):
        TradingHours(**days)


@pytest.mark.parametrize(
    "name", ["", "Asia", "Asia/Calcuta", "../zone", "a\0b", "x" * 300, None, 5], ids=repr
)
def test_an_unknown_time_zone_is_refused(name: Any) -> None:
    with pytest.raises(
        BadInput,
        match=r"^hours\.time_zone: expected an IANA name such as Asia/Kolkata, found .*tzdata\)$",
    ) as caught:
        TradingHours(time_zone=name)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize(
    ("weekdays", "found"),
    [([7], r"\[7\]"), ([0, -1], r"\[-1, 0\]"), ("Mon", "'M', 'n', 'o'"), ([1, "Tue"], "'Tue'")],
)
def test_an_unknown_weekday_is_refused(weekdays: Any, found: str) -> None:
    with pytest.raises(
        BadInput, match=rf"hours\.weekdays: expected 0 \(Monday\) to 6, found .*{found}"
    ):
        TradingHours(["09:15-15:30"], weekdays=weekdays)


@pytest.mark.parametrize(
    ("day", "found"),
    [
        ("15.11.2024", "'15.11.2024'"),
        ("2024-02-30", "'2024-02-30'"),
        ("", "''"),
        (20241115, "20241115"),
        (None, "None"),
        (datetime(2024, 11, 15), r"datetime\.datetime\(2024, 11, 15"),
    ],
)
@pytest.mark.parametrize("where", ["holidays", "special"])
def test_what_is_not_a_date_is_refused(where: str, day: Any, found: str) -> None:
    with pytest.raises(
        BadInput, match=f"^hours: expected a date such as 2024-11-15, found {found}"
    ):
        TradingHours(["09:15-15:30"], **{where: {day: ["10:00-11:00"]}})


def test_a_single_date_is_no_list_of_them() -> None:
    with pytest.raises(BadInput, match="expected a date such as 2024-11-15, found '2'"):
        TradingHours(["09:15-15:30"], holidays="2024-11-15")


SESSIONS = [
    *("09:15", "09:15-15:30-16:00", "9:15-15:30", "09:15-24:00", "09:60-15:30", "", "-"),
    *("0915-1530", "09:15:00-15:30:00", "+9:15-15:30", "09: 5-15:30", "ab:cd-15:30"),
    *("09:15\u201315:30", "\u0660\u0669:15-15:30", 915, None, b"09:15-15:30"),
]


@pytest.mark.parametrize("session", SESSIONS, ids=repr)
def test_a_session_that_cannot_be_read_is_refused(session: Any) -> None:
    with pytest.raises(BadInput, match="hours: expected a session such as 09:15-15:30, f") as one:
        TradingHours([session])
    with pytest.raises(BadInput, match="hours: expected a session such as 09:15-15:30, f") as two:
        TradingHours(["09:15-15:30"], special={"2024-11-15": [session]})
    assert str(one.value) == str(two.value)
    assert str(one.value).endswith(f"found {session!r}")


def test_a_session_may_have_spaces_around_its_times() -> None:
    assert listed(TradingHours([" 09:00 - 10:00 "]), "2024-11-13", 60, "UTC") == ["09:00-10:00"]


def test_a_single_session_is_no_list_of_them() -> None:
    with pytest.raises(BadInput, match='a list of sessions, found the text "09:15-15:30"'):
        TradingHours("09:15-15:30")
    with pytest.raises(BadInput, match='a list of sessions, found the text "10:00-11:00"'):
        TradingHours(["09:15-15:30"], special={"2024-11-15": "10:00-11:00"})


@pytest.mark.parametrize(
    "sessions",
    [
        ["09:15-12:00", "11:59-15:30"],
        ["13:00-15:30", "09:15-12:00"],
        ["09:15-12:00", "09:15-12:00"],
        ["18:00-02:00", "01:00-03:00"],
        ["09:00-12:00", "18:00-09:30"],  # it would meet the next day's first
    ],
)
def test_sessions_that_overlap_or_are_out_of_order_are_refused(sessions: list[str]) -> None:
    with pytest.raises(
        BadInput, match=r"hours: expected sessions in order that do not overlap, found \['"
    ):
        TradingHours(sessions)


def test_sessions_may_touch() -> None:
    hours = TradingHours(["09:00-12:00", "12:00-09:00"])
    assert len(listed(hours, "2024-11-12", 60, "UTC")) == 24


def test_utc_needs_no_data_of_time_zones(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_data(name: str) -> ZoneInfo:
        raise ZoneInfoNotFoundError(name)

    monkeypatch.setattr(module, "ZoneInfo", no_data)
    monday = at("2024-11-18 00:00", "UTC")
    assert TradingHours().closing(monday, HOUR) == monday + HOUR
    assert TradingHours(["14:30-21:00"]).closing(monday, DAY) == monday + 21 * HOUR
    with pytest.raises(BadInput, match="on Windows: pip install tzdata"):
        TradingHours(time_zone=INDIA)
