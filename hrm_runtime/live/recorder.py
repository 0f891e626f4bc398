"""The order in which a live engine's doings count: numbers of decisions, events for the journal."""

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager

from hrm_runtime.journal.events import Control, Controlled, Event
from hrm_runtime.journal.writer import Journal
from hrm_runtime.locks import reentrant
from hrm_runtime.market.bars import Bars


class Recorder:
    """Numbers decisions from 1, and hands events to the journal, if there is one. Thread-safe.

    Its lock guards the numbers and what is known to be stopped: the journal has decisions in the
    order of their numbers, and what stopped all trading before the first that it made HOLD.

    Args:
        journal: begun before the first event.
    """

    def __init__(self, journal: Journal | None = None) -> None:
        self._journal = journal
        self._order = reentrant()
        self._numbers = itertools.count(1)
        self._stopped: set[Control] = set()

    @property
    def keeps(self) -> bool:
        """Whether events are kept: there is a journal."""
        return self._journal is not None

    def record(self, event: Event, bars: Bars | None = None) -> None:
        """Keep `event`.

        Args:
            bars: all that the stream has after it, where it changed them.
        """
        if self._journal is not None:
            self._journal.record(event, bars)

    @contextmanager
    def numbered(self) -> Iterator[int]:
        """The number of the next decision; no other gets one until it is recorded."""
        with self._order:
            yield next(self._numbers)

    def stopped(self, what: Control, why: str) -> None:
        """Record what stops all trading, once until it is undone."""
        with self._order:
            if what not in self._stopped:
                self._stopped.add(what)
                self.record(Controlled(time.time(), what, why=why))

    def undone(self, stop: Control, what: Control) -> None:
        """Record `what` lets trade again after `stop`."""
        with self._order:
            self._stopped.discard(stop)
            self.record(Controlled(time.time(), what))
