import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from journalled import (
    BARS,
    EVENTS,
    LINE,
    LOADED,
    SETTINGS,
    decided,
    journal_of,
    records,
    sequences,
    taken,
)
from live import SAFETY_S, eventually

from hrm_runtime import JournalUnreadable
from hrm_runtime.journal.events import Fed
from hrm_runtime.journal.file import files_in
from hrm_runtime.journal.reader import JournalFile, Record, journal_files
from hrm_runtime.journal.writer import Journal

UNIQUE = {name: event for name, event in EVENTS.items() if name != "artifact"}

MANY = settings(
    deadline=None,
    derandomize=True,
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed file with events of every kind; read it, never write to it."""
    return journal_of(tmp_path_factory.mktemp("journal"), *UNIQUE.values())


@pytest.fixture
def file(sound: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copy(sound, tmp_path))


def whole(path: Path) -> list[Any]:
    """All that can be asked of a file."""
    return [everything(record) for record in records(path)]


def everything(record: Record) -> list[Any]:
    found: list[Any] = list(record.values.values())
    asked = {
        "control": ["control"],
        "feed": ["line", "change", "bars"],
        "bar": ["line", "bar", "reason"],
        "decision": ["line", "account", "decision", "reason"],
    }
    return found + [getattr(record, name) for name in asked.get(record.table, [])]


def changed(path: Path, sql: str, *values: Any) -> Path:
    """`path` after a statement of somebody else."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(sql, values)
    return path


# which files


def test_files_of_a_folder_are_those_of_a_journal_oldest_first(tmp_path: Path) -> None:
    names = ["20240101T000000-000000", "20240101T000000-000001", "20240102T000000-000000"]
    for name in [*reversed(names), "notes"]:
        (tmp_path / f"{name}.sqlite").touch()
    assert journal_files(tmp_path) == [tmp_path / f"{name}.sqlite" for name in names]
    assert journal_files(str(tmp_path)) == journal_files(tmp_path)


def test_a_file_stands_for_itself(tmp_path: Path) -> None:
    assert journal_files(tmp_path / "notes.sqlite") == [tmp_path / "notes.sqlite"]


def test_a_folder_without_a_journal_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JournalUnreadable, match=rf"^{tmp_path}: expected a journal, found no file"):
        journal_files(tmp_path)


def linked(path: Path) -> Path:
    link = path.with_name("link.sqlite")
    link.symlink_to(path)
    return link


def fifo(path: Path) -> Path:
    os.mkfifo(path.with_name("fifo"))
    return path.with_name("fifo")


@pytest.mark.parametrize(
    "other",
    [
        lambda path: path.with_name("missing.sqlite"),
        lambda path: path.parent,
        linked,
        fifo,
        lambda path: path.with_name("x" * 300),
        lambda path: path / "below",
    ],
    ids=["missing", "folder", "link", "fifo", "long name", "below a file"],
)
def test_what_is_no_file_is_refused(file: Path, other: Callable[[Path], Path]) -> None:
    path = other(file)
    with pytest.raises(
        JournalUnreadable, match=rf"^{re.escape(str(path))}: expected a journal's file, found none"
    ):
        JournalFile(path)


@pytest.mark.parametrize("name", ["a?b#c%20.sqlite", "ä ö.sqlite", os.fsdecode(b"\xff.sqlite")])
def test_a_file_is_read_whatever_it_is_called(file: Path, name: str) -> None:
    path = file.rename(file.with_name(name))
    assert sequences(path) == [1, 2, 3, 4, 5, 6]


# what is no journal


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "expected the tables of a journal"),
        (b"datetime,open\n" * 400, "file is not a database"),
        (bytes(100_000), "file is not a database"),
    ],
    ids=["empty", "text", "zeros"],
)
def test_other_content_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "other.sqlite"
    path.write_bytes(content)
    with pytest.raises(JournalUnreadable, match=why):
        JournalFile(path)


@MANY
@given(st.binary(max_size=400), st.booleans())
def test_any_bytes_are_refused(tmp_path: Path, content: bytes, headed: bool) -> None:
    path = tmp_path / "any.sqlite"
    path.write_bytes(b"SQLite format 3\0" * headed + content)
    with pytest.raises(JournalUnreadable, match="expected "):
        whole(path)


@pytest.mark.parametrize("percent", range(1, 100, 7))
def test_a_truncated_file_is_refused(file: Path, percent: int) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * percent // 100])
    with pytest.raises(JournalUnreadable, match=r"malformed|not a database|expected whole pages"):
        whole(file)


def test_another_version_is_refused_with_both_named(file: Path) -> None:
    changed(file, "UPDATE meta SET value = '3' WHERE name = 'format_version'")
    changed(file, "DROP TABLE feed")
    with pytest.raises(
        JournalUnreadable,
        match=r"reads journals of version 1 and 2, found '3'; use the library that wr",
    ):
        JournalFile(file)


def test_a_file_of_the_version_before_is_read_and_has_no_change_that_came_later(
    tmp_path: Path,
) -> None:
    events = [event for event in EVENTS.values() if not isinstance(event, Fed) or event.change < 2]
    path = journal_of(tmp_path, *events)
    now = [record.values for record in records(path)]
    changed(path, "UPDATE meta SET value = '1' WHERE name = 'format_version'")
    assert [record.values for record in records(path)] == now
    whole(path)
    changed(path, "UPDATE feed SET snapshot = 2")
    with pytest.raises(
        JournalUnreadable, match=r"feed \d+: snapshot: expected one of 0, 1, found 2"
    ):
        whole(path)


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE more (x)",
        "CREATE TABLE sqlitex (x)",
        "CREATE VIEW more AS SELECT 1",
        "CREATE TRIGGER more AFTER INSERT ON bar BEGIN SELECT 1; END",
        "CREATE INDEX more ON bar (at)",
        "DROP TABLE control",
        "DROP TABLE meta",
        "DROP INDEX decision_line",
        "ALTER TABLE bar DROP COLUMN why",
        "ALTER TABLE bar ADD COLUMN more",
        "ALTER TABLE meta ADD COLUMN more",
        "ALTER TABLE bar RENAME COLUMN why TO reasons",
    ],
)
def test_other_tables_are_refused(file: Path, sql: str) -> None:
    changed(file, sql)
    with pytest.raises(JournalUnreadable, match=r"expected the tables of a journal$"):
        JournalFile(file)


def test_a_view_without_end_in_the_place_of_meta_is_not_asked(file: Path) -> None:
    changed(file, "DROP TABLE meta")
    changed(file, "CREATE VIEW meta AS WITH RECURSIVE n(name, value) AS "
            "(SELECT 1, 1 UNION ALL SELECT name + 1, value FROM n) SELECT * FROM n")  # fmt: skip
    with pytest.raises(JournalUnreadable, match=r"expected the tables of a journal$"):
        JournalFile(file)


@pytest.mark.parametrize("name", ["settings", "machine"])
@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("{", "expected a journal that can be read: Expecting property name"),
        ("[" * 100_000, "expected a journal that can be read: maximum recursion"),
        (b"\xff", "expected a journal that can be read: 'utf-8' codec"),
        ("[]", "expected a JSON object"),
    ],
)
def test_settings_that_are_no_json_are_refused(file: Path, name: str, value: Any, why: str) -> None:
    changed(file, f"UPDATE meta SET value = ? WHERE name = '{name}'", value)  # noqa: S608
    with pytest.raises(JournalUnreadable, match=why):
        JournalFile(file)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("settings", "can be read: 'settings'"),
        ("machine", "can be read: 'machine'"),
        ("format_version", "of version 1 and 2, found None"),
    ],
)
def test_missing_settings_are_refused(file: Path, name: str, why: str) -> None:
    changed(file, "DELETE FROM meta WHERE name = ?", name)
    with pytest.raises(JournalUnreadable, match=why):
        JournalFile(file)


# values that this library does not write


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("UPDATE bar SET at = 'noon'", "bar 7: at: found str"),
        ("UPDATE bar SET close = x'00'", "bar 7: close: found bytes"),
        ("UPDATE bar SET datetime = 1.5", "bar 7: datetime: found float"),
        ("UPDATE bar SET high = 9e999", "bar 7: high: found inf"),
        ("UPDATE bar SET high = NULL WHERE event = 7", "bar 7: expected all of datetime, open"),
        ("UPDATE bar SET high = -1.0 WHERE event = 7", "bar 7: bars: expected finite prices"),
        ("UPDATE bar SET high = 1.0 WHERE event = 7", "bar 7: bars: expected low <= open"),
        ("UPDATE bar SET datetime = -5 WHERE event = 7", "bar 7: bars: expected datetime in whole"),
        ("UPDATE bar SET reason = 'mood'", "bar 7: reason: expected one of ok, .*, found 'mood'"),
        ("UPDATE bar SET why = x'ff'", "bar 7: why: found bytes"),
        ("UPDATE bar SET why = CAST(x'ff' AS TEXT)", "expected a journal that can be read: Could"),
        ("UPDATE control SET what = 'x'", "control 2: what: expected one of killed, .*found 'x'"),
        ("UPDATE control SET number = 'x'", "control 2: number: found str"),
        ("UPDATE artifact SET model_id = x'00'", "artifact 1: model_id: found bytes"),
        ("UPDATE feed SET bars = 'x'", "feed 4: bars: found str"),
        ("UPDATE feed SET snapshot = 5", "feed 4: snapshot: expected one of 0, .*, 4, found 5"),
        ("UPDATE feed SET snapshot = -1", "feed 4: snapshot: expected one of 0, .*, 4, found -1"),
        ("UPDATE feed SET snapshot = 4", "feed 4: bars: expected none of a dropped st.* found 30"),
        ("UPDATE feed SET bars = zeroblob(41)", "feed 4: bars: expected five columns of float64"),
        ("UPDATE feed SET bars = zeroblob(40)", "feed 4: bars: expected datetime"),
        ("UPDATE decision SET action = 'SELL'", "decision 11: action: .* found 'SELL'"),
        ("UPDATE decision SET reason = ''", "decision 11: reason: expected one of ok"),
        ("UPDATE decision SET value = 'x'", "decision 11: value: found str"),
        ("UPDATE decision SET value = -9e999", "decision 11: value: found -inf"),
        ("UPDATE decision SET capital = NULL", "decision 11: expected all of capital, position"),
        ("UPDATE decision SET capital = -1.0", "decision 12: account: expected capital > 0"),
        ("UPDATE decision SET is_position_open = 0", "decision 11: account: expected is_position"),
        ("UPDATE decision SET is_position_open = 7", "expected 0 or 1, found 7"),
        ("UPDATE decision SET outputs = 1.5", "decision 11: outputs: found float"),
        ("DELETE FROM bar WHERE event = 7", "bar 8: expected event 7 in its place"),
        ("UPDATE bar SET event = -3 WHERE event = 7", "bar -3: expected event 1 in its place"),
        ("INSERT INTO control VALUES (7, 1.0, 'lost', 1, '')", "expected event 8 in its place"),
    ],
)
def test_values_that_are_none_of_ours_are_refused(file: Path, sql: str, why: str) -> None:
    changed(file, sql)
    with pytest.raises(JournalUnreadable, match=why):
        whole(file)


def test_bars_that_fall_are_refused(file: Path) -> None:
    columns = np.stack(
        [getattr(BARS, name) for name in ("datetime", "open", "high", "low", "close")]
    )
    changed(file, "UPDATE feed SET bars = ?", columns[:, ::-1].tobytes())
    with pytest.raises(JournalUnreadable, match="feed 4: bars: expected rising stamps"):
        whole(file)


def test_a_huge_value_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed(file, "UPDATE feed SET bars = zeroblob(40000)")
    monkeypatch.setattr("hrm_runtime.journal.reader.LARGEST_VALUE", 39_999)
    with pytest.raises(JournalUnreadable, match="can be read: string or blob too big"):
        whole(file)


def test_a_file_that_was_refused_is_free_for_others_while_the_error_is_kept(file: Path) -> None:
    changed(file, "UPDATE bar SET reason = x'00'")
    with pytest.raises(JournalUnreadable, match="reason: found bytes") as kept:
        records(file)
    with closing(sqlite3.connect(file, timeout=0.0, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
    assert kept.tb is not None


VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    st.binary(max_size=80),
)


@MANY
@given(st.data())
def test_any_values_are_read_or_refused(sound: Path, tmp_path: Path, data: st.DataObject) -> None:
    path = Path(shutil.copy(sound, tmp_path))
    table = data.draw(st.sampled_from(["artifact", "control", "feed", "bar", "decision"]))
    column = data.draw(
        st.sampled_from([*next(r for r in records(sound) if r.table == table).values])
    )
    value = data.draw(VALUES)
    try:
        changed(path, f"UPDATE OR REPLACE {table} SET {column} = ?", value)  # noqa: S608
    except sqlite3.Error:
        return
    assert read_or_refused(path) in (list(range(1, len(UNIQUE) + 2)), f"{path}: ")


def read_or_refused(path: Path) -> list[int] | str:
    """The numbers of a file's events, or how its refusal begins."""
    try:
        return [one[0] for one in whole(path)]
    except JournalUnreadable as error:
        return str(error)[: len(f"{path}: ")]


@pytest.mark.parametrize("seed", range(4))
def test_flipped_bits_are_refused_or_change_values_alone(file: Path, seed: int) -> None:
    """A flip inside a value is none that SQLite could see: then as many events are read."""
    content, chance = file.read_bytes(), random.Random(seed)  # noqa: S311, no secret
    outcomes = []
    for _ in range(80):
        flipped = bytearray(content)
        flipped[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        file.write_bytes(flipped)
        outcomes.append(read_or_refused(file))
    read = [one for one in outcomes if isinstance(one, list)]
    assert {one for one in outcomes if isinstance(one, str)} == {f"{file}: "}
    assert read
    assert all(one == list(range(1, len(one) + 1)) for one in read)


# beside others


def test_reading_changes_nothing(file: Path) -> None:
    before = file.read_bytes()
    assert len(whole(file)) == 1 + len(UNIQUE)
    assert file.read_bytes() == before
    assert os.listdir(file.parent) == [file.name]


def test_a_file_is_read_as_it_was_when_it_was_opened(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.begin(SETTINGS, LOADED)
    try:
        journal.record(Fed(1.0, LINE, BARS), BARS)
        journal.record(decided(1))
        eventually(lambda: journal.committed == 1)
        path = journal.health().file
        before = path.read_bytes()
        with closing(JournalFile(path)) as opened:
            reading = opened.records()
            assert next(reading).table == "artifact"
            journal.record(taken())
            journal.record(decided(2))
            eventually(lambda: journal.committed == 2)
            assert [one.table for one in reading] == ["feed", "decision"]
        assert sequences(path) == [1, 2]
        assert path.read_bytes() == before
    finally:
        journal.close()
    assert sequences(path) == [1, 2]


def test_a_closed_file_gives_no_more(file: Path) -> None:
    opened = JournalFile(file)
    reading = opened.records()
    next(reading)
    opened.close()
    with pytest.raises(JournalUnreadable, match="Cannot operate on a closed database"):
        list(reading)


LOCKED = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


def test_a_file_that_another_process_locks_is_refused(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hrm_runtime.journal.reader._PATIENCE_S", 0.01)
    command = [sys.executable, "-c", LOCKED, str(file)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(JournalUnreadable, match="can be read: database is locked"):
            JournalFile(file)
        other.communicate(timeout=SAFETY_S)
    assert len(whole(file)) == 1 + len(UNIQUE)


def test_a_file_that_was_not_closed_needs_a_folder_that_can_be_written(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed(file, "PRAGMA journal_mode = WAL")
    Path(f"{file}-wal").mkdir()  # as where no file can be put
    with pytest.raises(
        JournalUnreadable, match=r"it was not closed .*: copy it and the files beside it that beg"
    ):
        JournalFile(file)


def test_no_connection_is_a_refusal(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any, **__: Any) -> Any:
        raise sqlite3.OperationalError("out of descriptors")

    with monkeypatch.context() as patch:
        patch.setattr("hrm_runtime.journal.reader.sqlite3.connect", failing)
        with pytest.raises(JournalUnreadable, match="can be read: out of descriptors"):
            JournalFile(file)


def test_a_copy_with_what_lies_beside_it_has_what_was_committed(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.begin(SETTINGS, LOADED)
    try:
        journal.record(decided(1))
        eventually(lambda: journal.committed == 1)
        copied = Path(shutil.copytree(journal.folder, tmp_path / "copy"))
    finally:
        journal.close()
    (path,) = files_in(copied)
    assert Path(f"{path}-wal").exists()
    assert sequences(path) == [1]
