"""One series of closed bars as they come: what may be added, and the rows behind a decision."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from hrm_runtime.artifact.contract import Contract
from hrm_runtime.artifact.decision import Reason
from hrm_runtime.errors import BadBars, Untrusted
from hrm_runtime.journal.events import Change
from hrm_runtime.market.bars import PRICES, REQUIRED, Bar, Bars, Integers, same_prices
from hrm_runtime.market.features import Row, rows
from hrm_runtime.market.hours import DAY, TradingHours
from hrm_runtime.market.spacing import require_spacing
from hrm_runtime.market.stamps import LATEST_STAMP, moment


class Stream:
    """The newest `contract.bars_needed` bars of one instrument and timeframe, and their W rows.

    One thread at a time may call it; `bars` and `rows` are replaced, never changed, so that any
    thread may read them.

    Args:
        seconds: length of a bar.
        hours: which bars there should be.
        skew: seconds by which this machine's clock may be behind; of short bars half a bar.

    Attributes:
        bars: the newest, None before the first.
        rows: of the newest bars, W once there is history enough.
    """

    def __init__(self, seconds: int, hours: TradingHours, contract: Contract, skew: float) -> None:
        self.seconds = seconds
        self.bars: Bars | None = None
        self.rows: tuple[Row, ...] = ()
        self._hours = hours
        self._history = contract.features.history_bars
        self._window = contract.features.window
        self._needed = contract.bars_needed
        self._skew = min(skew, seconds / 2)  # no bar is taken before it opens

    @property
    def ready(self) -> bool:
        """Whether there is history enough for a decision."""
        return len(self.rows) == self._window

    def feed(self, bars: Bars, now: float) -> None:
        """Add bars at any place: history, or what was missed.

        Raises:
            BadBars: one differs from a bar that is there, or is of another timeframe or stamped in
                another way.
            Untrusted: future, where one is not closed yet.
        """
        if not len(bars):
            return
        self._require_finished(bars, now)
        if self.bars is not None and (why := contradiction(self.bars, bars)):
            raise BadBars(f"bars: {why}")
        self._join(bars)

    def correct(self, bars: Bars, now: float) -> None:
        """Add bars as `feed`; those with the stamp of a bar that is there take its place.

        Raises:
            BadBars: one is of another timeframe.
            Untrusted: future, where one is not closed yet.
        """
        if not len(bars):
            return
        self._require_finished(bars, now)
        self._join(bars)

    def reset(self, bars: Bars, now: float) -> None:
        """Begin anew: `bars` are all that there are.

        Raises:
            BadBars: there are none, or one is of another timeframe.
            Untrusted: future, where one is not closed yet.
        """
        if not len(bars):
            raise BadBars(
                "bars: expected at least one to begin anew with, found none; drop forgets a stream"
            )
        self._require_finished(bars, now)
        self._have(_merged(bars), len(bars))

    def change(self, change: Change, bars: Bars, now: float) -> None:
        """Have `bars` added or corrected, or begin anew with them, as `change` says.

        Raises:
            BadBars, Untrusted: as `feed`, `correct` and `reset`; nothing has changed.
        """
        if change is Change.CORRECTED:
            self.correct(bars, now)
        elif change is Change.RESET:
            self.reset(bars, now)
        else:
            self.feed(bars, now)

    def take(self, given: Bar | Mapping[str, Any], now: float) -> None:
        """Add the next closed bar. One equal to the newest changes nothing.

        Raises:
            Untrusted: it does not belong here, and was not added: out_of_order, future, or
                bad_input where it contradicts the newest bar or hours do not know it.
            BadBars: it is not a bar, or one of another timeframe or stamped in another way.
        """
        bar = Bars.of_one(given)
        stamp = int(bar.datetime[0])
        newest = None if self.bars is None else int(self.bars.datetime[-1])
        if newest is not None and stamp < newest:
            raise Untrusted(
                Reason.OUT_OF_ORDER,
                f"bar: expected one after {moment(newest)}, found {moment(stamp)}; to fill a hole, "
                "feed what was missed; to replace a bar, correct it",
            )
        if self.bars is not None and stamp == newest:
            if why := contradiction(self.bars, bar):
                raise Untrusted(Reason.BAD_INPUT, f"bar: {why}")
            return
        closing = self._hours.closing(stamp, self.seconds)
        if closing is None:
            raise Untrusted(Reason.BAD_INPUT, self._unknown(stamp))
        self._require_closed(stamp, closing, now)
        self._join(bar)

    def age(self, now: float) -> float:
        """Seconds since the newest bar was closed; there must be one."""
        assert self.bars is not None
        return now - self._closing(int(self.bars.datetime[-1]))

    def require_window(self) -> None:
        """Hold the stream to what a decision at the newest bar needs.

        Raises:
            Untrusted: warming_up or gap.
        """
        assert self.bars is not None
        if not self.ready:
            raise Untrusted(
                Reason.WARMING_UP,
                f"expected {self._needed} bars for a decision, found "
                f"{len(self.bars)}; feed history to start at once",
            )
        earlier, newest = self.bars.datetime[-2:].tolist()
        if not self._hours.follows(earlier, newest, self.seconds):
            raise Untrusted(
                Reason.GAP,
                f"bars: expected the one that follows {moment(earlier)}, found {moment(newest)}; "
                "the next one decides again, or feed what was missed",
            )

    def _closing(self, stamp: int) -> int:
        """When the bar of `stamp` is closed, by the timeframe alone where hours do not know it."""
        closing = self._hours.closing(stamp, self.seconds)
        return stamp + self.seconds if closing is None else closing

    def _unknown(self, stamp: int) -> str:
        """What was expected instead of a bar that hours do not know."""
        if self.seconds == DAY:
            return (
                "bar: expected a trading day's, stamped with the opening of its first session, or "
                f"with its date at 00:00 UTC or at midnight in {self._hours.time_zone}, found "
                f"{moment(stamp)}: another way to stamp, or a session that hours do not know"
            )
        return (
            f"bar: expected the opening of a bar of {self.seconds} s within trading hours, found "
            f"{moment(stamp)}: another timeframe, or a session that hours do not know"
        )

    def _require_closed(self, stamp: int, closing: int, now: float) -> None:
        if closing > now + self._skew:
            clock = moment(int(now)) if 0 <= now < LATEST_STAMP else str(now)
            raise Untrusted(
                Reason.FUTURE,
                f"bar: expected one closed by {clock}, found that of {moment(stamp)}, "
                f"which closes at {moment(closing)}; pass closed bars, and look at the clock",
            )

    def _require_finished(self, bars: Bars, now: float) -> None:
        newest = int(bars.datetime[-1])
        self._require_closed(newest, self._closing(newest), now)

    def _join(self, new: Bars) -> None:
        """Have `new` bars too, in the place of those with their stamps."""
        old = self.bars
        if old is None:
            self._have(_merged(new), len(new))
        elif new.datetime[0] > old.datetime[-1]:
            self._have(_merged(old, new), len(new), self.rows)
        else:
            merged = _merged(_without(old, new.datetime), new)
            self._have(merged, len(merged))

    def _have(self, bars: Bars, new: int, before: tuple[Row, ...] = ()) -> None:
        """Have the newest of `bars`, of which the last `new` come after the rows `before`."""
        bars = bars[max(0, len(bars) - self._needed) :]
        require_spacing(bars.datetime, self.seconds, self._hours, min(new, len(bars)))
        missing = min(new, self._window, len(bars) - self._history + 1)
        made: tuple[Row, ...] = ()
        if missing > 0:
            made = tuple(rows(bars[len(bars) - self._history - missing + 1 :], self._history))
        self.rows = (*before, *made)[-self._window :]
        self.bars = bars


def contradiction(known: Bars, found: Bars) -> str | None:
    """What `found` says of a bar of `known` that is not what was known; None where nothing."""
    _, before, now = np.intersect1d(
        known.datetime, found.datetime, assume_unique=True, return_indices=True
    )
    ours, theirs = (
        np.stack([getattr(bars, name)[places] for name in PRICES])
        for bars, places in ((known, before), (found, now))
    )
    same = same_prices(theirs, ours)
    if same.all():
        return None
    where = int(np.argmin(same))
    return (
        f"expected what was given for {moment(int(known.datetime[before[where]]))} before, "
        f"{tuple(ours[:, where].tolist())}, found {tuple(theirs[:, where].tolist())}; correct puts "
        "a bar in the place of another, reset in the place of all"
    )


def _without(bars: Bars, stamps: Integers) -> Bars:
    """Those of other stamps."""
    others = ~np.isin(bars.datetime, stamps)
    return Bars(*(getattr(bars, name)[others] for name in REQUIRED))


def _merged(*parts: Bars) -> Bars:
    """All bars of `parts`, in order, without volume."""
    return Bars(*(np.concatenate([getattr(part, name) for part in parts]) for name in REQUIRED))
