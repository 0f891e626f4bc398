import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from threading import TIMEOUT_MAX
from types import MappingProxyType
from typing import Any

import pytest
from live import (
    BARS,
    BEFORE,
    FLAT,
    NEEDED,
    NEWEST,
    ON,
    Clock,
    Live,
    Puppet,
    bar_at,
    columns,
    hrm_threads,
    message,
    raising,
    unknown_allowed,
)
from synthetic import ACCOUNTS

from hrm_runtime import (
    Account,
    BadInput,
    Bar,
    InferenceFailed,
    LiveEngine,
    LiveSettings,
    Model,
    Reason,
    TradingHours,
    UnknownInstrument,
    UnknownTimeframe,
)
from hrm_runtime.artifact.decision import hold
from hrm_runtime.machine import usable_cores

# what it decides


@pytest.mark.parametrize("account", ACCOUNTS.values(), ids=ACCOUNTS)
def test_a_decision_is_that_of_the_model_on_the_same_bars(
    engine: LiveEngine, model: Model, account: Any
) -> None:
    found = engine.decide(NEWEST, account, **ON)
    assert found == model.decide(BARS, account, **ON)
    assert found.reason is Reason.OK


@pytest.mark.parametrize("start", [0, 1, 30, 53])
@pytest.mark.parametrize("chunk", [1, 7, 300])
def test_history_from_any_start_in_any_pieces_gives_the_same_decisions(
    live: Live, model: Model, clock: Clock, start: int, chunk: int
) -> None:
    engine = live()
    for first in range(start, len(BARS) - 3, chunk):
        engine.feed(BARS[first : min(first + chunk, len(BARS) - 3)], **ON)
    for number in (-3, -2, -1):
        clock.now = bar_at(BARS, number).datetime + 300
        found = engine.decide(bar_at(BARS, number), FLAT, **ON)
        assert found == model.decide(BARS[: len(BARS) + number + 1], FLAT, **ON)


def test_a_stream_that_nothing_was_fed_to_decides_once_it_has_bars_enough(
    live: Live, model: Model, clock: Clock
) -> None:
    engine = live()
    found = []
    for number in range(NEEDED + 2):
        clock.now = bar_at(BARS, number).datetime + 300
        found.append(engine.decide(bar_at(BARS, number), FLAT, **ON))
    assert found[: NEEDED - 1] == [hold(Reason.WARMING_UP, model.id)] * (NEEDED - 1)
    assert found[NEEDED - 1 :] == [
        model.decide(BARS[:count], FLAT, **ON) for count in (NEEDED, NEEDED + 1, NEEDED + 2)
    ]


def test_warming_up_says_how_many_bars_there_are(live: Live) -> None:
    engine = live()
    engine.feed(BARS[-NEEDED + 1 : -1], **ON)
    assert engine.decide(NEWEST, FLAT, **ON).reason is Reason.WARMING_UP
    assert message(engine) == (
        "expected 205 bars for a decision, found 204; feed history to start at once"
    )


@pytest.mark.parametrize(
    "given",
    [NEWEST, NEWEST._asdict(), MappingProxyType(NEWEST._asdict()), {**NEWEST._asdict(), "more": 1}],
    ids=["Bar", "dict", "mapping", "other values beside"],
)
def test_a_bar_may_be_given_in_several_ways(
    engine: LiveEngine, model: Model, given: Bar | Mapping[str, Any]
) -> None:
    assert engine.decide(given, FLAT, **ON) == model.decide(BARS, FLAT, **ON)


def test_an_account_may_be_a_mapping(engine: LiveEngine, model: Model) -> None:
    found = engine.decide(NEWEST, vars(ACCOUNTS["long"]), **ON)
    assert found == model.decide(BARS, ACCOUNTS["long"], **ON)


@pytest.mark.parametrize(
    "given", [BARS[:-1], columns(BARS[:-1])], ids=["Bars", "mapping of columns"]
)
def test_history_may_be_given_in_several_ways(live: Live, model: Model, given: Any) -> None:
    engine = live()
    engine.feed(given, **ON)
    assert engine.decide(NEWEST, FLAT, **ON) == model.decide(BARS, FLAT, **ON)


def test_history_fed_twice_and_no_history_at_all_change_nothing(
    engine: LiveEngine, model: Model
) -> None:
    engine.feed(BARS[30:-1], **ON)
    engine.feed(BARS[:0], **ON)
    assert engine.decide(NEWEST, FLAT, **ON) == model.decide(BARS, FLAT, **ON)


def test_latency_and_number_are_those_of_the_engine(engine: LiveEngine) -> None:
    found = engine.decide(NEWEST, FLAT, **ON)
    assert found.sequence == 1
    assert 0.0 < found.latency_ms < 60_000.0


def test_the_newest_bar_can_be_read(engine: LiveEngine) -> None:
    assert engine.newest(instrument="Alpha", timeframe="15") is None
    assert engine.newest(**ON) == bar_at(BARS, -2)
    engine.decide(NEWEST, FLAT, **ON)
    assert engine.newest(**ON) == NEWEST


def test_a_stream_whose_first_bar_was_refused_has_no_newest(engine: LiveEngine) -> None:
    other = {"instrument": "Beta", "timeframe": "5"}
    assert engine.decide({}, FLAT, **other).reason is Reason.BAD_INPUT  # type: ignore[arg-type]
    assert engine.newest(**other) is None


# repeats


def test_a_repeat_is_answered_from_memory(live: Live, model: Model) -> None:
    puppet = Puppet(model)
    engine = live(puppet)
    engine.feed(BARS[:-1], **ON)
    first, second = (engine.decide(NEWEST, FLAT, **ON) for _ in range(2))
    assert second == first == model.decide(BARS, FLAT, **ON)
    assert (first.sequence, second.sequence) == (1, 2)
    assert puppet.batches == [1]
    health = engine.health()
    assert (health.repeated, sum(health.decisions.values())) == (1, 1)


def test_a_repeat_with_another_account_is_decided_anew(live: Live, model: Model) -> None:
    puppet = Puppet(model)
    engine = live(puppet)
    engine.feed(BARS[:-1], **ON)
    order = ("flat", "long", "flat")
    found = [engine.decide(NEWEST, ACCOUNTS[name], **ON) for name in order]
    assert found == [model.decide(BARS, ACCOUNTS[name], **ON) for name in order]
    assert (puppet.batches, engine.health().repeated) == ([1, 1, 1], 0)


def test_a_repeat_after_more_history_is_decided_anew(live: Live, model: Model) -> None:
    engine = live()
    engine.feed(BARS[-10:-1], **ON)
    assert engine.decide(NEWEST, FLAT, **ON).reason is Reason.WARMING_UP
    engine.feed(BARS[:-10], **ON)
    assert engine.decide(NEWEST, FLAT, **ON) == model.decide(BARS, FLAT, **ON)
    assert engine.health().repeated == 0


def test_a_repeat_may_have_another_volume(engine: LiveEngine, model: Model) -> None:
    volumes = (1.0, None, 2.0, -1.0, float("nan"))
    found = [engine.decide(NEWEST._replace(volume=v), FLAT, **ON) for v in volumes]
    assert found == [model.decide(BARS, FLAT, **ON)] * len(volumes)


def test_a_repeat_that_has_become_stale_has_the_answer_it_had_in_time(
    engine: LiveEngine, clock: Clock
) -> None:
    decision = engine.decide(NEWEST, FLAT, **ON)
    assert decision.reason is Reason.OK
    clock.now += 61
    assert engine.decide(NEWEST, FLAT, **ON) == decision
    assert engine.decide(NEWEST, Account.flat(9e5), **ON).reason is Reason.STALE


def test_a_failure_is_remembered_too(live: Live, model: Model) -> None:
    engine = live(Puppet(model, raising(InferenceFailed("no"), times=1)))
    engine.feed(BARS[:-1], **ON)
    found = [engine.decide(NEWEST, FLAT, **ON) for _ in range(2)]
    assert found == [hold(Reason.ERROR, model.id)] * 2
    assert engine.health().failures == 1


# another artifact


def other(model: Model, **changes: Any) -> Model:
    """An artifact with another contract, hence another id."""
    return unknown_allowed(model, **changes)


def test_another_artifact_decides_from_the_next_bar_on(
    live: Live, model: Model, clock: Clock
) -> None:
    engine, new = live(), other(model, quantity=replace(model.contract.quantity, max=4.0))
    engine.feed(BARS[:-2], **ON)
    clock.now -= 300
    first = engine.decide(BEFORE, FLAT, **ON)
    engine.use(new)
    assert engine.model is new
    assert engine.decide(BEFORE, FLAT, **ON) == first == model.decide(BARS[:-1], FLAT, **ON)
    clock.now += 300
    found = engine.decide(NEWEST, FLAT, **ON)
    assert found == new.decide(BARS, FLAT, **ON)
    assert (first.model_id, found.model_id) == (model.id, new.id)
    assert found.probabilities != model.decide(BARS, FLAT, **ON).probabilities


def without_entry(entries: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {known: entry for known, entry in entries.items() if known != name}


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        (
            lambda c: {"features": replace(c.features, history_bars=210)},
            BadInput,
            "model: expected history_bars 200 as now, found 210",
        ),
        (
            lambda c: {"features": replace(c.features, window=5)},
            BadInput,
            "model: expected window 6 as now, found 5",
        ),
        (
            lambda c: {"timeframes": {"5": replace(c.timeframes["5"], seconds=301)}},
            BadInput,
            "model: expected bars of 300 s in timeframe '5' as now, found 301 s",
        ),
        (
            lambda c: {
                "instruments": without_entry(c.instruments, "Alpha"),
                "allow_unknown_instrument": False,
            },
            UnknownInstrument,
            "instrument: expected one of Beta; found 'Alpha'",
        ),
        (
            lambda c: {
                "timeframes": without_entry(c.timeframes, "5"),
                "allow_unknown_timeframe": False,
            },
            UnknownTimeframe,
            "timeframe: expected one of 15; found '5'",
        ),
    ],
    ids=["history", "window", "seconds", "instrument", "timeframe"],
)
def test_an_artifact_that_cannot_go_on_is_refused(
    engine: LiveEngine,
    model: Model,
    changes: Callable[[Any], dict[str, Any]],
    error: type[Exception],
    told: str,
) -> None:
    with pytest.raises(error, match=told):
        engine.use(other(model, **changes(model.contract)))
    assert engine.model is model
    assert engine.decide(NEWEST, FLAT, **ON) == model.decide(BARS, FLAT, **ON)


# the end


def test_closing_ends_the_threads(live: Live) -> None:
    engine = live(workers=3)
    assert sorted(hrm_threads()) == ["hrm-0", "hrm-1", "hrm-2"]
    engine.close()
    assert hrm_threads() == []
    engine.close()


@pytest.mark.parametrize("failures", [1, 3])
def test_a_closed_engine_holds(live: Live, model: Model, failures: int) -> None:
    engine = live(failures=failures)
    engine.feed(BARS[:-1], **ON)
    engine.close()
    found = [engine.decide(NEWEST, FLAT, **ON) for _ in range(5)]
    assert found == [hold(Reason.ERROR, model.id)] * 5
    assert message(engine) == "the engine is closed: create another"
    with pytest.raises(InferenceFailed, match="the engine is closed: create another"):
        engine.feed(BARS, **ON)
    assert engine.newest(**ON) == BEFORE


def test_leaving_the_context_closes(model: Model) -> None:
    before = hrm_threads()
    with LiveEngine(model) as engine:
        assert len(hrm_threads()) == len(before) + engine.settings.workers
    assert hrm_threads() == before
    assert engine.health().serving is False


# settings


def test_the_settings_are_on_the_safe_side() -> None:
    settings = LiveSettings()
    assert (settings.deadline, settings.clock_skew, settings.failures) == (1.0, 2.0, 3)
    assert (settings.batch, settings.streams, settings.strict) == (8, 1000, False)
    assert (settings.kill_file, settings.stale_after) == (None, {})
    assert settings.workers == min(4, usable_cores())
    assert settings.clock is time.time


COUNT = "expected at least 1, found"
SECONDS = "expected seconds, found"


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        *(
            ({name: value}, f"^{name}: {COUNT} {value!r}$")
            for name in ("failures", "workers", "batch", "streams")
            for value in (0, -1, True, 1.5, "3", None)
        ),
        *(
            ({name: value}, f"^{name}: {SECONDS} {value!r}$")
            for name in ("deadline", "clock_skew")
            for value in (-1, float("nan"), float("inf"), "1", None)
        ),
        ({"stale_after": {"5": 60, "15": -1.0}}, rf"^stale_after\['15'\]: {SECONDS} -1.0$"),
        ({"deadline": 0}, "^deadline: expected more than 0 and at most .* seconds, found 0$"),
        ({"deadline": 2 * TIMEOUT_MAX}, "^deadline: expected more than 0 and at most .* seconds"),
        ({"hours": "09:15-15:30"}, "hours: expected TradingHours, found '09:15-15:30'"),
        ({"markets": []}, r"^markets: expected TradingHours by instrument, found \[\]$"),
        ({"markets": {"": TradingHours()}}, "^markets: expected names of instruments, found ''$"),
        ({"markets": {5: TradingHours()}}, "^markets: expected names of instruments, found 5$"),
        ({"markets": {"Beta": None}}, r"^markets\['Beta'\]: expected TradingHours, found None$"),
        ({"stale_after": 60}, "stale_after: expected seconds by timeframe, found 60"),
        ({"stale_after": {5: 60}}, "stale_after: expected seconds by timeframe, found {5: 60}"),
        ({"kill_file": 3}, "kill_file: expected a path, found 3"),
        ({"clock": 1.0}, "clock: expected a callable, found 1.0"),
    ],
)
def test_a_setting_out_of_range_is_refused(setting: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        LiveSettings(**setting)


def test_the_longest_deadline_can_be_waited_for(live: Live) -> None:
    engine = live(deadline=TIMEOUT_MAX)
    engine.feed(BARS[:-1], **ON)
    assert engine.decide(NEWEST, FLAT, **ON).reason is Reason.OK


def test_a_kill_file_without_its_folder_is_refused(live: Live, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="kill_file: expected a file in a folder that exists, fou"):
        live(kill_file=tmp_path / "absent" / "KILL")
    assert hrm_threads() == []
