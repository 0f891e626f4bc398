"""Worker threads that take jobs in order, several at a time, never two of one line at once."""

import logging
import os
from collections import deque
from collections.abc import Callable, Hashable
from threading import Condition, Thread
from typing import Final, Generic, Protocol, TypeVar

from hrm_runtime.errors import InferenceFailed
from hrm_runtime.locks import reentrant
from hrm_runtime.log import log

MOST_WAITING: Final = 10_000
"""Jobs that may wait; more means that they come faster than they can be done."""

FORKED: Final = "the engine belongs to the process that forked this one: create one here"


class Job(Protocol):
    """What waits in a line."""

    @property
    def line(self) -> Hashable:
        """Jobs of one line are done one after another, in the order of `submit`."""


J = TypeVar("J", bound=Job)


class Dispatcher(Generic[J]):
    """Calls `work` with jobs of different lines, on threads of its own.

    A line whose job is being done waits for it; others do not. Idle threads cost nothing. The
    threads are daemons: they do not keep a process alive.

    Args:
        work: does a list of jobs. It should not raise: that is logged, and the threads go on.
        workers: threads.
        most: jobs given to one call; waiting ones are shared among the idle threads first.
    """

    def __init__(self, work: Callable[[list[J]], None], workers: int, most: int) -> None:
        self._work = work
        self._most = most
        self._changed = Condition(reentrant())
        self._lines: dict[Hashable, deque[J]] = {}
        self._ready: deque[Hashable] = deque()  # lines with a job, none of them being done
        self._waiting = 0
        self._idle = 0
        self._closed = False
        self._process = os.getpid()
        self._threads = [
            Thread(target=self._loop, name=f"hrm-{number}", daemon=True)
            for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def ours(self) -> bool:
        """Whether the threads are of this process, and not of one that forked it."""
        return os.getpid() == self._process

    @property
    def waiting(self) -> int:
        """Jobs that nobody has begun."""
        return self._waiting

    def submit(self, job: J) -> None:
        """Put `job` at the end of its line.

        Raises:
            InferenceFailed: closed, too many wait, or this process is a fork without the threads.
        """
        if not self.ours:
            raise InferenceFailed(FORKED)
        with self._changed:
            if self._closed:
                raise InferenceFailed("the engine is closed: create another")
            if self._waiting >= MOST_WAITING:
                raise InferenceFailed(
                    f"{self._waiting} decisions wait: bars come faster than this machine decides"
                )
            self._waiting += 1
            line = self._lines.get(job.line)
            if line is None:
                line = self._lines[job.line] = deque()
                self._ready.append(job.line)
                self._changed.notify()
            line.append(job)

    def close(self) -> None:
        """Do what waits, then end the threads. Returns when they have ended."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _loop(self) -> None:
        while jobs := self._next():
            try:
                self._work(jobs)
            except BaseException as error:  # a thread that ended would leave all lines waiting
                log(logging.ERROR, "worker", error, why=type(error).__name__)
            finally:
                self._done(jobs)

    def _next(self) -> list[J]:
        """Jobs at the heads of lines, when there are; none when closed."""
        with self._changed:
            self._idle += 1
            while not self._ready and not (self._closed and not self._lines):
                self._changed.wait()
            share = -(-len(self._ready) // self._idle)
            self._idle -= 1
            lines = [self._ready.popleft() for _ in range(min(self._most, share))]
            self._waiting -= len(lines)
            return [self._lines[line].popleft() for line in lines]

    def _done(self, jobs: list[J]) -> None:
        with self._changed:
            for job in jobs:
                if self._lines[job.line]:
                    self._ready.append(job.line)
                    self._changed.notify()
                else:
                    del self._lines[job.line]
            if self._closed and not self._lines:
                self._changed.notify_all()
