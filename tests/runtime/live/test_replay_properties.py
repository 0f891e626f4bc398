"""Whatever happened to an engine is equal when it is replayed."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from live import BARS, BETA, FLAT, ON, SAFETY_S, Clock, Puppet, bar_at, raising
from mostly import mostly
from replayed import FED, LONG, NOON, counts, fed
from synthetic import ACCOUNTS, scaled

from hrm_runtime import Bars, HrmError, Journal, LiveEngine, LiveSettings, Model
from hrm_runtime.live.replay import replay


class Broken:
    """An object that raises whatever is asked of it."""

    def keys(self) -> Any:
        raise ZeroDivisionError("keys")


BAD = st.sampled_from(
    [
        lambda bar: bar._replace(datetime=bar.datetime - 60),
        lambda bar: bar._replace(datetime=bar.datetime + 10**6),
        lambda bar: bar._replace(close=2 * bar.high),
        lambda bar: bar._replace(close=bar.low),
        lambda bar: {**bar._asdict(), "open": None},
        lambda bar: {**bar._asdict(), "open": "1"},
        lambda bar: {**bar._asdict(), "volume": -1},
        lambda bar: None,
        lambda bar: Broken(),
    ]
)
NAMES = st.sampled_from([ON, ON, ON, BETA, {"instrument": "Gamma", "timeframe": "5"}])
GOOD = st.sampled_from([FLAT, LONG, ACCOUNTS["short"], vars(FLAT)])
NO_ACCOUNT = st.sampled_from([None, {"capital": np.nan}])
MOVED = [1.0, 61.0, -400.0, -np.inf, 1e9, np.inf]
"""Seconds between a bar's close and the call."""
TOLD = st.tuples(
    st.just("decide"), st.integers(-2, 3), mostly(st.none(), BAD, 4),
    st.tuples(mostly(GOOD, NO_ACCOUNT), mostly(st.just(0.0), st.sampled_from(MOVED), 2), NAMES),
)  # fmt: skip
CALLS = mostly(
    TOLD,
    st.one_of(
        st.tuples(st.just("feed"), st.integers(-40, 3), st.integers(1, 45), NAMES),
        st.tuples(
            st.sampled_from(["correct", "reset"]),
            st.integers(-40, 3),
            st.integers(1, 45),
            st.sampled_from([1.0, 0.5, 1.01]),
            NAMES,
        ),
        st.tuples(st.just("drop"), NAMES),
        st.tuples(st.sampled_from(["kill", "revive", "close_breaker", "use", "fail"])),
    ),
    3,
)


def refusable(change: Callable[..., None], *bars: Bars, **names: str) -> None:
    """Change a stream's bars, or be told why not."""
    try:
        change(*bars, **names)
    except HrmError as error:
        assert "expected" in str(error)  # noqa: PT017, either is right


def call(engine: LiveEngine, others: Iterator[Model], puppet: Puppet, *what: Any) -> None:
    clock = engine.settings.clock
    known = engine.newest(**ON)
    at = FED if known is None else int(np.searchsorted(BARS.datetime, known.datetime)) + 1
    match what:
        case "decide", ahead, change, (account, moved, names):
            bar = bar_at(BARS, min(at + ahead, len(BARS) - 1))
            clock.now = bar.datetime + 300 + moved  # type: ignore[attr-defined]
            engine.decide(bar if change is None else change(bar), account, **names)
        case "feed", ahead, count, names:
            first = min(max(at + ahead, 0), len(BARS) - 1)
            clock.now = bar_at(BARS, min(at, len(BARS) - 1)).datetime + 300.0  # type: ignore[attr-defined]
            refusable(engine.feed, BARS[first : first + count], **names)
        case ("correct" | "reset") as change, ahead, count, factor, names:
            first = min(max(at + ahead, 0), len(BARS) - 1)
            clock.now = bar_at(BARS, min(at, len(BARS) - 1)).datetime + 300.0  # type: ignore[attr-defined]
            bars = scaled(BARS[first if change == "correct" else 0 : first + count], factor)
            refusable(getattr(engine, change), bars, **names)
        case "drop", names:
            refusable(engine.drop, **names)
        case ("kill",):
            engine.kill("lunch")
        case ("use",):
            puppet.before = None  # it is tried first
            engine.use(next(others))
        case ("fail",):
            puppet.before = raising(ValueError("axis 3"), times=1)
        case (name,):
            getattr(engine, name)()


@settings(
    deadline=None,
    derandomize=True,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(calls=st.lists(CALLS, min_size=4, max_size=24), file_mb=st.sampled_from([1e-6, 256]))
def test_whatever_happened_is_equal_when_it_is_replayed(
    model: Model,
    other: Model,
    tmp_path_factory: pytest.TempPathFactory,
    calls: list[Any],
    file_mb: float,
) -> None:
    folder = tmp_path_factory.mktemp("any")
    puppet = Puppet(model)
    others = iter(10 * [other, puppet])
    how = LiveSettings(clock=Clock(NOON), deadline=SAFETY_S, failures=2, streams=2)
    with LiveEngine(puppet, how, Journal(folder, file_mb=file_mb, files=1000)) as engine:
        fed(engine)
        for one in calls:
            call(engine, others, puppet, *one)
        numbers = engine.health().decisions, engine.health().repeated
    decided = sum(numbers[0].values()) + numbers[1]
    recomputed, checked, counted, lost = counts(replay(folder, [model, other]))
    assert (recomputed + checked + counted, lost) == (decided, 0)
