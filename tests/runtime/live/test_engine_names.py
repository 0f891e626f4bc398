"""A stream has one name, whatever it is called; names that the artifact does not know are told."""

import logging
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live import BARS, FLAT, NEWEST, ON, Live, account, bar_at, unknown_allowed
from replayed import FED, Record, counts, fed, tell
from synthetic import random_bars

from hrm_runtime import HRMAgent, LiveEngine, Model, Reason, TradingHours, UnknownInstrument
from hrm_runtime.artifact.decision import hold
from hrm_runtime.journal.reader import JournalFile, journal_files
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
