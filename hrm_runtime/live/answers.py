"""How an ask of a live engine gets its one answer, and what is counted and told of it."""

import logging
import time
from collections.abc import Mapping
from concurrent.futures import InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from hrm_runtime.artifact.decision import Decision, Reason, hold, reason_of
from hrm_runtime.artifact.segments import Outputs
from hrm_runtime.errors import HrmError
from hrm_runtime.journal.events import CAUSES, Decided
from hrm_runtime.live.artifacts import Artifacts
from hrm_runtime.live.guards import Guards
from hrm_runtime.live.health import Statistics
from hrm_runtime.live.jobs import Ask
from hrm_runtime.live.recorder import Recorder
from hrm_runtime.live.streams import Streams
from hrm_runtime.log import log

FAILURES: Final = frozenset({Reason.ERROR, Reason.NON_FINITE, Reason.DEADLINE})
"""Reasons that the breaker counts: this process failed, not its input."""

_LEVELS: Final[Mapping[Reason, int]] = {
    Reason.OK: logging.DEBUG,
    Reason.WARMING_UP: logging.INFO,
    Reason.NON_FINITE: logging.ERROR,
    Reason.ERROR: logging.ERROR,
}
"""How loud a decision is; others are warnings."""


@dataclass(frozen=True, eq=False)
class Answers:
    """Answers asks: from the worker that decided, or whose deadline passed, whoever claims it.

    It has no state and no lock of its own; those of `recorder`, `statistics` and `guards` are
    taken one after another, never one within another.
    """

    artifacts: Artifacts
    streams: Streams
    guards: Guards
    statistics: Statistics
    recorder: Recorder

    def hold(self, ask: Ask, error: BaseException) -> None:
        """Answer HOLD because of `error`."""
        self.give(ask, hold(reason_of(error), self.artifacts.model.id), error)

    def give(
        self,
        ask: Ask,
        decision: Decision,
        trouble: BaseException | None = None,
        *,
        outputs: Outputs | None = None,
        repeats: int | None = None,
    ) -> None:
        """Give `ask` its answer, unless it has one: HOLD if trading was stopped meanwhile.

        Whatever fails on the way is logged, and raised where settings are strict; who waits has
        the answer that was recorded, or HOLD where none was.

        Args:
            trouble: what is raised in place of the answer where settings are strict.
            outputs: of the last pass of the graph, if one ran.
            repeats: the number of the decision that is given again.
        """
        if not ask.claim():
            return
        answer, why, opened = hold(Reason.ERROR, decision.model_id), None, False
        try:
            answer, why = self._recorded(ask, decision, trouble, outputs, repeats)
            opened = self._count(answer, repeated=repeats is not None)
            series = self.streams.get(ask.line)
            if series is not None:
                series.reason, series.message = answer.reason, why
        except Exception as error:  # a thread must answer
            ask.trouble, why = error, told(error)
            log(logging.ERROR, "answer", error, instrument=ask.line[0], timeframe=ask.line[1])
        finally:
            with suppress(InvalidStateError):  # an awaiting task may have been cancelled
                ask.answer.set_result(answer)
        _log(ask, answer, why)
        if opened:
            self.guards.opened(why or "")

    def _recorded(
        self,
        ask: Ask,
        decision: Decision,
        trouble: BaseException | None,
        outputs: Outputs | None,
        repeats: int | None,
    ) -> tuple[Decision, str | None]:
        """What is answered, numbered and recorded, and what was wrong."""
        barred = self.guards.barred(look=not decision.degraded)
        if barred is not None:
            decision, trouble = hold(Reason(barred.reason), decision.model_id), barred
        why = None if trouble is None else told(trouble)
        latency_ms = 1e3 * (time.perf_counter() - ask.started)
        with self.recorder.numbered() as sequence:
            decision = replace(decision, latency_ms=latency_ms, sequence=sequence)
            if barred is not None:
                self.recorder.stopped(CAUSES[decision.reason], why or "")
            self.recorder.record(
                Decided(ask.at, ask.line, ask.stamp, ask.read, decision, why, repeats, outputs)
            )
        ask.trouble = trouble
        return decision, why

    def _count(self, decision: Decision, repeated: bool) -> bool:
        """Count an answer; whether it opened the breaker."""
        if repeated:
            self.statistics.repeated()
            return False
        self.statistics.answered(decision)
        if decision.reason in FAILURES and not self.guards.closed:
            opened = self.guards.breaker.failed()
            self.artifacts.fall_back(decision.model_id)
            return opened
        if not decision.degraded:
            self.guards.breaker.succeeded()
        return False


def told(error: BaseException) -> str:
    """What an error says; its name where that raises too."""
    try:
        return str(error)
    except Exception:
        return type(error).__name__


def _log(ask: Ask, decision: Decision, why: str | None) -> None:
    unexpected = decision.reason is Reason.ERROR and not isinstance(ask.trouble, HrmError)
    log(
        _LEVELS.get(decision.reason, logging.WARNING),
        "decision",
        ask.trouble if unexpected else None,
        instrument=ask.line[0],
        timeframe=ask.line[1],
        sequence=decision.sequence,
        action=decision.action.name,
        quantity=decision.quantity,
        reason=decision.reason,
        latency_ms=round(decision.latency_ms, 3),
        model_id=decision.model_id,
        why=why,
    )
