"""Whether bars are those of a timeframe, by how far apart they are: one rule for all readers."""

from typing import Final

import numpy as np

from hrm_runtime.errors import BadBars
from hrm_runtime.market.bars import Integers
from hrm_runtime.market.hours import DAY, TradingHours
from hrm_runtime.market.stamps import moment

ENOUGH: Final = 10
"""Bars of which some two follow on each other; of fewer, each may be of another day."""

_APART: Final = 1.25
"""Timeframes between bars that follow on each other, at most: what shifts a stamp is less."""


def require_spacing(
    stamps: Integers, seconds: int, hours: TradingHours | None = None, new: int | None = None
) -> None:
    """Hold bars to a timeframe: neither of a shorter one, nor of a longer one.

    No bar begins before the one before it is closed. Without hours, and of bars longer than a day,
    a step may be short where its neighbours are not: the first or last bar of a session is cut, and
    clocks are changed. With hours that do not say when a bar is closed, because they are around the
    clock or do not know its session, a step may be short after a break and before one that is not:
    the first bar of a session is cut. Of `ENOUGH` bars some two must follow on each other; holes
    are no matter else.

    Args:
        stamps: int64 [n], opening times that increase, epoch seconds.
        seconds: of the timeframe.
        hours: of the market, where they are known.
        new: how many of the last ones were not held to it before; all, where it is left out.

    Raises:
        BadBars: they are of another timeframe, or one day's is there in two ways to stamp it.
    """
    exact = hours if seconds <= DAY else None
    _require_apart(stamps if new is None else stamps[-new - 2 :], seconds, exact)  # two steps
    if len(stamps) < ENOUGH or (closest := int(np.diff(stamps).min())) <= _APART * seconds:
        return
    pairs = zip(stamps[:-1].tolist(), stamps[1:].tolist(), strict=True)
    if hours is None or not any(hours.follows(*pair, seconds) for pair in pairs):
        raise BadBars(
            f"bars: expected bars of {seconds} s, the closest of {len(stamps)} are {closest} s "
            "apart: another timeframe"
        )


def _require_apart(stamps: Integers, seconds: int, hours: TradingHours | None) -> None:
    """Refuse a bar that begins within the one before it."""
    steps = np.diff(stamps)
    short = steps < seconds
    doubted = np.zeros_like(short)
    doubted[:-1] = short[1:]
    if hours is not None:
        doubted[1:] |= steps[:-1] <= seconds  # no break comes before it
    doubted &= short
    near = steps < 2 * DAY if seconds == DAY else short  # of a day, date and opening
    for place in np.flatnonzero(doubted if hours is None else near).tolist():
        earlier, later = stamps[place : place + 2].tolist()
        within = None if hours is None else hours.overlap(earlier, later, seconds)
        if doubted[place] if within is None else within:
            raise BadBars(
                f"bars: expected bars of {seconds} s, found {moment(later)} within that of "
                f"{moment(earlier)}, {later - earlier} s after it: "
                f"{_why_within(hours, earlier, later, seconds)}"
            )


def _why_within(hours: TradingHours | None, earlier: int, later: int, seconds: int) -> str:
    closing = None if hours is None else hours.closing(earlier, seconds)
    if hours is None or (closing is not None and closing != hours.closing(later, seconds)):
        return "another timeframe"
    if closing is None:
        return "another timeframe, or a session that hours do not know"
    return "another way to stamp it"
