"""What an engine recorded is decided again to the last bit, and what was changed is named."""

import json
import re
import shutil
import sqlite3
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifact_copy import ArtifactCopy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from live import (
    BARS,
    BETA,
    FLAT,
    ON,
    SAFETY_S,
    Clock,
    Gate,
    Hanging,
    Puppet,
    bar_at,
    deadline_passes,
    eventually,
    raising,
    set_to,
)
from synthetic import ACCOUNTS, random_bars

from hrm_runtime import (
    BadInput,
    Bar,
    Decision,
    Journal,
    JournalUnreadable,
    LiveEngine,
    LiveSettings,
    Model,
    Reason,
    TradingHours,
    load,
)
from hrm_runtime.journal import writer as journals
from hrm_runtime.live.jobs import Ask
from hrm_runtime.live.replay import Difference, Replayed, replay

FED = 206
OLD = bar_at(BARS, FED - 1)
OPERATIONS = Path(__file__).parents[3] / "docs" / "operations.md"
NOON = 1_700_630_400.0
SLOW = {"instrument": "Alpha", "timeframe": "15"}
LONG = ACCOUNTS["long"]

Record = Callable[..., LiveEngine]


def counts(found: Replayed) -> tuple[int, int, int, int]:
    """Recomputed, checked, counted, lost; there must be no difference."""
    assert found.difference is None, found.difference
    return found.recomputed, found.checked, found.counted, found.lost


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def record(model: Model, clock: Clock, folder: Path) -> Iterator[Record]:
    """Makes engines that write to `folder`; they are closed afterwards."""
    with ExitStack() as engines:

        def engine(
            of: Model = model, files: dict[str, Any] | None = None, **how: Any
        ) -> LiveEngine:
            made = LiveSettings(**{"clock": clock, "deadline": SAFETY_S, "workers": 1, **how})
            return engines.enter_context(LiveEngine(of, made, Journal(folder, **files or {})))

        yield engine


def tell(engine: LiveEngine, bar: Any, account: Any = FLAT, **names: str) -> Decision:
    """Decide at the moment at which a bar of five minutes is closed, or at once."""
    if isinstance(bar, Bar):
        engine.settings.clock.now = bar.datetime + 300.0  # type: ignore[attr-defined]
    return engine.decide(bar, account, **names or ON)


def fed(engine: LiveEngine, count: int = FED, **names: str) -> LiveEngine:
    engine.feed(BARS[:count], **names or ON)
    return engine


def written(engine: LiveEngine) -> None:
    """Until all that happened is on the disk."""
    journal = engine._journal
    assert journal is not None
    eventually(lambda: not journal._queue.qsize() and not journal._pending)


# what happened is equal


def test_a_journal_of_nothing_but_its_artifact_replays(
    record: Record, model: Model, folder: Path
) -> None:
    record().close()
    assert replay(folder, [model]) == Replayed(files=1, events=1)


def test_history_in_pieces_and_decisions_are_made_again(
    record: Record, model: Model, folder: Path
) -> None:
    with record() as engine:
        for first, last in ((100, 150), (0, 120), (150, FED)):
            engine.feed(BARS[first:last], **ON)
        made = [tell(engine, bar_at(BARS, number), LONG) for number in range(FED, FED + 5)]
    assert [one.reason for one in made] == 5 * [Reason.OK]
    found = replay(folder, [model])
    assert counts(found) == (5, 0, 0, 0)
    assert (found.files, found.events) == (1, 1 + 3 + 2 * 5)


def test_a_stream_that_warms_up_is_decided_again(
    record: Record, model: Model, folder: Path
) -> None:
    with record() as engine:
        fed(engine, 203)
        made = [tell(engine, bar_at(BARS, number)) for number in range(203, 207)]
    assert [one.reason for one in made] == ["warming_up", "ok", "ok", "ok"]
    assert counts(replay(folder, [model])) == (4, 0, 0, 0)


def test_a_gap_and_its_repair_are_decided_again(record: Record, model: Model, folder: Path) -> None:
    with record() as engine:
        fed(engine)
        made = [tell(engine, bar_at(BARS, FED + 1))]
        engine.feed(bar_at(BARS, FED), **ON)
        made += [tell(engine, bar_at(BARS, FED + 1), LONG), tell(engine, bar_at(BARS, FED + 2))]
    assert [one.reason for one in made] == ["gap", "ok", "ok"]
    assert counts(replay(folder, [model])) == (3, 0, 0, 0)


def test_repeats_are_held_to_what_they_repeat_and_other_accounts_decided(
    record: Record, model: Model, folder: Path
) -> None:
    bar = bar_at(BARS, FED)
    with record() as engine:
        fed(engine)
        first, again, other = (tell(engine, bar, account) for account in (FLAT, FLAT, LONG))
        health = engine.health()
    assert first == again != other
    assert health.repeated == 1
    assert counts(replay(folder, [model])) == (2, 1, 0, 0)


REFUSED: dict[str, tuple[Callable[[Bar], Any], str]] = {
    "older": (lambda bar: bar_at(BARS, FED - 3), "out_of_order"),
    "not closed": (lambda bar: bar._replace(datetime=bar.datetime + 300)._asdict(), "future"),
    "another": (lambda bar: OLD._replace(close=OLD.low), "bad_input"),
    "another timeframe": (lambda bar: bar._replace(datetime=bar.datetime - 60), "bad_input"),
    "impossible": (lambda bar: bar._replace(high=0.5 * bar.low), "bad_input"),
    "no volume": (lambda bar: bar._replace(volume=-1.0), "bad_input"),
    "text": (lambda bar: {**bar._asdict(), "close": "1"}, "bad_input"),
    "no bar": (lambda bar: None, "bad_input"),
}  # fmt: skip


@pytest.mark.parametrize(("edit", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_refused_bar_is_refused_again(
    edit: Callable[[Bar], Any],
    reason: str,
    record: Record,
    model: Model,
    folder: Path,
    clock: Clock,
) -> None:
    bar = bar_at(BARS, FED)
    with record() as engine:
        fed(engine)
        clock.now = bar.datetime + 300.0
        assert engine.decide(edit(bar), FLAT, **ON).reason == reason
        assert tell(engine, bar).reason is Reason.OK
    assert counts(replay(folder, [model])) == (1, 1, 0, 0)


def test_a_bar_outside_trading_hours_is_refused_again(
    record: Record, model: Model, folder: Path
) -> None:
    hours = TradingHours(["09:15-15:30"], "Asia/Kolkata")
    with record(hours=hours) as engine:
        assert tell(engine, bar_at(BARS, FED)).reason is Reason.BAD_INPUT
    assert counts(replay(folder, [model])) == (0, 1, 0, 0)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ({"instrument": "Gamma", "timeframe": "5"}, "unknown_instrument"),
        ({"instrument": "Alpha", "timeframe": "7"}, "unknown_timeframe"),
    ],
)
def test_names_that_the_artifact_does_not_know_are_refused_again(
    names: dict[str, str], reason: str, record: Record, model: Model, folder: Path
) -> None:
    with record() as engine:
        assert tell(engine, bar_at(BARS, FED), **names).reason == reason
    assert counts(replay(folder, [model])) == (0, 1, 0, 0)


def test_a_stream_too_many_is_refused_again(record: Record, model: Model, folder: Path) -> None:
    with record(streams=1) as engine:
        fed(engine)
        assert tell(engine, bar_at(BARS, FED), **BETA).reason is Reason.BAD_INPUT
        assert tell(engine, bar_at(BARS, FED)).reason is Reason.OK
    assert counts(replay(folder, [model])) == (1, 1, 0, 0)


@pytest.mark.parametrize("account", [None, {"capital": 1}, {**vars(FLAT), "capital": np.nan}])
def test_an_account_that_cannot_be_read_is_counted(
    account: Any, record: Record, model: Model, folder: Path
) -> None:
    with record() as engine:
        fed(engine)
        assert tell(engine, bar_at(BARS, FED), account).reason is Reason.BAD_INPUT
        assert tell(engine, bar_at(BARS, FED), FLAT).reason is Reason.OK
    assert counts(replay(folder, [model])) == (1, 0, 1, 0)


def test_what_an_adapter_refuses_is_counted_whatever_was_refused_before(
    record: Record, model: Model, folder: Path
) -> None:
    with record() as engine:
        fed(engine)
        older = bar_at(BARS, FED - 3)
        assert tell(engine, older).reason is Reason.OUT_OF_ORDER
        assert engine.refuse(BadInput("no observation"), **ON).reason is Reason.BAD_INPUT
        assert engine.refuse(BadInput("no observation"), **BETA).reason is Reason.BAD_INPUT
    assert counts(replay(folder, [model])) == (0, 1, 2, 0)


class Broken:
    """An object that raises whatever is asked of it."""

    def keys(self) -> Any:
        raise ZeroDivisionError("keys")


def test_a_clock_that_says_nonsense_is_replayed(
    record: Record, model: Model, folder: Path, clock: Clock
) -> None:
    with record() as engine:
        fed(engine)
        clock.now = -np.inf
        bar = bar_at(BARS, FED)
        assert engine.decide(bar, FLAT, **ON).reason is Reason.FUTURE
        assert tell(engine, bar).reason is Reason.OK
    assert counts(replay(folder, [model])) == (1, 1, 0, 0)


def test_what_came_too_late_is_held_to_the_clock(
    record: Record, model: Model, folder: Path
) -> None:
    with record() as engine:
        fed(engine)
        bar = bar_at(BARS, FED)
        engine.settings.clock.now = bar.datetime + 300.0 + 61.0  # type: ignore[attr-defined]
        assert engine.decide(bar, FLAT, **ON).reason is Reason.STALE
        assert tell(engine, bar_at(BARS, FED + 1)).reason is Reason.OK
    assert counts(replay(folder, [model])) == (1, 1, 0, 0)


def test_what_was_killed_is_held_to_the_kill(record: Record, model: Model, folder: Path) -> None:
    bar = bar_at(BARS, FED)
    with record() as engine:
        fed(engine)
        engine.kill("lunch")
        made = [tell(engine, bar)]
        engine.revive()
        made += [tell(engine, bar), tell(engine, bar, LONG)]
    assert [one.reason for one in made] == ["killed", "killed", "ok"]  # the second is a repeat
    assert counts(replay(folder, [model])) == (1, 2, 0, 0)


def test_each_kill_is_recorded_once(record: Record, model: Model, folder: Path) -> None:
    with record() as engine:
        fed(engine)
        for number in range(2):
            engine.kill("lunch")
            bar = bar_at(BARS, FED + number)
            assert tell(engine, bar).reason is Reason.KILLED
            engine.revive()
            assert tell(engine, bar).reason is Reason.KILLED  # as before
    (file,) = journals.files_in(folder)
    with closing(sqlite3.connect(file)) as connection:
        found = connection.execute("SELECT what FROM control ORDER BY event").fetchall()
    assert [what for (what,) in found] == ["killed", "revived"] * 2
    assert counts(replay(folder, [model])) == (0, 4, 0, 0)


def test_what_a_kill_file_stopped_is_held_to_the_kill(
    record: Record, model: Model, folder: Path, tmp_path: Path
) -> None:
    with record(kill_file=tmp_path / "stop") as engine:
        fed(engine)
        assert tell(engine, bar_at(BARS, FED)).reason is Reason.OK
        (tmp_path / "stop").touch()
        assert tell(engine, bar_at(BARS, FED + 1)).reason is Reason.KILLED
    assert counts(replay(folder, [model])) == (1, 1, 0, 0)


def test_what_the_breaker_stopped_is_held_to_failures(
    record: Record, model: Model, folder: Path
) -> None:
    puppet = Puppet(model, raising(ValueError("axis 3"), times=2))
    with record(puppet, failures=2) as engine:
        fed(engine)
        made = [tell(engine, bar_at(BARS, number)) for number in range(FED, FED + 3)]
        engine.close_breaker()
        made += [tell(engine, bar_at(BARS, FED + 3))]
    assert [one.reason for one in made] == ["error", "error", "breaker", "ok"]
    assert counts(replay(folder, [model])) == (1, 1, 2, 0)


@pytest.fixture
def late(
    record: Record, model: Model, folder: Path, watched_stops: None, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A journal whose first decision missed its deadline, and its repeat."""
    hanging = Hanging()
    with record(Puppet(model, hanging), deadline=1e-6) as engine:
        fed(engine)
        deadline_passes(monkeypatch, hanging)
        left, calls = Ask.left, iter([True])
        monkeypatch.setattr(Ask, "left", lambda *of: left(*of) if next(calls, False) else SAFETY_S)
        made = [tell(engine, bar_at(BARS, FED), account) for account in (FLAT, FLAT, LONG)]
    assert [one.reason for one in made] == ["deadline", "deadline", "ok"]
    return folder


def test_a_missed_deadline_is_held_to_the_time_it_took(late: Path, model: Model) -> None:
    assert counts(replay(late, [model])) == (1, 2, 0, 0)


def test_outputs_that_are_not_finite_are_made_again(
    record: Record, model: Model, folder: Path
) -> None:
    puppet = Puppet(model, after=set_to("value", np.nan))
    with record(puppet) as engine:
        fed(engine)
        assert tell(engine, bar_at(BARS, FED)).reason is Reason.NON_FINITE
    assert counts(replay(folder, [puppet])) == (1, 0, 0, 0)
    difference = replay(folder, [model]).difference
    assert difference is not None
    assert (difference.what, difference.recorded) == ("reason", "non_finite")
    assert difference.recomputed == "ok"


def test_a_network_that_fails_in_the_replay_is_a_difference(
    record: Record, model: Model, folder: Path
) -> None:
    with record() as engine:
        fed(engine)
        tell(engine, bar_at(BARS, FED))
    failing = Puppet(model, raising(BadInput("it failed")))
    difference = replay(folder, [failing]).difference
    assert difference is not None
    assert (difference.what, difference.recorded, difference.recomputed) == (
        "reason", "ok", "bad_input",
    )  # fmt: skip


def test_what_was_decided_together_is_decided_again_alone(
    record: Record, model: Model, folder: Path, clock: Clock
) -> None:
    gate = Gate()
    puppet = Puppet(model, gate)
    slow = random_bars(260, seed=4, seconds=900)
    clock.now = NOON + 1000
    with record(puppet, stale_after={"5": 1e9, "15": 1e9}) as engine, ThreadPoolExecutor(3) as pool:
        fed(engine, 259)
        fed(engine, 259, **BETA)
        engine.feed(slow[:-1], **SLOW)
        asked = [pool.submit(engine.decide, bar_at(BARS, -1), FLAT, **ON)]
        gate.wait()
        asked += [pool.submit(engine.decide, bar_at(BARS, -1), LONG, **BETA)]
        asked += [pool.submit(engine.decide, bar_at(slow, -1), FLAT, **SLOW)]
        eventually(lambda: engine._dispatcher.waiting == 2)
        gate.open()
        assert [one.result(SAFETY_S).reason for one in asked] == 3 * [Reason.OK]
    assert puppet.batches[0] == 1
    assert max(puppet.batches) == 2
    assert counts(replay(folder, [model])) == (3, 0, 0, 0)


@pytest.fixture(scope="module")
def other(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The same network under another name, hence with another id."""
    copy = ArtifactCopy(Path(shutil.copytree(artifact, tmp_path_factory.mktemp("other") / "of")))
    copy.reseal(name="other")
    return load(copy.path)


def test_each_decision_is_made_again_by_the_artifact_that_made_it(
    record: Record, model: Model, other: Model, folder: Path
) -> None:
    with record() as engine:
        fed(engine)
        made = [tell(engine, bar_at(BARS, FED))]
        engine.use(other)
        made += [tell(engine, bar_at(BARS, FED)), tell(engine, bar_at(BARS, FED + 1))]
    assert [one.model_id for one in made] == [model.id, model.id, other.id]
    assert counts(replay(folder, [model, other])) == (2, 1, 0, 0)
    difference = replay(folder, [model]).difference
    assert difference is not None
    assert difference == Difference(
        file=difference.file, event=5, sequence=None, instrument=None, timeframe=None,
        datetime=None, what="artifact", recorded=other.id, recomputed=model.id,
    )  # fmt: skip


def test_without_artifacts_the_first_one_is_missed(
    record: Record, model: Model, folder: Path
) -> None:
    record().close()
    difference = replay(folder, []).difference
    assert difference is not None
    assert (difference.event, difference.what, difference.recorded, difference.recomputed) == (
        1, "artifact", model.id, "none",
    )  # fmt: skip


@pytest.fixture
def rotated(record: Record, folder: Path) -> Path:
    """A journal in which each event or two has a file of its own."""
    with record(files={"file_mb": 1e-6, "files": 1000}) as engine:
        written(fed(engine))
        tell(engine, bar_at(BARS, FED))
        written(engine)
        tell(engine, bar_at(BARS, FED))
        written(engine)
        engine.kill("lunch")
        written(engine)
        for number in (1, 2):
            tell(engine, bar_at(BARS, FED + number))
            written(engine)
        engine.revive()
        tell(engine, bar_at(BARS, FED + 3))
        written(engine)
    return folder


def test_what_happened_in_a_file_before_is_known_in_the_next(rotated: Path, model: Model) -> None:
    found = replay(rotated, [model])
    assert counts(found) == (2, 3, 0, 0)
    assert found.files == len(list(rotated.glob("*.sqlite"))) >= 6


def test_each_file_replays_alone(rotated: Path, model: Model) -> None:
    found = [replay(file, [model]) for file in sorted(rotated.glob("*.sqlite"))]
    totals = np.sum([counts(one) for one in found], axis=0).tolist()
    assert totals == [3, 2, 0, 0]  # what is repeated is in a file before, and made again


def test_a_repeat_whose_artifact_is_gone_with_its_file_is_counted(
    record: Record, model: Model, other: Model, folder: Path
) -> None:
    with record(files={"file_mb": 1e-6, "files": 1000}) as engine:
        fed(engine)
        tell(engine, bar_at(BARS, FED))
        engine.use(other)
        written(engine)
        tell(engine, bar_at(BARS, FED))
        written(engine)
    (file,) = filter(repeats, folder.glob("*.sqlite"))
    assert counts(replay(file, [other])) == (0, 0, 1, 0)


def repeats(file: Path) -> bool:
    with closing(sqlite3.connect(file)) as connection:
        return bool(connection.execute("SELECT max(repeats) FROM decision").fetchone()[0])


def test_after_old_files_are_gone_the_rest_replays(rotated: Path, model: Model) -> None:
    first, second, third, *_ = sorted(rotated.glob("*.sqlite"))
    for gone in (first, second, third):
        gone.unlink()
    found = replay(rotated, [model])
    assert counts(found)[0] + counts(found)[1] + counts(found)[2] <= 5
    assert found.recomputed >= 1


def test_engines_that_followed_each_other_in_a_folder_replay(
    record: Record, model: Model, folder: Path
) -> None:
    for number in range(2):
        with record() as engine:
            fed(engine)
            tell(engine, bar_at(BARS, FED + number))
            tell(engine, bar_at(BARS, FED + number))
    found = replay(folder, [model])
    assert counts(found) == (1 + 1, 2, 0, 0)
    assert (found.files, found.events) == (2, 12)


def test_events_that_were_lost_are_counted_and_the_rest_is_decided_again(
    record: Record, model: Model, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full, write = [False], journals._File.write

    def write_or_fail(file: Any, events: Any) -> None:
        if full[0]:
            raise OSError("no space left on device")
        write(file, events)

    monkeypatch.setattr(journals._File, "write", write_or_fail)
    monkeypatch.setattr(journals, "_RETRY_S", 0.001)
    with record(files={"most_waiting": 4}) as engine:
        fed(engine)
        tell(engine, bar_at(BARS, FED))
        written(engine)
        full[0] = True
        engine.kill("lunch")
        for number in (1, 2, 3):
            tell(engine, bar_at(BARS, FED + number))
        engine.revive()
        full[0] = False
        journal = engine._journal
        assert journal is not None
        eventually(lambda: not journal._full)
        written(engine)
        made = [tell(engine, bar_at(BARS, FED + 4))]
        written(engine)
        made += [tell(engine, bar_at(BARS, FED + 4))]
        written(engine)
        lost = journal.health().lost
    assert [one.reason for one in made] == ["ok", "ok"]
    found = replay(folder, [model])
    assert (found.difference, found.lost) == (None, lost)
    assert 3 <= lost <= 4
    assert found.recomputed == 2


# what was changed is named


def edit(folder: Path, *changes: str | tuple[str, Any]) -> None:
    """Change the one file of a journal."""
    (file,) = folder.glob("*.sqlite")
    with closing(sqlite3.connect(file)) as connection, connection:
        for change in changes:
            statement, values = (change, ()) if isinstance(change, str) else change
            assert connection.execute(statement, values).rowcount == 1


@pytest.fixture(scope="module")
def story(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal in which most things happen once; the numbers are of its events.

    1 artifact, 2 feed, 3 and 4 a decision, 5 and 6 its repeat, 7 and 8 another, 9 and 10 a gap,
    11 and 12 out of order, 13 and 14 stale, 15 a kill, 16 and 17 killed, 18 revived, 19 and 20
    warming up, 21 and 22 an account that cannot be read.
    """
    folder = tmp_path_factory.mktemp("story") / "journal"
    clock = Clock(NOON)
    how = LiveSettings(clock=clock, deadline=SAFETY_S, workers=1)
    with LiveEngine(model, how, Journal(folder)) as engine:
        fed(engine)
        made = [tell(engine, bar_at(BARS, number)) for number in (FED, FED)]
        made += [tell(engine, bar_at(BARS, FED + 1), LONG)]
        made += [tell(engine, bar_at(BARS, FED + number)) for number in (3, 2)]
        clock.now = bar_at(BARS, FED + 4).datetime + 300.0 + 100.0
        made += [engine.decide(bar_at(BARS, FED + 4), FLAT, **ON)]
        engine.kill("lunch")
        made += [tell(engine, bar_at(BARS, FED + 5))]
        engine.revive()
        made += [tell(engine, bar_at(BARS, FED + 6), **BETA)]
        made += [tell(engine, bar_at(BARS, FED + 6), None)]
    assert [one.reason.value for one in made] == [
        "ok", "ok", "ok", "gap", "out_of_order", "stale", "killed", "warming_up", "bad_input",
    ]  # fmt: skip
    return folder


@pytest.fixture
def copy(story: Path, folder: Path) -> Path:
    return Path(shutil.copytree(story, folder, ignore=shutil.ignore_patterns("lock")))


def test_the_story_replays(story: Path, model: Model) -> None:
    found = replay(story, [model])
    assert counts(found) == (4, 4, 1, 0)
    assert (found.files, found.events) == (1, 22)


STAMP = bar_at(BARS, FED).datetime
DECISION = {4: (1, STAMP), 6: (2, STAMP), 8: (3, STAMP + 300), 10: (4, STAMP + 900),
            12: (5, None), 14: (6, STAMP + 1200), 17: (7, STAMP + 1500),
            20: (8, STAMP + 1800), 22: (9, None)}  # fmt: skip

OF = "UPDATE decision SET {} WHERE event = {}".format

NO_BAR = ", ".join(f"{name} = NULL" for name in Bar._fields[:5])

PLANTED: dict[str, tuple[list[str], int, str, str | None, str | None]] = {
    "price of a bar": (
        ["UPDATE bar SET close = close + 0.01, high = high + 1 WHERE event = 7"],
        8, "quantity|value", None, None),
    "stamp of a bar": (
        ["UPDATE bar SET datetime = datetime + 300 WHERE event = 7"],
        7, "whether the bar is accepted", "ok", "future"),
    "bar that is none": (
        [f"UPDATE bar SET {NO_BAR} WHERE event = 7"],  # noqa: S608, our own
        7, "whether the bar is accepted", "ok", "no bar"),
    "reason of a bar": (
        ["UPDATE bar SET reason = 'future' WHERE event = 11"],
        11, "whether the bar is accepted", "future", "out_of_order"),
    "reason of an accepted bar": (
        ["UPDATE bar SET reason = 'gap' WHERE event = 7"],
        7, "whether the bar is accepted", "gap", "ok"),
    "an error of a bar": (
        ["UPDATE bar SET reason = 'error' WHERE event = 7"],
        8, "newest bar", str(STAMP + 300), str(STAMP)),
    "name of a bar": (
        ["UPDATE bar SET instrument = 'Gamma' WHERE event = 7"],
        7, "whether the bar is accepted", "ok", "unknown_instrument"),
    "name of a feed": (
        ["UPDATE feed SET timeframe = '7'"], 2, "whether bars are accepted", "accepted",
        "timeframe: expected one of 15, 5; found '7', which this artifact does not know"),
    "clock of a feed": (
        ["UPDATE feed SET at = at - 1e9"], 2, "whether bars are accepted", "accepted", None),
    "capital": ([OF("capital = 1", 4)], 4, "quantity|value|action", None, None),
    "capital of a repeat": (
        [OF("capital = 1", 6)], 6, "capital of what it repeats", "1.0", "500000.0"),
    "no account": (
        [OF(", ".join(f"{name} = NULL" for name in vars(FLAT)), 4)],
        4, "account", "none", "one that can be read"),
    "action": ([OF("action = 'CLOSE_LONG'", 4)], 4, "action", "CLOSE_LONG", "BUY_LONG"),
    "action of a gap": ([OF("action = 'BUY_LONG'", 10)], 10, "action", "BUY_LONG", "HOLD"),
    "action of a refused bar": (
        [OF("action = 'BUY_LONG'", 12)], 12, "action", "BUY_LONG", "HOLD"),
    "action when stale": ([OF("action = 'BUY_LONG'", 14)], 14, "action", "BUY_LONG", "HOLD"),
    "action when killed": ([OF("action = 'BUY_LONG'", 17)], 17, "action", "BUY_LONG", "HOLD"),
    "action without account": (
        [OF("action = 'BUY_LONG'", 22)], 22, "action", "BUY_LONG", "HOLD"),
    "quantity": ([OF("quantity = 7", 4)], 4, "quantity", "7.0", None),
    "quantity of a repeat": ([OF("quantity = 7", 6)], 6, "quantity", "7.0", None),
    "quantity of a repeat of nothing": (
        [OF("quantity = 7, repeats = 99", 6)], 6, "quantity", "7.0", None),
    "killed as a repeat": (
        [OF("reason = 'killed', repeats = 99", 4)], 4, "action", "BUY_LONG", "HOLD"),
    "an error as a repeat": (
        [OF("reason = 'error', repeats = 99", 4)], 4, "action", "BUY_LONG", "HOLD"),
    "quantity of a hold": ([OF("quantity = 7", 20)], 20, "quantity", "7.0", "1.0"),
    "value": ([OF("value = value + 1e-9", 4)], 4, "value", None, None),
    "probability": ([OF("buy_long = 0.5", 4)], 4, "probabilities", None, None),
    "halting": ([OF("q_halt = 1", 4)], 4, "q_values", None, None),
    "segments": ([OF("segments = 1", 4)], 4, "segments", "1", "2"),
    "outputs cut": ([OF("outputs = x'00'", 4)], 4, "outputs", "00", None),
    "no outputs": ([OF("outputs = NULL", 4)], 4, "outputs", "none", None),
    "outputs of a gap": ([OF("outputs = x'00'", 10)], 10, "outputs", "00", "none"),
    "digest": ([OF("states = x'00'", 4)], 4, "states", "00", None),
    "digest of a gap": ([OF("states = x'00'", 10)], 10, "states", "00", "none"),
    "model": ([OF("model_id = 'mine'", 4)], 4, "artifact", "mine", None),
    "model of a hold": ([OF("model_id = 'mine'", 17)], 17, "artifact", "mine", None),
    "reason": ([OF("reason = 'warming_up'", 4)], 4, "reason", "warming_up", "ok"),
    "reason of a gap": ([OF("reason = 'warming_up'", 10)], 10, "reason", "warming_up", "gap"),
    "reason of a refused bar": (
        [OF("reason = 'future'", 12)], 12, "reason", "future", "out_of_order, as of the bar"),
    "an error that was none": ([OF("reason = 'error'", 4)], 4, "action", "BUY_LONG", "HOLD"),
    "stale in time": (
        [OF("reason = 'stale'", 4)], 4, "reason", "stale", "expected a bar that is stale"),
    "stale by an edited clock": (
        [OF("at = at - 50", 14)], 14, "reason", "stale", "expected a bar that is stale"),
    "ok by an edited clock": ([OF("at = at + 61", 4)], 4, "reason", "ok", "stale"),
    "stale at another bar": (
        [OF("datetime = datetime + 300", 14)], 14, "newest bar", str(STAMP + 1500),
        str(STAMP + 1200)),
    "ok at another bar": (
        [OF("datetime = datetime + 300", 8)], 8, "newest bar", str(STAMP + 600), str(STAMP + 300)),
    "ok without bars": (
        [OF("instrument = 'Beta'", 4)], 4, "newest bar", str(STAMP), "none"),
    "killed without a kill": (
        [OF("reason = 'killed'", 4)], 4, "reason", "killed", "expected killed before"),
    "killed by nothing": (
        ["UPDATE control SET what = 'revived' WHERE event = 15"],
        17, "reason", "killed", "expected killed before"),
    "breaker without failures": (
        [OF("reason = 'breaker'", 4)], 4, "reason", "breaker", "expected breaker opened before"),
    "deadline before its time": (
        [OF("reason = 'deadline'", 4)], 4, "reason", "deadline",
        "expected a deadline of 60 s that passed"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "event", "what", "recorded", "recomputed"), PLANTED.values(), ids=PLANTED
)
def test_a_change_is_found_and_named(
    changes: list[str],
    event: int,
    what: str,
    recorded: str | None,
    recomputed: str | None,
    copy: Path,
    model: Model,
) -> None:
    edit(copy, *changes)
    found = replay(copy, [model])
    difference = found.difference
    assert difference is not None
    assert found.events == event
    assert (difference.event, difference.file) == (event, next(copy.glob("*.sqlite")).name)
    assert difference.what in what.split("|")
    if recorded is not None:
        assert difference.recorded == recorded
    if recomputed is not None:
        assert difference.recomputed == recomputed
    assert difference.recorded != difference.recomputed


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (OF("quantity = 7", 4), (1, "Alpha", "5", STAMP)),
        ("UPDATE bar SET reason = 'future' WHERE event = 11", (None, "Alpha", "5", STAMP + 600)),
        ("UPDATE feed SET instrument = 'Gamma'", (None, "Gamma", "5", None)),
        ("UPDATE artifact SET model_id = 'mine'", (None, None, None, None)),
    ],
)
def test_a_difference_says_where_it_is(
    change: str, expected: tuple[Any, ...], copy: Path, model: Model
) -> None:
    edit(copy, change)
    found = replay(copy, [model]).difference
    assert found is not None
    assert (found.sequence, found.instrument, found.timeframe, found.datetime) == expected


def flipped(copy: Path, table: str, column: str, event: int, place: int, bit: int = 0) -> None:
    (file,) = copy.glob("*.sqlite")
    with closing(sqlite3.connect(file)) as connection:
        (blob,) = connection.execute(
            f"SELECT {column} FROM {table} WHERE event = {event}"  # noqa: S608, our names
        ).fetchone()
    content = bytearray(blob)
    content[place] ^= 1 << bit
    change = f"UPDATE {table} SET {column} = ? WHERE event = {event}"  # noqa: S608, our names
    edit(copy, (change, (bytes(content),)))


def test_a_bit_of_an_output_is_found_and_named(copy: Path, model: Model) -> None:
    flipped(copy, "decision", "outputs", 4, -4)  # the last output by name is value
    found = replay(copy, [model]).difference
    assert found is not None
    assert (found.event, found.what) == (4, "value")
    (expected,) = struct.unpack("<I", struct.pack("<f", float(found.recomputed)))
    assert struct.unpack("<I", struct.pack("<f", float(found.recorded))) == (expected ^ 1,)


def test_a_bit_of_the_states_is_found_and_named(copy: Path, model: Model) -> None:
    flipped(copy, "decision", "states", 8, 0)
    found = replay(copy, [model]).difference
    assert found is not None
    assert (found.event, found.what) == (8, "states")
    assert int(found.recorded, 16) ^ int(found.recomputed, 16) == 1 << 120


def test_a_price_that_was_fed_is_found_where_it_is_decided_with(copy: Path, model: Model) -> None:
    flipped(copy, "feed", "bars", 2, 8 * (4 * FED + 200) + 3)  # the close of bar 200
    found = replay(copy, [model]).difference
    assert found is not None
    assert (found.event, found.sequence) == (4, 1)
    assert found.recorded != found.recomputed


def test_a_deadline_that_did_not_pass_is_found(late: Path, model: Model) -> None:
    (file,) = late.glob("*.sqlite")
    with closing(sqlite3.connect(file)) as connection, connection:
        (text,) = connection.execute("SELECT value FROM meta WHERE name = 'settings'").fetchone()
        document = json.dumps({**json.loads(text), "deadline": 60.0})
        connection.execute("UPDATE meta SET value = ? WHERE name = 'settings'", (document,))
    found = replay(late, [model]).difference
    assert found is not None
    assert (found.what, found.recorded, found.recomputed) == (
        "reason", "deadline", "expected a deadline of 60 s that passed",
    )  # fmt: skip


def test_an_artifact_that_did_not_decide_yet_is_found(
    record: Record, model: Model, other: Model, folder: Path
) -> None:
    with record() as engine:
        fed(engine)
        tell(engine, bar_at(BARS, FED))
        engine.use(other)
    edit(folder, ("UPDATE decision SET model_id = ?", (other.id,)))
    found = replay(folder, [model, other]).difference
    assert found is not None
    assert (found.event, found.what, found.recorded, found.recomputed) == (
        4, "artifact", other.id, model.id,
    )  # fmt: skip


def test_an_artifact_that_does_not_know_a_line_is_a_difference(
    record: Record, model: Model, folder: Path
) -> None:
    with record() as engine:
        fed(engine)
        tell(engine, bar_at(BARS, FED))
    known = {name: one for name, one in model.contract.instruments.items() if name != "Alpha"}
    narrow = Model(replace(model.contract, instruments=known), model.id, model._session)
    found = replay(folder, [narrow]).difference
    assert found is not None
    assert (found.event, found.what, found.instrument) == (2, "whether bars are accepted", "Alpha")
    assert found.recomputed == (
        "instrument: expected one of Beta; found 'Alpha', which this artifact does not know"
    )


def test_a_replay_changes_nothing(copy: Path, model: Model) -> None:
    def content() -> dict[str, tuple[bytes, int]]:
        return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in copy.glob("*.sqlite")}

    before = content()
    assert counts(replay(copy, [model])) == (4, 4, 1, 0)
    assert content() == before


# what is no journal


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("[]", "settings: expected a JSON object"),
        ("{}", "settings: expected those of an engine: 'hours'"),
        ('{"hours": {}, "deadline": -1}', "deadline: expected seconds, found -1"),
        ('{"hours": {}, "speed": 1}', "unexpected keyword argument 'speed'"),
        ('{"hours": {"time_zone": "Mars"}}', "hours.time_zone: expected an IANA name"),
        ('{"hours": 5}', "settings: expected those of an engine"),
    ],
)
def test_settings_that_are_none_are_unreadable(
    document: str, message: str, copy: Path, model: Model
) -> None:
    edit(copy, ("UPDATE meta SET value = ? WHERE name = 'settings'", (document,)))
    with pytest.raises(JournalUnreadable, match=message):
        replay(copy, [model])


def test_a_clock_skew_beyond_floats_is_a_difference(copy: Path, model: Model) -> None:
    document = f'{{"hours": {{}}, "clock_skew": 1{400 * "0"}}}'
    edit(copy, ("UPDATE meta SET value = ? WHERE name = 'settings'", (document,)))
    found = replay(copy, [model]).difference
    assert found is not None
    assert (found.event, found.what) == (2, "whether bars are accepted")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            ["DELETE FROM artifact", "UPDATE feed SET event = 1"],
            "feed 1: expected an artifact first",
        ),
        ([OF("capital = -1", 4)], "decision 4: account: expected capital > 0"),
        (["UPDATE feed SET bars = x'00'"], "feed 2: bars: expected five columns of float64"),
        ([OF("capital = NULL", 4)], "decision 4: expected all of capital, "),
        (["UPDATE bar SET close = 2 * high WHERE event = 7"], "bar 7: bars: expected low <= open"),
        (["UPDATE bar SET close = NULL WHERE event = 7"], "bar 7: expected all of datetime, open"),
        (["DELETE FROM bar WHERE event = 7"], "decision 8: expected event 7 in its place"),
        (["DELETE FROM decision WHERE event = 4"], "bar 5: expected event 4 in its place"),
        ([OF("action = 'BUY'", 4)], "decision 4: action: expected one of .*, found 'BUY'"),
        ([OF("reason = 'luck'", 4)], "decision 4: reason: expected one of .*, found 'luck'"),
        (["UPDATE control SET what = 'x' WHERE event = 15"], "control 15: what: expected one of"),
    ],
)
def test_a_value_that_cannot_be_is_unreadable(
    changes: list[str], message: str, copy: Path, model: Model
) -> None:
    edit(copy, *changes)
    with pytest.raises(JournalUnreadable, match=message):
        replay(copy, [model])


def test_no_journal_is_unreadable(tmp_path: Path, model: Model) -> None:
    with pytest.raises(JournalUnreadable, match="expected a journal, found no file of one"):
        replay(tmp_path, [model])


# what the documentation says of a journal


@pytest.fixture
def rows(story: Path) -> Iterator[Callable[[str], list[Any]]]:
    """Asks the story's file, as one would at night."""
    (file,) = story.glob("*.sqlite")
    with closing(sqlite3.connect(file)) as connection:
        yield lambda query: connection.execute(query).fetchall()


def queries() -> list[str]:
    text = OPERATIONS.read_text(encoding="utf-8")
    return re.findall(r"```sql\n(.*?)```", text, re.DOTALL)


Rows = Callable[[str], list[Any]]


def test_the_documented_query_shows_the_last_decisions_and_why(rows: Rows) -> None:
    latest, *_, first = rows(queries()[0])
    assert latest == (
        9, "2023-11-22 01:25:00", "Alpha", "5", "HOLD", 1.0, "bad_input",
        "account: expected an Account or a mapping, found NoneType",
    )  # fmt: skip
    assert (first[0], first[4], first[6], first[7]) == (1, "BUY_LONG", "ok", None)


def test_the_documented_query_counts_reasons(rows: Rows) -> None:
    (reason, count, latest), *others = rows(queries()[1])
    assert (reason, count) == ("ok", 3)
    assert latest > 0
    assert {(name, number) for name, number, _ in others} == {
        (name, 1) for name in ("gap", "out_of_order", "stale", "killed", "warming_up", "bad_input")
    }


def test_the_documented_query_shows_what_was_refused_and_stopped(rows: Rows, model: Model) -> None:
    found = rows(queries()[2])
    assert [(event, what) for event, _, what, _ in found] == [
        (1, f"artifact {model.id}"),
        (11, "bar Alpha 5: out_of_order"),
        (15, "killed"),
        (18, "revived"),
    ]
    assert [why for *_, why in found][2] == "lunch"


def test_there_are_three_documented_queries() -> None:
    assert len(queries()) == 3


@pytest.mark.parametrize("table", ["meta", "artifact", "control", "feed", "bar", "decision"])
def test_the_documented_columns_are_those_of_a_table(table: str, rows: Rows) -> None:
    (line,) = re.findall(rf"^\| `{table}` \| (.*) \|$", OPERATIONS.read_text("utf-8"), re.MULTILINE)
    documented = re.findall(r"`(\w+)`", line.partition(":")[0])
    assert documented == [row[1] for row in rows(f"PRAGMA table_info({table})")]


# whatever happens

BAD = st.sampled_from(
    [
        lambda bar: bar._replace(datetime=bar.datetime - 60),
        lambda bar: bar._replace(datetime=bar.datetime + 10**6),
        lambda bar: bar._replace(close=2 * bar.high),
        lambda bar: bar._replace(close=bar.low),
        lambda bar: {**bar._asdict(), "open": None},
        lambda bar: {**bar._asdict(), "open": "1"},
        lambda bar: {**bar._asdict(), "volume": -1},
        lambda bar: None,
        lambda bar: Broken(),
    ]
)
NAMES = st.sampled_from([ON, ON, ON, BETA, {"instrument": "Gamma", "timeframe": "5"}])
GIVEN = st.sampled_from([FLAT, LONG, ACCOUNTS["short"], vars(FLAT), None, {"capital": np.nan}])
CALLS = st.one_of(
    *3 * [st.tuples(
        st.just("decide"), st.integers(-2, 3), st.one_of(st.none(), st.none(), BAD),
        st.tuples(GIVEN, st.sampled_from([0.0, 0.0, 1.0, 61.0, -400.0, -np.inf, 1e9, np.inf]),
                  NAMES),
    )],
    st.tuples(st.just("feed"), st.integers(-40, 3), st.integers(1, 45), NAMES),
    st.tuples(st.sampled_from(["kill", "revive", "close_breaker", "use", "fail"])),
)  # fmt: skip


def call(engine: LiveEngine, others: Iterator[Model], puppet: Puppet, *what: Any) -> None:
    clock = engine.settings.clock
    known = engine.newest(**ON)
    at = FED if known is None else int(np.searchsorted(BARS.datetime, known.datetime)) + 1
    match what:
        case "decide", ahead, change, (account, moved, names):
            bar = bar_at(BARS, min(at + ahead, len(BARS) - 1))
            clock.now = bar.datetime + 300 + moved  # type: ignore[attr-defined]
            engine.decide(bar if change is None else change(bar), account, **names)
        case "feed", ahead, count, names:
            first = min(max(at + ahead, 0), len(BARS) - 1)
            clock.now = bar_at(BARS, min(at, len(BARS) - 1)).datetime + 300.0  # type: ignore[attr-defined]
            try:
                engine.feed(BARS[first : first + count], **names)
            except Exception as error:
                assert "expected" in str(error)  # noqa: PT017, either is right
        case ("kill",):
            engine.kill("lunch")
        case ("use",):
            puppet.before = None  # it is tried first
            engine.use(next(others))
        case ("fail",):
            puppet.before = raising(ValueError("axis 3"), times=1)
        case (name,):
            getattr(engine, name)()


@settings(
    deadline=None,
    derandomize=True,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(calls=st.lists(CALLS, max_size=14), file_mb=st.sampled_from([1e-6, 256]))
def test_whatever_happened_is_equal_when_it_is_replayed(
    model: Model,
    other: Model,
    tmp_path_factory: pytest.TempPathFactory,
    calls: list[Any],
    file_mb: float,
) -> None:
    folder = tmp_path_factory.mktemp("any")
    puppet = Puppet(model)
    others = iter(10 * [other, puppet])
    how = LiveSettings(clock=Clock(NOON), deadline=SAFETY_S, failures=2, streams=2)
    with LiveEngine(puppet, how, Journal(folder, file_mb=file_mb, files=1000)) as engine:
        fed(engine)
        for one in calls:
            call(engine, others, puppet, *one)
        numbers = engine.health().decisions, engine.health().repeated
    decided = sum(numbers[0].values()) + numbers[1]
    recomputed, checked, counted, lost = counts(replay(folder, [model, other]))
    assert (recomputed + checked + counted, lost) == (decided, 0)
