import logging
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from live import (
    BARS,
    BETA,
    FLAT,
    LINE,
    NEWEST,
    ON,
    SAFETY_S,
    Clock,
    Gate,
    Live,
    Puppet,
    account,
    answer,
    bar_at,
    changed,
    raising,
    reasons,
    set_to,
    unknown_allowed,
    with_deadline,
)

from hrm_runtime import (
    Decision,
    InferenceFailed,
    LiveEngine,
    Model,
    Reason,
    SelfTestFailed,
)
from hrm_runtime.artifact.segments import Outputs, segments_of
from hrm_runtime.live.health import BOUNDS_MS, Thinking

# health


def test_a_new_engine_is_well(live: Live, model: Model) -> None:
    health = live().health()
    assert (health.serving, health.model_id) == (True, model.id)
    assert (health.killed, health.breaker_open, health.failures) == (None, False, 0)
    assert (health.self_test, health.waiting, health.repeated) == (None, 0, 0)
    assert (health.decisions, health.streams) == ({}, {})
    assert (health.latency.count, health.latency.quantile(0.5)) == (0, None)
    assert health.thinking == Thinking()
    assert 0.0 < health.self_test_ms < 60_000.0
    assert health.memory_mb is None or 10.0 < health.memory_mb < 100_000.0


def test_health_tells_what_was_decided(fed: Live, model: Model, clock: Clock) -> None:
    engine = fed()
    found = [answer(engine, 0), answer(engine, 0), answer(engine, 1)]
    found.append(engine.decide(NEWEST, None, **BETA))  # type: ignore[arg-type]
    clock.now += 7.5
    health = engine.health()
    assert health.repeated == 1
    counted = [found[0], found[2], found[3]]
    expected = {(d.action, d.reason): 0 for d in counted}
    for decision in counted:
        expected[decision.action, decision.reason] += 1
    assert health.decisions == expected
    latencies = [decision.latency_ms for decision in counted]
    assert health.latency.count == 3
    assert health.latency.total_ms == pytest.approx(sum(latencies))
    assert health.latency.slowest_ms == max(latencies) == health.latency.quantile(1.0)
    fastest = min((bound for bound in BOUNDS_MS if bound >= min(latencies)), default=math.inf)
    assert health.latency.quantile(0.1) == min(fastest, max(latencies))
    alpha, beta = health.streams[LINE], health.streams["Beta", "5"]
    assert (alpha.newest, alpha.age_s, alpha.bars) == (NEWEST.datetime, 7.5, 205)
    assert (alpha.ready, alpha.reason, alpha.message) == (True, Reason.OK, None)
    assert (beta.ready, beta.reason) == (True, Reason.BAD_INPUT)
    assert beta.message == "account: expected an Account or a mapping, found NoneType"


def test_health_tells_of_a_stream_that_is_warming_up(live: Live) -> None:
    engine = live()
    engine.feed(BARS[-3:], **ON)
    (alpha,) = engine.health().streams.values()
    assert (alpha.bars, alpha.ready, alpha.reason, alpha.age_s) == (3, False, None, 0.0)


def test_a_name_that_never_had_a_bar_is_no_stream(live: Live) -> None:
    engine = live(streams=1)
    assert engine.decide({}, FLAT, **BETA).reason is Reason.BAD_INPUT  # type: ignore[arg-type]
    assert engine.health().streams == {}
    engine.feed(BARS[-3:], **ON)
    assert [*engine.health().streams] == [("Alpha", "5")]


def test_health_tells_how_the_network_thought(fed: Live, model: Model) -> None:
    kept: list[list[Outputs]] = []

    def keep(passes: list[Outputs]) -> list[Outputs]:
        kept.append(passes)
        return passes

    engine = fed(Puppet(model, after=keep))
    for number in range(3):
        answer(engine, number)
    segments = [int(segments_of(passes)[0]) for passes in kept]
    last = kept[-1][segments[-1] - 1]
    assert engine.health().thinking == Thinking(
        decided=3,
        segments=sum(segments),
        early=sum(count < 2 for count in segments),
        l_residual=float(last["l_residual"][0, -1, -1]),
        h_residual=float(last["h_residual"][0, -1]),
    )


def test_a_network_that_halts_early_is_counted(fed: Live, model: Model) -> None:
    def halt(outputs: Outputs) -> None:
        outputs["q_values"][:] = (0.9, 0.1)

    engine = fed(Puppet(model, after=changed(halt)))
    assert answer(engine).segments == 1
    assert (engine.health().thinking.segments, engine.health().thinking.early) == (1, 1)


def test_waiting_decisions_are_counted(fed: Live, model: Model) -> None:
    gate = Gate()
    engine = fed(Puppet(model, gate), workers=1)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(answer, engine)
        gate.wait()
        with_deadline(engine, 0.05)
        assert engine.decide(NEWEST, FLAT, **BETA).reason is Reason.DEADLINE
        assert engine.health().waiting == 1  # its bar is still to be taken in
        gate.open()
        assert first.result(SAFETY_S).reason is Reason.OK
    engine.close()
    assert engine.health().waiting == 0


def failing_self_test(model: Model, error: Exception) -> Model:
    class Sick(Puppet):
        def self_test(self) -> None:
            raise error

    return Sick(model)


@pytest.mark.parametrize("error", [SelfTestFailed("other bits"), InferenceFailed("it failed")])
def test_an_engine_whose_network_answers_otherwise_does_not_serve(
    live: Live, model: Model, error: Exception
) -> None:
    health = live(failing_self_test(model, error)).health()
    assert (health.serving, health.self_test) == (False, str(error))


@pytest.mark.parametrize(
    "trouble",
    [
        lambda engine: engine.kill("now"),
        lambda engine: engine.refuse(InferenceFailed("no"), **ON),
        lambda engine: engine.close(),
    ],
    ids=["killed", "breaker", "closed"],
)
def test_an_engine_that_would_hold_does_not_serve(
    live: Live, trouble: Callable[[LiveEngine], object]
) -> None:
    engine = live(failures=1)
    assert engine.health().serving is True
    trouble(engine)
    assert engine.health().serving is False


def test_an_engine_serves_again(live: Live) -> None:
    engine = live(failures=1)
    engine.refuse(InferenceFailed("no"), **ON)
    engine.kill("now")
    engine.close_breaker()
    assert engine.health().serving is False
    engine.revive()
    assert engine.health().serving is True


# logs

LEVELS = {
    "ok": (answer, logging.DEBUG),
    "warming_up": (lambda e: e.decide(NEWEST, FLAT, **{**ON, "timeframe": "15"}), logging.INFO),
    "stale": (lambda e: e.decide(bar_at(BARS, -2), FLAT, **ON), logging.WARNING),
    "out_of_order": (lambda e: e.decide(bar_at(BARS, -3), FLAT, **ON), logging.WARNING),
    "unknown_instrument": (
        lambda e: e.decide(NEWEST, FLAT, **{**ON, "instrument": "G"}),
        logging.WARNING,
    ),
    "error": (lambda engine: engine.refuse(InferenceFailed("no"), **ON), logging.ERROR),
}


@pytest.mark.parametrize(("ask", "level"), LEVELS.values(), ids=LEVELS)
def test_each_decision_is_logged_as_loud_as_its_reason(
    request: pytest.FixtureRequest,
    fed: Live,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    ask: Callable[[LiveEngine], Decision],
    level: int,
) -> None:
    caplog.set_level(logging.DEBUG, "hrm_runtime")
    reason = request.node.callspec.id
    engine = fed(stale_after={"15": 0} if reason == "stale" else {})
    if reason == "warming_up":
        clock.now = NEWEST.datetime + 900
    decision = ask(engine)
    engine.close()
    (record,) = caplog.records
    assert (record.name, record.levelno, record.exc_info) == ("hrm_runtime", level, None)
    assert record.hrm == {
        "event": "decision",
        "instrument": "G" if reason == "unknown_instrument" else "Alpha",
        "timeframe": "15" if reason == "warming_up" else "5",
        "sequence": decision.sequence,
        "action": decision.action.name,
        "quantity": decision.quantity,
        "reason": reason,
        "latency_ms": round(decision.latency_ms, 3),
        "model_id": engine.model.id,
        "why": record.hrm["why"],
    }
    assert (record.hrm["why"] is None) == (reason == "ok")
    assert f' reason="{reason}" latency_ms=' in record.getMessage()


def test_outputs_that_are_not_finite_are_logged_as_errors(
    fed: Live, model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    engine = fed(Puppet(model, after=set_to("value", math.nan)))
    answer(engine)
    engine.close()
    (record,) = caplog.records
    assert (record.levelno, record.hrm["reason"]) == (logging.ERROR, "non_finite")


def test_what_nobody_expected_is_logged_with_its_traceback(
    fed: Live, model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    error = ValueError("axis 3")
    engine = fed(Puppet(model, raising(error)))
    answer(engine)
    engine.close()
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    assert record.hrm["why"] == "axis 3"


def test_what_operators_do_is_logged(
    live: Live, model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "hrm_runtime")
    engine = live(failures=1)
    engine.kill("now")
    engine.revive()
    engine.refuse(InferenceFailed("no"), **ON)
    engine.close_breaker()
    engine.use(model)
    other = unknown_allowed(model)
    engine.use(other)
    engine.rollback()
    assert [(r.levelname, r.hrm) for r in caplog.records if r.hrm["event"] != "decision"] == [
        ("CRITICAL", {"event": "killed", "why": "now"}),
        ("CRITICAL", {"event": "revived"}),
        ("CRITICAL", {"event": "breaker opened", "failures": 1}),
        ("CRITICAL", {"event": "breaker closed"}),
        ("WARNING", {"event": "artifact decides already", "model_id": model.id}),
        ("WARNING", {"event": "artifact", "model_id": other.id, "why": "used"}),
        ("WARNING", {"event": "artifact", "model_id": model.id, "why": "rolled back"}),
    ]


class Broken(logging.Handler):
    """As a full disk may make one."""

    def emit(self, record: logging.LogRecord) -> None:
        raise OSError("no space left on device")


def test_a_handler_that_raises_costs_nothing(
    fed: Live, model: Model, request: pytest.FixtureRequest
) -> None:
    logger, handler = logging.getLogger("hrm_runtime"), Broken()
    logger.addHandler(handler)
    request.addfinalizer(lambda: logger.removeHandler(handler))
    engine = fed()
    assert engine.decide(None, FLAT, **ON).reason is Reason.BAD_INPUT  # type: ignore[arg-type]
    engine.kill("now")
    assert reasons(engine, 0) == ["killed"]
    engine.revive()
    assert answer(engine, 1) == model.decide(BARS, account(1), **ON)


def test_an_engine_is_silent_where_the_host_does_not_listen(
    live: Live, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    last_resort: list[logging.LogRecord] = []
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(logging, "lastResort", logging.NullHandler())
    monkeypatch.setattr(logging.lastResort, "handle", last_resort.append)
    engine = live(failures=1)
    engine.kill("now")
    engine.revive()
    found = [engine.refuse(ValueError("no"), **ON), engine.decide(None, FLAT, **ON)]  # type: ignore[arg-type]
    engine.close()
    assert [decision.reason for decision in found] == ["error", "breaker"]
    assert (last_resort, *capfd.readouterr()) == ([], "", "")
    logging.getLogger("another").warning("heard")
    assert [record.getMessage() for record in last_resort] == ["heard"]
