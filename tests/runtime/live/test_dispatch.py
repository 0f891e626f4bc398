import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event, Lock, Thread

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live import SAFETY_S, eventually

from hrm_runtime import InferenceFailed
from hrm_runtime.live import dispatch as module
from hrm_runtime.live.dispatch import FORKED, Dispatcher


@dataclass(frozen=True, eq=False)
class Job:
    """Tells when it was begun and done; where it is held, it goes on when it is released."""

    line: str
    number: int = 0
    held: bool = False
    begun: Event = field(default_factory=Event)
    released: Event = field(default_factory=Event)
    done: Event = field(default_factory=Event)

    def release(self) -> None:
        self.released.set()

    def do(self) -> None:
        self.begun.set()
        if self.held:
            self.released.wait(SAFETY_S)
        self.done.set()


class Work:
    """What was done, in the order in which it was begun."""

    def __init__(self) -> None:
        self.calls: list[list[Job]] = []
        self.together = 0
        self._busy: Counter[str] = Counter()
        self._lock = Lock()

    def __call__(self, jobs: list[Job]) -> None:
        lines = [job.line for job in jobs]
        with self._lock:
            self.calls.append(jobs)
            self._busy.update(lines)
            self.together = max(self.together, *self._busy.values())
        for job in jobs:
            job.do()
        with self._lock:
            self._busy.subtract(lines)

    @property
    def sizes(self) -> list[int]:
        return [len(jobs) for jobs in self.calls]

    def numbers(self, line: str) -> list[int]:
        return [job.number for jobs in self.calls for job in jobs if job.line == line]


class Opened:
    """A dispatcher and its work; held jobs are released at the end, whatever happens."""

    def __init__(self, workers: int, most: int = 1) -> None:
        self.work = Work()
        self.dispatcher: Dispatcher[Job] = Dispatcher(self.work, workers, most)
        self._jobs: list[Job] = []

    def submit(self, *jobs: Job) -> None:
        for job in jobs:
            self._jobs.append(job)
            self.dispatcher.submit(job)

    def hold(self, line: str) -> Job:
        """Submit a job that is being done when this returns, until it is released."""
        job = Job(line, held=True)
        self.submit(job)
        assert job.begun.wait(SAFETY_S)
        return job

    def release(self) -> None:
        for job in self._jobs:
            job.release()

    def idle(self) -> None:
        """Wait until every worker waits."""
        eventually(lambda: self.dispatcher._idle >= len(self.dispatcher._threads))

    def close(self) -> None:
        self.release()
        self.dispatcher.close()


@pytest.fixture
def opened(request: pytest.FixtureRequest) -> Callable[..., Opened]:
    def make(workers: int, most: int = 1) -> Opened:
        made = Opened(workers, most)
        request.addfinalizer(made.close)
        return made

    return make


# order


@pytest.mark.parametrize(("workers", "most"), [(1, 1), (1, 4), (4, 1), (4, 3)])
def test_jobs_of_a_line_are_done_one_after_another_in_order(workers: int, most: int) -> None:
    each = Opened(workers, most)
    each.submit(*(Job(line, number) for number in range(100) for line in "abcde"))
    each.close()
    assert [each.work.numbers(line) for line in "abcde"] == [list(range(100))] * 5
    assert each.work.together == 1
    assert max(each.work.sizes) <= most


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    lines=st.lists(st.sampled_from("abcd"), max_size=60),
    workers=st.integers(1, 4),
    most=st.integers(1, 5),
)
def test_any_jobs_are_all_done_in_the_order_of_their_lines(
    lines: list[str], workers: int, most: int
) -> None:
    each = Opened(workers, most)
    each.submit(*(Job(line, number) for number, line in enumerate(lines)))
    each.close()
    for line in "abcd":
        expected = [number for number, one in enumerate(lines) if one == line]
        assert each.work.numbers(line) == expected
    assert (each.work.together, each.dispatcher.waiting) == (int(bool(lines)), 0)


def test_jobs_from_several_threads_are_all_done(opened: Callable[..., Opened]) -> None:
    each = opened(3, most=2)

    def submit(line: str) -> None:
        each.submit(*(Job(line, number) for number in range(200)))

    threads = [Thread(target=submit, args=(line,)) for line in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SAFETY_S)
    each.close()
    assert [each.work.numbers(line) for line in "abcd"] == [list(range(200))] * 4


def test_a_line_that_takes_long_does_not_keep_others_waiting(opened: Callable[..., Opened]) -> None:
    each = opened(2)
    slow, next_ = each.hold("slow"), Job("slow", 1)
    others = [Job("other", number) for number in range(20)]
    each.submit(next_, *others)
    assert [job.done.wait(SAFETY_S) for job in others] == [True] * 20
    assert (slow.done.is_set(), next_.begun.is_set(), each.dispatcher.waiting) == (False, False, 1)
    slow.release()
    assert next_.done.wait(SAFETY_S)


def test_what_waits_is_what_nobody_has_begun(opened: Callable[..., Opened]) -> None:
    each = opened(1)
    assert each.dispatcher.waiting == 0
    each.hold("a")
    assert each.dispatcher.waiting == 0
    each.submit(Job("a"), Job("b"), Job("b"))
    assert each.dispatcher.waiting == 3
    each.close()
    assert each.dispatcher.waiting == 0


def test_a_line_that_was_empty_takes_jobs_again(opened: Callable[..., Opened]) -> None:
    each = opened(2)
    for number in range(20):
        job = Job("a", number)
        each.submit(job)
        assert job.done.wait(SAFETY_S)
    each.close()
    assert each.work.numbers("a") == list(range(20))


# jobs that are done together


@pytest.mark.parametrize(
    ("most", "lines", "sizes"),
    [(1, 3, [1, 1, 1]), (3, 7, [3, 3, 1]), (4, 4, [4]), (8, 3, [3])],
)
def test_one_worker_is_given_what_waits_up_to_the_most(
    opened: Callable[..., Opened], most: int, lines: int, sizes: list[int]
) -> None:
    each = opened(1, most)
    each.hold("first")
    each.submit(*(Job(f"line {number}") for number in range(lines)))
    each.close()
    assert each.work.sizes == [1, *sizes]
    done = [job.line for jobs in each.work.calls[1:] for job in jobs]
    assert done == [f"line {number}" for number in range(lines)]


@pytest.mark.parametrize(
    ("workers", "most", "lines", "sizes"),
    [
        (2, 8, 4, [2, 2]),
        (2, 8, 5, [3, 2]),
        (2, 2, 4, [2, 2]),
        (3, 8, 3, [1, 1, 1]),
        (3, 8, 2, [1, 1]),
    ],
)
def test_what_comes_at_once_is_shared_among_idle_workers(
    opened: Callable[..., Opened], workers: int, most: int, lines: int, sizes: list[int]
) -> None:
    each = opened(workers, most)
    for number in range(workers):
        each.hold(f"held {number}")
    each.release()
    each.idle()
    with each.dispatcher._changed:  # nobody takes anything before all is there
        each.submit(*(Job(f"line {number}", held=True) for number in range(lines)))
    while sum(each.work.sizes[workers:]) < lines:
        time.sleep(0.001)
    assert sorted(each.work.sizes[workers:], reverse=True) == sizes


@pytest.mark.parametrize(("most", "sizes"), [(8, [5]), (3, [3, 2])])
def test_a_worker_takes_what_waits_while_the_others_are_at_work(
    opened: Callable[..., Opened], most: int, sizes: list[int]
) -> None:
    each = opened(2, most)
    first, _ = each.hold("held 0"), each.hold("held 1")
    waiting = [Job(f"line {number}") for number in range(5)]
    each.submit(*waiting)
    first.release()
    for job in waiting:
        assert job.done.wait(SAFETY_S)
    assert each.work.sizes[2:] == sizes


def test_jobs_of_one_line_are_never_given_together(opened: Callable[..., Opened]) -> None:
    each = opened(1, most=8)
    each.hold("a")
    each.submit(*(Job(line, number) for line in "aab" for number in range(2)))
    each.close()
    assert [[job.line for job in jobs] for jobs in each.work.calls] == [
        *(["a"], ["b", "a"], ["b", "a"], ["a"], ["a"]),
    ]


@pytest.mark.parametrize("error", [RuntimeError("no"), SystemExit(3)])
def test_threads_and_lines_go_on_after_work_that_raises(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    done: list[int] = []

    def work(jobs: list[Job]) -> None:
        for job in jobs:
            if job.number % 2:
                raise error
            done.append(job.number)

    with caplog.at_level(logging.ERROR, "hrm_runtime"):
        dispatcher = Dispatcher(work, workers=1, most=1)
        for number in range(6):
            dispatcher.submit(Job("a", number))
        dispatcher.close()
    assert (done, dispatcher.waiting) == ([0, 2, 4], 0)
    told = [record.hrm for record in caplog.records]  # type: ignore[attr-defined]
    assert told == [{"event": "worker", "why": type(error).__name__}] * 3


# what is refused


def test_a_closed_dispatcher_takes_no_job(opened: Callable[..., Opened]) -> None:
    each = opened(1)
    each.close()
    with pytest.raises(InferenceFailed, match=r"^the engine is closed: create another$"):
        each.dispatcher.submit(Job("a"))
    assert (each.work.calls, each.dispatcher.waiting) == ([], 0)


def test_too_many_jobs_are_refused_until_some_are_done(
    opened: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 2)
    each = opened(1)
    held, last = each.hold("a"), Job("b", 1)
    each.submit(Job("b", 0), last)
    with pytest.raises(
        InferenceFailed,
        match=r"^2 decisions wait: bars come faster than this machine decides$",
    ):
        each.dispatcher.submit(Job("c"))
    assert each.dispatcher.waiting == 2
    held.release()
    assert last.done.wait(SAFETY_S)
    each.submit(Job("c", 7))
    each.close()
    assert (each.work.numbers("b"), each.work.numbers("c")) == ([0, 1], [7])


def test_a_fork_has_none_of_the_threads(
    opened: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch
) -> None:
    each, process = opened(1), os.getpid()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: process + 1)
        with pytest.raises(InferenceFailed, match=f"^{FORKED}$"):
            each.dispatcher.submit(Job("a"))
    assert each.dispatcher.waiting == 0
    each.submit(Job("a", 3))
    each.close()
    assert each.work.numbers("a") == [3]


# the end


@pytest.mark.parametrize("workers", [1, 3])
def test_closing_does_what_waits_first(opened: Callable[..., Opened], workers: int) -> None:
    each = opened(workers)
    held = each.hold("a")
    waiting = [Job("a", number) for number in range(1, 10)]
    each.submit(*waiting)
    closer = Thread(target=each.dispatcher.close)
    closer.start()
    eventually(lambda: each.dispatcher._closed)
    assert [job.begun.is_set() for job in waiting] == [False] * 9
    assert closer.is_alive()
    held.release()
    closer.join(SAFETY_S)
    assert not closer.is_alive()
    assert [job.done.is_set() for job in waiting] == [True] * 9
    assert each.work.numbers("a") == list(range(10))


def test_idle_workers_help_until_the_last_job_is_done(opened: Callable[..., Opened]) -> None:
    each = opened(2, most=2)
    busy, other = each.hold("busy"), each.hold("other")
    first, third = Job("a", held=True), Job("c")
    last, beside = Job("a", 1, held=True), Job("b", 1)
    each.submit(first, Job("b"), third, last, beside)
    busy.release()
    assert first.begun.wait(SAFETY_S)  # with that of b in one call: two of the three lines
    other.release()
    assert third.done.wait(SAFETY_S)
    closer = Thread(target=each.dispatcher.close)
    closer.start()
    eventually(lambda: each.dispatcher._closed)
    first.release()
    assert last.begun.wait(SAFETY_S)
    assert beside.done.wait(SAFETY_S)
    assert (last.done.is_set(), closer.is_alive()) == (False, True)
    last.release()
    closer.join(SAFETY_S)
    assert not closer.is_alive()


@pytest.mark.parametrize("workers", [1, 4])
def test_no_thread_is_left_after_the_end(workers: int) -> None:
    before = set(threading.enumerate())
    each = Opened(workers)
    made = set(threading.enumerate()) - before
    assert {thread.name for thread in made} == {f"hrm-{number}" for number in range(workers)}
    assert {thread.daemon for thread in made} == {True}
    each.submit(Job("a"), Job("b"))
    each.close()
    assert set(threading.enumerate()) & made == set()


def test_closing_twice_is_no_error(opened: Callable[..., Opened]) -> None:
    each = opened(2)
    each.submit(Job("a"))
    each.close()
    each.close()
    assert each.work.numbers("a") == [0]
