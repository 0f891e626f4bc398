"""Jobs done by who calls, one list after another."""

from typing import Any

import numpy as np
import pytest
from journalled import bars_equal
from live import BARS, FLAT, LINE, NEWEST, ON, Clock, Puppet, bar_at, raising, set_to
from parts import Parts, free_for_another
from synthetic import ACCOUNTS

from hrm_runtime import BadBars, Bars, InferenceFailed, Model, Reason
from hrm_runtime.artifact.decision import hold
from hrm_runtime.journal.events import Change, Event, Fed, Taken
from hrm_runtime.live.jobs import Ask, Feed

BETA = ("Beta", "5")


@pytest.fixture
def parts(model: Model, clock: Clock) -> Parts:
    return Parts(model, clock)


def asked(line: tuple[str, str] = LINE, bar: Any = NEWEST, account: Any = FLAT) -> Ask:
    ask = Ask(bar, account)
    ask.line = line
    return ask


def fed(parts: Parts, *lines: tuple[str, str]) -> None:
    """All bars but the newest."""
    feeds = [Feed(line, BARS[:-1]) for line in lines or (LINE,)]
    parts.worker.work([*feeds])
    assert [feed.done.result(0) for feed in feeds] == [None] * len(feeds)


def told(*asks: Ask) -> list[Any]:
    return [ask.answer.result(0) for ask in asks]


def test_bars_are_fed_and_recorded(parts: Parts, clock: Clock) -> None:
    fed(parts)
    series = parts.streams.get(LINE)
    assert series is not None
    assert series.stream.ready
    assert parts.journal.events == [Fed(clock.now, LINE, parts.journal.events[0].bars)]  # type: ignore[union-attr]
    assert bars_equal(parts.journal.events[0].bars, BARS[:-1])  # type: ignore[union-attr]
    (after,) = parts.journal.bars
    assert after is series.stream.bars


def test_what_changes_a_stream_is_recorded_with_what_it_has_then(
    parts: Parts, clock: Clock
) -> None:
    fed(parts)
    changes = [
        Feed(LINE, BARS[-3:], Change.CORRECTED),
        Feed(LINE, BARS[-50:], Change.RESET),
        Feed(LINE, BARS[:0], Change.DROPPED),
    ]
    for change in changes:
        parts.worker.work([change])
        assert change.done.result(0) is None
    assert parts.journal.events[1:] == [
        Fed(clock.now, LINE, change.bars, change.change) for change in changes
    ]
    assert [len(bars) for bars in parts.journal.bars] == [205, 205, 50]
    assert parts.streams.get(LINE) is None


def test_streams_come_and_go_in_the_order_in_which_that_is_recorded(
    model: Model, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, found = Parts(model, clock, streams=2), []
    record = parts.journal.record

    def recorded(event: Event, bars: Bars | None = None) -> None:
        found.append(free_for_another(parts.streams))
        record(event, bars)

    monkeypatch.setattr(parts.journal, "record", recorded)
    slow = "Alpha", "15"
    older = NEWEST._replace(datetime=NEWEST.datetime - 900)
    parts.worker.work([Feed(LINE, BARS)])
    parts.worker.work([asked(BETA)])
    parts.worker.work([asked(slow, older)])
    parts.worker.work([Feed(LINE, BARS[:0], Change.DROPPED)])
    parts.worker.work([Feed(BETA, BARS)])
    told = zip(parts.journal.told(), found, strict=True)
    assert [one for one in told if not one[0].startswith("decided")] == [
        ("fed 260", False),
        ("bar ok", False),
        ("bar bad_input", False),  # there are as many as there may be
        ("fed 0", False),
        ("fed 260", True),  # it was there
    ]


def test_what_cannot_be_fed_goes_to_who_waits_and_is_not_recorded(parts: Parts) -> None:
    fed(parts)
    feed = Feed(LINE, Bars.of_one(NEWEST._replace(datetime=NEWEST.datetime - 60)))
    parts.worker.work([feed])
    with pytest.raises(BadBars, match="expected bars of 300 s"):
        feed.done.result(0)
    assert parts.journal.told() == ["fed 259"]


def test_what_is_asked_is_decided_as_the_model_does(
    parts: Parts, model: Model, clock: Clock
) -> None:
    fed(parts)
    ask = asked(account=ACCOUNTS["long"])
    parts.worker.work([ask])
    assert told(ask) == [model.decide(BARS, ACCOUNTS["long"], **ON)]
    assert (ask.at, ask.stamp, ask.read) == (clock.now, NEWEST.datetime, ACCOUNTS["long"])
    assert parts.journal.told() == ["fed 259", "bar ok", "decided ok"]
    taken = parts.journal.events[1]
    assert isinstance(taken, Taken)
    assert taken.bar == NEWEST._replace(volume=taken.bar.volume)  # type: ignore[union-attr]


def test_questions_of_one_call_are_one_run(model: Model, clock: Clock) -> None:
    puppet = Puppet(model)
    parts = Parts(puppet, clock)
    fed(parts, LINE, BETA)
    asks = asked(), asked(BETA, account=ACCOUNTS["short"])
    parts.worker.work([*asks])
    assert puppet.batches == [2]
    assert told(*asks) == [
        model.decide(BARS, FLAT, **ON),
        model.decide(BARS, ACCOUNTS["short"], instrument="Beta", timeframe="5"),
    ]
    assert parts.statistics.thinking.decided == 2


def test_what_is_wrong_with_one_job_is_not_wrong_with_another(parts: Parts, model: Model) -> None:
    fed(parts, LINE, BETA)
    bad, feed, good = asked(bar=None), Feed(("Gamma", "5"), BARS), asked(BETA)
    parts.worker.work([bad, feed, good])
    assert told(bad) == [hold(Reason.BAD_INPUT, model.id)]
    assert feed.done.exception(0) is not None
    assert told(good)[0].reason is Reason.OK


def test_the_same_ask_is_answered_from_memory(model: Model, clock: Clock) -> None:
    puppet = Puppet(model)
    parts = Parts(puppet, clock)
    fed(parts)
    asks = [asked() for _ in range(3)]
    parts.worker.work([asks[0]])
    parts.worker.work([asks[1]])
    parts.worker.work([Feed(LINE, BARS[:0])])  # what was missed may have come
    parts.worker.work([asks[2]])
    first, again, anew = told(*asks)
    assert first == again == anew
    assert (puppet.batches, parts.statistics.repetitions) == ([1, 1], 1)


@pytest.mark.parametrize("now", [NEWEST.datetime + 361.0, np.nan])
def test_a_bar_that_is_late_or_of_no_time_is_hold(
    parts: Parts, model: Model, clock: Clock, now: float
) -> None:
    fed(parts)
    parts.worker.work([asked()])
    clock.now = now
    ask = asked(account=ACCOUNTS["long"])
    parts.worker.work([ask])
    assert told(ask) == [hold(Reason.STALE, model.id)]


def test_a_refused_bar_is_recorded_as_far_as_it_can_be_read(parts: Parts) -> None:
    fed(parts)
    asks = asked(bar=bar_at(BARS, 3)), asked(bar={"close": 1})
    for ask in asks:
        parts.worker.work([ask])
    first, second = (event for event in parts.journal.events if isinstance(event, Taken))
    assert first.bar is not None
    assert (first.bar[:5], first.reason) == (bar_at(BARS, 3)[:5], Reason.OUT_OF_ORDER)
    assert (second.bar, second.reason) == (None, Reason.BAD_INPUT)


def test_a_run_that_fails_for_several_is_made_for_each(model: Model, clock: Clock) -> None:
    puppet = Puppet(model, raising(InferenceFailed("no"), times=2))
    parts = Parts(puppet, clock)
    fed(parts, LINE, BETA)
    first, second = asked(), asked(BETA)
    parts.worker.work([first, second])
    assert puppet.batches == [2, 1, 1]
    assert told(first) == [hold(Reason.ERROR, model.id)]
    assert told(second)[0].reason is Reason.OK


def test_nothing_is_run_for_whom_nobody_waits(model: Model, clock: Clock) -> None:
    puppet = Puppet(model)
    parts = Parts(puppet, clock)
    fed(parts)
    ask = asked()
    assert ask.claim()
    parts.worker.work([ask])
    assert puppet.batches == []
    series = parts.streams.get(LINE)
    assert series is not None
    assert series.stream.bars is not None
    assert series.stream.bars.newest()[:5] == NEWEST[:5]


def test_outputs_that_are_not_finite_are_hold(model: Model, clock: Clock) -> None:
    parts = Parts(Puppet(model, after=set_to("value", np.nan)), clock)
    fed(parts)
    ask = asked()
    parts.worker.work([ask])
    assert told(ask)[0].reason is Reason.NON_FINITE
    assert str(ask.trouble) == "an output of the network is not finite"


def test_a_kill_that_came_meanwhile_costs_no_run(model: Model, clock: Clock) -> None:
    puppet = Puppet(model)
    parts = Parts(puppet, clock)
    fed(parts)
    parts.guards.kill("lunch")
    ask = asked()
    parts.worker.work([ask])
    assert told(ask) == [hold(Reason.KILLED, model.id)]
    assert puppet.batches == []
