"""The frozen artifact behind the host's agent interface, with observations as the host makes them.

All bars are closed and none is ever stale here: what time does is the engine's.
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from artifact_copy import ArtifactCopy
from host import BARS, Start, agent_of, in_float32, normalised, observed
from live import FLAT, ON, Clock, Puppet, changed, message
from synthetic import ACCOUNTS, scaled

from hrm_runtime import (
    Account,
    Action,
    ArtifactDamaged,
    ArtifactNotFound,
    BadAccount,
    BadBars,
    BadInput,
    Bars,
    HRMAgent,
    InferenceFailed,
    LiveEngine,
    Model,
    Reason,
    UnknownInstrument,
    UnknownTimeframe,
    Untrusted,
    load,
)
from hrm_runtime.artifact.contract import MODEL
from hrm_runtime.artifact.segments import Outputs
from hrm_runtime.live.observation import HOST_COLUMNS
from hrm_runtime.market.actions import CANONICAL, LIVE_SERVICE, Vocabulary

HOLD = (4, 1.0)


def wanting(action: Action, model: Model) -> Model:
    """The frozen artifact with a network that wants `action`, and 7.9 lots."""

    def change(outputs: Outputs) -> None:
        outputs["action_type"][:, action] = 100.0
        outputs["quantity"][:] = 7.9

    return Puppet(model, after=changed(change))


# what the host gets


@pytest.mark.parametrize("side", ACCOUNTS)
def test_an_agent_decides_as_the_model_does(model: Model, start: Start, side: str) -> None:
    account = ACCOUNTS[side]
    expected = model.decide(BARS, in_float32(account), **ON)
    assert expected.reason is Reason.OK
    agent = agent_of(start())
    assert agent.decide(observed(BARS, account)) == expected
    assert agent.act(observed(BARS, account)) == (int(expected.action), expected.quantity)


NUMBERS = {
    "environment": {
        "BUY_LONG": 0,
        "SELL_SHORT": 1,
        "CLOSE_LONG": 2,
        "CLOSE_SHORT": 3,
        "HOLD": 4,
    },
    "service": {"BUY_LONG": 3, "SELL_SHORT": 1, "CLOSE_LONG": 0, "CLOSE_SHORT": 4, "HOLD": 2},
}
SIDES = {"CLOSE_LONG": "long", "CLOSE_SHORT": "short"}
LOTS = {"BUY_LONG": 7.0, "SELL_SHORT": 7.0, "CLOSE_LONG": 3.0, "CLOSE_SHORT": 2.0, "HOLD": 1.0}


@pytest.mark.parametrize("act", ["act", "select_action"])
@pytest.mark.parametrize("action", Action, ids=lambda action: action.name)
@pytest.mark.parametrize(
    ("vocabulary", "host"), [(CANONICAL, "environment"), (LIVE_SERVICE, "service")]
)
def test_each_action_has_the_host_s_number(
    model: Model, start: Start, vocabulary: Vocabulary, host: str, action: Action, act: str
) -> None:
    agent = agent_of(start(of=wanting(action, model)), vocabulary=vocabulary)
    account = ACCOUNTS[SIDES.get(action.name, "flat")]
    found = getattr(agent, act)(observed(BARS, account))
    assert found == (NUMBERS[host][action.name], LOTS[action.name])
    assert list(map(type, found)) == [int, float]


@pytest.mark.parametrize(
    ("action", "most", "lots"),
    [
        (Action.BUY_LONG, 2, 2.0),
        (Action.SELL_SHORT, 2, 2.0),
        (Action.BUY_LONG, 7, 7.0),
        (Action.BUY_LONG, 100, 7.0),
        (Action.CLOSE_LONG, 2, 3.0),
        (Action.CLOSE_SHORT, 1, 2.0),
        (Action.HOLD, 1, 1.0),
    ],
)
def test_max_lots_cuts_openings_and_nothing_else(
    model: Model, start: Start, action: Action, most: int, lots: float
) -> None:
    agent = agent_of(start(of=wanting(action, model)), max_lots=most)
    account = ACCOUNTS[SIDES.get(action.name, "flat")]
    found = agent.act(observed(BARS, account))
    assert found == (action, lots)
    assert list(map(type, found)) == [int, float]
    assert agent.decide(observed(BARS, account)).quantity == LOTS[action.name]


def test_the_second_call_at_a_tick_is_answered_from_memory(start: Start) -> None:
    engine = start()
    agent = agent_of(engine)
    first = agent.act(observed(BARS))
    assert engine.health().repeated == 0
    assert agent.act(observed(BARS)) == first
    health = engine.health()
    assert (health.repeated, sum(health.decisions.values())) == (1, 1)


def test_another_account_at_the_same_bar_is_decided_anew(model: Model, start: Start) -> None:
    engine = start()
    agent = agent_of(engine)
    agent.act(observed(BARS))
    long = ACCOUNTS["long"]
    assert agent.decide(observed(BARS, long)) == model.decide(BARS, in_float32(long), **ON)
    assert engine.health().repeated == 0


def test_the_next_bar_is_decided_at_once_it_is_fed(model: Model, start: Start) -> None:
    engine = start(BARS[:-1])
    agent = agent_of(engine)
    assert agent.decide(observed(BARS[:-1])) == model.decide(BARS[:-1], FLAT, **ON)
    engine.feed(BARS.newest(), **ON)
    assert agent.decide(observed(BARS)) == model.decide(BARS, FLAT, **ON)


def test_the_host_s_columns_are_prices_the_stamp_and_48_indicators() -> None:
    assert HOST_COLUMNS[:6] == ("open", "high", "low", "close", "datetime_epoch", "sma_5")
    assert (len(HOST_COLUMNS), HOST_COLUMNS[-1]) == (53, "volatility_20")


# bars and account from the host's callables


def giving(engine: LiveEngine, bars: Any, account: Any = FLAT) -> HRMAgent:
    return agent_of(engine, bars=lambda: bars, account=lambda: account)


@pytest.mark.parametrize(
    "shown", [normalised(), None, "anything"], ids=["normalised", "None", "text"]
)
def test_with_callables_the_observation_is_not_read(model: Model, start: Start, shown: Any) -> None:
    agent = giving(start(BARS[:-1]), BARS.newest())
    assert agent.decide(shown) == model.decide(BARS, FLAT, **ON)


@pytest.mark.parametrize(
    ("fed", "given"),
    [
        (BARS[:-1], BARS.newest()),
        (BARS[:-1], BARS.newest()._asdict()),
        (BARS[:-1], BARS[-1:]),
        (BARS[:-1], BARS[-10:]),
        (BARS[:-7], BARS[-7:]),
        (BARS[:-7], BARS[-30:]),
        (BARS[:0], BARS),
        (BARS, BARS),
    ],
    ids=[
        "a bar",
        "a mapping",
        "one of Bars",
        "older ones too",
        "several missed",
        "some missed",
        "all missed",
        "none missed",
    ],
)
def test_bars_that_were_missed_are_fed(model: Model, start: Start, fed: Bars, given: Any) -> None:
    engine = start(fed)
    assert giving(engine, given).decide(None) == model.decide(BARS, FLAT, **ON)
    assert engine.newest(**ON) == BARS.newest()
    assert giving(engine, given).decide(None) == model.decide(BARS, FLAT, **ON)
    assert engine.health().repeated == 1


@pytest.mark.parametrize("side", ACCOUNTS)
@pytest.mark.parametrize("kind", [lambda a: a, vars], ids=["account", "mapping"])
def test_the_account_is_the_callable_s(
    model: Model, start: Start, side: str, kind: Callable[[Account], Any]
) -> None:
    account = ACCOUNTS[side]
    agent = giving(start(BARS[:-1]), BARS.newest(), kind(account))
    assert agent.decide(None) == model.decide(BARS, account, **ON)


def raising(error: Exception) -> Callable[[], Any]:
    def asked() -> Any:
        raise error

    return asked


REFUSED = [
    pytest.param(
        {"bars": lambda: BARS[-5:-2]}, Untrusted, "out_of_order", "bar: expected one after",
        id="older bars",
    ),
    pytest.param(
        {"bars": lambda: BARS.newest()._replace(high=1e6)}, Untrusted, "bad_input",
        "bar: expected what was given for 2023-11-22 05:15 UTC before",
        id="another newest bar",
    ),
    pytest.param(
        {"bars": lambda: scaled(BARS[-30:], 0.5)}, BadInput, "bad_input",
        "bars: expected what was given for 2023-11-22 02:50 UTC before, .* in the place of all$",
        id="a history that was adjusted",
    ),
    pytest.param(
        {"bars": lambda: Bars.of_one(BARS.newest()._replace(datetime=1_700_630_160))}, BadBars,
        "bad_input", "bars: expected bars of 300 s, found .* another timeframe",
        id="a bar of another timeframe",
    ),
    pytest.param(
        {"bars": lambda: BARS[:0]}, BadInput, "bad_input",
        "bars: expected at least one closed bar, found none",
        id="no bar",
    ),
    pytest.param(
        {"bars": lambda: 5}, BadBars, "bad_input", "bar: expected a Bar or a mapping, found int",
        id="not a bar",
    ),
    pytest.param(
        {"bars": raising(OSError("feed lost"))}, BadInput, "bad_input",
        "bars: expected an answer of the host's callable, it raised OSError: feed lost",
        id="bars that raise",
    ),
    pytest.param(
        {"account": raising(KeyError("capital"))}, BadInput, "bad_input",
        "account: expected an answer of the host's callable, it raised KeyError: 'capital'",
        id="an account that raises",
    ),
    pytest.param(
        {"account": lambda: {"capital": 1e5}}, BadAccount, "bad_input",
        "account: expected the values capital, .*; found capital",
        id="half an account",
    ),
    pytest.param(
        {"account": lambda: None}, BadAccount, "bad_input", "account: .* found NoneType",
        id="no account",
    ),
]  # fmt: skip


def test_an_adjusted_history_is_decided_on_once_the_engine_has_it(
    model: Model, start: Start
) -> None:
    engine, adjusted = start(), scaled(BARS, 0.5)
    agent = giving(engine, adjusted[-30:])
    assert agent.decide(None).reason == "bad_input"
    engine.reset(adjusted, **ON)
    assert agent.decide(None) == model.decide(adjusted, FLAT, **ON)


@pytest.mark.parametrize(("callables", "error", "reason", "why"), REFUSED)
def test_callables_that_cannot_be_trusted_are_hold(
    start: Start, callables: dict[str, Any], error: type[Exception], reason: str, why: str
) -> None:
    callables = {"bars": BARS.newest, "account": lambda: FLAT, **callables}
    agent = agent_of(start(), **callables)
    assert agent.act(observed(BARS)) == HOLD
    assert agent.decide(observed(BARS)).reason == reason
    with pytest.raises(error, match=f"^{why}"):
        agent_of(start(strict=True), **callables).act(observed(BARS))


def test_a_missed_bar_that_is_not_closed_is_hold_with_reason_future(start: Start) -> None:
    engine = start(BARS[:-9], clock=Clock(BARS.datetime[-10] + 300.0))
    assert giving(engine, BARS).decide(None).reason is Reason.FUTURE
    assert message(engine).startswith("bar: expected one closed by 2023-11-22 04:35 UTC")


@pytest.mark.parametrize("given", [BARS, BARS.newest()], ids=["missed bars", "a bar"])
def test_a_closed_engine_is_hold_with_reason_error(start: Start, given: Any) -> None:
    engine, strict = start(BARS[:-2]), start(BARS[:-2], strict=True)
    engine.close()
    strict.close()
    assert giving(engine, given).decide(None).reason is Reason.ERROR
    with pytest.raises(InferenceFailed, match="the engine is closed: create another"):
        giving(strict, given).act(None)


# artifacts


def test_load_model_decides_with_another_artifact(
    start: Start, copy_artifact: ArtifactCopy
) -> None:
    copy_artifact.reseal(name="another")
    other = load(copy_artifact.path)
    engine = start(BARS[:-1])
    agent = agent_of(engine)
    before = agent.decide(observed(BARS[:-1]))
    agent.load_model(copy_artifact.path)
    engine.feed(BARS.newest(), **ON)
    after = agent.decide(observed(BARS))
    assert after == other.decide(BARS, FLAT, **ON)
    assert (after.model_id, engine.model.id) == (other.id, other.id)
    assert before.model_id != other.id


def test_a_damaged_artifact_is_refused_and_the_old_one_goes_on(
    model: Model, start: Start, copy_artifact: ArtifactCopy
) -> None:
    content = bytearray((copy_artifact.path / MODEL).read_bytes())
    content[1000] ^= 1
    (copy_artifact.path / MODEL).write_bytes(content)
    engine = start()
    agent = agent_of(engine)
    with pytest.raises(ArtifactDamaged, match=r"model\.onnx: expected sha256"):
        agent.load_model(copy_artifact.path)
    assert engine.model is model
    assert agent.decide(observed(BARS)) == model.decide(BARS, FLAT, **ON)


def test_an_artifact_that_is_not_there_is_refused(start: Start, tmp_path: Path) -> None:
    with pytest.raises(ArtifactNotFound, match="expected an artifact folder"):
        agent_of(start()).load_model(tmp_path / "none")


def test_an_artifact_that_does_not_know_the_stream_is_refused(
    model: Model, start: Start, copy_artifact: ArtifactCopy, monkeypatch: pytest.MonkeyPatch
) -> None:
    instruments = {**model.contract.instruments}
    del instruments["Alpha"]
    other = load(copy_artifact.path)
    other.contract = replace(other.contract, instruments=instruments)
    other.id = "other"
    monkeypatch.setattr("hrm_runtime.live.engine.load", lambda *given: other)
    engine = start()
    with pytest.raises(UnknownInstrument, match="expected one of Beta; found 'Alpha'"):
        agent_of(engine).load_model(copy_artifact.path)
    assert engine.model is model


def test_a_saved_model_is_the_same_artifact(
    artifact: Path, model: Model, start: Start, tmp_path: Path
) -> None:
    saved = tmp_path / "saved"
    agent = agent_of(start())
    agent.save_model(saved)
    assert {file.name: file.read_bytes() for file in saved.iterdir()} == {
        file.name: file.read_bytes() for file in artifact.iterdir()
    }
    copy = load(saved)
    assert (copy.id, copy.folder) == (model.id, saved)
    agent.load_model(saved)
    assert agent.engine.model is model
    assert agent.decide(observed(BARS)) == copy.decide(BARS, FLAT, **ON)


def test_a_model_is_not_saved_over_anything(start: Start, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="expected a new folder, found something there"):
        agent_of(start()).save_model(tmp_path)


def test_a_model_whose_folder_is_gone_cannot_be_saved(
    start: Start, copy_artifact: ArtifactCopy, tmp_path: Path
) -> None:
    agent = agent_of(start(of=load(copy_artifact.path)))
    shutil.rmtree(copy_artifact.path)
    with pytest.raises(ArtifactNotFound, match="expected an artifact folder"):
        agent.save_model(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


# construction


@pytest.mark.parametrize(
    ("options", "error", "why"),
    [
        ({"instrument": "Gamma"}, UnknownInstrument, "instrument: .* Alpha, Beta; found 'Gamma'"),
        ({"instrument": ["Alpha"]}, UnknownInstrument, r"instrument: .* found \['Alpha'\]"),
        ({"timeframe": "7"}, UnknownTimeframe, "timeframe: expected one of .*; found '7'"),
        ({"timeframe": 5}, UnknownTimeframe, "timeframe: expected a name, found 5"),
        (
            {"columns": HOST_COLUMNS[4:]},
            BadInput,
            "columns: expected open, high, low, close among them, .*; missing open, .*: have ",
        ),
        ({"columns": ["close", "open"]}, BadInput, "columns: .*; missing high, low: have"),
        (
            {"columns": [*HOST_COLUMNS, "open", "atr"]},
            BadInput,
            "columns: expected each name once, found atr, open again",
        ),
        ({"lookback": 0}, BadInput, "lookback: expected a whole number from 1, found 0"),
        ({"lookback": None}, BadInput, "lookback: expected a whole number from 1, found None"),
        ({"lookback": 50.0}, BadInput, r"lookback: expected a whole number from 1, found 50\.0"),
        ({"max_lots": 0}, BadInput, "max_lots: expected a whole number from 1, found 0"),
        ({"max_lots": True}, BadInput, "max_lots: expected a whole number from 1, found True"),
        (
            {"vocabulary": {Action.HOLD: 2}},
            BadInput,
            "vocabulary: expected a whole number of its own for each of BUY_LONG, .*, HOLD; found",
        ),
        (
            {"vocabulary": {**CANONICAL, Action.HOLD: 0}},
            BadInput,
            "vocabulary: expected a whole number of its own",
        ),
        (
            {"vocabulary": {**CANONICAL, Action.HOLD: "hold"}},
            BadInput,
            "vocabulary: expected a whole number of its own",
        ),
        ({"bars": BARS.newest}, BadInput, "bars, account: expected two callables or neither"),
        ({"account": lambda: FLAT}, BadInput, "bars, account: .* or neither, found None and"),
        ({"bars": BARS, "account": FLAT}, BadInput, "bars, account: expected two callables"),
    ],
)
def test_an_agent_that_could_only_hold_is_refused(
    start: Start, options: dict[str, Any], error: type[Exception], why: str
) -> None:
    stream = {"instrument": "Alpha", "timeframe": "5"}
    with pytest.raises(error, match=f"^{why}"):
        HRMAgent(start(), **{**stream, **options})
