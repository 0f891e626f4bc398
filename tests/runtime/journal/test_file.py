import json
import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
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
    bars_equal,
    decided,
    held,
    journal_of,
    records,
    row_of,
    rows,
    sequences,
    taken,
)
from live import eventually

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
from hrm_runtime.journal.file import files_in
from hrm_runtime.journal.reader import JournalFile
from hrm_runtime.journal.writer import Journal
from hrm_runtime.machine import machine
from hrm_runtime.market.account import LARGEST

Begun = Callable[..., Journal]


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
        "bar", "bar", "bar", "bar", *6 * ["decision"], "feed", "feed", "feed",
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

STAMPS = st.integers(31_536_000, 10**11 - 1)

LINES = st.tuples(TEXTS, TEXTS)

REASONS = st.sampled_from(Reason)


@st.composite
def accounts(draw: st.DrawFn) -> Account:
    values = st.floats(-LARGEST, LARGEST).map(lambda number: number + 0.0)
    lots = draw(values)
    if lots == 0:
        return Account.flat(draw(st.floats(0, LARGEST, exclude_min=True)))
    entry = draw(st.floats(0, LARGEST, exclude_min=True))
    trail = draw(st.floats(-1, 1)) + 0.0
    return Account(draw(values), lots, entry, draw(values), True, trail)


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


# names, and what follows


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

    monkeypatch.setattr("hrm_runtime.journal.file.time.strftime", stamp)
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


class Writer:
    """A process that writes journals in children of its own; see `journal_writer`."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._orders, self._lines = process.stdin, process.stdout

    def begin(self, folder: Path) -> None:
        """Begin to write."""
        print(folder, file=self._orders, flush=True)
        self._child = int(self._lines.readline())

    def told(self) -> int:
        """What it says next to be on the disk."""
        return int(self._lines.readline())

    def kill(self) -> list[int]:
        """End it; what it said until then."""
        os.kill(self._child, signal.SIGKILL)
        return [int(line) for line in iter(self._lines.readline, f"{journal_writer.END}\n")]


@pytest.fixture(scope="module")
def writer() -> Iterator[Writer]:
    program = [sys.executable, journal_writer.__file__]
    root = str(Path(journal_writer.__file__).parents[2])
    with subprocess.Popen(
        program,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    ) as process:
        yield Writer(process)


@pytest.mark.parametrize("seed", range(5))
def test_what_a_killed_process_said_to_be_on_the_disk_is(
    folder: Path, writer: Writer, seed: int
) -> None:
    lines = random.Random(seed).randint(1, 25)  # noqa: S311, no secret
    writer.begin(folder)
    told = [writer.told() for _ in range(lines)]
    told += writer.kill()
    found = sequences(folder)
    assert found == list(range(1, len(found) + 1))
    assert len(found) >= told[-1] == max(told)
    for file in files_in(folder):
        first = records(file)[0]
        assert (first.table, first["model_id"]) == ("artifact", "a" * 64)


def test_a_lock_ends_with_the_process_that_held_it(folder: Path, writer: Writer) -> None:
    writer.begin(folder)
    assert writer.told() == 0
    with pytest.raises(BadInput, match="database is locked"):
        Journal(folder).begin({}, LOADED)
    writer.kill()
    journal = Journal(folder)
    journal.begin({}, LOADED)
    journal.record(decided(1))
    journal.close()
    assert sequences(files_in(folder)[-1]) == [1]
