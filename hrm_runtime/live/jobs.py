"""What is on its way through a live engine: asks and feeds, and what the network is asked."""

import math
import time
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy.typing as npt

from hrm_runtime.artifact.decision import Decision
from hrm_runtime.artifact.session import Stop
from hrm_runtime.errors import UnknownInstrument, UnknownTimeframe
from hrm_runtime.journal.events import Change, Line
from hrm_runtime.market.account import Account
from hrm_runtime.market.bars import Bars


class Ask:
    """A bar and an account on their way to a decision. It is answered once: by who claims it."""

    def __init__(self, bar: Any, account: Any) -> None:
        self.line: Line = ("", "")
        self.bar = dict(bar) if type(bar) is dict else bar  # the caller may change its own
        self.account = dict(account) if type(account) is dict else account
        self.started = time.perf_counter()
        self.answer: Future[Decision] = Future()
        self.trouble: BaseException | None = None
        self.at = math.nan
        self.stamp: int | None = None
        self.read: Account | None = None
        self.company: Company | None = None
        self._claim = Lock()

    def claim(self) -> bool:
        """Whether the caller may answer; True once."""
        return self._claim.acquire(blocking=False)

    @property
    def claimed(self) -> bool:
        """Whether somebody has claimed it."""
        return self._claim.locked()

    def left(self, deadline: float) -> float:
        """Seconds until `deadline`, which began with the call."""
        return deadline - (time.perf_counter() - self.started)

    def leave(self) -> None:
        """Stop the pass that is run for it if nobody waits for that any more.

        One that was given up, by a cancelled task or an interrupt, counts for nothing.
        """
        self.claim()
        if self.company is not None and self.company.deserted:
            self.company.stop.set()


class Company:
    """The asks that one pass of the graph is run for, and what stops it when all are gone."""

    def __init__(self, asks: list[Ask]) -> None:
        self.stop = Stop()
        self._asks = asks

    @property
    def deserted(self) -> bool:
        """Whether nobody waits any more."""
        return all(ask.claimed for ask in self._asks)


class Feed:
    """A change of a stream's bars on its way: `bars` are none where it is dropped."""

    def __init__(self, line: Line, bars: Bars, change: Change = Change.ADDED) -> None:
        self.line = line
        self.bars = bars
        self.change = change
        self.done: Future[None] = Future()


@dataclass(frozen=True, eq=False)
class Question:
    """An ask that may be decided, as the network takes it."""

    ask: Ask
    account: Account
    inputs: tuple[npt.NDArray[Any], ...]


def line_of(instrument: str, timeframe: str) -> Line:
    """The line of a stream, by names as a host gives them.

    Raises:
        UnknownInstrument, UnknownTimeframe: not text.
    """
    if not isinstance(instrument, str):
        raise UnknownInstrument(f"instrument: expected a name, found {instrument!r}")
    if not isinstance(timeframe, str):
        raise UnknownTimeframe(f"timeframe: expected a name, found {timeframe!r}")
    return str.__str__(instrument), str.__str__(timeframe)  # a subclass may compare as it likes
