import logging
from dataclasses import replace

import pytest
from live import BARS, FLAT, LINE, Clock, Puppet, unknown_allowed
from parts import Parts
from synthetic import ACCOUNTS

from hrm_runtime import BadInput, Model, UnknownInstrument


@pytest.fixture
def other(model: Model) -> Model:
    """An artifact with another id."""
    return unknown_allowed(model)


@pytest.fixture
def parts(model: Model, clock: Clock) -> Parts:
    """With a stream that can be decided for."""
    made = Parts(model, clock, failures=3, rollback_after=2)
    series = made.streams.of(LINE, model.contract)
    series.stream.feed(BARS, clock.now)
    made.streams.keep(LINE, series)
    return made


def test_what_is_used_decides_and_is_recorded(parts: Parts, model: Model, other: Model) -> None:
    artifacts = parts.artifacts
    artifacts.use(other)
    assert artifacts.model is other
    assert artifacts.rollback() is artifacts.model is model
    assert parts.journal.told() == ["used", "rolled back"]
    ids = [event.model_id for event in parts.journal.events]  # type: ignore[union-attr]
    assert ids == [other.id, model.id]
    with pytest.raises(BadInput, match="rollback: expected an artifact that decided before"):
        artifacts.rollback()


def test_what_decides_already_is_not_exchanged(parts: Parts, model: Model, other: Model) -> None:
    parts.artifacts.use(other)
    parts.artifacts.use(Puppet(other))
    assert parts.artifacts.model is other
    assert parts.artifacts.rollback() is model
    assert parts.journal.told() == ["used", "rolled back"]


@pytest.mark.parametrize(("account", "capital"), [(None, 1e6), (ACCOUNTS["long"], 750_000.0)])
def test_it_is_tried_with_the_last_account_of_a_stream(
    parts: Parts, other: Model, account: object, capital: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    series, seen = parts.streams.get(LINE), []
    assert series is not None
    series.account = replace(ACCOUNTS["long"], capital=capital) if account else None
    decide = other.decide_rows

    def watched(rows: object, account: object, **on: str) -> object:
        seen.append((rows, account, on))
        return decide(rows, account, **on)  # type: ignore[arg-type]

    monkeypatch.setattr(other, "decide_rows", watched)
    parts.artifacts.use(other)
    ((rows, found, on),) = seen
    assert rows is series.stream.rows
    assert found == (series.account or replace(FLAT, capital=1e6))
    assert on == {"instrument": "Alpha", "timeframe": "5"}


@pytest.mark.parametrize("name", ["history_bars", "window"])
def test_it_must_need_the_rows_that_there_are(parts: Parts, model: Model, name: str) -> None:
    features = replace(
        model.contract.features, **{name: getattr(model.contract.features, name) + 1}
    )
    other = unknown_allowed(model, features=features)
    with pytest.raises(BadInput, match=f"^model: expected {name} [0-9]+ as now, found [0-9]+$"):
        parts.artifacts.use(other)
    assert parts.artifacts.model is model
    assert parts.journal.events == []


def test_a_stream_that_comes_while_it_is_tried_must_be_known_too(
    parts: Parts, model: Model, clock: Clock
) -> None:
    contract = model.contract
    known = {"Alpha": contract.instruments["Alpha"]}

    def come(inputs: object, stop: object) -> None:
        series = parts.streams.of(("Beta", "5"), contract)
        series.stream.feed(BARS, clock.now)
        parts.streams.keep(("Beta", "5"), series)

    tried = Puppet(Model(replace(contract, instruments=known), "narrow", model._session), come)
    with pytest.raises(UnknownInstrument, match="found 'Beta'"):
        parts.artifacts.use(tried)
    assert parts.artifacts.model is model
    assert parts.journal.events == []


def test_failures_in_a_row_bring_back_the_one_before(
    parts: Parts, model: Model, other: Model
) -> None:
    artifacts, breaker = parts.artifacts, parts.guards.breaker
    artifacts.use(other)
    breaker.failed()
    artifacts.fall_back(other.id)
    assert artifacts.model is other
    breaker.failed()
    artifacts.fall_back(model.id)  # its last, while the other one had come already
    assert artifacts.model is other
    artifacts.fall_back(other.id)
    assert artifacts.model is model
    assert parts.journal.told() == ["used", "rolled back after 2 failures"]
    assert breaker.failures == 0


def test_it_stays_where_the_one_before_cannot_follow_a_stream(
    parts: Parts, model: Model, other: Model, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    artifacts, gamma = parts.artifacts, ("Gamma", "5")
    artifacts.use(other)
    series = parts.streams.of(gamma, other.contract)
    series.stream.feed(BARS, clock.now)
    parts.streams.keep(gamma, series)
    caplog.clear()
    with caplog.at_level(logging.ERROR, "hrm_runtime"):
        for _ in range(4):
            parts.guards.breaker.failed()
            artifacts.fall_back(other.id)
    assert artifacts.model is other
    assert parts.guards.breaker.failures == 4
    (told,) = [record.hrm for record in caplog.records]  # type: ignore[attr-defined]
    assert told == {
        "event": "artifact",
        "model_id": other.id,
        "why": "not rolled back after 2 failures: instrument: expected one of Alpha, Beta; found "
        "'Gamma', which this artifact does not know; drop the stream, then rollback()",
    }
    with parts.streams.dropping(gamma):
        pass
    assert artifacts.rollback() is model
    artifacts.use(other)
    artifacts.fall_back(other.id)
    assert artifacts.model is other  # its failures were another's
    for _ in range(2):
        parts.guards.breaker.failed()
    artifacts.fall_back(other.id)
    assert artifacts.model is model


def test_without_one_before_it_goes_on(parts: Parts, model: Model) -> None:
    for _ in range(2):
        parts.guards.breaker.failed()
    parts.artifacts.fall_back(model.id)
    assert parts.artifacts.model is model
    assert parts.guards.breaker.failures == 2


def test_nothing_falls_back_while_another_is_tried(
    parts: Parts, model: Model, other: Model
) -> None:
    artifacts = parts.artifacts
    artifacts.use(other)

    def fail(inputs: object, stop: object) -> None:
        for _ in range(2):
            parts.guards.breaker.failed()
        artifacts.fall_back(other.id)
        assert artifacts.model is other

    third = Puppet(Model(other.contract, "third", model._session), fail)
    artifacts.use(third)
    assert artifacts.model is third
    assert parts.journal.told() == ["used", "used"]
