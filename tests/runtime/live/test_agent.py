"""The frozen artifact behind the host's agent interface, with observations as the host makes them.

All bars are closed and none is ever stale here: what time does is the engine's.
"""

import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifact_copy import ArtifactCopy
from host import Observation, observed
from live import FLAT, ON, Clock, Puppet, changed, message
from synthetic import ACCOUNTS, random_bars

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
from hrm_runtime.artifact.model import Outputs
from hrm_runtime.live.observation import ACCOUNT_VALUES, HOST_COLUMNS
from hrm_runtime.market.actions import CANONICAL, LIVE_SERVICE, Vocabulary
from hrm_runtime.market.bars import PRICES

BARS = random_bars(260, seed=21)
HOLD = (4, 1.0)
LATER = Clock(BARS.datetime[-1] + 86_400.0)

Start = Callable[..., LiveEngine]


@pytest.fixture
def start(live: Start, model: Model) -> Start:
    """Makes engines that have seen `bars`."""

    def started(bars: Bars = BARS, of: Model = model, **settings: Any) -> LiveEngine:
        engine = live(of, **{"clock": LATER, "stale_after": {"5": 1e9}, **settings})
        engine.feed(bars, **ON)
        return engine

    return started


def agent_of(engine: LiveEngine, **options: Any) -> HRMAgent:
    return HRMAgent(engine, "Alpha", "5", **options)


def normalised(bars: Bars = BARS) -> Observation:
    """The last of 100 observations as the host's environment scales it over all of them."""
    shown = np.array([observed(bars[: len(bars) - back]) for back in range(100)], dtype=float)
    deviation = shown.std(axis=0)
    scores = (shown[0] - shown.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    return np.clip(scores, -5, 5).astype(np.float32)


def spoilt(place: int, value: float) -> Observation:
    observation = observed(BARS)
    observation[place] = value
    return observation


def in_float32(account: Account) -> Account:
    """What is left of an account in an observation."""
    values = observed(BARS, account)[-6:].tolist()
    return Account(**dict(zip(ACCOUNT_VALUES, values, strict=True)))


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


# float32


@pytest.mark.parametrize("price", [100.0, 22_150.35, 81_234.55, 4_999_999.95])
def test_what_float32_does_to_prices_is_no_other_bar(
    model: Model, start: Start, price: float
) -> None:
    bars = random_bars(260, seed=5, price=price)
    agent = agent_of(start(bars))
    assert agent.decide(observed(bars)) == model.decide(bars, FLAT, **ON)


def test_an_account_that_float32_rounded_is_decided_as_it_is_shown(
    model: Model, start: Start
) -> None:
    account = Account(1_234_567.89, -2.0, 101.37, 25.43, True, 0.006)
    shown = in_float32(account)
    assert (shown.capital, shown.distance_to_trail) == (1_234_567.875, float(np.float32(0.006)))
    assert agent_of(start()).decide(observed(BARS, account)) == model.decide(BARS, shown, **ON)


@pytest.mark.parametrize(
    ("moved", "reason"), [(0.02, "ok"), (-0.02, "ok"), (0.03, "bad_input"), (-0.03, "bad_input")]
)
@pytest.mark.parametrize("name", PRICES)
def test_a_price_may_differ_by_half_a_tick(
    start: Start, name: str, moved: float, reason: str
) -> None:
    observation = observed(BARS)
    observation[49 * 53 + HOST_COLUMNS.index(name)] += moved
    assert agent_of(start()).decide(observation).reason == reason


@pytest.mark.parametrize("kind", [list, np.float64, np.asfortranarray], ids=lambda k: k.__name__)
def test_other_kinds_of_array_are_the_same_observation(
    start: Start, kind: Callable[[Any], Any]
) -> None:
    agent = agent_of(start())
    assert agent.act(kind(observed(BARS))) == agent.act(observed(BARS)) != HOLD


# observations that cannot be read


class Raising:
    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise RuntimeError("the host's own trouble")


OTHER_SHAPE = "expected 2656 values, 50 bars x 53 columns and 6 of the account; found"
UNREADABLE = [
    (spoilt(7, np.nan), "expected finite numbers, found nan in column sma_20 of bar 1 of 50"),
    (spoilt(49 * 53, np.nan), "expected finite numbers, found nan in column open of bar 50 of 50"),
    (spoilt(2649, -np.inf), "expected finite numbers, found -inf in column volatility_20 of bar"),
    ([None] * 2656, "expected finite numbers, found nan in column open of bar 1 of 50"),
    (observed(BARS)[:-1], rf"{OTHER_SHAPE} 2655, which is no whole number of columns"),
    (np.zeros(0), rf"{OTHER_SHAPE} 0, which is no whole number of columns"),
    (observed(BARS)[-6:], rf"{OTHER_SHAPE} 6, which is no whole number of columns"),
    (observed(BARS).reshape(1, -1), rf"{OTHER_SHAPE} shape \[1, 2656\]: flatten it"),
    (observed(BARS)[:-6].reshape(50, 53), rf"{OTHER_SHAPE} shape \[50, 53\]: flatten it"),
    (None, rf"{OTHER_SHAPE} shape \[\]: flatten it"),
    ("1.0", "expected numbers, found str: found <U3"),
    (observed(BARS).astype(str), "expected numbers, found ndarray: found <U"),
    (["close"] * 2656, "expected numbers, found list: found <U5"),
    (observed(BARS).astype(complex), "expected numbers, found ndarray: found complex128"),
    ([[1.0], [1.0, 2.0]], "expected numbers, found list: .*inhomogeneous"),
    ([{}] * 2656, "expected numbers, found list: float"),
    (Raising(), "expected numbers, found Raising: the host's own trouble"),
]


@pytest.mark.parametrize(
    ("vocabulary", "expected"), [(CANONICAL, (4, 1.0)), (LIVE_SERVICE, (2, 1.0))]
)
@pytest.mark.parametrize(("observation", "why"), UNREADABLE)
def test_what_is_no_observation_is_hold_and_one_lot(
    start: Start, observation: Any, why: str, vocabulary: Vocabulary, expected: tuple[int, float]
) -> None:
    agent = agent_of(start(), vocabulary=vocabulary)
    found = agent.act(observation)
    assert found == expected
    assert list(map(type, found)) == [int, float]
    assert agent.select_action(observation) == expected
    assert agent.decide(observation).reason is Reason.BAD_INPUT


@pytest.mark.parametrize(("observation", "why"), UNREADABLE)
def test_a_strict_engine_says_what_is_no_observation(
    start: Start, observation: Any, why: str
) -> None:
    with pytest.raises(BadInput, match=f"^observation: {why}"):
        agent_of(start(strict=True)).act(observation)


@pytest.mark.parametrize(
    ("value", "account"),
    [
        ("capital: expected a finite number, found nan", spoilt(-6, np.nan)),
        (": expected capital > 0", spoilt(-6, -1.0)),
        (".is_position_open: expected 0 or 1, found 0.5", spoilt(-2, 0.5)),
        (": expected is_position_open to agree with position_quantity", spoilt(-5, 3.0)),
        (r": expected distance_to_trail in \[-1, 1\]", spoilt(-1, 1.5)),
    ],
)
def test_an_account_that_contradicts_itself_is_hold(
    start: Start, value: str, account: Observation
) -> None:
    assert agent_of(start()).act(account) == HOLD
    with pytest.raises(BadAccount, match=f"^account.?{value}"):
        agent_of(start(strict=True)).act(account)


# observations of another width


def width(name: str, observation: Observation, why: str, **options: Any) -> Any:
    return pytest.param(observation, options, why, id=name)


OHLC = r"4 columns \(open, high, low, close\?\) fewer"
WITHOUT_TWO = [*HOST_COLUMNS[:4], *HOST_COLUMNS[6:]]
WIDTHS = [
    width(
        "49 columns were declared, 53 made, and the end cut off",
        observed(BARS)[:2456],
        f"2456, as with {OHLC}, or with the end cut off, where the newest bars and the account",
    ),
    width(
        "the account was cut off",
        observed(BARS)[:-6],
        "2650, which is no whole number of columns: something is cut off; at the end stand "
        "capital, position_quantity, entry_price, unrealized_pnl, is_position_open, distance_to_",
    ),
    width(
        "the host adds volume",
        observed(BARS, columns=[*HOST_COLUMNS, "volume"]),
        r"2706, as with 1 column \(volume\?\) more: name all columns of the host's frame in order",
    ),
    width(
        "the host left prices out",
        observed(BARS, columns=HOST_COLUMNS[4:]),
        f"2456, as with {OHLC}",
    ),
    width(
        "the host left the stamp out",
        observed(BARS, columns=[*PRICES, *HOST_COLUMNS[5:]]),
        r"2606, as with 1 column \(datetime_epoch\?\) fewer",
    ),
    width(
        "the host shows indicators alone",
        observed(BARS, columns=HOST_COLUMNS[5:]),
        r"2406, as with 5 columns \(open, high, low, close, datetime_epoch\?\) fewer",
    ),
    width(
        "the host left out what could be any",
        observed(BARS, columns=HOST_COLUMNS[:51]),
        "2556, as with 2 columns fewer, or with the end cut off",
    ),
    width(
        "the host has no volume",
        observed(BARS),
        r"2656, as with 1 column \(volume\?\) fewer",
        columns=[*HOST_COLUMNS, "volume"],
    ),
    width(
        "no stamp was named to leave out",
        observed(BARS, columns=PRICES),
        "206, as with 1 column fewer",
        columns=[*PRICES, "atr"],
    ),
    width(
        "the host has more than was named",
        observed(BARS),
        "2656, as with 2 columns more",
        columns=WITHOUT_TWO,
    ),
    width(
        "the host has two more than was named, and volume was",
        observed(BARS, columns=[*HOST_COLUMNS, "volume"]),
        r"2706, as with 2 columns \(datetime_epoch, sma_5\?\) more",
        columns=[*WITHOUT_TWO, "volume"],
    ),
    width(
        "another lookback", observed(BARS, lookback=60), "3186, as with 60 bars: give lookback=60"
    ),
    width("no bar", observed(BARS)[-6:], "6, which is no whole number of columns"),
]


@pytest.mark.parametrize(("observation", "options", "why"), WIDTHS)
def test_another_width_is_refused_with_the_columns_it_may_be(
    start: Start, observation: Observation, options: dict[str, Any], why: str
) -> None:
    assert agent_of(start(), **options).act(observation) == HOLD
    expected = r"expected \d+ values, 50 bars x \d+ columns and 6 of the account; found"
    with pytest.raises(BadInput, match=f"^observation: {expected} {why}"):
        agent_of(start(strict=True), **options).act(observation)


@pytest.mark.parametrize(
    ("columns", "lookback"),
    [
        (HOST_COLUMNS[::-1], 50),
        (("volume", *HOST_COLUMNS), 50),
        ((*HOST_COLUMNS[20:], "volume", *HOST_COLUMNS[:20]), 7),
        (PRICES, 1),
    ],
    ids=["reversed", "with volume", "mixed", "prices alone"],
)
def test_columns_are_found_by_name(
    model: Model, start: Start, columns: tuple[str, ...], lookback: int
) -> None:
    agent = agent_of(start(), columns=columns, lookback=lookback)
    found = agent.decide(observed(BARS, columns=columns, lookback=lookback))
    assert found == model.decide(BARS, FLAT, **ON)


def test_columns_in_an_order_that_was_not_named_are_refused(start: Start) -> None:
    observation = observed(BARS, columns=HOST_COLUMNS[::-1])
    assert agent_of(start()).act(observation) == HOLD
    with pytest.raises(BadInput, match=r"found another open, .* datetime_epoch.*columns in order$"):
        agent_of(start(strict=True)).act(observation)


# observations of something else than the newest bar


@pytest.mark.parametrize("price", [100.0, 2.0])
def test_a_normalised_observation_is_hold_and_says_so(
    start: Start, caplog: pytest.LogCaptureFixture, price: float
) -> None:
    bars = random_bars(260, seed=21, price=price)
    engine = start(bars)
    with caplog.at_level(logging.WARNING, "hrm_runtime"):
        decision = agent_of(engine).decide(normalised(bars))
    assert (decision.action, decision.quantity, decision.reason) == (4, 1.0, "bad_input")
    advice = "it looks normalised; give raw observations, or the callables bars and account"
    assert message(engine).endswith(advice)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    fields = vars(caplog.records[0])["hrm"]
    assert (fields["why"], fields["reason"]) == (message(engine), "bad_input")


def test_a_normalised_observation_is_refused_where_only_prices_tell(start: Start) -> None:
    prices = [1.2, 1.3, -0.5, 0.1, *observed(BARS)[-6:].tolist()]
    agent = agent_of(start(strict=True), columns=PRICES, lookback=1)
    with pytest.raises(BadInput, match=r"another open, high, low, close in .*it looks normalised"):
        agent.act(prices)


def test_a_cheap_stock_s_raw_prices_do_not_look_normalised(start: Start) -> None:
    bars = random_bars(260, seed=21, price=2.0)
    agent = agent_of(start(bars, strict=True), columns=PRICES)
    with pytest.raises(BadInput, match=r"found another .*: feed each bar before acting on it"):
        agent.act(observed(bars[:-200], columns=PRICES))


def test_an_observation_of_an_older_bar_is_refused(start: Start) -> None:
    newest = BARS.newest()
    expected = (
        r"^observation: expected the newest bar of the engine, 2023-11-22 05:15 UTC, with "
        f"open {newest.open:.2f}, high {newest.high:.2f}, low {newest.low:.2f}, "
        f"close {newest.close:.2f}, "
        "datetime_epoch 1700630100; found another .*: feed each bar before acting on it"
    )
    assert agent_of(start()).act(observed(BARS[:-1])) == HOLD
    with pytest.raises(BadInput, match=expected):
        agent_of(start(strict=True)).act(observed(BARS[:-1]))


def test_an_observation_of_a_bar_that_was_not_fed_is_refused(start: Start) -> None:
    assert agent_of(start(BARS[:-1])).act(observed(BARS)) == HOLD
    with pytest.raises(BadInput, match="feed each bar before acting on it"):
        agent_of(start(BARS[:-1], strict=True)).act(observed(BARS))


@pytest.mark.parametrize("older", [1, 2, 40])
def test_an_older_bar_of_equal_prices_is_known_by_its_stamp(start: Start, older: int) -> None:
    prices = np.full(260, 100.0)
    still = Bars(BARS.datetime, prices, prices, prices, prices)
    with pytest.raises(BadInput, match="found another datetime_epoch in open 100, high 100"):
        agent_of(start(still, strict=True)).act(observed(still[:-older]))


def test_an_engine_without_bars_is_hold(start: Start) -> None:
    nothing = BARS[:0]
    assert agent_of(start(nothing)).act(observed(BARS)) == HOLD
    with pytest.raises(BadInput, match="expected the engine to have bars of this stream; feed it"):
        agent_of(start(nothing, strict=True)).act(observed(BARS))


def test_a_stream_that_is_warming_up_is_hold(start: Start) -> None:
    few = BARS[:204]
    assert agent_of(start(few)).decide(observed(few)).reason is Reason.WARMING_UP
    with pytest.raises(Untrusted, match="expected 205 bars for a decision, found 204") as raised:
        agent_of(start(few, strict=True)).act(observed(few))
    assert raised.value.reason == "warming_up"


def test_what_nobody_expected_is_hold_with_reason_error(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = start()

    def broken(**on: str) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(engine, "newest", broken)
    agent = agent_of(engine)
    assert agent.act(observed(BARS)) == HOLD
    assert agent.decide(observed(BARS)).reason is Reason.ERROR
    assert message(engine) == "a bug"


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
