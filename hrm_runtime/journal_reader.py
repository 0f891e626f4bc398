"""A journal read back: only what this library wrote is accepted, value by value."""

import heapq
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import numpy as np

from hrm_runtime.account import Account
from hrm_runtime.actions import Action
from hrm_runtime.bars import REQUIRED, Bar, Bars
from hrm_runtime.decision import Decision, Reason
from hrm_runtime.errors import BadInput, JournalUnreadable
from hrm_runtime.journal import FORMAT_VERSION, SCHEMA, Control, Line, files_in

_TABLES: Final = ("artifact", "control", "feed", "bar", "decision")

_KINDS: Final[dict[str, tuple[type, ...]]] = {
    "INTEGER": (int,),
    "REAL": (float, int),
    "TEXT": (str,),
    "BLOB": (bytes,),
}

_LARGEST_VALUE: Final = 10_000_000
"""Bytes of one value; the bars of a stream need a hundredth."""

_LONGEST_TEXT: Final = 1_000_000


@dataclass(frozen=True, eq=False)
class Record:
    """One event as it stands in the file `file`: its table and its values by column."""

    file: Path
    table: str
    event: int
    values: dict[str, Any]

    def __getitem__(self, column: str) -> Any:
        return self.values[column]

    @property
    def line(self) -> Line:
        """(instrument, timeframe)."""
        return self["instrument"], self["timeframe"]

    @property
    def reason(self) -> Reason:
        """Of a bar or a decision."""
        return Reason(self._one_of("reason", [reason.value for reason in Reason]))

    @property
    def control(self) -> Control:
        """What happened."""
        return Control(self._one_of("what", [what.value for what in Control]))

    @property
    def bar(self) -> Bar | None:
        """That came; None where it could not be read."""
        given = [self[name] for name in REQUIRED]
        return None if None in given else Bar(*given)

    @property
    def bars(self) -> Bars:
        """That were fed."""
        blob = self["bars"]
        if len(blob) % (8 * len(REQUIRED)):
            raise self.unreadable("bars: expected five columns of float64")
        try:
            return Bars(*np.frombuffer(blob, "<f8").reshape(len(REQUIRED), -1))
        except BadInput as error:
            raise self.unreadable(str(error)) from error

    @property
    def account(self) -> Account | None:
        """Of a decision; None where it could not be read."""
        names = Account.__dataclass_fields__
        if None in (given := [self[name] for name in names]):
            return None
        try:
            return Account(*given)
        except BadInput as error:
            raise self.unreadable(str(error)) from error

    @property
    def decision(self) -> Decision:
        """As it was answered."""
        return Decision(
            action=Action[self._one_of("action", [action.name for action in Action])],
            quantity=self["quantity"],
            value=self["value"],
            probabilities=tuple(self[action.name.lower()] for action in Action),
            q_values=(self["q_halt"], self["q_continue"]),
            segments=self["segments"],
            reason=self.reason,
            model_id=self["model_id"],
            latency_ms=self["latency_ms"],
            sequence=self["sequence"],
        )

    def unreadable(self, why: str) -> JournalUnreadable:
        """The error that says `why` this event is none of ours."""
        return JournalUnreadable(f"{self.file}: {self.table} {self.event}: {why}")

    def _one_of(self, column: str, known: list[str]) -> str:
        value: str = self[column]
        if value not in known:
            raise self.unreadable(f"{column}: expected one of {', '.join(known)}, found {value!r}")
        return value


class JournalFile:
    """One file of a journal, open for reading.

    Attributes:
        settings: of the engine that wrote it, as JSON.
        machine: that it ran on, as JSON.

    Raises:
        JournalUnreadable: missing, damaged, locked, of another version, or not ours.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        if path.is_symlink() or not path.is_file():
            raise JournalUnreadable(f"{path}: expected a journal's file, found none")
        try:
            self._connection = sqlite3.connect(
                f"file:{quote(str(path.absolute()))}?mode=ro", uri=True, timeout=1.0
            )
        except sqlite3.Error as error:
            raise self._refused(error) from error
        try:
            self._open()
        except BaseException:
            self._connection.close()
            raise

    def records(self) -> Iterator[Record]:
        """The events in order.

        Raises:
            JournalUnreadable: damaged, or a value that this library does not write.
        """
        try:
            yield from heapq.merge(*map(self._table, _TABLES), key=attrgetter("event"))
        except sqlite3.Error as error:
            raise self._refused(error) from error

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _open(self) -> None:
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LARGEST_VALUE)
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, _LONGEST_TEXT)
        try:
            self._connection.execute("PRAGMA trusted_schema = OFF")
            self._connection.execute("PRAGMA cell_size_check = ON")
            found = _schema(self._connection)
            meta = dict(self._connection.execute("SELECT name, value FROM meta"))
        except sqlite3.Error as error:
            raise self._refused(error) from error
        version = meta.get("format_version")
        if version != str(FORMAT_VERSION):
            raise JournalUnreadable(
                f"{self._path}: this library reads journals of version {FORMAT_VERSION}, found "
                f"{version!r}; use the library that wrote it"
            )
        if found != _own()[0]:
            raise JournalUnreadable(f"{self._path}: expected the tables of a journal")
        try:
            self.settings: dict[str, Any] = json.loads(meta["settings"])
            self.machine: dict[str, Any] = json.loads(meta["machine"])
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise self._refused(error) from error

    def _table(self, table: str) -> Iterator[Record]:
        columns = _own()[1][table]
        cursor = self._connection.execute(f"SELECT * FROM {table} ORDER BY event")  # noqa: S608, our names
        for row in cursor:
            record = Record(self._path, table, row[0], dict(zip(columns, row, strict=True)))
            for (name, (kinds, required)), value in zip(columns.items(), row, strict=True):
                if not (isinstance(value, kinds) or (value is None and not required)):
                    raise record.unreadable(f"{name}: found {type(value).__name__}")
            yield record

    def _refused(self, error: Exception) -> JournalUnreadable:
        return JournalUnreadable(f"{self._path}: expected a journal that can be read: {error}")


def journal_files(path: str | Path) -> list[Path]:
    """The files of a journal, oldest first; of one file, itself.

    Raises:
        JournalUnreadable: there are none.
    """
    path = Path(path)
    files = files_in(path) if path.is_dir() else [path]
    if not files:
        raise JournalUnreadable(f"{path}: expected a journal, found no file of one")
    return files


def _schema(connection: sqlite3.Connection) -> list[tuple[str, str, str]]:
    return connection.execute(
        "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY name"
    ).fetchall()


@cache
def _own() -> tuple[
    list[tuple[str, str, str]], dict[str, dict[str, tuple[tuple[type, ...], bool]]]
]:
    """The schema that `SCHEMA` makes, and each table's columns: their types, and if needed."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(SCHEMA)
        columns = {
            table: {
                name: (_KINDS[kind], bool(required or key))
                for _, name, kind, required, _, key in connection.execute(
                    f"PRAGMA table_info({table})"
                )
            }
            for table in _TABLES
        }
        return _schema(connection), columns
