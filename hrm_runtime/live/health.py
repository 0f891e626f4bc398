"""How a live engine is doing: counters, latencies, and one picture of everything."""

import math
import time
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from typing import Final

from hrm_runtime.artifact.decision import Decision, Reason
from hrm_runtime.artifact.model import Model
from hrm_runtime.errors import InferenceFailed, SelfTestFailed
from hrm_runtime.journal.writer import JournalHealth
from hrm_runtime.locks import reentrant
from hrm_runtime.market.actions import Action

BOUNDS_MS: Final = (1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
"""Upper bounds of the latency histogram's buckets; one more holds what is above."""


@dataclass(frozen=True, kw_only=True)
class Latency:
    """From call to answer, of decisions that are not repetitions.

    Attributes:
        buckets: how many were at most each of `BOUNDS_MS`, and how many above; not cumulative.
        total_ms: all together.
        slowest_ms: of all.
    """

    buckets: tuple[int, ...]
    total_ms: float
    slowest_ms: float

    @property
    def count(self) -> int:
        """How many."""
        return sum(self.buckets)

    def quantile(self, share: float) -> float | None:
        """The bucket bound that `share` of the latencies do not exceed; None before the first.

        Where that is the last bucket, the slowest.
        """
        needed, seen = share * self.count, 0
        for bound, count in zip((*BOUNDS_MS, math.inf), self.buckets, strict=True):
            seen += count
            if count and seen >= needed:
                return min(bound, self.slowest_ms)
        return None


@dataclass(frozen=True, kw_only=True)
class Thinking:
    """How the network came to its decisions.

    Attributes:
        decided: how many it made.
        segments: passes of the graph they took together.
        early: how many halted before `max_segments`.
        l_residual, h_residual: RMS change of the states in the last step and cycle of the last
            one; None before the first. States of RMS 1 that settle have small ones.
    """

    decided: int = 0
    segments: int = 0
    early: int = 0
    l_residual: float | None = None
    h_residual: float | None = None


@dataclass(frozen=True, kw_only=True)
class StreamHealth:
    """One stream.

    Attributes:
        newest: opening time of its newest bar, epoch seconds UTC.
        age_s: seconds since that bar was closed.
        bars: how many there are of those needed.
        ready: whether they suffice for a decision.
        reason: of its last decision.
        message: what was wrong with it.
        unknown: which of its names the artifact was not trained on and decides for as for any
            other, in words, with the closest that it knows; None where it knows both.
    """

    newest: int
    age_s: float
    bars: int
    ready: bool
    reason: Reason | None
    message: str | None
    unknown: str | None


@dataclass(frozen=True, kw_only=True)
class Health:
    """Everything an operator asks first.

    Attributes:
        serving: whether the next good bar would be decided: self-test passed, breaker closed, not
            killed, not closed.
        model_id: of the artifact that decides.
        killed: why, None where not.
        breaker_open, failures: of the breaker; failures in a row.
        self_test: what was wrong when the network was run just now on what it was loaded with;
            None where nothing was.
        self_test_ms: how long that took.
        waiting: decisions that nobody has begun.
        decisions: how many by action and reason, repetitions left out.
        repeated: how many were answered from memory.
        latency: of decisions.
        thinking: segments and residuals.
        memory_mb: of this process; None where the system does not tell.
        journal: how recording goes; None where nothing is recorded.
        streams: by instrument and timeframe, as the artifact calls it.
    """

    serving: bool
    model_id: str
    killed: str | None
    breaker_open: bool
    failures: int
    self_test: str | None
    self_test_ms: float
    waiting: int
    decisions: dict[tuple[Action, Reason], int]
    repeated: int
    latency: Latency
    thinking: Thinking
    memory_mb: float | None
    journal: JournalHealth | None
    streams: dict[tuple[str, str], StreamHealth]


class Statistics:
    """Counts decisions as they are answered. Thread-safe."""

    def __init__(self) -> None:
        self._lock = reentrant()
        self._decisions: Counter[tuple[Action, Reason]] = Counter()
        self._repeated = 0
        self._buckets = [0] * (len(BOUNDS_MS) + 1)
        self._total_ms = 0.0
        self._slowest_ms = 0.0
        self._thinking = Thinking()

    def answered(self, decision: Decision) -> None:
        """Count a decision."""
        with self._lock:
            self._decisions[decision.action, decision.reason] += 1
            self._buckets[bisect_left(BOUNDS_MS, decision.latency_ms)] += 1
            self._total_ms += decision.latency_ms
            self._slowest_ms = max(self._slowest_ms, decision.latency_ms)

    def repeated(self) -> None:
        """Count an answer from memory."""
        with self._lock:
            self._repeated += 1

    def thought(self, segments: int, most: int, l_residual: float, h_residual: float) -> None:
        """Count what the network did for one decision."""
        with self._lock:
            before = self._thinking
            self._thinking = Thinking(
                decided=before.decided + 1,
                segments=before.segments + segments,
                early=before.early + (segments < most),
                l_residual=l_residual,
                h_residual=h_residual,
            )

    @property
    def decisions(self) -> dict[tuple[Action, Reason], int]:
        """How many by action and reason."""
        with self._lock:
            return dict(self._decisions)

    @property
    def repetitions(self) -> int:
        """How many were answered from memory."""
        return self._repeated

    @property
    def latency(self) -> Latency:
        """Of the decisions so far."""
        with self._lock:
            return Latency(
                buckets=tuple(self._buckets),
                total_ms=self._total_ms,
                slowest_ms=self._slowest_ms,
            )

    @property
    def thinking(self) -> Thinking:
        """What the network did so far."""
        return self._thinking


def self_tested(model: Model) -> tuple[str | None, float]:
    """What is wrong with the network just now, if anything is, and how many ms it took to know."""
    start = time.perf_counter()
    failed: str | None = None
    try:
        model.self_test()
    except (SelfTestFailed, InferenceFailed) as error:
        failed = str(error)
    return failed, 1e3 * (time.perf_counter() - start)
