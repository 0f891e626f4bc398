"""When a market trades: which bars there should be, and when each of them is closed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from itertools import pairwise
from math import inf
from typing import Any, Final, Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from hrm_runtime.errors import BadInput

DAY: Final = 86_400
"""Seconds; a timeframe of so many has one bar for each trading day."""

_LONGEST_BREAK: Final = 400
"""Days without a session after which none is expected any more."""

_MOST_KEPT: Final = 100_000
"""Bars of days that were cut; a day of 1 s bars has as many as 86,400."""

Span = tuple[int, int]
"""From and until: minutes after a day's midnight, or epoch seconds."""

Grid = Literal["open", "session", "clock"]


@dataclass(frozen=True, slots=True)
class _Day:
    """A day's bars, opening to closing in order, and other stamps to the opening that they mean."""

    bars: dict[int, int]
    aliases: dict[int, int] = field(default_factory=dict)


class _Days(dict[tuple[date, int], _Day]):
    """Days that were cut, by timeframe, until they are too many."""

    _size = 0

    def keep(self, day: date, seconds: int, cut: _Day) -> None:
        if self._size > _MOST_KEPT:
            self.clear()
            self._size = 0
        self[day, seconds] = cut
        self._size += 1 + len(cut.bars)


@dataclass(frozen=True, eq=False)
class TradingHours:
    """Sessions, time zone and holidays of a market. Without sessions it trades around the clock.

    A day has the bars of its grid that overlap its sessions; the last of a session is closed when
    the session ends. The grid starts anew

    - "open": when the first ordinary session of a day opens, also on days with special sessions:
      exchanges stamp the hour in which an evening session from 18:00 begins with 17:15 if ordinary
      days open at 09:15;
    - "session": when each session opens, as after a lunch break at 13:00;
    - "clock": never; bars are cut at multiples of the timeframe by the clock on the wall. The first
      of a session is shorter and stamped with its opening, 09:30; the grid's own stamp, 09:00,
      means the same bar. So does the opening of a session after a break within a bar: with a break
      from 10:15 to 10:30, 10:30 means the bar from 10:00 to 11:00.

    No bar goes on from a day's last session into the next day's first: on the clock's grid of 4 h
    sessions from 18:00 to 17:00 end with a bar from 16:00 to 17:00 and begin with one from 18:00.

    A daily bar is stamped with the opening of its day's first session (or of the first ordinary
    one), else with its date, at 00:00 UTC or at midnight of the market. A date names the sessions
    in whose middle it lies: those from 18:00 to 17:00 are named after the day on which they end.

    Attributes:
        sessions: of an ordinary day, local time, such as "09:15-15:30". One that ends at or before
            its start ends on the next day.
        time_zone: IANA name, for example "Asia/Kolkata". (For all but UTC Windows needs the
            package tzdata.)
        weekdays: those of ordinary days, Monday is 0.
        holidays: dates without a session, as `date` or "2024-11-15".
        special: sessions of a date in place of its ordinary ones, also where it has none. The date
            is that on which the first of them begins, as of holidays.
        grid: "open", "session" or "clock".

    Raises:
        BadInput: a session, a date or a weekday that cannot be read, sessions that overlap, an
            unknown time zone or grid, or days of a market that trades around the clock.
    """

    sessions: Sequence[str] = ()
    time_zone: str = "UTC"
    weekdays: Iterable[int] = range(5)
    holidays: Iterable[date | str] = ()
    special: Mapping[date | str, Sequence[str]] = field(default_factory=dict)
    grid: Grid = "open"

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
        if self.grid not in get_args(Grid):
            raise BadInput(f"hours.grid: expected open, session or clock, found {self.grid!r}")
        days: dict[date, tuple[Span, ...]] = {_date(day): () for day in self.holidays}
        days |= {_date(day): _spans(sessions) for day, sessions in self.special.items()}
        for name, value in {
            "_zone": zone,
            "_weekdays": weekdays,
            "_ordinary": _spans(self.sessions),
            "_days": days,
            "_kept": _Days(),
        }.items():
            object.__setattr__(self, name, value)

    _zone: tzinfo = field(init=False, repr=False)
    _weekdays: frozenset[int] = field(init=False, repr=False)
    _ordinary: tuple[Span, ...] = field(init=False, repr=False)
    _days: dict[date, tuple[Span, ...]] = field(init=False, repr=False)
    _kept: _Days = field(init=False, repr=False)

    def __repr__(self) -> str:
        if not self._ordinary:
            return "TradingHours(around the clock)"
        given = self.document()
        days = f"holidays: {len(given['holidays'])}, special days: {len(given['special'])}"
        grid = "" if self.grid == "open" else f", grid: {self.grid}"
        return f"TradingHours({' '.join(given['sessions'])} {self.time_zone}, {days}{grid})"

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
            "grid": self.grid,
        }

    def closing(self, stamp: int, seconds: int) -> int | None:
        """When the bar of `stamp` is closed, in epoch seconds; None if there is none.

        Args:
            seconds: of the timeframe.
        """
        if not self._ordinary or seconds > DAY:
            return stamp + seconds
        if seconds == DAY:
            day = self._day_of(stamp)
            return None if day is None else next(iter(self._bars(day, DAY).bars.values()), None)
        local = self._date_of(stamp)
        near = [local + timedelta(ahead) for ahead in (0, -1, 1)]
        for day in near:  # sessions may end, and bars may open, on another day
            bars = self._bars(day, seconds).bars
            if stamp in bars:
                return bars[stamp]
        days = (self._bars(day, seconds) for day in near)
        return next((one.bars[one.aliases[stamp]] for one in days if stamp in one.aliases), None)

    def follows(self, earlier: int, later: int, seconds: int) -> bool:
        """Whether the bar of `later` is the next there is after that of `earlier`."""
        if not self._ordinary or seconds > DAY:
            return later == earlier + seconds
        closed, since = self.closing(earlier, seconds), -inf
        if closed is None:
            closed = since = earlier
        first = self._date_of(earlier)
        for ahead in range(-1, _LONGEST_BREAK):
            day = self._bars(first + timedelta(ahead), seconds)
            for opening, closing in day.bars.items():
                if closing > closed and opening > since:
                    return opening == later or closing == self.closing(later, seconds)
        return False

    def overlap(self, earlier: int, later: int, seconds: int) -> bool | None:
        """Whether `later` stands for the bar of `earlier` once more, or for a part of it.

        None where no session says when that bar is closed: around the clock, or outside of hours.
        """
        first, second = self.closing(earlier, seconds), self.closing(later, seconds)
        if first is None or not self._ordinary:
            return None
        if second is not None and seconds == DAY:
            return second <= first  # a date may begin before the session of the one before ends
        return later < min(first, earlier + seconds)

    def _local(self, stamp: int) -> datetime:
        return datetime.fromtimestamp(stamp, UTC).astimezone(self._zone)

    def _date_of(self, stamp: int) -> date:
        return self._local(stamp).date()

    def _spans_of(self, day: date) -> tuple[Span, ...]:
        ordinary = self._ordinary if day.weekday() in self._weekdays else ()
        return self._days.get(day, ordinary)

    def _day_of(self, stamp: int) -> date | None:
        """When the sessions of the daily bar of `stamp` begin; None where it is that of no day."""
        local = self._date_of(stamp)
        spans = self._spans_of(local)
        openings = (60 * first[0][0] for first in (spans, self._ordinary))
        if spans and any(self._epoch(local, opening) == stamp for opening in openings):
            return local
        if self._epoch(local, 0) == stamp:  # where a night skips midnight, the moment it skips to
            named = local
        elif stamp % DAY == 0:
            named = datetime.fromtimestamp(stamp, UTC).date()
        else:
            return None
        begun = (named - timedelta(before) for before in range(2))
        return next((day for day in begun if self._trade_date(day) == named), None)

    def _trade_date(self, day: date) -> date | None:
        """On which the middle of the sessions lies that begin on `day`."""
        spans = self._spans_of(day)
        return day + timedelta(minutes=(spans[0][0] + spans[-1][1]) // 2) if spans else None

    def _epoch(self, day: date, seconds: int) -> int:
        """Of a moment by the clock on the wall, so many seconds after midnight."""
        midnight = datetime.combine(day, time(), self._zone)
        return int((midnight + timedelta(seconds=seconds)).timestamp())

    def _sessions(self, day: date) -> list[Span]:
        return [
            (self._epoch(day, 60 * start), self._epoch(day, 60 * end))
            for start, end in self._spans_of(day)
        ]

    def _shown(self, day: date, seconds: int) -> list[int]:
        """When the clock on the wall shows that moment: once, or in a night twice or not at all."""
        wall = datetime.combine(day, time()) + timedelta(seconds=seconds)
        moments = {int(wall.replace(tzinfo=self._zone, fold=fold).timestamp()) for fold in (0, 1)}
        return [one for one in sorted(moments) if self._local(one).replace(tzinfo=None) == wall]

    def _bars(self, day: date, seconds: int) -> _Day:
        """Those of the sessions that begin on `day`."""
        bars = self._kept.get((day, seconds))
        if bars is None:
            cut = self._cut_by_clock if self.grid == "clock" else self._cut_from_anchor
            bars = self._whole(day) if seconds == DAY else cut(day, seconds)
            self._kept.keep(day, seconds, bars)
        return bars

    def _whole(self, day: date) -> _Day:
        sessions = self._sessions(day)
        return _Day({sessions[0][0]: sessions[-1][1]} if sessions else {})

    def _cut_from_anchor(self, day: date, seconds: int) -> _Day:
        bars: dict[int, int] = {}
        anchor = self._epoch(day, 60 * self._ordinary[0][0])
        for start, end in self._sessions(day):
            opening = start - (start - anchor) % seconds if self.grid == "open" else start
            while opening < end:
                bars[opening] = min(opening + seconds, end)
                opening += seconds
        return _Day(bars)

    def _cut_by_clock(self, day: date, seconds: int) -> _Day:
        bars: dict[int, int] = {}
        aliases: dict[int, int] = {}
        last: int | None = None
        times = zip(self._spans_of(day), self._sessions(day), strict=True)
        for span, (opening, close) in times:
            cuts = self._clock_cuts(day, span, seconds)
            grid = max((one for one in cuts if one <= opening), default=opening)
            first = opening if last is None or grid > last else last  # the break lies within that
            bars |= pairwise([first, *(one for one in cuts if opening < one < close), close])
            others = (one for one in (*cuts, opening) if one <= opening and one not in bars)
            aliases |= {one: first for one in others if one not in aliases}
            last = next(reversed(bars))
        return _Day(bars, aliases)

    def _clock_cuts(self, day: date, span: Span, seconds: int) -> list[int]:
        """When the clock on the wall cuts a session, from the last time before it opens on."""
        start, end = (60 * minutes for minutes in span)
        walls = [*range(start - start % seconds, min(end, DAY), seconds), *range(DAY, end, seconds)]
        opening, close = self._epoch(day, start), self._epoch(day, end)
        if self._local(opening - seconds).utcoffset() == self._local(close).utcoffset():
            return [opening + wall - start for wall in walls]
        return sorted(moment for wall in walls for moment in self._shown(day, wall))


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
