from dataclasses import replace

from journalled import BARS, LINE, LOADED, OTHER, decided, taken

from hrm_runtime.journal.events import Control, Controlled, Event, Fed
from hrm_runtime.journal.state import Entry, State
from hrm_runtime.market.bars import Bars

OTHER_LOADED = replace(LOADED, model_id="b" * 64)


def after(*events: tuple[Event, Bars | None] | Event) -> State:
    """How everything is after them."""
    state = State()
    for event in events:
        state.apply(Entry(*event) if isinstance(event, tuple) else Entry(event))
    return state


def told(state: State) -> list[object]:
    """What a file would begin with; of bars, whose and how many."""
    return [
        (entry.event.line, len(entry.event.bars), entry.event.snapshot, entry.bars is not None)
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
        OTHER_LOADED, killed, (OTHER, 30, True, True), (LINE, 21, True, True)
    ]  # fmt: skip


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
    assert told(state) == [LOADED, (LINE, 8, True, True), (OTHER, 30, True, True)]
    state.update(after(OTHER_LOADED))
    assert told(state)[0] == OTHER_LOADED
