"""The live engine: closed bars in, decisions out, and HOLD for whatever cannot be trusted.

    hours = TradingHours(["09:15-15:30"], "Asia/Kolkata", holidays=["2024-11-15"])
    with LiveEngine(load("artifact"), LiveSettings(hours=hours)) as engine:
        engine.feed(history, instrument="Nifty", timeframe="5")
        decision = engine.decide(bar, account, instrument="Nifty", timeframe="5")

A call puts its bar and account in the line of their stream and waits. A worker takes it, adds the
bar, looks whether a decision may be made, runs the graph, and answers. Whoever comes first, the
worker or the deadline, answers alone. Around `Model` there is only this: no arithmetic of its own.

What changes has one owner each, and its lock:

    jobs that wait                          Dispatcher, its condition
    a stream: bars, rows, the last ask      the worker that has its line; others read
    which streams there are                 Streams, its lock, and within it the journal's
    which artifact decides, and which did   Artifacts, its lock, and within it that of Streams
    whether an ask is answered              Ask, its claim
    numbers, and what is noted as stopped   Recorder, its lock, and within it the journal's
    the kill switch                         KillSwitch, one reference that is replaced
    failures in a row; what was counted     Breaker; Statistics, their locks
    whether the threads have ended          Ending, its lock

From a call down: engine, desk, dispatcher, worker, answers, artifacts, streams, guards, recorder;
each is told of those after it and of none before.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self
from weakref import finalize

from hrm_runtime.artifact.contract import brief
from hrm_runtime.artifact.decision import Decision
from hrm_runtime.artifact.folder import load
from hrm_runtime.artifact.model import Model
from hrm_runtime.journal.events import Change, Loaded
from hrm_runtime.journal.writer import Journal
from hrm_runtime.live.answers import Answers
from hrm_runtime.live.artifacts import Artifacts
from hrm_runtime.live.desk import Desk
from hrm_runtime.live.dispatch import FORKED, Dispatcher
from hrm_runtime.live.ending import Ending
from hrm_runtime.live.guards import Breaker, Guards, KillSwitch
from hrm_runtime.live.health import Health, Statistics, self_tested
from hrm_runtime.live.jobs import Ask, Feed, line_of
from hrm_runtime.live.recorder import Recorder
from hrm_runtime.live.settings import LiveSettings
from hrm_runtime.live.streams import Streams
from hrm_runtime.live.worker import Worker
from hrm_runtime.machine import resident_megabytes
from hrm_runtime.market.account import Account
from hrm_runtime.market.bars import REQUIRED, Bar, Bars, counted

AnyBars = Bars | Bar | Mapping[str, Any]
"""Bars as a host gives them: `Bars`, one `Bar`, or a mapping of columns."""

_NO_BARS: Final = Bars.of(dict.fromkeys(REQUIRED, ()))


class LiveEngine:
    """Decides for many streams in one process. Every method may be called from any thread.

    An instrument and a timeframe name a stream, in whatever spelling of the timeframe: `5m` is
    that of `5`.

    `decide` and `decide_async` never raise, unless the settings are strict: whatever cannot be
    trusted is HOLD with its reason, counted and logged. The others raise on bad input.

    Args:
        model: the loaded artifact.
        settings: how to trade.
        journal: where everything is recorded; it is closed with the engine.

    Raises:
        BadInput: a kill file whose folder does not exist, or as `Journal.begin`.
    """

    def __init__(
        self,
        model: Model,
        settings: LiveSettings | None = None,
        journal: Journal | None = None,
    ) -> None:
        self.settings = how = settings or LiveSettings()
        self._journal = journal
        self._statistics = Statistics()
        recorder = Recorder(journal)
        breaker = Breaker(how.failures)
        self._guards = Guards(KillSwitch(how.kill_file), breaker, recorder)
        self._streams = Streams(how, model.contract)
        self._artifacts = Artifacts(model, self._streams, breaker, recorder, how.rollback_after)
        parts = self._artifacts, self._streams, self._guards, self._statistics, recorder
        answers = Answers(*parts)
        worker = Worker(how, *parts, answers)
        if journal is not None:
            loaded = Loaded(time.time(), model.id, model.contract.name, "started")
            journal.begin(how.document(), loaded)
        self._dispatcher: Dispatcher[Ask | Feed] = Dispatcher(worker.work, how.workers, how.batch)
        self._desk = Desk(self._dispatcher, self._streams, answers, how.deadline, how.strict)
        self._ending = Ending(self._guards, self._dispatcher, journal)
        finalize(self, self._ending.dropped).atexit = False  # that is the ending's own

    def __repr__(self) -> str:
        model, guards = self.model, self._guards
        state = [self.settings.name] if self.settings.name else []
        state += [brief(model.contract, model.id), counted(len(self._streams), "stream")]
        state += ["killed"] * (guards.kill_switch.why is not None)
        state += ["breaker open"] * guards.breaker.open + ["closed"] * guards.closed
        return f"LiveEngine({', '.join(state)})"

    # what the host calls

    def feed(self, bars: AnyBars, *, instrument: str, timeframe: str) -> None:
        """Add closed bars without a decision: history at the start, or what was missed.

        They may lie before, between or after those that are there. Returns when they are in.

        Args:
            bars: `Bars`, one `Bar`, or a mapping of columns.

        Raises:
            BadBars: not bars, or one that differs from what is there: `correct` replaces it.
            BadInput: there are as many streams as may be: `drop` frees a place.
            Untrusted: future, where one is not closed yet.
            UnknownInstrument, UnknownTimeframe: as `Model.decide`.
            InferenceFailed: the engine is closed.
        """
        self._desk.feed(bars, instrument, timeframe)

    def correct(self, bars: AnyBars, *, instrument: str, timeframe: str) -> None:
        """`feed`, but a bar whose stamp is there takes the place of the one that was given before.

        What was answered at the newest bar is forgotten: asked again, it is decided anew.

        Raises:
            BadInput: the stream has no bars; or as `feed`. The stream is as before.
            Untrusted, InferenceFailed: as `feed`; likewise.
        """
        self._desk.feed(bars, instrument, timeframe, Change.CORRECTED)

    def reset(self, bars: AnyBars, *, instrument: str, timeframe: str) -> None:
        """`correct` all at once: `bars` are all that the stream has from now on.

        For a split, which adjusts all history, or the roll to another contract.

        Raises:
            BadInput, Untrusted, InferenceFailed: as `correct`; or there are no `bars`.
        """
        self._desk.feed(bars, instrument, timeframe, Change.RESET)

    def drop(self, *, instrument: str, timeframe: str) -> None:
        """Forget a stream, as that of an expired contract; a bar that comes later begins it anew.

        Raises:
            BadInput: it has no bars.
            InferenceFailed: the engine is closed.
        """
        self._desk.feed(_NO_BARS, instrument, timeframe, Change.DROPPED)

    def decide(
        self,
        bar: Bar | Mapping[str, Any],
        account: Account | Mapping[str, Any],
        *,
        instrument: str,
        timeframe: str,
    ) -> Decision:
        """Add the next closed bar and decide at its close.

        A bar equal to the newest changes nothing: with the same account it has the same answer,
        with another it is decided anew.

        Args:
            bar: a `Bar`, or a mapping of its values by name.
            account: at the bar's close; an `Account`, or a mapping of its values by name.

        Returns:
            A decision within the deadline, whatever happens.

        Raises:
            Untrusted, BadInput, InferenceFailed: with strict settings, in place of HOLD.
        """
        return self._desk.decide(bar, account, instrument, timeframe)

    async def decide_async(
        self,
        bar: Bar | Mapping[str, Any],
        account: Account | Mapping[str, Any],
        *,
        instrument: str,
        timeframe: str,
    ) -> Decision:
        """`decide`, awaited: the event loop goes on meanwhile."""
        return await self._desk.decide_async(bar, account, instrument, timeframe)

    def refuse(self, why: Exception, *, instrument: str, timeframe: str) -> Decision:
        """The HOLD of an adapter that cannot read what its host gives it: counted and logged.

        Raises:
            HrmError: `why`, with strict settings; as InferenceFailed where it is something else.
        """
        return self._desk.refuse(why, instrument, timeframe)

    def newest(self, *, instrument: str, timeframe: str) -> Bar | None:
        """The newest bar of a stream; None where there is none yet."""
        bars = self.bars(instrument=instrument, timeframe=timeframe)
        return None if bars is None else bars.newest()

    def bars(self, *, instrument: str, timeframe: str) -> Bars | None:
        """The newest bars of a stream, `bars_needed` at most; None where there are none yet."""
        series = self._streams.get(self._streams.meant(line_of(instrument, timeframe)))
        return None if series is None else series.stream.bars

    # what operators call

    def kill(self, why: str) -> None:
        """Answer HOLD to everything from now on, decisions on their way included."""
        self._guards.kill(why)

    def revive(self) -> None:
        """Trade again after a kill.

        Raises:
            BadInput: the kill file is still there.
        """
        self._guards.revive()

    def close_breaker(self) -> None:
        """Trade again after too many failures."""
        self._guards.close_breaker()

    def reload(self, path: str | Path, sha256: str | None = None, threads: int = 1) -> Model:
        """Load another artifact beside the one that decides, then `use` it.

        Raises:
            DoNotStart: as `load`; the artifact before goes on deciding.
            BadInput: as `load` and `use`; likewise.
        """
        self.use(load(path, sha256, threads))
        return self.model

    def use(self, model: Model) -> None:
        """Decide with another artifact from the next pass on; bars and rows stay.

        It is tried on the window of every stream first, in the calling thread. A bar that was
        answered keeps its answer, and the artifact before is kept for `rollback`.

        Raises:
            BadInput: it needs other rows than those that are there, does not know a stream, or
                cannot decide on its window; the artifact before goes on deciding.
            InferenceFailed: onnxruntime failed on a window; likewise.
        """
        self._artifacts.use(model)

    def rollback(self) -> Model:
        """Decide with the artifact before the last `use` or `reload` again.

        Raises:
            BadInput: there is none.
        """
        return self._artifacts.rollback()

    def health(self) -> Health:
        """How everything is, with a self-test of the network made just now."""
        model, guards = self.model, self._guards
        killed = guards.kill_switch.pulled()
        failed, self_test_ms = self_tested(model)
        if not self._dispatcher.ours:
            failed = FORKED
        barred = killed is not None or guards.breaker.open or guards.closed
        return Health(
            serving=failed is None and not barred,
            model_id=model.id,
            killed=killed,
            breaker_open=guards.breaker.open,
            failures=guards.breaker.failures,
            self_test=failed,
            self_test_ms=self_test_ms,
            waiting=self._dispatcher.waiting,
            decisions=self._statistics.decisions,
            repeated=self._statistics.repetitions,
            latency=self._statistics.latency,
            thinking=self._statistics.thinking,
            memory_mb=resident_megabytes(),
            journal=None if self._journal is None else self._journal.health(),
            streams={
                line: one.health(self.settings.clock()) for line, one in self._streams.items()
            },
        )

    @property
    def model(self) -> Model:
        """The artifact that decides."""
        return self._artifacts.model

    def close(self) -> None:
        """Answer what waits, then end the threads. Later calls are HOLD with reason error.

        An engine that nobody closes is closed when it is dropped, and before the interpreter ends.
        A signal handler may call this, as `kill` and `health`: where it interrupted a call of the
        engine, the threads end after that call.
        """
        self._ending.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()
