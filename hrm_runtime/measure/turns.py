"""Processes that run only when it is their turn: what a fair comparison of speed is made of.

A worker opens what it measures, says that it is ready, and waits to be told. What it is told and
what it answers is one JSON object a line each. Whatever it is doing, it ends with its parent.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import IO, Any, Final, Self

import numpy as np
import numpy.typing as npt

from hrm_runtime.artifact.contract import INPUTS
from hrm_runtime.machine import pin, resident_megabytes

_Floats = npt.NDArray[np.float32]
_Ids = npt.NDArray[np.int64]

Arrays = tuple[_Floats, _Floats, _Ids, _Ids]
"""features, account, instrument, timeframe, as `Model.run` takes them."""

ENVIRONMENT: Final = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "ORT_DISABLE_TELEMETRY": "1",
}
"""One thread, and silence, whatever a worker imports."""

PASS: Final = "pass"  # noqa: S105, no password
DECISION: Final = "decision"

WARM_UP: Final = 5
PATIENCE: Final = 10.0
"""Seconds that a worker which has stopped answering has to end by itself, and so say why."""


class WorkerFailed(Exception):
    """A worker did not answer; the message is its exit code and its last line."""


class Worker:
    """A process of this interpreter. Leaving the context ends it and whatever it started.

    Args:
        command: what follows `python`.
    """

    def __init__(self, *command: str) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115, closed by `end`
        self._process = subprocess.Popen(  # noqa: S603, our own interpreter and code
            [sys.executable, "-P", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            encoding="utf-8",
            env={**os.environ, **ENVIRONMENT},
            start_new_session=True,  # a compiler that it starts can then be ended with it
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def listen(self) -> dict[str, Any]:
        """Its next answer.

        Raises:
            WorkerFailed: there is none.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.endswith("\n"):
            raise WorkerFailed(self._last_line())
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError as error:
            raise WorkerFailed(f"expected an answer, found {line.strip()!r}") from error
        return answer

    def tell(self, **order: object) -> dict[str, Any]:
        """Its answer to an order.

        Raises:
            WorkerFailed: there is none.
        """
        assert self._process.stdin is not None
        with suppress(OSError):  # it has ended, which `listen` finds too
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        return self.listen()

    def end(self) -> None:
        """Kill it, unless it has ended."""
        if hasattr(os, "killpg"):
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        else:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            with suppress(OSError):  # what was not read by a dead worker
                pipe.close()  # type: ignore[union-attr]

    def _last_line(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(PATIENCE)
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        return f"exit code {self._process.poll()}: {said[-1] if said else 'it said nothing'}"


@dataclass(frozen=True)
class Opened:
    """What a worker measures.

    Attributes:
        run: one pass of the network over `Arrays`.
        decide: a decision on one of several windows, by number; None where it has no such.
    """

    run: Callable[..., object]
    decide: Callable[[int], object] | None = None


def answer(prepare: Callable[[], Callable[[], Opened]], inputs: str | Path, core: str) -> None:
    """What a worker does: open, warm up, and run passes when told to, until its parent ends.

    Args:
        prepare: imports what is needed, and returns what opens.
        inputs: file of the windows to run on, by `write_inputs`.
        core: to pin to; empty where that cannot be done.
    """
    orders = end_with_parent()
    pin(int(core) if core else None)
    with standard_output() as answers:
        serve(prepare(), read_inputs(inputs), orders, answers)


@contextmanager
def lifeline() -> Iterator[int]:
    """A standard input for processes that `end_with_parent`: it ends with this process, or here."""
    read, write = os.pipe()  # no process inherits the end that is written to
    try:
        yield read
    finally:
        os.close(read)
        os.close(write)


def end_with_parent() -> Iterator[str]:
    """End this process, and what it has started, once standard input ends, whatever it is doing.

    Its parent holds the other end and nobody else does: so it ends with the parent, even where that
    is killed; at the latest when a library that was called lets other threads run. To be called
    before any work; reading standard input gives nothing from then on.

    Returns:
        the lines of standard input, as they come.
    """
    lines: SimpleQueue[str] = SimpleQueue()
    pipe = os.fdopen(os.dup(0), encoding="utf-8")
    # where a thread is waiting for standard input, Windows lets nobody load a library that looks at
    # it, as numpy's do; nor is it for those to read that are started from here
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    Thread(target=_end_after, args=(pipe, lines), daemon=True).start()
    return iter(lines.get, None)


def _end_after(pipe: IO[str], lines: SimpleQueue[str]) -> None:
    with pipe:
        for line in pipe:
            lines.put(line)
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError):  # it leads no group
            os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)  # at once: the main thread may be in a library for long


@contextmanager
def standard_output() -> Iterator[IO[str]]:
    """Keep standard output for answers: what libraries print goes to standard error."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        yield answers


def say(answers: IO[str], **fields: object) -> None:
    """Write one answer."""
    answers.write(json.dumps(fields) + "\n")
    answers.flush()


def serve(
    load: Callable[[], Opened], inputs: Arrays, orders: Iterable[str], answers: IO[str]
) -> None:
    """`answer`, on given orders. Opening is timed together with the first pass."""
    alone = batches(inputs, 1)
    start = time.perf_counter()
    opened = load()
    opened.run(*alone[0])
    load_s = time.perf_counter() - start
    for number in range(WARM_UP):
        opened.run(*alone[number % len(alone)])
    say(answers, load_s=load_s, rss_mb=resident_megabytes())
    for line in orders:
        order = json.loads(line)
        if order["what"] == DECISION:
            assert opened.decide is not None
            call = opened.decide
        else:
            call = _passes(opened.run, batches(inputs, order["batch"]))
        say(answers, ms=timed(call, order["seconds"], order["least"], order["untimed"]))


def timed(call: Callable[[int], object], seconds: float, least: int, untimed: int) -> list[float]:
    """Milliseconds of each call, made with the numbers 0, 1, ... until `seconds` have passed.

    Args:
        least: calls to time, however long they take.
        untimed: calls before that, which bring back what others took from the caches.
    """
    for number in range(untimed):
        call(number)
    found: list[float] = []
    begin = time.perf_counter()
    while len(found) < least or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        call(len(found))
        found.append(1e3 * (time.perf_counter() - start))
    return found


def batches(inputs: Arrays, size: int) -> list[Arrays]:
    """All windows in batches of `size`; from the first again where a batch is not full."""
    windows = len(inputs[0])
    count = -(-windows // size)
    rows = np.arange(count * size).reshape(count, size) % windows
    return [(f[row], a[row], i[row], t[row]) for f, a, i, t in [inputs] for row in rows]


def read_inputs(path: str | Path) -> Arrays:
    """What `write_inputs` wrote."""
    with np.load(path) as file:
        features, account, instrument, timeframe = (file[name] for name in INPUTS)
        return features, account, instrument, timeframe


def write_inputs(path: Path, inputs: Arrays) -> None:
    """Write windows for workers to run on."""
    arrays: dict[str, npt.NDArray[Any]] = dict(zip(INPUTS, inputs, strict=True))
    np.savez(path, allow_pickle=False, **arrays)


def _passes(run: Callable[..., object], given: list[Arrays]) -> Callable[[int], object]:
    return lambda number: run(*given[number % len(given)])
