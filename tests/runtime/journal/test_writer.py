import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from journalled import (
    LOADED,
    SETTINGS,
    Disk,
    decided,
    held,
    journal_of,
    records,
    row_of,
    rows,
    sequences,
    taken,
)
from live import SAFETY_S, eventually

from hrm_runtime import BadInput
from hrm_runtime.journal.events import Control, Controlled
from hrm_runtime.journal.file import files_in
from hrm_runtime.journal.writer import Journal

Begun = Callable[..., Journal]


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


def test_an_event_that_is_being_collected_counts_once(folder: Path) -> None:
    journal = Journal(folder, most_waiting=3)
    for sequence in (1, 2):
        journal.record(decided(sequence))
    moving = journal._queue.get()  # as the thread does
    journal.record(decided(3))
    journal._pending.append(moving)  # type: ignore[arg-type]
    assert (journal._full, journal._lost) == (False, 0)
    journal._pending.append(journal._queue.get())  # type: ignore[arg-type]
    moving = journal._queue.get()
    journal.record(decided(4))
    assert (journal._full, journal._lost) == (True, 1)


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
