"""An agent in the host's environment, whose observations are read, refused, or not needed.

Every observation is made by a stub of the environment, which trades what the agent answers.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from host import LATER, agent_of
from live import NEEDED, ON, Live
from synthetic import random_bars
from trading_host import Environment, Observation, Traded, backtest, frame_of

from hrm_runtime import Account, Decision, HRMAgent, LiveEngine, Model, Reason
from hrm_runtime.live.observation import HOST_COLUMNS

BARS = random_bars(NEEDED + 40, seed=36)
LOOKBACK = 50
SHOWN = NEEDED - LOOKBACK
"""Bars before those that the environment has; the first decision has all its history."""

WITH_VOLUME = (*HOST_COLUMNS[:4], "volume", *HOST_COLUMNS[4:])


def environment(columns: Sequence[str] = HOST_COLUMNS, **how: Any) -> Environment:
    frame = frame_of(BARS[SHOWN:], columns)
    return Environment(frame, Traded("stock", 1), 1e5, lookback=LOOKBACK, **how)


class Followed:
    """Feeds the bars that the environment shows, asks the agent, and keeps decisions and accounts.

    Args:
        seen: what becomes of an observation on its way to the agent.
    """

    def __init__(
        self,
        agent: HRMAgent,
        environment: Environment,
        seen: Callable[[Observation], Observation] = lambda observation: observation,
        feed: bool = True,
    ) -> None:
        self.agent = agent
        self.environment = environment
        self.seen = seen
        self.feed = feed
        self.decisions: list[Decision] = []
        self.accounts: list[dict[str, float]] = []

    def select_action(self, observation: Observation) -> tuple[int, float]:
        if self.feed:
            self.agent.engine.feed(BARS[: SHOWN + self.environment.at + 1], **ON)
        self.decisions.append(self.agent.decide(self.seen(observation)))
        self.accounts.append(self.environment.account())
        return self.agent.select_action(self.seen(observation))


@pytest.fixture
def engine(live: Live) -> LiveEngine:
    return live(clock=LATER, stale_after={"5": 1e9})


def decided(model: Model, accounts: list[dict[str, float]], rounded: bool) -> list[Decision]:
    """What the model decides for these accounts, at one bar after the other."""
    made = []
    for number, values in enumerate(accounts, start=NEEDED):
        kept = {name: float(np.float32(value)) for name, value in values.items()}
        account = Account.of(kept if rounded else values)
        made.append(model.decide(BARS[:number], account, **ON))
    return made


@pytest.mark.parametrize("columns", [HOST_COLUMNS, WITH_VOLUME], ids=["usual", "volume"])
def test_a_raw_observation_is_read_and_traded(
    model: Model, engine: LiveEngine, columns: Sequence[str]
) -> None:
    traded = environment(columns)
    followed = Followed(agent_of(engine, columns=columns), traded)
    backtest(traded, followed)
    assert followed.decisions == decided(model, followed.accounts, rounded=True)
    assert len(followed.decisions) == 40
    assert any(account["is_position_open"] for account in followed.accounts)


@pytest.mark.parametrize("how", [{}, {"normalise": True}], ids=["raw", "normalised"])
def test_with_callables_any_observation_is_traded(
    model: Model, engine: LiveEngine, how: dict[str, bool]
) -> None:
    traded = environment(WITH_VOLUME, **how)
    agent = agent_of(
        engine,
        bars=lambda: BARS[: SHOWN + traded.at + 1],
        account=traded.account,
    )
    followed = Followed(agent, traded, seen=lambda observation: observation[:100], feed=False)
    backtest(traded, followed)
    assert followed.decisions == decided(model, followed.accounts, rounded=False)
    assert any(account["is_position_open"] for account in followed.accounts)


def test_normalised_observations_are_refused_from_the_tenth_on(engine: LiveEngine) -> None:
    traded = environment(normalise=True)
    followed = Followed(agent_of(engine), traded)
    backtest(traded, followed)
    reasons = [one.reason for one in followed.decisions]
    assert reasons == [Reason.OK] * 9 + [Reason.BAD_INPUT] * 31
    told = engine.health().streams["Alpha", "5"].message
    assert told is not None
    assert "it looks normalised; give raw observations, or the callables bars and account" in told


@pytest.mark.parametrize("kind", [list, tuple], ids=["list", "tuple"])
def test_both_parts_of_an_answer_are_traded_and_a_bare_number_is_not(
    engine: LiveEngine, kind: type
) -> None:
    traded = environment()
    agent = agent_of(engine, bars=lambda: BARS[: SHOWN + traded.at + 1], account=traded.account)
    action, lots = agent.act(None)
    assert action in (0, 1)
    traded.step(np.int64(action))
    assert traded.lots == 0
    traded.reset()
    traded.step(kind([action, lots]))
    affordable = math.floor((1e5 - 25) / BARS.close[SHOWN + LOOKBACK])
    assert traded.lots == (affordable if action == 0 else -affordable)
    assert lots > affordable


REFUSED = [
    pytest.param(
        WITH_VOLUME,
        lambda whole: whole,
        r"found 2706, as with 1 column \(volume\?\) more: name all columns",
        id="volume",
    ),
    pytest.param(
        HOST_COLUMNS,
        lambda whole: whole[:2456],
        r"found 2456, as with 4 columns \(open, .*\?\) fewer, or with the end cut off, where",
        id="cut",
    ),
    pytest.param(
        HOST_COLUMNS,
        lambda whole: whole[:-6],
        "which is no whole number of columns: something is cut off; at the end stand capital",
        id="without the account",
    ),
    pytest.param(
        HOST_COLUMNS, lambda whole: whole[None], r"found shape \[1, 2656\]: flatten it", id="batch"
    ),
]


@pytest.mark.parametrize(("columns", "seen", "why"), REFUSED)
def test_an_observation_that_cannot_be_read_is_hold_and_trades_nothing(
    engine: LiveEngine,
    columns: Sequence[str],
    seen: Callable[[Observation], Observation],
    why: str,
) -> None:
    traded = environment(columns)
    followed = Followed(agent_of(engine), traded, seen)
    assert backtest(traded, followed) == [1e5] * 41
    assert {one.reason for one in followed.decisions} == {Reason.BAD_INPUT}
    told = engine.health().streams["Alpha", "5"].message
    assert told is not None
    assert re.search(why, told)
