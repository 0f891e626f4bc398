import json
import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import journal_writer
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journalled import (
    BARS,
    EVENTS,
    LINE,
    LOADED,
    OTHER,
    OUTPUTS,
    SETTINGS,
    Disk,
    bars_equal,
    decided,
    held,
    journal_of,
    records,
    rows,
    sequences,
    taken,
)
from live import SAFETY_S, eventually

from hrm_runtime import Account, Action, BadInput, Bar, Bars, Reason
from hrm_runtime.artifact.decision import Decision
from hrm_runtime.journal.events import (
    Control,
    Controlled,
    Decided,
    Event,
    Fed,
    Loaded,
    Taken,
    packed,
)
from hrm_runtime.journal.reader import JournalFile
from hrm_runtime.journal.writer import Journal, _File, files_in
from hrm_runtime.machine import machine

Begun = Callable[..., Journal]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def begun(folder: Path) -> Iterator[Begun]:
    """Begins journals in `folder`; they are closed afterwards."""
    with ExitStack() as journals:

        def begin(**given: Any) -> Journal:
            journal = Journal(folder, **given)
            journal.begin(SETTINGS, LOADED)
            journals.callback(journal.close)
            return journal

        yield begin


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def row_of(event: Event) -> tuple[Any, ...]:
    names = {Loaded: "artifact", Controlled: "control", Fed: "feed", Taken: "bar"}
    values = [
        value.value if isinstance(value, Control) else int(value) if value is True else value
        for value in event.row()
    ]
    return names.get(type(event), "decision"), *(0 if value is False else value for value in values)


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """How loud and what."""
    return [(record.levelname, record.hrm["event"]) for record in caplog.records]  # type: ignore[attr-defined]


# what is written is read


@pytest.mark.parametrize("name", EVENTS)
def test_every_kind_of_event_is_read_back(folder: Path, name: str) -> None:
    expected = [row_of(LOADED), row_of(EVENTS[name])]
    assert repr(rows(journal_of(folder, EVENTS[name]))) == repr(expected)


def test_events_are_read_in_the_order_in_which_they_came(folder: Path) -> None:
    found = records(journal_of(folder, *EVENTS.values()))
    assert [one.event for one in found] == list(range(1, len(EVENTS) + 2))
    assert [one.table for one in found] == [
        "artifact", "artifact", "control", "control", "feed", "feed", "feed",
        "bar", "bar", "bar", "bar", *6 * ["decision"],
    ]  # fmt: skip


def test_settings_and_machine_are_in_every_file(folder: Path) -> None:
    file = JournalFile(journal_of(folder))
    file.close()
    assert file.settings == SETTINGS
    here = asdict(machine(("hrm", "numpy", "onnxruntime", "TA-Lib")))
    assert file.machine == json.loads(json.dumps(here))


def test_outputs_are_kept_by_name_and_states_as_a_digest(folder: Path) -> None:
    found = records(journal_of(folder, decided(1)))[1]
    assert np.frombuffer(found["outputs"], "<f4").tolist() == [
        *range(5), float(np.float32(0.1))
    ]  # fmt: skip
    assert (found["outputs"], found["states"]) == packed(OUTPUTS)
    assert len(found["states"]) == 16


def test_one_bit_of_a_state_changes_the_digest() -> None:
    other = {name: array.copy() for name, array in OUTPUTS.items()}
    other["z_L_out"][1, 2] = np.nextafter(np.float32(-0.5), np.float32(0))
    assert packed(other)[0] == packed(OUTPUTS)[0]
    assert packed(other)[1] != packed(OUTPUTS)[1]


MANY = settings(deadline=None, derandomize=True, max_examples=25)

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
FINITE = st.floats(allow_nan=False, allow_infinity=False).map(lambda number: number + 0.0)
TIMES = st.one_of(st.floats(), FINITE)
PRICES = st.floats(1e-12, 1e12)
STAMPS = st.integers(0, 10**11 - 1)
LINES = st.tuples(TEXTS, TEXTS)
REASONS = st.sampled_from(Reason)


@st.composite
def accounts(draw: st.DrawFn) -> Account:
    capital = draw(st.floats(0, exclude_min=True, allow_infinity=False))
    lots = draw(FINITE)
    if lots == 0:
        return Account.flat(capital)
    entry = draw(st.floats(0, exclude_min=True, allow_infinity=False))
    trail = draw(st.floats(-1, 1)) + 0.0
    return Account(capital, lots, entry, draw(FINITE), True, trail)


@st.composite
def a_bar(draw: st.DrawFn, stamps: st.SearchStrategy[int] = STAMPS) -> Bar:
    low, *between, high = sorted(draw(st.lists(PRICES, min_size=4, max_size=4)))
    return Bar(draw(stamps), between[0], high, low, between[1])


@st.composite
def some_bars(draw: st.DrawFn) -> Bars:
    stamps = sorted(draw(st.sets(STAMPS, max_size=6)))
    drawn = [draw(a_bar(st.just(stamp))) for stamp in stamps]
    return Bars(*(np.array([bar[column] for bar in drawn]) for column in range(5)))


@st.composite
def decision(draw: st.DrawFn) -> Decided:
    made = Decision(
        action=draw(st.sampled_from(Action)),
        quantity=draw(FINITE),
        value=draw(FINITE),
        probabilities=draw(st.tuples(*5 * [FINITE])),
        q_values=draw(st.tuples(FINITE, FINITE)),
        segments=draw(st.integers(0, 64)),
        reason=draw(REASONS),
        model_id=draw(TEXTS),
        latency_ms=draw(FINITE),
        sequence=0,
    )
    outputs = st.builds(lambda seed: {**OUTPUTS, "value": np.array([seed], "<f4")}, FINITE32)
    return Decided(
        draw(TIMES),
        draw(LINES),
        draw(st.none() | STAMPS),
        draw(st.none() | accounts()),
        made,
        draw(st.none() | TEXTS),
        draw(st.none() | st.integers(0, 2**63 - 1)),
        draw(st.none() | outputs),
    )


FINITE32 = st.floats(width=32)

ANY = st.one_of(
    st.builds(Loaded, FINITE, TEXTS, TEXTS, TEXTS),
    st.builds(Controlled, FINITE, st.sampled_from(Control), st.integers(0, 2**63 - 1), TEXTS),
    st.builds(Fed, TIMES, LINES, some_bars(), st.booleans()),
    st.builds(Taken, TIMES, LINES, st.none() | a_bar(), REASONS, st.none() | TEXTS),
    decision(),
)


@MANY
@given(st.lists(ANY, max_size=12))
def test_any_valid_events_are_read_back(drawn: list[Event]) -> None:
    events = [
        replace(event, decision=replace(event.decision, sequence=number))
        if isinstance(event, Decided)
        else event
        for number, event in enumerate(drawn, 1)
    ]
    with TemporaryDirectory() as folder:
        found = records(journal_of(Path(folder), *events))
    assert len(found) == 1 + len(events)
    for record, event in zip(found[1:], events, strict=True):
        values = tuple(list(record.values.values())[1:])
        assert repr((record.table, *values)) == repr(row_of(event))
        if isinstance(event, Fed):
            assert bars_equal(record.bars, event.bars)
        elif isinstance(event, Taken):
            assert (record.line, record.bar, record.reason) == (
                event.line, event.bar, event.reason
            )  # fmt: skip
        elif isinstance(event, Controlled):
            assert record.control is event.what
        elif isinstance(event, Decided):
            assert repr(asdict(record.decision)) == repr(asdict(event.decision))
            assert record.account == event.account


def test_the_sign_of_a_zero_is_all_that_sqlite_drops(folder: Path) -> None:
    account = Account(1.0, 1.0, 1.0, -0.0, True, 0.0)
    found = records(journal_of(folder, decided(1, account)))[1].account
    assert found == account
    assert [math.copysign(1, one.unrealized_pnl) for one in (account, found) if one] == [-1, 1]


def test_text_that_is_no_utf8_is_escaped(folder: Path) -> None:
    found = records(journal_of(folder, replace(held(1), line=("\ud800A", "5\0"))))
    assert found[1].line == ("\\ud800A", "5\0")


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.float64, np.float32])
def test_numbers_of_numpy_are_numbers(folder: Path, kind: Callable[[int], Any]) -> None:
    found = records(journal_of(folder, replace(taken(), at=kind(7)), decided(1)))
    assert (found[1]["at"], type(found[1]["at"])) == (7.0, float)


def test_text_is_bounded(folder: Path) -> None:
    found = records(journal_of(folder, replace(held(1), why="x" * 20_000)))
    assert found[1]["why"] == "x" * 10_000


# what a caller sees


def test_recording_waits_for_no_disk(begun: Begun, disk: Disk) -> None:
    journal = begun()
    disk.working.clear()
    journal.record(decided(1))
    assert disk.asked.wait(SAFETY_S)
    for sequence in range(2, 100):
        journal.record(decided(sequence))
    health = journal.health()
    assert (health.committed, health.waiting, health.lost, health.trouble) == (0, 99, 0, None)
    disk.working.set()
    eventually(lambda: journal.health().waiting == 0)
    assert journal.committed == 99


def test_what_is_committed_is_readable_at_that_moment(begun: Begun) -> None:
    journal, seen = begun(), []
    for sequence in range(1, 301):
        journal.record(taken())
        journal.record(decided(sequence))
        if sequence % 60 == 0:
            number = journal.committed
            found = sequences(journal.health().file)
            assert found == list(range(1, len(found) + 1))
            assert len(found) >= number
            seen.append(number)
    eventually(lambda: journal.committed == 300)
    assert seen == sorted(seen)
    assert sequences(journal.health().file) == list(range(1, 301))


def test_everything_recorded_by_many_threads_is_there(folder: Path, begun: Begun) -> None:
    journal = begun()

    def record(thread: int) -> None:
        for number in range(200):
            journal.record(Controlled(float(number), Control.REVIVED, thread))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(record, range(8)))
    journal.close()
    found = [(one["number"], one["at"]) for one in records(folder)[1:]]
    assert len(found) == 1600
    for thread in range(8):
        assert [at for of, at in found if of == thread] == [float(n) for n in range(200)]


def test_health_of_a_journal_that_writes(folder: Path, begun: Begun) -> None:
    journal = begun()
    journal.record(decided(7))
    eventually(lambda: (journal.committed, journal.health().waiting) == (7, 0))
    assert asdict(journal.health()) == {
        "file": files_in(folder)[0], "committed": 7, "waiting": 0, "lost": 0, "trouble": None,
    }  # fmt: skip


def test_committed_never_falls(begun: Begun) -> None:
    journal = begun()
    journal.record(decided(7))
    journal.record(decided(3))
    journal.record(held(4))
    journal.close()
    assert journal.committed == 7


def test_closing_writes_what_waits(folder: Path, begun: Begun, disk: Disk) -> None:
    journal = begun()
    disk.working.clear()
    for sequence in range(1, 50):
        journal.record(decided(sequence))
    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(journal.close)
        disk.working.set()
        closing.result(SAFETY_S)
    assert sequences(folder) == list(range(1, 50))
    assert journal.health().waiting == 0


def test_a_journal_may_be_closed_again_and_loses_what_comes_later(folder: Path) -> None:
    journal = Journal(folder)
    journal.begin(SETTINGS, LOADED)
    journal.close()
    journal.close()
    journal.record(decided(1))
    health = journal.health()
    assert (health.waiting, health.lost, health.committed) == (0, 1, 0)
    assert rows(folder) == [row_of(LOADED)]


def test_a_journal_that_was_not_begun_may_be_closed(folder: Path) -> None:
    Journal(folder).close()
    assert not folder.exists()


def test_a_closed_file_is_alone(folder: Path) -> None:
    file = journal_of(folder, decided(1))
    assert sorted(os.listdir(folder)) == sorted([file.name, "lock"])
    connection = sqlite3.connect(file)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    connection.close()


def test_a_file_is_written_ahead_and_flushed(begun: Begun) -> None:
    connection = begun()._file._connection
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


# disks that fail


def test_events_wait_while_the_disk_is_full(
    folder: Path, begun: Begun, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    journal = begun()
    journal.record(decided(1))
    eventually(lambda: journal.committed == 1)
    disk.fail()
    for sequence in range(2, 12):
        journal.record(decided(sequence))
    eventually(lambda: journal.health().trouble is not None)
    health = journal.health()
    assert health.trouble == "database or disk is full"
    assert (health.committed, health.waiting, health.lost) == (1, 10, 0)
    disk.asked.clear()
    assert disk.asked.wait(SAFETY_S)  # it tries again and says nothing
    disk.work()
    eventually(lambda: journal.committed == 11)
    eventually(lambda: journal.health().trouble is None)
    assert told(caplog) == [("ERROR", "journal"), ("WARNING", "journal writes again")]
    journal.close()
    assert rows(folder) == [row_of(LOADED), *(row_of(decided(n)) for n in range(1, 12))]


def test_a_file_that_cannot_grow_is_trouble_until_it_can(folder: Path, begun: Begun) -> None:
    journal = begun()
    journal._file._connection.execute("PRAGMA max_page_count = 1")
    journal.record(Fed(1.0, LINE, BARS), BARS)
    for sequence in range(1, 200):
        journal.record(decided(sequence))
    eventually(lambda: journal.health().trouble is not None)
    assert journal.health().trouble == "database or disk is full"
    journal._file._connection.execute("PRAGMA max_page_count = 100000")
    eventually(lambda: journal.committed == 199)
    assert sequences(folder) == list(range(1, 200))


@pytest.mark.parametrize("failing", [True, False], ids=["disk fails", "disk is slow"])
def test_what_cannot_wait_is_lost_and_said_to_be(
    folder: Path, begun: Begun, disk: Disk, failing: bool
) -> None:
    journal = begun(most_waiting=5)
    journal.record(Fed(1.0, OTHER, BARS), BARS)
    eventually(lambda: journal.health().waiting == 0)
    disk.working.clear()
    if failing:
        disk.fail()
    for sequence in range(1, 6):
        journal.record(decided(sequence))
    journal.record(Fed(1.0, LINE, BARS[:20]), BARS[:20])
    journal.record(Loaded(4.0, "b" * 64, "other", "used"))
    journal.record(Controlled(4.0, Control.KILLED))
    journal.record(decided(6))
    assert (journal.health().waiting, journal.health().lost) == (5, 4)
    disk.working.set()
    if failing:
        eventually(lambda: journal.health().trouble is not None)
        journal.record(taken(20), BARS[:21])
        disk.work()
    lost = 5 if failing else 4
    eventually(lambda: (journal._full, journal.health().waiting) == (False, 0))
    journal.record(decided(7))
    journal.close()
    found = records(folder)
    assert [one.table for one in found] == [
        "artifact", "feed", *5 * ["decision"],
        "control", "artifact", "control", "feed", "feed", "decision",
    ]  # fmt: skip
    assert sequences(folder) == [1, 2, 3, 4, 5, 7]
    gap = found[7:]
    assert (gap[0].control, gap[0]["number"], gap[0]["why"]) == (Control.LOST, lost, "")
    assert (gap[1]["model_id"], gap[1]["why"]) == ("b" * 64, "used")
    assert gap[2].control is Control.KILLED
    assert [(one.line, one["snapshot"]) for one in gap[3:5]] == [(OTHER, 1), (LINE, 1)]
    assert bars_equal(gap[3].bars, BARS)
    assert bars_equal(gap[4].bars, BARS[: 21 if failing else 20])
    health = journal.health()
    assert (health.committed, health.lost, health.waiting) == (7, lost, 0)


def test_each_gap_says_what_was_lost_in_it(folder: Path, begun: Begun, disk: Disk) -> None:
    journal = begun(most_waiting=1)
    for lost in (2, 3):
        disk.asked.clear()
        disk.working.clear()
        journal.record(taken(), BARS)
        assert disk.asked.wait(SAFETY_S)
        for _ in range(lost):
            journal.record(taken(), BARS)
        disk.working.set()
        eventually(lambda: (journal._full, journal.health().waiting) == (False, 0))
    journal.close()
    numbers = [one["number"] for one in records(folder) if one.table == "control"]
    assert (numbers, journal.health().lost) == ([2, 3], 5)


def test_recording_does_not_wait_while_a_gap_is_closed(
    folder: Path, begun: Begun, disk: Disk
) -> None:
    journal = begun(most_waiting=2)
    disk.working.clear()
    for sequence in (1, 2, 3):
        journal.record(decided(sequence))
    disk.asked.clear()
    disk.fail()
    disk.working.set()
    eventually(lambda: journal.health().trouble is not None)
    disk.work()
    eventually(lambda: not journal._full)
    journal.record(decided(4))
    journal.close()
    assert sequences(folder) == [1, 2, 4]


def test_a_switch_that_was_turned_on_again_is_not_told_in_the_next_file(folder: Path) -> None:
    journal_of(
        folder,
        Controlled(1.0, Control.KILLED),
        Controlled(1.0, Control.BREAKER_OPENED),
        Controlled(2.0, Control.REVIVED),
        Controlled(2.0, Control.LOST, 3),
        file_mb=1e-3,
        files=1,
    )
    assert [one.control for one in records(folder)[1:]] == [Control.BREAKER_OPENED]


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.rename(f"{path}.moved")])
def test_after_a_file_that_was_removed_comes_a_new_one(
    folder: Path, begun: Begun, damage: Callable[[Path], Any]
) -> None:
    journal = begun()
    journal.record(Fed(1.0, LINE, BARS), BARS)
    journal.record(decided(1))
    eventually(lambda: journal.committed == 1)
    before = journal.health().file
    damage(before)
    journal.record(decided(2))
    eventually(lambda: journal.committed == 2)
    journal.close()
    (file,) = files_in(folder)
    assert file.name > before.name
    found = records(file)
    assert [one.table for one in found] == ["artifact", "feed", "decision"]
    assert bars_equal(found[1].bars, BARS)
    assert sequences(file) == [2]


def test_after_a_file_that_was_damaged_comes_a_new_one(
    folder: Path, begun: Begun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hrm_runtime.journal.writer._RETRY_S", 0.01)
    journal, insert, errors = begun(), _File._insert, iter([sqlite3.DatabaseError("malformed")])

    def failing(file: _File, events: Any) -> None:
        for error in errors:
            raise error
        insert(file, events)

    monkeypatch.setattr(_File, "_insert", failing)
    journal.record(decided(1))
    eventually(lambda: journal.committed == 1)
    assert len(files_in(folder)) == 2
    assert rows(journal.health().file) == [row_of(LOADED), row_of(decided(1))]


def test_a_folder_that_was_removed_is_trouble_until_it_is_back(
    folder: Path, begun: Begun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hrm_runtime.journal.writer._RETRY_S", 0.01)
    journal = begun()
    folder.rename(folder.with_name("elsewhere"))
    journal.record(decided(1))
    eventually(lambda: journal.health().trouble is not None)
    assert journal.health().trouble == "unable to open database file"
    folder.mkdir()
    eventually(lambda: journal.committed == 1)
    assert sequences(folder) == [1]
    assert [path.name for path in folder.iterdir() if path.name == "next"] == []


@pytest.mark.parametrize("call", ["rename", "stat"], ids=["drafted", "named"])
def test_a_next_file_that_cannot_be_begun_loses_nothing_and_leaves_nothing(
    folder: Path, begun: Begun, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.setattr("hrm_runtime.journal.writer._RETRY_S", 0.01)
    journal, failed, make = begun(file_mb=0.1), [], _File.__init__

    def broken(path: Path, *_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    def made(file: _File, path: Path, *given: Any) -> None:
        with monkeypatch.context() as patch:
            if len(failed) < 3:
                failed.append(path)
                patch.setattr(Path, call, broken)
            make(file, path, *given)

    monkeypatch.setattr(_File, "__init__", made)
    for sequence in range(1, 400):
        journal.record(decided(sequence))
    eventually(lambda: len(failed) == 3)
    eventually(lambda: journal.health().trouble is None)
    journal.close()
    assert sequences(folder) == list(range(1, 400))
    assert len(files_in(folder)) == 2
    assert sorted(os.listdir(folder)) == [*(file.name for file in files_in(folder)), "lock"]


def test_whatever_is_raised_is_trouble_and_the_thread_goes_on(
    folder: Path, begun: Begun, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    journal = begun()
    disk.error = ZeroDivisionError()
    journal.record(decided(1))
    eventually(lambda: journal.health().trouble is not None)
    assert journal.health().trouble == "ZeroDivisionError"
    disk.work()
    eventually(lambda: journal.committed == 1)
    assert told(caplog)[0] == ("ERROR", "journal")


@pytest.mark.parametrize(
    ("event", "why"),
    [
        (replace(decided(3), datetime=2**63), "OverflowError: Python int too large"),
        (replace(decided(3), datetime=object()), "InterfaceError|ProgrammingError"),
        (decided(1), "IntegrityError: UNIQUE constraint failed: decision.sequence"),
        (replace(decided(3), outputs={}), "KeyError: 'z_H_out'"),
        (replace(LOADED, at=math.nan), "IntegrityError: NOT NULL constraint failed: artifact.at"),
        ("nothing", "KeyError: <class 'str'>"),
    ],
    ids=["too large", "of no type", "twice", "no outputs", "no time", "no event"],
)
def test_an_event_that_nothing_can_hold_is_left_out_and_said_to_be(
    folder: Path, begun: Begun, caplog: pytest.LogCaptureFixture, event: Any, why: str
) -> None:
    journal = begun()
    for one in (Fed(1.0, LINE, BARS), decided(1), event, decided(9)):
        journal.record(one, BARS if isinstance(one, Fed) else None)
    journal.close()
    found = records(folder)
    again = ["artifact", "feed"] if not isinstance(event, Loaded) else []
    tables = ["artifact", "feed", "decision", "control", *again, "decision"]
    assert [one.table for one in found] == tables
    assert (found[3].control, found[3]["number"]) == (Control.LOST, 1)
    assert found[3]["why"].startswith(tuple(why.split("|")))
    health = journal.health()
    assert (health.committed, health.lost, health.trouble) == (9, 1, None)
    assert told(caplog) == [("ERROR", "journal: event left out")]


def test_bars_too_large_for_a_reader_are_replaced_by_all_that_the_stream_has(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hrm_runtime.journal.writer.LARGEST_VALUE", 2300)
    names = ("datetime", "open", "high", "low", "close")
    later = replace(BARS, datetime=BARS.datetime + 300 * len(BARS))
    both = {name: np.concatenate([getattr(BARS, name), getattr(later, name)]) for name in names}
    journal = Journal(folder)
    journal.begin({}, LOADED)
    journal.record(Fed(1.0, LINE, BARS), BARS)
    journal.record(Fed(1.0, LINE, Bars.of(both)), BARS[-5:])
    journal.close()
    found = records(folder)
    assert [one.table for one in found] == ["artifact", "feed", "control", "artifact", "feed"]
    assert found[2]["why"] == "DataError: string or blob too big"
    assert bars_equal(found[4].bars, BARS[-5:])


def test_closing_while_the_disk_fails_returns_and_says_what_is_lost(
    folder: Path, begun: Begun, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    journal = begun()
    disk.fail()
    for sequence in range(1, 5):
        journal.record(decided(sequence))
    eventually(lambda: journal.health().trouble is not None)
    journal.record(decided(5))
    journal.close()
    health = journal.health()
    assert (health.committed, health.waiting, health.lost) == (0, 0, 5)
    assert told(caplog) == [("ERROR", "journal"), ("ERROR", "journal ends")]
    assert caplog.records[1].hrm == {  # type: ignore[attr-defined]
        "event": "journal ends", "why": "database or disk is full", "lost": 5,
    }  # fmt: skip


def test_closing_when_the_disk_works_again_writes_all(
    folder: Path, begun: Begun, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hrm_runtime.journal.writer._RETRY_S", SAFETY_S)
    journal = begun()
    disk.fail()
    journal.record(decided(1))
    eventually(lambda: journal.health().trouble is not None)
    journal.record(decided(2))
    disk.work()
    journal.close()
    assert sequences(folder) == [1, 2]
    assert (journal.health().lost, journal.health().trouble) == (0, None)


def test_closing_while_the_disk_hangs_returns(
    begun: Begun, disk: Disk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    journal = begun()
    disk.working.clear()
    journal.record(decided(1))
    assert disk.asked.wait(SAFETY_S)
    with monkeypatch.context() as patch:
        patch.setattr("hrm_runtime.journal.writer._CLOSE_S", 0.01)
        journal.close()
    assert told(caplog) == [("ERROR", "journal does not end")]
    assert journal.committed == 0
    disk.working.set()
    journal.close()
    assert journal.committed == 1


# where a journal can be


@pytest.mark.parametrize("name", ["file_mb", "files", "most_waiting"])
@pytest.mark.parametrize("value", [0, -1, math.nan])
def test_numbers_that_are_not_above_zero_are_refused(folder: Path, name: str, value: float) -> None:
    with pytest.raises(BadInput, match="expected file_mb, files and most_waiting above 0"):
        Journal(folder, **{name: value})


def test_a_folder_is_made_with_those_above(tmp_path: Path) -> None:
    assert sequences(journal_of(tmp_path / "a" / "b" / "c", decided(1))) == [1]


def a_file(path: Path) -> Path:
    path.touch()
    return path


def below_a_file(path: Path) -> Path:
    path.touch()
    return path / "journal"


def with_lock(make: Callable[[Path], Any]) -> Callable[[Path], Path]:
    def made(path: Path) -> Path:
        path.mkdir()
        make(path / "lock")
        return path

    return made


@pytest.mark.parametrize(
    ("place", "why"),
    [
        (a_file, r"\[Errno 17\] File exists"),
        (below_a_file, r"\[Errno 20\] Not a directory"),
        (lambda path: Path("/proc/self/journal"), r"\[Errno 2\] No such file"),
        (lambda path: Path("/proc/self"), "unable to open database file"),
        (with_lock(Path.mkdir), "unable to open database file"),
        (with_lock(lambda path: path.write_bytes(b"x" * 4096)), "file is not a database"),
    ],
    ids=["a file", "below a file", "no folders there", "no files there", "folder", "junk"],
)
def test_a_place_that_cannot_be_written_is_refused(
    folder: Path, place: Callable[[Path], Path], why: str
) -> None:
    with pytest.raises(BadInput, match=rf"^journal: expected a folder that can be .*{why}"):
        Journal(place(folder)).begin({}, LOADED)


def test_a_refused_beginning_leaves_no_lock_and_may_be_repeated(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(folder)
    (folder / "next").mkdir(parents=True)
    with pytest.raises(BadInput, match="expected a folder that can be written"):
        journal.begin({}, LOADED)
    (folder / "next").rmdir()
    journal.begin({}, LOADED)
    journal.close()
    assert rows(folder) == [row_of(LOADED)]


def test_a_journal_begins_once(folder: Path, begun: Begun) -> None:
    journal = begun()
    with pytest.raises(BadInput, match="expected one that was not begun before; make another"):
        journal.begin({}, replace(LOADED, name="another"))
    journal.close()
    with pytest.raises(BadInput, match="expected one that was not begun before; make another"):
        journal.begin({}, LOADED)
    assert rows(folder) == [row_of(LOADED)]


def test_two_journals_in_one_folder_are_refused(folder: Path, begun: Begun) -> None:
    journal = begun()
    with pytest.raises(BadInput, match=r"and that no other engine writes to: .*: database is lo"):
        begun()
    journal.record(decided(1))
    journal.close()
    begun().close()
    assert [len(records(file)) for file in files_in(folder)] == [2, 1]


# files


def test_a_full_file_is_followed_by_one_that_stands_alone(folder: Path, begun: Begun) -> None:
    journal = begun(file_mb=0.1)
    journal.record(Fed(1.0, LINE, BARS[:20]), BARS[:20])
    journal.record(Fed(1.0, OTHER, BARS), BARS)
    journal.record(Controlled(1.0, Control.BREAKER_OPENED))
    for sequence in range(1, 501):
        journal.record(decided(sequence))
        journal.record(taken(20), BARS[:21])
        if sequence % 50 == 0:
            eventually(lambda: journal.health().waiting == 0)
    journal.close()
    files = files_in(folder)
    assert len(files) >= 3
    assert sequences(folder) == list(range(1, 501))
    for file in files[1:]:
        found = records(file)
        assert [one.table for one in found[:4]] == ["artifact", "control", "feed", "feed"]
        assert (found[0]["model_id"], found[1].control) == ("a" * 64, Control.BREAKER_OPENED)
        assert [(one.line, one["snapshot"]) for one in found[2:4]] == [(LINE, 1), (OTHER, 1)]
        assert bars_equal(found[2].bars, BARS[:21])
        assert bars_equal(found[3].bars, BARS)
        assert file.stat().st_size < 0.4e6


@pytest.mark.parametrize("clock", ["stands", "goes", "is set back"])
def test_names_rise_and_the_oldest_files_go(
    folder: Path, begun: Begun, monkeypatch: pytest.MonkeyPatch, clock: str
) -> None:
    step = {"stands": 0, "goes": 1, "is set back": -1}[clock]
    seconds = iter(range(1_700_000_000, 1_700_000_000 + 100 * (step or 1), step or 1))
    now = [1_700_000_000.0]

    def stamp(format_: str, _: Any) -> str:
        moment = next(seconds) if step else now[0]
        return f"20240101T{int(moment) % 1_000_000:06}"

    monkeypatch.setattr("hrm_runtime.journal.writer.time.strftime", stamp)
    journal, names = begun(file_mb=1e-3, files=3), []
    for sequence in range(1, 8):
        names.append(journal.health().file.name)
        journal.record(decided(sequence))
        eventually(lambda: journal.health().file.name != names[-1])
    journal.close()
    names.append(journal.health().file.name)
    assert (names, len(set(names))) == (sorted(names), 8)
    assert [file.name for file in files_in(folder)] == names[-3:]
    assert sequences(folder) == [6, 7]


def test_files_of_others_stay(folder: Path, begun: Begun) -> None:
    folder.mkdir()
    others = ["notes.sqlite", "20240101T000000.sqlite", "20240101T000000-1.sqlite"]
    for name in others:
        (folder / name).write_text(name)
    journal_of(folder, decided(1), file_mb=1e-3, files=1)
    assert [(folder / name).read_text() for name in others] == others


def test_what_is_left_beside_an_old_file_goes_with_it(folder: Path) -> None:
    folder.mkdir()
    old = "20200101T000000-000000.sqlite"
    for name in (old, f"{old}-wal", f"{old}-shm"):
        (folder / name).touch()
    assert rows(journal_of(folder, files=1)) == [row_of(LOADED)]
    assert [name for name in os.listdir(folder) if name.startswith(old)] == []


def test_an_old_file_that_cannot_be_removed_stays(folder: Path) -> None:
    old = folder / "20200101T000000-000000.sqlite"
    old.mkdir(parents=True)
    journal = Journal(folder, files=1)
    journal.begin({}, LOADED)
    journal.close()
    assert files_in(folder) == [old, journal.health().file]


# processes that are killed


def writer(folder: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, journal_writer.__file__, str(folder)]
    root = str(Path(journal_writer.__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


@pytest.mark.parametrize("seed", range(5))
def test_what_a_killed_process_said_to_be_on_the_disk_is(folder: Path, seed: int) -> None:
    lines = random.Random(seed).randint(1, 25)  # noqa: S311, no secret
    with writer(folder) as process:
        assert process.stdout is not None
        told = [int(process.stdout.readline()) for _ in range(lines)]
        process.send_signal(signal.SIGKILL)
        told += map(int, process.stdout.read().split())
    assert process.returncode == -signal.SIGKILL
    found = sequences(folder)
    assert found == list(range(1, len(found) + 1))
    assert len(found) >= told[-1] == max(told)
    for file in files_in(folder):
        first = records(file)[0]
        assert (first.table, first["model_id"]) == ("artifact", "a" * 64)


def test_a_lock_ends_with_the_process_that_held_it(folder: Path) -> None:
    with writer(folder) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "0\n"
        with pytest.raises(BadInput, match="database is locked"):
            Journal(folder).begin({}, LOADED)
        process.kill()
    journal = Journal(folder)
    journal.begin({}, LOADED)
    journal.record(decided(1))
    journal.close()
    assert sequences(files_in(folder)[-1]) == [1]
