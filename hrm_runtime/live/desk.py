"""Where a host's call becomes a job in a line, and its answer, in time or not, comes back."""

import asyncio
from collections.abc import Mapping
from typing import Any

from hrm_runtime.artifact.decision import Decision, Reason
from hrm_runtime.errors import HrmError, InferenceFailed, Untrusted
from hrm_runtime.journal.events import Change
from hrm_runtime.live.answers import Answers, told
from hrm_runtime.live.dispatch import Dispatcher
from hrm_runtime.live.jobs import Ask, Feed, line_of
from hrm_runtime.live.streams import Streams
from hrm_runtime.market.bars import Bar, Bars


class Desk:
    """Takes calls from any thread; each waits for its own job and shares nothing with others.

    Args:
        dispatcher: of the threads that do the jobs.
        streams: say which of them names mean.
        answers: for those that no thread can do, or not in time.
        deadline: seconds from call to answer.
        strict: raise what is wrong instead of answering HOLD.
    """

    def __init__(
        self,
        dispatcher: Dispatcher[Ask | Feed],
        streams: Streams,
        answers: Answers,
        deadline: float,
        strict: bool,
    ) -> None:
        self._dispatcher = dispatcher
        self._streams = streams
        self._answers = answers
        self._deadline = deadline
        self._strict = strict

    def feed(
        self,
        bars: Bars | Bar | Mapping[str, Any],
        instrument: str,
        timeframe: str,
        change: Change = Change.ADDED,
    ) -> None:
        """Have a stream's bars changed; returns when they are, or raises why they are not."""
        if not isinstance(bars, Bars):
            bars = Bars.of_one(bars) if isinstance(bars, Bar) else Bars.of(bars)
        job = Feed(self._streams.meant(line_of(instrument, timeframe)), bars, change)
        self._dispatcher.submit(job)
        job.done.result()

    def decide(self, bar: Any, account: Any, instrument: str, timeframe: str) -> Decision:
        """Have it decided, and wait until the deadline at most."""
        ask = self._ask(bar, account, instrument, timeframe)
        try:
            decision = ask.answer.result(ask.left(self._deadline))
        except TimeoutError:
            self._expire(ask)
            decision = ask.answer.result()
        finally:
            ask.leave()
        return self._deliver(ask, decision)

    async def decide_async(
        self, bar: Any, account: Any, instrument: str, timeframe: str
    ) -> Decision:
        """`decide`, awaited."""
        ask = self._ask(bar, account, instrument, timeframe)
        left = ask.left(self._deadline)
        timer = asyncio.get_running_loop().call_later(left, self._expire, ask)
        try:
            decision = await asyncio.wrap_future(ask.answer)
        finally:
            timer.cancel()
            ask.leave()
        return self._deliver(ask, decision)

    def refuse(self, why: Exception, instrument: str, timeframe: str) -> Decision:
        """The HOLD of what never became a job."""
        ask = Ask(None, None)
        try:
            ask.line = self._streams.meant(line_of(instrument, timeframe))
        except Exception as error:  # as in decide
            why = error
        self._answers.hold(ask, why)
        return self._deliver(ask, ask.answer.result())

    def _ask(self, bar: Any, account: Any, instrument: str, timeframe: str) -> Ask:
        ask = Ask(bar, account)
        try:
            ask.line = self._streams.meant(line_of(instrument, timeframe))
            self._dispatcher.submit(ask)
        except Exception as error:  # a name may be anything
            self._answers.hold(ask, error)
        return ask

    def _expire(self, ask: Ask) -> None:
        expected = f"expected a decision within {self._deadline:g} s"
        self._answers.hold(ask, Untrusted(Reason.DEADLINE, expected))

    def _deliver(self, ask: Ask, decision: Decision) -> Decision:
        trouble = ask.trouble
        if trouble is None or not self._strict:
            return decision
        if isinstance(trouble, HrmError):
            raise trouble
        raise InferenceFailed(f"{type(trouble).__name__}: {told(trouble)}") from trouble
