"""A stream has one name, whatever it is called; names that the artifact does not know are told."""

import logging
import threading
from collections import UserDict
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live import BARS, FLAT, NEWEST, ON, Live, account, bar_at, unknown_allowed
from replayed import FED, Record, committed, counts, fed, tell
from synthetic import random_bars

from hrm_runtime import (
    BadInput,
    Bar,
    HRMAgent,
    LiveEngine,
    Model,
    Reason,
    TradingHours,
    UnknownInstrument,
)
from hrm_runtime.artifact.decision import hold
from hrm_runtime.journal.reader import JournalFile, journal_files
from hrm_runtime.live import streams
from hrm_runtime.live.replay import replay

SPELT = {"instrument": "Alpha", "timeframe": "5min"}
SHOUTED = {"instrument": "ALPHA", "timeframe": "5"}
TOLD = (
    "instrument 'ALPHA' is unknown to the artifact, which decides for it as for any other: the "
    "closest is Alpha, which differs in upper and lower case"
)


# one stream


def test_every_spelling_of_a_timeframe_is_one_stream(engine: LiveEngine, model: Model) -> None:
    expected = model.decide(BARS, FLAT, **ON)
    found = engine.decide(NEWEST, FLAT, **SPELT)
    assert found == expected
    assert engine.decide(NEWEST, FLAT, instrument="Alpha", timeframe="M5") == expected
    assert list(engine.health().streams) == [("Alpha", "5")]
    assert engine.newest(instrument="Alpha", timeframe="05") == NEWEST
    assert engine.health().repeated == 1


def test_what_is_fed_under_one_spelling_is_decided_under_another(live: Live, model: Model) -> None:
    engine = live()
    engine.feed(BARS[:100], instrument="Alpha", timeframe="5T")
    engine.feed(BARS[100:-1], instrument="Alpha", timeframe="300s")
    assert engine.decide(NEWEST, FLAT, **ON) == model.decide(BARS, FLAT, **ON)


def test_an_agent_may_spell_its_timeframe_as_it_likes(engine: LiveEngine, model: Model) -> None:
    agent = HRMAgent(engine, "Alpha", "5m", bars=lambda: NEWEST, account=lambda: FLAT)
    assert agent.decide(np.zeros(0)) == model.decide(BARS, FLAT, **ON)
    assert list(engine.health().streams) == [("Alpha", "5")]


def test_how_late_is_too_late_may_be_set_in_any_spelling(live: Live, clock: Any) -> None:
    engine = live(stale_after={"1h": 1.0, "5m": 7.0})
    engine.feed(BARS[:-1], **ON)
    clock.now += 8.0
    assert engine.decide(NEWEST, FLAT, **ON).reason is Reason.STALE
    clock.now -= 2.0
    assert engine.decide(NEWEST, account(1), **ON).reason is Reason.OK


def test_unknown_timeframes_have_one_spelling_too(live: Live, model: Model) -> None:
    engine = live(unknown_allowed(model))
    hours = random_bars(6, seed=1, seconds=3600)[:5]
    engine.feed(hours[:3], instrument="Alpha", timeframe="1h")
    engine.feed(hours, instrument="Alpha", timeframe="60")
    assert {line: one.bars for line, one in engine.health().streams.items()} == {("Alpha", "60"): 5}


def test_a_stream_stays_one_where_the_next_artifact_calls_its_timeframe_otherwise(
    live: Live, model: Model
) -> None:
    engine = live()
    engine.feed(BARS[:-1], **ON)
    known = model.contract.timeframes
    other = unknown_allowed(model, timeframes={"15": known["15"], "5m": known["5"]})
    engine.use(other)
    expected = other.decide(BARS, FLAT, instrument="Alpha", timeframe="5m")
    assert expected.unknown == ()
    for timeframe in ("5m", "5min", "5"):
        found = engine.decide(NEWEST, FLAT, instrument="Alpha", timeframe=timeframe)
        assert (found, found.unknown) == (expected, ())
    engine.feed(BARS, instrument="Beta", timeframe="5")
    assert list(engine.health().streams) == [("Alpha", "5"), ("Beta", "5m")]


def test_what_was_decided_under_any_spelling_replays(
    record: Record, model: Model, folder: Path
) -> None:
    with record(model) as engine:
        fed(engine, instrument="Alpha", timeframe="5m")
        for number, timeframe in enumerate(("5min", "5", "05")):
            tell(engine, bar_at(BARS, FED + number), instrument="Alpha", timeframe=timeframe)
    assert counts(replay(folder, [model])) == (3, 0, 0, 0)
    (file,) = journal_files(folder)
    with closing(JournalFile(file)) as journal:
        lines = {one.line for one in journal.records() if "timeframe" in one.values}
    assert lines == {("Alpha", "5")}


# unknown names


def test_a_decision_for_an_unknown_name_says_so(live: Live, model: Model) -> None:
    engine = live(unknown_allowed(model))
    for names in (ON, SHOUTED):
        engine.feed(BARS[:-1], **names)
    assert engine.decide(NEWEST, FLAT, **ON).unknown == ()
    found = engine.decide(NEWEST, FLAT, **SHOUTED)
    assert (found.reason, found.unknown) == (Reason.OK, ("instrument",))
    assert engine.decide(NEWEST, FLAT, **SHOUTED).unknown == ("instrument",)  # from memory
    assert {line: one.unknown for line, one in engine.health().streams.items()} == {
        ("Alpha", "5"): None,
        ("ALPHA", "5"): TOLD,
    }


def test_an_unknown_name_is_logged_once_when_its_stream_opens(
    live: Live, model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "hrm_runtime"):
        engine = live(unknown_allowed(model))
        for names in (ON, SHOUTED, SHOUTED):
            engine.feed(BARS[:-1], **names)
        engine.decide(NEWEST, FLAT, **SHOUTED)
    (told,) = [record.hrm for record in caplog.records]  # type: ignore[attr-defined]
    assert told == {"event": "unknown names", **SHOUTED, "why": TOLD}


def test_a_market_of_a_name_that_nothing_has_is_told_with_the_closest(
    live: Live, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "hrm_runtime"):
        live(markets={"Beta": TradingHours(), "ALPHA": TradingHours()})
    (told,) = [record.hrm for record in caplog.records]  # type: ignore[attr-defined]
    assert told["instrument"] == "ALPHA"
    assert told["why"] == (
        "markets: instrument 'ALPHA' is unknown to the artifact: the closest is Alpha, which "
        "differs in upper and lower case"
    )


def test_what_another_artifact_does_not_know_is_told_when_it_comes(
    live: Live, model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    known = model.contract.instruments
    engine = live()
    engine.feed(BARS, **ON)
    other = unknown_allowed(model, instruments={n: known[n] for n in ("unknown", "Beta")})
    with caplog.at_level(logging.WARNING, "hrm_runtime"):
        engine.use(other)
        engine.rollback()
    told = [record.hrm for record in caplog.records]  # type: ignore[attr-defined]
    names = [one for one in told if one["event"] == "unknown names"]
    assert [(one["instrument"], one["why"]) for one in names] == [
        ("Alpha", TOLD.replace("ALPHA", "Alpha").partition("the closest")[0] + "known are Beta")
    ]
    assert engine.health().streams["Alpha", "5"].unknown is None


def test_an_unknown_name_that_is_not_allowed_is_held_with_the_closest(live: Live) -> None:
    engine = live()
    with pytest.raises(UnknownInstrument, match=r"; the closest is Alpha, which differs in upper"):
        engine.feed(BARS, **SHOUTED)
    found = engine.decide(NEWEST, FLAT, **SHOUTED)
    assert found == hold(Reason.UNKNOWN_INSTRUMENT, engine.model.id)
    assert found.unknown == ()


def test_decisions_for_unknown_names_replay(record: Record, model: Model, folder: Path) -> None:
    allowed = unknown_allowed(model)
    with record(allowed) as engine:
        fed(engine, **SHOUTED)
        tell(engine, bar_at(BARS, FED), **SHOUTED)
    assert counts(replay(folder, [allowed])) == (1, 0, 0, 0)


# an artifact that comes meanwhile


class ExchangedAt:
    """A clock; the first time that a worker looks at it, something happens before it tells."""

    def __init__(self, happens: Callable[[], object]) -> None:
        self.happens = [happens]
        self.now = 0.0

    def __call__(self) -> float:
        if self.happens and threading.current_thread().name.startswith("hrm-"):
            self.happens.pop()()
        return self.now


def renamed(model: Model) -> Model:
    """Calls `5` `5m`."""
    known = model.contract.timeframes
    return unknown_allowed(model, timeframes={"15": known["15"], "5m": known["5"]})


@pytest.mark.parametrize("ask", [True, False])
def test_a_stream_stays_one_where_its_timeframe_is_renamed_while_it_begins(
    record: Record, model: Model, folder: Path, ask: bool
) -> None:
    other = renamed(model)

    def exchange() -> None:
        engine.use(other)
        engine.feed(BARS[:FED], instrument="Alpha", timeframe="5m")

    clock = ExchangedAt(exchange)
    with record(clock=clock, workers=2) as engine:
        if ask:
            assert tell(engine, bar_at(BARS, FED - 1)).reason is Reason.BAD_INPUT
        else:
            clock.now = bar_at(BARS, FED).datetime + 0.0
            with pytest.raises(BadInput, match="began meanwhile as 'Alpha 5m': call again"):
                engine.feed(BARS[:FED], **ON)
        assert list(engine.health().streams) == [("Alpha", "5m")]
        assert tell(engine, bar_at(BARS, FED)).reason is Reason.OK
    assert counts(replay(folder, [model, other])) == (1, int(ask), 0, 0)


def test_a_journal_of_two_streams_of_one_series_says_where_the_second_came(
    record: Record, model: Model, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = renamed(model)

    def exchange() -> None:
        engine.use(other)
        engine.feed(BARS[:FED], instrument="Alpha", timeframe="5m")

    clock = ExchangedAt(exchange)
    clock.now = bar_at(BARS, FED).datetime + 0.0
    monkeypatch.setattr(streams, "require_apart", lambda *_: None)  # as engines did before
    with record(clock=clock, workers=2, files={"file_mb": 1e-6, "files": 100}) as engine:
        engine.feed(BARS[:FED], **ON)
        for number in range(3):
            committed(engine, tell(engine, bar_at(BARS, FED + number)))
    found = replay(folder, [model, other]).difference
    assert found is not None
    assert (found.timeframe, found.what) == ("5", "whether bars are accepted")
    *_, last = journal_files(folder)
    with closing(JournalFile(last)) as journal:
        lines = {one.line for one in journal.records() if one.table == "feed"}
    assert lines == {("Alpha", "5"), ("Alpha", "5m")}
    assert replay(last, [model, other]).difference is None


def only_alpha(model: Model) -> Model:
    known = model.contract.instruments
    contract = replace(model.contract, instruments={"Alpha": known["Alpha"]})
    return Model(contract, f"{model.id[:60]}only", model._session)


@pytest.mark.parametrize(
    ("exchanged", "instrument", "bar", "reason"),
    [
        (unknown_allowed, "Gamma", bar_at(BARS, 0), Reason.WARMING_UP),
        (only_alpha, "Beta", bar_at(BARS, 0), Reason.UNKNOWN_INSTRUMENT),
        (only_alpha, "Beta", bar_at(BARS, 5), Reason.UNKNOWN_INSTRUMENT),
    ],
)
def test_a_name_is_known_to_the_artifact_that_is_recorded_before_it(
    record: Record,
    model: Model,
    folder: Path,
    exchanged: Callable[[Model], Model],
    instrument: str,
    bar: Bar,
    reason: Reason,
) -> None:
    other = exchanged(model)
    clock = ExchangedAt(lambda: engine.use(other))
    clock.now = bar_at(BARS, 0).datetime + 300.0
    with record(clock=clock) as engine:
        found = engine.decide(bar, FLAT, instrument=instrument, timeframe="5")
    assert found == hold(reason, other.id)
    assert replay(folder, [model, other]).difference is None


def test_a_bar_is_refused_by_the_artifact_that_came_while_it_was_read(
    record: Record, model: Model, folder: Path
) -> None:
    other, future = only_alpha(model), bar_at(BARS, 5)

    class Exchanging(UserDict[str, Any]):
        def __getitem__(self, name: str) -> Any:
            engine.use(other)
            return super().__getitem__(name)

    with record() as engine:
        engine.settings.clock.now = bar_at(BARS, 0).datetime + 300.0  # type: ignore[attr-defined]
        bar = Exchanging(future._asdict())
        found = engine.decide(bar, FLAT, instrument="Beta", timeframe="5")
    assert found == hold(Reason.UNKNOWN_INSTRUMENT, other.id)
    assert counts(replay(folder, [model, other])) == (0, 1, 0, 0)
