import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live import (
    BARS,
    BETA,
    FLAT,
    LINE,
    NEWEST,
    ON,
    SAFETY_S,
    After,
    Before,
    Clock,
    Gate,
    Hanging,
    Live,
    Puppet,
    account,
    answer,
    bar_at,
    changed,
    deadline_passes,
    in_turn,
    raising,
    reasons,
    set_to,
    with_deadline,
)

from hrm_runtime import (
    BadFeatures,
    BadInput,
    HrmError,
    InferenceFailed,
    LiveEngine,
    Model,
    Reason,
    Untrusted,
)
from hrm_runtime.artifact.decision import hold
from hrm_runtime.live.guards import KillSwitch
from hrm_runtime.market.actions import Action

pytestmark = pytest.mark.usefixtures("watched_stops")


# deadline


@pytest.fixture
def late(fed: Live, model: Model, monkeypatch: pytest.MonkeyPatch) -> Live:
    """Makes engines whose first decision misses its deadline."""

    def engine(**settings: Any) -> LiveEngine:
        hanging = Hanging()
        engine = fed(Puppet(model, hanging), **settings)
        deadline_passes(monkeypatch, hanging)
        return engine

    return engine


def test_a_decision_that_takes_too_long_is_held_and_its_run_is_stopped(
    fed: Live, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = Hanging()
    engine = fed(Puppet(model, hanging))
    deadline_passes(monkeypatch, hanging)
    assert answer(engine) == hold(Reason.DEADLINE, model.id)
    assert hanging.stop.was_set.is_set()
    assert answer(engine, 1) == model.decide(BARS, account(1), **ON)
    assert engine.health().decisions[Action.HOLD, Reason.DEADLINE] == 1


def test_a_stopped_run_of_the_real_graph_fails(fed: Live, model: Model) -> None:
    def stop_it(inputs: Any, stop: Any) -> None:
        stop.set()

    engine = fed(Puppet(model, stop_it))
    assert answer(engine) == hold(Reason.ERROR, model.id)
    assert "onnxruntime failed while running the graph" in str(engine.health().streams[LINE])


def test_a_missed_deadline_is_a_failure(late: Live) -> None:
    engine = late()
    assert reasons(engine, 0) == ["deadline"]
    assert engine.health().failures == 1
    assert engine.health().streams[LINE].message == "expected a decision within 60 s"


def test_a_strict_engine_raises_at_the_deadline(late: Live) -> None:
    engine = late(strict=True)
    with pytest.raises(Untrusted, match="expected a decision within 60 s") as raised:
        answer(engine)
    assert raised.value.reason is Reason.DEADLINE


def test_a_decision_whose_turn_comes_too_late_costs_no_run(fed: Live, model: Model) -> None:
    gate = Gate()
    puppet = Puppet(model, gate)
    engine = fed(puppet, workers=1)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(answer, engine)
        gate.wait()
        with_deadline(engine, 0.05)
        late = engine.decide(NEWEST, FLAT, **BETA)
        gate.open()
        assert first.result(SAFETY_S) == model.decide(BARS, account(0), **ON)
    engine.close()
    assert late == hold(Reason.DEADLINE, model.id)
    assert puppet.batches == [1]
    assert engine.newest(**BETA) == NEWEST


def test_a_repeat_of_what_came_too_late_is_the_same_answer(late: Live, model: Model) -> None:
    engine = late()
    assert answer(engine) == answer(engine) == hold(Reason.DEADLINE, model.id)
    assert (engine.health().repeated, engine.health().failures) == (1, 1)


# error


def missing(name: str) -> After:
    return changed(lambda outputs: outputs.pop(name))


FAILING: dict[str, tuple[Before | None, After | None, str]] = {
    "inference": (raising(InferenceFailed("it failed")), None, "^it failed$"),
    "ValueError": (raising(ValueError("axis 3")), None, "^axis 3$"),
    "MemoryError": (raising(MemoryError()), None, "^$"),
    "nothing": (None, lambda passes: [], "need at least one array to stack"),
    "none": (None, lambda passes: None, "object is not iterable"),  # type: ignore[dict-item, return-value]
    "no logits": (None, missing("action_type"), "action_type"),
    "no residuals": (None, missing("l_residual"), "l_residual"),
    "no q values": (None, missing("q_values"), "q_values"),
    "rows too many": (
        None,
        lambda passes: [{n: np.repeat(a, 2, axis=0) for n, a in one.items()} for one in passes],
        "zip\\(\\) argument 2 is longer",
    ),
}


@pytest.mark.parametrize(("before", "after", "told"), FAILING.values(), ids=FAILING)
def test_a_model_that_fails_is_held(
    fed: Live, model: Model, before: Before | None, after: After | None, told: str
) -> None:
    puppet = Puppet(model, before, after)
    engine = fed(puppet, failures=2)
    assert answer(engine) == hold(Reason.ERROR, model.id)
    health = engine.health()
    assert (health.failures, health.decisions) == (1, {(Action.HOLD, Reason.ERROR): 1})
    with pytest.raises(HrmError, match=told):
        raise HrmError(health.streams[LINE].message)
    puppet.before = puppet.after = None
    assert answer(engine, 1) == model.decide(BARS, account(1), **ON)


@pytest.mark.parametrize(
    ("error", "raised", "told"),
    [
        (InferenceFailed("it failed"), InferenceFailed, "^it failed$"),
        (BadFeatures("features: expected more"), BadFeatures, "^features: expected more$"),
        (ValueError("axis 3"), InferenceFailed, "^ValueError: axis 3$"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_strict_engine_raises_what_failed(
    fed: Live, model: Model, error: Exception, raised: type[Exception], told: str
) -> None:
    engine = fed(Puppet(model, raising(error)), strict=True)
    with pytest.raises(raised, match=told) as found:
        answer(engine)
    assert error in (found.value, found.value.__cause__)


def test_a_clock_that_raises_is_held(fed: Live, model: Model) -> None:
    told = iter([1_700_630_400.0] * 2)  # for the two streams that are fed
    engine = fed(clock=lambda: next(told))
    assert answer(engine) == hold(Reason.ERROR, model.id)


class Mute(Exception):
    """Cannot even say what is wrong."""

    def __str__(self) -> str:
        raise RuntimeError("str")


def test_an_error_that_cannot_be_told_is_held(fed: Live, model: Model) -> None:
    engine = fed(Puppet(model, raising(Mute())))
    assert answer(engine) == hold(Reason.ERROR, model.id)
    assert engine.health().streams[LINE].message == "Mute"


@pytest.mark.parametrize("name", ["action_type", "quantity", "q_values", "z_L_out", "h_residual"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_outputs_that_are_not_finite_are_held(
    fed: Live, model: Model, name: str, value: float
) -> None:
    engine = fed(Puppet(model, after=set_to(name, value)))
    found = answer(engine)
    assert found == hold(Reason.NON_FINITE, model.id, segments=1)
    health = engine.health()
    assert (health.failures, health.streams[LINE].reason) == (1, Reason.NON_FINITE)
    assert health.streams[LINE].message == "an output of the network is not finite"


def test_a_strict_engine_raises_where_outputs_are_not_finite(fed: Live, model: Model) -> None:
    engine = fed(Puppet(model, after=set_to("value", math.nan)), strict=True)
    with pytest.raises(Untrusted, match="an output of the network is not finite") as raised:
        answer(engine)
    assert raised.value.reason is Reason.NON_FINITE


# the breaker


@pytest.mark.parametrize("failures", [1, 2, 5])
def test_failures_in_a_row_open_the_breaker(fed: Live, model: Model, failures: int) -> None:
    puppet = Puppet(model, raising(InferenceFailed("no"), times=failures))
    engine = fed(puppet, failures=failures)
    expected = ["error"] * failures + ["breaker"] * 3
    assert reasons(engine, *range(failures + 3)) == expected
    assert len(puppet.batches) == failures  # an open breaker costs no run
    assert engine.health().streams[LINE].message == (
        f"{failures} failures in a row; close_breaker() allows trading again"
    )


def test_a_closed_breaker_trades_again_and_counts_from_0(fed: Live, model: Model) -> None:
    puppet = Puppet(model, raising(InferenceFailed("no"), times=4))
    engine = fed(puppet, failures=3)
    assert reasons(engine, 0, 1, 2, 3) == ["error", "error", "error", "breaker"]
    engine.close_breaker()
    assert reasons(engine, 4, 5) == ["error", "ok"]
    assert engine.health().failures == 0


def test_a_success_between_failures_keeps_the_breaker_closed(fed: Live, model: Model) -> None:
    no = raising(InferenceFailed("no"))
    engine = fed(Puppet(model, in_turn(no, None, no, None, no)), failures=2)
    assert reasons(engine, *range(6)) == ["error", "ok"] * 3
    assert engine.health().breaker_open is False


def test_what_is_wrong_with_the_input_neither_counts_nor_resets(fed: Live, model: Model) -> None:
    engine = fed(Puppet(model, raising(InferenceFailed("no"))), failures=2)
    assert reasons(engine, 0) == ["error"]
    for bar in (None, bar_at(BARS, -4), NEWEST._replace(datetime=NEWEST.datetime + 300)):
        assert engine.decide(bar, FLAT, **ON).degraded  # type: ignore[arg-type]
    assert engine.health().failures == 1
    assert reasons(engine, 1, 2) == ["error", "breaker"]


def test_outputs_that_are_not_finite_open_the_breaker(fed: Live, model: Model) -> None:
    engine = fed(Puppet(model, after=set_to("value", math.nan)), failures=2)
    assert reasons(engine, 0, 1, 2) == ["non_finite", "non_finite", "breaker"]


def test_missed_deadlines_open_the_breaker(late: Live) -> None:
    assert reasons(late(failures=1), 0, 1) == ["deadline", "breaker"]


def test_a_strict_engine_raises_while_the_breaker_is_open(fed: Live, model: Model) -> None:
    engine = fed(Puppet(model, raising(InferenceFailed("no"))), failures=1, strict=True)
    with pytest.raises(InferenceFailed, match="no"):
        answer(engine)
    with pytest.raises(Untrusted, match="1 failures in a row; close_breaker") as raised:
        answer(engine, 1)
    assert raised.value.reason is Reason.BREAKER


def test_what_is_on_its_way_when_the_breaker_opens_is_held(fed: Live, model: Model) -> None:
    gate = Gate()
    puppet = Puppet(model, gate)
    engine = fed(puppet, failures=1, workers=2)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(answer, engine)
        gate.wait()
        engine.refuse(InferenceFailed("no"), **BETA)
        gate.open()
        assert first.result(SAFETY_S) == hold(Reason.BREAKER, model.id)


# kill switch


def test_a_killed_engine_holds_until_it_is_revived(fed: Live, model: Model) -> None:
    puppet = Puppet(model)
    engine = fed(puppet)
    engine.kill("the news")
    assert reasons(engine, 0, 1) == ["killed", "killed"]
    assert puppet.batches == []  # and costs no run
    assert engine.health().killed == "the news"
    assert engine.health().streams[LINE].message == (
        "killed: the news; revive() allows trading again"
    )
    engine.revive()
    assert answer(engine, 2) == model.decide(BARS, account(2), **ON)


def test_a_file_kills_and_stays_a_reason_after_it_is_gone(fed: Live, tmp_path: Path) -> None:
    file = tmp_path / "KILL"
    engine = fed(kill_file=file)
    assert reasons(engine, 0) == ["ok"]
    file.touch()
    assert reasons(engine, 1) == ["killed"]
    with pytest.raises(BadInput, match=r"expected the file to be removed first: found .*KILL"):
        engine.revive()
    file.unlink()
    assert reasons(engine, 2) == ["killed"]
    assert engine.health().killed == f"found {file}"
    engine.revive()
    assert reasons(engine, 3) == ["ok"]


def test_a_file_that_cannot_be_looked_for_kills(fed: Live, tmp_path: Path) -> None:
    engine = fed(kill_file=tmp_path / "KI\0LL")
    assert reasons(engine, 0) == ["killed"]
    assert "embedded null" in (engine.health().killed or "")


def test_a_kill_while_the_file_is_looked_for_is_not_lost(
    fed: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = fed()

    def seen(switch: KillSwitch) -> None:
        monkeypatch.undo()
        engine.kill("meanwhile")

    monkeypatch.setattr(KillSwitch, "_seen", seen)
    assert reasons(engine, 0, 1) == ["killed", "killed"]


def test_a_kill_while_the_graph_runs_holds_its_decision(fed: Live, model: Model) -> None:
    engine: LiveEngine

    def kill(inputs: Any, stop: Any) -> None:
        engine.kill("meanwhile")

    engine = fed(Puppet(model, kill))
    assert answer(engine) == hold(Reason.KILLED, model.id)
    assert engine.health().decisions == {(Action.HOLD, Reason.KILLED): 1}


def test_a_file_while_the_graph_runs_holds_its_decision(
    fed: Live, model: Model, tmp_path: Path
) -> None:
    file = tmp_path / "KILL"
    engine = fed(Puppet(model, lambda inputs, stop: file.touch()), kill_file=file)
    assert answer(engine) == hold(Reason.KILLED, model.id)


def test_a_killed_engine_repeats_no_trade(fed: Live, model: Model) -> None:
    engine = fed()
    assert reasons(engine, 0) == ["ok"]
    engine.kill("now")
    assert answer(engine, 0) == hold(Reason.KILLED, model.id)
    engine.revive()
    assert answer(engine, 0) == model.decide(BARS, account(0), **ON)


def test_while_killed_nothing_is_a_failure(fed: Live, model: Model) -> None:
    engine = fed(Puppet(model, raising(InferenceFailed("no"))), failures=1)
    engine.kill("now")
    assert engine.refuse(InferenceFailed("no"), **ON).reason is Reason.KILLED
    assert (engine.health().failures, engine.health().breaker_open) == (0, False)


def test_a_killed_engine_takes_bars_in(fed: Live, model: Model, clock: Clock) -> None:
    engine = fed()
    engine.kill("now")
    assert reasons(engine, 0) == ["killed"]
    engine.revive()
    following = NEWEST._replace(datetime=NEWEST.datetime + 300)
    clock.now += 300
    assert engine.decide(following, FLAT, **ON).reason is Reason.OK


def test_a_strict_engine_raises_while_killed(fed: Live) -> None:
    engine = fed(strict=True)
    engine.kill("now")
    with pytest.raises(Untrusted, match="killed: now; revive") as raised:
        answer(engine)
    assert raised.value.reason is Reason.KILLED
