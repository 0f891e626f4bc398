"""What a live engine did, durably: bars, accounts, decisions and why, in SQLite files.

    with LiveEngine(model, settings, Journal("journal")) as engine:
        ...

`record` costs a decision a microsecond: a thread of its own writes what has gathered, in one
transaction. What it cannot write, since the disk is full or gone, waits in memory and is counted as
lost when that is full; trading goes on either way. Each file begins with the artifact and the bars
of every stream, so each can be replayed alone and old ones can go.
"""

import hashlib
import json
import logging
import sqlite3
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, astuple, dataclass
from enum import StrEnum
from itertools import count
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event as ThreadEvent
from threading import Lock, Thread
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hrm_runtime.account import Account
from hrm_runtime.bars import REQUIRED, Bar, Bars
from hrm_runtime.decision import Decision, Reason
from hrm_runtime.errors import BadInput
from hrm_runtime.log import log
from hrm_runtime.machine import machine

FORMAT_VERSION: Final = 1

SUFFIX: Final = ".sqlite"

_RETRY_S: Final = 1.0

_LIBRARIES: Final = ("hrm", "numpy", "onnxruntime", "TA-Lib")

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
    at REAL NOT NULL,
    instrument TEXT NOT NULL,
    timeframe TEXT NOT NULL,
    snapshot INTEGER NOT NULL,
    bars BLOB NOT NULL
);
CREATE TABLE bar (
    event INTEGER PRIMARY KEY,
    at REAL NOT NULL,
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
    at REAL NOT NULL,
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
    """`bars` were added to a stream; with `snapshot` they are all it has."""

    at: float
    line: Line
    bars: Bars
    snapshot: bool = False

    def row(self) -> tuple[Any, ...]:
        """Its values in the order of its table's columns."""
        columns = [getattr(self.bars, name).astype("<f8") for name in REQUIRED]
        return self.at, *self.line, int(self.snapshot), np.stack(columns).tobytes()


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

_TABLES: Final[Mapping[type[Any], str]] = {
    Loaded: "artifact",
    Controlled: "control",
    Fed: "feed",
    Taken: "bar",
    Decided: "decision",
}


def packed(outputs: Outputs) -> tuple[bytes, bytes]:
    """The small outputs as float32, one after another by name, and a digest of the states."""
    small = b"".join(
        np.asarray(outputs[name], "<f4").tobytes() for name in sorted(outputs) if name not in STATES
    )
    states = hashlib.blake2b(digest_size=16)
    for name in STATES:
        states.update(np.ascontiguousarray(outputs[name], "<f4").data)
    return small, states.digest()


@dataclass(frozen=True, kw_only=True)
class JournalHealth:
    """How writing goes.

    Attributes:
        file: that is being written.
        committed: the highest sequence number of a decision that is on the disk; so are all below.
        waiting: events that are not.
        lost: events that will never be.
        trouble: why nothing can be written; None where it can.
    """

    file: Path
    committed: int
    waiting: int
    lost: int
    trouble: str | None


class Journal:
    """Writes events to files in a folder, on a thread of its own, from `begin` to `close`.

    Args:
        folder: made where it is not there. One engine at a time writes to it.
        file_mb: size at which the next file is begun.
        files: that are kept; older ones are removed when one is begun.
        most_waiting: events that may wait in memory while they cannot be written.

    Raises:
        BadInput: a number that is not above 0.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        file_mb: float = 256,
        files: int = 30,
        most_waiting: int = 20_000,
    ) -> None:
        if not (file_mb > 0 and files > 0 and most_waiting > 0):
            raise BadInput("journal: expected file_mb, files and most_waiting above 0")
        self.folder = Path(folder).absolute()
        self._largest = int(1e6 * file_mb)
        self._files = files
        self._most_waiting = most_waiting
        self._queue: SimpleQueue[_Entry | None] = SimpleQueue()
        self._recording = Lock()
        self._pending: list[_Entry] = []
        self._lost = 0
        self._told = 0
        self._full = False
        self._missed = _Now()
        self._now = _Now()
        self._committed = 0
        self._trouble: str | None = None
        self._ending = ThreadEvent()

    def begin(self, settings: Mapping[str, Any], loaded: Loaded) -> None:
        """Open the first file and start writing.

        Args:
            settings: of the engine, as JSON.
            loaded: the artifact that decides.

        Raises:
            BadInput: the folder cannot be written, or another engine writes to it.
        """
        self._meta = {
            "format_version": str(FORMAT_VERSION),
            "settings": json.dumps(settings),
            "machine": json.dumps(asdict(machine(_LIBRARIES))),
        }
        self._now.loaded = loaded
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(self.folder / "lock")
            self._file = self._next_file()
        except (OSError, sqlite3.Error) as error:
            raise BadInput(
                f"journal: expected a folder that can be written, and that no other engine writes "
                f"to: {self.folder}: {error}"
            ) from error
        self._thread = Thread(target=self._write, name="hrm-journal", daemon=True)
        self._thread.start()

    def record(self, event: Event, bars: Bars | None = None) -> None:
        """Have `event` written. Returns at once and never raises.

        Args:
            bars: all that the stream has after it, where it changed them.
        """
        entry = _Entry(event, bars)
        with self._recording:
            waiting = self._queue.qsize() + len(self._pending)
            if self._full or waiting >= self._most_waiting:
                self._full = True
                self._lost += 1
                self._missed.apply(entry)
            else:
                self._queue.put(entry)

    @property
    def committed(self) -> int:
        """The highest sequence number of a decision that is on the disk; so are all below."""
        return self._committed

    def health(self) -> JournalHealth:
        """How writing goes."""
        return JournalHealth(
            file=self._file.path,
            committed=self._committed,
            waiting=self._queue.qsize() + len(self._pending),
            lost=self._lost,
            trouble=self._trouble,
        )

    def close(self) -> None:
        """Write what waits, if it can be written, and end the thread."""
        self._queue.put(None)
        self._ending.set()
        self._thread.join()
        self._file.close()
        self._lock.close()

    def _write(self) -> None:
        ending = False
        while not ending:
            ending = self._collect()
            while not self._committed_all() and not ending:
                self._ending.wait(_RETRY_S)
                ending = self._ending.is_set()
        self._committed_all()

    def _collect(self) -> bool:
        """Wait for entries and take all there are; whether it is time to end."""
        entry = self._queue.get()
        while entry is not None:
            self._pending.append(entry)
            try:
                entry = self._queue.get_nowait()
            except Empty:
                return False
        return True

    def _committed_all(self) -> bool:
        """Try to bring what waits to the disk; whether it is there."""
        try:
            if not self._file.path.exists():  # somebody removed it: what goes there is gone
                self._file.close()
                self._file = self._next_file()
            self._file.write([entry.event for entry in self._pending])
            self._settle()
            if self._full and self._queue.empty():
                self._bridge()
            if self._file.size > self._largest:
                self._file.close()
                self._file = self._next_file()
        except (OSError, sqlite3.Error) as error:
            if self._trouble is None:
                log(logging.ERROR, "journal", why=str(error), file=str(self._file.path))
            self._trouble = str(error)
            return False
        if self._trouble is not None:
            log(logging.WARNING, "journal writes again", lost=self._lost)
        self._trouble = None
        return True

    def _settle(self) -> None:
        """What was pending is on the disk."""
        for entry in self._pending:
            self._now.apply(entry)
            if isinstance(entry.event, Decided):
                self._committed = entry.event.decision.sequence
        with self._recording:
            self._pending = []

    def _bridge(self) -> None:
        """Say how many events are missing, and how everything is after them; go on from there."""
        with self._recording:
            self._now.update(self._missed)
            lost = Controlled(time.time(), Control.LOST, self._lost - self._told)
            self._file.write([lost, *self._now.events()])
            self._told = self._lost
            self._missed = _Now()
            self._full = False

    def _next_file(self) -> "_File":
        """A file that begins with how everything is; the oldest go."""
        file = _File(self.folder, self._meta)
        file.write(self._now.events())
        for old in files_in(self.folder)[: -self._files]:
            for path in (old, *(Path(f"{old}{end}") for end in ("-wal", "-shm"))):
                with suppress(OSError):
                    path.unlink()
        return file


@dataclass(frozen=True, slots=True)
class _Entry:
    event: Event
    bars: Bars | None


class _Now:
    """How everything is after some events: the artifact, and each stream's bars."""

    def __init__(self) -> None:
        self.loaded: Loaded | None = None
        self.bars: dict[Line, Bars] = {}

    def apply(self, entry: _Entry) -> None:
        if isinstance(entry.event, Loaded):
            self.loaded = entry.event
        elif isinstance(entry.event, Fed | Taken) and entry.bars is not None:
            self.bars[entry.event.line] = entry.bars

    def update(self, later: "_Now") -> None:
        self.loaded = later.loaded or self.loaded
        self.bars |= later.bars

    def events(self) -> list[Event]:
        at = time.time()
        snapshots = [Fed(at, line, bars, snapshot=True) for line, bars in self.bars.items()]
        return [*([self.loaded] if self.loaded else []), *snapshots]


class _File:
    """One SQLite file. What `write` was given is on the disk when it returns, or not there."""

    def __init__(self, folder: Path, meta: Mapping[str, str]) -> None:
        begun = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        names = (folder / f"{begun}-{number:03}{SUFFIX}" for number in count())
        self.path = next(path for path in names if not path.exists())
        self._event = 0
        self._connection = sqlite3.connect(
            self.path, isolation_level=None, check_same_thread=False, timeout=_RETRY_S
        )
        try:
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.executescript(f"BEGIN; {SCHEMA} COMMIT")
            self._connection.executemany("INSERT INTO meta VALUES (?, ?)", list(meta.items()))
        except sqlite3.Error:
            self._connection.close()
            raise

    @property
    def size(self) -> int:
        """Bytes, without what is still in the write-ahead log."""
        return self.path.stat().st_size

    def write(self, events: Iterable[Event]) -> None:
        self._connection.execute("BEGIN")
        try:
            event = self._event
            for one in events:
                event += 1
                values = (event, *one.row())
                marks = ", ".join("?" * len(values))
                self._connection.execute(
                    f"INSERT INTO {_TABLES[type(one)]} VALUES ({marks})",  # noqa: S608, our names
                    values,
                )
            self._connection.execute("COMMIT")
            self._event = event
        except sqlite3.Error:
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise

    def close(self) -> None:
        with suppress(sqlite3.Error):
            self._connection.close()


def files_in(folder: Path) -> list[Path]:
    """The files of a journal, oldest first."""
    return sorted(folder.glob(f"*{SUFFIX}"))


def _locked(path: Path) -> sqlite3.Connection:
    """A lock that ends with this process, however it ends.

    Raises:
        sqlite3.OperationalError: somebody else has it, or it cannot be written.
    """
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0)
    try:
        connection.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error:
        connection.close()
        raise
    return connection
