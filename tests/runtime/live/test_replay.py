"""What an engine recorded is decided again to the last bit."""

import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from journalled import Disk
from live import (
    BARS,
    BETA,
    FLAT,
    ON,
    SAFETY_S,
    Clock,
    Gate,
    Puppet,
    bar_at,
    eventually,
    raising,
    set_to,
)
from replayed import FED, LONG, NOON, Record, committed, counts, edit, fed, tell
from synthetic import random_bars

from hrm_runtime import BadInput, Bar, Model, Reason, TradingHours
from hrm_runtime.live.replay import Difference, Replayed, replay

OLD = bar_at(BARS, FED - 1)
SLOW = {"instrument": "Alpha", "timeframe": "15"}


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


def test_a_bar_that_was_refused_with_a_stamp_that_now_is_none_is_passed_over(
    record: Record, model: Model, folder: Path, clock: Clock
) -> None:
    """It was out of order when a stamp of 1970 was one."""
    bar = bar_at(BARS, FED)
    with record() as engine:
        fed(engine)
        clock.now = bar.datetime + 300.0
        assert engine.decide(bar_at(BARS, FED - 3), FLAT, **ON).reason is Reason.OUT_OF_ORDER
        assert tell(engine, bar).reason is Reason.OK
    edit(folder, "UPDATE bar SET datetime = 300 WHERE reason = 'out_of_order'")
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


def test_a_feed_of_nothing_takes_no_place_in_the_replay_either(
    record: Record, model: Model, folder: Path
) -> None:
    with record(streams=1) as engine:
        engine.feed(BARS[:0], **BETA)
        fed(engine)
        assert tell(engine, bar_at(BARS, FED)).reason is Reason.OK
    assert counts(replay(folder, [model])) == (1, 0, 0, 0)


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
    (file,) = folder.glob("*.sqlite")
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
    """A journal in which each decision has a file of its own."""
    with record(files={"file_mb": 1e-6, "files": 1000}) as engine:
        fed(engine)
        for number in (0, 0):
            committed(engine, tell(engine, bar_at(BARS, FED + number)))
        engine.kill("lunch")
        for number in (1, 2):
            committed(engine, tell(engine, bar_at(BARS, FED + number)))
        engine.revive()
        committed(engine, tell(engine, bar_at(BARS, FED + 3)))
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
        committed(engine, engine.refuse(BadInput("no observation"), **BETA))
        tell(engine, bar_at(BARS, FED))
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
    disk = Disk(monkeypatch)
    with record(files={"most_waiting": 4}) as engine:
        fed(engine)
        committed(engine, tell(engine, bar_at(BARS, FED)))
        disk.fail()
        engine.kill("lunch")
        for number in (1, 2, 3):
            tell(engine, bar_at(BARS, FED + number))
        engine.revive()
        disk.work()
        journal = engine._journal
        assert journal is not None
        eventually(lambda: not journal._full)
        made = [tell(engine, bar_at(BARS, FED + 4))]
        committed(engine, made[0])
        made += [tell(engine, bar_at(BARS, FED + 4))]
        committed(engine, made[1])
        lost = journal.health().lost
    assert [one.reason for one in made] == ["ok", "ok"]
    found = replay(folder, [model])
    assert (found.difference, found.lost) == (None, lost)
    assert 3 <= lost <= 4
    assert found.recomputed == 2
