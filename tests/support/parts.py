"""The parts of a live engine without its threads: what is done is done by who calls."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from live import Clock

from hrm_runtime import Bars, Journal, LiveSettings, Model
from hrm_runtime.journal.events import Event, Fed, Loaded, Taken
from hrm_runtime.live.answers import Answers
from hrm_runtime.live.artifacts import Artifacts
from hrm_runtime.live.guards import Breaker, Guards, KillSwitch
from hrm_runtime.live.health import Statistics
from hrm_runtime.live.recorder import Recorder
from hrm_runtime.live.streams import Streams
from hrm_runtime.live.worker import Worker


class Kept(Journal):
    """Keeps events in a list.

    Attributes:
        events: all of them.
        bars: what a stream had after each that came with bars.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.bars: list[Bars] = []

    def record(self, event: Event, bars: Bars | None = None) -> None:
        self.events.append(event)
        self.bars += [] if bars is None else [bars]

    def told(self) -> list[str]:
        """Each event in a word or two."""
        return [_told(event) for event in self.events]


def _told(event: Event) -> str:
    if isinstance(event, Loaded):
        return event.why
    if isinstance(event, Fed):
        return f"fed {len(event.bars)}"
    if isinstance(event, Taken):
        return f"bar {event.reason}"
    return str(getattr(event, "what", "")) or f"decided {event.decision.reason}"  # type: ignore[union-attr]


def free_for_another(streams: Streams) -> bool:
    """Whether another thread may let a stream come or go just now."""

    def tried() -> bool:
        free: bool = streams._changing.acquire(False)
        if free:
            streams._changing.release()
        return free

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(tried).result()


class Parts:
    """Those of one engine, as `LiveEngine` puts them together."""

    def __init__(self, model: Model, clock: Clock, **settings: Any) -> None:
        how = LiveSettings(clock=clock, **settings)
        self.journal = Kept()
        self.recorder = Recorder(self.journal)
        self.statistics = Statistics()
        self.guards = Guards(KillSwitch(how.kill_file), Breaker(how.failures), self.recorder)
        self.streams = Streams(how, model.contract)
        self.artifacts = Artifacts(
            model, self.streams, self.guards.breaker, self.recorder, how.rollback_after
        )
        parts = self.artifacts, self.streams, self.guards, self.statistics, self.recorder
        self.answers = Answers(*parts)
        self.worker = Worker(how, *parts, self.answers)
