"""What the threads of a live engine do: bars into streams, and what may be decided to the graph."""

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np

from hrm_runtime.artifact.contract import Contract
from hrm_runtime.artifact.decision import Decision, Reason, reason_of
from hrm_runtime.artifact.model import Model
from hrm_runtime.artifact.segments import Outputs, decisions
from hrm_runtime.artifact.unknown import unknown_names
from hrm_runtime.errors import Untrusted
from hrm_runtime.journal.events import Change, Fed, Line, Taken
from hrm_runtime.live.answers import Answers, told
from hrm_runtime.live.artifacts import Artifacts
from hrm_runtime.live.guards import Guards
from hrm_runtime.live.health import Statistics
from hrm_runtime.live.jobs import Ask, Company, Feed, Question
from hrm_runtime.live.recorder import Recorder
from hrm_runtime.live.settings import LiveSettings
from hrm_runtime.live.streams import Series, Streams
from hrm_runtime.log import log
from hrm_runtime.market.account import Account, doubtful_capital
from hrm_runtime.market.bars import Bar, Bars


@dataclass(frozen=True, eq=False)
class Worker:
    """Does jobs. Every thread calls it, each with jobs of lines that no other one has just now.

    So a series needs no lock, and this has none: the line is the lock. All jobs of a call belong
    to one artifact.
    """

    settings: LiveSettings
    artifacts: Artifacts
    streams: Streams
    guards: Guards
    statistics: Statistics
    recorder: Recorder
    answers: Answers

    def work(self, jobs: list[Ask | Feed]) -> None:
        """Do jobs of different lines; what is wrong with one goes to who waits for it."""
        model = self.artifacts.model
        questions = []
        for job in jobs:
            if isinstance(job, Feed):
                self._feed(job)
            else:
                try:
                    question = self._question(job, model)
                except BaseException as error:  # a host's objects may raise anything: HOLD
                    self.answers.hold(job, error)
                else:
                    questions += [question] if question else []
        if questions:
            self._infer(model, questions)

    def _feed(self, job: Feed) -> None:
        try:
            if job.change is Change.DROPPED:
                self._drop(job)
            else:
                self._change(job)
        except BaseException as error:  # raised where feed was called
            job.done.set_exception(error)
        else:
            job.done.set_result(None)

    def _change(self, job: Feed) -> None:
        """Have the bars in; what was answered at the newest is forgotten."""
        line, added = job.line, job.change is Change.ADDED
        series = self.streams.of(line, self.streams.contract) if added else self.streams.there(line)
        now = self.settings.clock()
        series.stream.change(job.change, job.bars, now)
        with self.streams.in_order(line):
            self.streams.keep(line, series)
            series.asked = None
            self.recorder.record(Fed(now, line, job.bars, job.change), series.stream.bars)
        if not added:
            _log(job)

    def _drop(self, job: Feed) -> None:
        now = self.settings.clock()
        with self.streams.dropping(job.line):
            self.recorder.record(Fed(now, job.line, job.bars, job.change))
        _log(job)

    def _question(self, ask: Ask, model: Model) -> Question | None:
        """Add the bar; what the network is asked, or None where the answer is known."""
        ask.at = now = self.settings.clock()
        series = self._taken(ask, now)
        stream = series.stream
        ask.read = account = Account.of(ask.account)
        instrument, timeframe = ask.line
        assert stream.bars is not None
        ask.stamp = stamp = int(stream.bars.datetime[-1])
        known = series.remembered(stamp, account)
        if known is not None:
            before = known.answer.result()
            self.answers.give(ask, before, known.trouble, repeats=before.sequence)
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
        barred = self.guards.barred()
        if barred is not None:
            raise barred
        inputs = model.inputs(stream.rows, account, instrument=instrument, timeframe=timeframe)
        self._doubt(ask.line, series, account, model.contract)
        return Question(ask, account, inputs)

    def _doubt(self, line: Line, series: Series, account: Account, contract: Contract) -> None:
        """Tell a host, once for each stream, that its capital may be its free cash."""
        if series.doubted:
            return
        why = doubtful_capital(account, contract.instrument(line[0]))
        if why is not None:
            series.doubted = True
            log(logging.WARNING, "capital", instrument=line[0], timeframe=line[1], why=why)

    def _taken(self, ask: Ask, now: float) -> Series:
        """Add the bar; its series.

        A new one is held to the contract that the journal has before its bar: once more where the
        artifact was exchanged meanwhile.
        """
        line, contract = ask.line, self.streams.contract
        found, bar = self._tried(ask, now)
        with self.streams.in_order(line):
            if self.streams.get(line) is None and self.streams.contract is not contract:
                found, bar = self._tried(ask, now)
            if isinstance(found, Series):
                try:
                    self.streams.keep(line, found)
                except Exception as error:  # raised when it is recorded
                    found = error
            if self.recorder.keeps:
                self._record(now, line, bar, found)
        if isinstance(found, Exception):
            raise found
        return found

    def _tried(self, ask: Ask, now: float) -> tuple[Series | Exception, Bar | None]:
        """The series that has the bar now, or why it is refused; the bar, if it can be read."""
        try:
            series = self.streams.of(ask.line, self.streams.contract)
            series.stream.take(ask.bar, now)
        except Exception as error:  # a host's objects may raise anything
            return error, _readable(ask.bar) if self.recorder.keeps else None
        assert series.stream.bars is not None
        return series, series.stream.bars.newest()

    def _record(self, now: float, line: Line, bar: Bar | None, found: Series | Exception) -> None:
        if isinstance(found, Series):
            self.recorder.record(Taken(now, line, bar, Reason.OK, None), found.stream.bars)
        else:
            self.recorder.record(Taken(now, line, bar, reason_of(found), told(found)))

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
            unknown = [unknown_names(model.contract, *question.ask.line) for question in questions]
            made = decisions(passes, accounts, model.id, unknown=unknown)
            self._count(passes, made, model.contract.max_segments)
        except Exception as error:  # whatever it is, the answer is HOLD
            if len(questions) == 1:
                self.answers.hold(questions[0].ask, error)
            else:  # find out whose fault it is
                for question in questions:
                    self._infer(model, [question])
            return
        for row, (question, decision) in enumerate(zip(questions, made, strict=True)):
            broken = decision.reason is Reason.NON_FINITE
            trouble = Untrusted(Reason.NON_FINITE, "an output of the network is not finite")
            last = passes[decision.segments - 1]
            self.answers.give(
                question.ask,
                decision,
                trouble if broken else None,
                outputs={name: output[row] for name, output in last.items()},
            )

    def _count(self, passes: list[Outputs], made: list[Decision], most: int) -> None:
        for row, decision in enumerate(made):
            last = passes[decision.segments - 1]
            self.statistics.thought(
                decision.segments,
                most,
                float(last["l_residual"][row, -1, -1]),
                float(last["h_residual"][row, -1]),
            )


def _log(job: Feed) -> None:
    """Tell of bars that took the place of others, or of all."""
    instrument, timeframe = job.line
    told: dict[str, Any] = {"bars": len(job.bars)} if len(job.bars) else {}
    event = f"stream {job.change.name.lower()}"
    log(logging.WARNING, event, instrument=instrument, timeframe=timeframe, **told)


def _readable(bar: Any) -> Bar | None:
    """A bar as the journal may have it; None where it is none."""
    try:
        return Bars.of_one(bar).newest()
    except Exception:  # a host's objects may raise anything
        return None
