"""One series of closed bars as they come: what may be added, and the rows behind a decision."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from hrm_runtime.artifact.contract import Contract
from hrm_runtime.artifact.decision import Reason
from hrm_runtime.errors import Untrusted
from hrm_runtime.market.bars import REQUIRED, Bar, Bars, same_prices
from hrm_runtime.market.features import Row, rows
from hrm_runtime.market.hours import TradingHours
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
            BadBars: one differs from a bar that is there, or is of another timeframe.
            Untrusted: future, where one is not closed yet.
        """
        if not len(bars):
            return
        self._require_closed(int(bars.datetime[-1]), now)
        self._join(bars)

    def take(self, given: Bar | Mapping[str, Any], now: float) -> None:
        """Add the next closed bar. One equal to the newest changes nothing.

        Raises:
            Untrusted: it does not belong here, and was not added: out_of_order, future, or
                bad_input where it contradicts the newest bar or is outside trading hours.
            BadBars: it is not a bar, or one of another timeframe.
        """
        bar = Bars.of_one(given)
        stamp = int(bar.datetime[0])
        newest = None if self.bars is None else int(self.bars.datetime[-1])
        if newest is not None and stamp < newest:
            raise Untrusted(
                Reason.OUT_OF_ORDER,
                f"bar: expected one after {moment(newest)}, found {moment(stamp)}; to fill a hole, "
                "feed what was missed",
            )
        if newest is not None and stamp == newest:
            self._require_equal(bar)
            return
        closing = self._require_closed(stamp, now)
        if closing is None:
            raise Untrusted(
                Reason.BAD_INPUT,
                f"bar: expected the opening of a bar of {self.seconds} s within trading hours, "
                f"found {moment(stamp)}: another timeframe, or a session that hours do not know",
            )
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

    def _require_closed(self, stamp: int, now: float) -> int | None:
        closing = self._hours.closing(stamp, self.seconds)
        expected = self._closing(stamp)
        if expected > now + self._skew:
            clock = moment(int(now)) if 0 <= now < LATEST_STAMP else str(now)
            raise Untrusted(
                Reason.FUTURE,
                f"bar: expected one closed by {clock}, found that of {moment(stamp)}, "
                f"which closes at {moment(expected)}; pass closed bars, and look at the clock",
            )
        return closing

    def _require_equal(self, bar: Bars) -> None:
        assert self.bars is not None
        known, found = self.bars.newest(), bar.newest()
        prices = (np.array(one[1:5]).reshape(-1, 1) for one in (known, found))
        if not same_prices(*prices).all():
            raise Untrusted(
                Reason.BAD_INPUT,
                f"bar: expected what was given for {moment(known.datetime)} before, {known[1:5]}, "
                f"found {found[1:5]}",
            )

    def _join(self, new: Bars) -> None:
        """Merge `new` bars in and compute the rows that this changes."""
        old = self.bars
        later = old is not None and new.datetime[0] > old.datetime[-1]
        count = min(len(new), self._window) if later else self._window
        parts = [new] if old is None else [old, new]
        merged = Bars(*(np.concatenate([getattr(p, name) for p in parts]) for name in REQUIRED))
        require_spacing(merged.datetime, self.seconds, self._hours)
        merged = merged[max(0, len(merged) - self._needed) :]
        kept = self.rows if later else ()
        missing = min(count, len(merged) - self._history + 1)
        made: tuple[Row, ...] = ()
        if missing > 0:
            made = tuple(rows(merged[len(merged) - self._history - missing + 1 :], self._history))
        self.rows = (*kept, *made)[-self._window :]
        self.bars = merged
