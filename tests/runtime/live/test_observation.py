"""What a host observes, read by itself and behind an agent."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from host import BARS, LATER, Observation, Start, agent_of, in_float32, normalised, observed, spoilt
from live import FLAT, ON, SAFETY_S, message
from synthetic import random_bars

from hrm_runtime import (
    Account,
    BadAccount,
    BadInput,
    Bars,
    HRMAgent,
    LiveEngine,
    LiveSettings,
    Model,
    Reason,
    Untrusted,
)
from hrm_runtime.live.observation import (
    ACCOUNT_VALUES,
    HOST_COLUMNS,
    STAMP,
    Observations,
    require_shown,
)
from hrm_runtime.market.actions import CANONICAL, LIVE_SERVICE, Vocabulary
from hrm_runtime.market.bars import PRICES

HOLD = (4, 1.0)
LAYOUT = Observations(HOST_COLUMNS, 50)
"""Of the host."""


@pytest.fixture(scope="module")
def holding(model: Model) -> Iterator[LiveEngine]:
    """One engine that has seen `BARS`, for what changes nothing in it."""
    how = LiveSettings(clock=LATER, stale_after={"5": 1e9}, deadline=SAFETY_S)
    with LiveEngine(model, how) as engine:
        engine.feed(BARS, **ON)
        yield engine


# what is shown


def test_what_is_shown_is_the_newest_bar_by_column_and_the_account() -> None:
    values = np.arange(2 * 5 + 6, dtype=np.float32)
    shown, account = Observations(["close", "low", "atr", "high", "open"], 2).read(values)
    assert shown == {"close": 5.0, "low": 6.0, "atr": 7.0, "high": 8.0, "open": 9.0}
    assert account == dict(zip(ACCOUNT_VALUES, range(10, 16), strict=True))


def test_the_account_may_be_whatever_it_is() -> None:
    _, account = LAYOUT.read(spoilt(-6, np.nan))
    assert np.isnan(account.pop("capital"))
    assert list(account) == list(ACCOUNT_VALUES[1:])


NEWEST = BARS.newest()
SHOWN = {name: getattr(NEWEST, name) for name in PRICES}


def test_a_bar_is_shown_by_prices_within_half_a_tick_and_by_its_stamp_if_there_is_one() -> None:
    require_shown(NEWEST, SHOWN, tick=0.05)
    require_shown(NEWEST, {**SHOWN, "close": NEWEST.close + 0.024, "sma_5": 1e9}, tick=0.05)
    require_shown(NEWEST, {**SHOWN, STAMP: NEWEST.datetime}, tick=0.05)
    for name, value in (("close", NEWEST.close + 0.026), (STAMP, NEWEST.datetime - 300)):
        with pytest.raises(BadInput, match=f"; found another {name} in open .*columns in order$"):
            require_shown(NEWEST, {**SHOWN, name: value}, tick=0.05)


SMALL = Bars([31_536_000], [1.20e-5], [1.25e-5], [1.15e-5], [1.22e-5]).newest()
"""Of a coin whose tick nobody declared: a default is 4,000 times its price."""


@pytest.mark.parametrize(
    "factor", [100.0, 0.01, 1.002], ids=["a hundredfold", "a hundredth", "of another bar"]
)
def test_of_a_small_price_a_thousandth_is_the_most_that_a_tick_allows(factor: float) -> None:
    shown = {name: getattr(SMALL, name) for name in PRICES}
    require_shown(SMALL, {name: 1.0009 * value for name, value in shown.items()}, tick=0.05)
    with pytest.raises(BadInput, match="found another open, high, low, close in open "):
        require_shown(SMALL, {name: factor * value for name, value in shown.items()}, tick=0.05)


def test_a_stamp_may_differ_by_what_float32_rounds_alone() -> None:
    stamp = {STAMP: float(np.float32(NEWEST.datetime))}
    assert stamp[STAMP] != NEWEST.datetime
    require_shown(NEWEST, {**SHOWN, **stamp}, tick=1000.0)
    with pytest.raises(BadInput, match="found another datetime_epoch in"):
        require_shown(NEWEST, {**SHOWN, STAMP: NEWEST.datetime - 300}, tick=1000.0)


def test_the_tick_of_an_unknown_instrument_allows_nothing(open_model: Model, start: Start) -> None:
    observation = observed(BARS)
    observation[49 * 53 + HOST_COLUMNS.index("close")] += 0.02
    engine = start(of=open_model)
    engine.feed(BARS, instrument="Gamma", timeframe="5")
    for name, reason in (("Alpha", "ok"), ("Gamma", "bad_input")):
        agent = HRMAgent(engine, name, "5")
        assert agent.decide(observed(BARS)).reason == "ok"
        assert agent.decide(observation).reason == reason


def test_no_tick_leaves_what_float32_rounds() -> None:
    rounded = {name: float(np.float32(value)) for name, value in SHOWN.items()}
    assert rounded != SHOWN
    require_shown(NEWEST, rounded, tick=0.0)
    with pytest.raises(BadInput, match="found another high in"):
        require_shown(NEWEST, {**rounded, "high": NEWEST.high * (1 + 2.0**-23)}, tick=0.0)


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
    holding: LiveEngine, name: str, moved: float, reason: str
) -> None:
    observation = observed(BARS)
    observation[49 * 53 + HOST_COLUMNS.index(name)] += moved
    assert agent_of(holding).decide(observation).reason == reason


@pytest.mark.parametrize("kind", [list, np.float64, np.asfortranarray], ids=lambda k: k.__name__)
def test_other_kinds_of_array_are_the_same_observation(
    holding: LiveEngine, kind: Callable[[Any], Any]
) -> None:
    agent = agent_of(holding)
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
    holding: LiveEngine,
    observation: Any,
    why: str,
    vocabulary: Vocabulary,
    expected: tuple[int, float],
) -> None:
    agent = agent_of(holding, vocabulary=vocabulary)
    found = agent.act(observation)
    assert found == expected
    assert list(map(type, found)) == [int, float]
    assert agent.select_action(observation) == expected
    assert agent.decide(observation).reason is Reason.BAD_INPUT


@pytest.mark.parametrize(("observation", "why"), UNREADABLE)
def test_it_is_said_what_is_no_observation(observation: Any, why: str) -> None:
    with pytest.raises(BadInput, match=f"^observation: {why}"):
        LAYOUT.read(observation)


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
    holding: LiveEngine, observation: Observation, options: dict[str, Any], why: str
) -> None:
    assert agent_of(holding, **options).act(observation) == HOLD
    expected = r"expected \d+ values, 50 bars x \d+ columns and 6 of the account; found"
    with pytest.raises(BadInput, match=f"^observation: {expected} {why}"):
        Observations(**{"columns": HOST_COLUMNS, "lookback": 50, **options}).read(observation)


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
