import logging
from typing import Any

import pytest
from journalled import MADE
from live import BARS, FLAT, LINE, Clock
from parts import Parts

from hrm_runtime import BadInput, Decision, InferenceFailed, Model, Reason, Untrusted
from hrm_runtime.artifact.decision import hold
from hrm_runtime.journal.events import Decided
from hrm_runtime.live.answers import told
from hrm_runtime.live.jobs import Ask


@pytest.fixture
def parts(model: Model, clock: Clock) -> Parts:
    return Parts(model, clock, failures=2)


def ask_of(line: tuple[str, str] = LINE) -> Ask:
    """As a worker has it that has read it."""
    ask = Ask(BARS.newest(), FLAT)
    ask.line, ask.at, ask.stamp, ask.read = line, 2.5, BARS.newest().datetime, FLAT
    return ask


def given(parts: Parts, decision: Decision = MADE, *args: Any, **more: Any) -> Decision:
    """What a new ask is told."""
    ask = ask_of()
    parts.answers.give(ask, decision, *args, **more)
    return ask.answer.result(0)


def test_the_first_answer_is_the_answer(parts: Parts) -> None:
    ask = ask_of()
    parts.answers.give(ask, MADE)
    parts.answers.hold(ask, Untrusted(Reason.DEADLINE, "late"))
    found = ask.answer.result(0)
    assert (found, found.sequence, ask.trouble) == (MADE, 1, None)
    assert parts.statistics.decisions == {(MADE.action, Reason.OK): 1}
    assert parts.journal.told() == ["decided ok"]


def test_an_answer_is_recorded_with_all_that_it_is_of(parts: Parts) -> None:
    outputs: dict[str, Any] = {"value": BARS.close}
    found = given(parts, outputs=outputs)
    assert parts.journal.events == [
        Decided(2.5, LINE, BARS.newest().datetime, FLAT, found, None, None, outputs)
    ]
    assert found.latency_ms > 0


def test_a_hold_has_the_reason_of_what_went_wrong(parts: Parts, model: Model) -> None:
    ask, error = ask_of(), BadInput("bar: expected one")
    parts.answers.hold(ask, error)
    assert ask.answer.result(0) == hold(Reason.BAD_INPUT, model.id)
    assert ask.trouble is error
    (event,) = parts.journal.events
    assert isinstance(event, Decided)
    assert event.why == "bar: expected one"


def test_a_stream_has_the_reason_of_its_last_answer(
    parts: Parts, model: Model, clock: Clock
) -> None:
    series = parts.streams.of(LINE, model.contract)
    series.stream.feed(BARS, clock.now)
    parts.streams.keep(LINE, series)
    parts.answers.hold(ask_of(), BadInput("bar: expected one"))
    assert (series.reason, series.message) == (Reason.BAD_INPUT, "bar: expected one")
    parts.answers.give(ask_of(("Beta", "5")), MADE)
    assert series.reason is Reason.BAD_INPUT
    parts.answers.give(ask_of(), MADE)
    assert (series.reason, series.message) == (Reason.OK, None)


def test_a_kill_holds_what_was_decided_and_is_recorded_before_it(parts: Parts) -> None:
    parts.guards.kill_switch.pull("lunch")
    assert [given(parts) for _ in range(2)] == 2 * [hold(Reason.KILLED, MADE.model_id)]
    assert parts.journal.told() == ["killed", "decided killed", "decided killed"]


def test_failures_open_the_breaker_after_the_last_of_them_is_recorded(parts: Parts) -> None:
    for _ in range(2):
        parts.answers.hold(ask_of(), InferenceFailed("no"))
    assert given(parts) == hold(Reason.BREAKER, MADE.model_id)
    assert parts.journal.told() == [
        "decided error", "decided error", "breaker opened", "decided breaker",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "failures"),
    [
        (Reason.ERROR, 1),
        (Reason.NON_FINITE, 1),
        (Reason.DEADLINE, 1),
        (Reason.BAD_INPUT, 0),
        (Reason.STALE, 0),
        (Reason.GAP, 0),
    ],
)
def test_the_breaker_counts_what_this_process_failed_at(
    parts: Parts, model: Model, reason: Reason, failures: int
) -> None:
    given(parts, hold(reason, model.id), Untrusted(reason, "no"))
    assert parts.guards.breaker.failures == failures


def test_a_decision_ends_a_row_of_failures_and_a_hold_does_not(parts: Parts, model: Model) -> None:
    parts.guards.breaker.failed()
    given(parts, hold(Reason.GAP, model.id))
    assert parts.guards.breaker.failures == 1
    given(parts)
    assert parts.guards.breaker.failures == 0


def test_what_fails_at_the_end_is_nobody_s_failure(parts: Parts) -> None:
    parts.guards.closed = True
    parts.answers.hold(ask_of(), InferenceFailed("the engine is closed: create another"))
    assert parts.guards.breaker.failures == 0


def test_a_repeat_is_counted_apart_and_changes_no_row_of_failures(parts: Parts) -> None:
    first = given(parts)
    parts.guards.breaker.failed()
    again = given(parts, first, repeats=first.sequence)
    assert (again, again.sequence) == (first, 2)
    assert (parts.statistics.repetitions, parts.statistics.latency.count) == (1, 1)
    assert parts.guards.breaker.failures == 1
    assert [event.repeats for event in parts.journal.events] == [None, 1]  # type: ignore[union-attr]


def failing(*args: Any, **more: Any) -> None:
    raise RuntimeError("disk")


@pytest.mark.parametrize("part", ["statistics.answered", "artifacts.fall_back"])
def test_what_was_recorded_is_answered_though_counting_fails(
    parts: Parts, model: Model, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    where, name = part.split(".")
    monkeypatch.setattr(getattr(parts, where), name, failing)
    ask, decision = ask_of(), hold(Reason.NON_FINITE, model.id)
    parts.answers.give(ask, decision, Untrusted(Reason.NON_FINITE, "no"))
    assert ask.answer.result(0) == decision
    assert str(ask.trouble) == "disk"
    assert parts.journal.told() == ["decided non_finite"]


@pytest.mark.parametrize("part", ["guards.barred", "journal.record"])
def test_what_cannot_be_recorded_is_hold(
    parts: Parts,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    where, name = part.split(".")
    monkeypatch.setattr(getattr(parts, where), name, failing)
    with caplog.at_level(logging.ERROR, "hrm_runtime"):
        assert given(parts) == hold(Reason.ERROR, MADE.model_id)
    events = [record.hrm["event"] for record in caplog.records]  # type: ignore[attr-defined]
    assert events == ["answer", "decision"]


def test_an_answer_that_nobody_awaits_any_more_is_recorded(parts: Parts) -> None:
    ask = ask_of()
    ask.answer.cancel()
    parts.answers.give(ask, MADE)
    assert ask.answer.cancelled()
    assert parts.journal.told() == ["decided ok"]


def test_what_an_error_says_is_its_name_where_that_raises() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("str")

    assert told(ValueError("axis 3")) == "axis 3"
    assert told(Mute()) == "Mute"
