import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifact_copy import ArtifactCopy
from live import (
    BARS,
    FLAT,
    NEWEST,
    ON,
    Gate,
    Live,
    Puppet,
    answer,
    changed,
    eventually,
    in_turn,
    raising,
    reasons,
    unknown_allowed,
)

from hrm_runtime import (
    Account,
    ArtifactDamaged,
    BadInput,
    Decision,
    InferenceFailed,
    LiveEngine,
    LiveSettings,
    Model,
)


@pytest.fixture
def fed(live: Live) -> Live:
    """As `live`; the engines are fed with `BARS`."""

    def engine(*args: Any, **settings: Any) -> LiveEngine:
        made = live(*args, **settings)
        made.feed(BARS, **ON)
        return made

    return engine


@pytest.fixture
def other(model: Model) -> Model:
    """An artifact that decides otherwise."""
    return unknown_allowed(model, quantity=replace(model.contract.quantity, max=4.0))


# to another artifact


def test_a_reload_decides_with_the_artifact_of_the_folder(
    fed: Live, copy_artifact: ArtifactCopy, model: Model
) -> None:
    copy_artifact.reseal(name="another")
    engine = fed()
    loaded = engine.reload(copy_artifact.path)
    assert loaded.contract.name == "another"
    assert engine.model is loaded
    assert answer(engine).model_id == loaded.id != model.id


def test_a_reload_may_insist_on_a_hash(
    fed: Live, copy_artifact: ArtifactCopy, model: Model
) -> None:
    copy_artifact.reseal(name="another")
    engine = fed()
    with pytest.raises(ArtifactDamaged, match=f"expected the artifact {model.id}, found"):
        engine.reload(copy_artifact.path, sha256=model.id)
    assert engine.model is model
    assert answer(engine).model_id == model.id


def test_a_damaged_artifact_leaves_the_one_before(
    fed: Live, copy_artifact: ArtifactCopy, model: Model
) -> None:
    file = copy_artifact.path / "model.onnx"
    file.write_bytes(file.read_bytes()[:-1])
    engine = fed()
    with pytest.raises(ArtifactDamaged, match=r"model\.onnx: expected sha256"):
        engine.reload(copy_artifact.path)
    assert answer(engine).model_id == model.id


def test_a_reload_to_the_same_artifact_changes_nothing(
    fed: Live, artifact: Path, model: Model, other: Model
) -> None:
    engine = fed()
    engine.use(other)
    engine.use(model)
    assert engine.reload(artifact) is model
    assert engine.rollback() is other


def test_a_swap_forgets_the_failures_of_the_one_before(
    fed: Live, model: Model, other: Model
) -> None:
    engine = fed(Puppet(model, raising(InferenceFailed("no"))), failures=2)
    assert reasons(engine, 1) == ["error"]
    engine.use(other)
    assert engine.health().failures == 0


def test_an_open_breaker_stays_open_over_a_swap(fed: Live, model: Model, other: Model) -> None:
    engine = fed(Puppet(model, raising(InferenceFailed("no"))), failures=1)
    assert reasons(engine, 1) == ["error"]
    engine.use(other)
    assert reasons(engine, 2) == ["breaker"]


# what is tried first


@pytest.mark.parametrize(
    ("puppet", "error", "told"),
    [
        (
            {"before": raising(InferenceFailed("the graph failed"))},
            InferenceFailed,
            "the graph failed",
        ),
        (
            {"after": changed(lambda outputs: outputs["value"].fill(np.nan))},
            BadInput,
            "model: expected a decision on the newest bars of Alpha 5, found non_finite",
        ),
    ],
    ids=["fails", "not finite"],
)
def test_an_artifact_that_cannot_decide_on_a_window_is_refused(
    fed: Live, model: Model, other: Model, puppet: dict[str, Any], error: type[Exception], told: str
) -> None:
    engine = fed()
    with pytest.raises(error, match=told):
        engine.use(Puppet(other, **puppet))
    assert engine.model is model
    assert answer(engine).model_id == model.id


def test_a_stream_without_history_is_not_tried(live: Live, other: Model) -> None:
    engine, tried = live(), Puppet(other)
    engine.feed(BARS[:20], **ON)
    engine.use(tried)
    assert tried.batches == []
    assert engine.model is tried


def test_decisions_go_on_while_an_artifact_is_tried(fed: Live, model: Model, other: Model) -> None:
    engine, gate = fed(), Gate()
    swap = threading.Thread(target=engine.use, args=(Puppet(other, gate),))
    swap.start()
    gate.wait()
    assert answer(engine).model_id == model.id
    gate.open()
    swap.join()
    assert answer(engine, 1).model_id == other.id


# back


def test_a_rollback_decides_with_the_one_before(fed: Live, model: Model, other: Model) -> None:
    engine = fed()
    engine.use(other)
    assert answer(engine).model_id == other.id
    assert engine.rollback() is model
    assert answer(engine, 1).model_id == model.id


def test_there_is_one_step_back(fed: Live, other: Model) -> None:
    engine = fed()
    with pytest.raises(BadInput, match="rollback: expected an artifact that decided before"):
        engine.rollback()
    engine.use(other)
    engine.rollback()
    with pytest.raises(BadInput, match="rollback: expected an artifact that decided before"):
        engine.rollback()


def failing(other: Model) -> Puppet:
    """Decides when it is tried, then never."""
    return Puppet(other, in_turn(None, *[raising(InferenceFailed("no"))] * 20))


def test_failures_bring_back_the_one_before(fed: Live, model: Model, other: Model) -> None:
    engine = fed(failures=3, rollback_after=2)
    engine.use(failing(other))
    assert reasons(engine, 1, 2, 3) == ["error", "error", "ok"]
    assert engine.model is model
    assert (engine.health().failures, engine.health().breaker_open) == (0, False)


def test_failures_of_the_first_artifact_open_the_breaker(fed: Live, model: Model) -> None:
    engine = fed(Puppet(model, raising(InferenceFailed("no"))), failures=3, rollback_after=2)
    assert reasons(engine, 1, 2, 3, 4) == ["error", "error", "error", "breaker"]


def test_failures_after_a_rollback_open_the_breaker(fed: Live, model: Model, other: Model) -> None:
    first = Puppet(model, raising(InferenceFailed("no")))
    engine = fed(first, failures=3, rollback_after=1)
    engine.use(failing(other))
    assert reasons(engine, 1) == ["error"]
    assert engine.model is first
    assert reasons(engine, 2, 3, 4, 5) == ["error", "error", "error", "breaker"]


def test_failures_are_held_where_the_one_before_cannot_follow_a_stream(
    fed: Live, other: Model
) -> None:
    engine = fed(failures=3, rollback_after=1)
    new = unknown_allowed(other)
    engine.use(puppet := failing(new))
    engine.feed(BARS, instrument="Gamma", timeframe="5")
    assert reasons(engine, 1, 2, 3, 4) == ["error", "error", "error", "breaker"]
    assert engine.model is puppet


def test_without_the_setting_nothing_is_rolled_back(fed: Live, other: Model) -> None:
    engine, new = fed(failures=3), failing(other)
    engine.use(new)
    assert reasons(engine, 1, 2, 3, 4) == ["error", "error", "error", "breaker"]
    assert engine.model is new


def test_no_rollback_waits_for_an_operator_at_work(fed: Live, model: Model, other: Model) -> None:
    engine, new, gate = fed(failures=9, rollback_after=1), failing(other), Gate()
    engine.use(new)
    third = Puppet(unknown_allowed(model, name="third"), gate)
    third.id = "third"
    swap = threading.Thread(target=engine.use, args=(third,))
    swap.start()
    gate.wait()
    assert reasons(engine, 1) == ["error"]
    assert engine.model is new
    gate.open()
    swap.join()
    assert engine.model is third


@pytest.mark.parametrize("after", [0, 3, 4, 1.0, True])
def test_a_rollback_must_come_before_the_breaker(after: Any) -> None:
    told = r"rollback_after: expected at least 1 and less than failures \(3\), found"
    with pytest.raises(BadInput, match=told):
        LiveSettings(failures=3, rollback_after=after)


# many


def test_each_decision_belongs_to_one_artifact(fed: Live, model: Model, other: Model) -> None:
    engine = fed(workers=2)
    accounts = [replace(FLAT, capital=1000.0 + number) for number in range(8)]
    expected = {
        (one.capital, made.id): made.decide(BARS, one, **ON)
        for made in (model, other)
        for one in accounts
    }
    ended = threading.Event()
    found: list[tuple[float, Decision]] = []

    def decide(account: Account) -> None:
        while not ended.is_set():
            found.append((account.capital, engine.decide(NEWEST, account, **ON)))

    callers = [threading.Thread(target=decide, args=(account,)) for account in accounts]
    for caller in callers:
        caller.start()
    for made in (other, model) * 5:
        engine.use(made)
        start = len(found)
        eventually(lambda made=made, start=start: made.id in {d.model_id for _, d in found[start:]})  # type: ignore[misc]
    ended.set()
    for caller in callers:
        caller.join()
    assert [decision for _, decision in found] == [
        expected[capital, decision.model_id] for capital, decision in found
    ]
