"""What the runtime's tests share: the frozen artifact, loaded once, and copies of it to damage."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifact_copy import ArtifactCopy
from live import BARS, BETA, ON, SAFETY_S, Clock, Live, WatchedStop
from random_windows import Windows, random_windows

from hrm_runtime import Contract, LiveEngine, LiveSettings, Model, load
from hrm_runtime.artifact.contract import FORMAT_VERSION, GOLDEN
from hrm_runtime.artifact.golden import Golden


@pytest.fixture(scope="session")
def artifact() -> Path:
    """The frozen artifact of the current format version; read it, never write to it."""
    return Path(__file__).parents[1] / "data" / f"artifact-{FORMAT_VERSION}"


@pytest.fixture(scope="session")
def model(artifact: Path) -> Model:
    return load(artifact)


@pytest.fixture(scope="session")
def contract(model: Model) -> Contract:
    return model.contract


@pytest.fixture(scope="session")
def golden(artifact: Path) -> Golden:
    return Golden.from_bytes((artifact / GOLDEN).read_bytes())


@pytest.fixture
def copy_artifact(artifact: Path, tmp_path: Path) -> ArtifactCopy:
    return ArtifactCopy(Path(shutil.copytree(artifact, tmp_path / "artifact")))


@pytest.fixture(scope="session")
def windows(model: Model) -> Windows:
    """500 windows over all sides, instruments and timeframes."""
    return random_windows(model.contract, 500, np.random.default_rng(0))


@pytest.fixture
def clock() -> Clock:
    """Stands where `random_bars` of 300 s has just closed its last bar."""
    return Clock(1_700_630_400.0)


@pytest.fixture
def live(model: Model, clock: Clock) -> Iterator[Live]:
    """Makes engines of the frozen artifact, or of another model; they are closed afterwards."""
    with ExitStack() as engines:

        def engine(of: Model = model, **settings: Any) -> LiveEngine:
            given = LiveSettings(**{"clock": clock, "deadline": SAFETY_S, **settings})
            return engines.enter_context(LiveEngine(of, given))

        yield engine


@pytest.fixture
def engine(live: Live) -> LiveEngine:
    """Fed with all but the newest of `BARS`, which has just been closed."""
    engine = live()
    engine.feed(BARS[:-1], **ON)
    return engine


@pytest.fixture
def fed(live: Live) -> Live:
    """As `live`; the engines are fed with all but the newest of `BARS`, in two streams."""

    def engine(*args: Any, **settings: Any) -> LiveEngine:
        engine = live(*args, **settings)
        engine.feed(BARS[:-1], **ON)
        engine.feed(BARS[:-1], **BETA)
        return engine

    return engine


@pytest.fixture
def watched_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stops of runs tell when they were set."""
    monkeypatch.setattr("hrm_runtime.live.jobs.Stop", WatchedStop)
