"""A journal whose disk fails."""

import math
import os
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from journalled import (
    BARS,
    LINE,
    LOADED,
    OTHER,
    Disk,
    bars_equal,
    decided,
    journal_of,
    records,
    row_of,
    rows,
    sequences,
    taken,
    told,
)
from live import SAFETY_S, eventually

from hrm_runtime import Bars
from hrm_runtime.journal.events import Change, Control, Controlled, Fed, Loaded
from hrm_runtime.journal.file import File, files_in
from hrm_runtime.journal.writer import Journal

Begun = Callable[..., Journal]


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


def test_a_stream_that_was_dropped_in_a_gap_is_not_told_after_it(
    folder: Path, begun: Begun, disk: Disk
) -> None:
    journal = begun(most_waiting=1)
    for line in (LINE, OTHER):
        journal.record(Fed(1.0, line, BARS), BARS)
        eventually(lambda: journal.health().waiting == 0)
    disk.asked.clear()
    disk.working.clear()
    journal.record(taken(), BARS)
    assert disk.asked.wait(SAFETY_S)
    journal.record(Fed(2.0, LINE, BARS[:0], Change.DROPPED))
    disk.working.set()
    eventually(lambda: (journal._full, journal.health().waiting) == (False, 0))
    journal.close()
    after = records(folder)[4:]
    assert [one.table for one in after] == ["control", "artifact", "feed"]
    assert (after[2].line, after[2].change) == (OTHER, Change.SNAPSHOT)


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
    journal, insert, errors = begun(), File._insert, iter([sqlite3.DatabaseError("malformed")])

    def failing(file: File, events: Any) -> None:
        for error in errors:
            raise error
        insert(file, events)

    monkeypatch.setattr(File, "_insert", failing)
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
    journal, failed, make = begun(file_mb=0.1), [], File.__init__

    def broken(path: Path, *_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    def made(file: File, path: Path, *given: Any) -> None:
        with monkeypatch.context() as patch:
            if len(failed) < 3:
                failed.append(path)
                patch.setattr(Path, call, broken)
            make(file, path, *given)

    monkeypatch.setattr(File, "__init__", made)
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
    monkeypatch.setattr("hrm_runtime.journal.file.LARGEST_VALUE", 2300)
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
