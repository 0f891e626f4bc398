"""How everything is after some events: what a file begins with, so that it stands alone."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from hrm_runtime.journal.events import (
    Change,
    Control,
    Controlled,
    Event,
    Fed,
    Line,
    Loaded,
    Taken,
)
from hrm_runtime.market.bars import Bars

_SWITCHES: Final[Mapping[Control, Control]] = {
    Control.KILLED: Control.KILLED,
    Control.REVIVED: Control.KILLED,
    Control.BREAKER_OPENED: Control.BREAKER_OPENED,
    Control.BREAKER_CLOSED: Control.BREAKER_OPENED,
}
"""What turns off trading, by what turns it off or on."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An event, and all the bars that its stream has after it, where it changed them."""

    event: Event
    bars: Bars | None = None


class State:
    """The artifact, what was switched, and each stream's bars; None where it was dropped."""

    def __init__(self) -> None:
        self.loaded: Loaded | None = None
        self.switched: dict[Control, Controlled] = {}
        self.bars: dict[Line, Bars | None] = {}

    def apply(self, entry: Entry) -> None:
        """Be as everything is after `entry`."""
        event = entry.event
        if isinstance(event, Loaded):
            self.loaded = event
        elif isinstance(event, Controlled) and event.what in _SWITCHES:
            self.switched[_SWITCHES[event.what]] = event
        elif isinstance(event, Fed) and event.change is Change.DROPPED:
            self.bars[event.line] = None
        elif isinstance(event, Fed | Taken) and entry.bars is not None:
            self.bars[event.line] = entry.bars

    def update(self, later: "State") -> None:
        """Be as everything is after what made `later` out of nothing; what was dropped is gone."""
        self.loaded = later.loaded or self.loaded
        self.switched |= later.switched
        self.bars |= later.bars
        for line in [line for line, bars in later.bars.items() if bars is None]:
            del self.bars[line]

    def entries(self) -> list[Entry]:
        """What says so in a file: no trading first, where it is so, then bars."""
        at = time.time()
        return [
            *([Entry(self.loaded)] if self.loaded else []),
            *(Entry(event) for switch, event in self.switched.items() if event.what is switch),
            *(
                Entry(Fed(at, line, bars, Change.SNAPSHOT), bars)
                for line, bars in self.bars.items()
                if bars is not None
            ),
        ]
