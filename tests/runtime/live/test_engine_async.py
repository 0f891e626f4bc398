"""Many streams awaited: the loop goes on, and what is given up or late stops its run."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
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
    bar_at,
    deadline_passes,
    in_turn,
    raising,
    unknown_allowed,
)

from hrm_runtime import Decision, InferenceFailed, Model, Reason, Untrusted
from hrm_runtime.artifact.decision import hold

pytestmark = pytest.mark.usefixtures("watched_stops")


# asyncio


def test_50_callers_await_what_one_is_told(fleet: Live, open_model: Model, series: Series) -> None:
    engine = fleet(open_model, 50, workers=4)

    async def trade() -> list[Decision]:
        return await asyncio.gather(*asked(engine, series, series))

    assert asyncio.run(trade()) == expected_of(open_model, series, series)
    assert engine.health().latency.count == 50


def test_bars_of_one_stream_are_decided_in_the_order_of_the_calls(
    fleet: Live, open_model: Model, series: Series
) -> None:
    engine, later = fleet(open_model, 1, workers=4), range(-LATER, 0)

    async def trade() -> list[Decision]:
        return await asyncio.gather(*(asked(engine, series, ["S0"], k)[0] for k in later))

    found = asyncio.run(trade())
    assert found == [expected(open_model, series["S0"], k, KINDS[0]) for k in later]
    assert [decision.sequence for decision in found] == [1, 2, 3, 4, 5]


def test_the_loop_goes_on_while_the_graph_runs(
    fleet: Live, open_model: Model, series: Series
) -> None:
    gate = Gate()
    engine = fleet(Puppet(open_model, gate), 1)

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
    fleet: Live, open_model: Model, series: Series, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = Hanging()
    engine = fleet(Puppet(open_model, hanging), 2)
    deadline_passes(monkeypatch, hanging)

    async def trade(name: str) -> Decision:
        return await asked(engine, series, [name])[0]

    assert asyncio.run(trade("S0")) == hold(Reason.DEADLINE, open_model.id)
    assert hanging.stop.was_set.is_set()
    assert engine.health().failures == 1
    assert [asyncio.run(trade("S1"))] == expected_of(open_model, series, ["S1"])


def test_an_answer_leaves_no_timer_behind(
    fleet: Live, open_model: Model, series: Series, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = fleet(open_model, 1)

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
    fleet: Live, open_model: Model, series: Series
) -> None:
    hanging = Hanging()
    engine = fleet(Puppet(open_model, hanging), 1, failures=1)

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
    fleet: Live, open_model: Model, series: Series
) -> None:
    gate = Gate()
    puppet = Puppet(open_model, gate)
    engine = fleet(puppet, 2, workers=1)

    async def trade() -> Decision:
        first, queued = await behind_a_gate(engine, gate, series, ["S1"])
        queued.cancel()
        with pytest.raises(asyncio.CancelledError):
            await queued
        gate.open()
        await first
        return await asked(engine, series, ["S1"], -LATER + 1)[0]

    found = asyncio.run(trade())
    assert found == expected(open_model, series["S1"], -LATER + 1, KINDS[1])
    assert puppet.batches == [1, 1]


def test_an_ask_given_up_by_wait_for_is_stopped(
    fleet: Live, open_model: Model, series: Series
) -> None:
    hanging = Hanging()
    engine = fleet(Puppet(open_model, hanging), 1, workers=1)

    async def trade() -> list[Decision]:
        (task,) = asked(engine, series, ["S0"])
        await asyncio.sleep(0)
        assert hanging.entered.wait(SAFETY_S)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(task, 0.001)
        return [await asked(engine, series, ["S0"])[0]]

    assert asyncio.run(trade()) == expected_of(open_model, series, ["S0"])


def test_a_loop_that_ends_leaves_the_engine_sound(
    fleet: Live, open_model: Model, series: Series
) -> None:
    hanging = Hanging()
    engine = fleet(Puppet(open_model, hanging), 2, workers=1)

    async def leave() -> None:
        asked(engine, series, ["S0"])
        await asyncio.sleep(0)
        assert hanging.entered.wait(SAFETY_S)

    asyncio.run(leave())
    assert hanging.stop.was_set.is_set()
    found = engine.decide(bar_at(series["S1"], -LATER), KINDS[1], **on("S1"))
    assert [found] == expected_of(open_model, series, ["S1"])


def test_awaited_bad_input_is_held(fleet: Live, open_model: Model) -> None:
    engine = fleet(open_model, 1)
    found = asyncio.run(engine.decide_async(None, FLAT, **on("S0")))  # type: ignore[arg-type]
    assert found == hold(Reason.BAD_INPUT, open_model.id)


def test_an_awaited_name_that_is_no_text_is_held(fleet: Live, open_model: Model) -> None:
    engine = fleet(open_model, 1)
    found = asyncio.run(engine.decide_async({}, FLAT, **on(["S0"])))  # type: ignore[arg-type]
    assert found == hold(Reason.UNKNOWN_INSTRUMENT, open_model.id)


def test_a_strict_engine_raises_where_it_is_awaited(
    fleet: Live, open_model: Model, series: Series, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = Hanging()
    engine = fleet(Puppet(open_model, hanging), 1, strict=True)
    deadline_passes(monkeypatch, hanging)
    with pytest.raises(Untrusted, match="expected a decision within 60 s") as raised:
        asyncio.run(engine.decide_async(bar_at(series["S0"], -LATER), FLAT, **on("S0")))
    assert raised.value.reason is Reason.DEADLINE


def test_bar_and_account_may_be_changed_while_their_decision_is_awaited(
    fleet: Live, open_model: Model, series: Series
) -> None:
    gate = Gate()
    engine = fleet(Puppet(open_model, gate), 2, workers=1)
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
    fleet: Live, open_model: Model, model: Model, series: Series
) -> None:
    gate, new = Gate(), replaced(model)
    engine = fleet(Puppet(open_model, gate), 1)

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


def test_what_waits_is_answered_at_the_end(fleet: Live, open_model: Model, series: Series) -> None:
    gate, names = Gate(), ["S0", "S1", "S2"]
    engine = fleet(Puppet(open_model, gate), 3, workers=2, batch=1)
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


def test_a_kill_holds_what_is_on_its_way(fleet: Live, open_model: Model, series: Series) -> None:
    gate = Gate()
    engine = fleet(Puppet(open_model, gate), 3, workers=1)

    async def trade() -> list[Decision]:
        tasks = await behind_a_gate(engine, gate, series, ["S1", "S2"])
        engine.kill("now")
        gate.open()
        return await asyncio.gather(*tasks)

    assert asyncio.run(trade()) == [hold(Reason.KILLED, open_model.id)] * 3


def test_a_batch_that_fails_counts_each_of_its_failures(
    fleet: Live, open_model: Model, series: Series
) -> None:
    gate = Gate()
    failing = raising(InferenceFailed("no"))
    puppet = Puppet(open_model, in_turn(gate, *[failing] * 9))
    engine = fleet(puppet, 5, workers=1, failures=3)

    async def trade() -> list[Decision]:
        tasks = await behind_a_gate(engine, gate, series, ["S1", "S2", "S3", "S4"])
        gate.open()
        return await asyncio.gather(*tasks)

    found = [decision.reason.value for decision in asyncio.run(trade())]
    assert found == ["ok", "error", "error", "error", "breaker"]


def test_an_ask_too_many_is_an_error(
    fleet: Live, open_model: Model, series: Series, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hrm_runtime.live.dispatch.MOST_WAITING", 1)
    gate = Gate()
    engine = fleet(Puppet(open_model, gate), 3, workers=1)

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
