"""A journal's file as it is written: SQLite, begun complete, flushed with every write."""

import re
import sqlite3
import time
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final

import numpy as np

from hrm_runtime.journal.events import LARGEST_VALUE, SCHEMA, TABLES, Event

SUFFIX: Final = ".sqlite"

_LONGEST_TEXT: Final = 10_000
"""Characters; what a host calls its instruments, and what went wrong with them, may be anything."""

_BUSY_S: Final = 1.0
"""How long SQLite waits where somebody else has a file locked."""

_NAME: Final = re.compile(r"(\d{8}T\d{6})-(\d{6})\.sqlite")
"""When a file was begun, and its number among those of that second."""

_FAILING: Final = (OSError, MemoryError, sqlite3.OperationalError, sqlite3.InternalError)
"""What writing raises where it is not the event's fault."""


class UnwritableError(Exception):
    """The event at `place` is one that no file takes, whatever the disk; its cause says why."""

    def __init__(self, place: int) -> None:
        super().__init__(place)
        self.place = place


class File:
    """One SQLite file. What `write` was given is on the disk when it returns, or not there.

    It appears under its name when it is complete to the last of the first `events`.
    """

    def __init__(self, path: Path, meta: Mapping[str, str], events: Iterable[Event]) -> None:
        self.path = path
        self._event = 0
        self._damaged = False
        draft = path.with_name("next")
        _remove(draft)
        try:
            with closing(_connected(draft)) as self._connection:
                self._connection.executescript(f"BEGIN; {SCHEMA}")
                self._connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
                self._insert(events)
                self._connection.execute("COMMIT")
            self._first = self._event
            draft.rename(path)
        except BaseException:
            _remove(draft)
            raise
        self._connection = _connected(path)
        try:
            self._inode = path.stat().st_ino
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
        except BaseException:
            self._connection.close()
            _remove(path)
            raise

    @property
    def size(self) -> int:
        """Bytes, with what is still in the write-ahead log."""
        (size,) = self._connection.execute(
            "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
        ).fetchone()
        return int(size)

    @property
    def grown(self) -> bool:
        """Whether it has more than its first events."""
        return self._event > self._first

    @property
    def gone(self) -> bool:
        """Whether what is written would not be found: somebody removed or damaged the file."""
        try:
            return self._damaged or self.path.stat().st_ino != self._inode
        except FileNotFoundError:
            return True

    def write(self, events: Iterable[Event]) -> None:
        """Append `events`.

        Raises:
            UnwritableError: one of them is nothing that SQLite takes.
            OSError, sqlite3.Error, MemoryError: the disk, or the machine, does not take them now.
        """
        before = self._event
        try:
            self._connection.execute("BEGIN")
            self._insert(events)
            self._connection.execute("COMMIT")
        except BaseException as error:
            self._event = before
            self._damaged = type(error) is sqlite3.DatabaseError
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise

    def _insert(self, events: Iterable[Event]) -> None:
        for place, event in enumerate(events):
            try:
                table, values = TABLES[type(event)], map(_storable, event.row())
                row = (self._event + 1, *values)
                marks = ", ".join("?" * len(row))
                self._connection.execute(
                    f"INSERT INTO {table} VALUES ({marks})",  # noqa: S608, our names
                    row,
                )
            except Exception as error:
                if isinstance(error, _FAILING) or type(error) is sqlite3.DatabaseError:
                    raise
                raise UnwritableError(place) from error
            self._event += 1

    def close(self) -> None:
        """Close it, as one file that can be read from a disk that cannot be written, if it can."""
        with suppress(sqlite3.Error):
            self._connection.execute("PRAGMA journal_mode = DELETE")
        self._connection.close()


def files_in(folder: Path) -> list[Path]:
    """The files of a journal, oldest first; others are none of ours."""
    return sorted(path for path in folder.glob(f"*{SUFFIX}") if _NAME.fullmatch(path.name))


def next_path(folder: Path, before: str) -> Path:
    """What a file is called that comes after the one named `before` and all that are there."""
    begun, number = time.strftime("%Y%m%dT%H%M%S", time.gmtime()), 0
    newest = max([before, *(file.name for file in files_in(folder))])
    if (name := _NAME.fullmatch(newest)) and name[1] >= begun:  # or the clock was set back
        begun, number = name[1], int(name[2]) + 1
    return folder / f"{begun}-{number:06}{SUFFIX}"


def remove_oldest(folder: Path, kept: int) -> None:
    """Remove all but the newest `kept` files, where they can be removed."""
    for old in files_in(folder)[:-kept]:
        for each in _with_companions(old):
            with suppress(OSError):
                each.unlink()


def locked(path: Path) -> sqlite3.Connection:
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


def _storable(value: Any) -> Any:
    """`value` as SQLite takes it: text of bounded length, with what UTF-8 cannot have escaped."""
    if isinstance(value, np.generic):  # which SQLite would take as bytes
        return value.item()
    if not isinstance(value, str):
        return value
    return value[:_LONGEST_TEXT].encode("utf-8", "backslashreplace").decode("utf-8")


def _connected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, timeout=_BUSY_S
    )
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST_VALUE)
    return connection


def _with_companions(path: Path) -> list[Path]:
    """A file and those that SQLite puts beside it."""
    return [path, *(Path(f"{path}{end}") for end in ("-wal", "-shm", "-journal"))]


def _remove(path: Path) -> None:
    for each in _with_companions(path):
        each.unlink(missing_ok=True)
