"""When a market trades: which bars there should be, and when each of them is closed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from itertools import pairwise
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from hrm_runtime.errors import BadInput

DAY: Final = 86_400
"""Seconds; a timeframe of so many has one bar for each trading day."""

_LONGEST_BREAK: Final = 400
"""Days without a session after which none is expected any more."""

_MOST_DAYS_KEPT: Final = 1000

Span = tuple[int, int]
"""From and until: minutes after a day's midnight, or epoch seconds."""


@dataclass(frozen=True, eq=False)
class TradingHours:
    """Sessions, time zone and holidays of a market. Without sessions it trades around the clock.

    Bars stand on a grid that starts anew each day when the first ordinary session opens, also on
    days with special sessions: exchanges stamp the hour in which an evening session from 18:00
    begins with 17:15 if ordinary days open at 09:15. A day has the bars of the grid that overlap
    its sessions; the last of a session is closed when the session ends.

    Attributes:
        sessions: of an ordinary day, local time, such as "09:15-15:30". One that ends at or before
            its start ends on the next day.
        time_zone: IANA name, for example "Asia/Kolkata". (For all but UTC Windows needs the
            package tzdata.)
        weekdays: those of ordinary days, Monday is 0.
        holidays: dates without a session, as `date` or "2024-11-15".
        special: sessions of a date in place of its ordinary ones, also where it has none.

    Raises:
        BadInput: a session, a date or a weekday that cannot be read, sessions that overlap, an
            unknown time zone, or days of a market that trades around the clock.
    """

    sessions: Sequence[str] = ()
    time_zone: str = "UTC"
    weekdays: Iterable[int] = range(5)
    holidays: Iterable[date | str] = ()
    special: Mapping[date | str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.sessions and (self.holidays or self.special):
            raise BadInput("hours: expected sessions beside holidays and special sessions")
        try:
            # UTC needs no data of time zones, which not every system has
            zone = UTC if self.time_zone == "UTC" else ZoneInfo(self.time_zone)
        except (ZoneInfoNotFoundError, ValueError, TypeError, OSError) as error:
            raise BadInput(
                f"hours.time_zone: expected an IANA name such as Asia/Kolkata, found "
                f"{self.time_zone!r} (on Windows: pip install tzdata)"
            ) from error
        weekdays = frozenset(self.weekdays)
        if not weekdays <= set(range(7)):
            found = sorted(weekdays, key=str)
            raise BadInput(f"hours.weekdays: expected 0 (Monday) to 6, found {found}")
        days: dict[date, tuple[Span, ...]] = {_date(day): () for day in self.holidays}
        days |= {_date(day): _spans(sessions) for day, sessions in self.special.items()}
        for name, value in {
            "_zone": zone,
            "_weekdays": weekdays,
            "_ordinary": _spans(self.sessions),
            "_days": days,
            "_grids": {},
        }.items():
            object.__setattr__(self, name, value)

    _zone: tzinfo = field(init=False, repr=False)
    _weekdays: frozenset[int] = field(init=False, repr=False)
    _ordinary: tuple[Span, ...] = field(init=False, repr=False)
    _days: dict[date, tuple[Span, ...]] = field(init=False, repr=False)
    _grids: dict[tuple[date, int], dict[int, int]] = field(init=False, repr=False)

    def __repr__(self) -> str:
        if not self._ordinary:
            return "TradingHours(around the clock)"
        given = self.document()
        days = f"holidays: {len(given['holidays'])}, special days: {len(given['special'])}"
        return f"TradingHours({' '.join(given['sessions'])} {self.time_zone}, {days})"

    def document(self) -> dict[str, Any]:
        """As JSON; `TradingHours(**document)` is equal in what it answers."""
        return {
            "sessions": [_text(span) for span in self._ordinary],
            "time_zone": self.time_zone,
            "weekdays": sorted(self._weekdays),
            "holidays": [str(day) for day, spans in self._days.items() if not spans],
            "special": {
                str(day): [_text(span) for span in spans]
                for day, spans in self._days.items()
                if spans
            },
        }

    def closing(self, stamp: int, seconds: int) -> int | None:
        """When the bar that opens at `stamp` is closed, in epoch seconds; None if there is none.

        Args:
            seconds: of the timeframe.
        """
        if not self._ordinary or seconds > DAY:
            return stamp + seconds
        day = self._date_of(stamp)
        if seconds == DAY:
            sessions = self._sessions(day)
            return sessions[-1][1] if sessions else None
        for ahead in (0, -1, 1):  # sessions may end, and bars may open, on another day
            grid = self._grid(day + timedelta(ahead), seconds)
            if stamp in grid:
                return grid[stamp]
        return None

    def follows(self, earlier: int, later: int, seconds: int) -> bool:
        """Whether the bar of `later` is the next there is after that of `earlier`."""
        if not self._ordinary or seconds > DAY:
            return later == earlier + seconds
        first = self._date_of(earlier)
        if seconds == DAY:
            days = (first + timedelta(1 + ahead) for ahead in range(_LONGEST_BREAK))
            return next((day for day in days if self._spans_of(day)), None) == self._date_of(later)
        for ahead in range(-1, _LONGEST_BREAK):
            grid = self._grid(first + timedelta(ahead), seconds)
            for opening in grid:
                if opening > earlier:
                    return opening == later
        return False

    def _date_of(self, stamp: int) -> date:
        return datetime.fromtimestamp(stamp, UTC).astimezone(self._zone).date()

    def _spans_of(self, day: date) -> tuple[Span, ...]:
        ordinary = self._ordinary if day.weekday() in self._weekdays else ()
        return self._days.get(day, ordinary)

    def _epoch(self, day: date, minutes: int) -> int:
        midnight = datetime.combine(day, time(), self._zone)
        return int((midnight + timedelta(minutes=minutes)).timestamp())  # by the clock on the wall

    def _sessions(self, day: date) -> list[Span]:
        return [
            (self._epoch(day, start), self._epoch(day, end)) for start, end in self._spans_of(day)
        ]

    def _grid(self, day: date, seconds: int) -> dict[int, int]:
        """Opening to closing time of the day's bars, in order."""
        grid = self._grids.get((day, seconds))
        if grid is None:
            if len(self._grids) >= _MOST_DAYS_KEPT:
                self._grids.clear()
            anchor = self._epoch(day, self._ordinary[0][0])
            grid = {}
            for start, end in self._sessions(day):
                opening = start - (start - anchor) % seconds
                while opening < end:
                    grid[opening] = min(opening + seconds, end)
                    opening += seconds
            self._grids[day, seconds] = grid
        return grid


def _date(day: date | str) -> date:
    try:
        if type(day) is date:  # a datetime is a date too, but equal to none
            return day
        return date.fromisoformat(day)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise BadInput(f"hours: expected a date such as 2024-11-15, found {day!r}") from error


def _spans(sessions: Sequence[str]) -> tuple[Span, ...]:
    if isinstance(sessions, str):
        raise BadInput(f'hours: expected a list of sessions, found the text "{sessions}"')
    spans = tuple(_span(session) for session in sessions)
    if any(later[0] < earlier[1] for earlier, later in pairwise(spans)) or (
        spans and spans[-1][1] > spans[0][0] + DAY // 60
    ):
        raise BadInput(f"hours: expected sessions in order that do not overlap, found {sessions}")
    return spans


def _span(session: str) -> Span:
    try:
        start, end = (_minutes(moment) for moment in session.split("-"))
    except (AttributeError, TypeError, ValueError) as error:
        raise BadInput(
            f"hours: expected a session such as 09:15-15:30, found {session!r}"
        ) from error
    return start, end if end > start else end + DAY // 60


def _text(span: Span) -> str:
    """As `_span` reads it."""
    return "-".join(f"{minutes // 60 % 24:02}:{minutes % 60:02}" for minutes in span)


def _minutes(moment: str) -> int:
    hours, minutes = moment.strip().split(":")
    if not (
        len(hours) == len(minutes) == 2
        and (hours + minutes).isdigit()
        and hours < "24"
        and minutes < "60"
    ):
        raise ValueError(moment)
    return 60 * int(hours) + int(minutes)
