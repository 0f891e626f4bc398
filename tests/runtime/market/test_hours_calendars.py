"""Trading hours are those of any calendar that is written out minute by minute."""

import json
from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta
from itertools import product
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st
from markets import AMERICA, HOUR, INDIA, at

from hrm_runtime.market.hours import TradingHours

GRIDS = ("open", "session", "clock")

FIRST = date(2024, 3, 4)  # the Monday before clocks in America change
DAYS = tuple(FIRST + timedelta(number) for number in range(10))
MINUTES = (5, 15, 60, 75, 120, 240)


def clock(minutes: int) -> str:
    return f"{minutes // 60 % 24:02}:{minutes % 60:02}"


def texts(moments: Iterable[int]) -> list[str]:
    """Sessions from so many sorted minutes after midnight, two for each."""
    pairs = iter(moments)
    return [f"{clock(start)}-{clock(end)}" for start, end in zip(pairs, pairs, strict=True)]


def moments(first: int, sessions: int) -> st.SearchStrategy[list[int]]:
    fives = st.integers(first // 5, 24 * 12 - 1).map(lambda number: 5 * number)
    return st.lists(fives, min_size=2, max_size=2 * sessions, unique=True).map(
        lambda chosen: sorted(chosen[: len(chosen) // 2 * 2])
    )


@st.composite
def calendars(draw: st.DrawFn) -> dict[str, Any]:
    """Arguments of `TradingHours`; with special days no session goes over midnight."""
    calendar: dict[str, Any] = {
        "time_zone": draw(st.sampled_from(["UTC", INDIA, AMERICA])),
        "weekdays": draw(st.frozensets(st.integers(0, 6), min_size=1)),
        "holidays": draw(st.frozensets(st.sampled_from(DAYS), max_size=3)),
        "grid": draw(st.sampled_from(GRIDS)),
    }
    if draw(st.booleans()):
        start, end = draw(moments(0, 1))
        return {**calendar, "sessions": [f"{clock(end)}-{clock(start)}"]}
    special = draw(st.dictionaries(st.sampled_from(DAYS), moments(360, 3), max_size=3))
    return {
        **calendar,
        "sessions": texts(draw(moments(240, 2))),
        "special": {day: texts(chosen) for day, chosen in special.items()},
    }


def minutes_of(text: str) -> int:
    hours, minutes = text.split(":")
    return 60 * int(hours) + int(minutes)


def expected_bars(calendar: Mapping[str, Any], seconds: int) -> dict[int, int]:
    """Opening to closing of every bar of `DAYS`: those that hold a minute of a session."""
    zone = ZoneInfo(calendar["time_zone"])

    def epoch(day: date, text: str) -> int:
        hours, minutes = divmod(minutes_of(text), 60)
        return int(datetime(day.year, day.month, day.day, hours, minutes, tzinfo=zone).timestamp())

    bars: dict[int, int] = {}
    for day in DAYS:
        ordinary = calendar["sessions"] if day.weekday() in calendar["weekdays"] else []
        sessions = [] if day in calendar["holidays"] else ordinary
        sessions = calendar.get("special", {}).get(day, sessions)
        anchor = epoch(day, calendar["sessions"][0].split("-")[0])
        opening, opened = 0, (day, -1)  # the clock's last bar, and where on its grid it opened
        for session in sessions:
            start, end = session.split("-")
            last_day = day if minutes_of(end) > minutes_of(start) else day + timedelta(1)
            begun = epoch(day, start)
            for minute in range(begun, epoch(last_day, end), 60):
                shown = datetime.fromtimestamp(minute, zone)
                if calendar["grid"] == "clock":
                    since_midnight = 3600 * shown.hour + 60 * shown.minute
                    cell = shown.date(), since_midnight // seconds
                    if since_midnight % seconds == 0 or (minute == begun and cell != opened):
                        opening, opened = minute, cell
                else:
                    origin = anchor if calendar["grid"] == "open" else begun
                    opening = origin + (minute - origin) // seconds * seconds
                bars[opening] = minute + 60
    return dict(sorted(bars.items()))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(calendar=calendars(), minutes=st.sampled_from(MINUTES))
def test_bars_are_those_of_a_calendar_written_out(calendar: dict[str, Any], minutes: int) -> None:
    hours, seconds = TradingHours(**calendar), 60 * minutes
    expected = expected_bars(calendar, seconds)
    inside = range(
        at(f"{DAYS[1]} 12:00", calendar["time_zone"]),
        at(f"{DAYS[-2]} 12:00", calendar["time_zone"]),
        300,
    )
    found = {stamp: hours.closing(stamp, seconds) for stamp in inside}
    if calendar["grid"] == "clock":  # and the other stamps of first bars
        others = {stamp for stamp, closing in found.items() if closing and stamp not in expected}
        assert {found.pop(stamp) for stamp in others} <= set(expected.values())
        assert all(min(o for o in expected if o > s) - s < seconds + HOUR for s in others)
    assert found == {stamp: expected.get(stamp) for stamp in found}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(calendar=calendars(), minutes=st.sampled_from((15, 60, 120, 240)))
def test_a_bar_follows_if_it_is_the_next_of_a_calendar_written_out(
    calendar: dict[str, Any], minutes: int
) -> None:
    hours, seconds = TradingHours(**calendar), 60 * minutes
    openings = list(expected_bars(calendar, seconds))
    for (place, earlier), step in product(enumerate(openings), (-1, 0, 1, 2)):
        if 0 <= place + step < len(openings):
            assert hours.follows(earlier, openings[place + step], seconds) is (step == 1)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(calendar=calendars(), minutes=st.sampled_from((15, 60, 120, 240, 1440)))
def test_what_a_document_says_is_equal_in_what_it_answers(
    calendar: dict[str, Any], minutes: int
) -> None:
    hours = TradingHours(**calendar)
    again = TradingHours(**json.loads(json.dumps(hours.document())))
    for stamp in range(at("2024-03-05", "UTC"), at("2024-03-09", "UTC"), 900):
        assert again.closing(stamp, 60 * minutes) == hours.closing(stamp, 60 * minutes)
    assert again.document() == hours.document()
