"""Breaks that lie within a bar of the clock's grid: one bar, whichever stamp it has."""

import pytest
from markets import HOUR, at, listed

from hrm_runtime.market.hours import TradingHours

CHINA = "Asia/Shanghai"
DALIAN = ["09:00-10:15", "10:30-11:30", "13:30-15:00"]


@pytest.mark.parametrize(
    ("sessions", "minutes", "bars"),
    [
        (
            DALIAN,
            60,
            [
                *("09:00-10:00", "10:00-11:00", "10:30-11:00", "11:00-11:30"),
                *("13:00-14:00", "13:30-14:00", "14:00-15:00"),
            ],
        ),
        (DALIAN, 30, ["09:00-09:30", "09:30-10:00", "10:00-10:15", "10:30-11:00", "11:00-11:30",
                      "13:30-14:00", "14:00-14:30", "14:30-15:00"]),
        (DALIAN, 240, ["08:00-11:30", "09:00-11:30", "10:30-11:30", "12:00-15:00", "13:30-15:00"]),
        (["09:15-09:40", "09:50-10:30"], 60,
         ["09:00-10:00", "09:15-10:00", "09:50-10:00", "10:00-10:30"]),
        (["09:00-09:10", "09:20-09:30", "09:40-10:30"], 60,
         ["09:00-10:00", "09:20-10:00", "09:40-10:00", "10:00-10:30"]),
        (["09:00-09:10", "09:20-09:30"], 60, ["09:00-09:30", "09:20-09:30"]),
        (["09:00-12:00", "12:00-16:00"], 300,
         ["05:00-10:00", "09:00-10:00", "10:00-15:00", "12:00-15:00", "15:00-16:00"]),
    ],
)  # fmt: skip
def test_a_break_within_a_bar_of_the_clock_s_grid_makes_no_second(
    sessions: list[str], minutes: int, bars: list[str]
) -> None:
    hours = TradingHours(sessions, CHINA, grid="clock")
    assert listed(hours, "2025-03-03", minutes, CHINA) == bars


def test_both_stamps_of_a_bar_around_a_break_are_one_bar() -> None:
    hours = TradingHours(DALIAN, CHINA, grid="clock")
    nine, ten, half, eleven, afternoon = (
        at(f"2025-03-03 {moment}", CHINA)
        for moment in ("09:00", "10:00", "10:30", "11:00", "13:30")
    )
    for stamp in (ten, half):
        assert hours.follows(nine, stamp, HOUR)
        assert hours.follows(stamp, eleven, HOUR)
        assert not hours.overlap(nine, stamp, HOUR)
        assert not hours.overlap(stamp, eleven, HOUR)
    assert hours.overlap(ten, half, HOUR)
    assert not hours.follows(ten, half, HOUR)
    assert hours.follows(eleven, afternoon, HOUR)
