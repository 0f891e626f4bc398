"""Events of every kind, journals of them, and a disk in a test's hands."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Event as ThreadEvent
from typing import Any

import numpy as np
import pytest
from live import SAFETY_S, bar_at
from synthetic import ACCOUNTS, random_bars

from hrm_runtime import Account, Action, Bars, Reason
from hrm_runtime.artifact.decision import Decision, hold
from hrm_runtime.journal.events import (
    Change,
    Control,
    Controlled,
    Decided,
    Event,
    Fed,
    Loaded,
    Taken,
)
from hrm_runtime.journal.file import File, files_in
from hrm_runtime.journal.reader import JournalFile, Record
from hrm_runtime.journal.writer import Journal

SETTINGS = {"deadline": 1.0, "hours": {"zone": "Asia/Kolkata"}}
LOADED = Loaded(1.5, "a" * 64, "tiny", "started")
LINE = ("Alpha", "5")
OTHER = ("Beta", "15")
BARS = random_bars(30, seed=5)
MADE = Decision(
    action=Action.BUY_LONG,
    quantity=3.0,
    value=0.1 + 0.2,
    probabilities=(0.5, 0.25, 0.0, 0.0, 0.25),
    q_values=(1 / 3, 2 / 3),
    segments=2,
    reason=Reason.OK,
    model_id="a" * 64,
    latency_ms=7.25,
    sequence=1,
)
OUTPUTS = {
    "value": np.array([0.1], np.float32),
    "action_type": np.arange(5, dtype=np.float32),
    "z_H_out": np.full((2, 3), 0.5, np.float32),
    "z_L_out": np.full((2, 3), -0.5, np.float32),
}


def decided(sequence: int, account: Account | None = ACCOUNTS["long"], **changes: Any) -> Decided:
    """A decision of the network."""
    made = replace(MADE, sequence=sequence)
    event = Decided(2.5, LINE, 1_700_630_100, account, made, None, None, OUTPUTS)
    return replace(event, **changes)


def held(sequence: int, reason: Reason = Reason.STALE) -> Decided:
    """A decision that is none of the network."""
    made = replace(hold(reason, "a" * 64, latency_ms=0.5), sequence=sequence)
    return Decided(2.5, OTHER, None, None, made, "late", None, None)


def taken(number: int = -1) -> Taken:
    return Taken(2.25, LINE, bar_at(BARS, number), Reason.OK, None)


EVENTS: dict[str, Event] = {
    "artifact": Loaded(3.5, "b" * 64, "other", "used"),
    "killed": Controlled(3.75, Control.KILLED, why="operator"),
    "breaker": Controlled(3.75, Control.BREAKER_CLOSED),
    "fed": Fed(2.0, LINE, BARS),
    "fed nothing": Fed(2.0, LINE, BARS[:0]),
    "snapshot": Fed(2.0, LINE, BARS, Change.SNAPSHOT),
    "bar": taken(),
    "bar refused": Taken(2.25, OTHER, bar_at(BARS, 3), Reason.OUT_OF_ORDER, "bar: too late"),
    "bar that is none": Taken(2.25, OTHER, None, Reason.BAD_INPUT, "bar: expected one"),
    "bar at no time": replace(taken(), at=float("nan"), reason=Reason.FUTURE),
    "decision": decided(1),
    "decision of a flat account": decided(2, ACCOUNTS["flat"]),
    "decision without account": decided(3, None),
    "decision repeated": decided(4, repeats=1, outputs=None),
    "decision held": held(5),
    "decision at no time": replace(held(6, Reason.DEADLINE), at=float("nan")),
    "corrected": Fed(2.0, LINE, BARS[-3:], Change.CORRECTED),
    "reset": Fed(2.0, LINE, BARS[-5:], Change.RESET),
    "dropped": Fed(2.0, LINE, BARS[:0], Change.DROPPED),
}


def journal_of(folder: Path, *events: Event, **settings: Any) -> Path:
    """The one file of a journal that has the artifact and `events`."""
    journal = Journal(folder, **settings)
    journal.begin(SETTINGS, LOADED)
    for event in events:
        journal.record(event)
    journal.close()
    (file,) = files_in(folder)
    return file


def records(path: Path) -> list[Record]:
    """All that a file has; or of a folder, its files in turn."""
    found = []
    for file in files_in(path) if path.is_dir() else [path]:
        with closing(JournalFile(file)) as journal:
            found += journal.records()
    return found


def rows(path: Path) -> list[tuple[Any, ...]]:
    """The table and the values of every event."""
    return [(one.table, *list(one.values.values())[1:]) for one in records(path)]


def sequences(path: Path) -> list[int]:
    """Of the decisions."""
    return [one["sequence"] for one in records(path) if one.table == "decision"]


class Disk:
    """What files are written to: it works, fails with `error`, or hangs while `working` is not set.

    Attributes:
        asked: something was to be written.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.error: Exception | None = None
        self.working = ThreadEvent()
        self.working.set()
        self.asked = ThreadEvent()
        write = File.write

        def written(file: File, events: Any) -> None:
            self.asked.set()
            assert self.working.wait(SAFETY_S)
            if self.error is not None:
                raise self.error
            write(file, events)

        patch.setattr(File, "write", written)
        patch.setattr("hrm_runtime.journal.writer._RETRY_S", 0.01)

    def fail(self) -> None:
        self.error = sqlite3.OperationalError("database or disk is full")

    def work(self) -> None:
        self.error = None


def bars_equal(one: Bars, other: Bars) -> bool:
    """Every column, bit for bit."""
    names = ("datetime", "open", "high", "low", "close")
    return all(getattr(one, name).tobytes() == getattr(other, name).tobytes() for name in names)


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
