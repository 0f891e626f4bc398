"""Hold trading hours to the calendars of five exchanges, over 20 years.

Each calendar becomes `TradingHours`: sessions and breaks as they are now, holidays, and as special
days early closes and all days on which the exchange kept other times. Daily bars in every way to
stamp them and bars of an hour on every grid are made from the calendar's own times. Wrongly refused
is one that a stream does not take when it closes, or that is a gap after the one before it. Wrongly
taken is one that is taken a second before it closes, counts as closed at another time, leaves out
one before it unnoticed, or is taken though there is none: on another day, off the grid, or a day's
in another way to stamp it beside the one that is there. Exits 1 if there was one.

    pip install . exchange_calendars
    python benchmarks/calendars.py [--from 2006-01-01] [--until 2025-12-31] [--every 10]
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice
from pathlib import Path
from zoneinfo import ZoneInfo

from hrm_runtime import Bar, HrmError, TradingHours, load_contract
from hrm_runtime.live.stream import Stream
from hrm_runtime.market.hours import DAY

CONTRACT = load_contract(Path(__file__).resolve().parent.parent / "models/base/artifact")
MARKETS = {
    "XBOM": "India",
    "XNYS": "New York",
    "XLON": "London",
    "XHKG": "Hong Kong",
    "XTKS": "Tokyo",
}
HOUR, STEP = 3600, 300
WAYS = ("date at 00:00 UTC", "date at midnight", "opening")
GRIDS = ("open", "session", "clock", "clock, full hours")

Sessions = list[tuple[int, int]]
"""Of a day, in epoch seconds."""
Made = list[tuple[int, int]]
"""Stamp and close of each bar."""


class Exchange:
    """A calendar's trading days, and the `TradingHours` that should know them.

    Args:
        code: of the exchange, for exchange_calendars.
        first, last: dates; where the calendar has less, its own.
    """

    def __init__(self, code: str, first: date, last: date) -> None:
        try:
            import exchange_calendars
        except ModuleNotFoundError as error:
            raise SystemExit("expected calendars: pip install exchange_calendars") from error
        calendar = exchange_calendars.get_calendar(code, start=str(first), end=str(last))
        self.zone = ZoneInfo(str(calendar.tz))
        self.days: dict[date, Sessions] = {}
        columns = calendar.schedule[["open", "break_start", "break_end", "close"]]
        for label, row in columns.iterrows():
            moments = [int(moment.timestamp()) for moment in row.dropna()]
            self.days[label.date()] = list(zip(moments[::2], moments[1::2], strict=True))
        begin, end = min(self.days), max(self.days)
        self.closed = [
            day
            for day in (begin + timedelta(number) for number in range((end - begin).days))
            if day not in self.days
        ]
        self._texts = {day: self._text(sessions) for day, sessions in self.days.items()}
        newest = list(self._texts.values())[-250:]
        self.usual = Counter(newest).most_common(1)[0][0]

    def _text(self, sessions: Sessions) -> tuple[str, ...]:
        return tuple(
            "-".join(f"{datetime.fromtimestamp(moment, self.zone):%H:%M}" for moment in session)
            for session in sessions
        )

    def hours(self, grid: str) -> TradingHours:
        """As somebody would write them down."""
        return TradingHours(
            self.usual,
            str(self.zone),
            holidays=[day for day in self.closed if day.weekday() < 5],
            special={
                day: sessions
                for day, sessions in self._texts.items()
                if sessions != self.usual or day.weekday() > 4
            },
            grid=grid,  # type: ignore[arg-type]
        )

    def opening(self, day: date) -> int:
        """When the first session of an ordinary day opens."""
        moment = time.fromisoformat(self.usual[0].split("-")[0])
        return int(datetime.combine(day, moment, self.zone).timestamp())

    def stamp(self, day: date, way: str) -> int:
        """Of a day's bar."""
        if way == "opening":
            return self.days[day][0][0] if day in self.days else self.opening(day)
        zone = UTC if way == "date at 00:00 UTC" else self.zone
        return int(datetime.combine(day, time(), zone).timestamp())

    def hourly(self, day: date, grid: str) -> Made:
        """A day's bars of an hour, from each moment of its sessions."""
        bars: dict[int, int] = {}
        for begin, end in self.days[day]:
            shift = datetime.fromtimestamp(begin, self.zone).utcoffset()
            assert shift is not None
            origin = {"open": self.opening(day), "session": begin}.get(grid, -shift.seconds)
            for moment in range(begin, end, STEP):
                opening = moment - (moment - origin) % HOUR
                bars[max(opening, begin) if grid == "clock" else opening] = moment + STEP
        return list(bars.items())

    def nowhere(self, grid: str) -> Iterator[int]:
        """Moments of every tenth day at which no bar of an hour opens, nor one may be stamped."""
        for day in islice(sorted([*self.days, *self.closed]), 0, None, 10):
            known = {stamp for stamp, _ in self.hourly(day, grid)} if day in self.days else set()
            if grid.startswith("clock") and known:
                known |= {stamp for stamp, _ in self.hourly(day, GRIDS[-1])}
                known |= {stamp for stamp, _ in self.hourly(day, "clock")}
            begin = self.stamp(day, "date at midnight")
            yield from sorted(set(range(begin, begin + DAY, 2 * STEP)) - known)


def takes(stream: Stream, stamp: int, now: int) -> bool:
    """Whether it takes a bar of `stamp` at this moment."""
    try:
        stream.take(Bar(stamp, 1.0, 1.0, 1.0, 1.0), now)
    except HrmError:
        return False
    return True


def held(hours: TradingHours, seconds: int, bars: Made, every: int) -> tuple[int, int]:
    """How many of `bars` are wrongly refused and wrongly taken; streams see some of them."""
    refused = taken = 0
    for number, (stamp, close) in enumerate(bars):
        found = hours.closing(stamp, seconds)
        before = [earlier for earlier, _ in bars[max(0, number - 2) : number]]
        late = found is None or found > close
        late |= bool(before) and not hours.follows(before[-1], stamp, seconds)
        early = found is not None and found < close
        early |= len(before) == 2 and hours.follows(before[0], stamp, seconds)
        if number and number % every == 0:
            stream = Stream(seconds, hours, CONTRACT, skew=0.0)
            late |= not takes(stream, *bars[number - 1])
            early |= takes(stream, stamp, close - 1)
            late |= not takes(stream, stamp, close)
        refused, taken = refused + late, taken + early
    return refused, taken


def daily(exchange: Exchange, way: str) -> tuple[int, int, int, int]:
    """Bars, moments at which there is none, wrongly refused, wrongly taken."""
    hours = exchange.hours("open")
    bars = [(exchange.stamp(day, way), exchange.days[day][-1][1]) for day in exchange.days]
    refused, taken = held(hours, DAY, bars, every=1)
    tried = 0
    for day in exchange.closed:
        stamp, tried = exchange.stamp(day, way), tried + 1
        taken += takes(Stream(DAY, hours, CONTRACT, skew=0.0), stamp, stamp + 7 * DAY)
    for day, (stamp, close) in zip(exchange.days, bars, strict=True):
        others = {exchange.stamp(day, other) for other in WAYS} - {stamp}
        for other in (*others, close, stamp + 60):
            stream, tried = Stream(DAY, hours, CONTRACT, skew=0.0), tried + 1
            takes(stream, stamp, close)
            taken += takes(stream, other, close + 7 * DAY)
    return len(bars), tried, refused, taken


def hourly(exchange: Exchange, grid: str, every: int) -> tuple[int, int, int, int]:
    """As `daily`."""
    hours = exchange.hours(grid.split(",", maxsplit=1)[0])
    bars = [bar for day in exchange.days for bar in exchange.hourly(day, grid)]
    refused, taken = held(hours, HOUR, bars, every)
    tried = 0
    for stamp in exchange.nowhere(grid):
        tried += 1
        taken += takes(Stream(HOUR, hours, CONTRACT, skew=0.0), stamp, stamp + 7 * DAY)
    return len(bars), tried, refused, taken


def show(columns: Sequence[object]) -> None:
    """A line of the table."""
    widths = (10, 27, 8, 9, 17, 14)
    pairs = list(zip(columns, widths, strict=True))
    texts = [f"{text:<{width}}" for text, width in pairs[:2]]
    print(*texts, *(f"{text:>{width}}" for text, width in pairs[2:]), flush=True)


def main() -> int:
    """0 all as the calendars say, 1 not."""
    options = argparse.ArgumentParser(description="Hold trading hours to exchanges' calendars.")
    add, day = options.add_argument, date.fromisoformat
    add("--from", dest="first", type=day, default="2006-01-01", help="date")
    add("--until", type=day, default="2025-12-31", help="date")
    add("--every", type=int, default=10, help="of how many hourly bars streams see one")
    given = options.parse_args()
    show(("market", "bars", "number", "none", "wrongly refused", "wrongly taken"))
    wrong = 0
    for code, name in MARKETS.items():
        exchange = Exchange(code, given.first, given.until)
        begin, end = min(exchange.days), max(exchange.days)
        print(f"{name}: {code}, {begin} to {end}, {' '.join(exchange.usual)}", flush=True)
        rows = [(f"day, {way}", daily(exchange, way)) for way in WAYS]
        rows += [(f"hour, {grid}", hourly(exchange, grid, given.every)) for grid in GRIDS]
        for bars, counts in rows:
            show((name, bars, *counts))
            wrong += counts[2] + counts[3]
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
