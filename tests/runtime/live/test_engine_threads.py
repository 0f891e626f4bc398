"""Many streams from many threads, decided together and one after another."""

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from typing import Any

import pytest
from fleet import KINDS, LATER, Series, asked, behind_a_gate, expected, expected_of, on
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
    in_turn,
    with_deadline,
)

from hrm_runtime import Decision, Model, Reason
from hrm_runtime.artifact.decision import hold
from hrm_runtime.artifact.segments import Outputs

pytestmark = pytest.mark.usefixtures("watched_stops")


# threads


def test_32_threads_decide_what_one_does(fleet: Live, open_model: Model, series: Series) -> None:
    engine, names = fleet(open_model, 32, workers=4), list(series)[:32]
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
    fleet: Live, open_model: Model, series: Series
) -> None:
    busy, crowded, start = threading.Lock(), [], threading.Barrier(16)

    def watch(inputs: Any, stop: Any) -> None:
        crowded.append(not busy.acquire(blocking=False))

    def leave(passes: list[Outputs]) -> list[Outputs]:
        busy.release()
        return passes

    engine = fleet(Puppet(open_model, watch, leave), 1, workers=4)

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
    fleet: Live, open_model: Model, series: Series
) -> None:
    puppet, start = Puppet(open_model), threading.Barrier(16)
    engine = fleet(puppet, 1, workers=4)

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
    fleet: Live, open_model: Model, series: Series, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = Hanging()
    engine, bar = fleet(Puppet(open_model, hanging), 1), bar_at(series["S0"], -LATER)

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


@pytest.mark.parametrize(
    ("batch", "batches"),
    [(1, [1] * 7), (2, [1, 2, 2, 2]), (4, [1, 4, 2]), (8, [1, 6])],
)
def test_decisions_made_together_are_those_made_alone(
    fleet: Live, open_model: Model, series: Series, batch: int, batches: list[int]
) -> None:
    gate, names = Gate(), [f"S{number}" for number in range(7)]
    puppet = Puppet(open_model, gate)
    engine = fleet(puppet, 7, workers=1, batch=batch)

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
    fleet: Live, open_model: Model, series: Series
) -> None:
    gate = Gate()

    def act(inputs: Any, stop: Any) -> None:
        gate(inputs, stop)
        poisoned(inputs, stop)

    puppet = Puppet(open_model, act)
    engine = fleet(puppet, 3, workers=1)
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
    fleet: Live, open_model: Model, series: Series
) -> None:
    def spoil(outputs: Outputs) -> None:
        if len(outputs["value"]) == 3:
            outputs["value"][1] = float("nan")

    gate, names = Gate(), ["S0", "S1", "S2", "S3"]
    engine = fleet(Puppet(open_model, gate, changed(spoil)), 4, workers=1)

    async def trade() -> list[Decision]:
        tasks = await behind_a_gate(engine, gate, series, names[1:])
        gate.open()
        return await asyncio.gather(*tasks)

    found, wanted = asyncio.run(trade()), expected_of(open_model, series, names)
    assert found.pop(2) == hold(Reason.NON_FINITE, open_model.id, segments=1)
    del wanted[2]
    assert found == wanted


def test_a_run_for_several_is_stopped_when_the_last_is_gone(
    fleet: Live, open_model: Model, series: Series
) -> None:
    gate, hanging = Gate(), Hanging()
    engine = fleet(Puppet(open_model, in_turn(gate, hanging)), 3, workers=1)

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
    fleet: Live, open_model: Model, series: Series
) -> None:
    gate, second = Gate(), Gate()
    engine = fleet(Puppet(open_model, in_turn(gate, second)), 3, workers=1)

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
    fleet: Live, open_model: Model, series: Series
) -> None:
    gate = Gate()
    engine = fleet(Puppet(open_model, gate), 2, workers=2)

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
