"""Truth that changes: bars are corrected, streams begin anew and are dropped while they trade."""

import logging
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from journalled import bars_equal
from live import BARS, BEFORE, BETA, FLAT, LINE, NEEDED, NEWEST, ON, Clock, Live, bar_at
from replayed import FED, LONG, NOON, Record, committed, counts, fed, tell
from synthetic import random_bars, scaled

from hrm_runtime import (
    BadBars,
    BadInput,
    Bars,
    Decision,
    HrmError,
    InferenceFailed,
    LiveEngine,
    Model,
    Reason,
    UnknownInstrument,
    Untrusted,
)
from hrm_runtime.live.replay import replay

GAMMA = {"instrument": "Gamma", "timeframe": "5"}
SLOW = {"instrument": "Alpha", "timeframe": "15"}
FILES = pytest.mark.parametrize(
    "files", [{}, {"file_mb": 1e-6, "files": 1000}], ids=["one file", "a file after each event"]
)


def put(bars: Bars, new: Bars) -> Bars:
    """`bars` with `new`, consecutive ones, in the place of those with their stamps."""
    first = int(bars.datetime.searchsorted(new.datetime[0]))
    parts = bars[:first], new, bars[first + len(new) :]
    joined = (
        [x for part in parts for x in getattr(part, name)] for name in Bars.__match_args__[:5]
    )
    return Bars(*joined)


def wrong(number: int) -> Bars:
    """One of `BARS`, as it was told before it was corrected."""
    return scaled(BARS[number % len(BARS) :][:1], 1.004)


def assert_as_if_begun_on(engine: LiveEngine, model: Model, bars: Bars, **names: str) -> None:
    """Bars, rows and decision are those of an engine that never knew others."""
    names = names or ON
    line = names["instrument"], names["timeframe"]
    with LiveEngine(model, engine.settings) as other:
        other.feed(bars, **names)
        found, expected = (one._streams.there(line).stream for one in (engine, other))
    assert found.bars is not None
    assert expected.bars is not None
    assert bars_equal(found.bars, expected.bars)
    assert [row.values.tobytes() for row in found.rows] == [
        row.values.tobytes() for row in expected.rows
    ]
    decision = engine.decide(bars.newest(), LONG, **names)
    assert decision == model.decide(bars, LONG, **names)
    assert decision.reason is Reason.OK


# a candle that is corrected


@pytest.mark.parametrize(
    "number", [-1, -3, -100, -NEEDED], ids=["newest", "window", "history", "oldest"]
)
def test_a_corrected_candle_is_decided_on_as_if_it_had_never_been_another(
    live: Live, model: Model, number: int
) -> None:
    engine, untrue = live(), put(BARS, wrong(number))
    engine.feed(untrue, **ON)
    before = engine.decide(untrue.newest(), LONG, **ON)
    assert before == model.decide(untrue, LONG, **ON) != model.decide(BARS, LONG, **ON)
    engine.correct(bar_at(BARS, number), **ON)
    assert_as_if_begun_on(engine, model, BARS)


def test_what_was_answered_at_the_newest_bar_is_forgotten(live: Live, model: Model) -> None:
    engine = live()
    engine.feed(BARS, **ON)
    engine.decide(NEWEST, FLAT, **ON)
    engine.correct(wrong(-1), **ON)
    with pytest.raises(BadBars, match="correct puts a bar in the place of another"):
        engine.feed(NEWEST, **ON)
    assert engine.decide(NEWEST, FLAT, **ON).reason is Reason.BAD_INPUT
    engine.correct(NEWEST, **ON)
    assert engine.decide(NEWEST, FLAT, **ON) == model.decide(BARS, FLAT, **ON)
    assert engine.health().repeated == 0


def test_a_correction_brings_what_was_missed_too(live: Live, model: Model) -> None:
    engine = live()
    engine.feed(put(BARS, wrong(-9))[:-4], **ON)
    engine.correct(BARS[-12:], **ON)
    assert_as_if_begun_on(engine, model, BARS)


def test_a_correction_of_a_bar_that_no_decision_reads_changes_none(
    live: Live, model: Model
) -> None:
    engine = live()
    engine.feed(BARS, **ON)
    engine.correct(wrong(-NEEDED - 1), **ON)
    assert_as_if_begun_on(engine, model, BARS)


# a stream that begins anew


def test_after_a_split_all_history_is_another(live: Live, model: Model) -> None:
    engine, adjusted = live(), scaled(BARS, 0.25)
    engine.feed(BARS[:-1], **ON)
    engine.decide(NEWEST, FLAT, **ON)
    with pytest.raises(BadBars, match="reset in the place of all"):
        engine.feed(adjusted, **ON)
    engine.reset(adjusted, **ON)
    assert_as_if_begun_on(engine, model, adjusted)


def test_a_stream_that_begins_anew_has_nothing_but_what_it_is_given(live: Live) -> None:
    engine = live()
    engine.feed(BARS, **ON)
    engine.reset(BARS[-20:], **ON)
    found = engine.bars(**ON)
    assert found is not None
    assert bars_equal(found, BARS[-20:])
    assert engine.decide(NEWEST, FLAT, **ON).reason is Reason.WARMING_UP


# a stream that is dropped


def test_another_contract_takes_the_place_of_one_that_expired(live: Live, model: Model) -> None:
    engine = live(streams=1)
    engine.feed(BARS, **ON)
    with pytest.raises(BadInput, match="at most 1 streams, found another; drop one to free a pl"):
        engine.feed(BARS, **BETA)
    engine.drop(**ON)
    assert engine.health().streams == {}
    assert (engine.newest(**ON), engine.bars(**ON)) == (None, None)
    engine.feed(BARS, **BETA)
    assert_as_if_begun_on(engine, model, BARS, **BETA)
    assert list(engine.health().streams) == [("Beta", "5")]


def test_a_dropped_stream_begins_anew_with_its_next_bar(live: Live, model: Model) -> None:
    engine = live()
    engine.feed(BARS, **ON)
    engine.drop(**ON)
    assert engine.decide(NEWEST, FLAT, **ON).reason is Reason.WARMING_UP
    engine.feed(BARS, **ON)
    assert_as_if_begun_on(engine, model, BARS)


def test_many_streams_may_come_and_go(live: Live, open_model: Model) -> None:
    engine = live(open_model, streams=2)
    engine.feed(BARS[-3:], **ON)
    for month in range(30):
        contract = {"instrument": f"Alpha {month}", "timeframe": "5"}
        engine.feed(BARS[-3:], **contract)
        engine.drop(**contract)
    assert list(engine.health().streams) == [LINE]


# what is refused leaves all as it was

CHANGES: dict[str, Callable[[LiveEngine], None]] = {
    "correct future": lambda e: e.correct(NEWEST._replace(datetime=NEWEST.datetime + 300), **ON),
    "correct within another": lambda e: e.correct(
        NEWEST._replace(datetime=NEWEST.datetime - 60), **ON
    ),
    "correct no bars": lambda e: e.correct(5, **ON),  # type: ignore[arg-type]
    "correct impossible": lambda e: e.correct(NEWEST._replace(close=-1.0), **ON),
    "correct of none": lambda e: e.correct(BARS, **BETA),
    "correct of an unknown name": lambda e: e.correct(BARS, **GAMMA),
    "reset to nothing": lambda e: e.reset(BARS[:0], **ON),
    "reset future": lambda e: e.reset(
        replace(BARS, datetime=BARS.datetime + 300), **ON
    ),
    "reset another timeframe": lambda e: e.reset(
        replace(BARS, datetime=BARS.datetime // 5), **ON
    ),
    "reset of none": lambda e: e.reset(BARS, **BETA),
    "drop of none": lambda e: e.drop(**BETA),
    "drop of an unknown name": lambda e: e.drop(**GAMMA),
}  # fmt: skip
TOLD = {
    "future": (Untrusted, "pass closed bars"),
    "within another": (BadBars, "another timeframe"),
    "no bars": (BadBars, "expected a mapping of columns, found int"),
    "impossible": (BadBars, "expected finite prices"),
    "to nothing": (BadBars, "expected at least one to begin anew with, .*; drop forgets a stream"),
    "another timeframe": (BadBars, "another timeframe"),
    "of none": (
        BadInput,
        r"^stream: expected one that has bars \(Alpha 5\); found 'Beta 5': mend the name",
    ),
    "of an unknown name": (BadInput, r"has bars \(Alpha 5\); found 'Gamma 5': mend the name"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_refused_changes_nothing(live: Live, model: Model, name: str) -> None:
    engine = live()
    engine.feed(BARS[:-1], **ON)
    made = engine.decide(NEWEST, FLAT, **ON)
    bars, rows = engine.bars(**ON), engine._streams.there(LINE).stream.rows
    error, told = TOLD[name.partition(" ")[2]]
    with pytest.raises(error, match=told):
        CHANGES[name](engine)
    assert engine.bars(**ON) is bars
    assert engine._streams.there(LINE).stream.rows is rows
    assert engine.decide(NEWEST, FLAT, **ON) == made  # from memory
    assert engine.health().repeated == 1
    assert list(engine.health().streams) == [LINE]


def test_which_streams_there_are_is_told_up_to_some(live: Live, open_model: Model) -> None:
    engine = live(open_model)
    with pytest.raises(
        BadInput, match=r"has bars \(none has\); found 'Alpha 5': mend the name, or feed it first$"
    ):
        engine.drop(**ON)
    for number in range(23):
        engine.feed(BARS[-1:], instrument=f"S{number:02}", timeframe="5")
    with pytest.raises(
        BadInput, match=r"\(S00 5, S01 5, .*, S19 5 and 3 more\); found 'Alpha 5': mend the name"
    ):
        engine.drop(**ON)


def test_a_name_that_is_no_text_and_a_closed_engine_are_refused(live: Live) -> None:
    engine = live()
    engine.feed(BARS, **ON)
    for change in (engine.drop, lambda **of: engine.correct(NEWEST, **of)):
        with pytest.raises(UnknownInstrument, match="expected a name, found None"):
            change(instrument=None, timeframe="5")
    engine.close()
    with pytest.raises(InferenceFailed, match="the engine is closed"):
        engine.drop(**ON)


def test_a_bar_that_contradicts_others_says_what_would_replace_them(live: Live) -> None:
    engine = live()
    engine.feed(BARS, **ON)
    engine.decide(wrong(-1).newest(), FLAT, **ON)
    assert "; correct puts a bar in the place" in (engine.health().streams[LINE].message or "")
    engine.decide(BEFORE, FLAT, **ON)
    assert (engine.health().streams[LINE].message or "").endswith("; to replace a bar, correct it")


def test_each_change_is_logged(live: Live, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "hrm_runtime")
    engine = live()
    engine.feed(BARS, **ON)
    engine.correct(BARS[-3:], **ON)
    engine.reset(BARS, **ON)
    engine.drop(**ON)
    assert [(record.levelname, record.hrm) for record in caplog.records] == [  # type: ignore[attr-defined]
        ("WARNING", {"event": "stream corrected", **ON, "bars": 3}),
        ("WARNING", {"event": "stream reset", **ON, "bars": 260}),
        ("WARNING", {"event": "stream dropped", **ON}),
    ]


# the journal


def changed_and_decided(engine: LiveEngine) -> list[Decision]:
    """A history of every kind, each decision on the disk before the next event."""
    made: list[Decision] = []

    def decide(bars: Bars, number: int, **names: str) -> None:
        made.append(tell(engine, bar_at(bars, number), **names))
        committed(engine, made[-1])

    history, newest, adjusted = FED - 50, FED, scaled(BARS, 0.5)
    untrue = put(put(BARS, wrong(history)), wrong(newest))
    engine.feed(untrue[:FED], **ON)
    decide(untrue, newest)
    engine.correct(bar_at(BARS, history), **ON)
    decide(untrue, newest)
    engine.correct(bar_at(BARS, newest), **ON)
    decide(BARS, newest)
    engine.reset(adjusted[: FED + 1], **ON)
    decide(adjusted, FED + 1)
    engine.drop(**ON)
    fed(engine, FED + 2, **BETA)
    decide(BARS, FED + 2, **BETA)
    return made


@FILES
def test_a_journal_of_changes_is_decided_again(
    record: Record, model: Model, folder: Path, files: dict[str, Any]
) -> None:
    with record(streams=1, files=files) as engine:
        made = changed_and_decided(engine)
    now = BARS[: FED + 1]
    untrue = put(now, wrong(FED))
    begun_on = [
        (put(untrue, wrong(FED - 50)), ON),
        (untrue, ON),
        (now, ON),
        (scaled(BARS, 0.5)[: FED + 2], ON),
        (BARS[: FED + 3], BETA),
    ]
    assert made == [model.decide(bars, FLAT, **names) for bars, names in begun_on]
    assert [one.reason for one in made] == 5 * [Reason.OK]
    found = replay(folder, [model])
    assert counts(found) == (5, 0, 0, 0)
    assert (found.files > 4) == bool(files)
    alone = [counts(replay(file, [model])) for file in sorted(folder.glob("*.sqlite"))]
    assert sum(recomputed for recomputed, *_ in alone) == 5


def test_a_new_file_has_the_bars_of_now_and_none_of_a_dropped_stream(
    record: Record, folder: Path
) -> None:
    with record(streams=1, files={"file_mb": 1e-6, "files": 1}) as engine:
        changed_and_decided(engine)
    (file,) = folder.glob("*.sqlite")
    with closing(sqlite3.connect(file)) as connection:
        found = connection.execute("SELECT instrument, snapshot FROM feed").fetchall()
    assert found == [("Beta", 1)]


@FILES
def test_changes_and_decisions_of_many_threads_leave_a_journal_that_replays(
    record: Record, model: Model, folder: Path, clock: Clock, files: dict[str, Any]
) -> None:
    clock.now = NOON + 1000
    series = [(ON, BARS), (BETA, BARS), (SLOW, random_bars(260, seed=4, seconds=900))]
    late = {"5": 1e9, "15": 1e9}

    def act(engine: LiveEngine, seed: int) -> int:
        random, decided = Random(seed), 0  # noqa: S311, no secret
        for _ in range(40):
            names, bars = random.choice(series)
            first = random.randrange(40)
            some = scaled(bars[first : 255 + random.randrange(5)], random.choice([1.0, 0.5]))
            try:
                match random.randrange(8):
                    case 0:
                        engine.feed(some, **names)
                    case 1:
                        engine.correct(some[random.randrange(len(some)) :], **names)
                    case 2:
                        engine.reset(some, **names)
                    case 3:
                        engine.drop(**names)
                    case _:
                        decided += 1
                        bar = engine.newest(**names) or some.newest()
                        engine.decide(bar, random.choice([FLAT, LONG]), **names)
            except HrmError as error:
                assert "expected" in str(error)  # noqa: PT017, either is right
        return decided

    with (
        record(streams=2, workers=3, stale_after=late, files=files) as engine,
        ThreadPoolExecutor(4) as pool,
    ):
        decided = sum(pool.map(lambda seed: act(engine, seed), range(4)))
        answered = engine.health().decisions
    assert answered[next(key for key in answered if key[1] is Reason.OK)] > 0
    recomputed, checked, counted, lost = counts(replay(folder, [model]))
    assert (recomputed + checked + counted, lost) == (decided, 0)


def test_a_journal_of_the_version_before_is_decided_again(
    record: Record, model: Model, folder: Path
) -> None:
    with record() as engine:
        fed(engine)
        tell(engine, bar_at(BARS, FED))
    (file,) = folder.glob("*.sqlite")
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE meta SET value = '1' WHERE name = 'format_version'")
    assert counts(replay(folder, [model])) == (1, 0, 0, 0)


REPEATED = """
UPDATE decision SET repeats = 1, outputs = NULL, states = NULL, (
    quantity, value, buy_long, sell_short, close_long, close_short, hold, q_halt, q_continue
) = (
    SELECT quantity, value, buy_long, sell_short, close_long, close_short, hold, q_halt, q_continue
    FROM decision WHERE sequence = 1
) WHERE sequence = 2;
"""
WITHOUT = """
DELETE FROM feed WHERE event = 5;
UPDATE bar SET event = 5 WHERE event = 6;
UPDATE decision SET event = 6 WHERE event = 7;
"""


@pytest.mark.parametrize(
    ("sql", "what"),
    [
        (WITHOUT, "whether the bar is accepted"),
        ("UPDATE feed SET instrument = 'Beta' WHERE event = 5", "whether the stream is there"),
        ("UPDATE feed SET snapshot = 0 WHERE event = 5", "whether bars are accepted"),
        ("UPDATE feed SET snapshot = 3 WHERE event = 5", "reason"),
        (REPEATED, "quantity"),
    ],
    ids=["left out", "of another stream", "added", "begun anew", "what was forgotten, repeated"],
)
def test_a_correction_that_was_tampered_with_is_a_difference(
    record: Record, model: Model, folder: Path, sql: str, what: str
) -> None:
    with record() as engine:
        fed(engine)
        tell(engine, wrong(FED).newest())
        engine.correct(bar_at(BARS, FED), **ON)
        tell(engine, bar_at(BARS, FED))
    assert counts(replay(folder, [model])) == (2, 0, 0, 0)
    (file,) = folder.glob("*.sqlite")
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.executescript(sql)
    difference = replay(folder, [model]).difference
    assert difference is not None
    assert difference.what == what
