"""Calls of a host, with threads that do what a test says."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from journalled import MADE
from live import BARS, FLAT, LINE, NEWEST, Clock
from parts import Parts

from hrm_runtime import (
    BadBars,
    BadInput,
    Decision,
    InferenceFailed,
    Model,
    Reason,
    UnknownInstrument,
    UnknownTimeframe,
    Untrusted,
)
from hrm_runtime.artifact.decision import hold
from hrm_runtime.live.desk import Desk
from hrm_runtime.live.dispatch import Dispatcher
from hrm_runtime.live.jobs import Ask, Company, Feed, line_of

Do = Callable[[Any], None]
Call = Callable[..., Decision]


class Doing(Dispatcher[Ask | Feed]):
    """Does a job at once, where it is submitted, as `do` says."""

    def __init__(self, do: Do) -> None:
        self.do = do
        self.jobs: list[Ask | Feed] = []

    def submit(self, job: Ask | Feed) -> None:
        self.jobs.append(job)
        self.do(job)


def nothing(job: Ask | Feed) -> None:
    """No thread comes to it."""


def failing(job: Ask | Feed) -> None:
    raise InferenceFailed("the engine is closed: create another")


@pytest.fixture
def parts(model: Model, clock: Clock) -> Parts:
    return Parts(model, clock)


@pytest.fixture
def desk(parts: Parts) -> Callable[..., Desk]:
    """Makes desks whose jobs are answered with `MADE`, or done otherwise."""

    def made(do: Do | None = None, deadline: float = 60.0, strict: bool = False) -> Desk:
        answered = do or (lambda ask: parts.answers.give(ask, MADE))
        return Desk(Doing(answered), parts.streams, parts.answers, deadline, strict)

    return made


def called(desk: Desk, *given: Any) -> Decision:
    return desk.decide(*given)


def awaited(desk: Desk, *given: Any) -> Decision:
    return asyncio.run(desk.decide_async(*given))


@pytest.fixture(params=[called, awaited])
def call(request: pytest.FixtureRequest) -> Call:
    """`decide` or its awaitable twin."""
    made: Call = request.param
    return made


def test_a_call_is_an_ask_in_the_line_of_its_stream(desk: Callable[..., Desk], call: Call) -> None:
    made = desk()
    assert call(made, NEWEST, FLAT, *LINE) == MADE
    (ask,) = made._dispatcher.jobs  # type: ignore[attr-defined]
    assert (ask.line, ask.bar, ask.account) == (LINE, NEWEST, FLAT)


def test_after_the_deadline_the_answer_is_hold(
    desk: Callable[..., Desk], parts: Parts, model: Model, call: Call
) -> None:
    assert call(desk(nothing, deadline=1e-9), NEWEST, FLAT, *LINE) == hold(
        Reason.DEADLINE, model.id
    )
    (event,) = parts.journal.events
    assert event.why == "expected a decision within 1e-09 s"  # type: ignore[union-attr]


def test_a_run_is_stopped_when_its_last_ask_is_late(
    desk: Callable[..., Desk], call: Call, watched_stops: None
) -> None:
    company = Company([other := Ask(None, None)])

    def run(ask: Ask) -> None:
        ask.company = company
        company._asks.append(ask)

    late = desk(run, deadline=1e-9)
    call(late, NEWEST, FLAT, *LINE)
    assert not company.stop.was_set.is_set()  # type: ignore[attr-defined]
    other.claim()
    call(late, NEWEST, FLAT, *LINE)
    assert company.stop.was_set.is_set()  # type: ignore[attr-defined]


def test_what_cannot_be_submitted_is_hold(
    desk: Callable[..., Desk], model: Model, call: Call
) -> None:
    assert call(desk(failing), NEWEST, FLAT, *LINE) == hold(Reason.ERROR, model.id)


@pytest.mark.parametrize(
    ("line", "reason"),
    [((5, "5"), Reason.UNKNOWN_INSTRUMENT), (("Alpha", None), Reason.UNKNOWN_TIMEFRAME)],
)
def test_a_name_that_is_no_text_is_hold_and_no_job(
    desk: Callable[..., Desk], model: Model, call: Call, line: Any, reason: Reason
) -> None:
    made = desk()
    assert call(made, NEWEST, FLAT, *line) == hold(reason, model.id)
    assert made.refuse(ValueError("no"), *line) == hold(reason, model.id)
    assert made._dispatcher.jobs == []  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("do", "error", "told"),
    [
        (nothing, Untrusted, "^expected a decision within 1e-09 s$"),
        (failing, InferenceFailed, "^the engine is closed: create another$"),
    ],
)
def test_a_strict_desk_raises_what_is_wrong(
    desk: Callable[..., Desk], call: Call, do: Do, error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        call(desk(do, deadline=1e-9, strict=True), NEWEST, FLAT, *LINE)


def test_a_strict_desk_raises_what_nobody_expected_as_a_failure(
    desk: Callable[..., Desk], parts: Parts, call: Call
) -> None:
    error = ValueError("axis 3")
    made = desk(lambda ask: parts.answers.hold(ask, error), strict=True)
    with pytest.raises(InferenceFailed, match=r"^ValueError: axis 3$") as raised:
        call(made, NEWEST, FLAT, *LINE)
    assert raised.value.__cause__ is error


def test_what_is_refused_is_hold_with_its_reason(desk: Callable[..., Desk], model: Model) -> None:
    assert desk().refuse(BadInput("no"), *LINE) == hold(Reason.BAD_INPUT, model.id)
    with pytest.raises(BadInput, match=r"^no$"):
        desk(strict=True).refuse(BadInput("no"), *LINE)


@pytest.mark.parametrize("given", [BARS, NEWEST, vars(BARS)], ids=["bars", "a bar", "columns"])
def test_bars_are_fed_as_bars(desk: Callable[..., Desk], given: Any) -> None:
    made = desk(lambda job: job.done.set_result(None))
    made.feed(given, *LINE)
    (job,) = made._dispatcher.jobs  # type: ignore[attr-defined]
    assert job.line == LINE
    assert job.bars.newest() == NEWEST
    assert len(job.bars) == (1 if given is NEWEST else len(BARS))


def test_feed_raises_what_is_wrong_where_it_was_called(desk: Callable[..., Desk]) -> None:
    refused = desk(lambda job: job.done.set_exception(BadBars("bars: another")))
    with pytest.raises(BadBars, match="bars: another"):
        refused.feed(BARS, *LINE)
    with pytest.raises(InferenceFailed, match="the engine is closed"):
        desk(failing).feed(BARS, *LINE)
    with pytest.raises(BadBars, match="expected"):
        desk().feed(5, *LINE)  # type: ignore[arg-type]


class Shouting(str):
    """Equal to nothing."""

    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return False


def test_a_line_is_of_plain_text() -> None:
    line = line_of(Shouting("Alpha"), Shouting("5"))
    assert line == LINE
    assert [type(name) for name in line] == [str, str]
    with pytest.raises(UnknownInstrument, match=r"^instrument: expected a name, found None$"):
        line_of(None, "5")  # type: ignore[arg-type]
    with pytest.raises(UnknownTimeframe, match=r"^timeframe: expected a name, found 5$"):
        line_of("Alpha", 5)  # type: ignore[arg-type]
