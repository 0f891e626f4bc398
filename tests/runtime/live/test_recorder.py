import sys
import threading
from collections.abc import Iterator

import pytest
from journalled import decided, taken
from live import BARS
from parts import Kept

from hrm_runtime.journal.events import Control, Controlled
from hrm_runtime.live.recorder import Recorder


@pytest.fixture
def hurried() -> Iterator[None]:
    """Threads change places as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_events_go_to_the_journal_with_the_bars_after_them() -> None:
    kept = Kept()
    recorder = Recorder(kept)
    event, other = taken(), decided(1)
    recorder.record(event, BARS)
    recorder.record(other)
    assert recorder.keeps
    assert kept.events == [event, other]
    assert kept.bars == [BARS]


def test_without_a_journal_nothing_is_kept_and_decisions_have_numbers() -> None:
    recorder = Recorder()
    recorder.record(taken(), BARS)
    recorder.stopped(Control.KILLED, "lunch")
    assert not recorder.keeps
    for expected in (1, 2):
        with recorder.numbered() as number:
            assert number == expected


def test_decisions_of_many_threads_are_kept_in_the_order_of_their_numbers(hurried: None) -> None:
    kept, start = Kept(), threading.Barrier(8)
    recorder = Recorder(kept)

    def decide() -> None:
        start.wait()
        for _ in range(50):
            with recorder.numbered() as number:
                recorder.record(decided(number))

    threads = [threading.Thread(target=decide) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [event.decision.sequence for event in kept.events]  # type: ignore[union-attr]
    assert found == list(range(1, 401))


def test_a_stop_is_kept_once_until_it_is_undone() -> None:
    kept = Kept()
    recorder = Recorder(kept)
    recorder.stopped(Control.KILLED, "lunch")
    recorder.stopped(Control.KILLED, "dinner")
    recorder.stopped(Control.BREAKER_OPENED, "axis 3")
    recorder.undone(Control.KILLED, Control.REVIVED)
    recorder.stopped(Control.KILLED, "dinner")
    recorder.stopped(Control.BREAKER_OPENED, "axis 3")
    assert [(one.what, one.why) for one in kept.events if isinstance(one, Controlled)] == [
        ("killed", "lunch"),
        ("breaker opened", "axis 3"),
        ("revived", ""),
        ("killed", "dinner"),
    ]


def test_what_stopped_a_decision_is_kept_before_it() -> None:
    kept = Kept()
    recorder = Recorder(kept)
    with recorder.numbered() as number:
        recorder.stopped(Control.KILLED, "lunch")
        recorder.record(decided(number))
    assert kept.told() == ["killed", "decided ok"]
