"""What happens to a live engine: events, and a journal's tables, in which each is a row."""

import hashlib
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from enum import IntEnum, StrEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hrm_runtime.artifact.decision import Decision, Reason
from hrm_runtime.market.account import Account
from hrm_runtime.market.bars import REQUIRED, Bar, Bars

FORMAT_VERSION: Final = 2
"""Of a journal's files."""

LARGEST_VALUE: Final = 100_000_000
"""Bytes of one value, and of one row: two million bars."""

SCHEMA: Final = """
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
);
CREATE TABLE artifact (
    event INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    model_id TEXT NOT NULL,
    name TEXT NOT NULL,
    why TEXT NOT NULL
);
CREATE TABLE control (
    event INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    what TEXT NOT NULL,
    number INTEGER NOT NULL,
    why TEXT NOT NULL
);
CREATE TABLE feed (
    event INTEGER PRIMARY KEY,
    at REAL,
    instrument TEXT NOT NULL,
    timeframe TEXT NOT NULL,
    snapshot INTEGER NOT NULL,
    bars BLOB NOT NULL
);
CREATE TABLE bar (
    event INTEGER PRIMARY KEY,
    at REAL,
    instrument TEXT NOT NULL,
    timeframe TEXT NOT NULL,
    datetime INTEGER,
    open REAL,
    high REAL,
    low REAL,
    close REAL,
    reason TEXT NOT NULL,
    why TEXT
);
CREATE TABLE decision (
    event INTEGER PRIMARY KEY,
    sequence INTEGER NOT NULL UNIQUE,
    at REAL,
    instrument TEXT NOT NULL,
    timeframe TEXT NOT NULL,
    datetime INTEGER,
    capital REAL,
    position_quantity REAL,
    entry_price REAL,
    unrealized_pnl REAL,
    is_position_open INTEGER,
    distance_to_trail REAL,
    action TEXT NOT NULL,
    quantity REAL NOT NULL,
    value REAL NOT NULL,
    buy_long REAL NOT NULL,
    sell_short REAL NOT NULL,
    close_long REAL NOT NULL,
    close_short REAL NOT NULL,
    hold REAL NOT NULL,
    q_halt REAL NOT NULL,
    q_continue REAL NOT NULL,
    segments INTEGER NOT NULL,
    reason TEXT NOT NULL,
    why TEXT,
    model_id TEXT NOT NULL,
    latency_ms REAL NOT NULL,
    repeats INTEGER,
    outputs BLOB,
    states BLOB
);
CREATE INDEX decision_line ON decision (instrument, timeframe, datetime);
"""

Line = tuple[str, str]
"""(instrument, timeframe)."""

Outputs = Mapping[str, npt.NDArray[Any]]

STATES: Final = ("z_H_out", "z_L_out")
"""Outputs of which a digest is kept; the others are kept whole."""


class Control(StrEnum):
    """What may happen to an engine besides bars and decisions."""

    KILLED = "killed"
    REVIVED = "revived"
    BREAKER_OPENED = "breaker opened"
    BREAKER_CLOSED = "breaker closed"
    LOST = "lost"


class Change(IntEnum):
    """What may happen to a stream's bars without a decision; the column `snapshot` of a feed."""

    ADDED = 0
    SNAPSHOT = 1
    CORRECTED = 2
    RESET = 3
    DROPPED = 4


CHANGES: Final[Mapping[str, tuple[Change, ...]]] = {
    "1": (Change.ADDED, Change.SNAPSHOT),
    str(FORMAT_VERSION): tuple(Change),
}
"""Those that a file may have, by each version that is read."""


CAUSES: Final[Mapping[Reason, Control]] = {
    Reason.KILLED: Control.KILLED,
    Reason.BREAKER: Control.BREAKER_OPENED,
}
"""What stopped all trading, and must have happened before, where a decision says so."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """An artifact decides from now on."""

    at: float
    model_id: str
    name: str
    why: str

    def row(self) -> tuple[Any, ...]:
        """Its values in the order of its table's columns."""
        return astuple(self)


@dataclass(frozen=True, slots=True)
class Controlled:
    """Something changed whether the engine trades, or a `number` of events was lost."""

    at: float
    what: Control
    number: int = 0
    why: str = ""

    def row(self) -> tuple[Any, ...]:
        """Its values in the order of its table's columns."""
        return astuple(self)


@dataclass(frozen=True, slots=True)
class Fed:
    """A stream's bars changed: `bars` were added or corrected, or are all that it has now."""

    at: float
    line: Line
    bars: Bars
    change: Change = Change.ADDED

    def row(self) -> tuple[Any, ...]:
        """Its values in the order of its table's columns."""
        columns = [getattr(self.bars, name).astype("<f8") for name in REQUIRED]
        return self.at, *self.line, int(self.change), np.stack(columns).tobytes()


@dataclass(frozen=True, slots=True)
class Taken:
    """A bar came with an ask; `reason` is ok where the stream has it now. None: not readable."""

    at: float
    line: Line
    bar: Bar | None
    reason: Reason
    why: str | None

    def row(self) -> tuple[Any, ...]:
        """Its values in the order of its table's columns."""
        values = (None,) * 5 if self.bar is None else self.bar[:5]
        return self.at, *self.line, *values, self.reason.value, self.why


@dataclass(frozen=True, slots=True)
class Decided:
    """An answer. `datetime` is of the bar, `outputs` of the last pass of the graph, if one ran."""

    at: float
    line: Line
    datetime: int | None
    account: Account | None
    decision: Decision
    why: str | None
    repeats: int | None
    outputs: Outputs | None

    def row(self) -> tuple[Any, ...]:
        """Its values in the order of its table's columns."""
        made = self.decision
        return (
            made.sequence,
            self.at,
            *self.line,
            self.datetime,
            *((None,) * 6 if self.account is None else vars(self.account).values()),
            made.action.name,
            made.quantity,
            made.value,
            *made.probabilities,
            *made.q_values,
            made.segments,
            made.reason.value,
            self.why,
            made.model_id,
            made.latency_ms,
            self.repeats,
            *((None, None) if self.outputs is None else packed(self.outputs)),
        )


Event = Loaded | Controlled | Fed | Taken | Decided

TABLES: Final[Mapping[type[Any], str]] = {
    Loaded: "artifact",
    Controlled: "control",
    Fed: "feed",
    Taken: "bar",
    Decided: "decision",
}
"""Where each kind of event is a row."""


def packed(outputs: Outputs) -> tuple[bytes, bytes]:
    """The small outputs as float32, one after another by name, and a digest of the states."""
    small = b"".join(
        np.asarray(outputs[name], "<f4").tobytes() for name in sorted(outputs) if name not in STATES
    )
    states = hashlib.blake2b(digest_size=16)
    for name in STATES:
        states.update(np.ascontiguousarray(outputs[name], "<f4").data)
    return small, states.digest()
