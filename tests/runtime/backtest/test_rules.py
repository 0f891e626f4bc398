"""The host's rules held to its environment, decision by decision: not one value may differ."""

import math
import re
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pytest
from synthetic import random_bars
from trading_host import Environment, Traded
from trading_host import backtest as engine_backtest

from hrm_runtime import Account, Bars, Contract, Decision, Reason
from hrm_runtime.artifact.decision import hold
from hrm_runtime.backtest.book import Book, Exit
from hrm_runtime.backtest.rules import HOST, HOST_NO_TARGET, HOST_OWN_PRICE, OURS, Rules
from hrm_runtime.backtest.walk import backtest
from hrm_runtime.errors import BadInput
from hrm_runtime.market.actions import LEGAL, Action, Side
from hrm_runtime.market.features import Row, rows
from hrm_runtime.market.instruments import Instrument, Trading

HISTORY = 200
TRADING = Trading(
    cost_fraction=0.0002, brokerage_entry=25.0, brokerage_exit=35.0, stop_atr=1.5, target_atr=3.0
)
STEPS = 2_500
OFTEN = ("long", "short", "stop", "trail", "closed", "all in", "partial")

Versions = tuple[Rules, dict[str, Any]]
VERSIONS: dict[str, Versions] = {
    "host": (HOST, {}),
    "host-own-price": (HOST_OWN_PRICE, {"own_price": True}),
    "host-no-target": (HOST_NO_TARGET, {"target": False}),
}
"""The rules that a version of its environment has."""


@dataclass(frozen=True)
class Series:
    """Bars, what is traded there, and by how many lots."""

    bars: Bars
    traded: Traded
    capital: float
    magnitude: float
    """Of the lots: up to ten to the power of it."""

    @property
    def instrument(self) -> Instrument:
        low, high = self.traded.option_premium_range
        kind: Any = self.traded.type
        return Instrument(
            id=1, type=kind, lot_size=self.traded.lot_size, tick_size=0.05,
            premium_min=low, premium_max=high,
        )  # fmt: skip

    def environment(self, lookback: int, **version: Any) -> Environment:
        """From the first bar on that has a row, whose ATR it takes."""
        table, seen = rows(self.bars, HISTORY), self.bars[HISTORY - 1 :]
        frame = {"close": seen.close, "atr": np.array([row.atr for row in table])}
        return Environment(frame, self.traded, self.capital, lookback=lookback, **version)


def series(price: float, seed: int, **of: Any) -> Series:
    bars = random_bars(HISTORY + STEPS, seed=seed, price=price)
    grid = {name: (getattr(bars, name) / 0.05).round() * 0.05 for name in ("open", "close")}
    high, low = bars.high + 0.05, bars.low - 0.05
    return Series(Bars(bars.datetime, grid["open"], high, low, grid["close"]), **of)


SERIES = {
    "stock": series(480.0, seed=7, traded=Traded("stock", 1), capital=190_000.0, magnitude=2.1),
    "index": series(
        50_200.0, seed=8, traded=Traded("index", 35, (0.02, 0.03)), capital=2e6, magnitude=2.1
    ),
}


def decided(at: int, side: Side, magnitude: float) -> Decision:
    """Anything legal, and any number of lots, whole or not; more than is held to close half."""
    rng = np.random.default_rng(at)
    legal = LEGAL[side]
    action = legal[rng.choice(len(legal), p=[0.3, 0.3, 0.4] if len(legal) == 3 else [0.15, 0.85])]
    lots = 10 ** rng.uniform(0.0, magnitude)
    if side is not Side.FLAT and rng.random() < 0.5:
        lots = 1e5
    return replace(hold(Reason.OK, "dice"), action=action, quantity=float(lots))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", SERIES)
def test_a_book_is_the_host_s_account_at_every_step(name: str, version: str) -> None:
    of, (rules, how) = SERIES[name], VERSIONS[version]
    environment = of.environment(1, **how)
    book = Book(of.capital, of.instrument, TRADING, rules)
    atr = [row.atr for row in rows(of.bars, HISTORY)]
    bars, done, skipped = of.bars[HISTORY - 1 :], False, 0
    closes, opens, stamps = bars.close.tolist(), bars.open.tolist(), bars.datetime.tolist()
    while not done:
        at = environment.at + 1
        decision = decided(at, Side(int(np.sign(environment.lots))), of.magnitude)
        _, _, done, told = environment.step([int(decision.action), decision.quantity])
        skipped += not book.advance(decision, opens[at], closes[at], atr[at], stamps[at])
        assert book.cash - told["capital"] == 0.0
        assert book.account(closes[at]) == Account.of(environment.account())
    assert environment.at == STEPS
    happened = environment.happened
    assert skipped == happened["opening skipped"] + happened["closing skipped"]
    assert len(book.trades) == sum(happened[why] for why in ("stop", "target", "trail", "closed"))
    often = (*OFTEN, "closing cut" if name == "stock" else "opening cut")  # by leverage
    assert {event for event in often if happened[event] < 5} == set()
    assert (happened["target"] >= 5) == rules.target
    book.close(closes[-1], stamps[-1], Exit.END)
    profits = math.fsum(trade.profit for trade in book.trades)
    assert book.cash == pytest.approx(of.capital + profits, rel=1e-12)


def test_a_book_does_what_the_host_does_of_actions_that_are_not_legal() -> None:
    of, environment = SERIES["stock"], SERIES["stock"].environment(1)
    book = Book(of.capital, of.instrument, TRADING, HOST)
    atr = [row.atr for row in rows(of.bars, HISTORY)]
    bars, done, illegal = of.bars[HISTORY - 1 :], False, 0
    closes, stamps = bars.close.tolist(), bars.datetime.tolist()
    rng = np.random.default_rng(5)
    while not done:
        at, side = environment.at + 1, Side(int(np.sign(environment.lots)))
        action = Action(int(rng.integers(len(Action))))
        illegal += action not in LEGAL[side]
        decision = replace(hold(Reason.OK, "dice"), action=action, quantity=2.0)
        _, _, done, told = environment.step([int(action), 2.0])
        book.advance(decision, closes[at], closes[at], atr[at], stamps[at])
        assert book.cash - told["capital"] == 0.0
        assert book.account(closes[at]) == Account.of(environment.account())
    assert illegal > STEPS / 4
    assert len(book.trades) > STEPS / 10


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"fill": "Open"}, "expected fill to be 'open' or 'close', found 'Open'"),
        ({"fill": None}, "expected fill to be 'open' or 'close', found None"),
        ({"atr": "deciding"}, "expected atr to be 'decision' or 'fill', found 'deciding'"),
        ({"exits_at": "levels"}, "expected exits_at to be 'close' or 'level', found 'levels'"),
        ({"trailing": "no"}, "expected trailing to be True or False, found 'no'"),
        ({"ruin": 0}, "expected ruin to be True or False, found 0"),
        ({"all_in": math.nan}, "expected all_in to be a number of lots from 1 on, found nan"),
        ({"all_in": 0.0}, "expected all_in to be a number of lots from 1 on, found 0.0"),
        ({"all_in": "50"}, "expected all_in to be a number of lots from 1 on, found '50'"),
        ({"all_in": True}, "expected all_in to be a number of lots from 1 on, found True"),
        ({"atr": "fill"}, "found atr='fill' with fill='open', before that bar's ATR is known"),
    ],
)
def test_a_rule_that_is_none_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=f"^rules: .*{re.escape(message)}"):
        replace(OURS, **wrong)


@pytest.mark.parametrize("flag", [one.name for one in fields(Rules) if one.type is bool])
def test_every_flag_is_held_to_true_and_false(flag: str) -> None:
    wrong: Any = {flag: 1}
    with pytest.raises(BadInput, match=f"^rules: expected {flag} to be True or False, found 1$"):
        replace(OURS, **wrong)


def test_from_one_lot_on_any_number_may_mean_all() -> None:
    assert [replace(OURS, all_in=lots).all_in for lots in (1, 50.0, math.inf)] == [1, 50, math.inf]


@pytest.mark.parametrize("rules", ["host", None, {"fill": "open"}])
def test_what_is_no_rules_is_refused_with_those_there_are(rules: Any) -> None:
    of = SERIES["stock"]
    message = (
        f"rules: expected a Rules, found {rules!r}; take one of RULES by its name: RULES['ours']"
    )
    with pytest.raises(BadInput, match=re.escape(message)):
        Book(of.capital, of.instrument, TRADING, rules)


class Dice:
    """A model, and to the host an agent, that decides by the number of the bar."""

    def __init__(self, contract: Contract, of: Series, environment: Environment) -> None:
        instrument = replace(of.instrument, id=contract.instruments["Alpha"].id)
        self.contract = replace(
            contract,
            instruments={**contract.instruments, "Alpha": instrument},
            trading=TRADING,
            provenance=replace(contract.provenance, trained_until=0),
        )
        self.id = "dice"
        self.environment = environment
        self.magnitude = of.magnitude
        self.numbers = dict(zip(of.bars.datetime.tolist(), range(len(of.bars)), strict=True))
        self.seen: list[Account] = []

    def decide_rows(self, window: list[Row], account: Account, **on: str) -> Decision:
        self.seen.append(account)
        number = self.numbers[window[-1].datetime] + 2 - HISTORY  # of the bar it is filled in
        return decided(number, account.side, self.magnitude)

    def select_action(self, observation: object) -> tuple[int, float]:
        side = Side(int(np.sign(self.environment.lots)))
        decision = decided(self.environment.at + 1, side, self.magnitude)
        return int(decision.action), decision.quantity


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", SERIES)
def test_a_backtest_has_the_capital_that_the_host_s_engine_has(
    contract: Contract, name: str, version: str
) -> None:
    of, (rules, how) = SERIES[name], VERSIONS[version]
    environment = of.environment(contract.features.window, **how)
    model: Any = Dice(contract, of, environment)
    capital = engine_backtest(environment, model)
    on = {"instrument": "Alpha", "timeframe": "5"}
    found = backtest(model, of.bars, **on, capital=of.capital, rules=rules)
    assert [account.capital for account in model.seen] == capital[:-1]
    assert len(capital) == len(found.equity) == STEPS - contract.features.window + 2
    assert sum(environment.happened.values()) > 300
    assert found.used_up is None
