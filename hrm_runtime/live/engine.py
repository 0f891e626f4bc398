"""The live engine: closed bars in, decisions out, and HOLD for whatever cannot be trusted.

    hours = TradingHours(["09:15-15:30"], "Asia/Kolkata", holidays=["2024-11-15"])
    with LiveEngine(load("artifact"), LiveSettings(hours=hours)) as engine:
        engine.feed(history, instrument="Nifty", timeframe="5")
        decision = engine.decide(bar, account, instrument="Nifty", timeframe="5")

A call puts its bar and account in the line of their stream and waits. A worker takes it, adds the
bar, looks whether a decision may be made, runs the graph, and answers. Whoever comes first, the
worker or the deadline, answers alone. Around `Model` there is only this: no arithmetic of its own.
"""

import asyncio
import itertools
import logging
import time
from collections.abc import Mapping
from concurrent.futures import InvalidStateError
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Lock, RLock
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from hrm_runtime.artifact.contract import Contract, brief
from hrm_runtime.artifact.decision import Decision, Reason, hold, reason_of
from hrm_runtime.artifact.folder import load
from hrm_runtime.artifact.model import Model, Outputs, decisions
from hrm_runtime.errors import (
    BadInput,
    HrmError,
    InferenceFailed,
    SelfTestFailed,
    UnknownInstrument,
    UnknownTimeframe,
    Untrusted,
)
from hrm_runtime.journal.events import (
    CAUSES,
    Control,
    Controlled,
    Decided,
    Event,
    Fed,
    Line,
    Loaded,
    Taken,
)
from hrm_runtime.journal.writer import Journal
from hrm_runtime.live.dispatch import Dispatcher
from hrm_runtime.live.guards import Breaker, KillSwitch
from hrm_runtime.live.health import Health, Statistics, StreamHealth
from hrm_runtime.live.jobs import Ask, Company, Feed, Question, Series
from hrm_runtime.live.settings import LiveSettings
from hrm_runtime.log import log
from hrm_runtime.machine import resident_megabytes
from hrm_runtime.market.account import Account
from hrm_runtime.market.bars import Bar, Bars, counted

FAILURES: Final = frozenset({Reason.ERROR, Reason.NON_FINITE, Reason.DEADLINE})
"""Reasons that the breaker counts: this process failed, not its input."""

_TRIAL_CAPITAL: Final = 1e6
"""Of the account on which an artifact is tried where a stream has had none."""

_LEVELS: Final[Mapping[Reason, int]] = {
    Reason.OK: logging.DEBUG,
    Reason.WARMING_UP: logging.INFO,
    Reason.NON_FINITE: logging.ERROR,
    Reason.ERROR: logging.ERROR,
}
"""How loud a decision is; others are warnings."""


class LiveEngine:
    """Decides for many streams in one process. Every method may be called from any thread.

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
        self.settings = settings or LiveSettings()
        self._model = model
        self._kill = KillSwitch(self.settings.kill_file)
        self._breaker = Breaker(self.settings.failures)
        self._statistics = Statistics()
        self._series: dict[Line, Series] = {}
        self._changing = Lock()
        self._swapping = Lock()
        self._before: Model | None = None
        self._numbers = itertools.count(1)
        self._closed = False
        self._order = RLock()
        self._noted: set[Control] = set()
        self._journal = journal
        if journal is not None:
            loaded = Loaded(time.time(), model.id, model.contract.name, "started")
            journal.begin(self.settings.document(), loaded)
        self._dispatcher: Dispatcher[Ask | Feed] = Dispatcher(
            self._work, self.settings.workers, self.settings.batch
        )

    def __repr__(self) -> str:
        model = self._model
        told = [brief(model.contract, model.id), counted(len(self._series), "stream")]
        told += ["killed"] * (self._kill.why is not None) + ["breaker open"] * self._breaker.open
        told += ["closed"] * self._closed
        return f"LiveEngine({', '.join(told)})"

    # what the host calls

    def feed(
        self, bars: Bars | Bar | Mapping[str, Any], *, instrument: str, timeframe: str
    ) -> None:
        """Add closed bars without a decision: history at the start, or what was missed.

        They may lie before, between or after those that are there. Returns when they are in.

        Args:
            bars: `Bars`, one `Bar`, or a mapping of columns.

        Raises:
            BadBars: not bars, or one that differs from what is there.
            Untrusted: future, where one is not closed yet.
            UnknownInstrument, UnknownTimeframe: as `Model.decide`.
            InferenceFailed: the engine is closed.
        """
        if not isinstance(bars, Bars):
            bars = Bars.of_one(bars) if isinstance(bars, Bar) else Bars.of(bars)
        job = Feed(_line(instrument, timeframe), bars)
        self._dispatcher.submit(job)
        job.done.result()

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
        ask = self._ask(bar, account, instrument, timeframe)
        try:
            decision = ask.answer.result(self._left(ask))
        except TimeoutError:
            self._expire(ask)
            decision = ask.answer.result()
        finally:
            self._leave(ask)
        return self._deliver(ask, decision)

    async def decide_async(
        self,
        bar: Bar | Mapping[str, Any],
        account: Account | Mapping[str, Any],
        *,
        instrument: str,
        timeframe: str,
    ) -> Decision:
        """`decide`, awaited: the event loop goes on meanwhile."""
        ask = self._ask(bar, account, instrument, timeframe)
        timer = asyncio.get_running_loop().call_later(self._left(ask), self._expire, ask)
        try:
            decision = await asyncio.wrap_future(ask.answer)
        finally:
            timer.cancel()
            self._leave(ask)
        return self._deliver(ask, decision)

    def refuse(self, why: Exception, *, instrument: str, timeframe: str) -> Decision:
        """The HOLD of an adapter that cannot read what its host gives it: counted and logged.

        Raises:
            HrmError: `why`, with strict settings; as InferenceFailed where it is something else.
        """
        ask = Ask(None, None)
        try:
            ask.line = _line(instrument, timeframe)
        except Exception as error:  # as in decide
            why = error
        self._trouble(ask, why)
        return self._deliver(ask, ask.answer.result())

    def newest(self, *, instrument: str, timeframe: str) -> Bar | None:
        """The newest bar of a stream; None where there is none yet."""
        series = self._series.get(_line(instrument, timeframe))
        bars = None if series is None else series.stream.bars
        return None if bars is None else bars.newest()

    # what operators call

    def kill(self, why: str) -> None:
        """Answer HOLD to everything from now on, decisions on their way included."""
        self._kill.pull(str(why))
        self._note(Control.KILLED, str(why))
        log(logging.CRITICAL, "killed", why=why)

    def revive(self) -> None:
        """Trade again after a kill.

        Raises:
            BadInput: the kill file is still there.
        """
        self._kill.release()
        self._undo(Control.REVIVED, Control.KILLED)
        log(logging.CRITICAL, "revived")

    def close_breaker(self) -> None:
        """Trade again after too many failures."""
        self._breaker.close()
        self._undo(Control.BREAKER_CLOSED, Control.BREAKER_OPENED)
        log(logging.CRITICAL, "breaker closed")

    def reload(self, path: str | Path, sha256: str | None = None, threads: int = 1) -> Model:
        """Load another artifact beside the one that decides, then `use` it.

        Raises:
            DoNotStart: as `load`; the artifact before goes on deciding.
            BadInput: as `load` and `use`; likewise.
        """
        model = load(path, sha256, threads)
        self.use(model)
        return self._model

    def use(self, model: Model) -> None:
        """Decide with another artifact from the next pass on; bars and rows stay.

        It is tried on the window of every stream first, in the calling thread. Each decision
        belongs to one artifact. A bar that was answered keeps its answer. The artifact before is
        kept for `rollback`.

        Raises:
            BadInput: it needs other rows than those that are there, does not know a stream, or
                cannot decide on its window; the artifact before goes on deciding.
            InferenceFailed: onnxruntime failed on a window; likewise.
        """
        with self._swapping:
            if model.id == self._model.id:
                log(logging.WARNING, "artifact decides already", model_id=model.id)
                return
            self._try(model)
            self._swap(model, self._model, "used")

    def rollback(self) -> Model:
        """Decide with the artifact before the last `use` or `reload` again.

        Raises:
            BadInput: there is none.
        """
        with self._swapping:
            if self._before is None:
                raise BadInput("rollback: expected an artifact that decided before, found none")
            self._swap(self._before, None, "rolled back")
            return self._model

    def health(self) -> Health:
        """How everything is, with a self-test of the network made just now."""
        model, killed = self._model, self._kill.pulled()
        start = time.perf_counter()
        failed: str | None = None
        try:
            model.self_test()
        except (SelfTestFailed, InferenceFailed) as error:
            failed = str(error)
        self_test_ms = 1e3 * (time.perf_counter() - start)
        barred = killed is not None or self._breaker.open or self._closed
        return Health(
            serving=failed is None and not barred,
            model_id=model.id,
            killed=killed,
            breaker_open=self._breaker.open,
            failures=self._breaker.failures,
            self_test=failed,
            self_test_ms=self_test_ms,
            waiting=self._dispatcher.waiting,
            decisions=self._statistics.decisions,
            repeated=self._statistics.repetitions,
            latency=self._statistics.latency,
            thinking=self._statistics.thinking,
            memory_mb=resident_megabytes(),
            journal=None if self._journal is None else self._journal.health(),
            streams={line: self._stream_health(one) for line, one in list(self._series.items())},
        )

    @property
    def model(self) -> Model:
        """The artifact that decides."""
        return self._model

    def close(self) -> None:
        """Answer what waits, then end the threads. Later calls are HOLD with reason error."""
        self._closed = True
        self._dispatcher.close()
        if self._journal is not None:
            self._journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # from call to answer

    def _ask(self, bar: Any, account: Any, instrument: str, timeframe: str) -> Ask:
        ask = Ask(bar, account)
        try:
            ask.line = _line(instrument, timeframe)
            self._dispatcher.submit(ask)
        except Exception as error:  # a name may be anything
            self._trouble(ask, error)
        return ask

    def _left(self, ask: Ask) -> float:
        """Seconds until the deadline."""
        return self.settings.deadline - (time.perf_counter() - ask.started)

    def _expire(self, ask: Ask) -> None:
        self._trouble(
            ask,
            Untrusted(Reason.DEADLINE, f"expected a decision within {self.settings.deadline:g} s"),
        )

    def _leave(self, ask: Ask) -> None:
        """Stop the pass that is run for `ask` if nobody waits for it any more.

        An ask that was given up, by a cancelled task or an interrupt, counts for nothing.
        """
        ask.claim()
        if ask.company is not None and ask.company.deserted:
            ask.company.stop.set()

    def _deliver(self, ask: Ask, decision: Decision) -> Decision:
        trouble = ask.trouble
        if trouble is None or not self.settings.strict:
            return decision
        if isinstance(trouble, HrmError):
            raise trouble
        raise InferenceFailed(f"{type(trouble).__name__}: {_told(trouble)}") from trouble

    def _trouble(self, ask: Ask, error: BaseException) -> None:
        """Answer HOLD because of `error`."""
        self._answer(ask, hold(reason_of(error), self._model.id), error)

    def _answer(
        self,
        ask: Ask,
        decision: Decision,
        trouble: BaseException | None = None,
        *,
        outputs: Outputs | None = None,
        repeats: int | None = None,
    ) -> None:
        """Give `ask` its answer, unless it has one: HOLD if trading was stopped meanwhile."""
        if not ask.claim():
            return
        barred = self._barred(look=not decision.degraded)
        if barred is not None:
            decision, trouble = hold(Reason(barred.reason), decision.model_id), barred
        told = None if trouble is None else _told(trouble)
        latency_ms = 1e3 * (time.perf_counter() - ask.started)
        with self._order:  # the journal has decisions in the order of their numbers
            decision = replace(decision, latency_ms=latency_ms, sequence=next(self._numbers))
            if barred is not None:
                self._note(CAUSES[decision.reason], told or "")
            self._record(
                Decided(ask.at, ask.line, ask.stamp, ask.read, decision, told, repeats, outputs)
            )
        ask.trouble = trouble
        opened = False
        if repeats is not None:
            self._statistics.repeated()
        else:
            self._statistics.answered(decision)
            if decision.reason in FAILURES and not self._closed:
                opened = self._breaker.failed()
                self._fall_back(decision.model_id)
            elif not decision.degraded:
                self._breaker.succeeded()
        series = self._series.get(ask.line)
        if series is not None:
            series.reason = decision.reason
            series.message = told
        with suppress(InvalidStateError):  # an awaiting task may have been cancelled
            ask.answer.set_result(decision)
        self._log(ask, decision, trouble, told)
        if opened:
            self._note(Control.BREAKER_OPENED, told or "")
            log(logging.CRITICAL, "breaker opened", failures=self._breaker.limit)

    def _record(self, event: Event, bars: Bars | None = None) -> None:
        if self._journal is not None:
            self._journal.record(event, bars)

    def _note(self, what: Control, why: str) -> None:
        """Record what stops all trading, before the first decision that it makes HOLD."""
        with self._order:
            if what not in self._noted:
                self._noted.add(what)
                self._record(Controlled(time.time(), what, why=why))

    def _undo(self, what: Control, undone: Control) -> None:
        with self._order:
            self._noted.discard(undone)
            self._record(Controlled(time.time(), what))

    def _barred(self, look: bool = True) -> Untrusted | None:
        """Why nothing may be traded; with `look` the kill file is looked for."""
        killed = self._kill.pulled() if look else self._kill.why
        if killed is not None:
            return Untrusted(Reason.KILLED, f"killed: {killed}; revive() allows trading again")
        if self._breaker.open:
            return Untrusted(
                Reason.BREAKER,
                f"{self._breaker.limit} failures in a row; close_breaker() allows trading again",
            )
        return None

    def _log(
        self, ask: Ask, decision: Decision, trouble: BaseException | None, told: str | None
    ) -> None:
        unexpected = decision.reason is Reason.ERROR and not isinstance(trouble, HrmError)
        log(
            _LEVELS.get(decision.reason, logging.WARNING),
            "decision",
            trouble if unexpected else None,
            instrument=ask.line[0],
            timeframe=ask.line[1],
            sequence=decision.sequence,
            action=decision.action.name,
            quantity=decision.quantity,
            reason=decision.reason,
            latency_ms=round(decision.latency_ms, 3),
            model_id=decision.model_id,
            why=told,
        )

    # what workers do

    def _work(self, jobs: list[Ask | Feed]) -> None:
        model = self._model
        questions = []
        for job in jobs:
            if isinstance(job, Feed):
                self._take_feed(job, model.contract)
            else:
                try:
                    question = self._question(job, model)
                except BaseException as error:  # a host's objects may raise anything: HOLD
                    self._trouble(job, error)
                else:
                    questions += [question] if question else []
        if questions:
            self._infer(model, questions)

    def _take_feed(self, job: Feed, contract: Contract) -> None:
        try:
            series = self._series_of(job.line, contract)
            now = self.settings.clock()
            series.stream.feed(job.bars, now)
            self._keep(job.line, series)
            series.asked = None
            self._record(Fed(now, job.line, job.bars), series.stream.bars)
        except BaseException as error:  # raised where feed was called
            job.done.set_exception(error)
        else:
            job.done.set_result(None)

    def _question(self, ask: Ask, model: Model) -> Question | None:
        """Add the bar; what the network is asked, or None where the answer is known."""
        ask.at = now = self.settings.clock()
        series = self._taken(ask, model.contract, now)
        stream = series.stream
        ask.read = account = Account.of(ask.account)
        instrument, timeframe = ask.line
        assert stream.bars is not None
        ask.stamp = stamp = int(stream.bars.datetime[-1])
        known = series.remembered(stamp, account)
        if known is not None:
            before = known.answer.result()
            self._answer(ask, before, known.trouble, repeats=before.sequence)
            return None
        age, latest = stream.age(now), self.settings.latest(timeframe, stream.seconds)
        if not age <= latest:  # nor where the clock says NaN
            raise Untrusted(
                Reason.STALE,
                f"bar: expected one closed at most {latest:g} s ago, found {age:.1f} s; pass bars "
                "when they close, feed older ones",
            )
        series.asked, series.account = ask, account
        stream.require_window()
        barred = self._barred()
        if barred is not None:
            raise barred
        inputs = model.inputs(stream.rows, account, instrument=instrument, timeframe=timeframe)
        return Question(ask, account, inputs)

    def _taken(self, ask: Ask, contract: Contract, now: float) -> Series:
        """Add the bar; its series."""
        try:
            series = self._series_of(ask.line, contract)
            series.stream.take(ask.bar, now)
            self._keep(ask.line, series)
        except Exception as error:
            if self._journal is not None:
                given = _readable(ask.bar)
                self._record(Taken(now, ask.line, given, reason_of(error), _told(error)))
            raise
        bars = series.stream.bars
        assert bars is not None
        if self._journal is not None:
            self._record(Taken(now, ask.line, bars.newest(), Reason.OK, None), bars)
        return series

    def _infer(self, model: Model, questions: list[Question]) -> None:
        company = Company([question.ask for question in questions])
        for question in questions:
            question.ask.company = company
        questions = [question for question in questions if not question.ask.claimed]
        if not questions:
            return
        accounts = [question.account for question in questions]
        try:
            inputs = map(np.concatenate, zip(*(q.inputs for q in questions), strict=True))
            passes = model.run_segments(*inputs, stop=company.stop)
            made = decisions(passes, accounts, model.id)
            self._count(passes, made, model.contract.max_segments)
        except Exception as error:  # whatever it is, the answer is HOLD
            if len(questions) == 1:
                self._trouble(questions[0].ask, error)
            else:  # find out whose fault it is
                for question in questions:
                    self._infer(model, [question])
            return
        for row, (question, decision) in enumerate(zip(questions, made, strict=True)):
            broken = decision.reason is Reason.NON_FINITE
            trouble = Untrusted(Reason.NON_FINITE, "an output of the network is not finite")
            last = passes[decision.segments - 1]
            self._answer(
                question.ask,
                decision,
                trouble if broken else None,
                outputs={name: output[row] for name, output in last.items()},
            )

    def _count(self, passes: list[Outputs], made: list[Decision], most: int) -> None:
        for row, decision in enumerate(made):
            last = passes[decision.segments - 1]
            self._statistics.thought(
                decision.segments,
                most,
                float(last["l_residual"][row, -1, -1]),
                float(last["h_residual"][row, -1]),
            )

    def _series_of(self, line: Line, contract: Contract) -> Series:
        """The series of `line`; a new one, to be kept, where the contract allows it."""
        series = self._series.get(line)
        if series is None:
            series = Series(self.settings.stream(line, contract))
        return series

    def _try(self, model: Model) -> None:
        """Hold an artifact to what the streams need, and have it decide once on each."""
        old, new = self._model.contract, model.contract
        for name in ("history_bars", "window"):
            expected, found = getattr(old.features, name), getattr(new.features, name)
            if expected != found:
                raise BadInput(f"model: expected {name} {expected} as now, found {found}")
        for line, series in list(self._series.items()):
            self._require_known(new, line, series)
            rows = series.stream.rows
            if len(rows) < new.features.window:
                continue
            account = series.account or Account.flat(_TRIAL_CAPITAL)
            decision = model.decide_rows(rows, account, instrument=line[0], timeframe=line[1])
            if decision.degraded:
                raise BadInput(
                    f"model: expected a decision on the newest bars of {line[0]} {line[1]}, found "
                    f"{decision.reason}"
                )

    def _swap(self, model: Model, before: Model | None, why: str) -> None:
        with self._changing:
            for line, series in self._series.items():  # one may have come meanwhile
                self._require_known(model.contract, line, series)
            self._model, self._before = model, before
            self._record(Loaded(time.time(), model.id, model.contract.name, why))
        self._breaker.succeeded()  # its failures were another's
        log(logging.WARNING, "artifact", model_id=model.id, why=why)

    def _fall_back(self, failed: str) -> None:
        """Replace the artifact `failed` by the one before it, if settings ask for that."""
        limit = self.settings.rollback_after
        if limit is None or self._breaker.failures < limit:
            return
        if not self._swapping.acquire(blocking=False):  # an operator is at it
            return
        try:
            if self._before is not None and self._model.id == failed:
                self._swap(self._before, None, f"rolled back after {limit} failures")
        finally:
            self._swapping.release()

    def _keep(self, line: Line, series: Series) -> None:
        """Keep a series that has bars: names that never had one take no place."""
        if line in self._series or series.stream.bars is None:
            return
        with self._changing:
            self.settings.require_room(len(self._series))
            self._require_known(self._model.contract, line, series)
            self._series[line] = series

    @staticmethod
    def _require_known(contract: Contract, line: Line, series: Series) -> None:
        contract.instrument(line[0])
        seconds = contract.timeframe_seconds(line[1])
        if seconds != series.stream.seconds:
            raise BadInput(
                f"model: expected bars of {series.stream.seconds} s in timeframe {line[1]!r} as "
                f"now, found {seconds} s"
            )

    def _stream_health(self, series: Series) -> StreamHealth:
        bars = series.stream.bars
        assert bars is not None, "series without are not kept"
        return StreamHealth(
            newest=int(bars.datetime[-1]),
            age_s=series.stream.age(self.settings.clock()),
            bars=len(bars),
            ready=series.stream.ready,
            reason=series.reason,
            message=series.message,
        )


def _line(instrument: str, timeframe: str) -> Line:
    if not isinstance(instrument, str):
        raise UnknownInstrument(f"instrument: expected a name, found {instrument!r}")
    if not isinstance(timeframe, str):
        raise UnknownTimeframe(f"timeframe: expected a name, found {timeframe!r}")
    return str.__str__(instrument), str.__str__(timeframe)  # a subclass may compare as it likes


def _readable(bar: Any) -> Bar | None:
    """A bar as the journal may have it; None where it is none."""
    try:
        return Bars.of_one(bar).newest()
    except Exception:  # a host's objects may raise anything
        return None


def _told(error: BaseException) -> str:
    """What an error says; its name where that raises too."""
    try:
        return str(error)
    except Exception:
        return type(error).__name__
