"""Workers answer one order at a time, say why they fail, and end with whoever started them."""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from queue import SimpleQueue
from typing import Any, cast

import numpy as np
import pytest
from processes import DEADLINE_S, is_running, wait_for_the_end

from hrm_runtime.measure import turns
from hrm_runtime.measure.turns import (
    DECISION,
    PASS,
    WARM_UP,
    Arrays,
    Opened,
    Worker,
    WorkerFailed,
    batches,
    end_with_parent,
    lifeline,
    read_inputs,
    serve,
    timed,
    write_inputs,
)


@pytest.fixture
def inputs() -> Arrays:
    """Five windows that are told apart by their account."""
    count = np.arange(5)
    return (
        np.zeros((5, 3, 2), np.float32),
        count[:, None].astype(np.float32),
        count,
        np.zeros(5, np.int64),
    )


def instruments(found: list[Arrays]) -> list[list[int]]:
    return [batch[2].tolist() for batch in found]


# what passes are given


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (1, [[0], [1], [2], [3], [4]]),
        (2, [[0, 1], [2, 3], [4, 0]]),
        (5, [[0, 1, 2, 3, 4]]),
        (7, [[0, 1, 2, 3, 4, 0, 1]]),
    ],
)
def test_batches_hold_all_windows_and_begin_again_where_one_is_not_full(
    size: int, expected: list[list[int]], inputs: Arrays
) -> None:
    found = batches(inputs, size)
    assert instruments(found) == expected
    for features, account, instrument, timeframe in found:
        assert features.shape == (size, 3, 2)
        assert account[:, 0].tolist() == instrument.tolist()
        assert timeframe.shape == (size,)


def test_inputs_are_read_as_they_were_written(inputs: Arrays, tmp_path: Path) -> None:
    write_inputs(tmp_path / "inputs.npz", inputs)
    for found, expected in zip(read_inputs(tmp_path / "inputs.npz"), inputs, strict=True):
        np.testing.assert_array_equal(found, expected, strict=True)


# time


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The moment, in seconds, to be moved by hand."""
    now = [0.0]
    monkeypatch.setattr(turns.time, "perf_counter", lambda: now[0])
    return now


@pytest.fixture
def call(clock: list[float]) -> Callable[[int], None]:
    """Takes 1/64 s more for every number."""

    def call(number: int) -> None:
        clock[0] += (1 + number) / 64

    return call


def test_calls_are_timed_one_by_one_until_the_turn_is_over(call: Callable[[int], None]) -> None:
    assert timed(call, seconds=5 / 64, least=1, untimed=0) == [15.625, 31.25, 46.875]


def test_as_many_as_are_due_are_timed_however_long_they_take(call: Callable[[int], None]) -> None:
    assert timed(call, seconds=0, least=2, untimed=0) == [15.625, 31.25]


def test_the_first_ones_are_not_timed(clock: list[float], call: Callable[[int], None]) -> None:
    assert timed(call, seconds=0, least=1, untimed=3) == [15.625]
    assert clock[0] == (1 + 2 + 3 + 1) / 64


# the worker's side


def told(opened: Opened, inputs: Arrays, *orders: dict[str, Any]) -> list[dict[str, Any]]:
    """What a worker answers."""
    answers = io.StringIO()
    lines = "".join(json.dumps(order) + "\n" for order in orders)
    serve(lambda: opened, inputs, io.StringIO(lines), answers)
    return [json.loads(line) for line in answers.getvalue().splitlines()]


def order(what: str, batch: int = 1, least: int = 1, untimed: int = 0) -> dict[str, Any]:
    return {"what": what, "batch": batch, "seconds": 0.0, "least": least, "untimed": untimed}


def test_a_worker_opens_warms_up_and_says_so(
    inputs: Arrays, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def run(*arrays: Any) -> None:
        seen.append(int(arrays[2][0]))
        clock[0] += 0.25

    monkeypatch.setattr(turns, "resident_megabytes", lambda: 99.5)
    assert told(Opened(run), inputs) == [{"load_s": 0.25, "rss_mb": 99.5}]  # with the first pass
    assert seen == [0, 0, 1, 2, 3, 4]
    assert len(seen) == 1 + WARM_UP


def test_a_worker_runs_passes_at_the_batch_it_is_told(inputs: Arrays) -> None:
    seen: list[list[int]] = []
    opened = Opened(lambda *arrays: seen.append(arrays[2].tolist()))
    _, first, second = told(
        opened, inputs, order(PASS, batch=2, least=4, untimed=1), order(PASS, batch=7)
    )
    assert [len(first["ms"]), len(second["ms"])] == [4, 1]
    assert all(ms >= 0 for ms in first["ms"])
    passes = seen[1 + WARM_UP :]
    assert passes == [[0, 1], [0, 1], [2, 3], [4, 0], [0, 1], [0, 1, 2, 3, 4, 0, 1]]


def test_a_worker_makes_decisions_by_number(inputs: Arrays) -> None:
    seen: list[int] = []
    _, answer = told(Opened(print, seen.append), inputs, order(DECISION, least=3))
    assert len(answer["ms"]) == 3
    assert seen == [0, 1, 2]


# the other side


def test_an_order_is_answered() -> None:
    program = """
import json, sys
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    print(json.dumps({"told": json.loads(line)}), flush=True)
"""
    with Worker("-c", program) as worker:
        assert worker.listen() == {"ready": True}
        assert worker.tell(what="pass", batch=4) == {"told": {"what": "pass", "batch": 4}}


def test_a_worker_has_one_thread_and_reports_its_use_to_nobody() -> None:
    program = "import json, os; print(json.dumps(dict(os.environ)))"
    with Worker("-c", program) as worker:
        found = worker.listen()
    assert found["OMP_NUM_THREADS"] == found["ORT_DISABLE_TELEMETRY"] == "1"


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("import sys; sys.exit('first\\nno memory\\n ')", "exit code 1: no memory"),
        ("raise ValueError('it is odd')", "exit code 1: ValueError: it is odd"),
        ("", "exit code 0: it said nothing"),
        ("print('{', end='')", "exit code 0: it said nothing"),
        ("print('hello'); input()", "expected an answer, found 'hello'"),
    ],
)
def test_a_worker_that_does_not_answer_is_quoted(program: str, message: str) -> None:
    with Worker("-c", program) as worker, pytest.raises(WorkerFailed, match=f"^{message}$"):
        worker.listen()


def test_an_order_to_a_worker_that_has_ended_fails_as_well() -> None:
    program = "import sys; print('{}', flush=True); sys.exit('gone')"
    with Worker("-c", program) as worker:
        assert worker.listen() == {}
        with pytest.raises(WorkerFailed, match="exit code 1: gone"):
            worker.tell(long="x" * 1_000_000)


def test_a_worker_that_only_stops_answering_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "PATIENCE", 0.1)
    program = "import os, time; os.close(1); time.sleep(1000)"
    with Worker("-c", program) as worker, pytest.raises(WorkerFailed, match="exit code None"):
        worker.listen()


def test_what_libraries_print_is_no_answer() -> None:
    program = """
import os
from hrm_runtime.measure.turns import say, standard_output
with standard_output() as answers:
    print("noise", flush=True)
    os.write(1, b"more noise")
    say(answers, number=1)
"""
    with Worker("-c", program) as worker:
        assert worker.listen() == {"number": 1}


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cannot pin here")
def test_a_worker_is_pinned_before_it_prepares(inputs: Arrays, tmp_path: Path) -> None:
    write_inputs(tmp_path / "inputs.npz", inputs)
    core = min(os.sched_getaffinity(0))
    program = """
import os, sys
from hrm_runtime.measure.turns import Opened, answer

def prepare():
    pinned = os.sched_getaffinity(0)
    def decide(_):
        sys.exit(f"pinned to {pinned}")
    return lambda: Opened(lambda *arrays: None, decide)

answer(prepare, *sys.argv[1:])
"""
    with Worker("-c", program, str(tmp_path / "inputs.npz"), str(core)) as worker:
        assert worker.listen().keys() == {"load_s", "rss_mb"}
        with pytest.raises(WorkerFailed, match=f"pinned to {{{core}}}"):
            worker.tell(**order(DECISION))


# ends

CHILD = """
import json, os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
print(json.dumps({"pids": [os.getpid(), child.pid]}), flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="processes have no groups here")
def test_a_worker_ends_with_all_that_it_started() -> None:
    with Worker("-c", CHILD) as worker:
        pids = worker.listen()["pids"]
        assert all(map(is_running, pids))
    for pid in pids:
        wait_for_the_end(pid)
    worker.end()  # twice is no error


def test_a_worker_is_killed_where_there_are_no_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "killpg", raising=False)
    program = "import os; print(os.getpid(), flush=True); import time; time.sleep(1000)"
    with Worker("-c", program) as worker:
        pid: Any = worker.listen()
    wait_for_the_end(pid)


KILLED = pytest.mark.parametrize("killed_by", ["SIGKILL", "SIGTERM"])
POSIX = pytest.mark.skipif(not hasattr(os, "killpg"), reason="kills as POSIX does")

PARENT = """
import json, sys, time
from hrm_runtime.measure.turns import Worker
workers = [Worker("-c", program, sys.argv[1]) for program in sys.argv[2:]]
print(json.dumps([worker.listen()["pids"] for worker in workers]), flush=True)
time.sleep(1000)
"""

WAITING = """
import os, sys
from hrm_runtime.measure.turns import Opened, answer, say
answers = os.fdopen(os.dup(1), "w")
def load():
    say(answers, pids=[os.getpid()])
    return Opened(lambda *arrays: None)
answer(lambda: load, sys.argv[1], "")
"""

BUSY = """
import itertools, os, subprocess, sys
from hrm_runtime.measure.turns import Opened, answer, say
answers = os.fdopen(os.dup(1), "w")
def load():
    reads = "import sys, time; sys.stdin.read(); time.sleep(1000)"
    child = subprocess.Popen([sys.executable, "-c", reads])
    say(answers, pids=[os.getpid(), child.pid])
    return Opened(lambda *arrays: [None for _ in itertools.count() if False])  # for ever
answer(lambda: load, sys.argv[1], "")
"""


@POSIX
@KILLED
def test_workers_end_with_a_parent_that_was_killed_whatever_they_are_doing(
    killed_by: str, inputs: Arrays, tmp_path: Path
) -> None:
    """And so does what they have started, though it holds all that they could hand on."""
    write_inputs(tmp_path / "inputs.npz", inputs)
    programs = [WAITING, BUSY, BUSY]
    with Worker("-c", PARENT, str(tmp_path / "inputs.npz"), *programs) as parent:
        waiting, *busy = told = cast("list[list[int]]", parent.listen())
        assert [len(pids) for pids in told] == [1, 2, 2]
        pids = [*waiting, *chain(*busy)]
        assert all(map(is_running, pids))
        os.kill(parent._process.pid, getattr(signal, killed_by))
        for pid in pids:
            wait_for_the_end(pid)


@POSIX
def test_a_process_ends_with_its_lifeline() -> None:
    program = """
import sys, time
from hrm_runtime.measure.turns import end_with_parent
orders = end_with_parent()
assert sys.stdin.read() == ""  # nothing is left for others to read
print("ready", flush=True)
time.sleep(1000)
"""
    with lifeline() as stdin:
        command = [sys.executable, "-c", program]
        process = subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert process.poll() is None
    assert process.wait(DEADLINE_S) == 1  # it leads no group that it could kill
    process.stdout.close()


def test_a_process_with_a_lifeline_ends_by_itself_too() -> None:
    program = (
        "from hrm_runtime.measure.turns import end_with_parent; end_with_parent(); print('done')"
    )
    with lifeline() as stdin:
        done = subprocess.run(
            [sys.executable, "-c", program], stdin=stdin, capture_output=True, check=True
        )
    assert (done.stdout, done.stderr) == (b"done\n", b"")


@pytest.mark.parametrize("groups", [True, False], ids=["with groups", "without"])
def test_orders_come_as_they_are_given_and_then_the_end(
    groups: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[tuple[int, int]] = []
    ended: SimpleQueue[int] = SimpleQueue()
    if groups:
        monkeypatch.setattr(os, "killpg", lambda *given: killed.append(given), raising=False)
    else:
        monkeypatch.delattr(os, "killpg", raising=False)
    monkeypatch.setattr(os, "_exit", ended.put)
    read, write = os.pipe()
    own = os.dup(0)
    os.dup2(read, 0)
    try:
        orders = end_with_parent()
        os.write(write, b"one\n")
        assert next(orders) == "one\n"
        os.write(write, b"two\nthr")
        assert next(orders) == "two\n"
        assert os.read(0, 1) == b""
        assert ended.empty()
        os.close(write)
        assert ended.get(timeout=DEADLINE_S) == 1
        assert next(orders) == "thr"
        assert killed == [(os.getpid(), signal.SIGKILL)] * groups
    finally:
        os.dup2(own, 0)
        os.close(own)
        os.close(read)
