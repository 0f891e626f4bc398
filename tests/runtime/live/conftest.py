"""What tests here share: engines of an agent, of many streams, or with a journal, and journals."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from artifact_copy import ArtifactCopy
from fleet import LATER as FLEET_LATER
from fleet import Series, on
from host import BARS as OBSERVED
from host import LATER, Start
from live import (
    BARS,
    BETA,
    FLAT,
    ON,
    SAFETY_S,
    Clock,
    Hanging,
    Live,
    Puppet,
    bar_at,
    deadline_passes,
    unknown_allowed,
)
from replayed import FED, LONG, NOON, Record, fed, tell
from synthetic import random_bars

from hrm_runtime import Bars, Journal, LiveEngine, LiveSettings, Model, load
from hrm_runtime.live.jobs import Ask


@pytest.fixture
def start(live: Live, model: Model) -> Start:
    """Makes engines that have seen `bars`."""

    def started(bars: Bars = OBSERVED, of: Model = model, **settings: Any) -> LiveEngine:
        engine = live(of, **{"clock": LATER, "stale_after": {"5": 1e9}, **settings})
        engine.feed(bars, **ON)
        return engine

    return started


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def record(model: Model, clock: Clock, folder: Path) -> Iterator[Record]:
    """Makes engines that write to `folder`; they are closed afterwards."""
    with ExitStack() as engines:

        def engine(
            of: Model = model, files: dict[str, Any] | None = None, **how: Any
        ) -> LiveEngine:
            made = LiveSettings(**{"clock": clock, "deadline": SAFETY_S, "workers": 1, **how})
            return engines.enter_context(LiveEngine(of, made, Journal(folder, **files or {})))

        yield engine


@pytest.fixture(scope="session")
def other(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The same network under another name, hence with another id."""
    copy = ArtifactCopy(Path(shutil.copytree(artifact, tmp_path_factory.mktemp("other") / "of")))
    copy.reseal(name="other")
    return load(copy.path)


@pytest.fixture
def late(
    record: Record, model: Model, folder: Path, watched_stops: None, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A journal whose first decision missed its deadline, and its repeat."""
    hanging = Hanging()
    with record(Puppet(model, hanging), deadline=1e-6) as engine:
        fed(engine)
        deadline_passes(monkeypatch, hanging)
        left, calls = Ask.left, iter([True])
        monkeypatch.setattr(Ask, "left", lambda *of: left(*of) if next(calls, False) else SAFETY_S)
        made = [tell(engine, bar_at(BARS, FED), account) for account in (FLAT, FLAT, LONG)]
    assert [one.reason for one in made] == ["deadline", "deadline", "ok"]
    return folder


@pytest.fixture(scope="session")
def story(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal in which most things happen once; the numbers are of its events.

    1 artifact, 2 feed, 3 and 4 a decision, 5 and 6 its repeat, 7 and 8 another, 9 and 10 a gap,
    11 and 12 out of order, 13 and 14 stale, 15 a kill, 16 and 17 killed, 18 revived, 19 and 20
    warming up, 21 and 22 an account that cannot be read.
    """
    folder = tmp_path_factory.mktemp("story") / "journal"
    clock = Clock(NOON)
    how = LiveSettings(clock=clock, deadline=SAFETY_S, workers=1)
    with LiveEngine(model, how, Journal(folder)) as engine:
        fed(engine)
        made = [tell(engine, bar_at(BARS, number)) for number in (FED, FED)]
        made += [tell(engine, bar_at(BARS, FED + 1), LONG)]
        made += [tell(engine, bar_at(BARS, FED + number)) for number in (3, 2)]
        clock.now = bar_at(BARS, FED + 4).datetime + 300.0 + 100.0
        made += [engine.decide(bar_at(BARS, FED + 4), FLAT, **ON)]
        engine.kill("lunch")
        made += [tell(engine, bar_at(BARS, FED + 5))]
        engine.revive()
        made += [tell(engine, bar_at(BARS, FED + 6), **BETA)]
        made += [tell(engine, bar_at(BARS, FED + 6), None)]
    assert [one.reason.value for one in made] == [
        "ok", "ok", "ok", "gap", "out_of_order", "stale", "killed", "warming_up", "bad_input",
    ]  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def open_model(model: Model) -> Model:
    """Knows every instrument."""
    return unknown_allowed(model)


@pytest.fixture(scope="session")
def series() -> Series:
    """Of 50 instruments."""
    return {f"S{number}": random_bars(205 + FLEET_LATER, seed=number) for number in range(50)}


@pytest.fixture
def fleet(live: Live, series: Series) -> Live:
    """As `live`; the engines are fed with all but the last bars of the first `streams`."""

    def engine(of: Model, streams: int, **settings: Any) -> LiveEngine:
        engine = live(of, stale_after={"5": 10**6}, **settings)
        for name in list(series)[:streams]:
            engine.feed(series[name][:-FLEET_LATER], **on(name))
        return engine

    return engine
