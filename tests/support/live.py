"""A live engine's surroundings in a test's hands: the clock, the bars, and what the model does."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from threading import Event
from typing import Any

import pytest
from synthetic import ACCOUNTS, random_bars

from hrm_runtime import Account, Bar, Bars, Decision, LiveEngine, Model
from hrm_runtime.artifact.segments import Outputs
from hrm_runtime.artifact.session import Stop
from hrm_runtime.live.jobs import Ask

SAFETY_S = 60.0
"""Longer than anything takes; where it runs out, a test has failed."""


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until it holds."""
    end = time.monotonic() + SAFETY_S
    while not condition():
        assert time.monotonic() < end, "still waiting"
        time.sleep(0.001)


def hrm_threads() -> list[str]:
    """The names of the threads of engines and journals in this process."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("hrm-")]


Live = Callable[..., LiveEngine]
"""Makes engines."""


def bar_at(bars: Bars, number: int) -> Bar:
    """One of `bars`; from the end where `number` is negative."""
    number %= len(bars)
    return bars[number : number + 1].newest()


BARS = random_bars(260, seed=3)
NEWEST = bar_at(BARS, -1)
BEFORE = bar_at(BARS, -2)
NEEDED = 205
"""Bars that the frozen artifact needs for a decision."""
FLAT = ACCOUNTS["flat"]
ON = {"instrument": "Alpha", "timeframe": "5"}
BETA = {"instrument": "Beta", "timeframe": "5"}
LINE = ("Alpha", "5")


class Clock:
    """Stands still until a test moves it."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class WatchedStop(Stop):
    """Tells when it was set. Put in the place of `hrm_runtime.live.jobs.Stop`."""

    def __init__(self) -> None:
        super().__init__()
        self.was_set = Event()

    def set(self) -> None:
        super().set()
        self.was_set.set()


Before = Callable[[Sequence[Any], Any], None]
After = Callable[[list[Outputs]], list[Outputs]]


class Puppet(Model):
    """A model that calls `before` with its inputs and their stop, and answers `after` its passes.

    Attributes:
        batches: how many decisions each of its runs was asked for.
    """

    def __init__(
        self, model: Model, before: Before | None = None, after: After | None = None
    ) -> None:
        super().__init__(model.contract, model.id, model._session, model.folder)
        self.before = before
        self.after = after
        self.batches: list[int] = []

    def run_segments(self, *inputs: Any, stop: Stop | None = None) -> list[Outputs]:
        self.batches.append(len(inputs[0]))
        if self.before is not None:
            self.before(inputs, stop)
        passes = super().run_segments(*inputs, stop=stop)
        return passes if self.after is None else self.after(passes)


class Gate:
    """Holds the first run of a `Puppet` until it is opened; later ones pass."""

    def __init__(self) -> None:
        self.entered = Event()
        self._opened = Event()

    def __call__(self, inputs: Sequence[Any], stop: Any) -> None:
        if not self.entered.is_set():
            self.entered.set()
            assert self._opened.wait(SAFETY_S)

    def wait(self) -> None:
        """Until a run stands before it."""
        assert self.entered.wait(SAFETY_S)

    def open(self) -> None:
        self._opened.set()


class Hanging:
    """Runs of a `Puppet` that end only when they are stopped, `times` of them; `stop` is theirs."""

    def __init__(self, times: int = 1) -> None:
        self.left = times
        self.entered = Event()
        self.stop: Any = None

    def __call__(self, inputs: Sequence[Any], stop: Any) -> None:
        if self.left:
            self.left -= 1
            self.stop = stop
            self.entered.set()
            assert stop.was_set.wait(SAFETY_S)


def deadline_passes(patch: pytest.MonkeyPatch, hanging: Hanging) -> None:
    """Let the deadline of the next call pass when its run hangs, however slow this machine is."""
    left, calls = Ask.left, iter([True])

    def none_left(ask: Ask, deadline: float) -> float:
        if not next(calls, False):
            return left(ask, deadline)
        assert hanging.entered.wait(SAFETY_S)
        return 0.0

    patch.setattr(Ask, "left", none_left)


def raising(error: Exception, times: int = 1_000_000) -> Before:
    """Makes the first `times` runs of a `Puppet` raise `error`."""
    left = [times]

    def fail(inputs: Sequence[Any], stop: Any) -> None:
        if left[0]:
            left[0] -= 1
            raise error

    return fail


def changed(change: Callable[[Outputs], object]) -> After:
    """Makes a `Puppet` change copies of the outputs of its passes."""

    def answer(passes: list[Outputs]) -> list[Outputs]:
        copies = [{name: array.copy() for name, array in one.items()} for one in passes]
        for copy in copies:
            change(copy)
        return copies

    return answer


def set_to(name: str, value: float) -> After:
    """Makes a `Puppet` answer `value` in all of an output."""

    def change(outputs: Outputs) -> None:
        outputs[name][...] = value

    return changed(change)


def unknown_allowed(model: Model, **changes: Any) -> Model:
    """`model` with other fields in its contract, unknown instruments and timeframes allowed."""
    allowed = {"allow_unknown_instrument": True, "allow_unknown_timeframe": True}
    contract = replace(model.contract, **{**allowed, **changes})
    return Model(contract, f"{model.id[:60]}open", model._session)


def in_turn(*befores: Before | None) -> Before:
    """What a `Puppet` does at its first run, at its second, and so on; then nothing."""
    left = iter(befores)

    def act(inputs: Sequence[Any], stop: Any) -> None:
        before = next(left, None)
        if before is not None:
            before(inputs, stop)

    return act


def columns(bars: Bars) -> dict[str, Any]:
    return {name: getattr(bars, name) for name in ("datetime", "open", "high", "low", "close")}


def account(number: int) -> Account:
    """Another one for each number, so that no decision is remembered."""
    return replace(FLAT, capital=1000.0 + number)


def answer(engine: LiveEngine, number: int = 0) -> Decision:
    """At the newest bar, for an account of its own."""
    return engine.decide(NEWEST, account(number), **ON)


def reasons(engine: LiveEngine, *numbers: int) -> list[str]:
    return [answer(engine, number).reason.value for number in numbers]


def message(engine: LiveEngine, line: tuple[str, str] = LINE) -> str:
    """What was wrong with the last decision."""
    return engine.health().streams[line].message or "nothing"


def with_deadline(engine: LiveEngine, seconds: float) -> None:
    engine._desk._deadline = seconds
