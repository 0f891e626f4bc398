"""What was changed in a journal is named, and what is none is unreadable."""

import json
import shutil
import sqlite3
import struct
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from live import BARS, FLAT, bar_at
from replayed import FED, Record, counts, edit, fed, tell

from hrm_runtime import Bar, JournalUnreadable, Model
from hrm_runtime.live.replay import replay

# what was changed is named


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
        (
            '{"hours": {"grid": "hour"}}',
            "hours.grid: expected open, session or clock, found 'hour'",
        ),
        ('{"hours": {}, "markets": 5}', "settings: expected those of an engine"),
        ('{"hours": {}, "markets": {"": {}}}', "markets: expected names of instruments, found ''"),
    ],
)
def test_settings_that_are_none_are_unreadable(
    document: str, message: str, copy: Path, model: Model
) -> None:
    edit(copy, ("UPDATE meta SET value = ? WHERE name = 'settings'", (document,)))
    with pytest.raises(JournalUnreadable, match=message):
        replay(copy, [model])


def test_a_clock_skew_beyond_floats_is_half_a_bar(copy: Path, model: Model) -> None:
    document = f'{{"hours": {{}}, "clock_skew": 1{400 * "0"}}}'
    edit(copy, ("UPDATE meta SET value = ? WHERE name = 'settings'", (document,)))
    assert replay(copy, [model]).difference is None


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
