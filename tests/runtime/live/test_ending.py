"""An engine that nobody closes: it ends with its process, or when it is dropped."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import leaving_host
import pytest
from journalled import sequences
from live import (
    BARS,
    FLAT,
    NEWEST,
    ON,
    SAFETY_S,
    Gate,
    Live,
    Puppet,
    bar_at,
    eventually,
    hrm_threads,
)

from hrm_runtime import Journal, LiveEngine, LiveSettings, Model
from hrm_runtime.journal.file import files_in
from hrm_runtime.live.dispatch import FORKED

CODES = {"return": 0, "exit": 3, "interrupt": -signal.SIGINT, "terminate": 128 + signal.SIGTERM}


@pytest.mark.skipif(sys.platform == "win32", reason="signals are others there")
@pytest.mark.parametrize("how", CODES)
@pytest.mark.parametrize("kind", ["threads", "asyncio"])
def test_a_process_that_leaves_it_open_ends_as_it_wanted_and_loses_nothing(
    kind: str, how: str, artifact: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, leaving_host.__file__, artifact, tmp_path / "journal", kind, how],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        timeout=SAFETY_S,
        check=False,
    )
    assert done.returncode == CODES[how], done.stderr
    answered = json.loads(done.stdout)
    assert len(answered) >= leaving_host.ENOUGH
    assert {*answered} <= {*sequences(tmp_path / "journal")}
    assert "Fatal" not in done.stderr


def test_one_that_is_dropped_ends_its_threads_and_frees_its_journal(
    model: Model, tmp_path: Path
) -> None:
    """As where a notebook's cell is run again."""
    for _ in range(2):
        engine = LiveEngine(model, LiveSettings(workers=2), Journal(tmp_path / "journal"))
        engine.feed(BARS[:5], **ON)
        assert sorted(hrm_threads()) == ["hrm-0", "hrm-1", "hrm-journal"]
        del engine
        eventually(lambda: not hrm_threads())
    assert len(files_in(tmp_path / "journal")) == 2


def test_one_that_is_closed_leaves_nothing_to_be_done_at_the_end(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = live()
    engine.close()
    engine.close()
    assert not hrm_threads()


# within a call


def in_a_call(engine: LiveEngine, act: Callable[[], object]) -> None:
    """What a signal handler does on top of a call that holds locks."""

    class Interrupting(dict[str, Any]):
        def keys(self) -> Any:
            with engine._dispatcher._changed, engine._guards._recorder._order:
                act()
            return super().keys()

    with pytest.raises(Exception, match="bars"):
        engine.feed(Interrupting(close=[1.0]), **ON)


def test_on_top_of_a_call_it_is_closed_once_that_has_gone_on(model: Model, clock: Any) -> None:
    gate = Gate()
    engine = LiveEngine(Puppet(model, gate), LiveSettings(clock=clock, deadline=SAFETY_S))
    engine.feed(BARS[:-1], **ON)
    found: list[Any] = []
    caller = threading.Thread(target=lambda: found.append(engine.decide(NEWEST, FLAT, **ON)))
    caller.start()
    gate.wait()
    in_a_call(engine, engine.close)  # and returns, though a run stands before the gate
    assert caller.is_alive()
    assert not engine.health().serving
    gate.open()
    caller.join(SAFETY_S)
    assert [decision.reason for decision in found] == ["ok"]
    eventually(lambda: not hrm_threads())


def test_on_top_of_a_call_it_may_be_killed_and_asked_how_it_is(engine: LiveEngine) -> None:
    found: list[Any] = []
    in_a_call(engine, lambda: (engine.kill("a test"), found.append(engine.health())))
    assert [health.killed for health in found] == ["a test"]
    assert engine.decide(NEWEST, FLAT, **ON).reason == "killed"


# a fork


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_says_that_it_does_not_serve_and_waits_for_nobody(
    model: Model, clock: Any, tmp_path: Path
) -> None:
    """Whatever other threads were doing when it was forked: here they hold every lock."""
    settings = LiveSettings(clock=clock, workers=1, deadline=SAFETY_S)
    with LiveEngine(model, settings, Journal(tmp_path / "journal")) as engine:
        engine.feed(BARS[:-1], **ON)
        held, free = threading.Event(), threading.Event()
        journal = engine._journal
        assert journal is not None

        def hold() -> None:
            guards = engine._guards
            with (
                guards._recorder._order, journal._recording, engine._statistics._lock,
                guards.breaker._lock, engine._dispatcher._changed,
            ):  # fmt: skip
                held.set()
                free.wait(SAFETY_S)

        threading.Thread(target=hold, daemon=True).start()
        held.wait(SAFETY_S)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                decision = engine.decide(NEWEST, FLAT, **ON)
                engine.kill("a fork")
                health = engine.health()
                engine.close()
                told = [decision.action.name, decision.reason, health.serving, health.self_test]
                os.write(writing, json.dumps(told).encode())
            finally:
                os._exit(0)
        os.close(writing)
        with open(reading) as pipe:
            assert json.load(pipe) == ["HOLD", "error", False, FORKED]
        os.waitpid(child, 0)
        free.set()
        assert engine.decide(bar_at(BARS, -1), FLAT, **ON).reason == "ok"
        assert engine.health().serving
