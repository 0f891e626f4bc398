"""Whatever a host gives an engine, it answers, and trades only on what it can trust."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from live import ON, SAFETY_S, Clock, bar_at
from mostly import mostly
from synthetic import ACCOUNTS, random_bars

from hrm_runtime import (
    Account,
    BadInput,
    Bar,
    Bars,
    Decision,
    LiveEngine,
    LiveSettings,
    Model,
    Reason,
)
from hrm_runtime.journal.events import Line
from hrm_runtime.market.actions import LEGAL, SAFE_QUANTITY, Action

BARS = random_bars(215, seed=3)
FED = 206
TAKEN = [bar_at(BARS, number) for number in range(FED)]

SOUND = settings(
    deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
"""The same examples in every run; how long one takes is nobody's business."""


class Hostile(Mapping[str, Any]):
    """Raises whatever is asked of it."""

    def __getitem__(self, name: str) -> Any:
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("iter")

    def __len__(self) -> int:
        raise ValueError("len")

    def __bool__(self) -> bool:
        raise TypeError("bool")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("eq")

    def __hash__(self) -> int:
        raise RuntimeError("hash")

    def __repr__(self) -> str:
        raise RuntimeError("repr")

    def keys(self) -> Any:
        raise ZeroDivisionError("keys")


class HostileDict(dict[str, Any]):
    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("iter")

    def keys(self) -> Any:
        raise RuntimeError("keys")

    def items(self) -> Any:
        raise RuntimeError("items")


class HostileClass:
    """Does not even tell what it is."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


class HostileNumber:
    def __float__(self) -> float:
        raise RuntimeError("float")

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("array")


def plain() -> st.SearchStrategy[Any]:
    """Anything but bars, an account or a name that is known; it raises nothing by itself."""
    return st.one_of(
        st.none(),
        st.integers(),
        st.floats(),
        st.text(max_size=5),
        st.binary(max_size=5),
        st.lists(st.integers(), max_size=3),
        st.dictionaries(st.text(max_size=5), st.floats(), max_size=3),
        st.builds(object),
    )


def hostile() -> st.SearchStrategy[Any]:
    """As `plain`, or something that raises."""
    kinds = (Hostile, HostileDict, HostileClass, HostileNumber)
    given = st.builds(HostileDict, close=st.floats())
    return st.one_of(plain(), given, *(st.builds(kind) for kind in kinds))


VALUES = st.one_of(
    st.sampled_from([np.nan, np.inf, -np.inf, 0.0, -1.0, 1e300, 10**400, 1e-13, 2**63]),
    st.floats(),
    hostile(),
)

Edit = Callable[[Bar], Any]
"""What is given in the place of the bar that comes next."""


def edits() -> st.SearchStrategy[Edit]:
    names = st.sampled_from(Bar._fields)
    return st.one_of(
        st.just(lambda bar: bar),
        st.just(lambda bar: bar._asdict()),
        st.builds(lambda seconds: lambda bar: bar._replace(datetime=bar.datetime + seconds),
                  st.sampled_from([-3000, -300, -1, 0, 1, 60, 300, 600, 3000, 10**8])),
        st.builds(lambda name, value: lambda bar: {**bar._asdict(), name: value}, names, VALUES),
        st.builds(lambda name, value: lambda bar: bar._replace(**{name: value}), names, VALUES),
        st.builds(lambda name: lambda bar: {n: v for n, v in bar._asdict().items() if n != name},
                  names),
        st.builds(lambda name: lambda bar: {n: str(v) for n, v in bar._asdict().items()}, names),
        st.builds(lambda thing: lambda bar: thing, hostile()),
    )  # fmt: skip


def accounts() -> st.SearchStrategy[Any]:
    good = st.sampled_from([*ACCOUNTS.values(), *(vars(one) for one in ACCOUNTS.values())])
    names = st.sampled_from(list(vars(ACCOUNTS["flat"])))
    edited = st.builds(lambda one, name, value: {**vars(one), name: value},
                       st.sampled_from(list(ACCOUNTS.values())), names, VALUES)  # fmt: skip
    return mostly(good, st.one_of(edited, hostile()))


MOVED = [-1.0, 30.0, 61.0, -400.0, 900.0, 1e9, np.nan, np.inf]
"""Seconds between a bar's close and the call."""

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["next", "next", "next", "again", "newest", "before", "after"]),
        mostly(st.just(lambda bar: bar), edits(), 4),
        accounts(),
        mostly(st.just(0.0), st.sampled_from(MOVED)),
        mostly(
            st.just(ON),
            st.one_of(
                st.fixed_dictionaries({n: hostile() for n in ON}),
                st.fixed_dictionaries({
                    "instrument": st.sampled_from(["Alpha", "Beta", "unknown", ""]),
                    "timeframe": st.sampled_from(["5", "15", "1", "D", ""]),
                }),
            ),
        ),
    ),
    min_size=6,
    max_size=18,
)  # fmt: skip


def assert_safe(decision: Decision, account: Any) -> None:
    """HOLD unless all is well, and then what this account may do."""
    assert np.isfinite([decision.quantity, decision.value, *decision.probabilities]).all()
    assert decision.latency_ms >= 0.0
    if decision.reason is not Reason.OK:
        assert (decision.action, decision.quantity) == (Action.HOLD, SAFE_QUANTITY)
        assert (decision.probabilities, decision.value) == ((0.0,) * 5, 0.0)
        return
    account = Account.of(account)
    assert decision.action in LEGAL[account.side]
    assert decision.quantity > 0
    assert sum(decision.probabilities[action] for action in LEGAL[account.side]) == pytest.approx(1)


@settings(SOUND, max_examples=60)
@given(steps=STEPS)
def test_whatever_is_given_the_answer_is_safe(model: Model, steps: list[Any]) -> None:
    clock = Clock(0.0)
    of = LiveSettings(clock=clock, deadline=SAFETY_S, failures=10**6, stale_after={"15": 10**9})
    with LiveEngine(model, of) as engine:
        feed_at(engine, clock, BARS[:FED])
        taken, repeated = TAKEN.copy(), 0
        for sequence, (which, edit, account, moved, names) in enumerate(steps, 1):
            newest = engine.newest(**ON)
            assert newest is not None
            following = BARS.datetime > newest.datetime
            number = int(np.argmax(following)) if following.any() else len(BARS) - 1
            bar = {
                "next": bar_at(BARS, number),
                "again": newest,
                "newest": newest,
                "before": bar_at(BARS, max(0, number - 2)),
                "after": bar_at(BARS, min(number + 1, len(BARS) - 1)),
            }[which]
            clock.now = bar.datetime + 300 + moved
            decision = engine.decide(edit(bar), account, **names)
            assert_safe(decision, account)
            assert decision.sequence == sequence
            after = engine.newest(**ON)
            assert after is not None
            if after != taken[-1]:
                assert after.datetime > taken[-1].datetime
                taken.append(after)
            if decision.reason is Reason.OK and names == ON:
                expected = model.decide(bars_of(taken), Account.of(account), **ON)
                assert decision == expected
                assert taken[-1].datetime - taken[-2].datetime == 300
                if engine._statistics.repetitions == repeated:
                    assert clock.now - (taken[-1].datetime + 300) <= 60
            repeated = engine._statistics.repetitions
        health = engine.health()
        assert (health.serving, health.waiting) == (True, 0)
        assert sum(health.decisions.values()) + health.repeated == len(steps)


def feed_at(engine: LiveEngine, clock: Clock, bars: Bars) -> None:
    clock.now = bar_at(bars, -1).datetime + 300
    engine.feed(bars, **ON)


def bars_of(taken: list[Bar]) -> Bars:
    columns = zip(*(bar[:5] for bar in taken), strict=True)
    return Bars(*(np.array(column) for column in columns))


@settings(SOUND, max_examples=40)
@given(data=st.data())
def test_history_in_any_order_and_pieces_gives_one_decision(model: Model, data: Any) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, FED - 1), max_size=6), label="cuts"))
    pieces = list(zip([0, *cuts], [*cuts, FED], strict=True))
    order = data.draw(st.permutations(pieces), label="order")
    again = data.draw(st.lists(st.sampled_from(pieces), max_size=2), label="again")
    clock = Clock(bar_at(BARS, FED).datetime + 300)
    with LiveEngine(model, LiveSettings(clock=clock, deadline=SAFETY_S)) as engine:
        for first, last in [*order, *again]:
            engine.feed(BARS[first:last], **ON)
        found = engine.decide(bar_at(BARS, FED), ACCOUNTS["long"], **ON)
    assert found == model.decide(BARS[: FED + 1], ACCOUNTS["long"], **ON)
    assert found.reason is Reason.OK


def other_names() -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({name: plain() for name in ON})


@pytest.fixture
def one(model: Model) -> Iterator[LiveEngine]:
    """An engine for all examples: none of them changes it."""
    clock = Clock(bar_at(BARS, FED).datetime + 300)
    with LiveEngine(model, LiveSettings(clock=clock, deadline=SAFETY_S)) as engine:
        engine.feed(BARS[:FED], **ON)
        yield engine
        found = engine.decide(bar_at(BARS, FED), ACCOUNTS["long"], **ON)
    assert found == model.decide(BARS[: FED + 1], ACCOUNTS["long"], **ON)


@settings(SOUND, max_examples=100)
@given(given_=st.one_of(st.tuples(plain(), st.just(ON)), st.tuples(st.just(BARS), other_names())))
def test_what_cannot_be_fed_is_bad_input_and_changes_nothing(one: LiveEngine, given_: Any) -> None:
    bars, names = given_
    before = known(one)
    with pytest.raises(BadInput, match="expected"):
        one.feed(bars, **names)
    assert known(one) == before


def known(engine: LiveEngine) -> dict[Line, tuple[int, int]]:
    """Which bars and rows each stream has; they are replaced, never changed."""
    streams = ((line, series.stream) for line, series in engine._streams.items())
    return {line: (id(stream.bars), id(stream.rows)) for line, stream in streams}
