import asyncio
import threading
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import chain
from typing import Any

import pytest
from live import (
    FLAT,
    SAFETY_S,
    Gate,
    Hanging,
    Live,
    Puppet,
    account,
    bar_at,
    changed,
    deadline_passes,
    in_turn,
    raising,
    unknown_allowed,
    with_deadline,
)
from synthetic import ACCOUNTS, random_bars

from hrm_runtime import (
    Account,
    Bars,
    Decision,
    InferenceFailed,
    LiveEngine,
    Model,
    Reason,
    Untrusted,
)
from hrm_runtime.artifact.decision import hold
from hrm_runtime.artifact.model import Outputs

KINDS = list(ACCOUNTS.values())
pytestmark = pytest.mark.usefixtures("watched_stops")

LATER = 5
"""Bars of each series that are not fed but decided at."""

Series = dict[str, Bars]


@pytest.fixture(scope="module")
def open_model(model: Model) -> Model:
    """Knows every instrument."""
    return unknown_allowed(model)


@pytest.fixture(scope="module")
def series() -> Series:
    """Of 50 instruments."""
    return {f"S{number}": random_bars(205 + LATER, seed=number) for number in range(50)}


@pytest.fixture
def fed(live: Live, series: Series) -> Live:
    """As `live`; the engines are fed with all but the last bars of the first `streams`."""

    def engine(of: Model, streams: int, **settings: Any) -> LiveEngine:
        engine = live(of, stale_after={"5": 10**6}, **settings)
        for name in list(series)[:streams]:
            engine.feed(series[name][:-LATER], **on(name))
        return engine

    return engine


def on(name: str) -> dict[str, str]:
    return {"instrument": name, "timeframe": "5"}


def expected(model: Model, bars: Bars, number: int, account: Account) -> Decision:
    """What the model decides at one of the last bars."""
    return model.decide(bars[: len(bars) + number + 1], account, **on("any"))


# threads


def test_32_threads_decide_what_one_does(fed: Live, open_model: Model, series: Series) -> None:
    engine, names = fed(open_model, 32, workers=4), list(series)[:32]
    start = threading.Barrier(32)

    def trade(name: str) -> list[Decision]:
        start.wait(SAFETY_S)
        return [
            engine.decide(bar_at(series[name], number), KINDS[number % 3], **on(name))
            for number in range(-LATER, 0)
        ]

    with ThreadPoolExecutor(32) as pool:
        found = list(pool.map(trade, names))
    assert found == [
        [expected(open_model, series[n], k, KINDS[k % 3]) for k in range(-LATER, 0)] for n in names
    ]
    numbers = [[decision.sequence for decision in of_one] for of_one in found]
    assert all(of_one == sorted(of_one) for of_one in numbers)
    assert sorted(chain(*numbers)) == list(range(1, 32 * LATER + 1))
    assert {decision.reason for of_one in found for decision in of_one} == {Reason.OK}


def test_one_stream_is_never_decided_for_twice_at_once(
    fed: Live, open_model: Model, series: Series
) -> None:
    busy, crowded, start = threading.Lock(), [], threading.Barrier(16)

    def watch(inputs: Any, stop: Any) -> None:
        crowded.append(not busy.acquire(blocking=False))

    def leave(passes: list[Outputs]) -> list[Outputs]:
        busy.release()
        return passes

    engine = fed(Puppet(open_model, watch, leave), 1, workers=4)

    def ask(number: int) -> Decision:
        start.wait(SAFETY_S)
        return engine.decide(bar_at(series["S0"], -LATER), account(number), **on("S0"))

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(ask, range(16)))
    assert found == [
        expected(open_model, series["S0"], -LATER, account(number)) for number in range(16)
    ]
    assert crowded == [False] * 16


def test_identical_asks_from_many_threads_are_decided_once(
    fed: Live, open_model: Model, series: Series
) -> None:
    puppet, start = Puppet(open_model), threading.Barrier(16)
    engine = fed(puppet, 1, workers=4)

    def ask(_: int) -> Decision:
        start.wait(SAFETY_S)
        return engine.decide(bar_at(series["S0"], -LATER), FLAT, **on("S0"))

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(ask, range(16)))
    assert found == [expected(open_model, series["S0"], -LATER, FLAT)] * 16
    assert (puppet.batches, engine.health().repeated) == ([1], 15)


def test_history_fed_from_many_threads_is_all_there(
    live: Live, open_model: Model, series: Series
) -> None:
    engine, bars, start = live(open_model), series["S0"], threading.Barrier(8)

    def feed(first: int) -> None:
        start.wait(SAFETY_S)
        for number in range(first, len(bars) - 1, 8):
            engine.feed(bar_at(bars, number), **on("S0"))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(feed, range(8)))
    found = engine.decide(bar_at(bars, -1), FLAT, **on("S0"))
    assert found == expected(open_model, bars, -1, FLAT)


def test_an_interrupted_call_stops_its_run(
    fed: Live, open_model: Model, series: Series, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = Hanging()
    engine, bar = fed(Puppet(open_model, hanging), 1), bar_at(series["S0"], -LATER)

    class Interrupted(Future[Decision]):
        def result(self, timeout: float | None = None) -> Decision:
            assert hanging.entered.wait(SAFETY_S)
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("hrm_runtime.live.jobs.Future", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            engine.decide(bar, FLAT, **on("S0"))
    assert hanging.stop.was_set.is_set()
    found = engine.decide(bar, FLAT, **on("S0"))
    assert found == expected(open_model, series["S0"], -LATER, FLAT)
    assert (found.sequence, engine.health().failures) == (1, 0)


# batches


def asked(
    engine: LiveEngine, series: Series, names: Iterable[str], number: int = -LATER
) -> list[asyncio.Task[Decision]]:
    """An ask of each stream, on its way in this order once the loop has had a turn."""
    return [
        asyncio.create_task(
            engine.decide_async(bar_at(series[name], number), KINDS[int(name[1:]) % 3], **on(name))
        )
        for name in names
    ]


def expected_of(model: Model, series: Series, names: Iterable[str]) -> list[Decision]:
    return [expected(model, series[name], -LATER, KINDS[int(name[1:]) % 3]) for name in names]


async def behind_a_gate(
    engine: LiveEngine, gate: Gate, series: Series, names: list[str]
) -> list[asyncio.Task[Decision]]:
    """Asks of S0, which stands before the gate, and of `names`, which wait behind it."""
    (first,) = asked(engine, series, ["S0"])
    await asyncio.sleep(0)
    gate.wait()
    others = asked(engine, series, names)
    await asyncio.sleep(0)
    return [first, *others]


@pytest.mark.parametrize(
    ("batch", "batches"),
    [(1, [1] * 7), (2, [1, 2, 2, 2]), (4, [1, 4, 2]), (8, [1, 6])],
)
def test_decisions_made_together_are_those_made_alone(
    fed: Live, open_model: Model, series: Series, batch: int, batches: list[int]
) -> None:
    gate, names = Gate(), [f"S{number}" for number in range(7)]
    puppet = Puppet(open_model, gate)
    engine = fed(puppet, 7, workers=1, batch=batch)

    async def trade() -> list[Decision]:
        tasks = await behind_a_gate(engine, gate, series, names[1:])
        gate.open()
        return await asyncio.gather(*tasks)

    assert asyncio.run(trade()) == expected_of(open_model, series, names)
    assert puppet.batches == batches


def poisoned(inputs: Any, stop: Any) -> None:
    """Fails where an instrument with the id of Alpha is in the batch."""
    if (inputs[2] == 1).any():
        raise ValueError("poison")


def test_one_poisonous_question_does_not_spoil_the_others(
    fed: Live, open_model: Model, series: Series
) -> None:
    gate = Gate()

    def act(inputs: Any, stop: Any) -> None:
        gate(inputs, stop)
        poisoned(inputs, stop)

    puppet = Puppet(open_model, act)
    engine = fed(puppet, 3, workers=1)
    engine.feed(series["S3"][:-LATER], **on("Alpha"))

    async def trade() -> list[Decision]:
        tasks = await behind_a_gate(engine, gate, series, ["S1"])
        poison = engine.decide_async(bar_at(series["S3"], -LATER), FLAT, **on("Alpha"))
        tasks.append(asyncio.create_task(poison))
        await asyncio.sleep(0)
        tasks += asked(engine, series, ["S2"])
        await asyncio.sleep(0)
        gate.open()
        return await asyncio.gather(*tasks)

    first, second, poison, third = asyncio.run(trade())
    assert [first, second, third] == expected_of(open_model, series, ["S0", "S1", "S2"])
    assert poison == hold(Reason.ERROR, open_model.id)
    assert puppet.batches == [1, 3, 1, 1, 1]
    assert engine.health().thinking.decided == 3


def test_one_row_that_is_not_finite_does_not_spoil_the_others(
    fed: Live, open_model: Model, series: Series
) -> None:
    def spoil(outputs: Outputs) -> None:
        if len(outputs["value"]) == 3:
            outputs["value"][1] = float("nan")

    gate, names = Gate(), ["S0", "S1", "S2", "S3"]
    engine = fed(Puppet(open_model, gate, changed(spoil)), 4, workers=1)

    async def trade() -> list[Decision]:
        tasks = await behind_a_gate(engine, gate, series, names[1:])
        gate.open()
        return await asyncio.gather(*tasks)

    found, wanted = asyncio.run(trade()), expected_of(open_model, series, names)
    assert found.pop(2) == hold(Reason.NON_FINITE, open_model.id, segments=1)
    del wanted[2]
    assert found == wanted


def test_a_run_for_several_is_stopped_when_the_last_is_gone(
    fed: Live, open_model: Model, series: Series
) -> None:
    gate, hanging = Gate(), Hanging()
    engine = fed(Puppet(open_model, in_turn(gate, hanging)), 3, workers=1)

    async def trade() -> list[bool]:
        first, *others = await behind_a_gate(engine, gate, series, ["S1", "S2"])
        gate.open()
        await first
        assert hanging.entered.wait(SAFETY_S)
        stopped = []
        for task in others:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            stopped.append(hanging.stop.was_set.is_set())
        return stopped

    assert asyncio.run(trade()) == [False, True]


def test_a_deadline_missed_by_one_does_not_stop_the_run_of_another(
    fed: Live, open_model: Model, series: Series
) -> None:
    gate, second = Gate(), Gate()
    engine = fed(Puppet(open_model, in_turn(gate, second)), 3, workers=1)

    async def trade() -> tuple[Decision, Decision]:
        first, patient = await behind_a_gate(engine, gate, series, ["S1"])
        with_deadline(engine, 0.2)
        (hasty,) = asked(engine, series, ["S2"])
        await asyncio.sleep(0)
        gate.open()
        await first
        late = await hasty
        second.open()
        return late, await patient

    late, found = asyncio.run(trade())
    assert late == hold(Reason.DEADLINE, open_model.id)
    assert [found] == expected_of(open_model, series, ["S1"])


def test_other_streams_go_on_while_one_is_decided_for(
    fed: Live, open_model: Model, series: Series
) -> None:
    gate = Gate()
    engine = fed(Puppet(open_model, gate), 2, workers=2)

    async def trade() -> list[Decision]:
        (first,) = asked(engine, series, ["S0"])
        await asyncio.sleep(0)
        gate.wait()
        (queued,) = asked(engine, series, ["S0"], number=-LATER + 1)
        other = await asked(engine, series, ["S1"])[0]
        assert (first.done(), queued.done()) == (False, False)
        gate.open()
        return [other, await first, await queued]

    found = asyncio.run(trade())
    assert [decision.sequence for decision in found] == [1, 2, 3]
    assert {decision.reason for decision in found} == {Reason.OK}


# asyncio


def test_50_callers_await_what_one_is_told(fed: Live, open_model: Model, series: Series) -> None:
    engine = fed(open_model, 50, workers=4)

    async def trade() -> list[Decision]:
        return await asyncio.gather(*asked(engine, series, series))

    assert asyncio.run(trade()) == expected_of(open_model, series, series)
    assert engine.health().latency.count == 50


def test_bars_of_one_stream_are_decided_in_the_order_of_the_calls(
    fed: Live, open_model: Model, series: Series
) -> None:
    engine, later = fed(open_model, 1, workers=4), range(-LATER, 0)

    async def trade() -> list[Decision]:
        return await asyncio.gather(*(asked(engine, series, ["S0"], k)[0] for k in later))

    found = asyncio.run(trade())
    assert found == [expected(open_model, series["S0"], k, KINDS[0]) for k in later]
    assert [decision.sequence for decision in found] == [1, 2, 3, 4, 5]


def test_the_loop_goes_on_while_the_graph_runs(
    fed: Live, open_model: Model, series: Series
) -> None:
    gate = Gate()
    engine = fed(Puppet(open_model, gate), 1)

    async def trade() -> list[Decision]:
        (task,) = asked(engine, series, ["S0"])
        await asyncio.sleep(0)
        gate.wait()
        turns = [await asyncio.sleep(0, task.done()) for _ in range(100)]
        assert turns == [False] * 100
        gate.open()
        return [await task]

    assert asyncio.run(trade()) == expected_of(open_model, series, ["S0"])


def test_an_awaited_deadline_is_held_and_stops_the_run(
    fed: Live, open_model: Model, series: Series, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = Hanging()
    engine = fed(Puppet(open_model, hanging), 2)
    deadline_passes(monkeypatch, hanging)

    async def trade(name: str) -> Decision:
        return await asked(engine, series, [name])[0]

    assert asyncio.run(trade("S0")) == hold(Reason.DEADLINE, open_model.id)
    assert hanging.stop.was_set.is_set()
    assert engine.health().failures == 1
    assert [asyncio.run(trade("S1"))] == expected_of(open_model, series, ["S1"])


def test_an_answer_leaves_no_timer_behind(
    fed: Live, open_model: Model, series: Series, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = fed(open_model, 1)

    async def trade() -> list[bool]:
        loop, timers = asyncio.get_running_loop(), []
        later = loop.call_later

        def kept(*arguments: Any) -> asyncio.TimerHandle:
            timers.append(later(*arguments))
            return timers[-1]

        monkeypatch.setattr(loop, "call_later", kept)
        await asked(engine, series, ["S0"])[0]
        return [timer.cancelled() for timer in timers]

    assert asyncio.run(trade()) == [True]


def test_a_cancelled_ask_is_stopped_and_counts_for_nothing(
    fed: Live, open_model: Model, series: Series
) -> None:
    hanging = Hanging()
    engine = fed(Puppet(open_model, hanging), 1, failures=1)

    async def trade() -> list[Decision]:
        (task,) = asked(engine, series, ["S0"])
        await asyncio.sleep(0)
        assert hanging.entered.wait(SAFETY_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert hanging.stop.was_set.is_set()
        return [await asked(engine, series, ["S0"])[0]]

    found = asyncio.run(trade())
    assert found == expected_of(open_model, series, ["S0"])
    health = engine.health()
    assert (found[0].sequence, health.failures, health.repeated) == (1, 0, 0)
    assert sum(health.decisions.values()) == 1


def test_a_cancelled_ask_that_waits_costs_no_run_and_its_bar_is_taken_in(
    fed: Live, open_model: Model, series: Series
) -> None:
    gate = Gate()
    puppet = Puppet(open_model, gate)
    engine = fed(puppet, 2, workers=1)

    async def trade() -> Decision:
        first, queued = await behind_a_gate(engine, gate, series, ["S1"])
        queued.cancel()
        gate.open()
        with pytest.raises(asyncio.CancelledError):
            await queued
        await first
        return await asked(engine, series, ["S1"], -LATER + 1)[0]

    found = asyncio.run(trade())
    assert found == expected(open_model, series["S1"], -LATER + 1, KINDS[1])
    assert puppet.batches == [1, 1]


def test_an_ask_given_up_by_wait_for_is_stopped(
    fed: Live, open_model: Model, series: Series
) -> None:
    hanging = Hanging()
    engine = fed(Puppet(open_model, hanging), 1, workers=1)

    async def trade() -> list[Decision]:
        (task,) = asked(engine, series, ["S0"])
        await asyncio.sleep(0)
        assert hanging.entered.wait(SAFETY_S)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(task, 0.001)
        return [await asked(engine, series, ["S0"])[0]]

    assert asyncio.run(trade()) == expected_of(open_model, series, ["S0"])


def test_a_loop_that_ends_leaves_the_engine_sound(
    fed: Live, open_model: Model, series: Series
) -> None:
    hanging = Hanging()
    engine = fed(Puppet(open_model, hanging), 2, workers=1)

    async def leave() -> None:
        asked(engine, series, ["S0"])
        await asyncio.sleep(0)
        assert hanging.entered.wait(SAFETY_S)

    asyncio.run(leave())
    assert hanging.stop.was_set.is_set()
    found = engine.decide(bar_at(series["S1"], -LATER), KINDS[1], **on("S1"))
    assert [found] == expected_of(open_model, series, ["S1"])


def test_awaited_bad_input_is_held(fed: Live, open_model: Model) -> None:
    engine = fed(open_model, 1)
    found = asyncio.run(engine.decide_async(None, FLAT, **on("S0")))  # type: ignore[arg-type]
    assert found == hold(Reason.BAD_INPUT, open_model.id)


def test_an_awaited_name_that_is_no_text_is_held(fed: Live, open_model: Model) -> None:
    engine = fed(open_model, 1)
    found = asyncio.run(engine.decide_async({}, FLAT, **on(["S0"])))  # type: ignore[arg-type]
    assert found == hold(Reason.UNKNOWN_INSTRUMENT, open_model.id)


def test_a_strict_engine_raises_where_it_is_awaited(
    fed: Live, open_model: Model, series: Series, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = Hanging()
    engine = fed(Puppet(open_model, hanging), 1, strict=True)
    deadline_passes(monkeypatch, hanging)
    with pytest.raises(Untrusted, match="expected a decision within 60 s") as raised:
        asyncio.run(engine.decide_async(bar_at(series["S0"], -LATER), FLAT, **on("S0")))
    assert raised.value.reason is Reason.DEADLINE


def test_bar_and_account_may_be_changed_while_their_decision_is_awaited(
    fed: Live, open_model: Model, series: Series
) -> None:
    gate = Gate()
    engine = fed(Puppet(open_model, gate), 2, workers=1)
    given, account = bar_at(series["S1"], -LATER)._asdict(), dict(vars(FLAT))

    async def trade() -> Decision:
        (first,) = await behind_a_gate(engine, gate, series, [])
        task = asyncio.create_task(engine.decide_async(given, account, **on("S1")))
        await asyncio.sleep(0)
        given["close"] = account["capital"] = -1.0
        gate.open()
        await first
        return await task

    assert asyncio.run(trade()) == expected(open_model, series["S1"], -LATER, FLAT)


# what happens meanwhile


def test_an_artifact_that_comes_while_the_graph_runs_decides_next(
    fed: Live, open_model: Model, model: Model, series: Series
) -> None:
    gate, new = Gate(), replaced(model)
    engine = fed(Puppet(open_model, gate), 1)

    async def trade() -> list[Decision]:
        (first,) = await behind_a_gate(engine, gate, series, [])
        engine.use(new)
        gate.open()
        return [await first, await asked(engine, series, ["S0"], -LATER + 1)[0]]

    assert asyncio.run(trade()) == [
        expected(open_model, series["S0"], -LATER, KINDS[0]),
        expected(new, series["S0"], -LATER + 1, KINDS[0]),
    ]
    assert new.id != open_model.id


def replaced(model: Model) -> Model:
    """An artifact with another id, which answers otherwise."""
    other = unknown_allowed(model, quantity=replace(model.contract.quantity, max=4.0))
    return Model(other.contract, f"{model.id[:60]}next", model._session)


def test_what_waits_is_answered_at_the_end(fed: Live, open_model: Model, series: Series) -> None:
    gate, names = Gate(), ["S0", "S1", "S2"]
    engine = fed(Puppet(open_model, gate), 3, workers=2, batch=1)
    before = threading.active_count() - 2

    async def trade() -> list[Decision]:
        tasks = await behind_a_gate(engine, gate, series, names[1:])
        with ThreadPoolExecutor(1) as pool:
            closing = pool.submit(engine.close)
            while engine.health().serving:
                await asyncio.sleep(0)
            gate.open()
            found = await asyncio.gather(*tasks)
            closing.result(SAFETY_S)
        return found

    assert asyncio.run(trade()) == expected_of(open_model, series, names)
    assert threading.active_count() == before


def test_a_kill_holds_what_is_on_its_way(fed: Live, open_model: Model, series: Series) -> None:
    gate = Gate()
    engine = fed(Puppet(open_model, gate), 3, workers=1)

    async def trade() -> list[Decision]:
        tasks = await behind_a_gate(engine, gate, series, ["S1", "S2"])
        engine.kill("now")
        gate.open()
        return await asyncio.gather(*tasks)

    assert asyncio.run(trade()) == [hold(Reason.KILLED, open_model.id)] * 3


def test_a_batch_that_fails_counts_each_of_its_failures(
    fed: Live, open_model: Model, series: Series
) -> None:
    gate = Gate()
    failing = raising(InferenceFailed("no"))
    puppet = Puppet(open_model, in_turn(gate, *[failing] * 9))
    engine = fed(puppet, 5, workers=1, failures=3)

    async def trade() -> list[Decision]:
        tasks = await behind_a_gate(engine, gate, series, ["S1", "S2", "S3", "S4"])
        gate.open()
        return await asyncio.gather(*tasks)

    found = [decision.reason.value for decision in asyncio.run(trade())]
    assert found == ["ok", "error", "error", "error", "breaker"]


def test_an_ask_too_many_is_an_error(
    fed: Live, open_model: Model, series: Series, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hrm_runtime.live.dispatch.MOST_WAITING", 1)
    gate = Gate()
    engine = fed(Puppet(open_model, gate), 3, workers=1)

    async def trade() -> list[Decision]:
        first, queued = await behind_a_gate(engine, gate, series, ["S1"])
        too_many = await asked(engine, series, ["S2"])[0]
        gate.open()
        return [await first, await queued, too_many]

    *found, too_many = asyncio.run(trade())
    assert found == expected_of(open_model, series, ["S0", "S1"])
    assert too_many == hold(Reason.ERROR, open_model.id)
    told = engine.health().streams["S2", "5"].message
    assert told == "1 decisions wait: bars come faster than this machine decides"
