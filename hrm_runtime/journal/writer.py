"""What a live engine did, durably: bars, accounts, decisions and why, in SQLite files.

    with LiveEngine(model, settings, Journal("journal")) as engine:
        ...

`record` costs a decision a microsecond: a thread of its own writes what has gathered, in one
transaction. What it cannot write, since the disk is full or gone, waits in memory and is counted as
lost when that is full; trading goes on either way. Each file begins with the artifact, what keeps
it from trading, and the bars of every stream, so each can be replayed alone and old ones can go.
"""

import json
import logging
import sqlite3
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event as ThreadEvent
from threading import Thread
from typing import Any, Final

from hrm_runtime.errors import BadInput
from hrm_runtime.journal.events import (
    FORMAT_VERSION,
    Change,
    Control,
    Controlled,
    Decided,
    Event,
    Fed,
    Loaded,
)
from hrm_runtime.journal.file import File, UnwritableError, locked, next_path, remove_oldest
from hrm_runtime.journal.state import Entry, State
from hrm_runtime.locks import reentrant
from hrm_runtime.log import log
from hrm_runtime.machine import machine
from hrm_runtime.market.bars import Bars

_GATHER_S: Final = 0.02
"""How long events gather into one transaction: what each costs is mostly its end."""

_RETRY_S: Final = 1.0

_CLOSE_S: Final = 30.0
"""How long `close` waits for a disk that neither writes nor fails."""

_LIBRARIES: Final = ("hrm", "numpy", "onnxruntime", "TA-Lib")


@dataclass(frozen=True, kw_only=True)
class JournalHealth:
    """How writing goes.

    Attributes:
        file: that is being written.
        committed: the highest sequence number of a decision that is on the disk; so are all below
            that were not lost.
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
    """Writes events to files in a folder, on a thread of its own, from `begin` to `close`, once.

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
        self._queue: SimpleQueue[Entry | None] = SimpleQueue()
        self._recording = reentrant()
        self._pending: list[Entry] = []
        self._waiting = 0  # events that were recorded and are neither on the disk nor lost
        self._added = 0  # to those that are pending: how everything is after some that are lost
        self._lost = 0
        self._told = 0
        self._full = False
        self._missed = State()
        self._now = State()
        self._committed = 0
        self._trouble: str | None = None
        self._ending = ThreadEvent()
        self._begun = False
        self._closed = False

    def __repr__(self) -> str:
        state = f"trouble: {self._trouble}" if self._trouble else f"committed {self._committed}"
        if not self._begun:
            state = "not begun"
        elif self._closed:
            state = f"closed, {state}"
        return f"Journal({self.folder}, {state})"

    def begin(self, settings: Mapping[str, Any], loaded: Loaded) -> None:
        """Open the first file and start writing.

        Args:
            settings: of the engine, as JSON.
            loaded: the artifact that decides.

        Raises:
            BadInput: the folder cannot be written, another engine writes to it, or this journal
                was begun before.
        """
        if self._begun:
            raise BadInput("journal: expected one that was not begun before; make another")
        self._meta = {
            "format_version": str(FORMAT_VERSION),
            "settings": json.dumps(settings),
            "machine": json.dumps(asdict(machine(_LIBRARIES))),
        }
        self._now.loaded = loaded
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with ExitStack() as opened:
                self._lock = opened.enter_context(closing(locked(self.folder / "lock")))
                self._file = opened.enter_context(closing(self._next_file("")))
                self._thread = Thread(target=self._write, name="hrm-journal", daemon=True)
                self._thread.start()
                opened.pop_all()
        except (OSError, sqlite3.Error) as error:
            raise BadInput(
                f"journal: expected a folder that can be written, and that no other engine writes "
                f"to: {self.folder}: {error}"
            ) from error
        self._begun = True

    def record(self, event: Event, bars: Bars | None = None) -> None:
        """Have `event` written. Returns at once and never raises.

        Args:
            bars: all that the stream has after it, where it changed them.
        """
        entry = Entry(event, bars)
        with self._recording:
            if self._closed:
                self._lost += 1
            elif self._full or self._waiting >= self._most_waiting:
                self._full = True
                self._lost += 1
                self._missed.apply(entry)
            else:
                self._waiting += 1
                self._queue.put(entry)

    @property
    def committed(self) -> int:
        """The highest sequence number on the disk; so are all below that were not lost."""
        return self._committed

    def health(self) -> JournalHealth:
        """How writing goes."""
        with self._recording:
            waiting, lost = self._waiting + self._added, self._lost
        return JournalHealth(
            file=self._file.path,
            committed=self._committed,
            waiting=waiting,
            lost=lost,
            trouble=self._trouble,
        )

    def close(self) -> None:
        """Write what waits, if it can be written, and end the thread; what comes later is lost."""
        if not self._begun:
            return
        with self._recording:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._ending.set()
        self._thread.join(_CLOSE_S)
        if self._thread.is_alive():
            log(logging.ERROR, "journal does not end", file=str(self._file.path))
            return
        self._file.close()
        self._lock.close()

    def _write(self) -> None:
        ending = False
        while not ending:
            ending = self._collect()
            while not self._committed_all():
                if ending or self._ending.wait(_RETRY_S):
                    break
        if self._pending:
            with self._recording:
                self._lost += self._waiting
                self._pending = []
                self._waiting = self._added = 0
            log(logging.ERROR, "journal ends", why=self._trouble, lost=self._lost)

    def _collect(self) -> bool:
        """Wait for entries and take all that gather; whether it is time to end."""
        entry = self._queue.get()
        if entry is None:
            return True
        self._pending.append(entry)
        self._ending.wait(_GATHER_S)
        with suppress(Empty):
            while (entry := self._queue.get_nowait()) is not None:
                self._pending.append(entry)
            return True
        return False

    def _committed_all(self) -> bool:
        """Try to bring what waits to the disk; whether it is there."""
        try:
            if self._file.gone:  # or damaged: what goes there is lost
                self._file.close()
                self._file = self._next_file(self._file.path.name)
            self._save()
            if self._full and self._queue.empty():
                self._bridge()
                self._save()
            if self._file.grown and self._file.size > self._largest:
                full, self._file = self._file, self._next_file(self._file.path.name)
                full.close()
        except Exception as error:  # whatever it is, this thread goes on
            if self._trouble is None:
                log(logging.ERROR, "journal", error, why=str(error), file=str(self._file.path))
            self._trouble = str(error) or type(error).__name__
            return False
        if self._trouble is not None:
            log(logging.WARNING, "journal writes again", lost=self._lost)
        self._trouble = None
        return True

    def _save(self) -> None:
        """Bring what is pending to the disk."""
        while True:
            try:
                self._file.write([entry.event for entry in self._pending])
            except UnwritableError as error:
                self._leave_out(error)
            else:
                break
        later = State()
        for entry in self._pending:
            later.apply(entry)
            if isinstance(entry.event, Decided):
                self._committed = max(self._committed, entry.event.decision.sequence)
        self._now.update(later)
        with self._recording:
            self._waiting -= len(self._pending) - self._added
            self._pending = []
            self._added = 0

    def _leave_out(self, error: UnwritableError) -> None:
        """Say in the place of a pending event that it is missing, and how everything is after."""
        why = f"{type(error.__cause__).__name__}: {error.__cause__}"
        log(logging.ERROR, "journal: event left out", why=why)
        gone, now = self._pending[error.place].event, State()
        now.update(self._now)
        for entry in self._pending[: error.place + 1]:
            now.apply(entry)
        snapshot = isinstance(gone, Fed) and gone.change is Change.SNAPSHOT
        ours = isinstance(gone, Loaded) or snapshot
        after = [] if ours else now.entries()
        lost = Entry(Controlled(time.time(), Control.LOST, 1, why))
        with self._recording:
            self._pending[error.place : error.place + 1] = [lost, *after]
            self._added += len(after)
            self._lost += 1
            self._told += 1

    def _bridge(self) -> None:
        """Say how many events are missing, and how everything is after them; go on from there."""
        with self._recording:
            now = State()
            now.update(self._now)
            now.update(self._missed)
            lost = Controlled(time.time(), Control.LOST, self._lost - self._told)
            self._pending = [Entry(lost), *now.entries()]
            self._added = len(self._pending)
            self._told = self._lost
            self._missed = State()
            self._full = False

    def _next_file(self, before: str) -> File:
        """A file after the one named `before`; it begins with how everything is, the oldest go."""
        path = next_path(self.folder, before)
        file = File(path, self._meta, [entry.event for entry in self._now.entries()])
        remove_oldest(self.folder, self._files)
        return file
