"""How a live engine trades, and the part of it that a journal keeps."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from threading import TIMEOUT_MAX
from typing import Any, Final, Self

from hrm_runtime.artifact.contract import Contract
from hrm_runtime.errors import BadInput
from hrm_runtime.journal.events import Line
from hrm_runtime.live.stream import Stream
from hrm_runtime.machine import usable_cores
from hrm_runtime.market.hours import TradingHours
from hrm_runtime.market.names import seconds_of

_LATEST_S: Final = 60.0

_DOCUMENTED: Final = ("deadline", "clock_skew", "failures", "workers", "batch", "streams")
"""Settings that are written as they are."""


@dataclass(frozen=True, kw_only=True)
class LiveSettings:
    """How an engine trades; every default is on the safe side.

    Attributes:
        name: of the engine among others of its process: in its `repr` and its metrics.
        hours: which bars there should be, hence what a gap is and when a bar is closed.
        markets: the same of instruments that trade by other hours, by name.
        deadline: seconds from call to answer; later is HOLD.
        stale_after: seconds after a bar's close in which a decision at it is still worth having,
            by timeframe in any spelling; half a bar, at most a minute, for those not named.
        clock_skew: seconds by which this machine's clock may be behind the feed's, but half a bar
            at most.
        failures: in a row that open the breaker.
        rollback_after: failures in a row, fewer than those, after which an artifact that was
            loaded meanwhile is replaced by the one before it; None leaves that to an operator.
        kill_file: a file whose existence stops all trading.
        strict: raise what is wrong instead of answering HOLD.
        workers: threads that decide; one for each core that this process may use, 4 at most.
        batch: decisions that one pass may make together when many wait.
        streams: series of bars that may be open.
        clock: epoch seconds.

    Raises:
        BadInput: a setting out of range.
    """

    name: str = ""
    hours: TradingHours = field(default_factory=TradingHours)
    markets: Mapping[str, TradingHours] = field(default_factory=dict)
    deadline: float = 1.0
    stale_after: Mapping[str, float] = field(default_factory=dict)
    clock_skew: float = 2.0
    failures: int = 3
    rollback_after: int | None = None
    kill_file: str | Path | None = None
    strict: bool = False
    workers: int = field(default_factory=lambda: min(4, usable_cores()))
    batch: int = 8
    streams: int = 1000
    clock: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        for name, fits, expected in (
            ("name", isinstance(self.name, str), "text"),
            ("hours", isinstance(self.hours, TradingHours), "TradingHours"),
            ("markets", isinstance(self.markets, Mapping), "TradingHours by instrument"),
            ("stale_after", _by_name(self.stale_after), "seconds by timeframe"),
            ("kill_file", isinstance(self.kill_file, str | Path | None), "a path"),
            ("clock", callable(self.clock), "a callable"),
        ):
            if not fits:
                raise BadInput(f"{name}: expected {expected}, found {getattr(self, name)!r}")
        for instrument, hours in self.markets.items():
            if not isinstance(instrument, str) or not instrument:
                raise BadInput(f"markets: expected names of instruments, found {instrument!r}")
            if not isinstance(hours, TradingHours):
                raise BadInput(f"markets[{instrument!r}]: expected TradingHours, found {hours!r}")
        for name, least in (("failures", 1), ("workers", 1), ("batch", 1), ("streams", 1)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise BadInput(f"{name}: expected at least {least}, found {value!r}")
        limit = self.rollback_after
        if limit is not None and (type(limit) is not int or not 1 <= limit < self.failures):
            raise BadInput(
                f"rollback_after: expected at least 1 and less than failures ({self.failures}), "
                f"found {limit!r}"
            )
        seconds = {"deadline": self.deadline, "clock_skew": self.clock_skew}
        seconds |= {f"stale_after[{name!r}]": value for name, value in self.stale_after.items()}
        for name, value in seconds.items():
            if not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise BadInput(f"{name}: expected seconds, found {value!r}")
        if not 0 < self.deadline <= TIMEOUT_MAX:
            raise BadInput(
                f"deadline: expected more than 0 and at most {TIMEOUT_MAX:g} seconds, found "
                f"{self.deadline!r}"
            )

    def __repr__(self) -> str:
        """Those that are not the defaults."""
        usual = LiveSettings()
        found = ((one.name, repr(getattr(self, one.name))) for one in fields(self))
        told = (f"{name}={v}" for name, v in found if v != repr(getattr(usual, name)))
        return f"LiveSettings({', '.join(told)})"

    def document(self) -> dict[str, Any]:
        """What a decision depends on, as JSON."""
        return {
            "hours": self.hours.document(),
            "markets": {name: hours.document() for name, hours in self.markets.items()},
            "stale_after": dict(self.stale_after),
            **{name: getattr(self, name) for name in _DOCUMENTED},
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Settings as `document` gave them; others have their defaults.

        Raises:
            BadInput: not such a document.
        """
        try:
            others = document.get("markets", {}).items()  # none in earlier ones
            markets = {name: TradingHours(**hours) for name, hours in others}
            hours = TradingHours(**document["hours"])
            return cls(**{**document, "hours": hours, "markets": markets})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise BadInput(f"settings: expected those of an engine: {error}") from error

    def stream(self, line: Line, contract: Contract) -> Stream:
        """A new stream of (instrument, timeframe), without bars.

        Raises:
            UnknownInstrument, UnknownTimeframe: the contract does not allow it.
        """
        contract.instrument(line[0])
        seconds = contract.timeframe_seconds(line[1])
        return Stream(seconds, self.hours_of(line[0]), contract, self.clock_skew)

    def hours_of(self, instrument: str) -> TradingHours:
        """Those by which `instrument` trades."""
        return self.markets.get(instrument, self.hours)

    def require_room(self, opened: int) -> None:
        """Refuse another stream where `opened` ones are as many as there may be.

        Raises:
            BadInput: they are.
        """
        if opened >= self.streams:
            raise BadInput(
                f"expected at most {self.streams} streams, found another; drop one to free a place"
            )

    def latest(self, timeframe: str, seconds: int) -> float:
        """Seconds after its close in which a bar of `timeframe` may be decided at."""
        usual = min(0.5 * seconds, _LATEST_S)
        if timeframe in self.stale_after or not self.stale_after:
            return self.stale_after.get(timeframe, usual)
        alike = (late for name, late in self.stale_after.items() if seconds_of(name) == seconds)
        return next(alike, usual)


def _by_name(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(name, str) for name in value)
