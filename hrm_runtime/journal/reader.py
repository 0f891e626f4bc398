"""A journal read back: only what this library wrote is accepted, value by value."""

import heapq
import json
import math
import os
import sqlite3
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import numpy as np

from hrm_runtime.artifact.decision import Decision, Reason
from hrm_runtime.errors import BadInput, JournalUnreadable
from hrm_runtime.journal.events import (
    CHANGES,
    LARGEST_VALUE,
    SCHEMA,
    TABLES,
    Change,
    Control,
    Line,
)
from hrm_runtime.journal.file import files_in
from hrm_runtime.market.account import Account
from hrm_runtime.market.actions import Action
from hrm_runtime.market.bars import REQUIRED, Bar, Bars, Cleaning
from hrm_runtime.market.stamps import EARLIEST_STAMP

_KINDS: Final[dict[str, tuple[type, ...]]] = {
    "INTEGER": (int,),
    "REAL": (float, int),
    "TEXT": (str,),
    "BLOB": (bytes,),
}

_PATIENCE_S: Final = 1.0
"""How long to wait for a lock."""

_NO_PLACE: Final = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
"""What SQLite fails with where it cannot put its files beside one that is not closed."""


@dataclass(frozen=True, eq=False)
class Record:
    """One event as it stands in the file `file`: its table and its values by column.

    `changes` are those that a feed of the file's version may be.
    """

    file: Path
    table: str
    event: int
    values: dict[str, Any]
    changes: tuple[Change, ...] = tuple(Change)

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
    def change(self) -> Change:
        """What happened to the bars of a stream."""
        value = self["snapshot"]
        if value not in self.changes:
            known = ", ".join(str(int(change)) for change in self.changes)
            raise self.unreadable(f"snapshot: expected one of {known}, found {value}")
        return Change(value)

    @property
    def bar(self) -> Bar | None:
        """That came; None where it could not be read, or was refused with what is no stamp now."""
        given = self._all_or_none(REQUIRED)
        if given is None or (given[0] < EARLIEST_STAMP and self.reason is not Reason.OK):
            return None
        try:
            return Bars.of_one(Bar(*given)).newest()
        except BadInput as error:
            raise self.unreadable(str(error)) from error

    @property
    def bars(self) -> Bars:
        """That were fed; none where the stream was dropped."""
        blob = self["bars"]
        if len(blob) % (8 * len(REQUIRED)):
            raise self.unreadable("bars: expected five columns of float64")
        try:
            bars = Bars(*np.frombuffer(blob, "<f8").reshape(len(REQUIRED), -1))
        except BadInput as error:
            raise self.unreadable(str(error)) from error
        if bars.cleaning != Cleaning():
            raise self.unreadable("bars: expected rising stamps")
        if self.change is Change.DROPPED and len(bars):
            raise self.unreadable(f"bars: expected none of a dropped stream, found {len(bars)}")
        return bars

    @property
    def account(self) -> Account | None:
        """Of a decision; None where it could not be read."""
        given = self._all_or_none(tuple(Account.__dataclass_fields__))
        if given is None:
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

    def _all_or_none(self, columns: tuple[str, ...]) -> list[Any] | None:
        given = [self[name] for name in columns]
        missing = [name for name, value in zip(columns, given, strict=True) if value is None]
        if missing and len(missing) < len(columns):
            raise self.unreadable(f"expected all of {', '.join(columns)}, or none")
        return None if missing else given

    def _one_of(self, column: str, known: list[str]) -> str:
        value: str = self[column]
        if value not in known:
            raise self.unreadable(f"{column}: expected one of {', '.join(known)}, found {value!r}")
        return value


class JournalFile:
    """One file of a journal, open for reading, as it is at that moment.

    Attributes:
        settings: of the engine that wrote it, as JSON.
        machine: that it ran on, as JSON.

    Raises:
        JournalUnreadable: missing, damaged, locked, of another version, or not ours.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        if os.path.islink(path) or not os.path.isfile(path):
            raise JournalUnreadable(f"{path}: expected a journal's file, found none")
        try:
            self._connection = sqlite3.connect(
                f"file:{quote(os.fsencode(path.absolute()))}?mode=ro",
                uri=True,
                isolation_level=None,
                timeout=_PATIENCE_S,
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
        tables = [self._table(table) for table in TABLES.values()]
        try:
            for number, record in enumerate(heapq.merge(*tables, key=attrgetter("event")), 1):
                if record.event != number:
                    raise record.unreadable(f"expected event {number} in its place")
                yield record
        except sqlite3.Error as error:
            raise self._refused(error) from error
        finally:
            for table in tables:
                table.close()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _open(self) -> None:
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST_VALUE)
        try:
            self._connection.execute("PRAGMA trusted_schema = OFF")
            self._connection.execute("PRAGMA cell_size_check = ON")
            self._connection.execute("BEGIN")  # all that follows is of one moment
            found, own = _schema(self._connection), _own()[0]
            if not {entry for entry in own if entry[1] == "meta"} <= set(found):
                raise JournalUnreadable(f"{self._path}: expected the tables of a journal")
            meta = dict(self._connection.execute("SELECT name, value FROM meta"))
            self._require_whole_pages()
        except sqlite3.Error as error:
            raise self._refused(error) from error
        version = meta.get("format_version")
        if version is None or version not in CHANGES:
            raise JournalUnreadable(
                f"{self._path}: this library reads journals of version {' and '.join(CHANGES)}, "
                f"found {version!r}; use the library that wrote it"
            )
        self._changes = CHANGES[version]
        if found != own:
            raise JournalUnreadable(f"{self._path}: expected the tables of a journal")
        self.settings = self._object(meta, "settings")
        self.machine = self._object(meta, "machine")

    def _require_whole_pages(self) -> None:
        """Refuse a closed file that ends within a page, which SQLite takes for zeros."""
        (mode,) = self._connection.execute("PRAGMA journal_mode").fetchone()
        (page,) = self._connection.execute("PRAGMA page_size").fetchone()
        if mode == "delete" and self._path.stat().st_size % page:
            raise JournalUnreadable(f"{self._path}: expected whole pages, found a truncated file")

    def _object(self, meta: dict[Any, Any], name: str) -> dict[str, Any]:
        try:
            found = json.loads(meta[name])
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise self._refused(error) from error
        if not isinstance(found, dict):
            raise JournalUnreadable(f"{self._path}: {name}: expected a JSON object")
        return found

    def _table(self, table: str) -> Generator[Record]:
        columns = _own()[1][table]
        cursor = self._connection.execute(f"SELECT * FROM {table} ORDER BY event")  # noqa: S608, our names
        try:
            for row in cursor:
                yield self._record(table, columns, row)
        finally:
            with suppress(sqlite3.Error):  # the connection may be closed
                cursor.close()  # a query that is not ended holds the file even so

    def _record(
        self, table: str, columns: Mapping[str, tuple[tuple[type, ...], bool]], row: tuple[Any, ...]
    ) -> Record:
        values = dict(zip(columns, row, strict=True))
        record = Record(self._path, table, row[0], values, self._changes)
        for (name, (kinds, required)), value in zip(columns.items(), row, strict=True):
            if not (isinstance(value, kinds) or (value is None and not required)):
                raise record.unreadable(f"{name}: found {type(value).__name__}")
            if name != "at" and isinstance(value, float) and not math.isfinite(value):
                raise record.unreadable(f"{name}: found {value}")
        if record["at"] is None:  # SQLite has no NaN
            record.values["at"] = math.nan
        return record

    def _refused(self, error: Exception) -> JournalUnreadable:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        hint = (
            "; it was not closed and its folder cannot be written: copy it and the files beside "
            "it that begin with its name to one that can, and read it there"
        )
        return JournalUnreadable(
            f"{self._path}: expected a journal that can be read: {error}"
            f"{hint if code in _NO_PLACE else ''}"
        )


def journal_files(path: str | Path) -> list[Path]:
    """The files of a journal, oldest first; of one file, itself.

    Raises:
        JournalUnreadable: there are none.
    """
    path = Path(path)
    files = files_in(path) if os.path.isdir(path) else [path]
    if not files:
        raise JournalUnreadable(f"{path}: expected a journal, found no file of one")
    return files


def _schema(connection: sqlite3.Connection) -> list[tuple[str, str, str]]:
    return connection.execute(
        "SELECT type, name, sql FROM sqlite_master WHERE name NOT GLOB 'sqlite_*' ORDER BY name"
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
            for table in TABLES.values()
        }
        return _schema(connection), columns
