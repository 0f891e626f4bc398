from dataclasses import replace

from journalled import BARS, LINE, LOADED, OTHER, decided, taken

from hrm_runtime.journal.events import Change, Control, Controlled, Event, Fed
from hrm_runtime.journal.state import Entry, State
from hrm_runtime.market.bars import Bars

OTHER_LOADED = replace(LOADED, model_id="b" * 64)


def after(*events: tuple[Event, Bars | None] | Event) -> State:
    """How everything is after them."""
    state = State()
    for event in events:
        state.apply(Entry(*event) if isinstance(event, tuple) else Entry(event))
    return state


def is_snapshot(entry: Entry) -> bool:
    """Whether it says all the bars that a stream has, and hands them on."""
    event = entry.event
    assert isinstance(event, Fed)
    return event.change is Change.SNAPSHOT and event.bars is entry.bars


def told(state: State) -> list[object]:
    """What a file would begin with; of bars, whose and how many."""
    return [
        (entry.event.line, len(entry.event.bars), is_snapshot(entry))
        if isinstance(entry.event, Fed)
        else entry.event
        for entry in state.entries()
    ]


def test_nothing_is_said_after_nothing() -> None:
    assert told(State()) == []


def test_the_last_of_each_kind_is_said_no_trading_before_bars() -> None:
    killed = Controlled(2.0, Control.KILLED, why="lunch")
    state = after(
        LOADED,
        (Fed(1.0, OTHER, BARS), BARS),
        (Fed(1.0, LINE, BARS[:20]), BARS[:20]),
        (taken(20), BARS[:21]),
        (taken(21), None),  # refused: the stream has what it had
        decided(1),
        OTHER_LOADED,
        killed,
        Controlled(2.0, Control.LOST, 3),
    )
    assert told(state) == [
        OTHER_LOADED, killed, (OTHER, 30, True), (LINE, 21, True)
    ]  # fmt: skip


DROPPED = Fed(3.0, LINE, BARS[:0], Change.DROPPED)


def test_what_took_the_place_of_bars_is_said_and_nothing_of_a_dropped_stream() -> None:
    fed = (Fed(1.0, LINE, BARS, Change.ADDED), BARS)
    assert told(after(fed, (Fed(2.0, LINE, BARS[:9], Change.RESET), BARS[:9]))) == [(LINE, 9, True)]
    assert told(after(fed, (Fed(2.0, LINE, BARS[-1:], Change.CORRECTED), BARS))) == [
        (LINE, 30, True)
    ]
    assert told(after(fed, DROPPED)) == []
    assert told(after(fed, DROPPED, (taken(7), BARS[7:8]))) == [(LINE, 1, True)]


def test_what_was_dropped_later_is_gone_and_nothing_is_kept_of_it() -> None:
    state = after((Fed(1.0, LINE, BARS), BARS), (Fed(1.0, OTHER, BARS), BARS))
    state.update(after(DROPPED))
    assert told(state) == [(OTHER, 30, True)]
    assert list(state.bars) == [OTHER]
    state.update(after(DROPPED, (taken(7), BARS[7:8])))
    assert told(state) == [(OTHER, 30, True), (LINE, 1, True)]


def test_a_switch_is_said_only_while_it_keeps_from_trading() -> None:
    killed, revived = (Controlled(2.0, what) for what in (Control.KILLED, Control.REVIVED))
    opened, closed = (
        Controlled(2.0, what) for what in (Control.BREAKER_OPENED, Control.BREAKER_CLOSED)
    )
    assert told(after(killed, opened)) == [killed, opened]
    assert told(after(killed, opened, revived)) == [opened]
    assert told(after(killed, closed, opened, closed)) == [killed]


def test_what_came_later_counts_and_what_it_says_nothing_of_stays() -> None:
    killed, revived = (Controlled(2.0, what) for what in (Control.KILLED, Control.REVIVED))
    state = after(LOADED, killed, (Fed(1.0, LINE, BARS), BARS), (Fed(1.0, OTHER, BARS), BARS))
    state.update(after(revived, (taken(7), BARS[:8])))
    assert told(state) == [LOADED, (LINE, 8, True), (OTHER, 30, True)]
    state.update(after(OTHER_LOADED))
    assert told(state)[0] == OTHER_LOADED
